"""Evaluations in a run's folder are of the connector that they say."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from lotj import stages
from lotj.algos.policy import ImagePolicy
from lotj.evaluate import TrialResult
from lotj.evaluating import evaluate_stage
from lotj.pipeline import evaluate_policy
from lotj.presets import load_preset
from lotj.sim.connectors import get_connector
from lotj.sim.toml import save_connector
from lotj.types import Trajectory


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
