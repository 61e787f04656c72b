"""What pays a reward and what ends a trial: one explicit object, used by practice, its report and its alarms alike.

A deviation from the paper, which pays R(s') itself on every transition (Sec. V-C) and says of no threshold nor of what
ends a trial: here a success is paid 1, once, and ends the trial. A single predicted frame that did so stopped a plug a
few millimetres short and taught exactly that, so a rule may ask for several frames in a row; which rule is chosen is
measured on validation connectors drawn from the training set, never on the connector being practised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lotj.types import RewardModel, Trajectory

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
RECALL_FOR_STRICTNESS = 0.03
"""Share of the successes on validation connectors that a stricter rule may leave unfound (docs/reward.md)."""


@dataclass(frozen=True)
class SuccessRule:
    """A trial is paid 1 and ends after ``frames`` consecutive images whose probability is at least ``threshold``."""

    threshold: float = 0.5
    """Probability at which an image counts as a success, in (0, 1]."""
    frames: int = 1
    """How many such images in a row."""

    def __post_init__(self) -> None:
        if not 0.0 < self.threshold <= 1.0:
            raise ValueError(f"SuccessRule.threshold must lie in (0, 1], got {self.threshold}")
        if self.frames < 1:
            raise ValueError(f"SuccessRule.frames must be at least 1, got {self.frames}")

    def looser_than(self, other: SuccessRule) -> bool:
        """Whether it asks for less: a lower threshold, for as many images."""
        return self.frames == other.frames and self.threshold < other.threshold


class Judgement(NamedTuple):
    """What a judge says of one image."""

    probability: float
    above: bool
    """``probability >= threshold``."""
    success: bool
    """The streak is complete: the image is rewarded and the trial ends."""


class Judge:
    """A reward model that follows a trial image by image under a ``SuccessRule``."""

    def __init__(self, reward_model: RewardModel, rule: SuccessRule) -> None:
        self.reward_model = reward_model
        self.rule = rule
        self.history: list[Judgement] = []
        """The judgements of the trial so far; emptied by ``reset``."""
        self._streak = 0

    def reset(self) -> None:
        """Begin a trial."""
        self.history = []
        self._streak = 0

    def observe(self, image: NDArray[np.uint8]) -> Judgement:
        """Judge the next image (H, W, 3) uint8 of the trial."""
        probability = float(self.reward_model.probability(image[None])[0])
        above = probability >= self.rule.threshold
        self._streak = self._streak + 1 if above else 0
        self.history.append(Judgement(probability, above, self._streak >= self.rule.frames))
        return self.history[-1]


class GroundTruthJudge:
    """A diagnostic: pays true success. Whatever used it must be marked ``ground-truth`` in every output.

    It sees no image; a caller hands it the truth through ``reveal_ground_truth`` before every ``observe``, so that
    privileged information reaches learning only where somebody wrote that name.
    """

    def __init__(self) -> None:
        self.history: list[Judgement] = []
        self._revealed: bool | None = None

    def reset(self) -> None:
        """Begin a trial."""
        self.history = []
        self._revealed = None

    def reveal_ground_truth(self, success: bool) -> None:
        """Hand over the truth about the image that comes next."""
        self._revealed = bool(success)

    def observe(self, image: NDArray[np.uint8]) -> Judgement:
        """Repeat what was revealed.

        Raises:
            RuntimeError: nothing was revealed since the last image.
        """
        if self._revealed is None:
            raise RuntimeError(
                "GroundTruthJudge.observe was called before reveal_ground_truth: "
                "pass rollout(..., reveal_ground_truth=judge.reveal_ground_truth), or use a Judge with a reward model"
            )
        success, self._revealed = self._revealed, None
        self.history.append(Judgement(float(success), success, success))
        return self.history[-1]


class RuleCandidate(NamedTuple):
    """One row of the table behind a choice of rule."""

    threshold: float
    frames: int
    trials: int
    false_fires: int
    """Trials that the rule ended at an image that was not a success."""
    successes: int
    """Trials that reached true success."""
    found: int
    """Of these, trials that the rule ended at an image that was a success."""
    within_limit: bool

    @property
    def false_fire_rate(self) -> float:
        return self.false_fires / self.trials

    @property
    def recall(self) -> float:
        return self.found / self.successes if self.successes else 0.0


class RuleChoice(NamedTuple):
    """A rule and the measurement that it rests on."""

    rule: SuccessRule
    table: list[RuleCandidate]

    def as_json(self) -> dict[str, Any]:
        """The choice as plain numbers, for a run folder."""
        rows = [{**row._asdict(), "false_fire_rate": row.false_fire_rate, "recall": row.recall} for row in self.table]
        return {"threshold": self.rule.threshold, "frames": self.rule.frames, "candidates": rows}


def first_fire(probability: NDArray[np.floating[Any]], rule: SuccessRule) -> int | None:
    """The index at which a rule ends a trial whose images scored ``probability`` (N,), or None."""
    above = (np.asarray(probability) >= rule.threshold).astype(np.int64)
    if len(above) < rule.frames:
        return None
    streaks = np.convolve(above, np.ones(rule.frames, dtype=np.int64), mode="valid") == rule.frames
    return int(np.argmax(streaks)) + rule.frames - 1 if streaks.any() else None


def best_held(probability: NDArray[np.floating[Any]], frames: int) -> float:
    """The highest threshold at which a rule of so many frames ends a trial whose images scored ``probability`` (N,);
    0 where it has fewer images."""
    if len(probability) < frames:
        return 0.0
    return float(np.lib.stride_tricks.sliding_window_view(np.asarray(probability), frames).min(axis=1).max())


def choose_rule(
    trajectories: Sequence[Trajectory],
    probabilities: Sequence[NDArray[np.floating[Any]]],
    *,
    false_fire_limit: float = 0.05,
    thresholds: Sequence[float] = THRESHOLDS,
    frames: Sequence[int] = (1, 2, 3),
) -> RuleChoice:
    """Choose threshold and frames by measurement on validation connectors drawn from the training set.

    Of all candidates whose false fires per trial stay within the limit, and which find nearly as much as the one that
    finds most (``RECALL_FOR_STRICTNESS``), take the fewest false fires, then the highest threshold, then the fewest
    frames: a policy that practises against the rule looks for what it wrongly likes. If none stays within the limit,
    take the fewest false fires, then the highest recall; the table says so (``within_limit``).

    Args:
        trajectories: their ``privileged["success"]`` (T + 1,) is the truth. One that was ended by its first
            true success is read as if its last image had been held for the frames that a rule still asks for: the
            plug would have stayed there.
        probabilities: (T + 1,) for each trajectory, the reward model's score of each image. The first image
            is not judged, as in a rollout.
        false_fire_limit: false fires per trial, in [0, 1].

    Raises:
        ValueError: lists that do not match, nothing to measure on, or no ground truth.
    """
    judged = _judged_images(trajectories, probabilities, hold=max(frames) - 1)
    table = []
    for count in frames:
        for threshold in thresholds:
            rule = SuccessRule(threshold, count)
            fires = [(first_fire(probability, rule), success) for probability, success in judged]
            false = sum(fire is not None and not success[fire] for fire, success in fires)
            found = sum(fire is not None and bool(success[fire]) for fire, success in fires)
            successes = sum(bool(success.any()) for _, success in fires)
            within = false <= false_fire_limit * len(judged)
            table.append(RuleCandidate(threshold, count, len(judged), false, successes, found, within))
    within_limit = [row for row in table if row.within_limit]
    if within_limit:
        enough = max(row.recall for row in within_limit) - RECALL_FOR_STRICTNESS
        strict = [row for row in within_limit if row.recall >= enough]
        best = min(strict, key=lambda row: (row.false_fires, -row.threshold, row.frames))
    else:
        best = min(table, key=lambda row: (row.false_fires, -row.found, row.frames, -row.threshold))
    return RuleChoice(SuccessRule(best.threshold, best.frames), table)


def _judged_images(
    trajectories: Sequence[Trajectory], probabilities: Sequence[NDArray[np.floating[Any]]], hold: int
) -> list[tuple[NDArray[np.floating[Any]], NDArray[np.bool_]]]:
    """(probability, success) of the images that a judge would see, the last of an ended success held ``hold`` times
    more."""
    if not trajectories or len(trajectories) != len(probabilities):
        raise ValueError(
            f"choose_rule needs one array of probabilities for each of at least one trajectory, "
            f"got {len(trajectories)} trajectories and {len(probabilities)} arrays"
        )
    judged = []
    for number, (trajectory, probability) in enumerate(zip(trajectories, probabilities, strict=True)):
        if "success" not in trajectory.privileged:
            raise ValueError(
                f"trajectory {number} ({trajectory.connector}) has no privileged success to measure against"
            )
        success = np.asarray(trajectory.privileged["success"], dtype=bool)
        if len(probability) != len(trajectory) + 1 or len(success) != len(trajectory) + 1:
            raise ValueError(
                f"trajectory {number} has {len(trajectory) + 1} images, "
                f"but {len(probability)} probabilities and {len(success)} truths"
            )
        held = hold if trajectory.terminated and success[-1] else 0
        judged.append(
            (np.append(probability[1:], [probability[-1]] * held), np.append(success[1:], [True] * held).astype(bool))
        )
    return judged
