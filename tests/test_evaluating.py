"""Evaluations in a run's folder are of the connector that they say."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from lotj import stages
from lotj.evaluating import evaluate_stage
from lotj.presets import load_preset
from lotj.sim.connectors import get_connector
from lotj.sim.toml import save_connector


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
