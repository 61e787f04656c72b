"""Does red-teaming make a reward that can be practised on? -> results/reward/redteam.json.

Validation connectors of a red-teamed run (never the test ones) are practised with the reward as it was trained on
scripted data, with the one that has also learned from attacks on training connectors, and, as the ceiling, with ground
truth; the same start states for all. Counted by ground truth: true success before and after, and how many of the
successes that the robot claimed in practice were none.

    lotj redteam --run runs/desk
    python benchmarks/redteam.py runs/desk --connectors usb-b mini-din-4 hdmi-mini
    python benchmarks/redteam.py runs/desk --connectors gen-1-34 gen-2-68 --checked --out runs/redteam-checked.json

Connectors that nobody knows, drawn with another seed than the run's, do as well. ``--checked`` practises by the rule
that the check before practice asks for (`lotj.preflight`), as ``lotj practice`` does, in place of the one that
validation chose.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from practising import parsed, parser_for, rows_of

from lotj.data.store import TrajectoryStore
from lotj.demo import Places, practise_in
from lotj.files import write_json
from lotj.offline import load_reward, rule_candidates
from lotj.outcome import practice_outcome
from lotj.pipeline import check_reward
from lotj.preflight import Preflight
from lotj.presets import Preset, load_preset
from lotj.provenance import provenance
from lotj.recipe import Offline
from lotj.stages import features_path, load_offline, silent_bars, store_path
from lotj.trials import count_claims, read_records

REWARDS = ("scripted", "red-teamed", "ground-truth")
Task = tuple[Path, str, str, int, int, bool]


def measure(task: Task) -> dict[str, Any]:
    """Practise one connector with one reward."""
    run, connector, reward, seed, trials, checked = task
    torch.set_num_threads(1)
    preset = load_preset(run)
    preset = replace(preset, threads=1, evaluate=replace(preset.evaluate, seed=3000 + seed))
    offline = load_offline(run, preset.split(), red_teamed=False)
    if reward == "red-teamed":
        model, rule = load_reward(attacked(run))
        offline = replace(offline, reward=model, rule=rule)
    answer = _check(run, preset, offline, connector, seed, reward) if checked and reward != "ground-truth" else None
    if answer is not None:
        offline = replace(offline, rule=answer.rule)
    recipe = preset.practice.resolved("ground-truth" if reward == "ground-truth" else "learned")
    recipe = replace(recipe, practice=replace(recipe.practice, trials=trials))
    whose = attacked(run).parent.name if reward == "red-teamed" else reward
    folder = run / "redteam-benchmark" / connector / f"{recipe.recipe}-{whose}{'-checked' * checked}-s{seed}"
    places = Places(store_path(run), features_path(run, recipe), folder)
    practise_in(places, preset, offline, connector, recipe, seed, silent_bars, True, reward == "red-teamed")
    records, outcome = read_records(folder / "trials.jsonl"), practice_outcome(folder)
    return {
        "connector": connector,
        "reward": reward,
        "seed": seed,
        "trials": len(records),
        "rule": [offline.rule.threshold, offline.rule.frames] if reward != "ground-truth" else None,
        "check": None
        if answer is None
        else {"go": answer.go, "behind_guard": answer.behind_guard, "reason": answer.reason, "recall": answer.recall},
        **count_claims(records),
        "scenarios": outcome["scenarios"],
        "both_scenarios": outcome["both_scenarios"],
    }


def attacked(run: Path) -> Path:
    """The reward that learned from all attacks, whether it was chosen or not."""
    finished = (run / "redteam").glob("round-*/reward/done.json")
    rounds = {int(path.parts[-3].removeprefix("round-")): path.parent for path in finished}
    if not rounds:
        raise SystemExit(f"{run} has no red-teamed reward: run `lotj redteam --run {run}` first")
    return rounds[max(rounds)]


def _check(run: Path, preset: Preset, offline: Offline, connector: str, seed: int, reward: str) -> Preflight:
    """The check before practice, of one reward."""
    candidates = rule_candidates(attacked(run) if reward == "red-teamed" else run / "reward")
    with TrajectoryStore(store_path(run)) as store:
        config, std = preset.practice.preflight, preset.evaluate.acting_std
        return check_reward(connector, preset.robot, config, offline, candidates, store, seed, std)


def main() -> None:
    parser = parser_for(__doc__, 200, "results/reward/redteam.json")
    parser.add_argument("--rewards", nargs="+", choices=REWARDS, default=list(REWARDS))
    parser.add_argument("--checked", action="store_true", help="by the rule that the check before practice asks for")
    arguments = parsed(parser)
    tasks = [
        (arguments.run, connector, reward, seed, arguments.trials, arguments.checked)
        for seed in arguments.seeds
        for connector in arguments.connectors
        for reward in arguments.rewards
    ]
    rows = rows_of(measure, tasks, arguments.workers)
    scripted, red_teamed = (
        json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
        for folder in (arguments.run / "reward", attacked(arguments.run))
    )
    kept = ("accuracy", "auroc", "pressed_beside", "rates_by_distance", "connectors")
    attacks = json.loads((arguments.run / "redteam" / "attacks.json").read_text(encoding="utf-8"))
    result = {
        **provenance(),
        "scripted": {key: scripted[key] for key in kept},
        "red-teamed": {key: red_teamed[key] for key in kept},
        "attacks": attacks,
        "rows": rows,
    }
    write_json(arguments.out, result)


if __name__ == "__main__":
    main()
