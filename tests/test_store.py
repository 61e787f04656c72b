"""Laws of the trajectory store."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lotj.data.store import StoreError, TrajectoryStore
from lotj.data.trajectory_index import Shape
from lotj.types import Trajectory


def make_trajectory(seed: int, length: int = 4, size: int = 8, connector: str = "usb-a", **changes: Any) -> Trajectory:
    rng = np.random.default_rng(seed)
    success = np.zeros(length + 1, bool)
    success[-1] = True
    trajectory = Trajectory(
        image=rng.integers(0, 256, (length + 1, size, size, 3), dtype=np.uint8),
        state=rng.normal(size=(length + 1, 2)).astype(np.float32),
        action=rng.uniform(-1, 1, (length, 3)).astype(np.float32),
        reward=success[1:].astype(np.float32),
        terminated=True,
        truncated=False,
        connector=connector,
        robot="left",
        seed=seed,
        source="expert",
        privileged={
            "success": success,
            "tip_in_socket": rng.normal(size=(length + 1, 3)),
            "force": rng.random(length + 1),
        },
    )
    return replace(trajectory, **changes)


def assert_same(a: Trajectory, b: Trajectory) -> None:
    for name in ("image", "state", "action", "reward"):
        x, y = getattr(a, name), getattr(b, name)
        assert x.dtype == y.dtype and np.array_equal(x, y), name
    for name in ("terminated", "truncated", "connector", "robot", "seed", "source"):
        assert getattr(a, name) == getattr(b, name), name
    assert a.privileged.keys() == b.privileged.keys()
    for name in a.privileged:
        assert a.privileged[name].dtype == b.privileged[name].dtype
        np.testing.assert_array_equal(a.privileged[name], b.privileged[name])


def test_read_returns_what_was_appended(tmp_path: Path) -> None:
    """read(append(x)) == x, bit for bit and type for type, before and after closing; state may be empty (S = 0)."""
    path = tmp_path / "store.sqlite"
    plain = {"state": np.zeros((5, 0), np.float32)}
    written = [make_trajectory(i, **plain) for i in range(3)] + [make_trajectory(9, privileged={}, **plain)]
    with TrajectoryStore(path, "a") as store:
        assert store.extend(written) == [0, 1, 2, 3]
        assert_same(store.read(2), written[2])
    with TrajectoryStore(path) as store:
        assert len(store) == 4 and store.shape == Shape(8, 8, 0, 3)
        for i, trajectory in enumerate(written):
            assert_same(store.read(i), trajectory)
    assert sorted(os.listdir(tmp_path)) == ["store.sqlite"], "at rest a store is one file"


def test_index_and_columns_agree_with_read(tmp_path: Path) -> None:
    """Every column at offset[i]:offset[i + 1] is the array of trajectory i; random frames are the frames of `read`."""
    lengths = [4, 1, 7, 2]
    with TrajectoryStore(tmp_path / "s", "a") as store:
        for i, length in enumerate(lengths):
            store.append(make_trajectory(i, length, connector=f"c{i % 2}", truncated=i == 1))
        index = store.index
        assert index.length.tolist() == lengths and index.connector.tolist() == ["c0", "c1", "c0", "c1"]
        assert index.successes.tolist() == [1, 1, 1, 1] and index.truncated.tolist() == [False, True, False, False]
        assert index.terminated.all() and index.seed.tolist() == [0, 1, 2, 3]
        for i in range(4):
            one, steps = store.read(i), slice(*index.transition_offset[i : i + 2])
            frames = slice(*index.frame_offset[i : i + 2])
            np.testing.assert_array_equal(store.actions[steps], one.action)
            np.testing.assert_array_equal(store.rewards[steps], one.reward)
            np.testing.assert_array_equal(store.states[frames], one.state)
            for key in ("success", "tip_in_socket", "force"):
                np.testing.assert_array_equal(store.privileged(key)[frames], one.privileged[key])
        ids, steps_ = np.array([2, 0, 2, 3, 1, 2]), np.array([7, 0, 1, 2, 1, 7])
        expected = np.stack([store.read(i).image[t] for i, t in zip(ids, steps_)])
        np.testing.assert_array_equal(store.read_images(ids, steps_), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": np.zeros((5, 8, 8), np.uint8)}, "image: expected uint8"),
        ({"image": np.zeros((4, 8, 8, 3), np.uint8)}, "image: expected uint8"),
        ({"image": np.zeros((5, 8, 8, 3), np.float32)}, "got float32"),
        ({"image": np.zeros((5, 9, 8, 3), np.uint8)}, "one image size"),
        ({"state": np.zeros((4, 2), np.float32)}, "state: expected float32"),
        ({"action": np.zeros((4, 3))}, "action: expected float32"),
        ({"action": np.full((4, 3), np.nan, np.float32)}, "finite"),
        ({"action": np.full((4, 3), 1.5, np.float32)}, "magnitude of 1.5; clip"),
        ({"reward": np.zeros(5, np.float32)}, "reward: expected float32"),
        ({"privileged": {"success": np.zeros(4, bool)}}, "'success'"),
        ({"privileged": {"success": np.array([object()] * 5)}}, "'success'"),
        ({"privileged": {"dislodged": np.zeros((5, 2), bool)}}, "'dislodged': expected .5,., one flag a frame"),
        ({"connector": ""}, "connector: expected a name"),
        ({"seed": 2**63}, "seed: expected 64 bits"),
    ],
)
def test_bad_trajectory_is_refused_whole(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """A trajectory that breaks the contract is named and leaves no trace."""
    with TrajectoryStore(tmp_path / "s", "a") as store:
        store.append(make_trajectory(0))
        with pytest.raises(ValueError, match=message):
            store.append(replace(make_trajectory(1), **changes))
        assert len(store) == len(store.index) == 1
        assert store.append(make_trajectory(2)) == 1


def test_a_failure_halfway_leaves_nothing(tmp_path: Path) -> None:
    """An append that fails after its first row is undone whole: even the image size is still free."""
    with TrajectoryStore(tmp_path / "s", "a") as store:
        with pytest.raises(sqlite3.Error):
            store.append(make_trajectory(0, privileged={("not", "text"): np.zeros(5)}))
        store.refresh()
        assert len(store) == 0
        assert store.append(make_trajectory(1, size=16)) == 0 and store.shape.width == 16


def test_errors_name_file_and_remedy(tmp_path: Path) -> None:
    """What is not a store is refused and left as it was; writing to a reader and reading past the end are errors."""
    with pytest.raises(FileNotFoundError, match="no store at"):
        TrajectoryStore(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="create it first"):
        TrajectoryStore(tmp_path / "none" / "s", "a")
    (tmp_path / "text").write_text("hello " * 100)
    sqlite3.connect(tmp_path / "other").executescript("CREATE TABLE t (a)").connection.close()
    for name in ("text", "other"):
        before = (tmp_path / name).read_bytes()
        for mode in ("r", "a"):
            with pytest.raises(StoreError, match="not a trajectory store"):
                TrajectoryStore(tmp_path / name, mode)  # type: ignore[arg-type]
        assert (tmp_path / name).read_bytes() == before
    path = tmp_path / "s"
    with TrajectoryStore(path, "a") as store:
        with pytest.raises(StoreError, match="holds no trajectories"):
            _ = store.shape
        store.append(make_trajectory(0))
        store.append(make_trajectory(1, privileged={}))
        with pytest.raises(KeyError, match="1 of 2"):
            store.privileged("success")
        for bad in ((2, 0), (-1, 0), (0, 5), (0, -1)):
            with pytest.raises(IndexError, match=str(bad[1])):
                store.read_images([bad[0]], [bad[1]])
    with TrajectoryStore(path) as store:
        with pytest.raises(StoreError, match="mode 'a'"):
            store.append(make_trajectory(2))
        with pytest.raises(IndexError, match="holds 2"):
            store.read(2)
    with pytest.raises(StoreError, match="closed"):
        store.read(0)
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="version 99"):
        TrajectoryStore(path)


def test_metadata_and_counters(tmp_path: Path) -> None:
    """JSON goes in and comes out equal; counters add up across openings."""
    config = {"seed": 1, "connectors": ["a", "b"], "noise": 0.2, "none": None}
    for _ in range(2):
        with TrajectoryStore(tmp_path / "s", "a") as store:
            store.set_metadata("config", config)
            store.count("dislodged/usb-a")
            store.count("dislodged/bnc", 3)
    with TrajectoryStore(tmp_path / "s") as store:
        assert store.metadata == {"config": config}
        assert store.counts == {"dislodged/usb-a": 2, "dislodged/bnc": 6}


def test_content_depends_only_on_what_was_appended(tmp_path: Path) -> None:
    """Two stores given the same trajectories hold the same rows, whatever was refused or reopened between."""
    with TrajectoryStore(tmp_path / "a", "a") as store:
        store.extend(make_trajectory(i) for i in range(3))
    for i in range(3):
        with TrajectoryStore(tmp_path / "b", "a") as store:
            with pytest.raises(ValueError):
                store.append(make_trajectory(i, connector=""))
            store.append(make_trajectory(i))
    dumps = ["\n".join(sqlite3.connect(tmp_path / name).iterdump()) for name in "ab"]
    assert dumps[0] == dumps[1] and "usb-a" in dumps[0]


def test_reader_beside_writer(tmp_path: Path) -> None:
    """A reader sees the moment it was opened, and the rest after `refresh`; a store stays with its thread."""
    with TrajectoryStore(tmp_path / "s", "a") as writer:
        writer.append(make_trajectory(0))
        with TrajectoryStore(tmp_path / "s") as reader:
            writer.append(make_trajectory(1))
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                reader._connection.execute("DELETE FROM trajectory")
            assert len(reader) == 1 and len(reader.rewards) == 4 and len(reader.privileged("success")) == 5
            reader.refresh()
            assert len(reader) == 2 and len(reader.rewards) == 8
            assert_same(reader.read(1), make_trajectory(1))
            errors: list[BaseException] = []

            def use() -> None:
                try:
                    reader.read(0)
                except sqlite3.ProgrammingError as error:
                    errors.append(error)

            thread = threading.Thread(target=use)
            thread.start()
            thread.join()
            assert len(errors) == 1


_WRITER = """
import sys; sys.path[:0] = [{tests!r}]
from test_store import make_trajectory
from lotj.data.store import TrajectoryStore
with TrajectoryStore({path!r}, "a") as store:
    while True:
        print(store.append(make_trajectory(len(store), size=64)), flush=True)
"""


def test_truncated_beside_a_reader_the_rest_is_gone_and_its_ids_are_free(tmp_path: Path) -> None:
    """A reader that has the file open neither keeps nor brings back what was dropped."""
    path = tmp_path / "data.sqlite"
    with TrajectoryStore(path, mode="a") as store:
        store.extend(make_trajectory(seed) for seed in range(5))
        with TrajectoryStore(path) as reader:
            store.truncate(3)
            assert len(store) == 3 and store.append(make_trajectory(9)) == 3
            reader.refresh()
            assert [reader.read(index).seed for index in range(len(reader))] == [0, 1, 2, 9]
    with TrajectoryStore(path, mode="a") as store:
        assert store.index.seed.tolist() == [0, 1, 2, 9]
        assert set(store.read(3).privileged) == set(make_trajectory(9).privileged)
        store.truncate(7)
        assert len(store) == 4


def test_kill_loses_at_most_the_trajectory_in_flight(tmp_path: Path) -> None:
    """After SIGKILL every acknowledged trajectory is there, whole, at most one more, and appending goes on."""
    path = tmp_path / "s"
    script = _WRITER.format(tests=str(Path(__file__).parent), path=str(path))
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(5)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout.read().splitlines() if line]
        process.wait()
        with TrajectoryStore(path) as store:
            assert acknowledged[-1] + 1 <= len(store) <= acknowledged[-1] + 2
            for i in range(len(store)):
                assert_same(store.read(i), make_trajectory(i, size=64))


def test_the_example_without_lotj_reads_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lines in docs/data.md read images and rewards with sqlite3 and numpy alone."""
    with TrajectoryStore(tmp_path / "trajectories.sqlite", "a") as store:
        store.extend([make_trajectory(0), make_trajectory(1, length=2, connector="bnc")])
    text = (Path(__file__).parents[1] / "docs" / "data.md").read_text()
    monkeypatch.chdir(tmp_path)
    exec(text.split("```python\n")[1].split("```")[0], {})
    assert capsys.readouterr().out == "usb-a (5, 8, 8, 3) [0. 0. 0. 1.]\nbnc (3, 8, 8, 3) [0. 1.]\n"


def test_a_store_without_write_permission_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished store can be read where nothing may be written, and reading leaves no files beside it."""
    path = tmp_path / "s"
    with TrajectoryStore(path, "a") as store:
        store.append(make_trajectory(0))
    monkeypatch.setattr("lotj.data.schema.os.access", lambda *_: False)
    with TrajectoryStore(path) as store:
        assert os.listdir(tmp_path) == ["s"]
        assert_same(store.read(0), make_trajectory(0))
