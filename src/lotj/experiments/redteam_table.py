"""How often practice fools a reward: by family of connectors (``benchmarks/redteam.py``), and by guard
(``benchmarks/guard.py``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lotj.experiments.reward_table import markdown
from lotj.sim.connectors import get_connector

MANY, CLAIMS = 0.2, 20
"""A connector is called exploited where of at least so many claims at least this share is false."""


def families_table(result: Mapping[str, Any]) -> str:
    """A line for each family as markdown, most often fooled first: connectors attacked, successes claimed by rewards
    that did not know them, false ones, and on how many connectors those are many. The first round of attacks alone.

    Args:
        result: ``results/reward/redteam.json``.
    """
    families: dict[str, list[Mapping[str, Any]]] = {}
    first = [attack for attack in result["attacks"]["attacks"] if attack.get("round", 1) == 1]
    for attack in first:
        families.setdefault(get_connector(attack["connector"]).family, []).append(attack)
    rows = [(family, *_counts(attacks)) for family, attacks in families.items()]
    rows.sort(key=lambda row: (-row[3] / max(1, row[2]), row[0]))
    every = ("all", *_counts(first))
    head = ["family", "connectors", "claimed", "false", "", f"with {MANY:.0%} false or more of {CLAIMS} claims or more"]
    lines = [
        [family, str(connectors), str(claimed), str(false), f"{false / max(1, claimed):.1%}", str(exploited)]
        for family, connectors, claimed, false, exploited in [*rows, every]
    ]
    return markdown([head, ["---"] * len(head), *lines])


def guard_table(result: Mapping[str, Any]) -> str:
    """A line for each mode of the guard as markdown, all connectors and seeds together; below each other so that what
    was paid falsely and what became of true success can be compared.

    Args:
        result: ``results/guard/bricks.json``.
    """
    head = ["guard", "practices", "paused after", "trials", "claimed", "false", "paid falsely", "true, but refuted"]
    lines = [[*head, "before", "after"], ["---"] * (len(head) + 2)]
    for mode in dict.fromkeys(row["guard"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["guard"] == mode]
        paused = ", ".join(str(row["trials"]) for row in rows if row["paused"])
        counts = [
            sum(row[name] for row in rows)
            for name in ("trials", "claimed", "claimed_falsely", "paid_falsely", "refuted_wrongly")
        ]
        ends = [scenario for row in rows for scenario in row["evaluation"].values()]
        before, after, of = (sum(end[name] for end in ends) for name in ("true_before", "true_after", "trials"))
        lines.append([mode, str(len(rows)), paused, *map(str, counts), f"{before}/{of}", f"{after}/{of}"])
    return markdown(lines)


def _counts(attacks: list[Mapping[str, Any]]) -> tuple[int, int, int, int]:
    """Connectors, claims, false ones, connectors exploited."""
    exploited = sum(a["claimed"] >= CLAIMS and a["claimed_falsely"] >= MANY * a["claimed"] for a in attacks)
    claimed, false = (sum(a[side] for a in attacks) for side in ("claimed", "claimed_falsely"))
    return len(attacks), claimed, false, exploited
