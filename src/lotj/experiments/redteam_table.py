"""How often practice fools a reward: by family of connectors, by candidate and by what the reward has learned from
(``benchmarks/redteam.py``), by guard (``benchmarks/guard.py``), by what a cell senses (``benchmarks/blind_cell.py``);
and what the rule of the check before practice finds (``benchmarks/looser.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lotj.experiments.reward_table import markdown
from lotj.judge import SuccessRule
from lotj.redteam import Candidate
from lotj.sim.connectors import get_connector
from lotj.stats import show_p, signed_ranks

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


def candidates_table(result: Mapping[str, Any]) -> str:
    """A line for each reward that red-teaming chose among, as markdown.

    Args:
        result: ``results/reward/redteam.json``.
    """
    head = ["reward", "trials", "true", "claimed", "false", "upper end of its 95% interval"]
    head += ["claims less twice the false", "chosen"]
    lines = [head, ["---"] * len(head)]
    for one in (Candidate(**row) for row in result["attacks"]["candidates"]):
        counts = map(str, (one.trials, one.true, one.claimed, one.claimed_falsely))
        chosen = "yes" if one.name == result["attacks"]["chosen"] else ""
        lines.append([one.name, *counts, f"{one.may_be_false:.1%}", str(one.paid_well), chosen])
    return markdown(lines)


def redteam_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A line for each set of connectors and reward that was practised with, both scenarios and all seeds together.

    p compares true successes after practice with those of the reward that learned from no attack, practice by practice:
    the same connector, seed and start states; it speaks of these connectors, not of others.

    Args:
        results: what ``benchmarks/redteam.py`` wrote, by what its connectors are.
    """
    head = ["connectors", "reward", "before", "after", "p", "false, of claims", "on how many connectors"]
    lines = [head, ["---"] * len(head)]
    for name, result in results.items():
        own = {reward: _by_practice(result["rows"], reward) for reward in REWARDS}
        for reward, rows in own.items():
            if not rows:
                continue
            ends = [row["both_scenarios"] for row in rows.values()]
            before, after = ([sum(counts) for counts in zip(*(end[side] for end in ends))] for side in SIDES)
            changes = [_after(rows[key]) - _after(own["scripted"][key]) for key in rows if key in own["scripted"]]
            p_value = show_p(signed_ranks(changes)) if reward != "scripted" and changes else ""
            false, claimed = (sum(row[side] for row in rows.values()) for side in ("claimed_falsely", "claimed"))
            fooled = {row["connector"] for row in rows.values() if row["claimed_falsely"]}
            shares = [f"{counts[0]}/{counts[1]}" for counts in (before, after)]
            who = f"{len({row['connector'] for row in rows.values()})} {name}"
            lines.append([who, REWARDS[reward], *shares, p_value, f"{false} of {claimed}", str(len(fooled))])
    return markdown(lines)


REWARDS = {"scripted": "without attacks", "red-teamed": "and attacks", "ground-truth": "ground truth (diagnostic)"}
SIDES = ("offline_true", "online_true")


def _by_practice(rows: Sequence[Mapping[str, Any]], reward: str) -> dict[tuple[str, int], Mapping[str, Any]]:
    return {(row["connector"], row["seed"]): row for row in rows if row["reward"] == reward}


def _after(row: Mapping[str, Any]) -> int:
    after: int = row["both_scenarios"]["online_true"][0]
    return after


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


def senses_table(result: Mapping[str, Any]) -> str:
    """A line for each kind of cell as markdown, all connectors and seeds together.

    Args:
        result: ``results/blind_cell.json``.
    """
    counted = ["claimed", "claimed_falsely", "paid_falsely", "refuted_wrongly"]
    counted += ["lost", "lost_and_claimed", "lost_and_claimed_falsely"]
    head = ["guard, and what the cell senses", "practices", "before", "after"]
    head += ["claimed", "false", "paid falsely", "true, but refuted", "lost", "of these claimed", "falsely"]
    lines = [head, ["---"] * len(head)]
    for arm in dict.fromkeys(row["arm"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["arm"] == arm]
        ends = [[sum(n) for n in zip(*(row["both_scenarios"][side] for row in rows))] for side in SIDES]
        shares = [f"{successes}/{trials}" for successes, trials in ends]
        lines.append([arm, str(len(rows)), *shares, *(str(sum(row[name] for row in rows)) for name in counted)])
    return markdown(lines)


def check_table(result: Mapping[str, Any]) -> str:
    """A line for each thing that the check before practice did to the rule, and one for where it warned, as markdown:
    true successes of the offline policy, what the rule that validation chose and the check's leave unclaimed, and what
    they claim falsely.

    Args:
        result: ``results/looser.json``.
    """
    head = ["the check", "connectors", "trials", "true", "missed by the chosen rule", "by the check's"]
    head += ["claimed falsely by the chosen rule", "by the check's"]
    lines = [head, ["---"] * len(head)]
    names = ("leaves the rule", "makes it looser", "makes it stricter", "warns")
    kinds: dict[str, list[Mapping[str, Any]]] = {name: [] for name in names}
    for row in result["rows"]:
        rule, chosen = (SuccessRule(**row["check"][name]) for name in ("rule", "chosen"))
        changed = "makes it looser" if rule.looser_than(chosen) else "makes it stricter"
        go = row["check"]["go"]
        kinds["warns" if not go else "leaves the rule" if rule == chosen else changed].append(row)
    for kind, rows in [*kinds.items(), ("all", result["rows"])]:
        counts = [sum(row["chosen"][name] for row in rows) for name in ("trials", "true")]
        pairs = [sum(row[rule][name] for row in rows) for name in ("missed", "false") for rule in ("chosen", "checked")]
        lines.append([kind, str(len(rows)), *map(str, counts), *map(str, pairs)])
    return markdown(lines)


def _counts(attacks: list[Mapping[str, Any]]) -> tuple[int, int, int, int]:
    """Connectors, claims, false ones, connectors exploited."""
    exploited = sum(a["claimed"] >= CLAIMS and a["claimed_falsely"] >= MANY * a["claimed"] for a in attacks)
    claimed, false = (sum(a[side] for a in attacks) for side in ("claimed", "claimed_falsely"))
    return len(attacks), claimed, false, exploited
