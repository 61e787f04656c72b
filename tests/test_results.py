"""Every result that the program wrote can be repeated: it says by which command, at which commit, with what."""

from __future__ import annotations

import json
from pathlib import Path

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
