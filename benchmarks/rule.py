"""What should end a trial and pay: one predicted frame, or several in a row? -> results/rule.json.

Practises validation connectors of a trained run (never the test ones) with the learned reward and the best rule of each
length that the passive choice allows, and counts by ground truth what that taught.

    python benchmarks/rule.py runs/desk --connectors usb-b hdmi-mini --trials 100
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from practising import parsed, rows_of

from lotj.algos.training import config_from
from lotj.data.store import TrajectoryStore
from lotj.files import write_json
from lotj.judge import SuccessRule
from lotj.offline import rule_candidates
from lotj.pipeline import evaluate_policy, practise
from lotj.presets import Preset
from lotj.provenance import provenance
from lotj.recipe import Offline
from lotj.run import Run
from lotj.stages import load_offline, store_path

Task = tuple[Path, str, int, int]


def rules(run: Path) -> dict[int, dict[str, Any]]:
    """The candidate that finds most successes within the limit, for each number of frames (``reward/evaluation.json``);
    where none is within it, the one with the fewest false fires."""
    table = rule_candidates(run / "reward")
    best: dict[int, dict[str, Any]] = {}
    for row in table:
        key = (row["within_limit"], row["found"] if row["within_limit"] else -row["false_fires"])
        held = best.get(row["frames"])
        if held is None or key > (
            held["within_limit"],
            held["found"] if held["within_limit"] else -held["false_fires"],
        ):
            best[row["frames"]] = row
    return best


def measure(task: Task) -> dict[str, Any]:
    """One practice under one rule, and its evaluation."""
    run, connector, frames, trials = task
    torch.set_num_threads(1)
    preset = config_from(Preset, json.loads((run / "preset.json").read_text()))
    known = preset.split()
    offline: Offline = load_offline(run, known)
    passive = rules(run)[frames]
    offline = replace(offline, rule=SuccessRule(passive["threshold"], frames))
    recipe = replace(preset.practice, practice=replace(preset.practice.practice, trials=trials))
    folder = run / "rule" / f"{connector}-{frames}"
    stage = Run(folder, "practice", {"connector": connector, "rule": offline.rule, "recipe": recipe}, preset.seed)
    with TrajectoryStore(store_path(run)) as store:
        cache = run / "features" / f"{recipe.recipe}.safetensors"
        learner = practise(
            connector, preset.robot, recipe, offline, store, stage, preset.seed,
            cache=cache, own=preset.known, allow_validation=True,
        )  # fmt: skip
    after = evaluate_policy(
        connector, preset.robot, learner, offline, preset.evaluate, preset.image_size, preset.cameras
    )
    done = json.loads((folder / "done.json").read_text())["summary"]
    return {
        "connector": connector,
        "frames": frames,
        "threshold": passive["threshold"],
        "passive": {key: passive[key] for key in ("trials", "false_fires", "successes", "found", "within_limit")},
        "practice": {key: done[key] for key in ("trials", "predicted_successes", "true_successes")},
        "after": {
            scenario: {column: after.count(scenario, column) for column in ("rewarded", "judged", "true")}
            | {"trials": len(after.scenario(scenario))}
            for scenario in preset.evaluate.scenarios
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder with trained networks and encoded frames")
    parser.add_argument("--connectors", nargs="+", required=True, help="validation connectors of that run")
    parser.add_argument("--frames", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results/rule.json"))
    arguments = parsed(parser)
    tasks = [(arguments.run, c, frames, arguments.trials) for c in arguments.connectors for frames in arguments.frames]
    write_json(arguments.out, {**provenance(), "rows": rows_of(measure, tasks, arguments.workers)})


if __name__ == "__main__":
    main()
