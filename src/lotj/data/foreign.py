"""Data that others wrote: what a reader is told, what it hands over, and what can be wrong with it.

A reader (`lotj.data.lerobot`, `minari`, `robomimic`, `serl`) yields an `Episode`, which says what was recorded and not
what it means here: `lotj.data.conversion` brings it to our conventions.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lotj.types import Trajectory, later

REMEDY = {
    "no-name": "name it with --connector (one connector), or write a feature `connector`",
    "no-camera": "name one with --camera, or several, which then stand side by side",
    "no-reward": "name the success flag with --success, or record rewards",
    "reward-scale": "name the success flag with --success; its 0 and 1 become the rewards",
    "reward-shift": "if rewards describe the observation before the action, import with --reward-on same; "
    "else take them from the success flag with --success",
    "wrong-shape": "write T actions, T rewards, T or T + 1 observations, and images as (H, W, 3) uint8",
    "channels-first": "import with --channels-first, or write images as (H, W, 3)",
    "not-finite": "look for what divided by zero or was never filled in, and drop or mend these episodes",
    "out-of-range": "if the unit is another, import with --action-scale; if single values overshoot, clip them",
    "frame-order": "write the frames of an episode together, oldest first",
    "frozen-images": "the camera did not update: drop these episodes, or choose another --camera",
    "black-images": "the camera saw nothing: drop these episodes, or choose another --camera",
    "too-short": "an episode needs two observations; --final repeat takes the last one twice",
    "unreadable": "copy or download the file again, or drop these episodes",
    "untrusted-pickle": "have it saved as plain arrays, or do not trust it",
    "unfinished": "mark the end: terminated on success, truncated at the horizon or when dislodged",
    "reward-order": "end the trial at its first success, and mark it terminated there",
    "over-horizon": "pass the --horizon that was meant, or cut the episodes when writing",
}
"""What to do about each kind of defect in foreign data."""


class ForeignError(ValueError):
    """Foreign data that cannot be taken as it is.

    Args:
        kind: A key of `REMEDY`.
        message: What was expected and what came.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{message}; {REMEDY[kind]}")
        self.kind, self.message = kind, message


@dataclass(frozen=True)
class ReadConfig:
    """How foreign data is to be read. What a lotj store says about itself is never overruled."""

    connector: str | None = None
    """name of the connector, where the data does not say."""
    robot: str = "unknown"
    """name of the robot, where the data does not say."""
    acted_by: str = "imported"
    """who acted: the ``source`` of what is stored, where the data does not say."""
    camera: tuple[str, ...] = ()
    """which images to take, where there are several (after the source); two or more are put side by side in this order,
    as squares: that of the cell's ``image``."""
    cameras: int | None = later(None)
    """how many cameras' square pictures stand side by side in an image as it was recorded; 1 for a single wide one."""
    image_size: int | None = None
    """centre crop to a square and resize to so many pixels; a store has one image size."""
    state: tuple[str, ...] = ()
    """which vectors make up the state, in this order; by default those the format knows as the robot's own."""
    success: str | None = None
    """which flag says success; the rewards are then taken from it."""
    reward_on: Literal["next", "same"] = "next"
    """which observation a recorded reward describes: the one after the action, or the one before it."""
    final: Literal["drop", "repeat"] = "drop"
    """where the observation after the last action was not recorded: drop that action, or repeat the last image."""
    channels_first: bool = False
    """images are (3, H, W)."""
    action_scale: float = 1.0
    """actions are multiplied by this."""
    metres_per_unit: float | None = later(None)
    """metres along x, y, z that an action of 1 asks for, after that; a cell with another scale is then refused, where
    else nothing says so. A lotj store knows its own."""

    def __post_init__(self) -> None:
        if self.image_size is not None and self.image_size < 1:
            raise ValueError(f"image_size: expected at least 1 pixel, got {self.image_size}; 64 is usual")
        if not (np.isfinite(self.action_scale) and self.action_scale):
            raise ValueError(f"action_scale: expected a finite factor, not 0, got {self.action_scale}")
        if self.metres_per_unit is not None and not (np.isfinite(self.metres_per_unit) and self.metres_per_unit > 0):
            raise ValueError(f"metres_per_unit: expected metres above 0, got {self.metres_per_unit}; 0.005 is usual")
        if self.cameras is not None and self.cameras < 1:
            raise ValueError(f"cameras: expected at least 1, got {self.cameras}")
        if len(self.camera) > 1 and (self.cameras or 1) > 1:
            raise ValueError(
                f"cameras: expected 1 where several images are named ({', '.join(self.camera)}), got {self.cameras}; "
                "it is for data that has the pictures side by side already: leave it out"
            )
        if len(set(self.camera)) < len(self.camera):
            raise ValueError(f"camera: expected each name once, got {', '.join(self.camera)}")
        for name in ("robot", "acted_by"):
            if not getattr(self, name):
                raise ValueError(f"{name}: expected a name, got an empty string; leave the option out")


@dataclass(frozen=True)
class Episode:
    """One trial as it was recorded: ``T`` actions, ``T + 1`` observations, or ``T`` where the last one is missing."""

    name: str
    """What to call it in a message."""
    images: Mapping[str, NDArray[Any]]
    """By camera, in the order asked for: (T + 1 or T, H, W, 3) uint8 if all is well."""
    action: NDArray[Any]
    """(T, A)"""
    state: NDArray[Any] | None = None
    """(T + 1 or T, S)"""
    reward: NDArray[Any] | None = None
    """(T,), or (T + 1,) for one an observation."""
    success: NDArray[Any] | None = None
    """(T,) success after each action, or (T + 1,) of each observation."""
    done: NDArray[Any] | None = None
    """(T,) end of the task after each action."""
    connector: str = ""
    robot: str = ""
    acted_by: str = ""
    disorder: str = ""
    """What is wrong with the order of its frames; empty where nothing is."""


class Unreadable(NamedTuple):
    """An episode that could not be read."""

    name: str
    error: ForeignError


Item: TypeAlias = Trajectory | Episode | Unreadable
"""What a reader yields: trajectories where the source was written by lotj, episodes otherwise."""


@dataclass(frozen=True)
class Source:
    """A foreign data set, opened."""

    format: str
    path: Path
    count: int
    """Episodes in it."""
    items: Callable[[], Iterator[Item]] = field(repr=False)
    """Reads it from the start."""
    digest: Callable[[], str] = field(repr=False)
    """SHA-256 of its content, whatever the path."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What a store says of all its trajectories: ``action_scale`` (m for an action of 1, along each axis), ``horizon``,
    ``robots``, each where it is known."""


def pick_cameras(keys: Iterable[str], wanted: Sequence[str]) -> list[str]:
    """The images to read: those asked for, or the only one. Raises `ForeignError` naming those there are."""
    known = sorted(keys)
    if not wanted:
        if len(known) != 1:
            raise ForeignError("no-camera", f"expected one camera, got {', '.join(known) or 'no images at all'}")
        return known
    found: list[str] = []
    for name in wanted:
        matches = [key for key in known if key == name or key.rpartition(".")[2] == name]
        if len(matches) != 1:
            raise ForeignError("no-camera", f"no camera {name!r}; the data has {', '.join(known) or 'no images'}")
        found += matches
    if len(set(found)) < len(found):
        raise ForeignError("no-camera", f"expected each camera once, got {', '.join(found)}")
    return found


def flag_named(arrays: Mapping[str, NDArray[Any]], wanted: str | None, default: str) -> NDArray[Any] | None:
    """The success flag asked for, or the default one where it exists. Raises `ForeignError`."""
    if wanted is not None and wanted not in arrays:
        raise ForeignError("no-reward", f"no success flag {wanted!r}; the data has {', '.join(sorted(arrays))}")
    found = arrays.get(wanted or default)
    return None if found is None else np.asarray(found).reshape(len(found), -1)[:, 0]


def stacked(arrays: Sequence[NDArray[Any]], what: str) -> NDArray[Any]:
    """Arrays of one shape as one array. Raises `ForeignError`."""
    shapes = {np.shape(array) for array in arrays}
    if len(shapes) != 1:
        raise ForeignError("wrong-shape", f"{what}: expected one shape in all frames, got {sorted(map(str, shapes))}")
    return np.stack([np.asarray(array) for array in arrays])


def guarded(name: str, read: Callable[[], Item]) -> Item:
    """What ``read`` returns, or why this episode could not be read."""
    try:
        return read()
    except ForeignError as error:
        return Unreadable(name, error)
    except (ValueError, TypeError, KeyError, IndexError, OSError) as error:
        return Unreadable(name, ForeignError("unreadable", f"{type(error).__name__}: {error}"))


def needs(module: str, extra: str) -> Any:
    """Import an optional library. Raises `ValueError` with the line that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ValueError(
            f"{package} is needed for this format and is not there ({error}); pip install -e '.[{extra}]'"
        ) from error
