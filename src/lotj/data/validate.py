"""What is in a store, and what is wrong with it. Every defect names the trajectories and a remedy.

A store refuses most bad trajectories at the door (`lotj.data.schema.check_trajectory`), so some defects can only come
from other writers or a damaged file; they are looked for all the same.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lotj.data.schema import check_trajectory, dislodged_counts
from lotj.data.store import TrajectoryStore
from lotj.data.trajectory_index import TrajectoryIndex
from lotj.types import Trajectory

JUDGED_SOURCES = ("practice", "practice-ground-truth")
"""The robot's own trials, paid by a judge: a reward model may be wrong about the truth, and neither needs balance."""


class Defect(NamedTuple):
    """Something wrong with a store."""

    kind: str
    """A short name, for example ``frozen-images``."""
    trajectories: tuple[int, ...]
    """Ids of the trajectories concerned; empty where it concerns what is missing."""
    message: str
    """What is wrong."""
    remedy: str
    """What to do about it."""


class Balance(NamedTuple):
    """Frames of a connector by label."""

    positive: int
    negative: int


@dataclass(frozen=True)
class Validation:
    """The contents of a store in numbers, and its defects."""

    trajectories: int
    transitions: int
    frames: int
    connector: dict[str, int]
    """Trajectories of each connector."""
    source: dict[str, int]
    """Trajectories of each source."""
    robot: dict[str, int]
    """Trajectories of each robot."""
    length: dict[int, int]
    """Trajectories of each length."""
    terminated: int
    truncated: int
    balance: dict[str, Balance]
    """Frames by label of each connector, where ground truth was recorded."""
    counts: dict[str, int]
    """The store's counters, for example of discarded trajectories."""
    defects: tuple[Defect, ...]

    @property
    def dislodged(self) -> dict[str, int]:
        """Trajectories discarded as dislodged, by connector."""
        return dislodged_counts(self.counts)

    @property
    def sound(self) -> bool:
        """No defect was found."""
        return not self.defects


def validate(path: str | os.PathLike[str], *, horizon: int | None = None, robots: int | None = None) -> Validation:
    """Read a store through, once, and report on it.

    Args:
        path: The store's file.
        horizon: The longest trajectory allowed, transitions; by default what an own cell noted in the store's metadata,
            or 20 (Sec. IV).
        robots: How many robots the collected data should come from; likewise, or 2 (Sec. IV).

    Raises:
        FileNotFoundError, StoreError: There is no store to validate.
        ValueError: ``horizon`` or ``robots`` is less than 1.
    """
    for name, least in (("horizon", horizon), ("robots", robots)):
        if least is not None and least < 1:
            raise ValueError(f"{name}: expected at least 1, got {least}")
    found: list[Finding] = []
    balance: dict[str, Balance] = {}
    with TrajectoryStore(path) as store:
        index = store.index
        horizon = horizon or int(store.metadata.get("horizon", 20))
        robots = robots or int(store.metadata.get("robots", 2))
        collected = ~np.isin(index.source, JUDGED_SOURCES)
        ending = set(index.source[index.terminated].tolist())
        for i in range(len(store)):
            try:
                trajectory = store.read(i)
            except (ValueError, TypeError, sqlite3.DatabaseError) as error:
                found.append(Finding("wrong-shape", i, f"arrays do not fit the recorded sizes ({error})"))
                continue
            found += [Finding(kind, i, message) for kind, message in trajectory_defects(trajectory, horizon, ending)]
            success = trajectory.privileged.get("success")
            if success is not None:
                positive, negative = balance.get(trajectory.connector, (0, 0))
                n = int(np.sum(success))
                balance[trajectory.connector] = Balance(positive + n, negative + np.size(success) - n)
        counts = store.counts
    defects = [*grouped(found, _REMEDY), *_store_defects(index, collected, balance, robots)]
    return Validation(
        trajectories=len(index),
        transitions=int(index.length.sum()),
        frames=int((index.length + 1).sum()),
        connector=_count(index.connector),
        source=_count(index.source),
        robot=_count(index.robot),
        length={int(n): int(np.sum(index.length == n)) for n in np.unique(index.length)},
        terminated=int(index.terminated.sum()),
        truncated=int(index.truncated.sum()),
        balance=dict(sorted(balance.items())),
        counts=counts,
        defects=tuple(defects),
    )


def gallery(path: str | os.PathLike[str], out: str | os.PathLike[str], per_class: int = 4) -> None:
    """Draw a contact sheet: for each connector its successes (green) and failures (red), the hardest to tell first.

    Hardest are the failures whose tip is closest to full insertion and the successes whose tip is farthest from it; at
    most one frame of a trajectory in each class. A caption gives the missing depth and the lateral offset in mm, where
    the cell knows them.

    Args:
        path: The store's file.
        out: Where to write the picture, a PNG or JPEG by its name.
        per_class: Images of each class in a row.

    Raises:
        ValueError: ``success`` was not recorded.
    """
    with TrajectoryStore(path) as store:
        index = store.index
        success, tip = store.measured("success", 1)[:, 0], store.measured("tip_in_socket", 3)
        if np.isnan(success).all():
            raise ValueError(f"{path}: no trajectory says where the plug was in, so there are no positives to show")
        trajectory = np.repeat(np.arange(len(index)), index.length + 1)
        step = np.arange(len(trajectory)) - index.frame_offset[trajectory]
        distance = np.linalg.norm(tip, axis=1)
        connector = index.connector[trajectory]
        names = np.unique(index.connector).tolist()
        sheet = _Sheet(len(names), per_class, store.shape.width, store.shape.height)
        for row, name in enumerate(names):
            sheet.title(row, f"{name}   {np.sum(index.connector == name)} trajectories")
            for side, positive in enumerate((True, False)):
                frames = np.flatnonzero((connector == name) & (success == float(positive)))
                frames = frames[np.argsort(-distance[frames] if positive else distance[frames], kind="stable")]
                _, first = np.unique(trajectory[frames], return_index=True)
                frames = frames[np.sort(first)[:per_class]]
                for column, frame in enumerate(frames.tolist()):
                    image = store.read_images(trajectory[frame], step[frame])[0]
                    depth, lateral = 1e3 * tip[frame, 2], 1e3 * np.hypot(*tip[frame, :2])
                    where = "" if np.isnan(depth) else f"{depth:+.1f} | {lateral:.1f} mm  "
                    caption = f"{where}{index.source[trajectory[frame]]}"
                    sheet.tile(row, side * per_class + column, image, caption, positive)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    sheet.picture.save(out)


class _Sheet:
    """A grid of captioned images, one titled row for each connector."""

    def __init__(self, rows: int, per_class: int, width: int, height: int) -> None:
        self._scale = max(1, -(-96 // height))
        self._size = (width * self._scale, height * self._scale)
        self._per_class = per_class
        self._cell = (self._size[0] + 8, self._size[1] + 18)
        self._row = self._cell[1] + 20
        self.picture = Image.new("RGB", (2 * per_class * self._cell[0] + 28, rows * self._row + 28), "white")
        self._draw = ImageDraw.Draw(self.picture)
        self._font = ImageFont.load_default()
        head = "missing depth | lateral offset, hardest first"
        self._draw.text((8, 6), f"SUCCESS   {head}", "darkgreen", self._font)
        self._draw.text((20 + per_class * self._cell[0], 6), f"FAILURE   {head}", "darkred", self._font)

    def title(self, row: int, text: str) -> None:
        self._draw.text((8, 26 + row * self._row), text, "black", self._font)

    def tile(self, row: int, column: int, image: NDArray[np.uint8], caption: str, positive: bool) -> None:
        left = 8 + column * self._cell[0] + (12 if column >= self._per_class else 0)
        top = 42 + row * self._row
        box = (left - 2, top - 2, left + self._size[0] + 1, top + self._size[1] + 1)
        self._draw.rectangle(box, fill="limegreen" if positive else "red")
        self.picture.paste(Image.fromarray(image).resize(self._size, Image.Resampling.NEAREST), (left, top))
        self._draw.text((left, top + self._size[1] + 2), caption, "black", self._font)


_REMEDY = {
    "wrong-shape": "the file is damaged or was not written by TrajectoryStore: collect these again",
    "not-finite": "look at the controller and the state estimate of these seeds, and collect them again",
    "out-of-range": "clip actions to [-1, 1] before the step, and collect these again",
    "no-name": "pass the name it was collected with; an unnamed connector can be neither a domain nor held out",
    "reward-shift": "reward[t] must be the success of image[t + 1], not of image[t]: mend the rollout",
    "reward-order": "end the trial at its first success, and mark it terminated there",
    "unfinished": "mark the end: terminated on success, truncated at the horizon or when dislodged",
    "over-horizon": "truncate trials at the horizon, or pass the horizon that was meant",
    "frozen-images": "the camera or the renderer did not update: collect these again",
    "black-images": "check lights, exposure and the renderer, and collect these again",
}


class Finding(NamedTuple):
    """A defect of one trajectory."""

    kind: str
    trajectory: int
    message: str


def trajectory_defects(trajectory: Trajectory, horizon: int, ending: set[str]) -> Iterator[tuple[str, str]]:
    """Defects (kind, message) of one trajectory; ``ending`` are the sources whose trials end at success."""
    try:
        check_trajectory(trajectory)
    except ValueError as error:
        kind = _contract_kind(trajectory)
        yield kind, str(error)
        if kind == "wrong-shape":
            return  # the rest compares arrays that do not fit together
    if len(trajectory) > horizon:
        yield "over-horizon", f"{len(trajectory)} transitions exceed the horizon of {horizon}"
    if not trajectory.terminated and not trajectory.truncated:
        yield "unfinished", "neither terminated nor truncated"
    image, reward = trajectory.image, trajectory.reward
    height, width = image.shape[1:3]
    cameras = width // height if width % height == 0 else 1
    for number, one in enumerate(np.split(image, cameras, axis=2), start=1):
        whose = f" of camera {number}" if cameras > 1 else ""
        if not one.any():
            yield "black-images", f"all images{whose} are black"
        elif (one == one[0]).all():
            yield "frozen-images", f"all images{whose} are the same"
    if trajectory.source in JUDGED_SOURCES:
        return
    success = trajectory.privileged.get("success")
    if success is not None and len(success) == len(reward) + 1:
        wrong = np.flatnonzero((reward > 0.5) != success[1:].astype(bool))
        if len(wrong):
            shifted = np.array_equal(reward > 0.5, success[:-1].astype(bool))
            why = "it agrees with success[t]: r(s) in place of r(s')" if shifted else f"first at t = {wrong[0]}"
            # What follows would only repeat it.
            yield "reward-shift", f"reward[t] disagrees with success[t + 1] in {len(wrong)} transitions ({why})"
            return
    early = np.flatnonzero(reward[:-1] > 0.5)
    if trajectory.terminated and not (len(reward) and reward[-1] > 0.5):
        yield "reward-order", "terminated without a reward in the last transition"
    elif len(early) and trajectory.source in ending:
        yield "reward-order", f"reward 1 at t = {early[0]}, but the trial went on to T = {len(trajectory)}"
    elif trajectory.source in ending and not trajectory.terminated and reward[-1] > 0.5:
        yield "reward-order", "reward 1 in the last transition, but not terminated"


def _contract_kind(trajectory: Trajectory) -> str:
    if not (trajectory.connector and trajectory.robot and trajectory.source):
        return "no-name"
    if not all(np.isfinite(array).all() for array in (trajectory.state, trajectory.action, trajectory.reward)):
        return "not-finite"
    return "out-of-range" if np.abs(trajectory.action).max(initial=0.0) > 1.0 else "wrong-shape"


def grouped(found: list[Finding], remedies: Mapping[str, str], noun: str = "trajectory") -> Iterator[Defect]:
    """One defect for all trajectories that share a kind; the message is the first one's."""
    for kind in dict.fromkeys(finding.kind for finding in found):
        same = [finding for finding in found if finding.kind == kind]
        ids = tuple(finding.trajectory for finding in same)
        more = f" (and {len(ids) - 1} more)" if len(ids) > 1 else ""
        yield Defect(kind, ids, f"{noun} {ids[0]}: {same[0].message}{more}", remedies[kind])


def _store_defects(
    index: TrajectoryIndex, collected: NDArray[np.bool_], balance: dict[str, Balance], robots: int
) -> Iterator[Defect]:
    """Defects of the store as a whole."""
    if not len(index):
        yield Defect("empty", (), "the store holds no trajectories", "collect some")
    for name in np.unique(index.connector[collected]).tolist():
        if name in balance and 0 in balance[name]:
            lacking = "successes" if not balance[name].positive else "failures"
            ids = tuple(np.flatnonzero(collected & (index.connector == name)).tolist())
            remedy = "collect more trials of it, or exclude it from training the reward"
            yield Defect(
                "one-class", ids, f"connector {name!r} has no {lacking} among {sum(balance[name])} frames", remedy
            )
    keys = list(zip(index.seed.tolist(), index.connector.tolist(), index.source.tolist()))
    doubles = [key for key, n in Counter(keys).items() if n > 1]
    if doubles:
        ids = tuple(i for i, key in enumerate(keys) if key in set(doubles))
        seed, connector, source = doubles[0]
        message = f"{len(doubles)} trials are there more than once, first seed {seed} of {connector!r} by {source!r}"
        yield Defect("duplicate", ids, message, "give every trial a seed of its own, or drop the copies")
    seen = sorted(set(index.robot[collected].tolist()))
    if collected.any() and len(seen) < robots:
        message = f"expected trials of {robots} robots, got {seen}"
        yield Defect("missing-robot", (), message, f"collect on another robot too, or validate with robots={len(seen)}")


def _count(names: NDArray[np.str_]) -> dict[str, int]:
    return dict(sorted(Counter(names.tolist()).items()))
