"""Data goes out and comes in again: bit for bit where lotj wrote it, each trajectory once, whatever is killed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_store import assert_same, make_trajectory

from lotj import cli
from lotj.data.conversion import resized, to_trajectory
from lotj.data.export import export
from lotj.data.foreign import Episode, ForeignError, ReadConfig
from lotj.data.foreign_check import validate_foreign
from lotj.data.importing import Imported, import_into
from lotj.data.lerobot_export import CAMERA
from lotj.data.sources import detect, open_source
from lotj.data.store import TrajectoryStore
from lotj.files import to_json, write_json
from lotj.presets import PRESETS, load_preset
from lotj.types import Trajectory

PLAIN = ReadConfig()


def various() -> list[Trajectory]:
    """All that differs between trajectories: length, ends, names, seeds of 64 bits, with ground truth and without."""
    pair = np.random.default_rng(5).normal(size=(5, 2, 2)).astype(np.float32)
    return [
        make_trajectory(2**62 + 1),
        make_trajectory(1, length=1, robot="right", connector="naïve/plug"),
        make_trajectory(2, length=7, terminated=False, truncated=True, source="practice"),
        replace(make_trajectory(3, privileged={"pair": pair, "code": np.arange(5, dtype=np.uint8)}), seed=-(2**63)),
        make_trajectory(4, length=2, privileged={}),
    ]


def write(path: Path, trajectories: list[Trajectory]) -> Path:
    with TrajectoryStore(path, "a") as store:
        store.extend(trajectories)
    return path


def take(source: Path, into: Path, config: ReadConfig = PLAIN) -> Imported:
    return import_into(open_source(source, config), into, config)


def stored(path: Path) -> list[Trajectory]:
    with TrajectoryStore(path) as store:
        return [store.read(i) for i in range(len(store))]


@pytest.mark.parametrize("to", ["lerobot", "minari"])
@pytest.mark.parametrize("state", [2, 0])
def test_round_trip_is_exact(tmp_path: Path, to: str, state: int) -> None:
    """import(export(store)) == store: arrays, dtypes, names, seeds, ends and ground truth of every dtype and shape."""
    written = [replace(t, state=t.state[:, :state].copy()) for t in various()]
    store = write(tmp_path / "a.sqlite", written)
    rows = export(store, to, tmp_path / "out", fps=10)
    assert rows == sum(len(t) + 1 for t in written)
    assert detect(tmp_path / "out") == to
    done = take(tmp_path / "out", tmp_path / "b.sqlite")
    assert (done.imported, done.episodes, done.skipped) == (5, 5, {})
    for a, b in zip(written, stored(tmp_path / "b.sqlite"), strict=True):
        assert_same(a, b)


def test_lerobot_rows_are_what_they_say(tmp_path: Path) -> None:
    """Read without lotj: row t has image t, action t and the reward of image t + 1; stats and meta agree."""
    parquet = pytest.importorskip("pyarrow.parquet")
    written = [make_trajectory(i, length=i + 2) for i in range(3)]
    export(write(tmp_path / "a.sqlite", written), "lerobot", tmp_path / "out", fps=5)
    info = json.loads((tmp_path / "out/meta/info.json").read_text())
    table = parquet.read_table(tmp_path / "out/data/chunk-000/file-000.parquet")
    assert set(table.column_names) == set(info["features"])
    episodes = parquet.read_table(tmp_path / "out/meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert (info["total_frames"], info["total_episodes"]) == (table.num_rows, 3) == (12, 3)
    for row, t in zip(episodes, written, strict=True):
        part = table.slice(row["dataset_from_index"], row["length"]).to_pydict()
        n = len(t)
        assert part["frame_index"] == list(range(n + 1)) and part["is_last"] == [False] * n + [True]
        np.testing.assert_allclose(part["timestamp"], np.arange(n + 1) / 5, rtol=1e-6)
        np.testing.assert_array_equal(np.float32(part["next.reward"]), np.append(t.reward, 0))
        np.testing.assert_array_equal(np.float32(part["action"])[:-1], t.action)
        assert part["next.done"] == [False] * (n - 1) + [True, True]
        np.testing.assert_array_equal(part["next.success"][:-1], t.privileged["success"][1:])
        assert part["reward_source"] == ["ground-truth"] * (n + 1) and part["connector"] == ["usb-a"] * (n + 1)
    stats = json.loads((tmp_path / "out/meta/stats.json").read_text())
    every = np.concatenate([t.image for t in written]) / 255.0
    np.testing.assert_allclose(np.ravel(stats[CAMERA]["mean"]), every.mean((0, 1, 2)))
    np.testing.assert_allclose(np.ravel(stats[CAMERA]["std"]), every.std((0, 1, 2)))
    states = np.concatenate([t.state for t in written]).astype(np.float64)
    np.testing.assert_allclose(stats["observation.state"]["std"], states.std(0))
    np.testing.assert_allclose(stats["observation.state"]["max"], states.max(0))


def test_minari_opens_the_export(tmp_path: Path) -> None:
    """The real package iterates over it and finds images, actions, rewards and infos unchanged."""
    minari = pytest.importorskip("minari", reason="minari is not installed: pip install -e '.[minari]'")
    pytest.importorskip("h5py")
    written = [make_trajectory(i, length=i + 1) for i in range(2)]
    export(write(tmp_path / "a.sqlite", written), "minari", tmp_path / "out")
    dataset = minari.MinariDataset(tmp_path / "out" / "data")
    assert (dataset.total_episodes, dataset.total_steps) == (2, 3)
    for episode, t in zip(dataset.iterate_episodes(), written, strict=True):
        np.testing.assert_array_equal(episode.observations["image"], t.image)
        np.testing.assert_array_equal(episode.actions, t.action)
        np.testing.assert_array_equal(episode.rewards, t.reward)
        np.testing.assert_array_equal(episode.terminations, np.arange(len(t)) == len(t) - 1)
        np.testing.assert_array_equal(episode.infos["privileged"]["force"], t.privileged["force"])


LEROBOT_PYTHON = os.environ.get("LOTJ_LEROBOT_PYTHON", sys.executable)
"""An interpreter with lerobot: it needs another torch than lotj, so an environment of its own."""

OPEN = """
import sys, numpy as np
try:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
except ImportError:
    try:
        from ledataset.datasets.lerobot_dataset import LeRobotDataset
    except ImportError as error:
        print(error); sys.exit(77)
d = LeRobotDataset("lotj/export", root=sys.argv[1])
wanted = np.load(sys.argv[2])
assert (d.num_frames, d.num_episodes) == (len(wanted["image"]), int(wanted["episodes"]))
for i in range(d.num_frames):
    row = d[i]
    image = (row["observation.images.tool"].numpy() * 255).round().astype(np.uint8).transpose(1, 2, 0)
    assert np.array_equal(image, wanted["image"][i]), i
    for key in ("action", "observation.state", "next.reward", "privileged.tip_in_socket"):
        assert np.array_equal(np.asarray(row[key], np.float32), np.float32(wanted[key][i])), (key, i)
    assert row["connector"] == "usb-a" and row["task"] == "insert usb-a"
    assert bool(row["is_last"]) == bool(wanted["is_last"][i])
"""


def test_lerobot_opens_the_export(tmp_path: Path) -> None:
    """The real package reads every row: images, state, actions, rewards, ground truth, names."""
    pytest.importorskip("pyarrow")
    written = [make_trajectory(i, length=i + 2) for i in range(2)]
    export(write(tmp_path / "a.sqlite", written), "lerobot", tmp_path / "out")
    zero = np.zeros((1, 3), np.float32)
    np.savez(
        tmp_path / "wanted.npz",
        **{
            "image": np.concatenate([t.image for t in written]),
            "observation.state": np.concatenate([t.state for t in written]),
            "action": np.concatenate([np.concatenate([t.action, zero]) for t in written]),
            "next.reward": np.concatenate([np.append(t.reward, 0) for t in written]),
            "privileged.tip_in_socket": np.concatenate([t.privileged["tip_in_socket"] for t in written]),
            "is_last": np.concatenate([np.arange(len(t) + 1) == len(t) for t in written]),
            "episodes": len(written),
        },
    )
    command = [LEROBOT_PYTHON, "-c", OPEN, str(tmp_path / "out"), str(tmp_path / "wanted.npz")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    if done.returncode == 77:
        pytest.skip("lerobot is not installed; name a Python that has it in LOTJ_LEROBOT_PYTHON")
    assert done.returncode == 0, done.stderr


def test_stores_merge_and_an_import_is_done_once(tmp_path: Path) -> None:
    """A second import of the same content does nothing, from another path too; provenance names no folder."""
    a, b = write(tmp_path / "a.sqlite", various()[:2]), write(tmp_path / "b.sqlite", various()[2:])
    assert take(b, a).imported == 3
    again = take(Path(shutil.copy(b, tmp_path / "copy.sqlite")), a)
    assert again.already and again.imported == 3
    for x, y in zip(various(), stored(a), strict=True):
        assert_same(x, y)
    with TrajectoryStore(a) as store:
        (record,) = [value for key, value in store.metadata.items() if key.startswith("import/")]
    assert (record["format"], record["name"], record["episodes"], record["imported"]) == ("lotj", "b.sqlite", 3, 3)
    assert record["complete"] and len(record["sha256"]) == 64 and str(tmp_path) not in json.dumps(record)
    write(b, [make_trajectory(77)])
    assert take(b, a).imported == 4, "with one more trajectory it is other content"
    with pytest.raises(ValueError, match="cannot be imported into itself"):
        take(a, a)


def test_what_a_store_says_of_its_actions_comes_along(tmp_path: Path) -> None:
    """Metres for an action of 1, horizon and robots; where another store says else of its actions, it is refused.
    Foreign data is asked, since it does not say."""
    a, b, into = tmp_path / "a.sqlite", tmp_path / "b.sqlite", tmp_path / "into.sqlite"
    for path, seed, scale, horizon in ((a, 1, 0.005, 40), (b, 2, 0.02, 30)):
        write(path, [make_trajectory(seed)])
        with TrajectoryStore(path, "a") as store:
            for key, value in (("action_scale", [scale] * 3), ("horizon", horizon), ("robots", 1)):
                store.set_metadata(key, value)
    take(a, into)
    with TrajectoryStore(into) as store:
        assert [store.metadata[key] for key in ("action_scale", "horizon", "robots")] == [[0.005] * 3, 40, 1]
    with pytest.raises(ValueError, match=r"holds actions of \[0\.005, .* the data has \[0\.02"):
        take(b, into)
    assert len(stored(into)) == 1
    with TrajectoryStore(tmp_path / "killed.sqlite", "a") as store:
        store.set_metadata("action_scale", [0.1] * 3)  # of an import that was killed before its first trajectory
    assert take(b, tmp_path / "killed.sqlite").imported == 1
    foreign = tmp_path / "minari"
    export(b, "minari", foreign)
    with pytest.raises(ValueError, match="the data has"):
        take(foreign, into, replace(PLAIN, metres_per_unit=0.02))
    take(foreign, into, replace(PLAIN, metres_per_unit=0.005))
    assert len(stored(into)) == 2
    unsaid = tmp_path / "unsaid.sqlite"
    take(foreign, unsaid)
    take(b, unsaid)
    with TrajectoryStore(unsaid) as store:  # of the half of it nobody knows
        assert len(store) == 2 and "action_scale" not in store.metadata
    with pytest.raises(ValueError, match="metres_per_unit: expected metres above 0, got -1"):
        ReadConfig(metres_per_unit=-1)


def test_arrays_of_one_component_go_out_and_come_in(tmp_path: Path) -> None:
    """LeRobot has plain values where we have (T, 1)."""
    pressure = np.arange(5, dtype=np.float32)[:, None]
    one = make_trajectory(3, privileged={"pressure": pressure})
    one = replace(one, state=one.state[:, :1], action=one.action[:, :1])
    source = write(tmp_path / "s.sqlite", [one])
    export(source, "lerobot", tmp_path / "out")
    take(tmp_path / "out", tmp_path / "back.sqlite")
    (back,) = stored(tmp_path / "back.sqlite")
    np.testing.assert_array_equal(back.action, one.action)
    np.testing.assert_array_equal(back.state, one.state)
    np.testing.assert_array_equal(np.ravel(back.privileged["pressure"]), np.ravel(pressure))


def test_a_killed_import_goes_on(tmp_path: Path) -> None:
    """Stopped after any number of trajectories, repeated, the store holds each once, in order."""
    written = [make_trajectory(i) for i in range(3)]
    source = write(tmp_path / "a.sqlite", written)
    for stop in range(4):
        into = write(tmp_path / f"into{stop}.sqlite", [make_trajectory(100)])

        def killed(done: int, total: int, note: str, stop: int = stop) -> None:
            if done == stop:
                raise KeyboardInterrupt

        if stop:
            with pytest.raises(KeyboardInterrupt):
                import_into(open_source(source, PLAIN), into, PLAIN, killed)
            write(into, [make_trajectory(200)])  # somebody else appends meanwhile
        done = take(source, into)
        assert (done.imported, done.resumed) == (3, stop)
        assert sorted(t.seed for t in stored(into) if t.seed < 100) == [0, 1, 2]


def test_an_import_by_an_earlier_version_is_known(tmp_path: Path) -> None:
    """What was not given counts as not given, though it was once written down as null, or not at all."""
    source, into = write(tmp_path / "a.sqlite", various()), tmp_path / "into.sqlite"
    take(source, into)
    with TrajectoryStore(into, "a") as store:
        ((key, record),) = [(key, value) for key, value in store.metadata.items() if key.startswith("import/")]
        older = {**record["options"], "camera": None, "cameras": 1}
        del older["channels_first"]
        store.set_metadata(key, {**record, "options": older})
    assert take(source, into).already
    with pytest.raises(ValueError, match="with another camera;"):
        take(source, into, replace(PLAIN, camera=("wrist",)))
    with TrajectoryStore(into, "a") as store:
        store.set_metadata(key, {**record, "options": {**older, "camera": "wrist"}})
    assert take(source, into, replace(PLAIN, camera=("wrist",))).already


def test_two_imports_at_once_leave_no_copies(tmp_path: Path) -> None:
    """An import that another process overtakes stops, instead of appending what is there."""
    source = write(tmp_path / "a.sqlite", [make_trajectory(i) for i in range(3)])
    into = tmp_path / "into.sqlite"

    def overtaken(done: int, total: int, note: str) -> None:
        if done == 1:
            take(source, into)

    with pytest.raises(ValueError, match="another process appends the same"):
        import_into(open_source(source, PLAIN), into, PLAIN, overtaken)
    assert [t.seed for t in stored(into)] == [0, 1, 2]


def test_sizes_and_options_must_fit(tmp_path: Path) -> None:
    """Another image size is refused with the option that mends it; other options for the same data are refused."""
    into = write(tmp_path / "into.sqlite", [make_trajectory(1)])
    source = write(tmp_path / "large.sqlite", [make_trajectory(2, size=16)])
    with pytest.raises(ValueError, match="add --image-size 8"):
        take(source, into)
    assert take(source, into, ReadConfig(image_size=8)).imported == 1
    with pytest.raises(ValueError, match="with another image_size, robot"):
        take(source, into, ReadConfig(robot="left"))
    large = make_trajectory(2, size=16).image.astype(float)
    halved = large.reshape(5, 8, 2, 8, 2, 3).mean((2, 4))
    # Rows and columns are averaged in turn, and rounded each time.
    np.testing.assert_allclose(stored(into)[1].image, halved, atol=1.0)


def test_export_refuses_what_it_would_spoil(tmp_path: Path) -> None:
    """A folder with files, an empty store and a rate of nothing; a failed export leaves nothing behind."""
    store = write(tmp_path / "a.sqlite", various())
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="empty or not there"):
        export(store, "lerobot", tmp_path / "full")
    with pytest.raises(ValueError, match="fps"):
        export(store, "lerobot", tmp_path / "out", fps=0)
    with pytest.raises(ValueError, match="no trajectories"):
        export(write(tmp_path / "none.sqlite", []), "lerobot", tmp_path / "out")

    def killed(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(store, "lerobot", tmp_path / "out", tick=killed)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.sqlite", "full", "none.sqlite"]


def test_an_export_validates(tmp_path: Path) -> None:
    """What lotj wrote is sound by the same rules, and its numbers are the store's."""
    store = write(tmp_path / "a.sqlite", [make_trajectory(i) for i in range(3)])
    for to in ("lerobot", "minari"):
        export(store, to, tmp_path / to)
        report = validate_foreign(open_source(tmp_path / to, PLAIN), PLAIN)
        assert report.sound, report.defects
        assert (report.trajectories, report.frames, report.terminated) == (3, 15, 3)
        assert report.balance == {"usb-a": (3, 12)}


@pytest.mark.parametrize("to", ["lerobot", "minari"])
def test_the_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    """Export, validate, import, import again: counts, the next command, and no second copy."""
    monkeypatch.chdir(tmp_path)
    store = str(write(tmp_path / "a.sqlite", [make_trajectory(i) for i in range(2)]))
    cli.main(["data", "export", store, "--to", to, "--out", "out"])
    assert "Next: lotj data validate out" in capsys.readouterr().out
    cli.main(["data", "validate", "out"])
    assert "sound" in capsys.readouterr().out
    cli.main(["data", "import", "out", "--into", "new/b.sqlite"])
    out = capsys.readouterr().out
    assert "2 of 2 episodes are in new/b.sqlite" in out and "Next: lotj data validate new/b.sqlite" in out
    cli.main(["data", "import", "out", "--into", "new/b.sqlite"])
    assert "nothing was imported" in capsys.readouterr().out
    assert len(stored(tmp_path / "new/b.sqlite")) == 2
    with pytest.raises(SystemExit):
        cli.main(["data", "import", "nowhere", "--into", "b"])
    assert "no data at nowhere" in capsys.readouterr().err


@pytest.mark.parametrize("cameras", [1, 2])
def test_an_imported_run_sees_by_as_many_cameras_as_its_data(tmp_path: Path, cameras: int) -> None:
    """Pictures that stand side by side come through export and import side by side, smaller ones too."""
    store = tmp_path / "store.sqlite"
    trajectories = [
        make_trajectory(seed, connector=connector) for seed, connector in enumerate(("usb-a", "rj45", "bnc"))
    ]
    wide = [replace(t, image=np.concatenate([t.image[:, :8, :8]] * cameras, axis=2)) for t in trajectories]
    with TrajectoryStore(store, mode="a") as held:
        for trajectory in wide:
            held.append(trajectory)
    export(store, "lerobot", tmp_path / "lerobot")
    cli.main(["data", "import", str(tmp_path / "lerobot"), "--run", str(tmp_path / "run"), "--image-size", "4"])
    assert load_preset(tmp_path / "run").cameras == cameras
    with TrajectoryStore(tmp_path / "run" / "data" / "trajectories.sqlite") as back:
        image = back.read(0).image
    assert image.shape[1:] == (4, 4 * cameras, 3)
    np.testing.assert_array_equal(image[:, :, :4], image[:, :, -4:])


def test_data_of_another_number_of_cameras_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By a run that was begun with two, whose store is still empty; and a strip in foreign data is not cut in two."""
    store, run = tmp_path / "store.sqlite", tmp_path / "run"
    with TrajectoryStore(store, mode="a") as held:
        held.append(make_trajectory(0))
    run.mkdir()
    write_json(run / "preset.json", to_json(PRESETS["debug"]))
    with pytest.raises(SystemExit):
        cli.main(["data", "import", str(store), "--run", str(run), "--image-size", "8"])
    assert "sees by 2 camera(s)" in capsys.readouterr().err
    wide = np.random.default_rng(0).integers(0, 255, (3, 8, 16, 3), np.uint8)
    strip = Episode("strip", {"cam": wide}, np.zeros((2, 3)))
    strip = replace(strip, success=np.array([False, True]), connector="usb-a")
    with pytest.raises(
        ForeignError, match=r"16 x 8 px, 2 squares side by side, and no number of camera\(s\) were said"
    ):
        to_trajectory(strip, ReadConfig(), 0)
    two = to_trajectory(strip, ReadConfig(cameras=2, image_size=4), 0).image
    assert two.shape == (3, 4, 8, 3)
    np.testing.assert_array_equal(two[:, :, :4], resized(wide[:, :, :8], 4))
    with pytest.raises(ForeignError, match="give --cameras, which is 1 with --image-size"):
        to_trajectory(strip, ReadConfig(image_size=4), 0)
    middle = to_trajectory(strip, ReadConfig(image_size=4, cameras=1), 0).image
    np.testing.assert_array_equal(middle, resized(wide[:, :, 4:12], 4))
    with pytest.raises(ForeignError, match=r"1 camera\(s\) were said"):
        to_trajectory(strip, ReadConfig(cameras=1), 0)
    with pytest.raises(ForeignError, match=r"3 camera\(s\) were said"):
        to_trajectory(strip, ReadConfig(cameras=3, image_size=4), 0)
