"""Measure the simulated cell: scripted policies on every connector, near misses, millimetres per pixel ->
results/cell.json.

    python benchmarks/cell.py --trials 50

The experts make so many trials in each scenario, the blind baselines, whose averages count, half as many in each. A
connector's row is kept in ``runs/cell`` until the simulator changes: interrupt it and repeat the command to continue.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import zlib
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from lotj.files import write_json
from lotj.parallel import in_processes
from lotj.provenance import provenance
from lotj.rollout import policy_rng, rollout
from lotj.sim.baselines import BASELINES
from lotj.sim.connectors import get_connector, load_catalogue
from lotj.sim.env import InsertionEnv
from lotj.sim.expert import Expert, ExpertConfig
from lotj.sim.randomize import CELLS
from lotj.sim.scene import FOCAL_LENGTH

POLICIES = ("expert", "noisy-expert", *BASELINES)


def measure(task: tuple[str, int, Path]) -> dict[str, Any]:
    """Success counts of every scripted policy on one connector, half of the trials on each robot, and its near
    misses; read from ``kept`` where the same simulator measured it before."""
    name, trials, kept = task
    if kept.exists():
        row: dict[str, Any] = json.loads(kept.read_text())
        return row
    counts: dict[str, dict[str, int]] = {policy: {"I": 0, "II": 0} for policy in POLICIES}
    dislodged, peak = 0, 0.0
    for r, robot in enumerate(CELLS):
        env = InsertionEnv(name, robot, images=False, ground_truth=True)
        for policy_name in POLICIES:
            for s, scenario in enumerate(("I", "II")):
                for trial in range(r, _trials(policy_name, trials), len(CELLS)):
                    # Start states differ between connectors and policies: a shared set would show its flukes
                    # everywhere.
                    entropy = [zlib.crc32(name.encode()), zlib.crc32(policy_name.encode()), s, trial]
                    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
                    rng = policy_rng(seed)
                    trajectory = rollout(
                        env,
                        _policy(policy_name, env),
                        rng,
                        seed=seed,
                        options={"scenario": scenario},
                        source=policy_name,
                    )
                    counts[policy_name][scenario] += trajectory.terminated
                    dislodged += bool(np.any(trajectory.privileged["dislodged"]))
                    peak = max(peak, float(trajectory.privileged["force"].max()))
    row = {
        "connector": name,
        "family": env.connector.family,
        "trials": {policy: _trials(policy, trials) for policy in POLICIES},
        "successes": counts,
        "dislodged": dislodged,
        "peak_force_n": round(peak, 2),
        "near_misses": near_misses(name),
    }
    write_json(kept, row)
    return row


def _trials(policy: str, trials: int) -> int:
    """Trials of a policy in each scenario."""
    return trials // 2 if policy in BASELINES else trials


def near_misses(name: str) -> dict[str, bool | None]:
    """Whether states that are nearly right count as success: they must not.

    The first poses are set; ``one_pin_off`` is driven: straight down from above the neighbour's hole, on connectors
    that repeat a part (None on others).
    """
    env = InsertionEnv(name, images=False)
    env.reset(seed=0)
    verdict: dict[str, bool | None] = {}
    for label, shift in {
        "inserted": (0.0, 0.0, 0.0),
        "short_1.5mm": (0.0, 0.0, 0.0015),
        "lateral_3mm": (0.003, 0.0, 0.0),
    }.items():
        rotation = env.data.xmat[env.model.body("socket").id].reshape(3, 3)
        wanted = env.data.xpos[env.model.body("socket").id] + rotation @ shift
        # Move the held plug by its grasp joints.
        for _ in range(3):
            error = wanted - env.data.xpos[env.model.body("plug").id]
            env.data.qpos[7:10] += error
            mujoco.mj_forward(env.model, env.data)
        verdict[label] = env.success
    steps = [
        np.array([pitch, 0.0]) if axis == 0 else np.array([0.0, pitch])
        for part in get_connector(name).parts
        if part.has_cavity
        for axis, (count, pitch) in enumerate(zip(part.repeat, part.pitch))
        if count > 1
    ]
    verdict["one_pin_off"] = (
        None if not steps else any(_succeeds_from(env, sign * step) for step in steps for sign in (-1, 1))
    )
    return verdict


def _succeeds_from(env: InsertionEnv, lateral: np.ndarray) -> bool:
    """Straight down from this far beside the socket's centre (2,) m, for a whole trial."""
    _, info = env.reset(seed=1, options={"offset": (*lateral, 0.003)})
    succeeded, truncated = False, False
    while not truncated:
        *_, truncated, info = env.step(np.array([0.0, 0.0, -1.0]))
        succeeded |= bool(info["privileged/success"])
    return succeeded


def optics() -> dict[str, Any]:
    """Millimetres that one pixel spans at the tip, along the vertical and along the camera's depth, for each robot."""
    rows = {}
    for name, cell in CELLS.items():
        camera = cell.cameras[0]
        span = camera.distance * camera.crop / FOCAL_LENGTH * 1e3
        rows[name] = {
            "field_mm": round(span, 1),
            "mm_per_px_at_64": round(span / 64, 3),
            "mm_of_depth_per_px_at_64": round(span / 64 / np.cos(np.radians(camera.elevation)), 3),
            "mm_towards_camera_per_px_at_64": round(span / 64 / np.sin(np.radians(camera.elevation)), 3),
        }
    return rows


def git(*arguments: str) -> str:
    """What git prints."""
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def _policy(name: str, env: InsertionEnv) -> Any:
    if name in BASELINES:
        return BASELINES[name]()
    return Expert(env, ExpertConfig(noise_probability=0.0 if name == "expert" else 0.2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=50, help="trials for each connector, policy and scenario")
    parser.add_argument("--connectors", nargs="*", default=None, help="names; all of the catalogue by default")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results/cell.json"))
    arguments = parser.parse_args()
    names = arguments.connectors or list(load_catalogue())
    simulator = git("rev-parse", "HEAD:src/lotj/sim")[:12]
    kept = Path("runs/cell") / f"{simulator}-{arguments.trials}"
    kept.mkdir(parents=True, exist_ok=True)
    rows = []
    for row in in_processes(
        measure, [(name, arguments.trials, kept / f"{name}.json") for name in names], arguments.workers
    ):
        rows.append(row)
        figures = (row[key] for key in ("connector", "successes", "dislodged", "peak_force_n", "near_misses"))
        print(f"{len(rows)}/{len(names)}", *figures, flush=True)
    means = {
        policy: {
            s: float(np.mean([row["successes"][policy][s] / row["trials"][policy] for row in rows]))
            for s in ("I", "II")
        }
        for policy in POLICIES
    }
    worst = {
        policy: {
            s: float(np.min([row["successes"][policy][s] / row["trials"][policy] for row in rows])) for s in ("I", "II")
        }
        for policy in POLICIES
    }
    result = {
        **provenance(),
        "simulator": simulator,
        "mean_success_rate": means,
        "worst_connector_success_rate": worst,
        "dislodged": sum(row["dislodged"] for row in rows),
        "peak_force_n": max(row["peak_force_n"] for row in rows),
        "near_misses_counted_as_success": sum(
            bool(verdict) for row in rows for name, verdict in row["near_misses"].items() if name != "inserted"
        ),
        "optics": optics(),
        "connectors": rows,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out, result)
    print(json.dumps({"mean": means, "worst": worst}, indent=1))


if __name__ == "__main__":
    main()
