"""Cells of the simulator that practise together, in this process or on a cluster."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch

from lotj.algos.learner import Learner
from lotj.fleet import Cell, Cells, Fleet, LocalFleet, RayFleet
from lotj.guard import GuardConfig
from lotj.judge import Judge, SuccessRule
from lotj.sim.connectors import Connector
from lotj.sim.env import InsertionEnv
from lotj.trials import RewardSource
from lotj.types import RewardModel


@dataclass(frozen=True)
class Job:
    """What all cells of a practice have in common."""

    connector: Connector
    """To be practised."""
    image_size: int
    """px."""
    reward: RewardSource
    """Who pays."""
    reward_model: RewardModel
    """Judges, with ``reward="learned"``."""
    rule: SuccessRule
    """Of the judge."""
    guard: GuardConfig
    """Whether the robot tugs."""


def simulated_fleet(
    job: Job, cells: Cells, learner: Learner, build_learner: Callable[[], Learner], places: ExitStack
) -> Fleet:
    """Build the cells.

    Args:
        job: what they practise.
        cells: which robots, at least one, and where.
        learner: acts in cells of this process.
        build_learner: builds one like it in another process, where it will be told the weights.
        places: closes the cells.

    Raises:
        ValueError: unknown robot.
        ClusterError: the cluster has fewer CPUs than there are cells.
    """
    if cells.ray is None:
        here = [_cell(job, robot, learner) for robot in cells.robots]
        for cell in here:
            places.callback(cell.env.close)
        return LocalFleet(here)
    builders = [partial(_cell_there, job, robot, build_learner, torch.get_num_threads()) for robot in cells.robots]
    return places.enter_context(RayFleet(builders, cells.robots, cells.ray))


def _cell(job: Job, robot: str, learner: Learner) -> Cell:
    judge = Judge(job.reward_model, job.rule) if job.reward == "learned" else None
    env = InsertionEnv(job.connector, robot, image_size=job.image_size)
    return Cell(env, learner, judge, job.reward, job.guard)


def _cell_there(job: Job, robot: str, build_learner: Callable[[], Learner], threads: int) -> Cell:
    """In a worker, with as many threads as here: their number decides how sums are rounded."""
    torch.set_num_threads(threads)
    return _cell(job, robot, build_learner())
