"""Work in processes of its own."""

import os
import signal
import time
from pathlib import Path

import pytest

from lotj.parallel import beside, in_processes


def square(number: int) -> int:
    return number * number


def write(path: str, text: str) -> None:
    Path(path).write_text(text)


def fail(message: str) -> None:
    raise ValueError(message)


def sleep(seconds: float) -> None:
    time.sleep(seconds)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers: int) -> None:
    """The result is that of map, whatever the number of processes."""
    assert list(in_processes(square, range(7), workers)) == [square(number) for number in range(7)]


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
