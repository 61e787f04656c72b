"""Is the damage of a wrong reward bounded by the guard? -> results/guard/bricks.json.

Connectors on which the reward of a run is wrong (never the test ones) are practised with it, by the rule that
validation chose, with the guard off, on alarm and as a gate, and what that taught is counted by ground truth. Where the
alarm pauses, the policy is evaluated as it is.

    python benchmarks/guard.py runs/desk --connectors gen-1-34 gen-1-119 gen-2-68 gen-3-0
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lotj.algos.policy import ImagePolicy
from lotj.algos.training import config_from
from lotj.checkpoint import load_state
from lotj.data.store import TrajectoryStore
from lotj.files import write_json
from lotj.guard import GuardConfig
from lotj.parallel import in_processes
from lotj.pipeline import evaluate_policy, practise
from lotj.practice import PracticePaused
from lotj.presets import Preset
from lotj.provenance import provenance
from lotj.recipe import make_learner
from lotj.run import Run
from lotj.stages import load_offline, store_path
from lotj.trials import read_records

MODES = ("off", "alarm", "gate")
Task = tuple[Path, str, str, int, int]


def measure(task: Task) -> dict[str, Any]:
    """Practise one connector under one mode of the guard."""
    run, connector, mode, seed, trials = task
    torch.set_num_threads(1)
    preset = _preset(run)
    offline = load_offline(run, preset.split(), red_teamed=False)
    recipe = preset.practice.resolved("learned")
    recipe = replace(recipe, practice=replace(recipe.practice, trials=trials, guard=GuardConfig(mode)))  # type: ignore[arg-type]
    folder = run / "guard" / f"{connector}-{mode}-s{seed}"
    stage = Run(folder, "practice", {"connector": connector, "recipe": recipe}, seed)
    config = replace(preset.evaluate, seed=1000 + seed)
    pictures = preset.image_size, preset.cameras
    before = evaluate_policy(connector, preset.robot, ImagePolicy(offline.policy), offline, config, *pictures)
    with TrajectoryStore(store_path(run)) as store:
        cache = run / "features" / f"{recipe.recipe}.safetensors"
        paused = False
        try:
            learner = practise(
                connector, preset.robot, recipe, offline, store, stage, seed,
                cache=cache, own=preset.known, allow_validation=True,
            )  # fmt: skip
        except PracticePaused:
            paused = True
            learner = make_learner(recipe, offline, seed)
            learner.load_state_dict(load_state(folder / "checkpoint.safetensors")["learner"])
    after = evaluate_policy(connector, preset.robot, learner, offline, config, *pictures)
    records = read_records(folder / "trials.jsonl")
    return {
        "connector": connector,
        "guard": mode,
        "seed": seed,
        "rule": {"threshold": offline.rule.threshold, "frames": offline.rule.frames},
        "paused": paused,
        "trials": len(records),
        "claimed": sum(record.success for record in records),
        "claimed_falsely": sum(record.success and not record.true_at_success for record in records),
        "paid_falsely": sum(bool(record.rewarded_frames) and not record.true_at_success for record in records),
        "refuted": sum(record.refuted for record in records),
        "refuted_wrongly": sum(record.refuted and bool(record.true_at_success) for record in records),
        "evaluation": {
            scenario: {
                "trials": len(after.scenario(scenario)),
                "true_before": before.count(scenario, "true"),
                "true_after": after.count(scenario, "true"),
                "judged_after": after.count(scenario, "judged"),
            }
            for scenario in preset.evaluate.scenarios
        },
    }


def _preset(run: Path) -> Preset:
    return config_from(Preset, json.loads((run / "preset.json").read_text(encoding="utf-8")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder with trained networks and encoded frames")
    parser.add_argument("--connectors", nargs="+", required=True, help="validation connectors, or drawn ones")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results/guard/bricks.json"))
    arguments = parser.parse_args()
    tasks = [
        (arguments.run, connector, mode, seed, arguments.trials)
        for seed in arguments.seeds
        for connector in arguments.connectors
        for mode in MODES
    ]
    rows = []
    for row in in_processes(measure, tasks, arguments.workers):
        rows.append(row)
        print(json.dumps(row), flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out, {**provenance(), "rows": rows})


if __name__ == "__main__":
    main()
