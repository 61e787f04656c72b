"""Writes a store in a format that others read; the folder appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from lotj.data.lerobot_export import write_lerobot
from lotj.data.minari import write_minari
from lotj.data.store import TrajectoryStore

Target = Literal["lerobot", "minari"]


def export(
    path: Path,
    to: Target,
    out: Path,
    *,
    fps: int = 10,
    tick: Callable[[int, int], None] = lambda *_: None,
) -> int:
    """Write a store as a data set of another format.

    Args:
        path: The store's file.
        to: The format.
        out: The folder to create; its parents are created too.
        fps: Steps a second of the cell, for LeRobot's time stamps.
        tick: Told (done, total).

    Returns:
        Observations written.

    Raises:
        FileNotFoundError, StoreError: There is no store, or nothing in it.
        ValueError: ``out`` is not empty, ``fps`` is no rate, or a library is missing.
    """
    if fps < 1:
        raise ValueError(f"fps: expected at least 1 step a second, got {fps}; 10 is usual")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: expected a folder that is empty or not there; choose another with --out")
    with TrajectoryStore(path) as store:
        _ = store.shape  # refuses an empty store
        part = out.with_name(f".{out.name}.part")
        # What a killed export left is not worth continuing.
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            if to == "lerobot":
                rows = write_lerobot(store, part, fps, tick)
            else:
                rows = write_minari(store, part, f"lotj/{_plain(out.name)}-v0", tick)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    os.replace(part, out)
    return rows


def _plain(name: str) -> str:
    """A name that Minari accepts."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name).strip("-") or "store"
