"""Tasks for tests of Ray, in a file that is quick to import: every new worker does."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ray import get_runtime_context


class Named(NamedTuple):
    """A task with a name."""

    name: str
    folder: str


def square(number: int) -> int:
    return number * number


def where(folder: str) -> str:
    """Wait until tasks stand side by side; the node each ran on."""
    node = str(get_runtime_context().get_node_id())
    Path(folder, node).touch()
    deadline = time.monotonic() + 20
    while len(os.listdir(folder)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    return node


def die_once(task: Named) -> str:
    """End the worker without a word, the first time."""
    marker = Path(task.folder, f"{task.name}-died")
    if task.name == "b" and not marker.exists():
        marker.touch()
        os._exit(1)
    return task.name


def always_die(task: Named) -> str:
    with Path(task.folder, "deaths").open("a") as file:
        file.write("x")
    os._exit(1)


def fail(task: Named) -> None:
    with Path(task.folder, "calls").open("a") as file:
        file.write("x")
    raise KeyError(f"no such connector in {task.name}")


class PickyError(Exception):
    """Cannot be made anew from its words, as unpickling would."""

    def __init__(self, frames: int, missing: bool) -> None:
        super().__init__(f"{frames} frames are missing")


def fail_pickily(frames: int) -> None:
    raise PickyError(frames, True)


def hold(task: Named) -> str:
    """Say on which node the task runs, and wait there until it may go."""
    node = str(get_runtime_context().get_node_id())
    begun = Path(task.folder, f".{task.name}-{node}")
    begun.write_text(str(os.getpid()))
    begun.rename(begun.with_name(f"{task.name}-{node}"))
    while not Path(task.folder, "go").exists():
        time.sleep(0.02)
    return task.name


def cwd(_: int) -> str:
    return os.getcwd()


def hold_all_but_first(task: Named) -> str:
    return task.name if task.name == "a" else hold(task)


def dying(builder: Callable[[], Any], marker: Path) -> Any:
    """What it builds ends the process in its first trial, once."""
    cell = builder()
    roll = cell.roll

    def roll_or_die(start: Any) -> Any:
        rolled = roll(start)
        if not marker.exists():
            marker.touch()
            os._exit(1)
        return rolled

    cell.roll = roll_or_die
    return cell
