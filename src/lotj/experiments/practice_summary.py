"""Practice summed up: a line for each connector, or for each way of practising them all."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from lotj.experiments.practice_table import (
    Column,
    Count,
    Result,
    believed,
    column_of,
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
    several lengths, of the seeds that all lengths have.

    Args:
        by_trials: results by the number of trials of a practice.

    Raises:
        ValueError: a result is of another length, or results of a seed disagree about the offline policy.
    """
    for trials, results in by_trials.items():
        for result in results:
            if result["case"]["trials"] != trials:
                raise ValueError(
                    f"{result['case']['name']} has {result['case']['trials']} trials, among results of {trials}"
                )
    named = [{(r["connector"], r["case"]["seed"], column_of(r)): r for r in results} for results in by_trials.values()]
    common = [key for key in named[0] if all(key in results for results in named)] if named else []
    pool([results[key] for results in named for key in common], one_length=False)  # that they agree
    lines = [pool([results[key] for key in common]) for results in named]
    rows = [["connector", "scenario", "practised with", "offline", *(f"after {trials} trials" for trials in by_trials)]]
    for (connector, scenario), line in lines[0].items() if lines else ():
        for column, counts in line.after.items():
            before = show(pooled({seed: line.before[seed] for seed in counts}))
            after = [online(own[connector, scenario], column) for own in lines]
            rows.append([connector, scenario, title(column), before, *after])
    return ruled(rows)


ARM_BELIEFS = ("false, of claims", "missed, of true", "lost, of trials")
ARMS_NOTE = """
True successes before, after and in practice, connectors, scenarios and seeds together. *change*: of those after
practice, against the same way without the settings, or else with the fewest of them, on the practices (connector and
seed) that both have; *checked*, by the rule that the check before practice answered with, against the same by the one
that validation chose, where that was practised. p is of signed
ranks over these practices, not corrected for the number of tests; it speaks of these connectors, not of others.
"""
"""Printed under the table of arms."""


def arms_table(results: Sequence[Result]) -> str:
    """A line for each way of practising the same connectors, each held against the one with the same recipe, reward and
    guard whose settings are as they are, or whose rule is the usual one. Trials of one practice share its networks, so
    practices are compared.

    Raises:
        ValueError: results of a seed disagree about the offline policy.
    """
    pool(results)  # that they agree
    arms: dict[Column, list[Result]] = {}
    for result in results:
        arms.setdefault(column_of(result), []).append(result)
    order = sorted(
        arms,
        key=lambda column: (
            column.recipe,
            column.reward != "learned",
            column.guard != "off",
            column.rule != "chosen",
            len(column.settings),
            column.settings,
        ),
    )
    rows = [["practised with", "practices", "before", "after", "change", "p", "in practice", *ARM_BELIEFS]]
    for column in order:
        own, after = arms[column], _after(arms[column])
        usual = _usual(column, arms)
        first = {} if usual is None else _after(arms[usual])
        shared = [after[cell] - first[cell] for cell in after if cell in first]
        change = [f"{sum(shared):+d}", show_p(signed_ranks(shared))] if shared else ["", ""]
        truth = [bool(row["true_success"]) for result in own for row in result["curve"]]
        _, false, missed, lost, *_ = believed(own)
        in_practice = show((sum(truth), len(truth)))
        rows.append([title(column), str(len(own)), *_ends(own), *change, in_practice, false, missed, lost])
    return ruled(rows) + ARMS_NOTE


def _usual(column: Column, arms: Collection[Column]) -> Column | None:
    """What a way of practising is held against: the rule that validation chose, or no settings, or the fewest; nothing
    where several have as few."""
    for usual in (column._replace(rule="chosen"), column._replace(settings=())):
        if usual != column and usual in arms:
            return usual
    alike = [arm for arm in arms if arm._replace(settings=()) == column._replace(settings=())]
    fewer = [arm for arm in alike if {*arm.settings} < {*column.settings}]
    least = [arm for arm in fewer if len(arm.settings) == min(len(arm.settings) for arm in fewer)]
    return least[0] if len(least) == 1 else None


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
