"""On which families of connectors practice fools a reward that does not know them, from ``benchmarks/redteam.py``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lotj.experiments.reward_table import markdown
from lotj.sim.connectors import get_connector

MANY = 0.2
"""A connector on which at least this share of the claims is false is called exploited."""


def families_table(result: Mapping[str, Any]) -> str:
    """A line for each family as markdown, most often fooled first: connectors attacked, successes claimed by rewards
    that did not know them, false ones, and on how many connectors those are many.

    Args:
        result: ``results/reward/redteam.json``.
    """
    families: dict[str, list[Mapping[str, Any]]] = {}
    for attack in result["attacks"]["attacks"]:
        families.setdefault(get_connector(attack["connector"]).family, []).append(attack)
    rows = [(family, *_counts(attacks)) for family, attacks in families.items()]
    rows.sort(key=lambda row: (-row[3] / max(1, row[2]), row[0]))
    every = ("all", *_counts(result["attacks"]["attacks"]))
    head = ["family", "connectors", "claimed", "false", "", f"connectors with {MANY:.0%} false or more"]
    lines = [
        [family, str(connectors), str(claimed), str(false), f"{false / max(1, claimed):.1%}", str(exploited)]
        for family, connectors, claimed, false, exploited in [*rows, every]
    ]
    return markdown([head, ["---"] * len(head), *lines])


def _counts(attacks: list[Mapping[str, Any]]) -> tuple[int, int, int, int]:
    """Connectors, claims, false ones, connectors exploited."""
    exploited = sum(a["claimed_falsely"] >= MANY * a["claimed"] > 0 for a in attacks)
    claimed, false = (sum(a[side] for a in attacks) for side in ("claimed", "claimed_falsely"))
    return len(attacks), claimed, false, exploited
