"""What does an owner of somebody else's environment see? -> results/foreign/<package>.json.

The example's scripted expert collects on some of its connectors, reward, critic and policy are trained at a small size,
and one connector that they have not seen is practised on for 20 trials with the learned reward. Counted: the expert's
successes, the reward's accuracy on a connector held out of its training, and true success before and after.

    PYTHONPATH=examples/panda-gym python benchmarks/foreign.py panda-gym
    PYTHONPATH=examples/gym-taskboard python benchmarks/foreign.py gym-taskboard

The run is kept in ``runs/foreign/<package>``: interrupt it and repeat the command to continue.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from lotj.algos.policy import PolicyConfig
from lotj.algos.reward import RewardConfig
from lotj.cells.check import check_cell
from lotj.cells.collecting import CellCollectConfig, collect_on_cell
from lotj.cells.spec import load_cell
from lotj.data.store import TrajectoryStore
from lotj.demo import practice_stage
from lotj.evaluate import EvaluateConfig
from lotj.evaluating import OWN_STARTS
from lotj.files import write_json
from lotj.nets.encoder import EncoderConfig
from lotj.presets import PRESETS, Preset
from lotj.provenance import provenance
from lotj.stages import silent_bars, store_path, train_stage
from lotj.stats import barnard
from lotj.trials import read_records

CONNECTORS = {
    "panda-gym": (("green", "red", "blue", "yellow", "cyan"), "violet"),
    "gym-taskboard": (("dsub", "waterproof", "peg_round_12", "peg_rect_16", "rj45"), "usb"),
}
"""Known, of which the last is held out of training, and novel."""


def small(cell: Path, known: tuple[str, ...], trajectories: int, trials: int) -> Preset:
    """The desk preset at width 8 and 48 px, with a tenth to a quarter of its steps."""
    desk = PRESETS["desk"]
    encoder, steps = EncoderConfig(8, 48), 1200
    reward, critic, policy = desk.reward, desk.critic, desk.policy
    reward_config: RewardConfig = replace(reward.model, encoder=encoder, decay_steps=steps)
    policy_config: PolicyConfig = replace(policy.model, encoder=encoder, decay_steps=steps)
    recipe = replace(desk.practice, practice=replace(desk.practice.practice, trials=trials))
    return replace(
        desk,
        name="foreign",
        robot=str(cell),
        connectors=0,
        imported=known,
        validation=1,
        trajectories=trajectories,
        image_size=48,
        threads=1,
        reward=replace(reward, model=reward_config, steps=steps),
        critic=replace(critic, model=replace(critic.model, encoder=encoder), steps=200),
        policy=replace(policy, model=policy_config, steps=steps),
        practice=recipe,
        evaluate=EvaluateConfig(trials=10),
    )


def measure(package: str, trajectories: int, trials: int, run: Path) -> dict[str, Any]:
    """All stages; what is done already is reused, and takes no seconds."""
    torch.set_num_threads(1)
    known, novel = CONNECTORS[package]
    cell = Path("examples") / package / "cell.toml"
    preset = small(cell, known, trajectories, trials)
    seconds: dict[str, float] = {}

    def lap(stage: str) -> None:
        nonlocal since
        now = time.process_time()
        seconds[stage] = round(now - since, 1)
        since = now
        print(stage, seconds[stage], "s of one core", flush=True)

    since = time.process_time()
    findings = check_cell(load_cell(cell), novel, preset.image_size)
    lap("check")
    config = CellCollectConfig(known, trajectories, image_size=preset.image_size, seed=preset.seed)
    collect_on_cell(config, cell, store_path(run))
    with TrajectoryStore(store_path(run)) as store:
        index = store.index
        collected = {
            name: {
                source: [int(index.terminated[mine].sum()), int(mine.sum())]
                for source in ("expert", "slow", "wrong-place")
                for mine in [(index.connector == name) & (index.source == source)]
            }
            for name in known
        }
    lap("collect")
    split = preset.split()
    train_stage(preset, run, split, silent_bars, ("reward", "critic", "policy"))
    reward = json.loads((run / "reward/evaluation.json").read_text())
    lap("train")
    folder = practice_stage(preset, run, split, novel, "learned", silent_bars, force=True)
    lap("practise")
    records = read_records(folder / "trials.jsonl")
    true = {
        when: json.loads((folder / f"evaluation-{when}.json").read_text())["summary"][OWN_STARTS]
        for when in ("before", "after")
    }
    counts = [(true[when]["true"], true[when]["trials"]) for when in ("before", "after")]
    return {
        "package": {package: metadata.version(package)},
        "check": {finding.name: finding.good for finding in findings},
        "collected": collected,
        "reward": {
            "held_out": reward["connectors"],
            "accuracy": reward["accuracy"],
            "auroc": reward["auroc"],
            "accuracy_at_threshold": reward["accuracy_at_threshold"],
        },
        "practice": {
            "connector": novel,
            "trials": len(records),
            "claimed": sum(record.success for record in records),
            "claimed_and_true": sum(bool(record.success and record.true_at_success) for record in records),
            "true_at_some_time": sum(bool(record.true_success) for record in records),
        },
        "evaluation": {
            "before": counts[0],
            "after": counts[1],
            "p_more_after": barnard(*counts[0], *counts[1], alternative="less"),
        },
        "seconds_of_one_core": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", choices=sorted(CONNECTORS))
    parser.add_argument("--trajectories", type=int, default=40, help="of each known connector")
    parser.add_argument("--trials", type=int, default=20, help="of practice")
    arguments = parser.parse_args()
    package = arguments.package
    result = measure(package, arguments.trajectories, arguments.trials, Path("runs/foreign") / package)
    out = Path("results/foreign") / f"{package}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, {**provenance(), **result})
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
