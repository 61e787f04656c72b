"""What the command line prints with."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lotj.distributed import Workers, in_workers

# Where nobody watches, for example in a log, tables need no narrow screen.
console = Console(width=None if sys.stdout.isatty() else 120)

PICTURES = (".png", ".jpg", ".jpeg")
"""What `--picture` may be called."""


@contextmanager
def bar(title: str) -> Iterator[Any]:
    """A progress bar with time left; yields what is told (done, total, note)."""
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=None, note="")

        def tick(done: int, total: int, note: str = "") -> None:
            progress.update(task, completed=done, total=total, note=note)

        try:
            yield tick
        except BaseException:
            if progress.tasks[0].total is None:  # refused before it began: an empty bar says nothing
                progress.update(task, visible=False)
            raise


def each(
    title: str,
    function: Callable[[Any], str],
    tasks: Sequence[Any],
    total: int,
    workers: Workers,
    shared: Sequence[Path] = (),
) -> None:
    """Do tasks in processes or on a cluster, with a bar.

    Args:
        title: of the bar.
        function: of a module; does a task and returns what to show when it is done.
        tasks: its arguments.
        total: tasks in all, those done before this call included.
        workers: processes, or a cluster.
        shared: folders that the tasks read or write.
    """
    with bar(title) as tick:
        done = total - len(tasks)
        tick(done, total)
        with closing(in_workers(function, tasks, workers, shared)) as names:
            for name in names:
                done += 1
                tick(done, total, name)


def say(text: str) -> None:
    """Print a line as it is: paths are neither broken nor read as markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def check_film(path: Path | None) -> None:
    """Refuse a film that could not be written, before anything moves.

    Raises:
        ValueError: its name is not a video's, or is that of a folder, or nothing here encodes it.
    """
    if path is None:
        return
    from lotj.report.video import MIME, can_encode

    if path.suffix not in MIME:
        raise ValueError(f"--film {path}: expected a name that ends in {' or '.join(MIME)}")
    if path.is_dir():
        raise ValueError(f"--film {path} is a folder, expected a file")
    if not can_encode(path.suffix):
        raise ValueError(f"--film {path}: the FFmpeg of PyAV has no H.264 encoder here; name a .webp")


def check_picture(path: Path | None) -> None:
    """Refuse a picture whose name says that it could not be written, before anything is done.

    Raises:
        ValueError: its name does not end in that of a picture, or is that of a folder.
    """
    if path is not None and path.suffix.lower() not in PICTURES:
        raise ValueError(f"--picture {path}: expected a name that ends in {', '.join(PICTURES)}")
    if path is not None and path.is_dir():
        raise ValueError(f"--picture {path} is a folder, expected a file")
