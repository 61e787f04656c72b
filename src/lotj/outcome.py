"""What a whole job came to: counts, tests and seconds, as the program measured them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from lotj.comparison import compare, pairs_of, test_of
from lotj.evaluate import Evaluation
from lotj.files import to_json, write_json
from lotj.presets import Preset
from lotj.provenance import provenance
from lotj.report.records import STAGES


def result(preset: Preset, run_root: Path, folders: list[Path], seconds: dict[str, float]) -> dict[str, Any]:
    """What ``results/demo.json`` holds: stages, seconds and counts, as the program measured them."""
    return {
        **provenance(),
        "preset": to_json(preset),
        "stage_seconds": seconds,
        "stages": {stage: _json(done) for stage in STAGES if (done := run_root / stage / "done.json").exists()},
        "practices": [practice_outcome(folder) for folder in folders],
    }


def practice_outcome(folder: Path) -> dict[str, Any]:
    """What one practice came to: whose it is, and counts before and after in each scenario; none where the cell has no
    ground truth."""
    before, after = (_read(folder / f"evaluation-{side}.json") for side in ("before", "after"))
    run = _json(folder / "config.json")
    return {
        "connector": folder.parent.name,
        "folder": folder.name,
        "recipe": run["config"]["recipe"]["recipe"],
        "reward": run["config"]["recipe"]["practice"]["reward"],
        "diagnostic": run["config"]["recipe"]["practice"]["reward"] == "ground-truth",
        "validation": run["config"].get("validation", False),
        "red_teamed": run["config"].get("red_teamed", False),
        "guard": run["config"]["recipe"]["practice"].get("guard", {}).get("mode", "off"),
        "practice": _json(folder / "done.json"),
        "scenarios": {} if before is None or after is None else _scenarios(before, after),
        "both_scenarios": None if before is None or after is None else _pooled(before, after),
    }


class Clock:
    """Wall seconds by stage, summed over calls; of one that was interrupted, the stages that it finished.

    Args:
        path: where they are kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.seconds: dict[str, float] = _json(path) if path.exists() else {}
        self._last = time.monotonic()

    def lap(self, stage: str) -> None:
        """The time since the last lap was spent on ``stage``."""
        now = time.monotonic()
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + now - self._last, 1)
        self._last = now
        write_json(self._path, self.seconds)


def _scenarios(before: Evaluation, after: Evaluation) -> dict[str, Any]:
    """Counts of each scenario, what became of each start state (``gained``, ``lost``; None where the two evaluations do
    not share them), and ``Comparison.p_value``."""
    return {
        row.scenario: {
            "offline_true": [row.before.successes, row.before.trials],
            "offline_judged": before.count(row.scenario, "judged"),
            "offline_rewarded": before.count(row.scenario, "rewarded"),
            "online_true": [row.after.successes, row.after.trials],
            "online_judged": after.count(row.scenario, "judged"),
            "online_rewarded": after.count(row.scenario, "rewarded"),
            "online_confusion": after.confusion(row.scenario),
            "gained": row.gained,
            "lost": row.lost,
            "p_value": row.p_value,
        }
        for row in compare(before, after)
    }


def _pooled(before: Evaluation, after: Evaluation) -> dict[str, Any]:
    """Both scenarios together, tested as one."""
    old, new = (sum(trial.true for trial in side.trials) for side in (before, after))
    sizes = (len(before.trials), len(after.trials))
    p_value = test_of((old, sizes[0]), (new, sizes[1]), pairs_of(before.trials, after.trials))
    return {"offline_true": [old, sizes[0]], "online_true": [new, sizes[1]], "p_value": p_value}


def _read(path: Path) -> Evaluation | None:
    return Evaluation.from_json(_json(path)) if path.exists() else None


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
