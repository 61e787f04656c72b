"""Does the check before practice find a better threshold for a connector? -> results/looser.json.

The check makes a rule looser where the offline policy's own attempts, which nobody labels, say that it leaves successes
unclaimed (`lotj.preflight`). What that is worth is counted by ground truth on further trials of the same policy on the
same connector, by the rule that validation chose and by the check's: trials with the plug in that are never claimed,
and claims at which it is not in. Connectors are drawn at random; none is left out.

    python benchmarks/looser.py runs/desk --connectors gen-12-{0..59}
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from practising import parsed, rows_of

from lotj.algos.policy import ImagePolicy
from lotj.data.store import TrajectoryStore
from lotj.evaluate import Evaluation
from lotj.files import write_json
from lotj.judge import SuccessRule, first_fire
from lotj.offline import rule_candidates
from lotj.pipeline import check_reward, evaluate_policy
from lotj.presets import load_preset
from lotj.provenance import provenance
from lotj.stages import load_offline, store_path

Task = tuple[Path, str, int]


def judged(trials: Evaluation, rule: SuccessRule) -> dict[str, int]:
    """Trials with the plug in, those of them that a rule never claims truly, and its false claims."""
    counts = {"true": 0, "missed": 0, "false": 0, "trials": len(trials.trials)}
    for trial in trials.trials:
        fire = first_fire(np.asarray(trial.probability), rule)
        right = fire is not None and trial.success[fire]
        counts["true"] += trial.true
        counts["missed"] += trial.true and not right
        counts["false"] += fire is not None and not right
    return counts


def measure(task: Task) -> dict[str, Any]:
    """Check one connector, then count by ground truth on other trials."""
    run, connector, attempts = task
    torch.set_num_threads(1)
    preset = load_preset(run)
    known = preset.split()
    offline = load_offline(run, known, red_teamed=False)
    config = replace(preset.practice.preflight, attempts=attempts)
    std = preset.evaluate.acting_std
    with TrajectoryStore(store_path(run)) as store:
        candidates = rule_candidates(run / "reward")
        answer = check_reward(connector, preset.robot, config, offline, candidates, store, preset.seed, std)
    trials = evaluate_policy(
        connector,
        preset.robot,
        ImagePolicy(offline.policy),
        offline,
        preset.evaluate,
        preset.image_size,
        preset.cameras,
    )
    rules = {"chosen": answer.chosen, "checked": answer.rule}
    told = {name: value for name, value in answer.as_json().items() if name not in ("reason", "nearest")}
    return {"connector": connector, "check": told, **{name: judged(trials, rule) for name, rule in rules.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder with trained networks")
    parser.add_argument("--connectors", nargs="+", required=True, help="drawn ones, such as gen-9-0")
    parser.add_argument("--attempts", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results/looser.json"))
    arguments = parsed(parser)
    tasks = [(arguments.run, connector, arguments.attempts) for connector in arguments.connectors]
    rows = rows_of(measure, tasks, arguments.workers)
    write_json(arguments.out, {**provenance(), "rows": rows})
    rules = [(row, *(SuccessRule(**row["check"][name]) for name in ("rule", "chosen"))) for row in rows]
    looser = [row["connector"] for row, rule, chosen in rules if rule.looser_than(chosen)]
    print(f"looser on {', '.join(looser) or 'none'}")


if __name__ == "__main__":
    main()
