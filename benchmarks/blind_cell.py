"""Does practice need to be told of lost plugs, and how exactly must a wrist feel? -> results/blind_cell.json.

The simulator knows exactly when a plug is lost, that is turned or slid in the fingers, and what force is on them. A
cell may not notice a lost plug: then the trial goes on, it may be claimed and paid, and its frames are learned from as
any others. The fingers still hold the plug here, and most lost plugs are in the hole already, so that many such claims
are true; a cell whose plugs fall would lose more. And a wrist may measure force with noise: then the gate may refute
what is true and pay what is false. (The controller, which yields to force, is told the true one.) Both are put between
the simulated cell and practice; evaluations before and after are in the cell as it is, from the same start states.

    python benchmarks/blind_cell.py runs/desk --connectors gen-1-1 gen-1-7 gen-1-10 gen-1-15
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from practising import parsed, parser_for, rows_of

import lotj.open_fleet
from lotj.demo import Places, practise_in
from lotj.files import append_json, write_json
from lotj.guard import GuardConfig
from lotj.outcome import practice_outcome
from lotj.presets import load_preset
from lotj.provenance import provenance
from lotj.sim.env import HORIZON
from lotj.stages import features_path, load_offline, silent_bars, store_path
from lotj.trials import count_claims, read_records

ARMS = {"off": (False, 0.0), "off, lost plugs not told": (True, 0.0)}
ARMS |= {f"gate, force with {noise:g} N of noise": (False, noise) for noise in (0.0, 1.0, 3.0)}
"""Whether the cell is blind to lost plugs, and the standard deviation of its wrist's force on each axis, N."""
Task = tuple[Path, str, str, int, int]


class Senses(gymnasium.Wrapper):  # type: ignore[type-arg]
    """A simulated cell that senses less than the simulator knows.

    Args:
        env: the cell.
        blind: whether it is blind to lost plugs.
        noise: of its wrist's force on each axis, N.
        lost: file to which the seeds of trials with a lost plug are added.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], blind: bool, noise: float, lost: Path) -> None:
        super().__init__(env)
        self.blind, self.noise, self.lost = blind, noise, lost
        self._seed, self._steps, self._lost = 0, 0, False
        self._rng = np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        assert seed is not None, "practice names its seeds"
        # A trial depends on its own seed alone, also after a kill.
        self._rng, self._seed, self._steps, self._lost = np.random.default_rng([seed, 2]), seed, 0, False
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._steps += 1
        if info["dislodged"] and not self._lost:
            self._lost = True
            append_json(self.lost, self._seed)
        if self.blind:
            info, truncated = {**info, "dislodged": False}, self._steps >= HORIZON and not terminated
        felt = info["wrist_force"] + self.noise * self._rng.standard_normal(3)
        return observation, reward, terminated, truncated, {**info, "wrist_force": felt.astype(np.float32)}


def measure(task: Task) -> dict[str, Any]:
    """Practise one connector in one kind of cell; what is finished in its folder is reused."""
    run, connector, arm, seed, trials = task
    blind, noise = ARMS[arm]
    preset = load_preset(run)
    preset = replace(preset, threads=1, evaluate=replace(preset.evaluate, seed=1000 + seed))
    offline = load_offline(run, preset.split(), red_teamed=False)
    recipe = preset.practice.resolved("learned")
    guard = GuardConfig("gate" if arm.startswith("gate") else "off")
    recipe = replace(recipe, practice=replace(recipe.practice, trials=trials, guard=guard))
    folder = run / "blind-cell" / arm.replace(", ", "-").replace(" ", "-") / f"{connector}-s{seed}"
    places, lost = Places(store_path(run), features_path(run, recipe), folder), folder / "lost.jsonl"
    opened: Callable[..., gymnasium.Env[Any, Any]] = lotj.open_fleet.open_cell  # of practice alone
    lotj.open_fleet.open_cell = lambda *given, **named: Senses(opened(*given, **named), blind, noise, lost)
    try:
        practise_in(places, preset, offline, connector, recipe, seed, silent_bars, allow_validation=True)
    finally:
        lotj.open_fleet.open_cell = opened
    records, outcome = read_records(folder / "trials.jsonl"), practice_outcome(folder)
    seeds = {json.loads(line) for line in lost.read_text(encoding="utf-8").splitlines()} if lost.exists() else set()
    slid = [record for record in records if record.seed in seeds]
    return {
        "connector": connector,
        "arm": arm,
        "seed": seed,
        "trials": len(records),
        **count_claims(records),
        "lost": len(slid),
        "lost_and_claimed": sum(record.success for record in slid),
        "lost_and_claimed_falsely": sum(record.success and not record.true_at_success for record in slid),
        "both_scenarios": outcome["both_scenarios"],
    }


def main() -> None:
    arguments = parsed(parser_for(__doc__, 200, "results/blind_cell.json"))
    tasks = [
        (arguments.run, connector, arm, seed, arguments.trials)
        for seed in arguments.seeds
        for connector in arguments.connectors
        for arm in ARMS
    ]
    write_json(arguments.out, {**provenance(), "rows": rows_of(measure, tasks, arguments.workers)})


if __name__ == "__main__":
    main()
