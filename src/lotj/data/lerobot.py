"""Reads LeRobot v3 datasets: one row a frame in Parquet files, images inside them or in videos beside them.

Row ``t`` holds the observation, the action taken on it, and what came of that (``next.reward``, ``next.success``,
``next.done``). The observation after the last action is in no row, unless a feature ``is_last`` marks a row that is an
observation alone: that is how `lotj.data.lerobot_export` writes, after the RLDS convention (Ramos et al. 2021).
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lotj.data.foreign import Episode, ForeignError, Item, ReadConfig, flag_named, guarded, needs, pick_cameras, stacked
from lotj.types import Trajectory

VERSION = "v3."
"""Prefix of the ``codebase_version`` that is read."""

OURS = ("is_last", "connector", "robot", "source", "seed", "next.terminated", "next.truncated")
"""Features that make a trajectory whole; with all of them nothing is derived."""

SHAPES = "meta/lotj.json"
"""Beside LeRobot's own files: what its features cannot say of ground truth."""

GROUND_TRUTH = "privileged."
"""Prefix of features with ground truth."""


def is_lerobot(path: Path) -> bool:
    """Whether this folder is a LeRobot dataset, of any version."""
    return (path / "meta" / "info.json").is_file()


def read_info(path: Path) -> dict[str, Any]:
    """The dataset's ``info.json``. Raises `ForeignError` unless its version is 3."""
    if not is_lerobot(path):
        raise ForeignError("unreadable", f"{path}: expected a LeRobot v3 folder; meta/info.json is missing")
    try:
        info: dict[str, Any] = json.loads((path / "meta" / "info.json").read_text(encoding="utf-8"))
        version, features = str(info["codebase_version"]), info["features"]
    except (ValueError, KeyError, TypeError) as error:
        raise ForeignError("unreadable", f"{path.name}/meta/info.json: {type(error).__name__}: {error}") from error
    if not version.startswith(VERSION) or not isinstance(features, dict):
        raise ForeignError(
            "unreadable", f"{path.name}: expected codebase version 3, got {version}: convert it with lerobot first"
        )
    return info


def count_episodes(path: Path) -> int:
    """Episodes in the dataset, by its ``info.json``."""
    return int(read_info(path).get("total_episodes", 0))


def read_lerobot(path: Path, config: ReadConfig) -> Iterator[Item]:
    """Read the episodes in the order of their rows.

    Args:
        path: The dataset's folder.
        config: Which camera, state and success flag.

    Raises:
        ForeignError: No camera can be chosen, or there are no rows.
        ValueError: pyarrow is missing, or a file is damaged.
    """
    info = read_info(path)
    features: Mapping[str, Any] = info["features"]
    cameras = [key for key, feature in features.items() if feature.get("dtype") in ("image", "video")]
    chosen = pick_cameras(cameras, config.camera)
    videos = [camera for camera in chosen if features[camera]["dtype"] == "video"]
    columns = [key for key in features if key not in cameras or (key in chosen and key not in videos)]
    robot = info.get("robot_type") or ""
    seen: set[int] = set()
    expected = 0
    for number, rows in _episodes(path, columns):
        name = f"episode {number}"
        frames = {key: _Video(path, info, key, number) if key in videos else rows.pop(key, None) for key in chosen}
        disorder = _disorder(rows, number in seen, expected)
        expected = max(expected, number + 1)
        seen.add(number)
        if not disorder and len(chosen) == 1 and all(key in rows for key in OURS):
            yield guarded(name, partial(_trajectory, path, frames[chosen[0]], rows))
        else:
            yield guarded(name, partial(_episode, name, frames, rows, robot, disorder, config))


def _episodes(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, list[Any]]]]:
    """Neighbouring rows of one episode, as columns."""
    parquet = needs("pyarrow.parquet", "lerobot")
    files = sorted((path / "data").glob("*/*.parquet"))
    if not files:
        raise ForeignError("unreadable", f"{path.name}: no files data/*/*.parquet")
    current = -1
    held: dict[str, list[Any]] = {}
    for file in files:
        with parquet.ParquetFile(file) as opened:
            wanted = [name for name in opened.schema_arrow.names if name in columns]
            if "episode_index" not in wanted:
                raise ForeignError("unreadable", f"{file.name}: no column episode_index")
            for batch in opened.iter_batches(batch_size=256, columns=wanted):
                rows = batch.to_pydict()
                numbers = rows["episode_index"]
                starts = [0, *(i for i in range(1, len(numbers)) if numbers[i] != numbers[i - 1]), len(numbers)]
                for start, stop in pairwise(starts):
                    if start == stop:
                        continue
                    part = {key: values[start:stop] for key, values in rows.items()}
                    if numbers[start] == current:
                        for key, values in part.items():
                            held[key].extend(values)
                        continue
                    if held:
                        yield current, held
                    current, held = numbers[start], part
    if held:
        yield current, held


def _disorder(rows: Mapping[str, list[Any]], again: bool, expected: int) -> str:
    """What is wrong with the order of an episode's rows."""
    if again:
        return "its rows are not together in the file"
    frame = rows.get("frame_index")
    if frame is not None and list(frame) != list(range(len(frame))):
        return f"frame_index: expected 0 to {len(frame) - 1}, rising by one, got {str(list(frame)[:6])[1:-1]} ..."
    time = rows.get("timestamp")
    if time is not None and np.any(np.diff(np.asarray(time, np.float64)) <= 0):
        return f"timestamp does not rise at row {int(np.argmax(np.diff(np.asarray(time, np.float64)) <= 0)) + 1}"
    if rows["episode_index"][0] < expected:
        return f"it comes after episode {expected - 1} in the file"
    return ""


def _episode(
    name: str,
    frames: Mapping[str, Any],
    rows: Mapping[str, list[Any]],
    robot: str,
    disorder: str,
    config: ReadConfig,
) -> Episode:
    arrays = {key: stacked(values, key) for key, values in rows.items() if not isinstance(values[0], dict)}
    if "action" not in arrays:
        raise ForeignError("wrong-shape", f"{name}: no feature action; the data has {', '.join(sorted(arrays))}")
    steps = len(arrays["action"])
    if "is_last" in arrays and arrays["is_last"][-1]:
        steps -= 1  # the last row is an observation alone
    keys = config.state or tuple(key for key in ("observation.state",) if key in arrays)
    missing = [key for key in keys if key not in arrays]
    if missing:
        raise ForeignError("wrong-shape", f"no state {missing[0]!r}; the data has {', '.join(sorted(arrays))}")
    states = [arrays[key].reshape(len(arrays[key]), -1) for key in keys]
    reward, success = arrays.get("next.reward"), flag_named(arrays, config.success, "next.success")
    done = arrays.get("next.terminated", arrays.get("next.done"))
    return Episode(
        name=name,
        images={camera: _pixels(each, camera) for camera, each in frames.items()},
        action=arrays["action"][:steps].reshape(steps, -1),
        state=np.concatenate(states, axis=1) if states else None,
        reward=None if reward is None else reward.reshape(len(reward), -1)[:steps, 0],
        success=None if success is None else success[:steps],
        done=None if done is None else done.reshape(len(done), -1)[:steps, 0],
        connector=str(arrays["connector"][0] or "") if "connector" in arrays else "",
        robot=str(arrays["robot"][0] or "") if "robot" in arrays else robot,
        acted_by=str(arrays["source"][0] or "") if "source" in arrays else "",
        disorder=disorder,
    )


def _trajectory(path: Path, frames: Any, rows: Mapping[str, list[Any]]) -> Trajectory:
    """A trajectory as `lotj.data.lerobot_export` wrote it, bit for bit."""
    extra = json.loads((path / SHAPES).read_text(encoding="utf-8")) if (path / SHAPES).is_file() else {}
    number, n = rows["episode_index"][0], len(rows["is_last"])
    if not rows["is_last"][-1] or any(rows["is_last"][:-1]):
        raise ForeignError("frame-order", "is_last: expected true in the last row of an episode and nowhere else")
    privileged = {}
    for name, says in sorted(extra.get("privileged", {}).items()):
        if number not in says["absent"]:
            values = np.asarray(rows[GROUND_TRUTH + name], says["dtype"])
            privileged[name] = values.reshape(n, *says["shape"])
    state = rows.get("observation.state")
    return Trajectory(
        image=_pixels(frames),
        state=np.zeros((n, 0), np.float32) if state is None else np.asarray(state, np.float32).reshape(n, -1),
        action=np.asarray(rows["action"], np.float32).reshape(n, -1)[:-1],
        reward=np.asarray(rows["next.reward"], np.float32)[:-1],
        terminated=bool(rows["next.terminated"][-2]),
        truncated=bool(rows["next.truncated"][-2]),
        connector=rows["connector"][0] or "",
        robot=rows["robot"][0] or "",
        seed=int(rows["seed"][0]),
        source=rows["source"][0] or "",
        privileged=privileged,
    )


def _pixels(frames: Any, what: str = "images") -> NDArray[Any]:
    """(N, H, W, 3) of encoded images or of a stretch of video."""
    if isinstance(frames, _Video):
        return frames.read()
    if frames is None or not all(isinstance(frame, dict) and frame.get("bytes") for frame in frames):
        raise ForeignError("unreadable", f"{what}: expected encoded bytes in the Parquet files")
    pictures: list[NDArray[Any]] = []
    for frame in frames:
        with Image.open(io.BytesIO(frame["bytes"])) as picture:
            pictures.append(np.array(picture.convert("RGB"), np.uint8))
    return stacked(pictures, what)


class _Video:
    """The stretch of a video that belongs to an episode."""

    def __init__(self, path: Path, info: Mapping[str, Any], camera: str, episode: int) -> None:
        self.path, self.info, self.camera, self.episode = path, info, camera, episode

    def read(self) -> NDArray[np.uint8]:
        import av

        row = self._row()
        start, stop, fps = row["from_timestamp"], row["to_timestamp"], float(self.info["fps"])
        wanted = round((stop - start) * fps)
        file = self.path / f"videos/{self.camera}/chunk-{row['chunk_index']:03d}/file-{row['file_index']:03d}.mp4"
        frames: list[NDArray[np.uint8]] = []
        with av.open(str(file)) as container:
            stream = container.streams.video[0]
            assert stream.time_base is not None
            container.seek(int(max(0.0, start) / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                if frame.time is not None and frame.time >= start - 0.5 / fps:
                    frames.append(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
                if len(frames) == wanted:
                    break
        if len(frames) != wanted:
            raise ForeignError(
                "wrong-shape", f"{self.camera}, {file.name}: expected {wanted} frames, got {len(frames)}"
            )
        return np.stack(frames)

    def _row(self) -> dict[str, Any]:
        parquet = needs("pyarrow.parquet", "lerobot")
        prefix = f"videos/{self.camera}/"
        names = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
        for file in sorted((self.path / "meta" / "episodes").glob("*/*.parquet")):
            table = parquet.read_table(file, columns=["episode_index", *(prefix + name for name in names)])
            found = np.flatnonzero(table["episode_index"].to_numpy() == self.episode)
            if len(found):
                return {name: table[prefix + name][int(found[0])].as_py() for name in names}
        raise ForeignError("unreadable", f"episode {self.episode} is not in meta/episodes")
