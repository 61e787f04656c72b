"""What benchmarks/blind_cell.py puts between the simulated cell and practice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from lotj.sim.env import HORIZON


@pytest.fixture
def senses(benchmark: Callable[[str], Any]) -> Any:
    """The benchmark's wrapper."""
    return benchmark("blind_cell").Senses


class LosingCell(gymnasium.Env[Any, Any]):
    """Loses its plug in the third step, ends the trial there as the simulated cell does, and feels 1, 2 and 3 N."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.steps = 0
        return {}, {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        lost = self.steps >= 3
        return {}, 0.0, False, lost, {"dislodged": lost, "wrist_force": np.array([1.0, 2.0, 3.0], np.float32)}


def trial(cell: gymnasium.Env[Any, Any], seed: int) -> list[dict[str, Any]]:
    """What a trial's steps said, until it was truncated."""
    cell.reset(seed=seed)
    said = []
    for _ in range(2 * HORIZON):
        *_, truncated, info = cell.step(None)
        said.append(info)
        if truncated:
            return said
    raise AssertionError("the trial does not end")


def test_a_blind_cell_says_nothing_of_a_lost_plug_and_goes_on(senses: Any, tmp_path: Path) -> None:
    """Its trial has all its steps; the benchmark still knows in which trials a plug was lost, once each."""
    lost = tmp_path / "lost.jsonl"
    said = trial(senses(LosingCell(), True, 0.0, lost), 7)
    assert len(said) == HORIZON
    assert not any(info["dislodged"] for info in said)
    assert [json.loads(line) for line in lost.read_text().splitlines()] == [7]


def test_a_cell_that_sees_says_it_and_ends(senses: Any, tmp_path: Path) -> None:
    """Without blindness the wrapper changes neither."""
    said = trial(senses(LosingCell(), False, 0.0, tmp_path / "lost.jsonl"), 7)
    assert [info["dislodged"] for info in said] == [False, False, True]


def test_noise_is_of_the_size_asked_for_and_of_the_trials_seed_alone(senses: Any, tmp_path: Path) -> None:
    """A trial that is repeated after a kill feels what it felt."""
    cell = senses(LosingCell(), True, 2.0, tmp_path / "lost.jsonl")
    felt = {seed: np.array([info["wrist_force"] for info in trial(cell, seed)]) for seed in range(40)}
    again = np.array([info["wrist_force"] for info in trial(cell, 5)])
    np.testing.assert_array_equal(again, felt[5])
    noise = np.concatenate(list(felt.values())) - [1.0, 2.0, 3.0]
    assert noise.std(axis=0) == pytest.approx(2.0, rel=0.1)
    assert abs(noise.mean(axis=0)).max() < 0.3
    exact = trial(senses(LosingCell(), False, 0.0, tmp_path / "lost.jsonl"), 7)
    np.testing.assert_array_equal(exact[0]["wrist_force"], [1.0, 2.0, 3.0])
