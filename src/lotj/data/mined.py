"""Trials of practice that are learned from with the simulator's labels (``lotj redteam``)."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from lotj.data.store import TrajectoryStore
from lotj.types import Trajectory

SOURCE = "red-team"
"""What mined trajectories are stored as; their rewards are ground truth."""


def merge_truly_labelled(store: Path, mined: Sequence[Path], out: Path) -> None:
    """Put trials of practice, truly labelled, behind a store's trajectories; nothing is done where ``out`` exists.

    Args:
        store: copied as it is.
        mined: stores of practices in a simulated cell, which know true success.
        out: made whole under another name, then renamed.
    """
    if out.exists():
        return
    temporary = out.with_name(f"{out.name}.tmp")
    for leftover in (temporary, Path(f"{temporary}-wal"), Path(f"{temporary}-shm")):
        leftover.unlink(missing_ok=True)
    with closing(sqlite3.connect(store)) as source, closing(sqlite3.connect(temporary)) as target:
        source.backup(target)
    with TrajectoryStore(temporary, mode="a") as merged:
        for path in mined:
            with TrajectoryStore(path) as own:
                merged.extend(truly_labelled(own.read(index)) for index in range(len(own)))
    shutil.move(temporary, out)


def truly_labelled(trajectory: Trajectory) -> Trajectory:
    """A trial of practice with the simulator's labels in place of the judge's, none of which may count as truth."""
    success = np.asarray(trajectory.privileged["success"], dtype=bool)
    return replace(
        trajectory,
        reward=success[1:].astype(np.float32),
        terminated=bool(success[-1]),
        truncated=not success[-1],
        source=SOURCE,
    )
