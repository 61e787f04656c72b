"""Reads robomimic HDF5 files: ``data/demo_<i>`` with ``obs/<key>``, ``actions``, ``rewards``, ``dones``.

``rewards[t]`` and ``dones[t]`` come from the step that ``actions[t]`` made, so they describe the next observation. That
one is in ``obs`` except for the last, which only ``next_obs`` has; files without it lack it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lotj.data.foreign import Episode, ForeignError, Item, ReadConfig, flag_named, guarded, needs, pick_cameras

STATE = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")
"""The robot's own; ``object`` is ground truth and no part of the state unless asked for."""


def count_episodes(path: Path) -> int:
    """Demonstrations in the file. Raises `ForeignError` if it is no such file."""
    with _opened(path) as file:
        return len(_demos(file, path))


def read_robomimic(path: Path, config: ReadConfig) -> Iterator[Item]:
    """Read the demonstrations by their number.

    Args:
        path: The file.
        config: Which camera, state and success flag.

    Raises:
        ForeignError: Not such a file, or no camera can be chosen.
        ValueError: h5py is missing.
    """
    with _opened(path) as file:
        for name in _demos(file, path):
            yield guarded(name, partial(_episode, file["data"][name], name, config))


def _opened(path: Path) -> Any:
    try:
        return needs("h5py", "hdf5").File(path, "r")
    except OSError as error:
        raise ForeignError("unreadable", f"{path.name}: {error}") from error


def _demos(file: Any, path: Path) -> list[str]:
    names = [name for name in file.get("data", ()) if re.fullmatch(r"demo_\d+", name)]
    if not names:
        raise ForeignError("unreadable", f"{path.name}: expected groups data/demo_<number>, got {list(file)[:5]}")
    return sorted(names, key=lambda name: int(name.removeprefix("demo_")))


def _episode(group: Any, name: str, config: ReadConfig) -> Episode:
    if "obs" not in group or "actions" not in group:
        raise ForeignError("wrong-shape", f"{name}: expected obs and actions, got {', '.join(sorted(group))}")
    obs, next_obs = group["obs"], group.get("next_obs", {})
    cameras = pick_cameras([key for key in obs if obs[key].ndim >= 4], config.camera)
    action = group["actions"][()]
    flags: dict[str, NDArray[Any]] = {
        key: group[key][()] for key in group if key not in ("obs", "next_obs") and hasattr(group[key], "ndim")
    }
    flags |= {f"obs/{key}": _observed(obs, next_obs, key) for key in obs if obs[key].ndim <= 2}
    keys = config.state or tuple(key for key in STATE if key in obs)
    missing = [key for key in keys if key not in obs]
    if missing:
        raise ForeignError("wrong-shape", f"no state {missing[0]!r}; the data has {', '.join(sorted(obs))}")
    # Where the last observation lacks one of them, it is not recorded.
    next_obs = next_obs if all(key in next_obs for key in (*cameras, *keys)) else {}
    states = [_observed(obs, next_obs, key) for key in keys]
    return Episode(
        name=name,
        images={camera: _observed(obs, next_obs, camera) for camera in cameras},
        action=action,
        state=np.concatenate([s.reshape(len(s), -1) for s in states], axis=1) if states else None,
        reward=flags.get("rewards"),
        success=flag_named(flags, config.success, "success"),
        done=flags.get("dones"),
        connector=_text(group.attrs.get("connector", "")),
        robot=_text(group.attrs.get("robot", "")),
        disorder=next(filter(None, (_disorder(obs, next_obs, camera) for camera in cameras)), ""),
    )


def _observed(obs: Mapping[str, Any], next_obs: Mapping[str, Any], key: str) -> NDArray[Any]:
    """An observation's key with the one after the last action, where the file has it."""
    array: NDArray[Any] = obs[key][()]
    if key in next_obs and 0 < len(next_obs[key]) == len(array):
        array = np.concatenate([array, next_obs[key][-1:]])
    return array


def _disorder(obs: Mapping[str, Any], next_obs: Mapping[str, Any], camera: str) -> str:
    """``next_obs[t]`` must be ``obs[t + 1]``."""
    if camera not in next_obs or next_obs[camera].shape != obs[camera].shape:
        return ""
    differ = (next_obs[camera][:-1] != obs[camera][1:]).reshape(len(obs[camera]) - 1, -1).any(axis=1)
    return f"next_obs[{int(np.argmax(differ))}] is not obs[{int(np.argmax(differ)) + 1}]" if differ.any() else ""


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
