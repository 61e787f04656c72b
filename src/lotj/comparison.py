"""Two evaluations beside each other: true success before and after, with intervals and a test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lotj.evaluate import Column, Evaluation, TrialResult
from lotj.stats import Interval, barnard, clopper_pearson, mcnemar
from lotj.types import Trials

SAME_START = 1e-4
"""m: a cell that repeats a start comes this near to it."""


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
    """Two-sided: McNemar's exact test where the trials are paired by their start states, Barnard's where they are
    not."""
    gained: int | None
    """Start states that failed before and succeed after; None where the start states differ, or are not known."""
    lost: int | None
    """Start states that succeeded before and fail after."""

    @property
    def test(self) -> str:
        """Whose exact test ``p_value`` is of."""
        return "Barnard" if self.gained is None else "McNemar"


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
        pairs = pairs_of(*sides)
        rows.append(
            Comparison(
                scenario,
                first,
                last,
                clopper_pearson(first.successes, first.trials),
                clopper_pearson(last.successes, last.trials),
                last.successes / last.trials - first.successes / first.trials,
                test_of((first.successes, first.trials), (last.successes, last.trials), pairs),
                *(pairs or (None, None)),
            )
        )
    return rows


def pairs_of(before: Sequence[TrialResult], after: Sequence[TrialResult]) -> tuple[int, int] | None:
    """Start states gained and lost; None unless all trials began alike, two by two: the same seed, and the plug at the
    same place, as far as the cell says where (a robot that begins wherever it stands repeats no start)."""
    if len(before) != len(after) or not all(_began_alike(old, new) for old, new in zip(before, after)):
        return None
    pairs = [(old.true, new.true) for old, new in zip(before, after)]
    return sum(new and not old for old, new in pairs), sum(old and not new for old, new in pairs)


def test_of(before: tuple[int, int], after: tuple[int, int], pairs: tuple[int, int] | None) -> float:
    """p, two-sided, that successes of trials before and after differ: McNemar's exact test on start states gained and
    lost, Barnard's where trials are not paired."""
    return barnard(*before, *after) if pairs is None else mcnemar(*pairs)


def _began_alike(old: TrialResult, new: TrialResult) -> bool:
    known = old.start is not None and new.start is not None and old.seed == new.seed
    return known and bool(np.allclose(old.start, new.start, rtol=0, atol=SAME_START))  # type: ignore[arg-type]


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
