"""The success rule, the judges, and the choice of a rule by measurement."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lotj.judge import GroundTruthJudge, Judge, SuccessRule, best_held, choose_rule, first_fire
from lotj.types import Trajectory


class Scripted:
    """A reward model that says what the image's first pixel says, in percent."""

    def probability(self, image: np.ndarray) -> np.ndarray:
        assert image.shape[0] == 1
        return image[:, 0, 0, 0].astype(np.float32) / 100


def _image(percent: int) -> np.ndarray:
    return np.full((2, 2, 3), percent, dtype=np.uint8)


def _trajectory(success: list[bool], terminated: bool) -> Trajectory:
    steps = len(success) - 1
    return Trajectory(
        image=np.zeros((steps + 1, 2, 2, 3), np.uint8),
        state=np.zeros((steps + 1, 0), np.float32),
        action=np.zeros((steps, 3), np.float32),
        reward=np.asarray(success[1:], np.float32),
        terminated=terminated,
        truncated=not terminated,
        connector="toy",
        robot="toy",
        seed=0,
        source="expert",
        privileged={"success": np.asarray(success)},
    )


def test_success_needs_frames_in_a_row() -> None:
    """A judge declares success exactly at the k-th consecutive image at or above the threshold; a miss starts over."""
    judge = Judge(Scripted(), SuccessRule(threshold=0.5, frames=3))
    verdicts = [judge.observe(_image(p)) for p in (60, 60, 40, 50, 60, 70, 80)]
    assert [v.success for v in verdicts] == [False, False, False, False, False, True, True]
    assert [v.above for v in verdicts] == [True, True, False, True, True, True, True]
    assert judge.history == verdicts
    judge.reset()
    assert judge.history == [] and not judge.observe(_image(90)).success


def test_one_frame_is_the_papers_rule() -> None:
    """With frames=1, success is the threshold alone."""
    judge = Judge(Scripted(), SuccessRule(threshold=0.5, frames=1))
    assert [judge.observe(_image(p)).success for p in (49, 50, 10, 99)] == [False, True, False, True]


def test_first_fire_agrees_with_the_judge() -> None:
    """``first_fire`` on a trial's probabilities is the index of the judge's first success, for all short trials."""
    for frames, length in itertools.product((1, 2, 3), (1, 2, 5)):
        for percents in itertools.product((20, 80), repeat=length):
            judge = Judge(Scripted(), SuccessRule(0.5, frames))
            fired = [judge.observe(_image(p)).success for p in percents]
            expected = fired.index(True) if any(fired) else None
            assert first_fire(np.asarray(percents) / 100, judge.rule) == expected


@pytest.mark.parametrize(("threshold", "frames", "looser"), [(0.3, 3, True), (0.7, 3, False), (0.3, 4, False)])
def test_only_a_lower_threshold_for_as_many_frames_is_looser(threshold: float, frames: int, looser: bool) -> None:
    assert SuccessRule(threshold, frames).looser_than(SuccessRule(0.7, 3)) is looser


def test_best_held_is_the_highest_threshold_that_fires() -> None:
    """For all short trials: a rule fires exactly where its threshold is no higher; too short a trial never."""
    for length in range(1, 5):
        for percents in itertools.product((10, 50, 90), repeat=length):
            trial = np.asarray(percents) / 100
            for frames, threshold in itertools.product((1, 2, 3), (0.1, 0.5, 0.9)):
                fires = first_fire(trial, SuccessRule(threshold, frames)) is not None
                assert (best_held(trial, frames) >= threshold) is fires


def test_ground_truth_must_be_revealed_for_every_image() -> None:
    """The diagnostic judge repeats each revelation once and refuses to guess."""
    judge = GroundTruthJudge()
    judge.reveal_ground_truth(True)
    assert judge.observe(_image(0)).success
    with pytest.raises(RuntimeError, match="reveal_ground_truth"):
        judge.observe(_image(0))
    judge.reveal_ground_truth(True)
    judge.reset()
    with pytest.raises(RuntimeError):
        judge.observe(_image(0))


def test_choice_trades_false_fires_for_recall() -> None:
    """One spurious frame in a failed trial rules out single frames at that threshold; two in a row find all."""
    failed = _trajectory([False] * 5, terminated=False)
    solved = _trajectory([False, False, False, True], terminated=True)
    spurious, rising = np.array([0.0, 0.2, 0.95, 0.2, 0.2]), np.array([0.0, 0.1, 0.2, 0.9])
    choice = choose_rule(
        [failed, solved], [spurious, rising], false_fire_limit=0.0, thresholds=(0.5, 0.99), frames=(1, 2, 3)
    )
    assert choice.rule == SuccessRule(0.5, 2)
    rows = {(row.threshold, row.frames): row for row in choice.table}
    assert len(rows) == 6
    assert (rows[0.5, 1].false_fires, rows[0.5, 1].found, rows[0.5, 1].within_limit) == (1, 1, False)
    assert (rows[0.5, 2].false_fires, rows[0.5, 2].found) == (0, 1)
    assert rows[0.99, 1].recall == 0.0 and rows[0.5, 2].false_fire_rate == 0.0


@pytest.mark.parametrize(("faint", "threshold"), [(3, 0.8), (4, 0.5)])
def test_a_little_recall_is_given_for_strictness(faint: int, threshold: float) -> None:
    """Of 100 successes 3 are left to a stricter threshold, 4 are not; a failure that only a looser one believes is not
    needed for that."""
    solved = _trajectory([False, True], terminated=True)
    scores = [np.array([0.0, 0.6 if number < faint else 0.85]) for number in range(100)]
    choice = choose_rule([solved] * 100, scores, false_fire_limit=0.0, thresholds=(0.5, 0.8, 0.9), frames=(1, 2))
    assert choice.rule == SuccessRule(threshold, 1)


def test_within_the_limit_fewer_false_fires_count_more_than_recall() -> None:
    """The loosest rule fires falsely once in a hundred trials, a stricter one that finds as much never."""
    solved, failed = _trajectory([False, True], terminated=True), _trajectory([False, False], terminated=False)
    trials = [solved] * 50 + [failed] * 50
    scores = [np.array([0.0, 0.95]) for _ in range(50)] + [np.array([0.0, 0.6 if n == 0 else 0.1]) for n in range(50)]
    choice = choose_rule(trials, scores, false_fire_limit=0.01, thresholds=(0.5, 0.7, 0.9), frames=(1,))
    assert choice.rule == SuccessRule(0.9, 1) and choice.table[0].within_limit and choice.table[0].false_fires == 1


def test_only_an_ended_success_is_held() -> None:
    """A last image is read as held only where true success ended the trial; a truncated one gets no extra frames."""
    ended, cut = _trajectory([False, True], terminated=True), _trajectory([False, True], terminated=False)
    for trajectory, found in ((ended, 1), (cut, 0)):
        table = choose_rule([trajectory], [np.array([0.0, 0.9])], thresholds=(0.5,), frames=(3,)).table
        assert table[0].found == found and table[0].successes == 1


def test_a_limit_that_nothing_meets_is_said() -> None:
    """If every candidate fires falsely too often, the fewest false fires win and no row claims to be within."""
    failed = _trajectory([False] * 4, terminated=False)
    choice = choose_rule([failed], [np.ones(4)], false_fire_limit=0.0, thresholds=(0.5,), frames=(1, 2, 3))
    assert not any(row.within_limit for row in choice.table)
    assert choice.rule.frames == 1


@pytest.mark.parametrize("bad", [{"threshold": 0.0}, {"threshold": 1.1}, {"frames": 0}])
def test_rules_are_validated(bad: dict[str, float]) -> None:
    """Impossible rules name their field."""
    with pytest.raises(ValueError, match=next(iter(bad))):
        SuccessRule(**bad)  # type: ignore[arg-type]


def test_choice_needs_truth() -> None:
    """Without ground truth there is nothing to measure against."""
    blind = _trajectory([False] * 3, terminated=False)
    object.__setattr__(blind, "privileged", {})
    with pytest.raises(ValueError, match="success"):
        choose_rule([blind], [np.zeros(3)])
