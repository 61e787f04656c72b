"""Every result that the program wrote can be repeated: it says by which command, at which commit, with what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lotj.judge import SuccessRule

ROOT = Path(__file__).parents[1]


def test_results_name_their_command_and_a_clean_commit() -> None:
    """A result of a checkout with uncommitted changes, or of no checkout, is nobody's to repeat."""
    paths = sorted((ROOT / "results").rglob("*.json"))
    assert paths
    wrong = [str(path.relative_to(ROOT)) for path in paths if not can_be_repeated(json.loads(path.read_text()))]
    assert wrong == []


def can_be_repeated(result: dict[str, object]) -> bool:
    git = result.get("git")
    said = {"command", "versions", "started"} <= result.keys()
    return said and isinstance(git, dict) and len(git["commit"]) == 40 and git["dirty"] is False


def test_what_a_looser_rule_is_worth_adds_up() -> None:
    """The sums that docs/practice.md states of the practices whose rule the check made looser, 20 attempts."""
    results = {}
    for path in (ROOT / "results" / "looser").glob("*.json"):
        result = json.loads(path.read_text())
        case = result["case"]
        if case["settings"] == ["preflight.attempts=20"]:
            results[case["connector"], case["seed"], case.get("rule", "chosen")] = result
    looser = [key[:2] for key, result in results.items() if key[2] == "checked" and is_looser(result["preflight"])]
    assert len(looser) == 13
    sums: dict[str, dict[str, int]] = {}
    for rule in ("chosen", "checked"):
        practices = [results[(*key, rule)] for key in looser]
        ends = [counts for practice in practices for counts in practice["scenarios"].values()]
        claims = [row["true_at_success"] for practice in practices for row in practice["curve"] if row["success"]]
        sums[rule] = {
            "before": sum(end["offline_true"][0] for end in ends),
            "of": sum(end["offline_true"][1] for end in ends),
            "after": sum(end["online_true"][0] for end in ends),
            "judged": sum(end["online_judged"] for end in ends),
            "claims": len(claims),
            "false": claims.count(False),
        }
    chosen, checked = sums["chosen"], sums["checked"]
    said = (ROOT / "docs" / "practice.md").read_text(encoding="utf-8")
    for text in (
        f"before them {chosen['before']} of {chosen['of']}, validation's rule ends at {chosen['after']} and the "
        f"check's at {checked['after']}",
        f"{chosen['judged']} of {chosen['after']} and {checked['judged']} of {checked['after']} itself",
        f"{checked['false']} false claims of {checked['claims']}, in place of {chosen['false']} of {chosen['claims']}",
    ):
        assert text in said, text


def is_looser(check: dict[str, Any]) -> bool:
    return SuccessRule(**check["rule"]).looser_than(SuccessRule(**check["chosen"]))
