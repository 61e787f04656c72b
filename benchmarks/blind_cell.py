"""What does practice lose in a cell that senses less? -> results/blind_cell.json.

The simulator knows exactly when a plug is lost in the fingers, and what force is on them. A cell may not notice a lost
plug: then the trial goes on, a claim may be paid for it, and its frames are learned from as any others. Its wrist may
measure force with noise: then the gate may refute what is true and pay what is false. Both are put between the
simulated cell and practice; evaluations before and after are in the cell as it is, from the same start states for all.

    python benchmarks/blind_cell.py runs/desk --connectors gen-1-1 gen-1-7 gen-1-10 gen-1-15
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

import lotj.open_fleet
from lotj.demo import Places, practise_in
from lotj.files import write_json
from lotj.guard import GuardConfig
from lotj.outcome import practice_outcome
from lotj.parallel import in_processes
from lotj.presets import load_preset
from lotj.provenance import provenance
from lotj.recipe import Offline
from lotj.sim.connectors import TEST_CONNECTORS
from lotj.sim.env import HORIZON
from lotj.stages import features_path, load_offline, silent_bars, store_path
from lotj.trials import read_records

ARMS = {"off": (False, 0.0), "off, lost plugs not told": (True, 0.0)}
ARMS |= {f"gate, force with {noise:g} N of noise": (False, noise) for noise in (0.0, 1.0, 3.0)}
"""Whether the cell is blind to lost plugs, and the standard deviation of its wrist's force on each axis, N."""
Task = tuple[Path, str, str, int, int]


class Senses(gymnasium.Wrapper):  # type: ignore[type-arg]
    """A simulated cell that senses less than the simulator knows."""

    def __init__(self, env: gymnasium.Env[Any, Any], blind: bool, noise: float) -> None:
        super().__init__(env)
        self.blind, self.noise = blind, noise
        self._rng, self._steps = np.random.default_rng(0), 0

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        self._steps = 0
        return self.env.reset(**options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._steps += 1
        if self.blind:
            info, truncated = {**info, "dislodged": False}, self._steps >= HORIZON and not terminated
        felt = info["wrist_force"] + self.noise * self._rng.standard_normal(3)
        return observation, reward, terminated, truncated, {**info, "wrist_force": felt.astype(np.float32)}


def measure(task: Task) -> dict[str, Any]:
    """Practise one connector in one kind of cell; what is finished in its folder is reused."""
    run, connector, arm, seed, trials = task
    blind, noise = ARMS[arm]
    opened: Callable[..., gymnasium.Env[Any, Any]] = lotj.open_fleet.open_cell
    lotj.open_fleet.open_cell = lambda *given, **named: Senses(opened(*given, **named), blind, noise)
    try:
        return _measure(run, connector, arm, seed, trials)
    finally:
        lotj.open_fleet.open_cell = opened


def _measure(run: Path, connector: str, arm: str, seed: int, trials: int) -> dict[str, Any]:
    preset = load_preset(run)
    preset = replace(preset, threads=1, evaluate=replace(preset.evaluate, seed=1000 + seed))
    offline: Offline = load_offline(run, preset.split(), red_teamed=False)
    recipe = preset.practice.resolved("learned")
    guard = GuardConfig("gate" if arm.startswith("gate") else "off")
    recipe = replace(recipe, practice=replace(recipe.practice, trials=trials, guard=guard))
    folder = run / "blind-cell" / arm.replace(", ", "-").replace(" ", "-") / f"{connector}-s{seed}"
    places = Places(store_path(run), features_path(run, recipe), folder)
    practise_in(places, preset, offline, connector, recipe, seed, silent_bars, allow_validation=True)
    records, outcome = read_records(folder / "trials.jsonl"), practice_outcome(folder)
    return {
        "connector": connector,
        "arm": arm,
        "seed": seed,
        "trials": len(records),
        "claimed": sum(record.success for record in records),
        "claimed_falsely": sum(record.success and not record.true_at_success for record in records),
        "paid_falsely": sum(bool(record.rewarded_frames) and not record.true_at_success for record in records),
        "refuted": sum(record.refuted for record in records),
        "refuted_wrongly": sum(record.refuted and bool(record.true_at_success) for record in records),
        "lost_and_told": sum(record.dislodged for record in records),
        "both_scenarios": outcome["both_scenarios"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder with trained networks and encoded frames")
    parser.add_argument("--connectors", nargs="+", required=True, help="validation connectors, or drawn ones")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results/blind_cell.json"))
    arguments = parser.parse_args()
    if reserved := sorted(set(arguments.connectors) & set(TEST_CONNECTORS)):
        parser.error(f"{', '.join(reserved)} serve for final numbers alone: name others, drawn at random, say")
    tasks = [
        (arguments.run, connector, arm, seed, arguments.trials)
        for seed in arguments.seeds
        for connector in arguments.connectors
        for arm in ARMS
    ]
    rows = []
    for row in in_processes(measure, tasks, arguments.workers):
        rows.append(row)
        print(json.dumps(row), flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out, {**provenance(), "rows": rows})


if __name__ == "__main__":
    main()
