"""Two evaluations beside each other: true success before and after, with intervals and a test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lotj.evaluate import Column, Evaluation
from lotj.stats import Interval, barnard, clopper_pearson
from lotj.types import Trials


class Comparison(NamedTuple):
    """True success before against after, in one scenario."""

    scenario: str
    before: Trials
    after: Trials
    before_interval: Interval
    after_interval: Interval
    difference: float
    """Rate after minus rate before."""
    p_value: float
    """Barnard's exact test, two-sided. It takes the two sets of trials as independent; sharing start states makes it
    conservative as a rule."""
    gained: int | None
    """Start states that failed before and succeed after; None where the start states differ."""
    lost: int | None
    """Start states that succeeded before and fail after."""


def compare(before: Evaluation, after: Evaluation, connector: str = "", method: str = "") -> list[Comparison]:
    """Compare true success of two evaluations, for each scenario that both have.

    Args:
        before: the policy as it came.
        after: the policy after practice.
        connector: named in the rows; the evaluation's own where empty.
        method: named in the rows.
    """
    rows = []
    for scenario in (name for name in before.config.scenarios if name in after.config.scenarios):
        sides = (before.scenario(scenario), after.scenario(scenario))
        counts = [sum(trial.true for trial in side) for side in sides]
        name = connector or after.config.connector
        first, last = (
            Trials(method, phase, name, scenario, successes, len(side))
            for phase, successes, side in zip(("before", "after"), counts, sides)
        )
        paired = [t.seed for t in sides[0]] == [t.seed for t in sides[1]]
        pairs = [(old.true, new.true) for old, new in zip(*sides)]
        rows.append(
            Comparison(
                scenario,
                first,
                last,
                clopper_pearson(first.successes, first.trials),
                clopper_pearson(last.successes, last.trials),
                last.successes / last.trials - first.successes / first.trials,
                barnard(first.successes, first.trials, last.successes, last.trials),
                sum(new and not old for old, new in pairs) if paired else None,
                sum(old and not new for old, new in pairs) if paired else None,
            )
        )
    return rows


def evaluation_table(
    evaluation: Evaluation, method: str, phase: str, columns: Sequence[Column] = ("true",)
) -> list[Trials]:
    """Return the counts as table rows; with several columns, each names itself in the phase.

    Args:
        evaluation: the trials.
        method: who acted, for example the recipe.
        phase: ``before`` or ``after``.
        columns: which of *rewarded*, *judged* and *true*; those that no judge watched are left out.
    """
    counted = [
        (scenario, column, evaluation.count(scenario, column))
        for scenario in evaluation.config.scenarios
        for column in columns
    ]
    return [
        Trials(
            method,
            phase if len(columns) == 1 else f"{phase}, {column}",
            evaluation.config.connector,
            scenario,
            successes,
            len(evaluation.scenario(scenario)),
        )
        for scenario, column, successes in counted
        if successes is not None
    ]
