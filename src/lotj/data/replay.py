"""Batches for learning, drawn from stores (pixels), and the mix of offline and online batches.

Images leave HWC for CHW here and nowhere else, by a view: batches are channels last in memory. All draws come from the
generator that is passed, on the CPU, and depend on nothing else: a dataset in memory and one read from disk give the
same batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Literal, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lotj.data.batches import HELD_OUT, FeatureBatch, FrameBatch, FrameSampling, Transition, pressed_beside
from lotj.data.store import TrajectoryStore
from lotj.data.trajectory_index import TrajectoryIndex

PRELOAD_BYTES = 4 << 30
"""With ``preload="auto"``, images up to this size are kept in memory, by each process that trains. From the disk's
cache, which processes share, 64 frames of two cameras take 2.3 ms (0.1 from memory) of the 100 that a step takes."""


class TransitionDataset:
    """The trajectories of some connectors of a store, to be sampled from.

    Only connectors that are named come in, so that a held-out connector cannot slip into training unnoticed.

    Args:
        store: An open store; what is appended later is not seen. Kept open by the caller.
        connectors: Defines the domains: a connector's domain is its place in this sequence.
        exclude: Connectors to leave out although they have a domain (for validation).
        held_out: Connectors to take in without a class, domain -1 (for practice).
        sources: Only trajectories of these sources; None takes all.
        limit: At most this many trajectories of each connector, the first stored of its robots in turn: the same
            ones however many more there are. None takes all.
        preload: Keep the images in memory; ``"auto"`` if they fit in `PRELOAD_BYTES`.
        augment: Applied to ``image`` and ``next_image`` (each draws for itself) and to frames.

    Raises:
        ValueError: No trajectory is left, or a connector is named twice.
    """

    def __init__(
        self,
        store: TrajectoryStore,
        connectors: Sequence[str],
        *,
        exclude: Sequence[str] = (),
        held_out: Sequence[str] = (),
        sources: Sequence[str] | None = None,
        limit: int | None = None,
        preload: bool | Literal["auto"] = "auto",
        augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    ) -> None:
        names = [*connectors, *held_out]
        twice = sorted({name for name in names if names.count(name) > 1} | (set(exclude) & set(held_out)))
        if twice:
            raise ValueError(f"connectors {twice} are named twice; each is trained on, excluded or held out")
        domain_of = {name: i for i, name in enumerate(connectors) if name not in exclude}
        domain_of |= dict.fromkeys(held_out, HELD_OUT)
        index = store.index
        wanted = np.array([name in domain_of for name in index.connector], bool)
        if sources is not None:
            wanted &= np.isin(index.source, list(sources))
        if limit is not None:
            for name in domain_of:
                wanted[_robots_in_turn(index, np.flatnonzero(wanted & (index.connector == name)))[limit:]] = False
        self.store, self.connectors, self.augment = store, tuple(connectors), augment
        self.trajectories: NDArray[np.int64] = np.flatnonzero(wanted)
        """(N,) ids in the store of the trajectories taken in."""
        if not len(self.trajectories):
            raise ValueError(
                f"{store.path} holds no trajectory of {sorted(domain_of)} with source {sources or 'any'}; "
                f"it holds connectors {sorted(set(index.connector.tolist()))}"
            )
        self.domains: NDArray[np.int64] = np.array([domain_of[c] for c in index.connector[wanted].tolist()], np.int64)
        """(N,) their domains."""
        length = index.length[wanted]
        rows, self._frame_trajectory, self.frame_step = _ragged(length + 1)
        _, trajectory, step = _ragged(length)
        self._transition_trajectory, self._first_frame = trajectory, rows[trajectory] + step
        self._terminated = store.task_ended[wanted][trajectory] & (step == length[trajectory] - 1)
        # The arrays themselves: the store forgets its own when something is appended.
        self._states, self._actions, self._rewards = store.states, store.actions, store.rewards
        starts = index.frame_offset[self.trajectories]
        self._stored_frame = starts[self._frame_trajectory] + self.frame_step
        self._stored_transition = index.transition_offset[self.trajectories][trajectory] + step
        self._pool: dict[FrameSampling, list[tuple[NDArray[np.int64], ...]]] = {}
        size = len(self.frame_step) * store.shape.height * store.shape.width * 3
        self._images = self._load(rows) if (size <= PRELOAD_BYTES if preload == "auto" else preload) else None

    def __len__(self) -> int:
        """Number of transitions."""
        return len(self._first_frame)

    @property
    def frames(self) -> int:
        """Number of frames; row ``f`` of `frame_label`, `frame_domain` and `frame_images` is the same frame."""
        return len(self.frame_step)

    @cached_property
    def frame_domain(self) -> NDArray[np.int64]:
        """(frames,) domain of each."""
        return self.domains[self._frame_trajectory]

    @cached_property
    def frame_label(self) -> NDArray[np.bool_]:
        """(frames,) ground-truth success of each. Raises `KeyError` where it was not recorded."""
        return self.store.privileged("success")[self._stored_frame].astype(bool)

    def frame_images(self, rows: NDArray[np.int64]) -> Tensor:
        """Images (N, 3, H, W) uint8 of frames 0 <= row < `frames`, not augmented."""
        if self._images is not None:
            image = self._images[rows]
        else:
            trajectories = self.trajectories[self._frame_trajectory[rows]]
            image = self.store.read_images(trajectories, self.frame_step[rows])
        return torch.from_numpy(image).permute(0, 3, 1, 2)

    def sample(self, batch: int, generator: torch.Generator) -> Transition:
        """Draw transitions uniformly, with replacement."""
        drawn = self.transitions(torch.randint(len(self), (batch,), generator=generator).numpy())
        if self.augment is None:
            return drawn
        image = self.augment(torch.cat([drawn.image, drawn.next_image]), generator)
        return drawn._replace(image=image[:batch], next_image=image[batch:])

    def transitions(self, rows: NDArray[np.int64]) -> Transition:
        """The transitions 0 <= row < `len(self)` of ``rows`` (B,), not augmented."""
        first, stored = self._first_frame[rows], self._stored_transition[rows]
        trajectory = self._transition_trajectory[rows]
        return Transition(
            image=self.frame_images(first),
            next_image=self.frame_images(first + 1),
            state=torch.from_numpy(self._states[self._stored_frame[first]]),
            next_state=torch.from_numpy(self._states[self._stored_frame[first + 1]]),
            action=torch.from_numpy(self._actions[stored]),
            reward=torch.from_numpy(self._rewards[stored]),
            terminated=torch.from_numpy(self._terminated[rows]),
            domain=torch.from_numpy(self.domains[trajectory]),
        )

    @property
    def actions(self) -> NDArray[np.float32]:
        """(N, A) of all transitions."""
        return self._actions[self._stored_transition]

    @property
    def source(self) -> NDArray[np.str_]:
        """(N,) who acted in each transition."""
        return self.store.index.source[self.trajectories][self._transition_trajectory]

    @property
    def contacts(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Before each transition: where the tip was in the socket's frame (N, 3) m, and the contact force (N,) N; NaN
        where it was not recorded."""
        frame = self._stored_frame[self._first_frame]
        return self.store.measured("tip_in_socket", 3)[frame], self.store.measured("force", 1)[frame, 0]

    def sample_frames_balanced(
        self, batch: int, generator: torch.Generator, sampling: FrameSampling | None = None
    ) -> FrameBatch:
        """Draw frames for the reward classifier: the connector uniformly, then the class, then the frame (Sec. VI-B).

        The number of positives in a batch is exact, and so is that of near misses where all connectors have some.
        Frames without a domain are never drawn: their labels are not known to training.

        Raises:
            ValueError: A connector lacks positives or negatives.
        """
        sampling = sampling or FrameSampling()
        pools = self._pools(sampling)  # connector -> (positive, near, beside, other)
        positives = round(batch * sampling.positive_share)
        near = round((batch - positives) * (sampling.near_share or 0.0))
        beside = round((batch - positives) * (sampling.beside_share or 0.0))
        kind = np.repeat([0, 1, 2, 3], [positives, near, beside, batch - positives - near - beside])
        connector = torch.randint(len(pools), (batch,), generator=generator).tolist()
        place = torch.rand(batch, generator=generator, dtype=torch.float64).tolist()
        chosen = [pools[c][k] for c, k in zip(connector, kind.tolist())]
        rows = np.array([pool[int(u * len(pool))] for pool, u in zip(chosen, place)], np.int64)
        image = self.frame_images(rows)
        if self.augment is not None:
            image = self.augment(image, generator)
        label, domain = torch.from_numpy(self.frame_label[rows]), torch.from_numpy(self.frame_domain[rows])
        return FrameBatch(image, label, domain)

    def _load(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        shape = self.store.shape
        images = np.empty((len(self.frame_step), shape.height, shape.width, 3), np.uint8)
        for trajectory, row in zip(self.trajectories.tolist(), rows.tolist()):
            image = self.store.read_trajectory_images(trajectory)
            images[row : row + len(image)] = image
        return images

    def _hard_negatives(self, sampling: FrameSampling) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """(frames,) which are near misses, and which are failures pressed beside the hole."""
        near, beside = np.zeros_like(self.frame_label), np.zeros_like(self.frame_label)
        if sampling.near_share is None and sampling.beside_share is None:
            return near, beside
        tip = self.store.measured("tip_in_socket", 3)[self._stored_frame]
        on_axis = np.linalg.norm(tip[:, :2], axis=1) <= sampling.near_lateral
        if sampling.near_share is not None:
            near = ~self.frame_label & (tip[:, 2] <= sampling.near_depth) & on_axis
        if sampling.beside_share is not None:
            force = self.store.measured("force", 1)[self._stored_frame, 0]
            beside = pressed_beside(self.frame_label, tip, force, sampling)
        return near, beside

    def _pools(self, sampling: FrameSampling) -> list[tuple[NDArray[np.int64], ...]]:
        """Frame rows (positive, near, beside, other) of each connector that has a domain."""
        if sampling not in self._pool:
            near, beside = self._hard_negatives(sampling)
            pools = []
            for domain in np.unique(self.domains[self.domains != HELD_OUT]).tolist():
                own = self.frame_domain == domain
                masks = (self.frame_label, near, beside, ~self.frame_label & ~near & ~beside)
                kinds = [np.flatnonzero(own & mask) for mask in masks]
                negatives = np.sort(np.concatenate(kinds[1:]))
                if not len(kinds[0]) or not len(negatives):
                    lacking = "failures" if len(kinds[0]) else "successes"
                    name = self.connectors[domain]
                    raise ValueError(f"connector {name!r} has no {lacking}; collect more trials of it, or exclude it")
                pools.append(tuple(rows if len(rows) else negatives for rows in kinds))
            if not pools:
                raise ValueError("no connector with a domain is left; frames are drawn from training connectors alone")
            self._pool[sampling] = pools
        return self._pool[sampling]


Batch = TypeVar("Batch", Transition, FeatureBatch)
Drawn_co = TypeVar("Drawn_co", Transition, FeatureBatch, covariant=True)


class Source(Protocol[Drawn_co]):
    """Anything that batches can be drawn from."""

    def __len__(self) -> int: ...

    def sample(self, batch: int, generator: torch.Generator) -> Drawn_co:
        """Draw ``batch`` transitions."""
        ...


def mix(
    offline: Source[Batch], online: Source[Batch] | None, batch: int, online_fraction: float, generator: torch.Generator
) -> Batch:
    """Draw from two sources in exact proportion: offline rows first (Sec. V-C: 75% offline, 25% online).

    Args:
        offline: Collected data; it augments its own rows.
        online: Practised data; while there is none, or None, all rows are offline (and the other way round).
        batch: B.
        online_fraction: Share of online rows, in [0, 1]; their number is rounded.
        generator: Source of all draws.

    Raises:
        ValueError: A share outside [0, 1], or both sources are empty.
    """
    if not 0.0 <= online_fraction <= 1.0:
        raise ValueError(f"online_fraction: expected a share in [0, 1], got {online_fraction}")
    has_online = online is not None and len(online) > 0
    if not has_online and not len(offline):
        raise ValueError("offline and online are both empty; collect or practise first")
    count = 0 if not has_online else round(batch * online_fraction) if len(offline) else batch
    parts = [offline.sample(batch - count, generator)] if count < batch else []
    if count and online is not None:
        drawn = online.sample(count, generator)
        if isinstance(drawn, FeatureBatch):
            drawn = drawn._replace(online=torch.ones(count, dtype=torch.bool))
        parts.append(drawn)
    return type(parts[0])(*(torch.cat(column) for column in zip(*parts)))


def _robots_in_turn(index: TrajectoryIndex, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ids (N,) in another order: the first of each robot, then the second of each, and so on."""
    robot = index.robot[rows]
    turn = np.zeros(len(rows), np.int64)
    for name in np.unique(robot):
        turn[robot == name] = np.arange(np.count_nonzero(robot == name))
    return rows[np.lexsort((robot, turn))]


def _ragged(length: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """Start of each of the rows of a ragged array; then row and column of each of its cells."""
    start = np.cumsum(length) - length
    row = np.repeat(np.arange(len(length)), length)
    return start, row, np.arange(int(length.sum())) - start[row]
