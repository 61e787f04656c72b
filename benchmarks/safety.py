"""Does anything get around the safety layer, and does a pose captured once collect true labels? -> results/cells.json.

Policies that try to break out drive our simulator as if it were somebody's robot (`examples/rehearsal.toml`): what is
counted is the tool's own way, in the simulator, not what the layer says of itself. Then connectors that were calibrated
by driving them in once are collected by the scripted expert, and success by pose is held against the simulator's truth.

    python benchmarks/safety.py
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from lotj.cells.adapter import CellEnv, make_env
from lotj.cells.calibration import save_calibration
from lotj.cells.check import check_cell
from lotj.cells.collecting import PoseExpert, StartAbove, calibrate
from lotj.cells.safety import CellStoppedError, SafeCell
from lotj.cells.spec import CellSpec, load_cell
from lotj.files import write_json
from lotj.provenance import provenance
from lotj.rollout import policy_rng, rollout

EXAMPLE = Path(__file__).parent.parent / "examples" / "rehearsal.toml"
Attack = Callable[[int, np.random.Generator], Any]

ATTACKS: dict[str, Attack] = {
    "straight down": lambda step, rng: (0, 0, -1),
    "through the wall": lambda step, rng: (1e9, -1e9, 0),
    "down and aside": lambda step, rng: (1, 1, -1),
    "hammering": lambda step, rng: (0, 0, 1 if step % 4 == 0 else -1),
    "random, ten times too large": lambda step, rng: rng.normal(0, 10, 3),
    "never up": lambda step, rng: (*rng.uniform(-1, 1, 2), -abs(rng.normal())),
}


def attack(spec: CellSpec, name: str, connectors: list[str], trials: int, horizon: int) -> dict[str, Any]:
    """Trials of one policy that knows no limits; what the tool did, in the simulator's own numbers."""
    low, high = np.array(spec.workspace_low), np.array(spec.workspace_high)
    outside = longest = force = 0.0
    cut: dict[str, int] = {}
    stopped: dict[str, int] = {}
    steps = 0
    for connector in connectors:
        with SafeCell(CellEnv(replace(spec, horizon=horizon), connector, image_size=16)) as cell:
            sim = cell.cell.env.unwrapped.sim  # type: ignore[attr-defined]
            for trial in range(trials):
                rng = np.random.default_rng([trial, len(connector)])
                try:
                    cell.reset(seed=trial, options={"scenario": "mixed"})
                    for step in range(horizon):
                        _, _, _, truncated, info = cell.step(np.array(ATTACKS[name](step, rng), np.float64))
                        there = cell.reading.position.copy()
                        steps += 1
                        outside = max(outside, float(np.max([low - there, there - high])))
                        longest = max(longest, float(np.linalg.norm(info["sent_action"] * cell.action_scale)))
                        force = max(force, float(np.linalg.norm(sim.wrench[:3])), float(info["force"]))
                        if truncated:
                            why = info.get("safety", "horizon or dislodged").split(" of ")[-1].split(" (")[0]
                            kind = "contact budget" if "contact" in why else "force" if " N" in why else why
                            cut[kind] = cut.get(kind, 0) + 1
                            break
                except CellStoppedError as error:
                    kind = type(error).__name__ + ": " + "".join(c for c in str(error) if not c.isdigit())[:60]
                    stopped[kind] = stopped.get(kind, 0) + 1
    return {
        "policy": name,
        "connectors": connectors,
        "trials": trials * len(connectors),
        "steps": steps,
        "metres_outside_of_the_workspace": max(0.0, outside),
        "longest_step_sent": longest,
        "largest_force": force,
        "trials_ended_by": cut,
        "stopped": stopped,
    }


def by_pose(connector: str, trials: int, folder: Path) -> dict[str, Any]:
    """Calibrate by driving in once, collect by the scripted expert, and compare success by pose with the truth."""
    spec = replace(
        load_cell(EXAMPLE), expert=None, success="pose", kwargs={"image_size": 32, "fixed": True, "horizon": 1000}
    )
    env = make_env(spec, connector)
    sim = env.unwrapped.sim  # type: ignore[attr-defined]
    depth = sim.connector.insertion_depth

    def way() -> Any:
        x, y, z = -sim.tip_in_socket
        yield x, y, 0.0
        for _ in range(4):
            yield 0.0, 0.0, z / 4 - 1e-4

    with SafeCell(CellEnv(replace(spec, success=None), connector, image_size=32, env=env)) as cell:
        calibration = calibrate(cell, connector, depth, way(), lambda question: bool(sim.success))
    save_calibration(folder, calibration)
    agree = {"both": 0, "pose alone": 0, "truth alone": 0, "neither": 0}
    env = make_env(spec, connector)
    sim = env.unwrapped.sim  # type: ignore[attr-defined]
    with SafeCell(CellEnv(spec, connector, image_size=32, ground_truth=True, calibration=calibration, env=env)) as cell:
        for seed in range(trials):
            slow, beside = seed % 4 == 2, 0.008 if seed % 4 == 3 else 0.0
            expert = PoseExpert(cell, calibration, 0.2, 0.4 if slow else 1.0, beside)
            found = rollout(StartAbove(cell, calibration, slow), expert, policy_rng(seed), seed=seed, source="expert")
            pose, truth = found.terminated, bool(sim.success)
            key = "both" if pose and truth else "pose alone" if pose else "truth alone" if truth else "neither"
            agree[key] += 1
    return {"connector": connector, "trials": trials, "spread": calibration.spread, "success": agree}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connectors", nargs="+", default=["usb-a", "rj45", "din-5", "lego-2x2", "iec-c13"])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("results/cells.json"))
    arguments = parser.parse_args()
    # Tighter than the simulated controller's own limits, so that it is this layer that holds.
    spec = replace(
        load_cell(EXAMPLE),
        kwargs={"image_size": 32, "horizon": 1000},
        workspace_low=(0.545, -0.055, 0.03),
        workspace_high=(0.655, 0.055, 0.1),
        force=8.0,
        trial_impulse=20.0,
    )
    attacks = [attack(spec, name, arguments.connectors, arguments.trials, 60) for name in ATTACKS]
    for row in attacks:
        print(row, flush=True)
    with TemporaryDirectory() as folder:
        poses = [by_pose(connector, arguments.trials, Path(folder)) for connector in arguments.connectors]
    for row in poses:
        print(row, flush=True)
    check = [finding._asdict() for finding in check_cell(load_cell(EXAMPLE), arguments.connectors[0], 64)]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    limits = {
        name: getattr(spec, name) for name in ("workspace_low", "workspace_high", "force", "torque", "trial_impulse")
    }
    write_json(
        arguments.out,
        {**provenance(), "limits": limits, "check": check, "attacks": attacks, "collection_by_pose": poses},
    )


if __name__ == "__main__":
    main()
