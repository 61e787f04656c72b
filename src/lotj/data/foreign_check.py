"""What is wrong with a foreign data set, in the terms of `lotj.data.validate`: one report for all data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from lotj.data.conversion import lost_success
from lotj.data.foreign import REMEDY, Episode, ForeignError, Item, ReadConfig, Source
from lotj.data.importing import converted
from lotj.data.validate import Balance, Defect, Finding, Validation, grouped, trajectory_defects
from lotj.types import Trajectory

UNNAMED = "(unnamed)"
"""Stands for the connector in the report where the data does not say."""


def validate_foreign(
    source: Source,
    config: ReadConfig,
    *,
    horizon: int = 20,
    tick: Callable[[int, int, str], None] = lambda *_: None,
) -> Validation:
    """Read a foreign data set through, once, as an import would, and report on it.

    Counts are of what an import with this configuration would bring, or would if a connector were named.

    Args:
        source: The data set.
        config: How it is read.
        horizon: The longest trajectory allowed, transitions.
        tick: Told (done, total, note).

    Raises:
        ValueError: A library is missing.
    """
    found: list[Finding] = []
    good: list[Trajectory] = []
    whole: list[Defect] = []
    balance: dict[str, Balance] = {}
    lost = 0
    number = -1
    try:
        for number, item in enumerate(source.items()):
            trajectory, findings = _examined(item, config, number, horizon)
            found += findings
            if trajectory is not None:
                success = trajectory.privileged.get("success")
                if success is not None:
                    have, n = balance.get(trajectory.connector, Balance(0, 0)), int(success.sum())
                    balance[trajectory.connector] = Balance(have.positive + n, have.negative + len(success) - n)
                # Pixels of thousands of episodes would not fit into memory.
                good.append(replace(trajectory, image=trajectory.image[:0], privileged={}))
                lost += isinstance(item, Episode) and lost_success(item, config)
            tick(number + 1, source.count, "")
    except ForeignError as error:
        whole.append(Defect(error.kind, (), error.message, REMEDY[error.kind]))
    if number < 0 and not whole:
        whole.append(Defect("empty", (), "the data set holds no episodes", "check the path"))
    for name, (positive, negative) in sorted(balance.items()):
        if not positive or not negative:
            ids = tuple(i for i, t in enumerate(good) if t.connector == name)
            lacking = "failures" if positive else "successes"
            message = f"connector {name!r} has no {lacking} among {positive + negative} frames"
            whole.append(Defect("one-class", ids, message, _one_class_remedy(lost)))
    return Validation(
        trajectories=len(good),
        transitions=sum(len(t) for t in good),
        frames=sum(len(t) + 1 for t in good),
        connector=dict(sorted(Counter(t.connector for t in good).items())),
        source=dict(sorted(Counter(t.source for t in good).items())),
        robot=dict(sorted(Counter(t.robot for t in good).items())),
        length=dict(sorted(Counter(len(t) for t in good).items())),
        terminated=sum(t.terminated for t in good),
        truncated=sum(t.truncated for t in good),
        balance=dict(sorted(balance.items())),
        counts={},
        defects=(*grouped(found, REMEDY, "episode"), *whole),
    )


def _examined(item: Item, config: ReadConfig, number: int, horizon: int) -> tuple[Trajectory | None, list[Finding]]:
    """The trajectory that an import would make of it, if any, and all its defects."""
    found: list[Finding] = []
    if isinstance(item, Episode):
        if item.disorder:
            found.append(Finding("frame-order", number, item.disorder))
        if not (item.connector or config.connector):
            found.append(Finding("no-name", number, "the data does not say which connector this is"))
            item = replace(item, connector=UNNAMED)
        if item.disorder:
            return None, found  # what follows would only repeat it
    try:
        trajectory = converted(item, config, number)
    except ForeignError as error:
        found.append(Finding(error.kind, number, error.message))
        return None, found
    found += [Finding(kind, number, message) for kind, message in trajectory_defects(trajectory, horizon, set())]
    return trajectory, found


def _one_class_remedy(lost: int) -> str:
    if lost:
        return (
            f"{lost} successes belong to a last observation that was not recorded: --final repeat takes the image "
            "before it in its place, or record the last observation"
        )
    return (
        "record more trials of it, or name the success flag with --success: rewards that describe the observation "
        "before the action do not tell the success that a trial ends with"
    )
