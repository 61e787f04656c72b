"""Measure collection over processes and over a Ray cluster of one-CPU nodes -> results/ray_scaling.json.

    python benchmarks/ray_scaling.py --trajectories 320

Each row collects the same trajectories into a new store, with workers that have done one small collection before: the
start of processes and of Ray is not counted, as in a long collection. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import os
import pickle
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from lotj.collect import CollectConfig, collect, roll_chunk
from lotj.data.store import TrajectoryStore
from lotj.distributed import RayCluster, Workers, connect, in_workers
from lotj.files import write_json
from lotj.provenance import provenance

CONNECTORS = ("usb-a", "rj45", "bnc", "hdmi-a")


def main() -> None:
    """Collect with every number of workers, a few times in turn, and write the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trajectories", type=int, default=320, help="in all, in each row")
    parser.add_argument("--image-size", type=int, default=64, help="px")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/ray_scaling.json"))
    arguments = parser.parse_args()
    each = max(1, arguments.trajectories // len(CONNECTORS))
    config = CollectConfig(CONNECTORS, trajectories=each, image_size=arguments.image_size)
    rates: dict[tuple[str, int], list[float]] = {}
    for repeat in range(arguments.repeats):
        for workers in arguments.workers:
            rates.setdefault(("processes", workers), []).append(measure(config, workers, repeat))
        for workers in arguments.workers:
            with cluster_of(workers) as nodes:
                rates.setdefault(("ray", workers), []).append(measure(config, nodes, repeat))
    rows = as_rows(rates)
    result = {
        **provenance(),
        "cores": os.cpu_count(),
        "trajectories": each * len(CONNECTORS),
        "image_size": arguments.image_size,
        "rows": rows,
        "driver": driver(config),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out, result)
    for row in rows:
        print(row)
    print(result["driver"])


def as_rows(rates: dict[tuple[str, int], list[float]]) -> list[dict[str, Any]]:
    """A row for each way; efficiency is the rate of a worker against that of one alone, of the same way."""
    fewest = min(workers for _, workers in rates)
    median = {key: statistics.median(values) for key, values in rates.items()}
    return [
        {
            "on": way,
            "workers": workers,
            "trajectories_per_second": round(rate, 2),
            "efficiency": round(rate / workers / (median[way, fewest] / fewest), 3),
            "repeats": [round(value, 2) for value in rates[way, workers]],
        }
        for (way, workers), rate in median.items()
    ]


def measure(config: CollectConfig, workers: Workers, repeat: int) -> float:
    """Trajectories a second from the first result on. Chunks that the first workers do meanwhile are left out."""
    with tempfile.TemporaryDirectory() as folder:
        count = workers if isinstance(workers, int) else workers.cpus
        done_at: list[tuple[int, float]] = []
        collect(
            replace(config, seed=repeat),
            Path(folder) / "store.sqlite",
            workers=workers,
            progress=lambda done, total: done_at.append((done, time.perf_counter())),
        )
        # The first round of chunks bears the start of the processes.
        skipped = count * CHUNKS_LEFT_OUT
        first = next(moment for moment in done_at if moment[0] >= skipped)
        last = done_at[-1]
        return (last[0] - first[0]) / (last[1] - first[1])


CHUNKS_LEFT_OUT = 20
"""Trajectories for each worker, a chunk and more."""


@contextmanager
def cluster_of(nodes: int) -> Iterator[RayCluster]:
    """A Ray cluster on this machine, of nodes of one CPU each."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(nodes - 1):
        cluster.add_node(num_cpus=1)
    workers = RayCluster(cluster.address, nodes)
    connect(workers)
    try:
        list(in_workers(abs, [-1] * nodes, workers))
        yield workers
    finally:
        ray.shutdown()
        cluster.shutdown()


def driver(config: CollectConfig) -> dict[str, float]:
    """What limits many nodes: bytes of a trajectory on its way, and how many a second the one store takes."""
    from lotj.collect import Chunk

    rolled = roll_chunk(Chunk(config, CONNECTORS[0], config.robots[0], tuple(range(16))))
    trajectories = [trajectory for _, _, trajectory in rolled if trajectory is not None]
    with tempfile.TemporaryDirectory() as folder, TrajectoryStore(Path(folder) / "s.sqlite", mode="a") as store:
        started = time.perf_counter()
        for _ in range(10):
            for trajectory in trajectories:
                store.append(trajectory)
        seconds = time.perf_counter() - started
    return {
        "bytes_per_trajectory": round(len(pickle.dumps(trajectories)) / len(trajectories)),
        "appends_per_second": round(10 * len(trajectories) / seconds, 1),
    }


if __name__ == "__main__":
    main()
