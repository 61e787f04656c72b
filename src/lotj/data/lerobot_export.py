"""Writes a store as a LeRobot v3 dataset, with pyarrow alone: nothing is lost, images are PNG.

A trajectory of ``T`` actions becomes ``T + 1`` rows. The last row is an observation alone: ``is_last`` is true, its
action and its ``next.reward`` are 0. What a trajectory says as a whole (connector, robot, source, seed) stands in each
row. Ground truth goes into features named ``privileged.<key>``.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lotj.data.foreign import needs
from lotj.data.lerobot import GROUND_TRUTH, SHAPES
from lotj.data.store import TrajectoryStore
from lotj.data.validate import JUDGED_SOURCES
from lotj.types import Trajectory

CAMERA = "observation.images.tool"
FILE_BYTES = 100_000_000
"""A data file is closed at this size."""
CHUNK = 1000
"""Files in a folder."""
_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"


def reward_source(trajectory: Trajectory) -> str:
    """Who paid the rewards: ``reward-model`` in self-rewarded practice, else ``ground-truth``."""
    return "reward-model" if trajectory.source == JUDGED_SOURCES[0] else "ground-truth"


def write_lerobot(store: TrajectoryStore, folder: Path, fps: int, tick: Callable[[int, int], None]) -> int:
    """Write all trajectories of a store into a folder that is empty.

    Args:
        store: What to write; it must hold something.
        folder: Where to.
        fps: Steps a second of the cell; only ``timestamp`` depends on it.
        tick: Told (done, total).

    Returns:
        Rows written.

    Raises:
        ValueError: pyarrow is missing.
    """
    writer = _Writer(store, folder, fps)
    for i in range(len(store)):
        writer.write(i, store.read(i))
        tick(i + 1, len(store))
    writer.finish()
    return writer.rows


class _Writer:
    """Data files one after the other, then the description of what is in them."""

    def __init__(self, store: TrajectoryStore, folder: Path, fps: int) -> None:
        self.arrow, self.parquet = needs("pyarrow", "lerobot"), needs("pyarrow.parquet", "lerobot")
        self.folder, self.fps, self.rows, self.file = folder, fps, 0, -1
        self.privileged = _ground_truth(store)
        self.features = _features(store, self.privileged)
        self.schema = self.arrow.schema([(name, self._type(f)) for name, f in self.features.items()])
        self.episodes: list[dict[str, Any]] = []
        self.stats: dict[str, _Stats] = {}
        self._output: Any = None
        self._bytes = 0

    def write(self, number: int, t: Trajectory) -> None:
        columns = self._columns(number, t)
        for name, values in columns.items():
            if name == CAMERA:
                self._stat(name).add(t.image.reshape(-1, 3) / 255.0, len(t.image))
            elif self.features[name]["dtype"] != "string":
                self._stat(name).add(np.asarray(values, np.float64).reshape(len(values), -1), len(values))
        table = self.arrow.Table.from_pydict(
            {name: self._array(name, values) for name, values in columns.items()}, schema=self.schema
        )
        if self._output is None or self._bytes > FILE_BYTES:
            self._next_file()
        self._output.write_table(table)
        self._bytes += table.nbytes
        n = len(t) + 1
        self.episodes.append(
            {
                "episode_index": number,
                "tasks": [_task(t)],
                "length": n,
                "data/chunk_index": self.file // CHUNK,
                "data/file_index": self.file % CHUNK,
                "dataset_from_index": self.rows,
                "dataset_to_index": self.rows + n,
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
            }
        )
        self.rows += n

    def finish(self) -> None:
        if self._output is not None:
            self._output.close()
        meta = self.folder / "meta"
        (meta / "episodes" / "chunk-000").mkdir(parents=True)
        self.parquet.write_table(
            self.arrow.Table.from_pylist(self.episodes), meta / "episodes" / "chunk-000" / "file-000.parquet"
        )
        self._write_tasks(meta / "tasks.parquet")
        _json(meta / "stats.json", {name: stats.summary(name == CAMERA) for name, stats in self.stats.items()})
        _json(self.folder / SHAPES, {"privileged": self.privileged})
        _json(
            meta / "info.json",
            {
                "codebase_version": "v3.0",
                "robot_type": None,
                "total_episodes": len(self.episodes),
                "total_frames": self.rows,
                "total_tasks": len(self._tasks),
                "chunks_size": CHUNK,
                "data_files_size_in_mb": FILE_BYTES // 1_000_000,
                "video_files_size_in_mb": 200,
                "fps": self.fps,
                "splits": {"train": f"0:{len(self.episodes)}"},
                "data_path": _DATA,
                "video_path": None,
                "features": self.features,
            },
        )

    @property
    def _tasks(self) -> list[str]:
        return list(dict.fromkeys(row["tasks"][0] for row in self.episodes))

    def _columns(self, number: int, t: Trajectory) -> dict[str, Any]:
        n = len(t) + 1
        last = np.arange(n) == n - 1
        end = np.arange(n) >= n - 2
        success = t.privileged.get("success")
        tasks = self._tasks
        columns: dict[str, Any] = {
            CAMERA: [{"bytes": _png(frame), "path": None} for frame in t.image],
            "observation.state": t.state,
            "action": np.concatenate([t.action, 0 * t.action[:1]]),
            "next.reward": np.append(t.reward, np.float32(0)),
            "next.done": end,
            "next.terminated": end & t.terminated,
            "next.truncated": end & t.truncated,
            "next.success": None if success is None else np.append(success[1:], success[-1]).astype(bool),
            "is_last": last,
            "connector": [t.connector] * n,
            "robot": [t.robot] * n,
            "source": [t.source] * n,
            "reward_source": [reward_source(t)] * n,
            "seed": np.full(n, t.seed, np.int64),
            "timestamp": (np.arange(n) / self.fps).astype(np.float32),
            "frame_index": np.arange(n),
            "episode_index": np.full(n, number),
            "index": self.rows + np.arange(n),
            "task_index": np.full(n, tasks.index(_task(t)) if _task(t) in tasks else len(tasks)),
        }
        for key, says in self.privileged.items():
            absent = key not in t.privileged
            if absent:
                says["absent"].append(number)
            values = np.zeros((n, *says["shape"]), says["dtype"]) if absent else t.privileged[key]
            columns[GROUND_TRUTH + key] = values.reshape(n, -1) if says["shape"] else values
        return {name: columns[name] for name in self.features}

    def _array(self, name: str, values: Any) -> Any:
        kind = self.schema.field(name).type
        if isinstance(values, np.ndarray) and values.ndim == 2 and values.shape[1] == 1:
            return self.arrow.array(np.ascontiguousarray(values[:, 0]), kind)
        if isinstance(values, np.ndarray) and values.ndim == 2:
            flat = self.arrow.array(np.ascontiguousarray(values).reshape(-1), kind.value_type)
            return self.arrow.FixedSizeListArray.from_arrays(flat, type=kind)
        return self.arrow.array(values, kind)

    def _type(self, feature: dict[str, Any]) -> Any:
        if feature["dtype"] == "image":
            return self.arrow.struct([("bytes", self.arrow.binary()), ("path", self.arrow.string())])
        if feature["dtype"] == "string":
            return self.arrow.string()
        kind = self.arrow.from_numpy_dtype(np.dtype(feature["dtype"]))
        # LeRobot takes shape (1,) for a plain value.
        return kind if feature["shape"] == [1] else self.arrow.list_(kind, feature["shape"][0])

    def _stat(self, name: str) -> _Stats:
        return self.stats.setdefault(name, _Stats())

    def _next_file(self) -> None:
        if self._output is not None:
            self._output.close()
        self.file, self._bytes = self.file + 1, 0
        path = self.folder / _DATA.format(chunk_index=self.file // CHUNK, file_index=self.file % CHUNK)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._output = self.parquet.ParquetWriter(path, self.schema)

    def _write_tasks(self, path: Path) -> None:
        """A table that pandas reads with the task as the name of each row, which is what LeRobot looks up."""
        table = self.arrow.table({"task_index": list(range(len(self._tasks))), "task": self._tasks})
        described = [
            {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"},
            {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object"},
        ]
        pandas = {
            "index_columns": ["task"],
            "column_indexes": [],
            "columns": [{**column, "metadata": None} for column in described],
            "pandas_version": "2.0.0",
        }
        self.parquet.write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), path)


class _Stats:
    """Running minimum, maximum, mean and standard deviation of the columns of (N, n)."""

    def __init__(self) -> None:
        self.frames, self.n = 0, 0

    def add(self, values: NDArray[np.float64], frames: int) -> None:
        if not self.n:
            self.low, self.high = values.min(0), values.max(0)
            self.total, self.squares = np.zeros(values.shape[1]), np.zeros(values.shape[1])
        self.low, self.high = np.minimum(self.low, values.min(0)), np.maximum(self.high, values.max(0))
        self.total += values.sum(0)
        self.squares += (values**2).sum(0)
        self.n, self.frames = self.n + len(values), self.frames + frames

    def summary(self, image: bool) -> dict[str, Any]:
        mean = self.total / self.n
        std = np.sqrt(np.maximum(0.0, self.squares / self.n - mean**2))
        rows = {"min": self.low, "max": self.high, "mean": mean, "std": std}
        shape = (3, 1, 1) if image else (-1,)
        return {**{key: row.reshape(shape).tolist() for key, row in rows.items()}, "count": [self.frames]}


def _ground_truth(store: TrajectoryStore) -> dict[str, dict[str, Any]]:
    """Dtype and shape of each key of ground truth; which episodes lack it is filled in while writing."""
    found: dict[str, dict[str, Any]] = {}
    for i in range(len(store)):
        for key, array in store.read_privileged(i).items():
            says = {"dtype": array.dtype.name, "shape": list(array.shape[1:]), "absent": []}
            if found.setdefault(key, says) != says or "/" in key:
                raise ValueError(
                    f"privileged {key!r}: expected one dtype, one shape and no '/' in the name, got {says} in "
                    f"trajectory {i} after {found[key]}; export stores with other ground truth apart"
                )
    return dict(sorted(found.items()))


def _features(store: TrajectoryStore, privileged: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    def plain(dtype: str, n: int = 1, names: list[str] | None = None) -> dict[str, Any]:
        return {"dtype": dtype, "shape": [n], "names": names}

    shape = store.shape
    features: dict[str, dict[str, Any]] = {
        CAMERA: {
            "dtype": "image",
            "shape": [shape.height, shape.width, 3],
            "names": ["height", "width", "channels"],
        }
    }
    if shape.state:
        features["observation.state"] = plain("float32", shape.state)
    features["action"] = plain("float32", shape.action)
    features["next.reward"] = plain("float32")
    labelled = bool((store.index.successes >= 0).all())
    flags = ("next.done", "next.terminated", "next.truncated", *(("next.success",) if labelled else ()), "is_last")
    features |= {name: plain("bool") for name in flags}
    features |= {name: plain("string") for name in ("connector", "robot", "source", "reward_source")}
    features["seed"] = plain("int64")
    for key, says in privileged.items():
        features[GROUND_TRUTH + key] = plain(says["dtype"], int(np.prod(says["shape"], dtype=int)))
    features["timestamp"] = plain("float32")
    return features | {name: plain("int64") for name in ("frame_index", "episode_index", "index", "task_index")}


def _task(trajectory: Trajectory) -> str:
    return f"insert {trajectory.connector}"


def _png(frame: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
