"""Files that survive a kill: written whole and renamed into place, locked while a process works with them."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from lotj.types import LATER

LOCK_SECONDS = 4.0
"""How long a run folder's lock is waited for."""


class BusyError(ValueError):
    """Another process holds the lock."""


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; not-a-number becomes null."""
    write_text(path, json.dumps(to_json(value), indent=2, allow_nan=False) + "\n")


def append_json(path: Path, value: Any) -> None:
    """Add ``value`` as a line of JSON, on the disk when this returns."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(to_json(value)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def write_text(path: Path | str, text: str) -> None:
    """Write a file whole, or leave what was there."""
    write_atomic(Path(path), text.encode())


def to_json(value: Any, name: str = "value") -> Any:
    """The JSON form of configs and summaries: dataclasses become objects, sequences lists, paths strings, NaN null.

    A field made by `lotj.types.later` is left out where it has its default, so that what was written before there was
    such a field is the same as what is written now.

    Raises:
        TypeError: if something inside has no JSON form; names it.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        held = {f: getattr(value, f.name) for f in dataclasses.fields(value)}
        shown = {f.name: item for f, item in held.items() if not (f.metadata.get(LATER) and item == f.default)}
        return {key: to_json(item, f"{name}.{key}") for key, item in shown.items()}
    if isinstance(value, Mapping):
        return {str(key): to_json(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return to_json(value._asdict(), name)
    if isinstance(value, list | tuple | np.ndarray):
        return [to_json(item, f"{name}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, np.generic):
        return to_json(value.item(), name)
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            return None
        raise TypeError(f"{name} is {value}, which has no JSON form; look for what divided by zero or overflowed")
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}, which has no JSON form")


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that at any instant it is the old one or the new one, and on the disk when this returns."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def lock(path: Path) -> IO[bytes]:
    """Take a lock file for this process; the system frees it when the file is closed or the process ends, however.

    Waits ``LOCK_SECONDS`` for it: a process whose parent was killed needs a moment to notice.

    Raises:
        BusyError: another process has it.
    """
    file = path.open("ab")
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except OSError as error:
            if time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            file.close()
            raise BusyError(
                f"another process is at work in {path.parent}; wait until it is done or stop it, then repeat the "
                "command"
            ) from error
