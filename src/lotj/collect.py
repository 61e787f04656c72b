"""Collect trajectories with the scripted expert, over all cores (Sec. IV).

A trajectory depends on its seed alone, and seeds on (config seed, connector, index): the store is the same whatever the
number of workers, and a collection that was killed continues where it stopped.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lotj.data.schema import DISLODGED, dislodged_counts
from lotj.data.store import TrajectoryStore
from lotj.distributed import Workers, in_workers
from lotj.files import to_json
from lotj.provenance import provenance
from lotj.rollout import policy_rng, rollout
from lotj.sim.connectors import get_connector
from lotj.sim.env import ACTION_SCALE, InsertionEnv
from lotj.sim.expert import Expert, ExpertConfig
from lotj.sim.randomize import CELLS
from lotj.types import Trajectory, later

CHUNK = 16
"""Trajectories that a worker rolls before it hands them over."""


@dataclass(frozen=True)
class CollectConfig:
    """What to collect. The defaults are the paper's protocol; the shares add what a reward needs to see
    (docs/data.md)."""

    connectors: tuple[str, ...] = ()
    """Names of the catalogue, names of drawn connectors (``gen-<seed>-<i>``) or TOML files."""
    trajectories: int = 100
    """Trajectories of each connector, dislodged ones included (they are counted and discarded)."""
    counts: tuple[int, ...] = ()
    """Trajectories of each connector by its place, instead of equally many of all; empty for ``trajectories``."""
    robots: tuple[str, ...] = tuple(CELLS)
    """Cells, taken in turn."""
    noise_probability: float = 0.2
    """Chance of a random action at each step (Sec. IV)."""
    slow: float = 0.0
    """Share of slow insertions from close by, which show every depth."""
    wrong_place: float = 0.0
    """Share of presses 3-45 mm beside the socket, and of flights in the air about it. Labels stay true."""
    image_size: int = 64
    """px."""
    cameras: int = later(1)
    """How many of the wrist's cameras are recorded, side by side."""
    seed: int = 0
    """Of the whole collection."""

    def __post_init__(self) -> None:
        if not self.connectors:
            raise ValueError("CollectConfig.connectors is empty; name at least one (`lotj connectors` lists them)")
        if self.trajectories < 1:
            raise ValueError(f"CollectConfig.trajectories must be at least 1, got {self.trajectories}")
        if self.counts and len(self.counts) != len(self.connectors):
            raise ValueError(
                f"CollectConfig.counts has {len(self.counts)} entries for {len(self.connectors)} connectors; "
                "give one for each, or none to take `trajectories` of each"
            )
        for connector, count in zip(self.connectors, self.counts):
            if count < 1:
                raise ValueError(f"CollectConfig.counts: {connector} has {count}, expected at least 1; leave it out")
        if self.slow < 0 or self.wrong_place < 0 or self.slow + self.wrong_place > 1:
            raise ValueError(f"shares slow={self.slow} and wrong_place={self.wrong_place} must be >= 0 and sum to <= 1")
        unknown = set(self.robots) - set(CELLS)
        if unknown or not self.robots:
            raise ValueError(f"unknown robots {sorted(unknown)}; the cells are {', '.join(CELLS)}")

    @property
    def planned(self) -> tuple[int, ...]:
        """Trajectories of each of ``connectors``, in their order."""
        return self.counts or (self.trajectories,) * len(self.connectors)


class Chunk(NamedTuple):
    """A worker's task: some trajectories of one connector on one robot."""

    config: CollectConfig
    connector: str
    robot: str
    indices: tuple[int, ...]

    @property
    def name(self) -> str:
        """What it is called in errors."""
        return f"{self.connector} on {self.robot}, trajectories {self.indices[0]} to {self.indices[-1]}"


@dataclass
class Collected:
    """What a collection came to."""

    trajectories: int = 0
    frames: int = 0
    successes: int = 0
    dislodged: dict[str, int] = field(default_factory=dict)
    """Discarded, by connector."""


def trajectory_seed(seed: int, connector: str, index: int) -> int:
    """The seed of one trajectory: independent streams for every connector and index."""
    return int(np.random.SeedSequence([seed, zlib.crc32(connector.encode()), index]).generate_state(1, np.uint32)[0])


def collect(
    config: CollectConfig,
    path: Path,
    *,
    workers: Workers = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Collected:
    """Fill the store at ``path``; resumes a collection of the same config.

    Args:
        config: what to collect.
        path: the store's file, made where it does not exist.
        workers: processes, 1 collects in this one; or a cluster.
        progress: called with (trajectories done, trajectories in all).

    Returns:
        Totals over the whole store.

    Raises:
        ValueError: the store holds a collection of another config, or of connectors described otherwise.
        WorkerKilledError: a process was killed; the same call continues.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    total = sum(config.planned)
    with TrajectoryStore(path, mode="a") as store:
        _claim(store, config)
        finished = _finished(store)
        chunks = [chunk for chunk in _chunks(config) if not _seeds(chunk) <= finished]
        done = total - sum(len(_seeds(chunk) - finished) for chunk in chunks)
        progress(done, total)
        with closing(in_workers(roll_chunk, chunks, workers)) as results:
            for connector, seed, trajectory in chain.from_iterable(results):
                if (connector, seed) in finished:
                    continue
                if trajectory is None:
                    store.count(f"{DISLODGED}/{connector}/{seed}")
                else:
                    store.append(trajectory)
                done += 1
                progress(done, total)
        return summarise(store)


def summarise(store: TrajectoryStore) -> Collected:
    """Totals of a store."""
    index, dislodged = store.index, dislodged_counts(store.counts)
    return Collected(len(store), int(index.length.sum() + len(store)), int(index.terminated.sum()), dislodged)


def roll_chunk(chunk: Chunk) -> list[tuple[str, int, Trajectory | None]]:
    """Roll a chunk's trajectories; None stands for a dislodged one. Runs in a worker."""
    config = chunk.config
    env = InsertionEnv(
        get_connector(chunk.connector),
        chunk.robot,
        "mixed",
        image_size=config.image_size,
        cameras=config.cameras,
        ground_truth=True,
    )
    rolled: list[tuple[str, int, Trajectory | None]] = []
    try:
        for index in chunk.indices:
            seed = trajectory_seed(config.seed, env.connector.name, index)
            rng = policy_rng(seed)
            source, expert, options = _draw_behaviour(config, rng)
            trajectory = rollout(env, Expert(env, expert), rng, seed=seed, options=options, source=source)
            dislodged = bool(np.any(trajectory.privileged["dislodged"]))
            rolled.append((env.connector.name, seed, None if dislodged else trajectory))
    finally:
        env.close()
    return rolled


def _draw_behaviour(config: CollectConfig, rng: np.random.Generator) -> tuple[str, ExpertConfig, dict[str, Any]]:
    """Who acts in a trajectory: its source, the expert's settings, the reset options."""
    draw = rng.random()
    if draw < config.slow:
        offset = (*rng.uniform(-0.003, 0.003, 2), rng.uniform(0.002, 0.006))
        return "slow", ExpertConfig(config.noise_probability / 2, rng.uniform(0.2, 0.5)), {"offset": offset}
    if draw < config.slow + config.wrong_place:
        # A third of them out of reach of a start, and a sixth in the air: what a policy that strays will see.
        kind = rng.random()
        beside = rng.uniform(0.02, 0.045) if kind < 1 / 3 else rng.uniform(0.003, 0.02)
        hover = None
        if kind > 5 / 6:
            beside, hover = rng.uniform(0.0, 0.06), rng.uniform(0.015, 0.08)
        return "wrong-place", ExpertConfig(config.noise_probability, wrong_place=beside, hover=hover), {}
    return "expert", ExpertConfig(config.noise_probability), {}


def _chunks(config: CollectConfig) -> list[Chunk]:
    """All tasks, round after round over robots and connectors, so that a part of a collection is balanced too.

    Robots take trajectories in turn: each has half of them, or one more.
    """
    turns = [_turns(count, len(config.robots)) for count in config.planned]
    return [
        Chunk(config, connector, robot, own[turn][place])
        for turn in range(max(map(len, turns)))
        for place, robot in enumerate(config.robots)
        for connector, own in zip(config.connectors, turns)
        if turn < len(own) and own[turn][place]
    ]


def _turns(count: int, robots: int) -> list[list[tuple[int, ...]]]:
    """The indices of one connector's trajectories, turn by turn for each robot; chunks of nearly equal size."""
    own = [range(first, count, robots) for first in range(robots)]
    turns = math.ceil(len(own[0]) / CHUNK)
    size = math.ceil(len(own[0]) / turns)
    return [[tuple(indices[turn * size : (turn + 1) * size]) for indices in own] for turn in range(turns)]


def _seeds(chunk: Chunk) -> set[tuple[str, int]]:
    name = get_connector(chunk.connector).name
    return {(name, trajectory_seed(chunk.config.seed, name, index)) for index in chunk.indices}


def _finished(store: TrajectoryStore) -> set[tuple[str, int]]:
    """(connector, seed) of what is stored or was discarded."""
    stored = zip(store.index.connector.tolist(), store.index.seed.tolist())
    discarded = (key.split("/")[1:] for key in store.counts if key.startswith(f"{DISLODGED}/"))
    return {*stored, *((name, int(seed)) for name, seed in discarded)}


def as_recorded(config: CollectConfig) -> dict[str, Any]:
    """The settings as a store's metadata hold them."""
    recorded: dict[str, Any] = to_json(config)
    if not config.counts:
        del recorded["counts"]  # as stores had it before there were counts
    return recorded


def _claim(store: TrajectoryStore, config: CollectConfig) -> None:
    """Note in the store what it is a collection of and where it comes from, or refuse another collection's store."""
    wanted = as_recorded(config)
    described = _descriptions(config)
    metadata = store.metadata
    held = metadata.get("collect")
    if held is None:
        store.set_metadata("connectors", described)
        store.set_metadata("action_scale", list(ACTION_SCALE[:3]))
        # Without the time: the same collection by the same command gives the same rows.
        store.set_metadata("provenance", {key: value for key, value in provenance().items() if key != "started"})
        store.set_metadata("collect", wanted)  # last: a store that has it has the others
    elif held != wanted:
        differs = [key for key in wanted | held if held.get(key) != wanted.get(key)]
        raise ValueError(
            f"{store.path} holds a collection with another {', '.join(differs)}; "
            "name another folder, or delete the store to collect anew"
        )
    else:
        _refuse_edited(store.path, metadata.get("connectors", {}), described)


def _refuse_edited(path: Path, held: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    if gone := sorted(set(held) - set(now)):
        raise ValueError(
            f"{path} holds trajectories of {', '.join(map(repr, gone))}, which the files named now do not describe; go "
            "back to the name that it was begun with, or choose another folder"
        )
    for name in held:
        differs = [field for field in now[name] if held[name].get(field) != now[name][field]]
        if differs:
            raise ValueError(
                f"{path} holds trajectories of a connector {name!r} with another {', '.join(differs)}; go back to the "
                "description that it was begun with, rename the connector, or choose another folder"
            )


def _descriptions(config: CollectConfig) -> dict[str, Any]:
    """Every field of every connector, by name, as JSON gives it back."""
    connectors = [get_connector(name) for name in config.connectors]
    described: dict[str, Any] = json.loads(json.dumps({connector.name: asdict(connector) for connector in connectors}))
    return described
