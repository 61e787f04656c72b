"""What a store file is: its tables, how it is opened, and what a trajectory must be to go in."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from lotj.types import Trajectory

APPLICATION_ID = 0x4C4F544A
"""``LOTJ`` in ASCII, in the header of the SQLite file: tells a store from any other database."""

SCHEMA_VERSION = 1
"""In the header as ``user_version``; raised whenever the tables change."""

# Images have a table of their own: the index then scans about 1 kB a trajectory instead of a page of 64 kB.
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS shape (
  id INTEGER PRIMARY KEY CHECK (id = 1), height INTEGER, width INTEGER, state INTEGER, action INTEGER);
CREATE TABLE IF NOT EXISTS trajectory (
  id INTEGER PRIMARY KEY, length INTEGER NOT NULL, connector TEXT NOT NULL, robot TEXT NOT NULL, source TEXT NOT NULL,
  seed INTEGER NOT NULL, terminated INTEGER NOT NULL, truncated INTEGER NOT NULL, successes INTEGER NOT NULL,
  state BLOB NOT NULL, action BLOB NOT NULL, reward BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS image (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS privileged (
  trajectory INTEGER, key TEXT, dtype TEXT NOT NULL, shape TEXT NOT NULL, data BLOB NOT NULL,
  PRIMARY KEY (trajectory, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS metadata (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS counter (key TEXT PRIMARY KEY, n INTEGER NOT NULL);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""
"""Arrays are little-endian, C order; ``id`` counts from 1 without gaps."""

MMAP_BYTES = 1 << 31
"""The most of a file that SQLite maps into memory (its own limit); the rest is read."""


DISLODGED = "dislodged"
"""Trajectories whose plug was dislodged are discarded, and counted as ``dislodged/<connector>/<seed>``."""


class StoreError(ValueError):
    """The file is not a store, or not one that this version can read."""


def connect(path: Path, mode: Literal["r", "a"]) -> sqlite3.Connection:
    """Open the database in autocommit.

    Raises:
        FileNotFoundError: There is no such file (``r``) or folder (``a``).
    """
    if mode == "r" and not path.is_file():
        raise FileNotFoundError(f"no store at {path}; collect one, or check the path")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} for the store {path.name}; create it first")
    query = "mode=rwc" if mode == "a" else "mode=rw"
    if mode == "r" and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        # On read-only media SQLite could not create the shared memory of its log, and does not need it.
        query = "mode=ro" if Path(f"{path}-wal").exists() else "immutable=1"
    uri = f"file:{quote(str(path.absolute()))}?{query}"
    database = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=60.0)
    database.execute(f"PRAGMA mmap_size = {MMAP_BYTES}")
    if mode == "r":
        # Not "mode=ro": the last reader to leave could then not tidy the log away.
        database.execute("PRAGMA query_only = ON")
    return database


def open_schema(database: sqlite3.Connection, path: Path, mode: Literal["r", "a"]) -> None:
    """Accept a store; in mode ``a`` turn an empty file into one; refuse everything else with `StoreError`."""
    remedy = "expected a file written by TrajectoryStore"
    try:
        if mode == "a":
            if not _has_tables(database):
                database.execute("PRAGMA page_size = 65536")
                database.execute("PRAGMA journal_mode = WAL")
                database.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")
            database.execute("PRAGMA synchronous = FULL")
        empty = not _has_tables(database)
        application = database.execute("PRAGMA application_id").fetchone()[0]
        version = database.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path} is not a trajectory store ({error}); {remedy}") from error
    if application != APPLICATION_ID or empty:
        raise StoreError(f"{path} is a database, but not a trajectory store; {remedy}")
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema version {version}, this lotj reads {SCHEMA_VERSION}; "
            "install the lotj that wrote it, or collect again"
        )


def check_trajectory(trajectory: Trajectory) -> None:
    """Raise `ValueError` unless shapes, dtypes and values are those that `lotj.types.Trajectory` promises."""
    steps = len(trajectory.action)
    who = f"trajectory of {trajectory.connector!r}, seed {trajectory.seed}"
    for name, dtype, shape in (
        ("image", np.uint8, (steps + 1, "H", "W", 3)),
        ("state", np.float32, (steps + 1, "S")),
        ("action", np.float32, (steps, "A")),
        ("reward", np.float32, (steps,)),
    ):
        array = getattr(trajectory, name)
        fits = array.ndim == len(shape) and all(isinstance(w, str) or n == w for n, w in zip(array.shape, shape))
        if array.dtype != dtype or not fits or not steps:
            wanted = f"{np.dtype(dtype).name} ({', '.join(map(str, shape))})"
            got = f"{array.dtype} {array.shape}"
            raise ValueError(f"{who}: {name}: expected {wanted}, got {got}; T = len(action) must be at least 1")
        if dtype != np.uint8 and not np.isfinite(array).all():
            raise ValueError(f"{who}: {name}: expected finite numbers, got NaN or infinity; look at what produced them")
    if np.abs(trajectory.action).max(initial=0.0) > 1.0:
        worst = float(np.abs(trajectory.action).max())
        raise ValueError(f"{who}: action: expected [-1, 1], got a magnitude of {worst:.4g}; clip it before the step")
    for key, value in trajectory.privileged.items():
        if little_endian(value).kind not in "biuf" or len(value) != steps + 1:
            got = f"{np.asarray(value).dtype} {np.shape(value)}"
            raise ValueError(f"{who}: privileged {key!r}: expected numbers ({steps + 1}, ...), one a frame, got {got}")
        if key in ("success", DISLODGED) and np.ndim(value) != 1:
            raise ValueError(
                f"{who}: privileged {key!r}: expected ({steps + 1},), one flag a frame, got {np.shape(value)}"
            )
    if not -(2**63) <= trajectory.seed < 2**63:
        raise ValueError(f"{who}: seed: expected 64 bits, got {trajectory.seed}; draw a smaller one")
    for name in ("connector", "robot", "source"):
        if not getattr(trajectory, name):
            raise ValueError(f"{who}: {name}: expected a name, got an empty string; pass the one it was collected with")


def dislodged_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """Trajectories discarded as dislodged, by connector, from a store's counters."""
    found: dict[str, int] = {}
    for key, count in counts.items():
        kind, _, rest = key.partition("/")
        if kind == DISLODGED:
            connector = rest.partition("/")[0]
            found[connector] = found.get(connector, 0) + count
    return found


def little_endian(array: NDArray[Any]) -> np.dtype[Any]:
    """The array's dtype as it is stored."""
    return np.asarray(array).dtype.newbyteorder("<")


def _has_tables(database: sqlite3.Connection) -> bool:
    return bool(database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
