"""Measure the store: appends, kills, random frames, batches. Writes results/data.json.

    python benchmarks/data.py [--trajectories 1500] [--out results/data.json]

Where `import lance` works, the same appends and random frames are measured with pylance beside it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lotj.data.augment import Augment, AugmentConfig
from lotj.data.replay import TransitionDataset
from lotj.data.store import TrajectoryStore
from lotj.files import write_json
from lotj.provenance import provenance
from lotj.types import Trajectory

SIZE = 64
FRAMES = 20
BATCH = 128
KILLS = 6


def make_trajectory(seed: int) -> Trajectory:
    """Noise in the shape of a trajectory of 20 frames; a function of the seed, so that it can be checked."""
    rng = np.random.default_rng(seed)
    success = np.arange(FRAMES) == FRAMES - 1
    tip = np.linspace([0.005, 0.0, 0.02], [0.0, 0.0, 0.0], FRAMES)
    return Trajectory(
        image=rng.integers(0, 256, (FRAMES, SIZE, SIZE, 3), dtype=np.uint8),
        state=np.zeros((FRAMES, 0), np.float32),
        action=rng.uniform(-1, 1, (FRAMES - 1, 3)).astype(np.float32),
        reward=success[1:].astype(np.float32),
        terminated=True,
        truncated=False,
        connector=f"connector-{seed % 40}",
        robot=("left", "right")[seed % 2],
        seed=seed,
        source="expert",
        privileged={"success": success, "tip_in_socket": tip, "force": rng.random(FRAMES)},
    )


def rate(draw: Callable[[], object], seconds: float = 3.0) -> float:
    """Calls a second, after one to warm up."""
    draw()
    calls, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        draw()
        calls += 1
    return calls / (time.perf_counter() - start)


def batch_rate(sample: Callable[[int, torch.Generator], object]) -> float:
    generator = torch.Generator().manual_seed(0)
    return rate(lambda: sample(BATCH, generator))


def measure_append(path: Path, trajectories: int) -> dict[str, float]:
    seconds = []
    with TrajectoryStore(path, "a") as store:
        for seed in range(trajectories):
            trajectory = make_trajectory(seed)
            start = time.perf_counter()
            store.append(trajectory)
            seconds.append(time.perf_counter() - start)
    stored = trajectories * FRAMES * SIZE * SIZE * 3
    return {
        "median_ms": 1e3 * float(np.median(seconds)),
        "p99_ms": 1e3 * float(np.quantile(seconds, 0.99)),
        "mean_ms": 1e3 * float(np.mean(seconds)),
        "file_bytes_per_image_byte": path.stat().st_size / stored,
    }


def measure_reads(path: Path) -> dict[str, float]:
    start = time.perf_counter()
    with TrajectoryStore(path) as store:
        _ = store.index
        opened = time.perf_counter() - start
        rng = np.random.default_rng(0)

        def random_frames() -> None:
            store.read_images(rng.integers(0, len(store), 1024), rng.integers(0, FRAMES, 1024))

        result = {"open_ms": 1e3 * opened, "random_frames_per_second": 1024 * rate(random_frames)}
        names = sorted(set(store.index.connector.tolist()))
        for where, preload in (("disk", False), ("memory", True)):
            plain = TransitionDataset(store, names, preload=preload)
            result[f"batches_per_second_{where}"] = batch_rate(plain.sample)
            result[f"frame_batches_per_second_{where}"] = batch_rate(plain.sample_frames_balanced)
        augmented = TransitionDataset(store, names, preload=True, augment=Augment(AugmentConfig()))
        result["augmented_batches_per_second_memory"] = batch_rate(augmented.sample)
    return result


def measure_kills(path: Path) -> dict[str, int]:
    """Kill a writer at random moments, over one store; compare every trajectory with what its seed gives."""
    rng = np.random.default_rng(0)
    lost = torn = unacknowledged = 0
    for _ in range(KILLS):
        command = [sys.executable, __file__, "--append-forever", str(path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0.2, 0.6))
        process.send_signal(signal.SIGKILL)
        acknowledged = int([line for line in process.stdout.read().splitlines() if line][-1]) + 1
        process.wait()
        with TrajectoryStore(path) as store:
            lost += max(0, acknowledged - len(store))
            unacknowledged += max(0, len(store) - acknowledged)
            for i in range(len(store)):
                torn += not np.array_equal(store.read(i).image, make_trajectory(i).image)
            total = len(store)
    return {"kills": KILLS, "trajectories": total, "lost": lost, "torn": torn, "stored_unacknowledged": unacknowledged}


def append_forever(path: Path) -> None:
    with TrajectoryStore(path, "a") as store:
        while True:
            print(store.append(make_trajectory(len(store))), flush=True)


def measure_lance(path: Path, trajectories: int) -> dict[str, float]:
    """The same with one row a frame in a Lance dataset, before and after its compaction."""
    import lance
    import pyarrow as pa

    seconds = []
    for seed in range(trajectories):
        image = make_trajectory(seed).image.reshape(FRAMES, -1)
        start = time.perf_counter()
        column = pa.array([row.tobytes() for row in image], pa.binary(SIZE * SIZE * 3))
        lance.write_dataset(pa.table({"image": column}), str(path), mode="append" if path.exists() else "create")
        seconds.append(time.perf_counter() - start)
    rng = np.random.default_rng(0)
    result = {"median_ms": 1e3 * float(np.median(seconds)), "p99_ms": 1e3 * float(np.quantile(seconds, 0.99))}
    for when in ("", "_compacted"):
        dataset = lance.dataset(str(path))
        if when:
            dataset.optimize.compact_files()

        def random_frames(dataset: Any = dataset) -> None:
            rows = dataset.take(rng.integers(0, trajectories * FRAMES, 1024).tolist(), columns=["image"])
            np.stack([np.frombuffer(value.as_buffer(), np.uint8) for value in rows["image"]])

        result[f"random_frames_per_second{when}"] = 1024 * rate(random_frames)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trajectories", type=int, default=1500)
    parser.add_argument("--out", type=Path, default=Path("results/data.json"))
    parser.add_argument("--append-forever", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.append_forever:
        append_forever(arguments.append_forever)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "store.sqlite")
        result: dict[str, Any] = {
            "what": f"{arguments.trajectories} trajectories of {FRAMES} frames at {SIZE} px, batches of {BATCH}",
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
            f"SQLite {sqlite3.sqlite_version}, torch {torch.__version__}; one thread, file in the page cache",
            "append": measure_append(store, arguments.trajectories),
            "read": measure_reads(store),
            "kill": measure_kills(Path(folder, "killed.sqlite")),
        }
        if importlib.util.find_spec("lance"):
            result["lance"] = measure_lance(Path(folder, "lance"), arguments.trajectories)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out, {**provenance(), **result})
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
