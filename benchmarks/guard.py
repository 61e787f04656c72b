"""Is the damage of a bad reward bounded by the guard? -> results/guard/exploitation.json.

A reward model is trained badly on purpose: on expert trials of ten connectors alone, without near misses or presses
beside the hole, for 1500 steps. (With all that `desk` knows today even such trials make a good one.) Validation
connectors of a trained run (never the test ones) are practised with it, with the guard off, on alarm and as a gate, and
what that taught is counted by ground truth. Where the alarm pauses, the policy is evaluated as it is.

    python benchmarks/guard.py runs/desk --connectors usb-b mini-din-4 hdmi-mini
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
from lotj.data.batches import FrameSampling
from lotj.data.store import TrajectoryStore
from lotj.experiments.reward_connectors import is_generated
from lotj.files import write_json
from lotj.guard import GuardConfig
from lotj.judge import SuccessRule
from lotj.offline import load_reward, train_reward
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
KNOWN = 10
"""Connectors of the catalogue that it is trained on."""
Task = tuple[Path, str, str, int, int]


def train_weak(run: Path) -> None:
    """A reward that has not seen what practice will try."""
    torch.set_num_threads(1)
    preset, known = _preset(run), _preset(run).split()
    known = replace(known, train=tuple(name for name in known.train if not is_generated(name))[:KNOWN])
    model = replace(preset.reward.model, decay_steps=1500)
    stage = replace(preset.reward, model=model, steps=1500, sampling=FrameSampling())
    with TrajectoryStore(store_path(run)) as store, TrajectoryStore(run / "weak" / "expert.sqlite", mode="a") as expert:
        wanted = [i for i, source in enumerate(store.index.source) if source == "expert"]
        expert.extend(store.read(i) for i in wanted[len(expert) :])
        train_reward(stage, expert, known, run / "weak" / "reward", preset.seed)


def measure(task: Task) -> dict[str, Any]:
    """Practise one connector under one mode of the guard."""
    run, connector, mode, seed, trials = task
    torch.set_num_threads(1)
    preset = _preset(run)
    offline = load_offline(run, preset.split())
    model, _ = load_reward(run / "weak" / "reward")
    offline = replace(offline, reward=model, rule=SuccessRule(0.5, 3))
    recipe = preset.practice.resolved("learned")
    recipe = replace(recipe, practice=replace(recipe.practice, trials=trials, guard=GuardConfig(mode)))  # type: ignore[arg-type]
    folder = run / "weak" / "practice" / f"{connector}-{mode}-s{seed}"
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
    parser.add_argument("--connectors", nargs="+", required=True, help="validation connectors of that run")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results/guard/exploitation.json"))
    arguments = parser.parse_args()
    (arguments.run / "weak").mkdir(exist_ok=True)
    train_weak(arguments.run)
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
    validation = json.loads((arguments.run / "weak" / "reward" / "evaluation.json").read_text(encoding="utf-8"))
    weak = {"known": KNOWN, **{key: validation[key] for key in ("accuracy", "auroc", "pressed_beside")}}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        arguments.out, {**provenance(), "weak_reward": weak, "rule": {"threshold": 0.5, "frames": 3}, "rows": rows}
    )


if __name__ == "__main__":
    main()
