"""Independent tasks over processes: collection, and the runs of an experiment."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_processes(function: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Iterator[Result]:
    """Results of ``function`` on each task, in the tasks' order, as they come.

    Args:
        function: of a module, so that a process can import it.
        tasks: its arguments; they travel to the processes.
        workers: processes; 1 works in this one.
    """
    if workers <= 1:
        yield from map(function, tasks)
        return
    # Spawned, not forked: neither a graphics context nor torch's threads survive a fork.
    with multiprocessing.get_context("spawn").Pool(workers, _start) as pool:
        yield from pool.imap(function, tasks)


def _start() -> None:
    """Only the parent is told of Ctrl-C; it ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
