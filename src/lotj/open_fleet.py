"""The cells of a practice, opened in this process or on a cluster."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from lotj.algos.learner import Learner
from lotj.cells.opening import is_own_cell, open_cell, robot_name
from lotj.fleet import Cell, Cells, Fleet, LocalFleet, RayFleet
from lotj.guard import GuardConfig
from lotj.judge import Judge, SuccessRule
from lotj.sim.connector import Connector
from lotj.trials import RewardSource
from lotj.types import RewardModel


@dataclass(frozen=True)
class Job:
    """What all cells of a practice have in common."""

    connector: str | Connector
    """To be practised, as for ``lotj.cells.opening.open_cell``."""
    image_size: int
    """px."""
    cameras: int
    """How many cameras' pictures an image holds."""
    reward: RewardSource
    """Who pays."""
    reward_model: RewardModel
    """Judges, with ``reward="learned"``."""
    rule: SuccessRule
    """Of the judge."""
    guard: GuardConfig
    """Whether the robot tugs."""
    stop_file: Path | None = None
    """Own cells stop as soon as it exists."""
    ledger: Path | None = None
    """Where the contact of a whole practice is kept for an own cell."""


def open_fleet(
    job: Job, cells: Cells, learner: Learner, build_learner: Callable[[], Learner], places: ExitStack
) -> Fleet:
    """Open the cells.

    Args:
        job: what they practise.
        cells: which robots, at least one, and where.
        learner: acts in cells of this process.
        build_learner: builds one like it in another process, where it will be told the weights.
        places: closes the cells.

    Raises:
        ValueError: unknown robot, two own cells of one name, or an own cell on a cluster.
        ClusterError: the cluster has fewer CPUs than there are cells.
    """
    own = [robot for robot in cells.robots if is_own_cell(robot)]
    names = [robot_name(robot) for robot in own]
    if len(set(names)) < len(names):
        raise ValueError(
            f"{', '.join(own)}: two of these cells have the same name ({', '.join(names)}), and would share what is "
            "kept of each; give each file a `name` of its own"
        )
    if cells.ray is None:
        here = []
        for robot in cells.robots:
            here.append(_cell(job, robot, learner))
            places.enter_context(here[-1].env)
        return LocalFleet(here)
    if own:
        raise ValueError(
            f"{', '.join(own)} cannot practise on a cluster: a process that is killed there would leave the robot "
            "where it is. Leave out --ray; cells of this process practise in turn"
        )
    builders = [partial(_cell_there, job, robot, build_learner, torch.get_num_threads()) for robot in cells.robots]
    return places.enter_context(RayFleet(builders, cells.robots, cells.ray))


def _cell(job: Job, robot: str, learner: Learner) -> Cell:
    judge = Judge(job.reward_model, job.rule) if job.reward == "learned" else None
    ledger = None if job.ledger is None else job.ledger.with_stem(f"{job.ledger.stem}-{robot_name(robot)}")
    env = open_cell(
        job.connector,
        robot,
        image_size=job.image_size,
        cameras=job.cameras,
        purpose="practise",
        stop_file=job.stop_file,
        ledger=ledger,
    )
    return Cell(env, learner, judge, job.reward, job.guard)


def _cell_there(job: Job, robot: str, build_learner: Callable[[], Learner], threads: int) -> Cell:
    """In a worker, with as many threads as here: their number decides how sums are rounded."""
    torch.set_num_threads(threads)
    return _cell(job, robot, build_learner())
