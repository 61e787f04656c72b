"""What does a tug tell? -> results/guard/tug.json.

For every connector of the catalogue, on both cells: the plug inserted by the expert, resting 3-20 mm beside the hole,
and in the hole but 1-4 mm short of full depth; counted how often each is felt as held.

    python benchmarks/tug.py
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from lotj.files import to_json, write_json
from lotj.guard import TugConfig, tug_test
from lotj.parallel import in_processes
from lotj.provenance import provenance
from lotj.rollout import policy_rng
from lotj.sim.connectors import load_catalogue
from lotj.sim.env import InsertionEnv
from lotj.sim.expert import Expert, ExpertConfig

KINDS = ("inserted", "beside", "short")
STEPS = 19


def measure(task: tuple[str, int]) -> dict[str, Any]:
    """Counts of one connector."""
    name, trials = task
    counts = {kind: {"trials": 0, "held": 0} for kind in KINDS}
    resistance: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for robot in ("sawyer-a", "sawyer-b"):
        env = InsertionEnv(name, robot, "mixed", images=False)
        for kind in KINDS:
            for seed in range(trials):
                if not reach(env, kind, seed):
                    continue
                tug = tug_test(env, TugConfig())
                assert tug is not None
                counts[kind]["trials"] += 1
                counts[kind]["held"] += tug.held
                resistance[kind].append(round(min(tug.resistance), 2))
        env.close()
    spread = {kind: [min(values), max(values)] if values else None for kind, values in resistance.items()}
    return {"connector": name, "family": load_catalogue()[name].family, "counts": counts, "resistance": spread}


def reach(env: InsertionEnv, kind: str, seed: int) -> bool:
    """Bring the plug into a state; False where the trial did not come to it."""
    rng = policy_rng(seed)
    env.reset(seed=seed)
    beside = float(rng.uniform(0.003, 0.02)) if kind == "beside" else 0.0
    expert = Expert(env, ExpertConfig(0.1, wrong_place=beside))
    target = float(rng.uniform(0.001, 0.004))
    for _ in range(STEPS):
        tip = env.tip_in_socket
        if kind == "short" and np.hypot(*tip[:2]) < 0.0025 and 0.001 < tip[2] <= target + 0.0005:
            return True
        action = expert.act({}, rng)
        if kind == "short" and tip[2] < env.connector.insertion_depth:
            action[2] = np.clip((target - tip[2]) / env.action_scale[2], -1, 1)
        *_, info = env.step(action)
        if info["dislodged"]:
            return False
        if kind == "inserted" and env.success:
            return True
    tip = env.tip_in_socket
    return kind == "beside" and np.hypot(*tip[:2]) > 0.0025 and tip[2] < env.connector.insertion_depth + 0.001


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=5, help="of each kind on each cell")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results/guard/tug.json"))
    arguments = parser.parse_args()
    rows = list(in_processes(measure, [(name, arguments.trials) for name in load_catalogue()], arguments.workers))
    total = {kind: {key: sum(row["counts"][kind][key] for row in rows) for key in ("trials", "held")} for kind in KINDS}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out, {**provenance(), "tug": to_json(TugConfig()), "total": total, "connectors": rows})
    print(total)
    for row in rows:
        inserted, beside = row["counts"]["inserted"], row["counts"]["beside"]
        if inserted["held"] < inserted["trials"] or beside["held"]:
            print(row["connector"], row["counts"], row["resistance"])


if __name__ == "__main__":
    main()
