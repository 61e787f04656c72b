"""What a practice left acts as it did there, and the job ends when the robot's own judge says that the plug is in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from lotj import cli, demo, pipeline, stages
from lotj.algos.policy import ImagePolicy
from lotj.cells.adapter import CellEnv
from lotj.cells.safety import CellStoppedError, JammedError, SafeCell
from lotj.guard import TugConfig
from lotj.judge import SuccessRule
from lotj.learned import OFFLINE, PRESS, PRESS_STEPS, Attempt, Learned, insert, load_learned, practice_of, recipe_of
from lotj.offline import load_policy
from lotj.presets import load_preset
from lotj.recipe import Offline, RecipeConfig
from tests.test_cells import SPEC, Constant, ToyRobot

HORIZON = 5


def test_a_practice_of_before_consent_acts_as_it_did() -> None:
    """Its configuration names nobody whose consent was asked; one that does is believed."""
    recipe = asdict(RecipeConfig())
    assert recipe_of({"config": {"recipe": recipe}}) == RecipeConfig()
    assert recipe["ensemble"].pop("consent") == "mean"
    assert recipe_of({"config": {"recipe": recipe}}).ensemble.consent == "none"


class Counter(gymnasium.Env[Any, Any]):
    """Its picture says how often it was reset, and the step."""

    action_space = spaces.Box(-1, 1, (3,), np.float32)

    def __init__(self) -> None:
        self.resets, self.step_number = 0, 0
        self.seeds: list[int | None] = []
        self.options: list[Any] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.resets, self.step_number = self.resets + 1, 0
        self.seeds.append(seed)
        self.options.append(options)
        return self._seen(), {}

    def step(self, action: Any) -> Any:
        self.step_number += 1
        return self._seen(), 0.0, False, self.step_number == HORIZON, {}

    def _seen(self) -> dict[str, Any]:
        return {"image": np.full((2, 2, 3), 10 * self.resets + self.step_number, np.uint8)}


class Believes:
    """A reward model that likes pictures of these values."""

    def __init__(self, liked: Sequence[int]) -> None:
        self.liked = liked

    def probability(self, image: Any) -> Any:
        return np.where(np.isin(image[:, 0, 0, 0], self.liked), 0.9, 0.2).astype(np.float32)


def learned(liked: Sequence[int], frames: int = 1) -> Learned:
    offline = SimpleNamespace(reward=Believes(liked), rule=SuccessRule(0.8, frames))
    return Learned(Constant(0.0, 0.0, -0.5), cast(Offline, offline), OFFLINE, "offline", False, None)


def test_the_job_ends_at_the_first_attempt_that_the_judge_believes() -> None:
    """Step 3 of attempt 2: two attempts of the three allowed, five and three steps, another start each."""
    env, heard = Counter(), []
    made = insert(env, learned([23]), 3, 0, {"scenario": "II"}, None, heard.append)
    assert [(len(a.trajectory), a.inserted) for a in made] == [(5, False), (3, True)] and heard == made
    assert [a.probability for a in made] == pytest.approx([0.2, 0.9])
    assert len(set(env.seeds)) == 2 and env.options == [{"scenario": "II"}] * 2
    assert made[1].trajectory.source == "insertion"
    again = Counter()
    insert(again, learned([23]), 3, 0)
    other = Counter()
    insert(other, learned([23]), 3, 1)
    assert again.seeds == env.seeds and not set(other.seeds) & set(env.seeds)


def test_a_streak_does_not_reach_from_one_attempt_into_the_next() -> None:
    """The last picture of one attempt and the first of the next are not two in a row."""
    made = insert(Counter(), learned([15, 21], frames=2), 2, 0)
    assert [a.inserted for a in made] == [False, False]


def test_no_attempt_is_no_job() -> None:
    with pytest.raises(ValueError, match="attempts: expected at least 1, got 0"):
        insert(Counter(), learned([]), 0, 0)


class AlwaysBelieves:
    def probability(self, image: Any) -> Any:
        return np.ones(len(image), np.float32)


@pytest.mark.parametrize(("frames", "inserted", "height"), [(2, True, 0.02), (9, False, SPEC.workspace_high[2])])
def test_an_own_cell_is_left_with_the_plug_in(frames: int, inserted: bool, height: float) -> None:
    """After two steps of 5 mm down from 30 mm; where the judge does not believe it, the robot ends above."""
    robot = ToyRobot()
    who = learned([])._replace(
        offline=cast(Offline, SimpleNamespace(reward=AlwaysBelieves(), rule=SuccessRule(0.8, frames)))
    )
    with SafeCell(CellEnv(SPEC, "plug", image_size=16, env=robot)) as env:
        made = insert(env, who, 1, 0)
    assert [a.inserted for a in made] == [inserted]
    assert robot.position[2] == pytest.approx(height, abs=1e-3)


def test_a_press_above_the_limit_is_no_insertion() -> None:
    """The judge may believe the picture: the safety layer has gone up meanwhile, and so the attempt has failed."""
    robot = ToyRobot(start=(0.0, 0.0, 0.001))
    who = learned([])._replace(
        policy=Constant(0.0, 0.0, -1.0),
        offline=cast(Offline, SimpleNamespace(reward=AlwaysBelieves(), rule=SuccessRule(0.8, 1))),
    )
    with SafeCell(CellEnv(SPEC, "plug", image_size=16, env=robot)) as env:
        (made,) = insert(env, who, 1, 0)
    assert made.trajectory.truncated and not made.trajectory.terminated and not made.inserted
    assert robot.position[2] == pytest.approx(SPEC.workspace_high[2], abs=1e-3)


def own(robot: ToyRobot, who: Learned, attempts: int = 1, left_in: Path | None = None, **options: Any) -> list[Attempt]:
    """Insert with a robot behind the safety layer."""
    made: list[Attempt] = []
    spec = replace(SPEC, dislodged="slipped", **options.pop("spec", {}))
    with SafeCell(CellEnv(spec, "plug", image_size=16, env=robot), left_in=left_in) as env:
        insert(env, who, attempts, 0, told=made.append, **options)
    return made


def believing(frames: int, *action: float) -> Learned:
    """Judges every picture a success, and acts always the same."""
    offline = SimpleNamespace(reward=AlwaysBelieves(), rule=SuccessRule(0.8, frames))
    return learned([])._replace(policy=Constant(*action), offline=cast(Offline, offline))


def test_a_plug_that_slipped_ends_the_job() -> None:
    """Whatever the judge believes; pressing a crooked plug again would not help."""
    for frames in (1, 9):
        robot = ToyRobot()
        robot.info = {"slipped": True}
        (made,) = own(robot, believing(frames, 0.0, 0.0, -0.5), attempts=3)
        assert not made.inserted and "slipped" in made.why
        assert robot.position[2] == pytest.approx(SPEC.workspace_high[2], abs=1e-3)


def test_a_jammed_plug_is_told_after_the_last_attempt_too() -> None:
    robot = ToyRobot(jammed=True)
    with pytest.raises(JammedError, match="Free it by hand"):
        own(robot, believing(9, 0.0, 0.0, -0.5), spec={"horizon": 3})


class Socket(ToyRobot):
    """Resists sideways, as a socket does; or does not."""

    def __init__(self, resists: bool) -> None:
        super().__init__()
        self.resists, self.side = resists, np.zeros(2)

    def observation(self) -> dict[str, Any]:
        told = super().observation()
        told["state"]["tcp_force"] = np.array([*(-8.0 * self.side if self.resists else self.side), 0.0])
        return told

    def step(self, action: Any) -> Any:
        self.side = np.asarray(action[:2], np.float64)
        return super().step(action)


def test_with_a_guard_what_the_judge_claims_must_be_held() -> None:
    """One that a tug moves fails and the robot goes up; one that resists is pressed home again and stays."""
    tug = TugConfig()
    free, held = Socket(False), Socket(True)
    (made,) = own(free, believing(2, 0.0, 0.0, -0.5), tug=tug)
    assert not made.inserted and "tug" in made.why
    assert free.position[2] == pytest.approx(SPEC.workspace_high[2], abs=1e-3)
    (made,) = own(held, believing(2, 0.0, 0.0, -0.5), tug=tug)
    assert made.inserted
    lifted = 0.01 * (tug.lift * tug.lift_steps)
    assert held.position[2] == pytest.approx(0.02 + lifted - 0.01 * PRESS * PRESS_STEPS)


def test_a_limit_ends_the_tug_and_the_press() -> None:
    """Sideways it resists above the limit: the robot backs off, and does not press down again."""
    held = Socket(True)
    (made,) = own(
        held, believing(2, 0.0, 0.0, -0.5), tug=TugConfig(), spec={"force": 5.0, "workspace_high": (0.05, 0.05, 0.3)}
    )
    assert "a force of" in made.why and not made.inserted
    down = [before[2] - after[2] for before, after in pairwise(held.visited)]
    assert not np.isclose(down, 0.01 * PRESS).any()


def test_a_held_plug_that_is_no_longer_seen_as_in_fails() -> None:
    """The judge looks once more after the tug."""

    class Until(AlwaysBelieves):
        seen = 0

        def probability(self, image: Any) -> Any:
            self.seen += 1
            return np.full(len(image), 1.0 if self.seen <= 2 else 0.0, np.float32)

    who = believing(2, 0.0, 0.0, -0.5)
    who = who._replace(offline=cast(Offline, SimpleNamespace(reward=Until(), rule=SuccessRule(0.8, 2))))
    (made,) = own(Socket(True), who, tug=TugConfig())
    assert made.why == "it was, until a tug"


def test_nothing_moves_a_cell_in_which_a_plug_was_left(tmp_path: Path) -> None:
    """Until a person has freed it and deleted the file that says so; a failed job leaves no such file."""
    marker = tmp_path / "cell" / "left-in.json"
    own(ToyRobot(), believing(9, 0.0, 0.0, -0.5), left_in=marker)
    assert not marker.exists()
    own(ToyRobot(), believing(2, 0.0, 0.0, -0.5), left_in=marker)
    assert json.loads(marker.read_text())["connector"] == "plug"
    robot = ToyRobot()
    with pytest.raises(CellStoppedError, match=r"left a plug in the socket.*then delete .*left-in\.json and repeat"):
        own(robot, believing(2, 0.0, 0.0, -0.5), left_in=marker)
    assert not robot.visited and not robot.resets
    marker.unlink()
    assert own(robot, believing(2, 0.0, 0.0, -0.5), left_in=marker)[0].inserted


def test_an_own_cells_word_counts() -> None:
    """Where its file says how success is known, a claim against it fails."""
    for told in (True, False):
        robot = ToyRobot()
        robot.info = {"in": told}
        made: list[Attempt] = []
        with SafeCell(CellEnv(replace(SPEC, success="info/in"), "plug", image_size=16, env=robot, truth=True)) as env:
            insert(env, believing(2, 0.0, 0.0, -0.5), 1, 0, told=made.append)
        assert made[0].inserted == told and ("the cell itself" in made[0].why) != told


def test_another_scale_is_refused(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """10 mm where the data had 5 would move twice as far: refused before the cell is opened."""
    cell = tmp_path / "cell.toml"
    text = Path("examples/rehearsal.toml").read_text()
    assert "metres_per_unit = 0.005" in text
    cell.write_text(text.replace("metres_per_unit = 0.005", "metres_per_unit = 0.01"))
    cell_opened: list[str] = []
    monkeypatch.setattr(pipeline, "open_cell", lambda *_, **__: cell_opened.append("opened"))
    for command in (["insert"], ["evaluate", "--trials", "1"], ["practice"], ["practice", "--reward", "ground-truth"]):
        with pytest.raises(SystemExit):
            cli.main([*command, "--run", str(tiny_run), "--connector", "hdmi-a", "--cell", str(cell)])
        assert "this cell moves [0.01" in capsys.readouterr().err and not cell_opened


def test_the_offline_policy_of_a_run(tiny_run: Path) -> None:
    """Without a practice it is the run's policy, with the run's reward and rule."""
    found = load_learned(tiny_run)
    image = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    rng = np.random.default_rng(0)
    wanted = ImagePolicy(load_policy(tiny_run / "policy")).act({"image": image}, rng)
    np.testing.assert_array_equal(found.policy.act({"image": image}, rng), wanted)
    assert found.name == "offline" and found.about == OFFLINE and not found.red_teamed
    assert found.judge().rule == found.offline.rule and found.judge() is not found.judge()


def test_a_practised_policy_acts_as_practice_left_it(tiny_run: Path, tmp_path: Path) -> None:
    """The learner's weights, the rule it practised with, and whose it is; ``insert`` finds it by itself."""
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    preset = load_preset(run)
    preset = replace(preset, evaluate=replace(preset.evaluate, trials=1))
    recipe = replace(preset.practice, practice=replace(preset.practice.practice, trials=2, warmup_trials=1))
    assert practice_of(run, "europlug", "sawyer-a") is None
    folder = demo.practice_stage(
        preset, run, preset.split(), "europlug", "learned", stages.silent_bars, recipe, force=True
    )
    assert practice_of(run, "europlug", "sawyer-a") == folder
    settings = json.loads((folder / "config.json").read_text())
    settings["config"]["rule"] = {"threshold": 0.123, "frames": 4}  # a stricter one, as preflight may choose
    (folder / "config.json").write_text(json.dumps(settings))
    found = load_learned(run, folder)
    assert found.offline.rule == SuccessRule(0.123, 4) != load_learned(run).offline.rule
    assert found.name == f"europlug-{folder.name}" and found.about["practised"] == "europlug"
    image = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    rng = np.random.default_rng(0)
    action = found.policy.act({"image": image}, rng)
    assert action.shape == (3,) and not np.allclose(action, load_learned(run).policy.act({"image": image}, rng))
    shutil.copytree(folder, folder.parent / "ensemble-learned-s9")
    with pytest.raises(ValueError, match=r"europlug was practised 2 times in this cell: say which, .*-s0 or .*-s9"):
        practice_of(run, "europlug", "sawyer-a")
    config = folder.parent / "ensemble-learned-s9" / "config.json"
    truth = json.loads(config.read_text())
    truth["config"]["recipe"]["practice"]["reward"] = "ground-truth"
    config.write_text(json.dumps(truth))
    assert practice_of(run, "europlug", "sawyer-a") == folder
    assert practice_of(run, "europlug", "sawyer-b") is None and practice_of(run, "europlug", "bench.toml") is None
    with pytest.raises(ValueError, match="expected a practice of this run's networks"):
        load_learned(tiny_run, folder)
    (folder / "done.json").unlink()
    with pytest.raises(FileNotFoundError, match="not the folder of a finished practice"):
        load_learned(run, folder)
    with pytest.raises(ValueError, match=r"-s0 is not finished: repeat .* --offline"):
        practice_of(run, "europlug", "sawyer-a")


def test_the_command(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Says who acts, each attempt and the next command; exit code 4 where it is not in; a film where asked for."""
    film = tmp_path / "film.webp"
    with pytest.raises(SystemExit) as left:
        cli.main(["insert", "--run", str(tiny_run), "--connector", "hdmi-a", "--attempts", "2", "--film", str(film)])
    out = capsys.readouterr().out
    assert left.value.code == 4 and film.stat().st_size > 1000
    assert "hdmi-a: the offline policy acts" in out and 1 <= out.count("probability of success up to") <= 2
    assert "not in (" in out and "; ground truth: not in" in out and "Not inserted in" in out
    assert f"Next: lotj practice --run {tiny_run} --connector hdmi-a" in out.replace("\n", " ")
    with pytest.raises(SystemExit) as left:
        cli.main(["insert", "--run", str(tiny_run), "--connector", "hdmi-a", "--film", "film.gif"])
    assert left.value.code == 2 and "ends in .mp4 or .webp" in capsys.readouterr().err


def test_the_command_judges_as_the_reward_was_found_to_deserve(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a practice, the rule of the answer that was asked before one, and its warning."""
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    rules: list[SuccessRule] = []

    def inserts(env: Any, who: Learned, attempts: int, seed: int, options: Any, tug: Any, told: Any) -> None:
        rules.append(who.offline.rule)
        told(Attempt(insert(Counter(), learned([11]), 1, 0)[0].trajectory, True, 0.9, ""))

    insert_here = ["insert", "--run", str(run), "--connector", "hdmi-a"]
    monkeypatch.setattr("lotj.learned.insert", inserts)
    cli.main(insert_here)
    assert "trusted alone" not in capsys.readouterr().out
    preset = load_preset(run)
    asked = (preset, run, "hdmi-a", preset.practice.preflight, preset.seed)
    answer = demo.preflight_stage(preset, run, preset.split(), *asked[2:])
    path = demo.preflight_path(*asked)
    answer |= {"fires": answer["presses"], "chosen_fires": answer["presses"]}
    answer |= {"reason": "it likes [what] it sees", "rule": {"threshold": 0.123, "frames": 4}}
    path.write_text(json.dumps(answer))
    cli.main(insert_here)
    assert "Not to be trusted alone: it likes [what] it sees" in capsys.readouterr().out
    assert rules == [load_learned(run).offline.rule, SuccessRule(0.123, 4)]
    path.write_text(json.dumps(answer | {"config": {}}))
    with pytest.raises(SystemExit):
        cli.main(insert_here)
    assert "was asked with another config" in capsys.readouterr().err


def test_the_command_when_it_is_in(
    tiny_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 0, and how many attempts it took; not against ground truth."""

    trial = insert(Counter(), learned([11]), 1, 0)[0].trajectory
    truth = replace(trial, privileged={"success": np.array([False, True])})
    wrong = replace(trial, privileged={"success": np.array([False, False])})

    def inserts(env: Any, who: Learned, attempts: int, seed: int, options: Any, tug: Any, told: Any) -> None:
        told(Attempt(trial, False, 0.1, "by the robot's own reward"))
        told(Attempt(seen.pop(), True, 0.9, ""))

    monkeypatch.setattr("lotj.learned.insert", inserts)
    seen = [wrong, truth, trial]
    for _ in range(2):
        cli.main(["insert", "--run", str(tiny_run), "--connector", "hdmi-a"])
        assert "Inserted, attempt 2 of 3 at most" in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        cli.main(["insert", "--run", str(tiny_run), "--connector", "hdmi-a"])
    assert left.value.code == 4 and "ground truth says that it is not" in capsys.readouterr().out
