"""Roll-outs of an early policy on the known connectors: the states that a policy gets into, which no expert shows.

DAgger (Ross et al. 2011) in one round: a first policy is trained on the scripted data, rolled out with noise, and its
trials join the store. What the expert would have done on each of their frames follows from where the tip was
(``lotj.relabel.expert_actions``), which the calibrated robot of Sec. IV knows on known connectors. Not the paper's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lotj.algos.policy import ImagePolicy, PolicyNetwork
from lotj.algos.training import torch_threads
from lotj.collect import CHUNK, trajectory_seed
from lotj.data.store import TrajectoryStore
from lotj.distributed import Workers, in_workers
from lotj.offline import Known, PolicyStage, Progress, silent, train_policy
from lotj.rollout import policy_rng, rollout
from lotj.sim.connectors import get_connector
from lotj.sim.env import InsertionEnv
from lotj.types import Trajectory

SOURCE = "roll-out"
"""What these trajectories are stored as; their rewards are ground truth."""
FIRST_INDEX = 1_000_000
"""The seeds of roll-outs follow those of as many scripted trajectories of a connector."""


@dataclass(frozen=True)
class DaggerConfig:
    """Roll-outs of a first policy."""

    trials: int = 40
    """Roll-outs of each known connector, validation's too; 0 for none, as in the paper."""
    steps: int = 2000
    """Gradient steps of the policy that is rolled out."""
    exploration_std: float = 0.3
    """Standard deviation of its noise, in units of action."""
    exploration_factor: float = 1.5
    """Each trial scales its noise by a factor drawn from [0, this], as practice does."""

    def __post_init__(self) -> None:
        if self.trials < 0 or self.steps < 1:
            raise ValueError(
                f"DaggerConfig: trials must not be negative and steps at least 1, got {self.trials} and {self.steps}"
            )


class Rolls(NamedTuple):
    """A worker's task: some roll-outs on one connector by one robot."""

    config: DaggerConfig
    connector: str
    robot: str
    image_size: int
    cameras: int
    seed: int
    indices: tuple[int, ...]
    policy: Mapping[str, Any]
    """``PolicyNetwork.from_state``'s, its tensors as arrays."""

    @property
    def name(self) -> str:
        """What it is called in errors."""
        return f"roll-outs on {self.connector} by {self.robot}"


def train_first_policy(
    config: DaggerConfig,
    stage: PolicyStage,
    store: TrajectoryStore,
    known: Known,
    out_dir: Path,
    seed: int,
    progress: Progress = silent,
) -> None:
    """Train the policy that is rolled out, on what is in the store so far; a finished one is kept, whatever has joined
    the store since."""
    if (out_dir / "done.json").exists():
        return
    model = replace(stage.model, decay_steps=config.steps if stage.model.decay_steps else 0)
    stage = replace(stage, model=model, steps=config.steps, relabel=True)
    train_policy(stage, store, known, None, out_dir, seed, progress)


def roll_out(
    config: DaggerConfig,
    policy: PolicyNetwork,
    connectors: tuple[str, ...],
    robots: tuple[str, ...],
    seed: int,
    path: Path,
    *,
    workers: Workers = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Add roll-outs of ``policy`` to the store at ``path``; continues what was begun. The same whatever the workers.

    Trials that dislodge the plug are kept: up to there they show what not to do.

    Args:
        config: how many, how noisy.
        policy: who acts.
        connectors: names or TOML files, each rolled out ``config.trials`` times.
        robots: cells, in turn.
        seed: of all.
        path: a store with scripted trajectories.
        workers: processes, 1 rolls out in this one; or a cluster.
        progress: called with (trials done, trials in all).

    Raises:
        WorkerKilledError: a process was killed; the same call continues.
    """
    total = config.trials * len(connectors)
    with TrajectoryStore(path, mode="a") as store:
        own = store.index.source == SOURCE
        finished = set(zip(store.index.connector[own].tolist(), store.index.seed[own].tolist()))
        shape, state = store.shape, _as_arrays(policy)
        tasks = [
            Rolls(config, connector, robot, shape.height, shape.cameras, seed, indices[at : at + CHUNK], state)
            for connector in connectors
            for place, robot in enumerate(robots)
            for indices in [tuple(range(FIRST_INDEX + place, FIRST_INDEX + config.trials, len(robots)))]
            for at in range(0, len(indices), CHUNK)
        ]
        tasks = [task for task in tasks if not _seeds(task) <= finished]
        done = total - sum(len(_seeds(task) - finished) for task in tasks)
        progress(done, total)
        with closing(in_workers(roll_task, tasks, workers)) as results:
            for trajectory in chain.from_iterable(results):
                if (trajectory.connector, trajectory.seed) not in finished:
                    store.append(trajectory)
                    done += 1
                    progress(done, total)


def roll_task(task: Rolls) -> list[Trajectory]:
    """Roll a task's trials. Runs in a worker."""
    config, connector = task.config, get_connector(task.connector)
    policy = ImagePolicy(_from_arrays(task.policy))
    env = InsertionEnv(
        connector, task.robot, "mixed", image_size=task.image_size, cameras=task.cameras, ground_truth=True
    )
    rolled = []
    try:
        with torch_threads(1):
            for index in task.indices:
                seed = trajectory_seed(task.seed, connector.name, index)
                rng = policy_rng(seed)
                policy.exploration_std = config.exploration_std * rng.uniform(0.0, config.exploration_factor)
                rolled.append(rollout(env, policy, rng, explore=True, seed=seed, source=SOURCE))
    finally:
        env.close()
    return rolled


def _seeds(task: Rolls) -> set[tuple[str, int]]:
    name = get_connector(task.connector).name
    return {(name, trajectory_seed(task.seed, name, index)) for index in task.indices}


def _as_arrays(policy: PolicyNetwork) -> dict[str, Any]:
    """The state of a network as plain arrays: thousands of shared tensors would use up a process's file handles."""
    weights: dict[str, NDArray[Any]] = {key: value.cpu().numpy() for key, value in policy.state_dict().items()}
    return {**policy.identity, "network": weights}


def _from_arrays(state: Mapping[str, Any]) -> PolicyNetwork:
    weights = {key: torch.from_numpy(np.array(value)) for key, value in state["network"].items()}
    return PolicyNetwork.from_state({**state, "network": weights})
