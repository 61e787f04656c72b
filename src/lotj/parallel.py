"""Work in processes of its own: many tasks of a kind (collection, experiments), or one beside another (training)."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

WATCH_SECONDS = 0.5
"""How often a worker looks whether its parent is still there."""


class WorkerKilledError(RuntimeError):
    """A process that worked for this one was ended from outside."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(
            f"a process of {function.__name__} was ended from outside, perhaps for lack of memory; "
            "repeat the same command to continue"
        )


def in_processes(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int
) -> Generator[Result, None, None]:
    """Results of ``function`` on each task, in the tasks' order, as they come.

    The processes end with the iteration, however it ends; close the generator (``contextlib.closing``) where the loop
    over it may fail. They also end when this process is killed.

    Args:
        function: of a module, so that a process can import it.
        tasks: its arguments; they travel to the processes.
        workers: processes; 1 works in this one.

    Raises:
        WorkerKilledError: a process was killed.
        Exception: what ``function`` raised.
    """
    if workers <= 1:
        yield from map(function, tasks)
        return
    # Spawned, not forked: neither a graphics context nor torch's threads survive a fork.
    context = multiprocessing.get_context("spawn")
    leash, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, context, _start, (os.getpid(), leash))
    waiting, pending = iter(tasks), deque[Future[Result]]()
    try:
        # A slow first task must not let the results of all others pile up: only so many tasks are handed out.
        pending.extend(pool.submit(function, task) for task in islice(waiting, 2 * workers))
        while pending:
            result = pending[0].result()
            pending.popleft()
            pending.extend(pool.submit(function, task) for task in islice(waiting, 1))
            yield result
    except BrokenProcessPool as error:
        raise WorkerKilledError(function) from error
    finally:
        if pending:
            held.close()  # ends the processes in the middle of what nobody waits for
        pool.shutdown(cancel_futures=True)
        held.close()
        leash.close()


@contextmanager
def beside(function: Callable[..., None], *arguments: Any) -> Iterator[BaseProcess]:
    """Run ``function(*arguments)`` in a process of its own while the body runs, and wait for it at the end.

    Args:
        function: of a module, so that a process can import it.
        arguments: they travel to the process.

    Yields:
        The process. If the body fails, it is ended.

    Raises:
        Exception: what ``function`` raised.
        WorkerKilledError: the process was killed.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(os.getpid(), sender, function, arguments), daemon=True)
    process.start()
    sender.close()
    try:
        yield process
        process.join()
    except BaseException:
        process.terminate()
        process.join()
        raise
    try:
        error = receiver.recv()
    except EOFError:
        error = WorkerKilledError(function)
    if error is not None:
        raise error


def _report(parent: int, sender: Connection, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    _start(parent)
    try:
        function(*arguments)
    except Exception as error:
        sender.send(error)
    else:
        sender.send(None)


def _start(parent: int, leash: Connection | None = None) -> None:
    """Only the parent is told of Ctrl-C; it ends the workers. A worker ends itself when its parent is gone, however."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent, leash), daemon=True).start()


def _end_with(parent: int, leash: Connection | None) -> None:
    """End this process when ``parent`` has died or has let go of the leash."""
    while os.getppid() == parent:
        if leash is None:
            time.sleep(WATCH_SECONDS)
        elif leash.poll(WATCH_SECONDS):
            break
    os._exit(1)
