"""Reads SERL pickles: a list of transitions, each a dict (`observations`, `actions`, `rewards` ...).

A pickle is a program. Python's own reader runs whatever it names, so a file from elsewhere can do anything that you can
do. Here nothing is named but numpy's arrays, dtypes and scalars and plain containers; every other name is refused
before it is looked up. What remains is the risk of a defect in Python or numpy, and of a file that takes all memory:
hence a flag that must be set.

``rewards`` and ``dones`` describe ``next_observations``, ``masks`` is 0 where the task ended. Images and states may
carry leading axes of length 1 (SERL stacks frames).
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lotj.data.foreign import Episode, ForeignError, Item, ReadConfig, guarded, pick_cameras, stacked

_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
    *((module, name) for module in _MULTIARRAY for name in ("_reconstruct", "scalar")),
    *((module, "_frombuffer") for module in _NUMERIC),
    *(("builtins", name) for name in ("set", "frozenset", "bytearray", "complex")),
}
"""All that a pickle may name. ``_codecs.encode`` is how old protocols write bytes; it is admitted for latin1 alone."""

STATE = "state"
_FIELDS = ("observations", "actions", "next_observations", "rewards")


def refuse_unless(allowed: bool, path: Path) -> None:
    """Raise `ValueError` unless pickles may be read."""
    if not allowed:
        raise ValueError(
            f"{path.name} is a pickle: a program that Python would run. lotj reads it with a reader that admits numpy "
            "arrays and plain containers only; what remains is the risk of defects in Python or numpy and of running "
            "out of memory. If you know where the file comes from, add --allow-pickle"
        )


def load(path: Path) -> Any:
    """Read a pickle of numpy arrays and plain containers. Raises `ForeignError` naming whatever else it holds."""
    try:
        with path.open("rb") as file:
            return _Restricted(file).load()
    except ForeignError:
        raise
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, LookupError, MemoryError) as error:
        raise ForeignError("unreadable", f"{path.name}: {type(error).__name__}: {error}") from error


class _Restricted(pickle.Unpickler):
    """Finds nothing but what is allowed."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise ForeignError(
                "untrusted-pickle",
                f"the pickle names {module}.{name}: expected numpy arrays, numbers and plain containers; nothing ran",
            )
        return _latin1 if module == "_codecs" else super().find_class(module, name)


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ForeignError(
            "untrusted-pickle", f"the pickle encodes as {encoding!r}: expected latin1, which stands for bytes"
        )
    return text.encode("latin1")


def count_episodes(path: Path) -> int:
    """Trials in all files: each ends where ``dones`` is true."""
    return sum(len(_split(_transitions(file))) for file in _files(path))


def read_serl(path: Path, config: ReadConfig) -> Iterator[Item]:
    """Read the trials in the order of the files' names and of the transitions in them.

    Args:
        path: A file, or a folder of them.
        config: Which camera, state and success flag.

    Raises:
        ForeignError: A file is damaged, holds more than arrays, or is no list of transitions.
    """
    for file in _files(path):
        for i, trial in enumerate(_split(_transitions(file))):
            name = f"{file.name} trial {i}"
            yield guarded(name, partial(_episode, trial, name, config))


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(file for file in path.iterdir() if file.suffix in (".pkl", ".pickle"))


def _transitions(file: Path) -> list[Mapping[str, Any]]:
    found = load(file)
    if not isinstance(found, list) or not found or not all(isinstance(item, dict) for item in found):
        got = f"{type(found).__name__} of {type(found[0]).__name__}" if isinstance(found, list) and found else found
        raise ForeignError("unreadable", f"{file.name}: expected a list of transitions, got {str(got)[:60]}")
    missing = [name for name in _FIELDS if name not in found[0]]
    if missing:
        raise ForeignError(
            "unreadable", f"{file.name}: a transition lacks {', '.join(missing)}; it has {list(found[0])}"
        )
    return found


def _split(transitions: list[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    trials: list[list[Mapping[str, Any]]] = [[]]
    for transition in transitions:
        trials[-1].append(transition)
        if np.any(transition.get("dones", False)):
            trials.append([])
    return [trial for trial in trials if trial]


def _episode(trial: list[Mapping[str, Any]], name: str, config: ReadConfig) -> Episode:
    first = _flat(trial[0]["observations"])
    cameras = pick_cameras([key for key, value in first.items() if np.ndim(value) >= 3], config.camera)
    keys = config.state or ((STATE,) if STATE in first else tuple(k for k in first if k.startswith(f"{STATE}/")))
    missing = [key for key in keys if key not in first]
    if missing:
        raise ForeignError("wrong-shape", f"no state {missing[0]!r}; the data has {', '.join(sorted(first))}")

    def observed(key: str) -> list[NDArray[Any]]:
        seen = [_flat(t["observations"]) for t in trial] + [_flat(trial[-1]["next_observations"])]
        for step, one in enumerate(seen):
            if key not in one:
                raise ForeignError("wrong-shape", f"observation {step} has no {key!r}, it has {', '.join(sorted(one))}")
        return [one[key] for one in seen]

    images = {key: stacked([_unstacked(image, 3) for image in observed(key)], key) for key in cameras}
    states = [stacked([np.ravel(value) for value in observed(key)], key) for key in keys]
    each = {key: [t[key] for t in trial] for key in trial[0] if key not in ("observations", "next_observations")}
    scalars = {key: np.ravel(v) for key, v in each.items() if all(np.size(x) == 1 for x in v) and key != "infos"}
    if config.success and config.success not in scalars:
        raise ForeignError(
            "no-reward", f"no success flag {config.success!r}; the data has {', '.join(sorted(scalars))}"
        )
    masks = scalars.get("masks")
    return Episode(
        name=name,
        images=images,
        action=stacked([np.ravel(value) for value in each["actions"]], "actions"),
        state=np.concatenate(states, axis=1) if states else None,
        reward=scalars["rewards"],
        success=scalars[config.success].astype(np.float32) if config.success else None,
        done=None if masks is None else masks == 0,
        disorder=_disorder(trial, cameras),
    )


def _disorder(trial: list[Mapping[str, Any]], cameras: Sequence[str]) -> str:
    """Each transition must begin where the one before it ended."""
    for i, (before, after) in enumerate(pairwise(trial)):
        ended, begins = _flat(before["next_observations"]), _flat(after["observations"])
        if not all(np.array_equal(ended[camera], begins[camera]) for camera in cameras):
            return f"next_observations of transition {i} are not the observations of transition {i + 1}"
    return ""


def _flat(observation: Mapping[str, Any], prefix: str = "") -> dict[str, NDArray[Any]]:
    """Nested dicts as one, with ``/`` between the names; SERL's ``images`` loses its own."""
    found: dict[str, NDArray[Any]] = {}
    for key, value in observation.items():
        name = prefix + str(key)
        if isinstance(value, Mapping):
            found |= _flat(value, "" if key == "images" and not prefix else f"{name}/")
        else:
            found[name] = np.asarray(value)
    return found


def _unstacked(array: NDArray[Any], ndim: int) -> NDArray[Any]:
    """Without leading axes of length 1; of stacked frames the newest."""
    while array.ndim > ndim:
        array = array[-1]
    return array
