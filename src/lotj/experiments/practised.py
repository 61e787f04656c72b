"""What a finished practice came to: counts before and after, the curve of its trials, and how soon it could do it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lotj.evaluate import EvaluateConfig
from lotj.files import to_json
from lotj.outcome import practice_outcome
from lotj.sim.controller import ControllerConfig

WINDOW = 20
"""Trials of practice over which success is averaged."""
LEVELS: Mapping[str, float] = {"75%": 0.75, "95%": 0.95}
"""Success that the trailing ``WINDOW`` trials must reach, by name."""
CONTROL_SECONDS = ControllerConfig().period
"""s, one step of a trial."""
RESET_SECONDS = 10.0
"""s, a robot's way back to the next start: lotj resets at once, a real cell does not. With it the paper's 200 trials of
up to 20 steps take 33-40 min; the paper says about 50."""
CURVE = (
    "trial",
    "true_success",
    "success",
    "true_at_success",
    "tip_at_success",
    "refuted",
    "dislodged",
    "steps",
    "scenario",
)
"""Of each trial of practice; ``success`` is the judge's, ``true_success`` ground truth on any image,
``true_at_success`` and ``tip_at_success`` (m, in the socket's frame) on the image at which the judge claimed success,
None where it did not."""


class Milestone(NamedTuple):
    """When practice reached a level."""

    trial: int
    """Counted from 1: the last of the first ``WINDOW`` trials in a row with that success."""
    minutes: float
    """The robot's time till the end of that trial: steps and resets, no learning."""


def milestone(curve: Sequence[Mapping[str, Any]], level: float) -> Milestone | None:
    """The first trial at which the trailing ``WINDOW`` trials have true success of at least ``level``; None if never.

    Raises:
        ValueError: a trial does not say whether it truly succeeded.
    """
    truth = [row["true_success"] for row in curve]
    if None in truth:
        raise ValueError(
            f"trial {curve[truth.index(None)]['trial']} has no true_success: practise in a cell that gives ground truth"
        )
    for end in range(WINDOW, len(curve) + 1):
        if sum(truth[end - WINDOW : end]) / WINDOW >= level:
            return Milestone(int(curve[end - 1]["trial"]), robot_minutes([row["steps"] for row in curve[:end]]))
    return None


def robot_minutes(steps: Sequence[int]) -> float:
    """The robot's time for trials of so many steps each, resets included."""
    return (sum(steps) * CONTROL_SECONDS + len(steps) * RESET_SECONDS) / 60


def read_practice(folder: Path, wanted: EvaluateConfig) -> dict[str, Any]:
    """What a result file says of a practice in ``folder``.

    Args:
        folder: of ``lotj.demo.practise_in``.
        wanted: the evaluation that must have been made there.

    Returns:
        ``connector`` (its name), ``diagnostic`` (practised with ground truth), ``validation``, ``practice`` (its
        ``done.json``), ``scenarios`` (counts, p), ``curve`` and ``milestones``.

    Raises:
        ValueError: an evaluation was made with other settings.
    """
    for side in ("before", "after"):
        path = folder / f"evaluation-{side}.json"
        held = json.loads(path.read_text(encoding="utf-8"))["config"]
        asked = to_json(wanted) | {"connector": held["connector"]}
        if held != asked:
            raise ValueError(
                f"{path} was made with {held}, expected {asked}: delete {folder} to practise anew, or go back to the "
                "settings it was begun with"
            )
    lines = (folder / "trials.jsonl").read_text(encoding="utf-8").splitlines()
    curve = [{name: row[name] for name in CURVE} for row in map(json.loads, lines)]
    outcome = practice_outcome(folder)
    return {
        **{key: outcome[key] for key in ("connector", "diagnostic", "validation", "practice", "scenarios")},
        "curve": curve,
        "milestones": {name: found and found._asdict() for name, found in _milestones(curve).items()},
    }


def _milestones(curve: Sequence[Mapping[str, Any]]) -> dict[str, Milestone | None]:
    return {name: milestone(curve, level) for name, level in LEVELS.items()}
