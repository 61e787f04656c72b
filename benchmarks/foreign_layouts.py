"""Writes trials as others record them, for `benchmarks/exchange.py`: LeRobot, Minari, robomimic and SERL layouts.

A trial is a list of rows, one a transition: ``image``, ``state``, ``action``, what came of it (``reward``, ``success``,
``terminated``, ``next_image``, ``next_state``), ``frame`` and ``last``. What a layout has no place for is left out.
"""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import h5py
import imageio.v3 as imageio
import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

from lotj.types import Trajectory

Row = dict[str, Any]
Trial = list[Row]
CAMERA = "observation.images.wrist"
FPS = 10


def as_trial(t: Trajectory) -> Trial:
    """The rows of a trajectory."""
    return [
        {
            "image": t.image[i],
            "next_image": t.image[i + 1],
            "state": t.state[i],
            "next_state": t.state[i + 1],
            "action": t.action[i],
            "reward": t.reward[i],
            "success": bool(t.privileged["success"][i + 1]),
            "terminated": t.terminated and i == len(t) - 1,
            "connector": t.connector,
            "frame": i,
            "last": i == len(t) - 1,
        }
        for i in range(len(t))
    ]


def column(trial: Trial, key: str) -> np.ndarray:
    """All values that were recorded; fewer than rows where some were not."""
    return np.stack([np.asarray(row[key]) for row in trial if row[key] is not None])


def observed(trial: Trial, key: str) -> np.ndarray:
    """(T + 1, ...), the observation after the last action included."""
    return np.concatenate([column(trial, key), trial[-1][f"next_{key}"][None]])


def minari(folder: Path, trials: list[Trial]) -> None:
    """``data/main_data.hdf5``: T + 1 observations an episode, the success flag in its infos."""
    (folder / "data").mkdir(parents=True)
    (folder / "data/metadata.json").write_text("{}")
    with h5py.File(folder / "data/main_data.hdf5", "w") as file:
        for number, trial in enumerate(trials):
            group = file.create_group(f"episode_{number}")
            group["observations/wrist"], group["observations/state"] = (
                observed(trial, "image"),
                observed(trial, "state"),
            )
            group["actions"], group["rewards"] = column(trial, "action"), column(trial, "reward")
            group["terminations"] = column(trial, "terminated")
            group["truncations"] = column(trial, "last") & ~column(trial, "terminated")
            group["infos/success"] = column(trial, "success")


def robomimic(path: Path, trials: list[Trial]) -> None:
    """``data/demo_<i>`` with ``obs`` and ``next_obs``; neither a name nor a success flag."""
    with h5py.File(path, "w") as file:
        for number, trial in enumerate(trials):
            group = file.create_group(f"data/demo_{number}")
            group["actions"], group["rewards"] = column(trial, "action"), column(trial, "reward")
            group["dones"] = column(trial, "last").astype(np.int64)
            for key, prefix in (("obs", ""), ("next_obs", "next_")):
                group[f"{key}/wrist_image"] = column(trial, f"{prefix}image")
                group[f"{key}/robot0_eef_pos"] = column(trial, f"{prefix}state")


def serl(path: Path, trials: list[Trial]) -> None:
    """A pickled list of transitions, observations stacked as (1, ...)."""
    transitions = [
        {
            "observations": {"state": row["state"][None], "wrist": row["image"][None]},
            "next_observations": {"state": row["next_state"][None], "wrist": row["next_image"][None]},
            "actions": row["action"],
            "rewards": float(row["reward"]),
            "masks": 1.0 - row["terminated"],
            "dones": row["last"],
        }
        for trial in trials
        for row in trial
    ]
    path.write_bytes(pickle.dumps(transitions))


def lerobot(folder: Path, trials: list[Trial], video: bool = False) -> None:
    """One row an action, so that the observation after the last one is in none; images as PNG or as H.264 video."""
    rows = [row for trial in trials for row in trial]
    columns: dict[str, Any] = {
        "observation.state": [row["state"].tolist() for row in rows],
        "action": [None if row["action"] is None else row["action"].tolist() for row in rows],
        "next.reward": [float(row["reward"]) for row in rows],
        "next.success": [row["success"] for row in rows],
        "next.done": [row["last"] for row in rows],
        "connector": [row["connector"] for row in rows],
        "frame_index": [row["frame"] for row in rows],
        "timestamp": [row["frame"] / FPS for row in rows],
        "episode_index": [number for number, trial in enumerate(trials) for _ in trial],
    }
    features = {key: {"dtype": "float32"} for key in columns} | {CAMERA: {"dtype": "video" if video else "image"}}
    (folder / "meta/episodes/chunk-000").mkdir(parents=True)
    (folder / "data/chunk-000").mkdir(parents=True)
    if video:
        _video(folder, trials)
    else:
        columns[CAMERA] = [{"bytes": _png(row["image"]), "path": None} for row in rows]
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "data/chunk-000/file-000.parquet")
    says = {"codebase_version": "v3.0", "total_episodes": len(trials), "fps": FPS, "features": features}
    (folder / "meta/info.json").write_text(json.dumps(says))


def _video(folder: Path, trials: list[Trial]) -> None:
    ends = np.cumsum([len(trial) for trial in trials]) / FPS
    table = {"chunk_index": [0] * len(trials), "file_index": [0] * len(trials)}
    table |= {"from_timestamp": [0.0, *ends[:-1].tolist()], "to_timestamp": ends.tolist()}
    named: dict[str, Any] = {f"videos/{CAMERA}/{key}": values for key, values in table.items()}
    named["episode_index"] = list(range(len(trials)))
    pyarrow.parquet.write_table(pyarrow.table(named), folder / "meta/episodes/chunk-000/file-000.parquet")
    file = folder / f"videos/{CAMERA}/chunk-000/file-000.mp4"
    file.parent.mkdir(parents=True)
    imageio.imwrite(file, [row["image"] for trial in trials for row in trial], plugin="pyav", codec="libx264", fps=FPS)


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
