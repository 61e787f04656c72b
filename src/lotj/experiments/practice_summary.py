"""Practice summed up: a line for each connector, or for each way of practising them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lotj.experiments.practice_table import (
    Count,
    Result,
    believed,
    counted,
    online,
    p_value_of,
    pair_of,
    pool,
    pooled,
    practised,
    ruled,
    show,
    title,
)
from lotj.sim.connectors import get_connector
from lotj.stats import show_p, signed_ranks


def summary_table(results: Sequence[Result]) -> str:
    """A line for each connector and way of practising it, both scenarios and all seeds together, and their sums: what
    was asked before, true successes before and after, what was claimed.

    Raises:
        ValueError: results of a seed disagree about the offline policy.
    """
    rows = [["connector", "family", "practised with", "asked before", "before", "after", "p", "false, of claims"]]
    everything: dict[str, list[Result]] = {}
    for (connector, who), own in practised(pool(results)):
        everything.setdefault(who, []).extend(own)
        family = get_connector(own[0]["connector"]).family
        rows.append([connector, family, who, *_summary(own)])
    for who, own in everything.items():
        rows.append([f"all {len({result['connector'] for result in own})}", "", who, *_summary(own)])
    return ruled(rows)


def _summary(results: Sequence[Result]) -> list[str]:
    """Asked before, before, after, p, false claims: the cells of ``summary_table``. Trials of one practice share its
    networks, so several connectors are tested connector by connector."""
    ends: dict[str, list[tuple[Count, Count]]] = {}
    for result in results:
        for counts in result["scenarios"].values():
            pair = counted(counts["offline_true"]), counted(counts["online_true"])
            ends.setdefault(result["connector"], []).append(pair)
    both = [pair for pairs in ends.values() for pair in pairs]
    before, after = (pooled(dict(enumerate(side))) for side in zip(*both))
    if len(ends) > 1:
        p_value = signed_ranks([sum(new[0] - old[0] for old, new in pairs) for pairs in ends.values()])
    else:
        scenarios = [counts for result in results for counts in result["scenarios"].values()]
        p_value = p_value_of(before, after, [pair_of(counts) for counts in scenarios])
    asked, false, *_ = believed(results)
    return [asked, show(before), show(after), show_p(p_value), false]


def trials_table(by_trials: Mapping[int, Sequence[Result]]) -> str:
    """A line for each connector and scenario, and how it was practised: true successes before, and after practices of
    several lengths, of the same seeds.

    Args:
        by_trials: results by the number of trials of a practice.

    Raises:
        ValueError: results of a seed disagree about the offline policy.
    """
    pool([result for results in by_trials.values() for result in results])  # that they agree
    lines = {trials: pool(results) for trials, results in by_trials.items()}
    shortest = lines[min(lines)] if lines else {}
    rows = [["connector", "scenario", "practised with", "offline", *(f"after {trials} trials" for trials in lines)]]
    for (connector, scenario), line in shortest.items():
        for column in line.after:
            after = [online(own[connector, scenario], column) for own in lines.values()]
            rows.append([connector, scenario, title(*column), show(pooled(line.before)), *after])
    return ruled(rows)


def arms_table(results: Sequence[Result]) -> str:
    """A line for each way of practising the same connectors: true successes before, after and in practice, all
    connectors, scenarios and seeds together, against the first way, which the settings leave as it is.

    Trials of one practice share its networks, so the ways are compared practice by practice: the same connector, seed,
    offline policy and start states.

    Raises:
        ValueError: results of a seed disagree about the offline policy.
    """
    arms: dict[str, list[Result]] = {}
    for (_, who), own in practised(pool(results)):
        arms.setdefault(who, []).extend(own)
    order = sorted(arms, key=lambda who: (who.count(","), who))
    rows = [["practised with", "practices", "before", "after", "against the first", "p", "in practice", *ARM_BELIEFS]]
    first = _after(arms[order[0]]) if order else {}
    for who in order:
        own = arms[who]
        after = _after(own)
        shared = [after[cell] - first[cell] for cell in after if cell in first]
        against = [f"{sum(shared):+d}", show_p(signed_ranks(shared))] if who != order[0] else ["", ""]
        truth = [bool(row["true_success"]) for result in own for row in result["curve"]]
        _, false, missed, lost, *_ = believed(own)
        in_practice = show((sum(truth), len(truth)))
        rows.append([who, str(len(own)), *_ends(own), *against, in_practice, false, missed, lost])
    return ruled(rows)


ARM_BELIEFS = ("false, of claims", "missed, of true", "lost, of trials")


def _after(results: Sequence[Result]) -> Mapping[tuple[str, int], int]:
    """True successes after practice, both scenarios, by (connector, seed)."""
    return {
        (result["connector"], result["case"]["seed"]): sum(
            counts["online_true"][0] for counts in result["scenarios"].values()
        )
        for result in results
    }


def _ends(results: Sequence[Result]) -> tuple[str, str]:
    """``389/480`` before practice and after it."""
    scenarios = [counts for result in results for counts in result["scenarios"].values()]
    before, after = (
        pooled(dict(enumerate(counted(counts[side]) for counts in scenarios)))
        for side in ("offline_true", "online_true")
    )
    return show(before), show(after)
