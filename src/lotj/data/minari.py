"""Minari datasets: read with h5py, written with minari's own storage, unencoded, so that nothing is lost.

An episode has ``T + 1`` observations, ``T`` actions, rewards, terminations and truncations; ``rewards[t]`` describes
observation ``t + 1``, as ours do. Our names and seeds are attributes of the episode, ground truth its infos.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lotj.data.foreign import (
    Episode,
    ForeignError,
    Item,
    ReadConfig,
    flag_named,
    guarded,
    needs,
    pick_cameras,
    stacked,
)
from lotj.data.store import TrajectoryStore
from lotj.types import Trajectory

FILE = "main_data.hdf5"
OURS = "lotj"
"""Attribute of an episode that lotj wrote, with the version of this layout."""
IMAGE = "image"


def data_folder(path: Path) -> Path | None:
    """The folder with ``metadata.json`` and the data; None where this is no Minari dataset."""
    for folder in (path, path / "data"):
        if (folder / "metadata.json").is_file() and (folder / FILE).is_file():
            return folder
    return None


def count_episodes(path: Path) -> int:
    """Episodes in the dataset."""
    with _opened(path) as file:
        return len(_names(file))


def read_minari(path: Path, config: ReadConfig) -> Iterator[Item]:
    """Read the episodes by their number.

    Args:
        path: The dataset's folder.
        config: Which camera, state and success flag.

    Raises:
        ForeignError: Not such a folder (the HDF5 backend), or no camera can be chosen.
        ValueError: h5py is missing.
    """
    with _opened(path) as file:
        for name in _names(file):
            read: Callable[[], Item] = partial(_episode, file[name], name, config)
            if OURS in file[name].attrs:
                read = partial(_trajectory, file[name])
            yield guarded(name, read)


def write_minari(store: TrajectoryStore, folder: Path, dataset_id: str, tick: Callable[[int, int], None]) -> int:
    """Write all trajectories of a store into a folder that is empty.

    Args:
        store: What to write; it must hold something.
        folder: Where to; ``minari.MinariDataset(folder / "data")`` opens it.
        dataset_id: Its name in Minari, for example ``lotj/insertion-v0``.
        tick: Told (done, total).

    Returns:
        Observations written.

    Raises:
        ValueError: minari is missing.
    """
    needs("h5py", "minari")
    minari = needs("minari", "minari")
    buffer = needs("minari.data_collector", "minari").EpisodeBuffer
    storage_class = needs("minari.dataset.minari_storage", "minari").MinariStorage
    from gymnasium import spaces

    shape = store.shape
    observation: dict[str, Any] = {IMAGE: spaces.Box(0, 255, (shape.height, shape.width, 3), np.uint8)}
    if shape.state:
        observation["state"] = spaces.Box(-np.inf, np.inf, (shape.state,), np.float32)
    action = spaces.Box(-1, 1, (shape.action,), np.float32)
    # Minari's storage looks for its files in the wrong place where the path is relative.
    storage = storage_class.new(
        folder.absolute() / "data", spaces.Dict(observation), action, data_format="hdf5", jpeg_encoding=False
    )
    frames = 0
    for i in range(len(store)):
        t = store.read(i)
        storage.update_episodes([_buffer(buffer, t, i)])
        names = {"connector": t.connector, "robot": t.robot, "source": t.source, "number": np.int64(t.seed)}
        ends = {"terminated": t.terminated, "truncated": t.truncated}
        storage.update_episode_metadata([{OURS: 1, **names, **ends}], [i])
        frames += len(t) + 1
        tick(i + 1, len(store))
    storage.update_metadata(
        {"dataset_id": dataset_id, "minari_version": minari.__version__, "algorithm_name": "lotj", "requirements": []}
    )
    return frames


def _buffer(buffer: Any, t: Trajectory, number: int) -> Any:
    end = np.arange(len(t)) == len(t) - 1
    observations: dict[str, Any] = {IMAGE: t.image, **({"state": t.state} if t.state.shape[1] else {})}
    return buffer(
        id=number,
        observations=observations,
        actions=t.action,
        rewards=t.reward,
        terminations=end & t.terminated,
        truncations=end & t.truncated,
        infos={"privileged": dict(t.privileged)} if t.privileged else None,
    )


def _opened(path: Path) -> Any:
    folder = data_folder(path)
    if folder is None:
        raise ForeignError("unreadable", f"{path.name}: expected metadata.json and {FILE} (Minari's HDF5 backend)")
    try:
        return needs("h5py", "minari").File(folder / FILE, "r")
    except OSError as error:
        raise ForeignError("unreadable", f"{path.name}: {error}") from error


def _names(file: Any) -> list[str]:
    return sorted((name for name in file if name.startswith("episode_")), key=lambda n: int(n.removeprefix("episode_")))


def _trajectory(group: Any) -> Trajectory:
    attributes = group.attrs
    state = group["observations"].get("state")
    image = group["observations"][IMAGE][()]
    infos = group["infos"]["privileged"] if "infos" in group else {}
    return Trajectory(
        image=image,
        state=np.zeros((len(image), 0), np.float32) if state is None else state[()],
        action=group["actions"][()],
        reward=group["rewards"][()],
        terminated=bool(attributes["terminated"]),
        truncated=bool(attributes["truncated"]),
        connector=str(attributes["connector"]),
        robot=str(attributes["robot"]),
        seed=int(attributes["number"]),
        source=str(attributes["source"]),
        privileged={key: value[()] for key, value in infos.items()},
    )


def _episode(group: Any, name: str, config: ReadConfig) -> Episode:
    observations = _leaves(group["observations"], IMAGE)
    infos = {f"infos/{key}": value for key, value in _leaves(group.get("infos", {}), "").items()}
    pictures = {key: value for key, value in observations.items() if value.ndim >= 4 or _is_jpeg(value)}
    cameras = pick_cameras(pictures, config.camera)
    keys = config.state or (("state",) if "state" in observations else ())
    missing = [key for key in keys if key not in observations]
    if missing:
        raise ForeignError("wrong-shape", f"no state {missing[0]!r}; the data has {', '.join(sorted(observations))}")
    states = [observations[key][()] for key in keys]
    flags = {key: value[()] for key, value in infos.items() if value.ndim <= 2}
    terminations = group["terminations"][()] if "terminations" in group else None
    action = group["actions"]
    if not hasattr(action, "ndim"):
        raise ForeignError("wrong-shape", f"actions: expected numbers (T, A), got a group of {', '.join(action)}")
    success = flag_named(flags, config.success, "infos/success")
    return Episode(
        name=name,
        images={key: _pixels(pictures[key], key) for key in cameras},
        action=action[()],
        state=np.concatenate([s.reshape(len(s), -1) for s in states], axis=1) if states else None,
        reward=group["rewards"][()] if "rewards" in group else None,
        success=success,
        done=terminations,
        connector=str(group.attrs.get("connector", "")),
        robot=str(group.attrs.get("robot", "")),
    )


def _leaves(group: Any, name: str) -> Mapping[str, Any]:
    """Data sets under a group, with ``/`` between the names; one data set alone has the name given."""
    if hasattr(group, "ndim"):
        return {name: group}
    found: dict[str, Any] = {}
    for key in group:
        inner = f"{name}/{key}" if name and name != IMAGE else key
        found |= {inner: group[key]} if hasattr(group[key], "ndim") else _leaves(group[key], inner)
    return found


def _is_jpeg(data: Any) -> bool:
    """Minari writes images as rows of JPEG bytes unless told otherwise."""
    if data.dtype != object and (data.dtype != np.uint8 or data.ndim != 2):
        return False
    return len(data) > 0 and bytes(data[0][:2]) == b"\xff\xd8"


def _pixels(data: Any, what: str) -> NDArray[Any]:
    if not _is_jpeg(data):
        pixels: NDArray[Any] = data[()]
        return pixels
    pictures = []
    for row in data[()]:
        with Image.open(io.BytesIO(bytes(row))) as picture:
            pictures.append(np.asarray(picture))
    return stacked(pictures, what)
