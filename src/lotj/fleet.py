"""Several cells that feed one learner (the paper has two robots): one trial in each with the same weights, then learn.

A trial depends on the weights and on its own draws alone. So it is the same in whichever process it is rolled, and a
cell whose process was killed rolls it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np
import torch
from torch import Tensor

from lotj.algos.learner import Learner
from lotj.distributed import RayCluster
from lotj.guard import GuardConfig, Tug, tug_test, unpaid
from lotj.judge import GroundTruthJudge, Judge, Judgement
from lotj.kept import Kept
from lotj.online import EncodingPolicy
from lotj.rollout import rollout
from lotj.trials import RewardSource
from lotj.types import Trajectory

SOURCES: Mapping[RewardSource, str] = {"learned": "practice", "ground-truth": "practice-ground-truth"}
"""What the robot's own trajectories are stored as: the diagnostic's never pass for self-rewarded ones."""


class Cells(NamedTuple):
    """Who practises, and where."""

    robots: tuple[str, ...] = ()
    """Names of cells, each with a trial of its own in every round; none for the preset's own."""
    ray: RayCluster | None = None
    """Each cell in a process of its own, there; None for all of them in this one, in turn."""


class Start(NamedTuple):
    """How a trial begins; all its randomness comes from here."""

    scenario: str
    env_seed: int
    rng: np.random.Generator
    """The policy's."""


class Rolled(NamedTuple):
    """A trial as it comes out of a cell."""

    trajectory: Trajectory
    features: Tensor
    """(T + 1, F), its frames as they were encoded to act on."""
    history: Sequence[Judgement]
    """Of images 1 to T."""
    tug: Tug | None
    """What the robot felt after a trial that the judge ended, with a guard; None too where its safety layer had backed
    off, so that there was nothing to feel: such a trial is not paid."""


class Cell:
    """One robot in front of the connector, with a judge of its own.

    Args:
        env: the connector to learn; it must not end trials on true success.
        learner: acts.
        judge: rewards the robot; None only with ``reward="ground-truth"``.
        reward: who pays.
        guard: whether the robot feels for itself what its reward claims.

    Raises:
        ValueError: a judge that does not match ``reward``.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        learner: Learner,
        judge: Judge | None,
        reward: RewardSource,
        guard: GuardConfig,
    ) -> None:
        self.env = env
        self.learner = learner
        self._judge, self._reveal_ground_truth = reward_source(reward, judge)
        self._source = SOURCES[reward]
        self._guard = guard

    def roll(self, start: Start) -> Rolled:
        """Roll one trial, exploring."""
        robot = EncodingPolicy(self.learner)
        trajectory = rollout(
            self.env,
            robot,
            start.rng,
            explore=True,
            seed=start.env_seed,
            judge=self._judge,
            options={"scenario": start.scenario},
            source=self._source,
            reveal_ground_truth=self._reveal_ground_truth,
        )
        tug = None
        if trajectory.terminated and self._guard.mode != "off":
            tug = tug_test(self.env, self._guard.tug)
            if tug is None:
                trajectory = unpaid(trajectory)
        return Rolled(trajectory, robot.features(trajectory), tuple(self._judge.history), tug)

    def roll_with(self, weights: Mapping[str, Any], start: Start) -> Rolled:
        """Roll one trial with a learner's weights (``Learner.state_dict``)."""
        self.learner.load_state_dict(weights)
        rolled = self.roll(start)
        return rolled._replace(features=rolled.features.cpu())


class Fleet(Protocol):
    """Cells that roll in rounds."""

    size: int
    """Cells, and trials in a round."""

    def roll(self, learner: Learner, starts: Sequence[Start]) -> list[Rolled]:
        """One trial for each start, all with the learner's present weights; the last round may have fewer than
        ``size``."""
        ...


class LocalFleet:
    """Cells in this process, one after the other, that act with the learner itself."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.size = len(cells)
        self._cells = cells

    def roll(self, learner: Learner, starts: Sequence[Start]) -> list[Rolled]:
        """See ``Fleet``."""
        assert all(cell.learner is learner for cell in self._cells)
        return [cell.roll(start) for cell, start in zip(self._cells, starts)]


class RayFleet:
    """Cells in processes of a cluster, which are told the learner's weights before each round.

    Args:
        builders: build each cell, there.
        names: of the cells, for errors.
        cluster: where.

    Raises:
        ClusterError: the cluster has fewer CPUs than there are cells.
    """

    def __init__(self, builders: Sequence[Callable[[], Cell]], names: Sequence[str], cluster: RayCluster) -> None:
        self.size = len(builders)
        self._cells = Kept(builders, names, cluster)

    def __enter__(self) -> RayFleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cells.close()

    def roll(self, learner: Learner, starts: Sequence[Start]) -> list[Rolled]:
        """See ``Fleet``."""
        rolled = self._cells.call("roll_with", _on_cpu(learner.state_dict()), starts)
        return [one._replace(trajectory=_own(one.trajectory)) for one in rolled]


def reward_source(
    reward: RewardSource, judge: Judge | None
) -> tuple[Judge | GroundTruthJudge, Callable[[bool], None] | None]:
    """Who judges, and the leak of ground truth: None unless the diagnostic is asked for."""
    if reward == "ground-truth":
        if judge is not None:
            raise ValueError('PracticeConfig.reward is "ground-truth", so no judge is expected: pass judge=None')
        truth = GroundTruthJudge()
        return truth, truth.reveal_ground_truth
    if not isinstance(judge, Judge):
        raise ValueError(f'PracticeConfig.reward is "learned", which needs a Judge, got {type(judge).__name__}')
    return judge, None


def _on_cpu(state: Any) -> Any:
    """A learner's state for machines with other devices."""
    if isinstance(state, Mapping):
        return {key: _on_cpu(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [_on_cpu(value) for value in state]
    return state.cpu() if isinstance(state, torch.Tensor) else state


def _own(trajectory: Trajectory) -> Trajectory:
    """The same in memory of this process's own: what comes from Ray may not be written to."""
    names = ("image", "state", "action", "reward")
    arrays = {name: np.array(getattr(trajectory, name)) for name in names}
    privileged = {name: np.array(value) for name, value in trajectory.privileged.items()}
    return replace(trajectory, **arrays, privileged=privileged)  # type: ignore[arg-type]
