"""The store of record: whole trajectories in one SQLite file.

An append is one transaction, so a kill at any instant loses at most the trajectory in flight; there is nothing to
compact and no second copy to train from. Arrays are raw little-endian C-order blobs, nothing is pickled. `docs/data.md`
has the schema and the numbers behind the choice.

Processes and threads: any number of readers beside one writer (write-ahead log); a second writer waits for its turn.
An open store belongs to the thread and the process that opened it: open another one after a fork or in a new thread.
The content depends on nothing but what was appended: no clock, no host name.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lotj.data.schema import StoreError, check_trajectory, connect, little_endian, open_schema
from lotj.data.trajectory_index import Shape, TrajectoryIndex
from lotj.types import Trajectory


class TrajectoryStore:
    """Trajectories in one file, read by index. Use it as a context manager, or `close` it.

    Like `open`, the constructor opens the file. In mode ``r`` the store is a snapshot of the moment it was opened, even
    while someone else appends; `refresh` moves it on.

    Args:
        path: The file.
        mode: ``r`` to read; ``a`` to append too, which creates the file if it is missing.

    Raises:
        FileNotFoundError: There is no such file (``r``) or folder (``a``).
        StoreError: The file is not a store, or has another schema version.
    """

    def __init__(self, path: str | os.PathLike[str], mode: Literal["r", "a"] = "r") -> None:
        if mode not in ("r", "a"):
            raise ValueError(f"mode: expected 'r' or 'a', got {mode!r}; 'a' creates a missing store")
        self.path, self.mode, self._process = Path(path), mode, os.getpid()
        self._database: sqlite3.Connection | None = connect(self.path, mode)
        self._small: dict[str, NDArray[Any]] = {}
        self._index: TrajectoryIndex | None = None
        try:
            open_schema(self._connection, self.path, mode)
            self.refresh()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> TrajectoryStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def append(self, trajectory: Trajectory, nth: tuple[str, int] | None = None) -> int:
        """Store a trajectory; when this returns, it is on the disk.

        Args:
            trajectory: What to store.
            nth: A counter and what it must stand at; it is raised by one with the trajectory or not at all.

        Returns:
            Its id.

        Raises:
            ValueError: `check_trajectory` says why, or its sizes differ from the store's.
            StoreError: The counter stands elsewhere, because another process appends the same.
        """
        check_trajectory(trajectory)
        _, height, width, _ = trajectory.image.shape
        shape = Shape(height, width, trajectory.state.shape[1], trajectory.action.shape[1])
        success = trajectory.privileged.get("success")
        row = (
            len(trajectory), trajectory.connector, trajectory.robot, trajectory.source, int(trajectory.seed),
            int(trajectory.terminated), int(trajectory.truncated), -1 if success is None else int(np.sum(success)),
            _bytes(trajectory.state), _bytes(trajectory.action), _bytes(trajectory.reward),
        )  # fmt: skip
        with self._transaction() as database:
            if nth is not None:
                _raise_counter(database, self.path, *nth)
            stored = database.execute("SELECT height, width, state, action FROM shape").fetchone()
            if stored is None:
                database.execute("INSERT INTO shape VALUES (1, ?, ?, ?, ?)", shape)
            elif Shape(*stored) != shape:
                raise ValueError(
                    f"trajectory of {trajectory.connector!r}: {self.path} holds {Shape(*stored)}, got {shape}; "
                    "a store has one image size, state size and action size: use another file"
                )
            cursor = database.execute(f"INSERT INTO trajectory VALUES (NULL{', ?' * len(row)})", row)
            key = cursor.lastrowid
            database.execute("INSERT INTO image VALUES (?, ?)", (key, _bytes(trajectory.image)))
            for name, array in sorted(trajectory.privileged.items()):
                values = (key, name, little_endian(array).str, json.dumps(array.shape), _bytes(array))
                database.execute("INSERT INTO privileged VALUES (?, ?, ?, ?, ?)", values)
        assert key is not None
        self._forget(key)
        return key - 1

    def extend(self, trajectories: Iterable[Trajectory]) -> list[int]:
        """Append each in turn, one transaction each; return their ids."""
        return [self.append(trajectory) for trajectory in trajectories]

    def truncate(self, length: int) -> None:
        """Forget all but the first ``length`` trajectories, in one transaction; later ones take their ids."""
        with self._transaction() as database:
            for table, column in (("image", "id"), ("privileged", "trajectory"), ("trajectory", "id")):
                database.execute(f"DELETE FROM {table} WHERE {column} > ?", (length,))
        self.refresh()

    def set_metadata(self, key: str, value: Any) -> None:
        """Store a JSON value under ``key``: config, versions, command, commit, whatever rebuilds the run."""
        text = json.dumps(value, sort_keys=True)
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO metadata VALUES (?, ?)", (key, text))

    def count(self, key: str, n: int = 1) -> None:
        """Add ``n`` to a counter, for example of discarded trajectories of a connector."""
        statement = "INSERT INTO counter VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET n = n + excluded.n"
        with self._transaction() as database:
            database.execute(statement, (key, n))

    def refresh(self) -> None:
        """Take in what was appended since the store was opened, by this or another process."""
        self._forget(self._connection.execute("SELECT coalesce(max(id), 0) FROM trajectory").fetchone()[0])

    @property
    def index(self) -> TrajectoryIndex:
        """The columns of all trajectories; an array each."""
        if self._index is None:
            columns = "length, connector, robot, source, seed, terminated, truncated, successes"
            statement = f"SELECT {columns} FROM trajectory WHERE id <= ? ORDER BY id"
            rows = self._connection.execute(statement, (len(self),)).fetchall()
            dtypes = (np.int64, np.str_, np.str_, np.str_, np.int64, np.bool_, np.bool_, np.int64)
            values = zip(*rows) if rows else [()] * len(dtypes)
            self._index = TrajectoryIndex(*(np.array(column, dtype) for column, dtype in zip(values, dtypes)))
        return self._index

    def __len__(self) -> int:
        return self._length

    @cached_property
    def shape(self) -> Shape:
        """Sizes shared by all trajectories. Raises `StoreError` while the store is empty."""
        row = self._connection.execute("SELECT height, width, state, action FROM shape").fetchone()
        if row is None:
            raise StoreError(f"{self.path} holds no trajectories yet, so it has no image size; collect some first")
        return Shape(*row)

    @property
    def metadata(self) -> dict[str, Any]:
        """All metadata, decoded from JSON."""
        rows = self._connection.execute("SELECT * FROM metadata ORDER BY key")
        return {key: json.loads(value) for key, value in rows}

    @property
    def counts(self) -> dict[str, int]:
        """All counters."""
        return dict(self._connection.execute("SELECT * FROM counter ORDER BY key"))

    def content(self, trajectories: ArrayLike | None = None, pictures: int = 64) -> str:
        """Tells trajectories (all by default) from as many others: SHA-256 of all that is held of them; of their
        pictures, of so many, drawn evenly."""
        wanted = np.arange(len(self)) if trajectories is None else np.asarray(trajectories, np.int64)
        keys, digest = {self._key(int(index)) for index in wanted}, hashlib.sha256()
        digest.update(json.dumps(self.metadata.get("action_scale")).encode())
        for table, key in (("trajectory", "id"), ("privileged", "trajectory, key")):
            for row in self._connection.execute(f"SELECT * FROM {table} ORDER BY {key}"):
                for value in row if row[0] in keys else ():
                    digest.update(value if isinstance(value, bytes) else f"{value};".encode())
        for index in wanted[np.unique(np.linspace(0, len(wanted) - 1, min(len(wanted), pictures)).astype(int))]:
            digest.update(_bytes(self.read_images([index], [index % (self.index.length[index] + 1)])))
        return digest.hexdigest()

    def read(self, index: int) -> Trajectory:
        """Read one trajectory with everything that was stored. Raises `IndexError`."""
        key = self._key(index)
        columns = "length, connector, robot, source, seed, terminated, truncated, state, action, reward"
        row = self._connection.execute(f"SELECT {columns} FROM trajectory WHERE id = ?", (key,)).fetchone()
        length = row[0]
        return Trajectory(
            image=self.read_trajectory_images(index),
            state=np.frombuffer(row[7], "<f4").reshape(length + 1, self.shape.state).copy(),
            action=np.frombuffer(row[8], "<f4").reshape(length, self.shape.action).copy(),
            reward=np.frombuffer(row[9], "<f4").copy(),
            terminated=bool(row[5]),
            truncated=bool(row[6]),
            connector=row[1],
            robot=row[2],
            seed=row[4],
            source=row[3],
            privileged=self.read_privileged(index),
        )

    def read_privileged(self, index: int) -> dict[str, NDArray[Any]]:
        """Read the ground truth of one trajectory, (T + 1, ...) for each key. Raises `IndexError`."""
        statement = "SELECT key, dtype, shape, data FROM privileged WHERE trajectory = ?"
        rows = self._connection.execute(statement, (self._key(index),))
        return {name: _array(*rest).copy() for name, *rest in rows}

    def read_trajectory_images(self, index: int) -> NDArray[np.uint8]:
        """Read all frames of one trajectory, (T + 1, H, W, 3) uint8. Raises `IndexError`."""
        (data,) = self._connection.execute("SELECT data FROM image WHERE id = ?", (self._key(index),)).fetchone()
        return np.frombuffer(data, np.uint8).reshape(-1, self.shape.height, self.shape.width, 3).copy()

    def read_images(self, trajectories: ArrayLike, steps: ArrayLike) -> NDArray[np.uint8]:
        """Read single frames in any order.

        Args:
            trajectories: (N,) ids.
            steps: (N,) frame of each, 0 to T.

        Returns:
            (N, H, W, 3) uint8.

        Raises:
            IndexError: A trajectory or a frame that is not there.
        """
        ids, frames = np.atleast_1d(trajectories).astype(np.int64), np.atleast_1d(steps).astype(np.int64)
        bad = (ids < 0) | (ids >= len(self)) | (frames < 0)
        bad[~bad] = frames[~bad] > self.index.length[ids[~bad]]
        if bad.any():
            first = int(np.argmax(bad))
            raise IndexError(
                f"frame {frames[first]} of trajectory {ids[first]} is not in {self.path}, "
                f"which holds {len(self)} trajectories; a trajectory of length T has the frames 0 to T"
            )
        image = np.empty((len(ids), self.shape.height, self.shape.width, 3), np.uint8)
        size = self.shape.height * self.shape.width * 3
        flat = memoryview(image.reshape(-1).data)
        blob, opened = None, -1
        for row in np.lexsort((frames, ids)).tolist():
            if ids[row] != opened:
                opened = int(ids[row])
                if blob is not None:
                    blob.close()
                blob = self._connection.blobopen("image", "data", opened + 1, readonly=True)
            assert blob is not None
            blob.seek(int(frames[row]) * size)
            flat[row * size : (row + 1) * size] = blob.read(size)
        if blob is not None:
            blob.close()
        return image

    @property
    def states(self) -> NDArray[np.float32]:
        """(frames, S) of all trajectories, end to end; see `TrajectoryIndex.frame_offset`."""
        return self._column("state").reshape(int(self.index.frame_offset[-1]), self.shape.state)

    @property
    def actions(self) -> NDArray[np.float32]:
        """(transitions, A) of all trajectories, end to end; see `TrajectoryIndex.transition_offset`."""
        return self._column("action").reshape(-1, self.shape.action)

    @property
    def rewards(self) -> NDArray[np.float32]:
        """(transitions,) of all trajectories, end to end; see `TrajectoryIndex.transition_offset`."""
        return self._column("reward")

    @property
    def task_ended(self) -> NDArray[np.bool_]:
        """(N,) trajectories after whose last image nothing of worth can follow: they terminated, or the plug was lost
        from the fingers, which a cell notices for itself and truncates. The others only ran out of time. Practice has
        the same rule for its own trials (``lotj.online``), and counts claims that a tug refuted among them."""
        lost = self.measured("dislodged", 1)[:, 0] > 0  # NaN where nobody noted it: not lost
        return self.index.terminated | np.logical_or.reduceat(lost, self.index.frame_offset[: len(self)])

    def privileged(self, key: str) -> NDArray[Any]:
        """Ground truth (frames, ...) of all trajectories, end to end; see `TrajectoryIndex.frame_offset`.

        Raises:
            KeyError: Not every trajectory has it.
        """
        name = f"privileged/{key}"
        if name not in self._small:
            statement = (
                "SELECT dtype, shape, data FROM privileged WHERE key = ? AND trajectory <= ? ORDER BY trajectory"
            )
            rows = self._connection.execute(statement, (key, len(self))).fetchall()
            if not rows or len(rows) != len(self):
                known = [k for (k,) in self._connection.execute("SELECT DISTINCT key FROM privileged ORDER BY key")]
                raise KeyError(
                    f"privileged {key!r} is recorded in {len(rows)} of {len(self)} trajectories of {self.path} "
                    f"(recorded at all: {known}); collect again with ground truth, or read the trajectories one by one"
                )
            self._small[name] = np.concatenate([_array(*row) for row in rows])
        return self._small[name]

    def measured(self, key: str, size: int) -> NDArray[np.float32]:
        """Ground truth (frames, ``size``) of all trajectories, end to end, NaN where a trajectory has none: other
        people's cells do not know everything that the simulator knows."""
        name = f"measured/{key}"
        if name not in self._small:
            found = np.full((int(self.index.length.sum()) + len(self), size), np.nan, np.float32)
            statement = "SELECT trajectory, dtype, shape, data FROM privileged WHERE key = ? AND trajectory <= ?"
            for trajectory, *array in self._connection.execute(statement, (key, len(self))):
                start = int(self.index.frame_offset[trajectory - 1])
                value = np.asarray(_array(*array), np.float32)
                found[start : start + len(value)] = value.reshape(len(value), size)
            self._small[name] = found
        return self._small[name]

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._database is None:
            raise StoreError(f"{self.path} is closed; open it again with TrajectoryStore(path)")
        if os.getpid() != self._process:
            raise StoreError(
                f"{self.path} was opened by process {self._process}; open it again in this one ({os.getpid()})"
            )
        return self._database

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if self.mode != "a":
            raise StoreError(f"{self.path} was opened to read; open it with mode 'a' to write")
        database = self._connection
        database.execute("BEGIN IMMEDIATE")
        try:
            yield database
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise

    def _forget(self, length: int) -> None:
        self._length, self._index = length, None
        self._small.clear()

    def _key(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"trajectory {index} is not in {self.path}, which holds {len(self)}")
        return int(index) + 1

    def _column(self, name: Literal["state", "action", "reward"]) -> NDArray[np.float32]:
        if name not in self._small:
            statement = f"SELECT {name} FROM trajectory WHERE id <= ? ORDER BY id"
            blobs = [blob for (blob,) in self._connection.execute(statement, (len(self),))]
            self._small[name] = np.frombuffer(b"".join(blobs), "<f4")
        return self._small[name]


def _raise_counter(database: sqlite3.Connection, path: Path, key: str, expected: int) -> None:
    row = database.execute("SELECT n FROM counter WHERE key = ?", (key,)).fetchone()
    found = row[0] if row else 0
    if found != expected:
        raise StoreError(
            f"{path}: {key} stands at {found}, expected {expected}: another process appends the same; wait until it is "
            "done, then repeat the command"
        )
    database.execute("INSERT OR REPLACE INTO counter VALUES (?, ?)", (key, expected + 1))


def _bytes(array: NDArray[Any]) -> bytes:
    return np.ascontiguousarray(array, little_endian(array)).tobytes()


def _array(dtype: str, shape: str, data: bytes) -> NDArray[Any]:
    return np.frombuffer(data, dtype).reshape(json.loads(shape))
