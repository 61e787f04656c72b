"""What the command line prints with."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

# Where nobody watches, for example in a log, tables need no narrow screen.
console = Console(width=None if sys.stdout.isatty() else 120)


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

        yield tick


def say(text: str) -> None:
    """Print a line as it is: paths are neither broken nor read as markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
