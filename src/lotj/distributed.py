"""The same tasks on Ray, over many cores or machines: ``lotj.parallel.in_processes`` with a cluster for its processes.

Results are those of the local run, in the same order: a task depends on its arguments alone, and a worker runs it only
with the code and the libraries of the process that asked. A worker or a node that is killed costs its tasks, which are
run again elsewhere; a task that raises is not. The head node and the asking process must live.

Ray's usage statistics and dashboard are off; it speaks with the cluster only.
"""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import lotj
from lotj.parallel import WorkerKilledError, in_processes
from lotj.provenance import versions

Task = TypeVar("Task")
Result = TypeVar("Result")

RETRIES = 3
"""How often a task whose worker was killed is run again. A task that eats its node's memory would go on for ever."""


@dataclass(frozen=True)
class RayCluster:
    """Where tasks run instead of processes of this machine's own."""

    address: str = "local"
    """``local`` starts Ray on this machine, for this process; ``auto`` or ``host:port`` names a running cluster."""
    cpus: int = 2
    """Of ``local``: tasks at once."""

    def __post_init__(self) -> None:
        if not self.address:
            raise ValueError("RayCluster.address is empty; expected local, auto or host:port")
        if self.cpus < 1:
            raise ValueError(f"RayCluster.cpus must be at least 1, got {self.cpus}")


Workers = int | RayCluster
"""So many processes of this machine, or a cluster."""


class TaskKilledError(WorkerKilledError):
    """Every worker that ran a task was ended from outside."""

    def __init__(self, task: str) -> None:
        RuntimeError.__init__(
            self,
            f"{task}: {1 + RETRIES} workers were ended from outside while they ran it, perhaps for lack of memory; "
            "give it a node with more, then repeat the same command to continue",
        )


class OtherVersionError(ValueError):
    """A node has other code or other libraries: its results would not be those of the process that asked."""


class NotSharedError(ValueError):
    """A node does not see a folder that its tasks read or write."""


class ClusterError(ValueError):
    """No cluster to work on."""


class Call(NamedTuple):
    """What travels to a worker with every task."""

    versions: Mapping[str, str | None]
    """Of the process that asks."""
    folder: str
    """Where it stands: paths in tasks are relative to it."""
    shared: tuple[str, ...]
    """Files that a worker must see."""


def workers_for(workers: int, ray: str | None) -> Workers:
    """``--workers`` and ``--ray`` of the command line: the latter wins, and takes the former for ``local``. Raises
    `ValueError` for fewer than one."""
    if workers < 1:
        raise ValueError(f"--workers {workers}: expected at least 1")
    return workers if ray is None else RayCluster(ray, workers)


def in_workers(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: Workers, shared: Sequence[Path] = ()
) -> Generator[Result, None, None]:
    """Results of ``function`` on each task, in the tasks' order, from processes or from a cluster.

    Args:
        function: of a module.
        tasks: its arguments; one that has a ``name``, or a tuple whose first item has one, is called by it in errors.
        workers: where.
        shared: folders that tasks read or write; a node of the cluster must see the same ones.

    Raises:
        WorkerKilledError: a process was killed; on a cluster, ``RETRIES`` more after it by the same task.
        Exception: what ``function`` raised; on a cluster with a note that names the task.
        OtherVersionError: a node has other code or libraries.
        NotSharedError: a node does not see a folder.
        ClusterError: the cluster cannot be reached or has no CPU.
    """
    if isinstance(workers, int):
        return in_processes(function, tasks, workers)
    return _on_ray(function, tasks, workers, shared)


def _on_ray(
    function: Callable[[Task], Result], tasks: Sequence[Task], cluster: RayCluster, shared: Sequence[Path]
) -> Generator[Result, None, None]:
    if not tasks:
        return
    ray = connect(cluster)
    remote = ray.remote(max_retries=RETRIES, retry_exceptions=False, num_cpus=1)(_do)
    waiting, pending = iter(tasks), deque[tuple[Any, str]]()
    with seen(shared) as call:

        def submit(count: int) -> None:
            for task in islice(waiting, count):
                name = f"{function.__name__} of {name_of(task)}"
                pending.append((remote.options(name=name).remote(call, ray.cloudpickle.dumps((function, task))), name))

        try:
            submit(2 * cpus_of(ray))
            while pending:
                result = take(ray, *pending.popleft())
                submit(2 * cpus_of(ray) - len(pending))  # nodes come and go
                yield result
        finally:
            _end(ray, [reference for reference, _ in pending])


def connect(cluster: RayCluster) -> Any:
    """The module ``ray``, connected to the cluster; a process keeps to its first one.

    Raises:
        ImportError: Ray is not installed.
        ClusterError: it cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray would hide GPUs from tasks that ask for none: they would not compute as a local process does.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise ImportError("--ray needs Ray, which is not installed: pip install -e '.[ray]'") from error
    if ray.is_initialized():
        return ray
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if cluster.address == "local":
        quiet |= {"num_cpus": cluster.cpus, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    try:
        ray.init(address=cluster.address, **quiet)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise ClusterError(
            f"no Ray cluster answers at {cluster.address!r} ({error}); start one with `ray start --head` and join it "
            "from the other machines, or use `--ray local`"
        ) from error
    return ray


def cpus_of(ray: Any) -> int:
    """CPUs of the cluster at present.

    Raises:
        ClusterError: it has none.
    """
    cpus = int(ray.cluster_resources().get("CPU", 0))
    if cpus < 1:
        raise ClusterError("the Ray cluster has no CPU to work with; join a node with `ray start --address=host:port`")
    return cpus


def take(ray: Any, reference: Any, name: str) -> Any:
    """A task's result, or its own error as it was raised."""
    try:
        return ray.get(reference)
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.ActorDiedError) as error:
        raise TaskKilledError(name) from error
    except (ray.exceptions.ObjectLostError, ray.exceptions.OutOfMemoryError) as error:
        raise TaskKilledError(name) from error
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, Exception):
            raise error.cause from error
        raise


def _end(ray: Any, left: list[Any]) -> None:
    """End tasks that nobody waits for. One that is on its way to a worker may miss the first call."""
    for _ in range(3):
        for reference in left:
            ray.cancel(reference, force=True)
        _, left = ray.wait(left, num_returns=len(left), timeout=3) if left else ([], [])


def name_of(task: Any) -> str:
    """What a task is called: its ``name``, its first item's, or how it looks."""
    for one in (task, task[0] if isinstance(task, tuple) and task else None):
        if isinstance(name := getattr(one, "name", None), str):
            return name
    shown = repr(task)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def checked(call: Call) -> None:
    """Stand where the asking process stands, as its like; runs in a worker.

    Raises:
        OtherVersionError: this is other code.
        NotSharedError: a folder is not here.
    """
    here = fingerprint()
    differs = [name for name in {**call.versions, **here} if call.versions.get(name) != here.get(name)]
    if differs:
        told = "; ".join(f"{name} is {here.get(name)} there and {call.versions.get(name)} here" for name in differs)
        raise OtherVersionError(
            f"the Ray node {os.uname().nodename} has other versions: {told}. Install the same ones on every node"
        )
    for path in call.shared:
        if not Path(path).exists():
            raise NotSharedError(
                f"the Ray node {os.uname().nodename} does not see {Path(path).parent} as this process does; put it on "
                "a file system that all nodes share, under the same path"
            )
    if Path(call.folder).is_dir():
        os.chdir(call.folder)


@cache
def fingerprint() -> dict[str, str | None]:
    """What decides a task's bits: the code of lotj, and versions of what it computes with."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.suffix in (".py", ".toml"):
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return {**versions(), "lotj": f"{lotj.__version__} (code {digest.hexdigest()[:12]})"}


@contextmanager
def seen(folders: Sequence[Path]) -> Iterator[Call]:
    """What travels with the tasks: in each folder lies a file that only those see who see the same folder."""
    marks = [folder.resolve() / f".seen-{uuid.uuid4().hex}" for folder in folders]
    try:
        for mark in marks:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        yield Call(fingerprint(), os.getcwd(), tuple(map(str, marks)))
    finally:
        for mark in marks:
            mark.unlink(missing_ok=True)


def _do(call: Call, content: bytes) -> Any:
    """Run a task in a worker. It is unpacked after the check: other code might not even have its classes."""
    checked(call)
    from ray import cloudpickle

    function, task = cloudpickle.loads(content)
    try:
        return function(task)
    except Exception as error:
        raise as_sent(error, f"{function.__name__} of {name_of(task)}") from error


def as_sent(error: Exception, task: str) -> Exception:
    """An error with a note of the task that raised it, and another's type if its own does not travel."""
    from ray import cloudpickle

    try:
        sent = cloudpickle.loads(cloudpickle.dumps(error))
    except Exception:
        sent = RuntimeError(f"{type(error).__name__}: {error}")
    sent.add_note(f"raised by {task}, on Ray node {os.uname().nodename}")
    return sent
