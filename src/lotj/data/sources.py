"""Opens a data set of any format that is known: which one it is, how many episodes, what identifies its content."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from numpy.typing import NDArray

from lotj.data import lerobot, minari, robomimic, serl
from lotj.data.foreign import ForeignError, Item, ReadConfig, Source, Unreadable
from lotj.data.schema import little_endian
from lotj.data.store import TrajectoryStore

Format = Literal["lotj", "lerobot", "minari", "robomimic", "serl"]

SQLITE = b"SQLite format 3\0"
HDF5 = b"\x89HDF\r\n\x1a\n"
PICKLES = (".pkl", ".pickle")


def open_source(path: Path, config: ReadConfig, format: Format | None = None, *, allow_pickle: bool = False) -> Source:
    """Open a data set to read.

    Args:
        path: A store's file, a LeRobot or Minari folder, a robomimic HDF5 file, or SERL pickles (a file or a folder).
        config: How to read it.
        format: Which one it is, if it shall not be detected.
        allow_pickle: Pickles may be read (`lotj.data.serl` says what that risks).

    Raises:
        FileNotFoundError: There is nothing at the path.
        ForeignError: It has no episodes, or cannot be read as this format.
        ValueError: No format fits, a library is missing, or pickles are not allowed.
    """
    if not path.exists():
        raise FileNotFoundError(f"no data at {path}; check the path")
    chosen = format or detect(path)
    if chosen == "lotj":
        with TrajectoryStore(path) as store:
            count, metadata = len(store), store.metadata
        about: dict[str, Any] = {key: metadata[key] for key in ("action_scale", "horizon", "robots") if key in metadata}
        return Source("lotj", path, count, partial(_stored, path), partial(_store_digest, path), about)
    count_of, read = _READERS[chosen]
    if chosen == "serl":
        serl.refuse_unless(allow_pickle, path)
    said: dict[str, Any] = {} if config.metres_per_unit is None else {"action_scale": [config.metres_per_unit] * 3}
    return Source(chosen, path, count_of(path), partial(read, path, config), partial(_digest, path), said)


def detect(path: Path) -> Format:
    """Which format is there. Raises `ValueError` where none fits."""
    if path.is_dir():
        if (path / "preset.json").exists():
            raise ValueError(f"{path} is a run folder; its store is {path / 'data' / 'trajectories.sqlite'}")
        if lerobot.is_lerobot(path):
            return "lerobot"
        if minari.data_folder(path) is not None:
            return "minari"
        if any(file.suffix in PICKLES for file in path.iterdir()):
            return "serl"
    else:
        with path.open("rb") as file:
            head = file.read(16)
        if head == SQLITE:
            return "lotj"
        if head.startswith(HDF5):
            return "robomimic"
        if path.suffix in PICKLES:
            return "serl"
    raise ValueError(
        f"{path}: expected a lotj store, a LeRobot or Minari folder, a robomimic HDF5 file or SERL pickles "
        f"({', '.join(PICKLES)}); if it is one of them, name it with --format {'|'.join(get_args(Format))}"
    )


_READERS: dict[str, tuple[Callable[[Path], int], Callable[[Path, ReadConfig], Iterator[Item]]]] = {
    "lerobot": (lerobot.count_episodes, lerobot.read_lerobot),
    "minari": (minari.count_episodes, minari.read_minari),
    "robomimic": (robomimic.count_episodes, robomimic.read_robomimic),
    "serl": (serl.count_episodes, serl.read_serl),
}


def _stored(path: Path) -> Iterator[Item]:
    with TrajectoryStore(path) as store:
        for i in range(len(store)):
            try:
                yield store.read(i)
            except (ValueError, TypeError, sqlite3.DatabaseError) as error:
                yield Unreadable(f"trajectory {i}", ForeignError("unreadable", str(error)))


def _store_digest(path: Path) -> str:
    """By rows, not by bytes: the same trajectories may lie in different pages."""
    digest = hashlib.sha256()
    with TrajectoryStore(path) as store:
        for i in range(len(store)):
            t = store.read(i)
            head = (
                t.connector,
                t.robot,
                t.source,
                t.seed,
                t.terminated,
                t.truncated,
                t.image.shape,
                sorted(t.privileged),
            )
            digest.update(repr(head).encode())
            arrays: list[NDArray[Any]] = [t.image, t.state, t.action, t.reward]
            for array in arrays + [t.privileged[key] for key in sorted(t.privileged)]:
                digest.update(array.astype(little_endian(array)).tobytes())
    return digest.hexdigest()


def _digest(path: Path) -> str:
    """Over names and contents of all files but hidden ones."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    for file in files:
        name = file.relative_to(path).as_posix() if file != path else ""
        if any(part.startswith(".") for part in name.split("/") if part):
            continue
        with file.open("rb") as opened:
            content = hashlib.file_digest(opened, "sha256").hexdigest()
        digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()
