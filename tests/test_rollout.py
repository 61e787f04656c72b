"""The one loop that steps an environment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from toy_cell import ToyCell, ToyExpert, ToyReward

from lotj.judge import GroundTruthJudge, Judge, SuccessRule
from lotj.rollout import rollout


class Watching:
    """A policy that keeps what it is shown."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def reset(self) -> None:
        self.seen = []

    def act(self, observation: Any, rng: np.random.Generator, explore: bool = False) -> np.ndarray:
        self.seen.append(observation)
        return np.array([0.0, 0.0, -1.0], np.float32)


def test_without_a_judge_the_environment_pays_and_ends() -> None:
    """reward[t] describes image[t + 1]: an expert's trial ends, paid, on the image that is the true success."""
    cell = ToyCell(ends=True, horizon=20)
    trajectory = rollout(cell, ToyExpert(cell), np.random.default_rng(0), seed=3, source="expert")
    assert trajectory.terminated and not trajectory.truncated
    assert trajectory.reward.tolist() == [0.0] * (len(trajectory) - 1) + [1.0]
    assert trajectory.privileged["success"].tolist() == [False] * len(trajectory) + [True]
    assert trajectory.image.shape == (len(trajectory) + 1, 32, 32, 3) and trajectory.state.shape[1] == 0
    assert trajectory.privileged["tip_in_socket"].shape == (len(trajectory) + 1, 3)
    assert trajectory.privileged["force"].tolist() == list(range(len(trajectory) + 1))
    assert (trajectory.connector, trajectory.robot, trajectory.seed) == ("toy", "toy-robot", 3)


def test_a_judge_alone_pays_and_ends() -> None:
    """With a judge that never fires nothing is paid or ended, whatever the environment pays."""
    cell = ToyCell(horizon=12)
    judge = Judge(ToyReward(), SuccessRule(threshold=1.0))
    trajectory = rollout(cell, ToyExpert(cell), np.random.default_rng(0), seed=3, judge=judge)
    assert trajectory.privileged["success"].any()
    assert not trajectory.terminated and trajectory.truncated and not trajectory.reward.any()
    assert len(judge.history) == len(trajectory) == 12


def test_a_judge_that_fires_ends_the_trial() -> None:
    """The judge's success is the last transition, paid 1, terminated."""
    cell = ToyCell(horizon=20)
    judge = Judge(ToyReward(), SuccessRule(threshold=0.5, frames=2))
    trajectory = rollout(cell, ToyExpert(cell), np.random.default_rng(0), seed=3, judge=judge)
    assert trajectory.terminated and not trajectory.truncated
    assert trajectory.reward.tolist() == [0.0] * (len(trajectory) - 1) + [1.0]
    assert [judgement.above for judgement in judge.history[-3:]] == [False, True, True]


def test_ground_truth_reaches_neither_policy_nor_judge() -> None:
    """Policies see image and state only; garbage in place of ground truth changes nothing but the record of it."""
    policy = Watching()
    runs = []
    for garbage in (False, True):
        judge = Judge(ToyReward(), SuccessRule())
        runs.append(rollout(ToyCell(garbage=garbage), policy, np.random.default_rng(0), seed=1, judge=judge))
        assert all(set(observation) == {"image"} for observation in policy.seen)
    clean, noisy = runs
    for name in ("image", "action", "reward", "terminated"):
        assert np.array_equal(getattr(clean, name), getattr(noisy, name))
    assert not np.array_equal(clean.privileged["tip_in_socket"], noisy.privileged["tip_in_socket"])


def test_an_environment_must_not_end_a_judged_trial() -> None:
    """An end on true success would leak ground truth into Eq. 1."""
    cell = ToyCell(ends=True, horizon=20)
    with pytest.raises(ValueError, match="leak"):
        rollout(cell, ToyExpert(cell), np.random.default_rng(0), seed=3, judge=Judge(ToyReward(), SuccessRule(1.0)))


def test_the_diagnostic_needs_an_explicit_leak() -> None:
    """A ground-truth judge works only where ``reveal_ground_truth`` is passed by name."""
    cell, judge = ToyCell(horizon=20), GroundTruthJudge()
    with pytest.raises(RuntimeError, match="reveal_ground_truth"):
        rollout(cell, ToyExpert(cell), np.random.default_rng(0), seed=3, judge=judge)
    trajectory = rollout(
        cell,
        ToyExpert(cell),
        np.random.default_rng(0),
        seed=3,
        judge=judge,
        reveal_ground_truth=judge.reveal_ground_truth,
    )
    assert trajectory.terminated and trajectory.privileged["success"][-1]


def test_a_dislodged_plug_truncates() -> None:
    """A plug lost at step 2 ends the trial there, as truncated, and is recorded."""
    trajectory = rollout(ToyCell(dislodge_at=2), Watching(), np.random.default_rng(0), seed=0)
    assert len(trajectory) == 2 and trajectory.truncated and not trajectory.terminated
    assert trajectory.privileged["dislodged"].tolist() == [False, False, True]


def test_options_steps_and_seeds_pass_through() -> None:
    """Reset options reach the environment, ``on_step`` sees each step, equal seeds give equal trials."""
    cell = ToyCell(horizon=4)
    seen: list[int] = []
    kwargs: dict[str, Any] = {"seed": 5, "explore": True, "options": {"scenario": "II"}}
    expert = ToyExpert(cell)
    first = rollout(cell, expert, np.random.default_rng(1), on_step=lambda step, o, a: seen.append(step), **kwargs)
    second = rollout(cell, expert, np.random.default_rng(1), **kwargs)
    other = rollout(cell, expert, np.random.default_rng(2), **kwargs)
    assert cell.options[0] == {"scenario": "II"} and seen == [0, 1, 2, 3]
    assert np.array_equal(first.action, second.action) and np.array_equal(first.image, second.image)
    assert not np.array_equal(first.action, other.action)


@pytest.mark.parametrize("bad", [np.zeros(2, np.float32), np.array([0, np.nan, 0], np.float32)])
def test_bad_actions_are_refused(bad: np.ndarray) -> None:
    """A policy that returns another shape or NaN is named, not executed."""
    policy = Watching()
    policy.act = lambda *args, **kwargs: bad  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="action"):
        rollout(ToyCell(), policy, np.random.default_rng(0))
