"""Is the damage of a wrong reward bounded by the guard? -> results/guard/bricks.json.

Connectors on which the reward of a run is wrong (never the test ones) are practised with it, by the rule that
validation chose, with the guard off, on alarm and as a gate, and what that taught is counted by ground truth. Where the
alarm pauses, the policy is evaluated as it is.

    python benchmarks/guard.py runs/desk --connectors gen-1-34 gen-1-119 gen-2-68 gen-3-0
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from practising import parsed, parser_for, rows_of

from lotj.checkpoint import load_state
from lotj.demo import Places, practise_in
from lotj.evaluating import evaluate_in
from lotj.files import write_json
from lotj.guard import GuardConfig
from lotj.practice import PracticePaused
from lotj.presets import load_preset
from lotj.provenance import provenance
from lotj.recipe import make_learner
from lotj.stages import features_path, load_offline, silent_bars, store_path
from lotj.trials import count_claims, read_records

MODES = ("off", "alarm", "gate")
Task = tuple[Path, str, str, int, int]


def measure(task: Task) -> dict[str, Any]:
    """Practise one connector under one mode of the guard; what is finished in its folder is reused."""
    run, connector, mode, seed, trials = task
    preset = load_preset(run)
    preset = replace(preset, threads=1, evaluate=replace(preset.evaluate, seed=1000 + seed))
    offline = load_offline(run, preset.split(), red_teamed=False)
    recipe = preset.practice.resolved("learned")
    recipe = replace(recipe, practice=replace(recipe.practice, trials=trials, guard=GuardConfig(mode)))  # type: ignore[arg-type]
    folder = run / "guard" / f"{connector}-{mode}-s{seed}"
    places, after = Places(store_path(run), features_path(run, recipe), folder), folder / "evaluation-after.json"
    try:
        practise_in(places, preset, offline, connector, recipe, seed, silent_bars, allow_validation=True)
    except PracticePaused:
        learner = make_learner(recipe, offline, seed)
        learner.load_state_dict(load_state(folder / "checkpoint.safetensors")["learner"])
        evaluate_in(preset, connector, learner, offline, after, silent_bars, connector, {"paused": True})
    records = read_records(folder / "trials.jsonl")
    ends = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("evaluation-*.json")}
    before, left = ends["evaluation-before"]["summary"], ends["evaluation-after"]
    return {
        "connector": connector,
        "guard": mode,
        "seed": seed,
        "rule": ends["evaluation-before"]["rule"],
        "paused": left["policy"].get("paused", False),
        "trials": len(records),
        **count_claims(records),
        "evaluation": {
            scenario: {
                "trials": row["trials"],
                "true_before": before[scenario]["true"],
                "true_after": row["true"],
                "judged_after": row["judged"],
            }
            for scenario, row in left["summary"].items()
        },
    }


def main() -> None:
    arguments = parsed(parser_for(__doc__, 200, "results/guard/bricks.json"))
    tasks = [
        (arguments.run, connector, mode, seed, arguments.trials)
        for seed in arguments.seeds
        for connector in arguments.connectors
        for mode in MODES
    ]
    write_json(arguments.out, {**provenance(), "rows": rows_of(measure, tasks, arguments.workers)})


if __name__ == "__main__":
    main()
