"""Work in processes of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lotj.parallel import WorkerKilledError, beside, in_processes


def square(number: int) -> int:
    return number * number


def write(path: str, text: str) -> None:
    Path(path).write_text(text)


def fail(message: str) -> None:
    raise ValueError(message)


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def die_on_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def note_and_sleep(task: tuple[str, int]) -> int:
    """Leave a file named for this process in a folder; then sleep, all but task 0."""
    folder, number = task
    Path(folder, str(os.getpid())).touch()
    time.sleep(60 * min(number, 1))
    return number


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers: int) -> None:
    """The result is that of map, whatever the number of processes."""
    assert list(in_processes(square, range(7), workers)) == [square(number) for number in range(7)]


def test_a_killed_worker_is_told() -> None:
    """Where a worker is killed the iteration neither hangs nor goes on, and says what to do."""
    with pytest.raises(WorkerKilledError, match=r"die_on_three.*repeat the same command"):
        list(in_processes(die_on_three, range(8), 2))


def test_an_error_in_a_worker_is_raised_here() -> None:
    """With its type and words."""
    with pytest.raises(ValueError, match="no such connector"):
        list(in_processes(fail, ["no such connector"] * 5, 2))


def test_tasks_are_handed_out_as_results_are_taken() -> None:
    """However many tasks there are, few are waiting for their results to be taken."""
    handed: list[int] = []

    class Tasks(list):  # type: ignore[type-arg]
        def __iter__(self):  # type: ignore[no-untyped-def]
            for number in range(100):
                handed.append(number)
                yield number

    results = in_processes(square, Tasks(), 2)
    assert next(results) == 0
    assert len(handed) < 10
    results.close()


def test_workers_end_with_the_iteration(tmp_path: Path) -> None:
    """Closed in the middle, the iteration ends its processes at once, though they have a minute of work left."""
    results = in_processes(note_and_sleep, [(str(tmp_path), number) for number in range(6)], 2)
    assert next(results) == 0
    started = time.monotonic()
    results.close()
    assert time.monotonic() - started < 10
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert pids and not any(map(alive, pids))


ORPHANS = """
import sys
sys.path.insert(0, {tests!r})
from test_parallel import note_and_sleep
from lotj.parallel import beside, in_processes

if __name__ == "__main__":
    tasks = [({folder!r}, number) for number in (1, 2)]
    if {kind!r} == "beside":
        with beside(note_and_sleep, tasks[0]):
            pass
    else:
        list(in_processes(note_and_sleep, tasks, 2))
"""


@pytest.mark.parametrize(("kind", "workers"), [("in_processes", 2), ("beside", 1)])
def test_workers_end_when_their_parent_is_killed(tmp_path: Path, kind: str, workers: int) -> None:
    """SIGKILL to the parent, which can tell nobody: its workers notice by themselves."""
    notes, script = tmp_path / "notes", tmp_path / "parent.py"
    notes.mkdir()
    script.write_text(ORPHANS.format(tests=str(Path(__file__).parent), folder=str(notes), kind=kind))
    parent = subprocess.Popen([sys.executable, str(script)])
    try:
        assert wait_for(lambda: len(list(notes.iterdir())) == workers, 120)
    finally:
        parent.kill()
        parent.wait()
    pids = [int(path.name) for path in notes.iterdir()]
    assert wait_for(lambda: not any(map(alive, pids)), 10)


def test_beside_runs_while_the_body_does_and_is_waited_for(tmp_path: Path) -> None:
    """What the function did is done when the block ends."""
    with beside(write, str(tmp_path / "a"), "done") as process:
        assert process.pid != os.getpid()
    assert (tmp_path / "a").read_text() == "done"


def test_what_it_raises_is_raised_here() -> None:
    """An error beside is the block's error, with its type and words."""
    with pytest.raises(ValueError, match="no such connector"), beside(fail, "no such connector"):
        pass


def test_a_killed_process_is_named() -> None:
    """A process that is killed does not hang the block; the error says what to do."""
    with pytest.raises(RuntimeError, match="repeat the same command"), beside(sleep, 60.0) as process:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)


def test_it_ends_when_the_body_fails() -> None:
    """Nothing goes on behind a failed block."""
    with pytest.raises(KeyboardInterrupt), beside(sleep, 60.0) as process:
        raise KeyboardInterrupt
    assert not process.is_alive()
