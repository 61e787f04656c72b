"""Work in processes of its own: many tasks of a kind (collection, experiments), or one beside another (training)."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

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
        RuntimeError: the process was killed.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(sender, function, arguments), daemon=True)
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
        error = RuntimeError(
            f"the process of {function.__name__} was ended from outside (exit code {process.exitcode}), "
            "perhaps for lack of memory; repeat the same command to continue"
        )
    if error is not None:
        raise error


def _report(sender: Connection, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    _start()
    try:
        function(*arguments)
    except Exception as error:
        sender.send(error)
    else:
        sender.send(None)


def _start() -> None:
    """Only the parent is told of Ctrl-C; it ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
