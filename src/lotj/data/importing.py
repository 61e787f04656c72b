"""Takes a foreign data set into a store: whole trajectories, each once, however often the import is killed or repeated.

The store remembers each import under ``import/<digest>``: format, name, content, options, counts. Episodes come in the
source's order and are converted the same way each time, so the counter that is raised with each appended trajectory
says where a killed import must go on.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lotj.data.conversion import lost_success, resized, to_trajectory
from lotj.data.foreign import Episode, ForeignError, Item, ReadConfig, Source, Unreadable
from lotj.data.schema import check_trajectory
from lotj.data.store import TrajectoryStore
from lotj.files import to_json
from lotj.types import Trajectory


@dataclass(frozen=True)
class Imported:
    """What an import came to."""

    format: str
    episodes: int
    """In the source."""
    imported: int
    """Trajectories of this source in the store, those of an earlier, killed import included."""
    resumed: int
    """Of these, trajectories that were there before."""
    skipped: Mapping[str, int]
    """Episodes left out, by the kind of defect."""
    reasons: Mapping[str, str]
    """The first message of each kind, with its remedy."""
    lost_successes: int
    """Trajectories whose success was not recorded as an image and is gone with ``final="drop"``."""
    already: bool = False
    """The source was in the store; nothing was done."""


def import_into(
    source: Source, path: Path, config: ReadConfig, tick: Callable[[int, int, str], None] = lambda *_: None
) -> Imported:
    """Append a data set to a store, which is created if it is missing.

    Args:
        source: What to import.
        path: The store's file.
        config: How it is read; the one the source was opened with.
        tick: Told (done, total, note).

    Raises:
        ValueError: The store has other sizes than the data, its actions mean other displacements, or it holds an import
            of this source with other options.
    """
    if path.exists() and source.path.exists() and path.samefile(source.path):
        raise ValueError(f"{path}: a store cannot be imported into itself; name another with --into")
    digest = source.digest()
    key = f"import/{digest[:16]}"
    options = to_json(config)
    with TrajectoryStore(path, "a") as store:
        known = store.metadata.get(key)
        before = store.counts.get(key, 0)
        if known is not None and (before or known["complete"]):
            told, asked = _said(known["options"]), _said(options)
            differ = ", ".join(sorted(name for name in options if told.get(name) != asked.get(name)))
            if differ:
                raise ValueError(
                    f"{path} holds an import of this data ({known['name']}) with another {differ}; repeat it with the "
                    "same options, or import into a new store"
                )
            if known["complete"]:
                return _result(known, known["imported"], {}, already=True)
        record: dict[str, Any] = {
            "format": source.format,
            "name": source.path.name,
            "sha256": digest,
            "options": options,
            "episodes": source.count,
            "complete": False,
        }
        _same_order(store, config)
        _take_over(store, source.about)
        if not before:
            store.set_metadata(key, record)
        skipped: Counter[str] = Counter()
        reasons: dict[str, str] = {}
        done = lost = 0
        for number, item in enumerate(source.items()):
            try:
                trajectory = converted(item, config, episode_seed(digest, number))
            except ForeignError as error:
                skipped[error.kind] += 1
                reasons.setdefault(error.kind, f"{name_of(item, number)}: {error}")
            else:
                if done >= before:
                    _append(store, trajectory, (key, done), config)
                done += 1
                lost += isinstance(item, Episode) and lost_success(item, config)
            tick(number + 1, source.count, f"{done} imported")
        record |= {"complete": True, "imported": done, "skipped": dict(skipped), "lost_successes": lost}
        if done or source.count == 0:
            store.set_metadata(key, record)
    return _result(record, before, reasons)


def converted(item: Item, config: ReadConfig, seed: int) -> Trajectory:
    """The trajectory of what a reader yielded. Raises `ForeignError` with the reason why there is none."""
    if isinstance(item, Unreadable):
        raise item.error
    if isinstance(item, Episode):
        if item.disorder:
            raise ForeignError("frame-order", item.disorder)
        return to_trajectory(item, config, seed)
    try:
        check_trajectory(item)
    except ValueError as error:
        raise ForeignError("wrong-shape", str(error)) from error
    height, width = item.image.shape[1:3]
    return replace(item, image=resized(item.image, config.image_size, width // height if width % height == 0 else 1))


def episode_seed(digest: str, number: int) -> int:
    """A number that names an episode: no two of any data sets share it."""
    return int.from_bytes(hashlib.sha256(f"{digest}/{number}".encode()).digest()[:7], "big")


def name_of(item: Item, number: int) -> str:
    """What to call an item in a message."""
    return f"trajectory {number}" if isinstance(item, Trajectory) else item.name


def _said(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that were given, however a version before wrote them down: one camera as a word, none as null or 1."""
    camera = options.get("camera")
    plain = {**options, "camera": [camera] if isinstance(camera, str) else camera}
    return {name: value for name, value in plain.items() if value and (name, value) != ("cameras", 1)}


def _same_order(store: TrajectoryStore, config: ReadConfig) -> None:
    """Raise `ValueError` where the store holds pictures of the same cameras in another order."""
    for name, value in store.metadata.items():
        held = _said(value["options"]).get("camera", []) if name.startswith("import/") else []
        if sorted(held) == sorted(config.camera) and held != list(config.camera):
            raise ValueError(
                f"{store.path} holds an import ({value['name']}) with --camera {' '.join(held)}, now it is "
                f"{' '.join(config.camera)}: the pictures would change sides; name them in the same order"
            )


def _take_over(store: TrajectoryStore, about: Mapping[str, Any]) -> None:
    """What the source says of all its trajectories holds for the store. Raises `ValueError` where that says else."""
    held, empty = store.metadata, not len(store)
    scale = about.get("action_scale")
    if scale is not None and not empty and held.get("action_scale", scale) != scale:
        raise ValueError(
            f"{store.path} holds actions of {held['action_scale']} m for 1, the data has {scale}: import into a new "
            "store or run"
        )
    if scale is not None and empty and held.get("action_scale") != scale:  # of what is there, nobody knows it
        store.set_metadata("action_scale", scale)
    for key in ("horizon", "robots"):
        if key in about:
            value = about[key] if empty else max(int(held.get(key, 0)), int(about[key]))
            if held.get(key) != value:
                store.set_metadata(key, value)


def _append(store: TrajectoryStore, trajectory: Trajectory, nth: tuple[str, int], config: ReadConfig) -> None:
    height, width = trajectory.image.shape[1:3]
    if len(store) and (store.shape.height, store.shape.width) != (height, width):
        have = f"{store.shape.height} x {store.shape.width}"
        if store.shape.height == height:
            raise ValueError(
                f"{store.path} holds images of {have}, the data has {height} x {width}, as of another number of "
                "cameras: import into a new store or run"
            )
        raise ValueError(
            f"{store.path} holds images of {have}, the data has {height} x {width}; add --image-size "
            f"{store.shape.height}, or import into a new store"
        )
    store.append(trajectory, nth)


def _result(record: Mapping[str, Any], resumed: int, reasons: Mapping[str, str], already: bool = False) -> Imported:
    return Imported(
        format=record["format"],
        episodes=record["episodes"],
        imported=record["imported"],
        resumed=resumed,
        skipped=record["skipped"],
        reasons=reasons,
        lost_successes=record["lost_successes"],
        already=already,
    )
