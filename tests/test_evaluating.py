"""Evaluations in a run's folder are of the connector that they say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lotj import cli, demo, film, stages
from lotj.algos.policy import ImagePolicy
from lotj.cells.calibration import Calibration, save_calibration
from lotj.cells.opening import tells_success
from lotj.cells.spec import load_cell
from lotj.checkpoint import load_state, save_state
from lotj.evaluate import EvaluateConfig, TrialResult
from lotj.evaluating import evaluate_stage
from lotj.fleet import Cells
from lotj.learned import load_learned
from lotj.pipeline import evaluate_policy
from lotj.presets import load_preset
from lotj.redteam import is_red_teamed
from lotj.report import video
from lotj.report.video import compose
from lotj.run import RunMismatchError
from lotj.sim.connectors import get_connector
from lotj.sim.toml import save_connector
from lotj.types import Observation, Trajectory


def test_an_edited_connector_is_not_answered_from_the_old_one(tiny_run: Path, tmp_path: Path) -> None:
    """The same path with another depth: what was evaluated is refused, not passed off as its."""
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    preset = load_preset(run)
    preset = replace(preset, evaluate=replace(preset.evaluate, trials=1, seed=77))
    plug = replace(get_connector("gen-0-0"), name="bench-plug", group="bench-plug")
    save_connector(plug, tmp_path)
    path = str(tmp_path / "bench-plug.toml")

    def ask() -> dict:
        return evaluate_stage(preset, run, preset.split(), path, None, stages.silent_bars)

    first = ask()
    assert first["policy"]["described"]["insertion_depth"] == plug.insertion_depth and ask() == first
    save_connector(replace(plug, insertion_depth=plug.insertion_depth + 0.001), tmp_path)
    with pytest.raises(ValueError, match="before it was edited"):
        ask()


def test_what_other_networks_left_does_not_pass_for_these(tiny_run: Path, tmp_path: Path) -> None:
    """Trained anew in the same folder: evaluation, answer before practice and practice are of those that were there."""
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    preset = load_preset(run)
    preset = replace(preset, evaluate=replace(preset.evaluate, trials=1, seed=78))
    practice = replace(preset.practice, practice=replace(preset.practice.practice, trials=2))
    known, asked = preset.split(), replace(practice.preflight, presses=2, attempts=0)
    practice = replace(practice, preflight=asked)

    def practise() -> Path:
        return demo.practice_stage(preset, run, known, "europlug", "learned", stages.silent_bars, practice, force=True)

    practised = practise()

    def all_of_it() -> dict[str, Any]:
        return {
            "an evaluation": lambda: evaluate_stage(preset, run, known, "europlug", None, stages.silent_bars),
            "an answer": lambda: demo.preflight_stage(preset, run, known, "europlug", asked, preset.seed),
            "a practice": lambda: load_learned(run, practised),
            "its repetition": practise,
        }

    for again in all_of_it().values():
        again()
    path = run / "reward" / "model.safetensors"
    state = load_state(path)
    for tensor in state["network"].values():
        if tensor.dtype == torch.float32:
            tensor.mul_(1.01)
    save_state(path, state, seconds=1.0)
    told = {"an evaluation": "other networks", "an answer": "networks", "a practice": "other networks"}
    for name, again in all_of_it().items():
        with pytest.raises(ValueError, match=told.get(name, "networks")):
            again()
    (failed,) = film.film_practices(preset, run, [practised], stages.silent_bars)  # a report does without its film
    assert "is not filmed" in failed and "other networks" in failed
    stages.report_stage(preset, run, known, [practised])
    assert "no Grad-CAM" in (run / "report.html").read_text()
    held = json.loads((practised / "config.json").read_text())
    del held["config"]["networks"]  # practices of before do not say
    (practised / "config.json").write_text(json.dumps(held))
    load_learned(run, practised)
    stages.report_stage(preset, run, known, [practised])
    assert "no Grad-CAM" not in (run / "report.html").read_text()


def test_a_cell_with_starts_of_its_own_is_evaluated_once(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not once as scenario I and once as II, which it does not honour: the trials are the robot's time."""
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    cell = tmp_path / "cell.toml"
    text = Path("examples/rehearsal.toml").read_text()
    cell.write_text(
        text.replace("image_size = 128", "image_size = 32").replace("scenarios = true", "scenarios = false")
    )
    preset = load_preset(run)
    preset = replace(preset, robot=str(cell), evaluate=replace(preset.evaluate, trials=2))
    told = evaluate_stage(preset, run, preset.split(), "hdmi-a", None, stages.silent_bars)
    assert list(told["summary"]) == ["own"] and len(told["trials"]) == 2
    assert not list(run.rglob("*.partial.jsonl"))


def test_what_an_edited_cell_measured_does_not_pass_for_what_it_would_now(tiny_run: Path, tmp_path: Path) -> None:
    """What is seen or done is another cell's: evaluation, answer, practice; what is called success, an evaluation's
    alone. Limits may be edited, and what was measured before files said so is taken."""
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    cell = tmp_path / "cell.toml"
    text = Path("examples/rehearsal.toml").read_text().replace("image_size = 128", "image_size = 32")
    cell.write_text(text)
    preset = load_preset(run)
    preset = replace(preset, robot=str(cell), evaluate=replace(preset.evaluate, trials=1))
    known, asked = preset.split(), replace(preset.practice.preflight, presses=2, attempts=0)
    recipe = replace(preset.practice, practice=replace(preset.practice.practice, trials=1), preflight=asked)

    def practise() -> Path:
        return demo.practice_stage(preset, run, known, "hdmi-a", "learned", stages.silent_bars, recipe, force=True)

    def evaluated() -> dict[str, Any]:
        return evaluate_stage(preset, run, known, "hdmi-a", None, stages.silent_bars)

    def answered() -> dict[str, Any]:
        return demo.preflight_stage(preset, run, known, "hdmi-a", asked, preset.seed)

    out, first, _ = practise(), evaluated(), answered()
    cell.write_text(text.replace("practice_impulse = 6000.0", "practice_impulse = 5000"))
    assert load_cell(cell).practice_impulse == 5000 and evaluated() == first and practise() == out
    cell.write_text(text.replace('from = "info/succeed"', 'from = "info/succeed"\nabove = -1.0'))
    assert load_cell(cell).success_above == -1
    answered()
    for again in (evaluated, practise):
        with pytest.raises(ValueError, match="before its file or calibration was edited"):
            again()
    cell.write_text(text.replace("[observation]", "[observation]\ncrop = [0, 0, 24, 24]"))
    assert load_cell(cell).crop is not None
    with pytest.raises(ValueError, match="before its file or calibration was edited"):
        evaluated()
    for again in (answered, practise):
        with pytest.raises(ValueError, match="with another cell"):
            again()
    (answer,) = (run / "preflight").iterdir()
    answer.unlink()
    with pytest.raises(ValueError, match="before its file or calibration was edited"):
        practise()
    (out / "evaluation-before.json").unlink()
    with pytest.raises(RunMismatchError, match="own_cells"):
        practise()
    (path,) = (run / "evaluations" / "hdmi-a").iterdir()
    held = json.loads(path.read_text())
    del held["policy"]["cell"]
    path.write_text(json.dumps(held))
    assert evaluated() == held


def test_the_diagnostic_is_of_the_reward_before_attacks(tiny_run: Path, tmp_path: Path) -> None:
    """Ground truth pays: a reward that was red-teamed since makes no other practice of it."""
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    preset = load_preset(run)
    preset = replace(preset, evaluate=replace(preset.evaluate, trials=1))
    recipe = replace(preset.practice, practice=replace(preset.practice.practice, trials=1))

    def practise() -> Path:
        return demo.practice_stage(
            preset, run, preset.split(), "europlug", "ground-truth", stages.silent_bars, recipe, force=True
        )

    out = practise()
    held = {path.name: path.read_bytes() for path in out.glob("evaluation-*.json")}
    shutil.copytree(run / "reward", run / "redteam" / "reward")
    path = run / "redteam" / "reward" / "model.safetensors"
    state = load_state(path)
    for tensor in state["network"].values():
        if tensor.dtype == torch.float32:
            tensor.mul_(1.01)
    save_state(path, state, seconds=1.0)
    assert is_red_teamed(run) and practise() == out
    assert held == {path.name: path.read_bytes() for path in out.glob("evaluation-*.json")}


def test_an_own_cell_stops_in_an_evaluation_too(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run's STOP file ends it, and the code tells."""
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    cell = tmp_path / "cell.toml"
    cell.write_text(Path("examples/rehearsal.toml").read_text().replace("image_size = 128", "image_size = 32"))
    (run / "STOP").touch()
    with pytest.raises(SystemExit) as ended:
        cli.main(["evaluate", "--run", str(run), "--connector", "hdmi-a", "--cell", str(cell), "--trials", "1"])
    assert ended.value.code == 3 and "STOP exists" in capsys.readouterr().err


def test_a_cell_that_knows_by_pose_practises_what_is_not_calibrated(tiny_run: Path, tmp_path: Path) -> None:
    """It is not evaluated then, before or after; calibrated, it would be."""
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    cell = tmp_path / "cell.toml"
    text = Path("examples/rehearsal.toml").read_text().replace("image_size = 128", "image_size = 32")
    cell.write_text(text.replace('from = "info/succeed"', 'from = "pose"'))
    preset = load_preset(run)
    practice = replace(preset.practice, practice=replace(preset.practice.practice, trials=1))
    practice = replace(practice, preflight=replace(practice.preflight, presses=0, attempts=0))
    preset = replace(preset, robot=str(cell))
    known = preset.split()
    out = demo.practice_stage(preset, run, known, "hdmi-a", "learned", stages.silent_bars, practice)
    assert (out / "done.json").exists() and not list(out.glob("evaluation-*.json"))
    with pytest.raises(ValueError, match=r"does not tell when hdmi-a is inserted.*lotj cell calibrate"):
        evaluate_stage(preset, run, known, "hdmi-a", None, stages.silent_bars)
    assert not tells_success(str(cell), "hdmi-a") and tells_success("sawyer-a", "hdmi-a")
    save_calibration(cell.with_suffix(""), Calibration("hdmi-a", (0.6, 0.0, 0.08), 0.01))
    assert tells_success(str(cell), "hdmi-a")


def test_two_cells_of_one_name_do_not_practise_together(tiny_run: Path, tmp_path: Path) -> None:
    """What is kept of each, such as its contact, would be one."""
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    text = Path("examples/rehearsal.toml").read_text().replace("image_size = 128", "image_size = 32")
    cells = [tmp_path / "a.toml", tmp_path / "b.toml"]
    for path in cells:
        path.write_text(text)
    preset = load_preset(run)
    practice = replace(preset.practice, preflight=replace(preset.practice.preflight, presses=0, attempts=0))
    preset = replace(preset, robot=str(cells[0]), evaluate=replace(preset.evaluate, trials=1))
    both = Cells((str(cells[0]), str(cells[1])))
    with pytest.raises(ValueError, match="same name"):
        demo.practice_stage(preset, run, preset.split(), "hdmi-a", "learned", stages.silent_bars, practice, cells=both)


def test_trials_of_other_networks_are_not_gone_on_with(tiny_run: Path, tmp_path: Path) -> None:
    """A stopped evaluation is continued by the same weights, and begun anew by others, acting or judging."""
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    preset = load_preset(run)
    preset = replace(preset, evaluate=replace(preset.evaluate, trials=2, scenarios=("I",), seed=78))
    offline = stages.load_offline(run, preset.split())

    def rolled(stop: int | None = None) -> int:
        trials: list[Trajectory] = []

        def told(result: TrialResult, trajectory: Trajectory | None) -> None:
            trials.extend([] if trajectory is None else [trajectory])
            if len(trials) == stop:
                raise KeyboardInterrupt

        args = (preset.evaluate, preset.image_size, preset.cameras, tmp_path / "out" / "before.json", told)
        with suppress(KeyboardInterrupt):
            evaluate_policy("europlug", preset.robot, ImagePolicy(offline.policy), offline, *args)
        return len(trials)

    for network in (offline.policy, offline.reward.network):
        assert rolled(stop=1) == 1
        next(network.parameters()).data.mul_(1.5)
        assert rolled(stop=1) == 1 and rolled() == 1


def test_a_film_shows_the_trials_that_were_counted(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Start, course and belief of each trial of the film are those of the evaluation of the same seed; the pictures are
    somebody else's than the robot's."""
    run, out = Path(shutil.copytree(tiny_run, tmp_path / "run")), tmp_path / "films" / "both.webp"
    shown: list[tuple[Sequence[Trajectory], Sequence[Any], str]] = []

    def composed(trials: Sequence[Trajectory], seen: Sequence[Any], captions: Sequence[str], limit: float) -> Any:
        shown.append((trials, seen, captions[0]))
        return compose(trials, seen, captions, limit)

    monkeypatch.setattr(film, "compose", composed)
    asked = ["evaluate", "--run", str(run), "--connector", "europlug", "--trials", "2", "--film", str(out)]
    cli.main([*asked, "--seed", "79"])
    evaluation = json.loads((run / "evaluations" / "europlug" / "offline-s79-n2.json").read_text())
    counted = [trial for trial in evaluation["trials"] if trial["scenario"] == "II"]
    ((trials, seen, caption),) = shown
    assert len(trials) == len(counted) == 2 and caption == "offline policy, start 1"
    for trial, probability, told in zip(trials, seen, counted, strict=True):
        np.testing.assert_allclose(trial.privileged["tip_in_socket"][0], told["start"], atol=1e-6)
        distance = np.linalg.norm(trial.privileged["tip_in_socket"][1:], axis=1)
        np.testing.assert_allclose(distance, told["distance"], atol=1e-6)
        assert trial.privileged["success"][1:].tolist() == told["success"]
        np.testing.assert_allclose(probability[1:], told["probability"], atol=1e-4)
        assert trial.image.shape == (len(trial) + 1, film.SIDE, film.SIDE, 3)
        # From outside the arm moves and most of the cell does not.
        changed = np.any(trial.image[0] != trial.image[-1], axis=-1).mean()
        assert 0.01 < changed < 0.5
    with Image.open(out) as written:
        assert written.width == 2 * film.SIDE + 8 and getattr(written, "n_frames", 1) > 5


@pytest.mark.parametrize(
    ("diagnostic", "validation", "said"),
    [
        (False, False, "after practice"),
        (True, False, "diagnostic"),
        (False, True, "validation"),
        (True, True, "diagnostic, validation"),
    ],
)
def test_a_film_says_what_must_be_said(diagnostic: bool, validation: bool, said: str) -> None:
    assert film.caption({"diagnostic": diagnostic, "validation": validation}) == said


def test_rows_of_a_film_wait_for_each_other(tiny_run: Path, tmp_path: Path) -> None:
    """Who loses the plug early stays as it was till the others are done; each row says who it is."""
    learned = load_learned(tiny_run)
    down = learned._replace(policy=Down())
    config = EvaluateConfig(trials=1, scenarios=("I",), acting_std=0.0, connector="europlug")
    heights = []
    for number, acting in enumerate(({"a": learned}, {"a": learned, "b": down})):
        path = tmp_path / f"{number}.webp"
        film.film("europlug", "sawyer-a", acting, config, 32, 2, path)
        with Image.open(path) as written:
            heights.append(written.height)
    assert heights[1] == 2 * heights[0]


class Down:
    """Presses."""

    def reset(self) -> None: ...

    def act(self, observation: Observation, rng: np.random.Generator, explore: bool = False) -> np.ndarray:
        return np.array([0.3, 0.0, -1.0], np.float32)


def test_trials_before_practice_are_computed_as_those_after_it(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the preset's number of threads, on which the last bits of an action depend, whatever the process had."""
    seen: list[int] = []

    def evaluated(*_: object) -> None:
        seen.append(torch.get_num_threads())
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "evaluate_in", evaluated)
    preset = replace(load_preset(tiny_run), threads=1)
    places = demo.Places(stages.store_path(tiny_run), tmp_path / "f.safetensors", tmp_path / "practice")
    offline = stages.load_offline(tiny_run, preset.split())
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with suppress(KeyboardInterrupt):
            demo.practise_in(places, preset, offline, "europlug", preset.practice, 0, stages.silent_bars)
    finally:
        torch.set_num_threads(before)
    assert seen == [1]


def test_another_cell_is_evaluated_for_itself(tiny_run: Path, tmp_path: Path) -> None:
    """What one robot of the simulator did is no answer about the other."""
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    preset = load_preset(run)
    preset = replace(preset, evaluate=replace(preset.evaluate, trials=1, seed=80))
    one, other = (
        evaluate_stage(replace(preset, robot=robot), run, preset.split(), "europlug", None, stages.silent_bars)
        for robot in ("sawyer-a", "sawyer-b")
    )
    assert one["trials"] != other["trials"]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--film", "film.gif"], "ends in .mp4 or .webp"),
        (["--film", "film.mp4"], "has no H.264 encoder here; name a .webp"),
        (["--film", "film.webp", "--cell", "bench.toml"], "only the simulated cell can be seen from beside"),
    ],
)
def test_a_film_that_cannot_be_made_is_refused_before_anything_moves(
    extra: list[str],
    message: str,
    tiny_run: Path,
    files_of: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(video, "H264", "no-such-codec")
    before = files_of(tiny_run)
    with pytest.raises(SystemExit) as left:
        cli.main(["evaluate", "--run", str(tiny_run), "--connector", "europlug", *extra])
    assert left.value.code == 2 and message in capsys.readouterr().err
    assert files_of(tiny_run) == before
