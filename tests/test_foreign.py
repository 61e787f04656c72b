"""Data that lotj did not write becomes the right trajectories, and what is wrong with it is found and named."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lotj import cli
from lotj.data.conversion import resized, to_trajectory
from lotj.data.foreign import REMEDY, Episode, ForeignError, ReadConfig, pick_cameras
from lotj.data.foreign_check import validate_foreign
from lotj.data.importing import import_into
from lotj.data.sources import detect, open_source
from lotj.data.store import TrajectoryStore
from lotj.data.validate import validate
from lotj.presets import load_preset
from lotj.stages import store_path
from lotj.types import Trajectory

STEPS = 4
NAMED = ReadConfig(connector="plug")


def pictures(seed: int, n: int = STEPS + 1, size: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def actions(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (STEPS, 3)).astype(np.float32)


def states(seed: int, n: int = STEPS + 1) -> np.ndarray:
    return np.random.default_rng(seed + 50).normal(size=(n, 2)).astype(np.float32)


LAST = np.eye(STEPS, dtype=np.float32)[-1]
"""Success after the last action."""
NEVER = 0 * LAST


def stored(source: Path, tmp_path: Path, config: ReadConfig = NAMED, **options: Any) -> list[Trajectory]:
    """Import into a new store and read that."""
    into = tmp_path / "into.sqlite"
    into.unlink(missing_ok=True)
    import_into(open_source(source, config, **options), into, config)
    with TrajectoryStore(into) as store:
        return [store.read(i) for i in range(len(store))]


def episode(image: Any = None, **changes: Any) -> Episode:
    """A sound one: five observations, four actions, success at the end."""
    whole = Episode(
        name="episode 0",
        images={"cam": pictures(0)},
        action=actions(0),
        state=states(0),
        reward=LAST,
        success=LAST,
        done=LAST,
    )
    return seen(replace(whole, **changes), image) if image is not None else replace(whole, **changes)


def seen(e: Episode, image: Any) -> Episode:
    """It with other pictures of its one camera."""
    return replace(e, images={"cam": image})


# --- what an episode becomes


def test_rewards_describe_the_next_image() -> None:
    """reward[t] = 1 where image[t + 1] succeeds; the trial ends there, and what came after is cut."""
    t = to_trajectory(episode(reward=np.float32([0, 1, 1, 0]), success=None, done=None), NAMED, 7)
    assert (len(t), t.terminated, t.truncated, t.seed) == (2, True, False, 7)
    np.testing.assert_array_equal(t.reward, [0, 1])
    np.testing.assert_array_equal(t.privileged["success"], [False, False, True])
    np.testing.assert_array_equal(t.image, pictures(0)[:3])
    np.testing.assert_array_equal(t.action, actions(0)[:2])
    np.testing.assert_array_equal(t.state, states(0)[:3])


def test_rewards_on_the_same_image_move_by_one() -> None:
    """With reward_on="same" the reward of observation t + 1 pays action t, with one for the last observation or not."""
    same = replace(NAMED, reward_on="same")
    on_s = np.float32([0, 0, 1, 0, 0])
    for reward in (on_s, on_s[:STEPS]):
        t = to_trajectory(episode(reward=reward, success=None, done=None), same, 0)
        np.testing.assert_array_equal(t.reward, [0, 1])
    # A reward for each of four observations tells three transitions; one for each of five tells four.
    assert len(to_trajectory(episode(reward=NEVER, success=None, done=None), same, 0)) == 3
    assert len(to_trajectory(episode(reward=0 * on_s, success=None, done=None), same, 0)) == 4


def test_a_missing_last_observation_is_dropped_or_repeated() -> None:
    """Four images and four actions: three transitions, or four with the last image twice, which keeps the success."""
    short = episode(image=pictures(0)[:STEPS], state=states(0)[:STEPS])
    dropped = to_trajectory(short, NAMED, 0)
    assert (len(dropped), dropped.terminated, dropped.truncated) == (3, False, True)
    repeated = to_trajectory(short, replace(NAMED, final="repeat"), 0)
    assert (len(repeated), repeated.terminated) == (4, True)
    np.testing.assert_array_equal(repeated.image[-1], repeated.image[-2])
    np.testing.assert_array_equal(repeated.image[:-1], pictures(0)[:STEPS])


def test_shaped_rewards_give_way_to_the_flag() -> None:
    """Rewards other than 0 and 1 need a success flag, and are then taken from it."""
    shaped = np.float32([0.1, 0.2, 0.7, 0.9])
    np.testing.assert_array_equal(to_trajectory(episode(reward=shaped), NAMED, 0).reward, LAST)
    with pytest.raises(ForeignError) as error:
        to_trajectory(episode(reward=shaped, success=None), NAMED, 0)
    assert error.value.kind == "reward-scale" and "0.1 to 0.9" in str(error.value)


def test_options_scale_actions_and_transpose_images() -> None:
    """action_scale multiplies; channels_first turns (3, H, W) into (H, W, 3)."""
    t = to_trajectory(episode(action=2 * actions(0)), replace(NAMED, action_scale=0.5), 0)
    np.testing.assert_array_equal(t.action, actions(0))
    first = episode(image=np.ascontiguousarray(pictures(0).transpose(0, 3, 1, 2)))
    np.testing.assert_array_equal(to_trajectory(first, replace(NAMED, channels_first=True), 0).image, pictures(0))


def test_resized_keeps_the_centre() -> None:
    """A wide image loses its sides, a tall one top and bottom; a block of one colour stays that colour."""
    image = np.zeros((1, 8, 16, 3), np.uint8)
    image[:, :, 4:8], image[:, :, 8:12] = 100, 200
    for wide, axis in ((image, 1), (image.transpose(0, 2, 1, 3), 0)):
        small = resized(np.ascontiguousarray(wide), 2)[0, :, :, 0]
        assert small.shape == (2, 2) and np.unique(small).tolist() == [100, 200]
        assert (np.diff(small.astype(int), axis=axis) == 100).all()
    assert resized(image[:, :, :8], 8) is not None and resized(image[:, :, :8], 16).shape == (1, 16, 16, 3)


BOTH = replace(NAMED, camera=("wrist", "side"))


def pair(wrist: np.ndarray, side: np.ndarray) -> Episode:
    """A trial that two cameras saw."""
    return episode(images={"wrist": wrist, "side": side})


def test_several_cameras_stand_side_by_side() -> None:
    """In the order named, each cut square and scaled by itself; the last picture of each is repeated if asked."""
    t = to_trajectory(pair(pictures(0), pictures(1)), BOTH, 0)
    np.testing.assert_array_equal(t.image, np.concatenate([pictures(0), pictures(1)], axis=2))
    wide = np.concatenate([pictures(2), pictures(3)], axis=2)
    t = to_trajectory(pair(wide, pictures(1)), replace(BOTH, image_size=4, cameras=1), 0)
    np.testing.assert_array_equal(t.image, np.concatenate([resized(wide, 4), resized(pictures(1), 4)], axis=2))
    short = replace(pair(pictures(0)[:STEPS], pictures(1)[:STEPS]), state=states(0)[:STEPS])
    t = to_trajectory(short, replace(BOTH, final="repeat"), 0)
    last = np.concatenate([pictures(0)[STEPS - 1], pictures(1)[STEPS - 1]], axis=1)
    assert len(t.image) == STEPS + 1 and (t.image[-1] == last).all() and (t.image[-2] == last).all()


@pytest.mark.parametrize(
    ("other", "kind", "message"),
    [
        (pictures(1)[:STEPS], "wrong-shape", "as many images of each camera, got 5 of wrist, 4 of side"),
        (pictures(1, size=16), "wrong-shape", "8 x 8 px of wrist, 16 x 16 px of side: give --image-size"),
        (np.concatenate([pictures(2), pictures(3)], axis=2), "wrong-shape", "16 x 8 px, 2 squares side by side"),
        (pictures(1)[:, :6], "wrong-shape", "8 x 6 px of side: give --image-size"),
        (0 * pictures(1), "black-images", "^side: all images are black"),
        (pictures(1)[:1].repeat(5, 0), "frozen-images", "^side: all images are the same"),
    ],
)
def test_a_second_camera_that_does_not_fit_is_named(other: np.ndarray, kind: str, message: str) -> None:
    """Its number of images, its size, and what it saw."""
    with pytest.raises(ForeignError, match=message) as error:
        to_trajectory(pair(pictures(0), other), BOTH, 0)
    assert error.value.kind == kind


def test_cameras_are_named_once_and_one_way() -> None:
    """Side by side already, or by their names; and none twice."""
    with pytest.raises(ValueError, match=r"expected 1 where several images are named \(wrist, side\), got 2"):
        replace(BOTH, cameras=2)
    with pytest.raises(ValueError, match="expected each name once, got wrist, wrist"):
        replace(BOTH, camera=("wrist", "wrist"))
    with pytest.raises(ForeignError, match=r"expected each camera once, got images\.wrist, images\.wrist"):
        pick_cameras(["images.wrist", "images.side"], ("wrist", "images.wrist"))


def _with(name: str, value: float) -> Callable[[Episode], Episode]:
    def spoil(e: Episode) -> Episode:
        array = np.array(getattr(e, name), np.float32)
        array.flat[0] = value
        return replace(e, **{name: array})

    return spoil


DEFECTS: list[tuple[str, Callable[[Episode], Episode], str]] = [
    ("frame-order", lambda e: replace(e, disorder="timestamp does not rise"), "timestamp does not rise"),
    ("no-reward", lambda e: replace(e, reward=None, success=None), "neither rewards nor a success flag"),
    ("reward-shift", lambda e: replace(e, success=np.roll(LAST, -1), reward=LAST), "disagree"),
    ("reward-shift", lambda e: replace(e, success=np.eye(4)[1], reward=np.eye(4)[2]), "r(s) in place of r(s')"),
    ("reward-shift", lambda e: replace(e, success=np.eye(4)[2], reward=np.eye(4)[1]), "the flag, not the reward"),
    ("reward-shift", lambda e: replace(e, success=None, done=np.eye(4)[2]), "the end of the task disagree"),
    ("reward-shift", lambda e: replace(e, success=None, reward=np.eye(4)[2]), "the first done at t = 3"),
    ("wrong-shape", lambda e: replace(e, action=e.action[:2]), "2 actions, 5 images and 5 states"),
    ("wrong-shape", lambda e: replace(e, reward=LAST[1:], success=None), "expected 4 or 5 values, got 3"),
    ("wrong-shape", lambda e: seen(e, e.images["cam"] / np.float32(255)), "expected uint8"),
    ("wrong-shape", lambda e: seen(e, e.images["cam"][..., :1]), "expected three channels"),
    ("wrong-shape", lambda e: replace(e, state=np.array([["a"]] * 5)), "state: expected numbers"),
    ("channels-first", lambda e: seen(e, e.images["cam"].transpose(0, 3, 1, 2)), "(5, 3, 8, 8)"),
    ("not-finite", _with("action", np.nan), "action: expected finite"),
    ("not-finite", _with("state", np.inf), "state: expected finite"),
    ("not-finite", _with("reward", np.nan), "reward: expected finite"),
    ("out-of-range", _with("action", -1.5), "magnitude of 1.5"),
    ("frozen-images", lambda e: seen(e, e.images["cam"][:1].repeat(5, 0)), "the same"),
    ("frozen-images", lambda e: seen(e, e.images["cam"][:1] // 2 + np.arange(5, dtype=np.uint8)[:, None, None, None]),
     "the same"),
    ("black-images", lambda e: seen(e, 0 * e.images["cam"]), "black"),
    ("too-short", lambda e: replace(seen(e, e.images["cam"][:1]), state=e.state[:1], action=e.action[:1],
                                    reward=LAST[-1:], success=None, done=None), "no next one"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "spoil", "message"), DEFECTS, ids=[f"{i}-{d[0]}" for i, d in enumerate(DEFECTS)])
def test_each_defect_is_found_alone(
    tmp_path: Path, kind: str, spoil: Callable[[Episode], Episode], message: str
) -> None:
    """One spoilt episode among sound ones: one defect with its number and a remedy, in validation and in import."""
    lone = episode(reward=NEVER, success=NEVER, done=NEVER)
    source = in_memory(tmp_path, [episode(), spoil(episode()), lone])
    report = validate_foreign(source, NAMED)
    (defect,) = report.defects
    assert (defect.kind, defect.trajectories, defect.remedy) == (kind, (1,), REMEDY[kind])
    assert message in defect.message and report.trajectories == 2
    done = import_into(source, tmp_path / "s.sqlite", NAMED)
    assert (done.imported, done.skipped) == (2, {kind: 1})
    assert message in done.reasons[kind] and REMEDY[kind] in done.reasons[kind]


def test_defects_of_the_whole(tmp_path: Path) -> None:
    """No name, no failures, no successes, successes lost with the last observation, and length, each told apart."""

    def found(config: ReadConfig, *episodes: Episode, horizon: int = 20) -> list[tuple[str, tuple[int, ...], str]]:
        report = validate_foreign(in_memory(tmp_path, list(episodes)), config, horizon=horizon)
        return [(d.kind, d.trajectories, d.remedy) for d in report.defects]

    failed = episode(reward=NEVER, success=NEVER, done=NEVER)
    ((kind, ids, remedy),) = found(ReadConfig(), episode(), failed)
    assert (kind, ids) == ("no-name", (0, 1)) and "--connector" in remedy
    ((kind, ids, _),) = found(NAMED, failed, failed, replace(episode(), connector="other"))
    assert (kind, ids) == ("one-class", (0, 1))
    short = episode(image=pictures(0)[:STEPS], state=states(0)[:STEPS])
    ((kind, _, remedy),) = found(NAMED, short, short)
    assert kind == "one-class" and remedy.startswith("2 successes") and "--final repeat" in remedy
    assert found(replace(NAMED, final="repeat"), short, short) == []
    assert [row[:2] for row in found(NAMED, episode(), failed, horizon=3)] == [("over-horizon", (0, 1))]
    assert [row[0] for row in found(NAMED)] == ["empty"]


def in_memory(tmp_path: Path, episodes: list[Episode]) -> Any:
    from lotj.data.foreign import Source

    digest = f"{len(episodes):064d}"
    return Source("test", tmp_path / "x", len(episodes), lambda: iter(episodes), lambda: digest)


# --- LeRobot, written here by hand


def lerobot(folder: Path, rows: dict[str, Any], cameras: int = 1, **info: Any) -> Path:
    """Two episodes of native LeRobot rows: no observation after the last action. ``rows`` replaces columns."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    n = 2 * STEPS
    columns: dict[str, Any] = {
        "observation.state": states(0, n).tolist(),
        "action": np.concatenate([actions(0), actions(1)]).tolist(),
        "next.reward": np.concatenate([np.eye(4)[2], NEVER]).tolist(),
        "next.success": np.concatenate([np.eye(4)[2], NEVER]).astype(bool).tolist(),
        "next.done": ([False] * 3 + [True]) * 2,
        "frame_index": list(range(STEPS)) * 2,
        "episode_index": [0] * STEPS + [1] * STEPS,
        "timestamp": (np.arange(STEPS) / 10).tolist() * 2,
    }
    for camera in range(cameras):
        png = [{"bytes": encoded(frame), "path": None} for frame in pictures(camera, n)]
        columns[f"observation.images.cam{camera}"] = png
    columns |= rows
    features = {key: {"dtype": "image" if ".images." in key else "float32"} for key in columns}
    (folder / "meta").mkdir(parents=True)
    (folder / "data/chunk-000").mkdir(parents=True)
    parquet.write_table(arrow.table(columns), folder / "data/chunk-000/file-000.parquet")
    says = {"codebase_version": "v3.0", "robot_type": "so101", "total_episodes": 2, "fps": 10, "features": features}
    (folder / "meta/info.json").write_text(json.dumps(says | info))
    return folder


def encoded(frame: np.ndarray, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format)
    return buffer.getvalue()


def test_lerobot_native_rows(tmp_path: Path) -> None:
    """Row t holds image t, action t and the reward of image t + 1; the last action has no next image and goes."""
    source = lerobot(tmp_path / "set", {})
    assert detect(source) == "lerobot"
    first, second = stored(source, tmp_path)
    assert (len(first), first.terminated) == (3, True) and (len(second), second.truncated) == (3, True)
    np.testing.assert_array_equal(first.reward, [0, 0, 1])
    np.testing.assert_array_equal(first.image, pictures(0, 8)[:4])
    np.testing.assert_array_equal(second.image, pictures(0, 8)[4:8])
    np.testing.assert_array_equal(second.action, actions(1)[:3])
    np.testing.assert_array_equal(second.state, states(0, 8)[4:8])
    assert (first.connector, first.robot, first.source) == ("plug", "so101", "imported")
    assert first.seed != second.seed and validate(tmp_path / "into.sqlite", robots=1).sound


def test_lerobot_cameras_and_names(tmp_path: Path) -> None:
    """Of two cameras one must be named, by key or by its last part; a connector column gives each episode its name."""
    names = {"connector": ["a"] * STEPS + ["b"] * STEPS}
    source = lerobot(tmp_path / "set", names, cameras=2)
    report = validate_foreign(open_source(source, ReadConfig()), ReadConfig())
    assert [d.kind for d in report.defects] == ["no-camera"] and "cam0" in report.defects[0].message
    for camera in ("cam1", "observation.images.cam1"):
        a, b = stored(source, tmp_path, ReadConfig(camera=(camera,)))
        assert (a.connector, b.connector) == ("a", "b")
        np.testing.assert_array_equal(a.image, pictures(1, 8)[:4])
    a, b = stored(source, tmp_path, ReadConfig(camera=("cam1", "observation.images.cam0")))
    both = np.concatenate([pictures(1, 8), pictures(0, 8)], axis=2)
    np.testing.assert_array_equal(a.image, both[:4])
    np.testing.assert_array_equal(b.image, both[4:])
    with pytest.raises(ForeignError, match=r"no camera 'cam7'.*cam0, observation.images.cam1"):
        stored(source, tmp_path, ReadConfig(camera=("cam7",)))


@pytest.mark.parametrize(
    ("rows", "kind", "ids", "message"),
    [
        ({"frame_index": [0, 2, 1, 3, 0, 1, 2, 3]}, "frame-order", (0,), "got 0, 2, 1, 3"),
        ({"timestamp": [0, 0.1, 0.2, 0.3, 0, 0.1, 0.1, 0.2]}, "frame-order", (1,), "does not rise at row 2"),
        ({"next.reward": [0, 0, 0, 1.0, 0, 0, 0, 0]}, "reward-shift", (0,), "r(s) in place of r(s')"),
        ({"action": [[9.0, 0, 0]] * 8}, "out-of-range", (0, 1), "magnitude of 9"),
        (
            {"action": [[0.5, 0, 0]] * 4 + [[0.5]] + [[0.5, 0, 0]] * 3},
            "wrong-shape",
            (1,),
            "action: expected one shape",
        ),
        ({"action": [[0.5, 0, 0]] * 4 + [None] + [[0.5, 0, 0]] * 3}, "wrong-shape", (1,), "action: expected one shape"),
        ({"observation.state": [[np.nan, 0]] + [[0.0, 0]] * 7}, "not-finite", (0,), "state"),
    ],
)
def test_lerobot_defects(tmp_path: Path, rows: dict[str, Any], kind: str, ids: tuple[int, ...], message: str) -> None:
    """What is wrong in the rows is found in the episode where it is."""
    found = validate_foreign(open_source(lerobot(tmp_path / "set", rows), NAMED), NAMED).defects
    (defect,) = [d for d in found if d.kind != "one-class"]
    assert (defect.kind, defect.trajectories) == (kind, ids) and message in defect.message


def test_lerobot_rows_apart(tmp_path: Path) -> None:
    """An episode whose rows lie in two places is out of order, though each row says where it belongs."""
    mixed = {"episode_index": [0, 0, 1, 1, 0, 0, 1, 1], "frame_index": [0, 1, 0, 1, 2, 3, 2, 3]}
    found = validate_foreign(open_source(lerobot(tmp_path / "set", mixed), NAMED), NAMED).defects
    (defect,) = [d for d in found if d.kind == "frame-order"]
    assert defect.trajectories == (2, 3) and "not together" in defect.message


def test_lerobot_of_another_version(tmp_path: Path) -> None:
    """Version 2 is refused by name."""
    source = lerobot(tmp_path / "set", {}, codebase_version="v2.1")
    with pytest.raises(ForeignError, match=r"version 3, got v2.1"):
        open_source(source, NAMED)


def test_lerobot_video(tmp_path: Path) -> None:
    """Frames come from the episode's stretch of the video, in order: a codec keeps the grey of a flat image."""
    imageio = pytest.importorskip("imageio.v3")
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    source = lerobot(tmp_path / "set", {})
    info = json.loads((source / "meta/info.json").read_text())
    camera = "observation.images.cam0"
    info["features"][camera]["dtype"] = "video"
    (source / "meta/info.json").write_text(json.dumps(info))
    greys = np.arange(20, 220, 25, dtype=np.uint8)
    video = np.ones((8, 64, 64, 3), np.uint8) * greys[:, None, None, None]
    file = source / f"videos/{camera}/chunk-000/file-000.mp4"
    file.parent.mkdir(parents=True)
    imageio.imwrite(file, video, plugin="pyav", codec="libx264", fps=10)
    (source / "meta/episodes/chunk-000").mkdir(parents=True)
    rows = {"episode_index": [0, 1], "chunk_index": [0, 0], "file_index": [0, 0], "from_timestamp": [0.0, 0.4]}
    table = {(key if key == "episode_index" else f"videos/{camera}/{key}"): value for key, value in rows.items()}
    table[f"videos/{camera}/to_timestamp"] = [0.4, 0.8]
    parquet.write_table(arrow.table(table), source / "meta/episodes/chunk-000/file-000.parquet")
    for t, wanted in zip(stored(source, tmp_path), (greys[:4], greys[4:]), strict=True):
        np.testing.assert_allclose(t.image.mean((1, 2, 3)), wanted, atol=3)


# --- robomimic, Minari, SERL


def robomimic(path: Path, *, next_obs: bool = True, shuffle: bool = False) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for i in (0, 1, 10):
            group = file.create_group(f"data/demo_{i}")
            image, state = pictures(i), states(i)
            if shuffle and i == 1:
                image[[1, 2]] = image[[2, 1]]
            group["actions"], group["rewards"] = actions(i), np.float32([0, 0, 1, 1]) if i != 10 else NEVER
            group["dones"] = np.eye(4)[3]
            for key, cut in (("obs", slice(0, STEPS)), ("next_obs", slice(1, STEPS + 1))):
                if key == "obs" or next_obs:
                    source = pictures(i) if key == "next_obs" else image
                    group[f"{key}/agentview_image"] = source[cut]
                    group[f"{key}/robot0_eef_pos"] = state[cut]
                    group[f"{key}/object"] = 9 * state[cut]
    return path


def test_robomimic(tmp_path: Path) -> None:
    """Demonstrations by number, the last observation from next_obs, the robot's own state without ground truth."""
    source = robomimic(tmp_path / "demo.hdf5")
    assert detect(source) == "robomimic"
    trials = stored(source, tmp_path)
    assert [len(t) for t in trials] == [3, 3, 4]
    for t, i in zip(trials, (0, 1, 10), strict=True):
        np.testing.assert_array_equal(t.image, pictures(i)[: len(t) + 1])
        np.testing.assert_array_equal(t.state, states(i)[: len(t) + 1])
        np.testing.assert_array_equal(t.action, actions(i)[: len(t)])
    np.testing.assert_array_equal(trials[0].reward, [0, 0, 1])
    both = stored(source, tmp_path, replace(NAMED, state=("object", "robot0_eef_pos")))[0]
    np.testing.assert_array_equal(both.state, np.concatenate([9 * states(0), states(0)], 1)[:4])
    (tmp_path / "short").mkdir()
    assert [len(t) for t in stored(robomimic(tmp_path / "short/a.hdf5", next_obs=False), tmp_path)] == [3, 3, 3]


def test_robomimic_out_of_order(tmp_path: Path) -> None:
    """obs that does not go on where next_obs ended is frames out of order."""
    source = open_source(robomimic(tmp_path / "demo.hdf5", shuffle=True), NAMED)
    (defect,) = validate_foreign(source, NAMED).defects
    assert (defect.kind, defect.trajectories) == ("frame-order", (1,)) and "next_obs[0] is not obs[1]" in defect.message


def test_robomimic_by_two_cameras(tmp_path: Path) -> None:
    """Side by side; and where the second alone is out of order, that is found."""
    h5py = pytest.importorskip("h5py")
    path = robomimic(tmp_path / "demo.hdf5")
    with h5py.File(path, "a") as file:
        for i in (0, 1, 10):
            image = 255 - pictures(i)
            file[f"data/demo_{i}/obs/side"], file[f"data/demo_{i}/next_obs/side"] = image[:STEPS], image[1:]
        file["data/demo_10/obs/side"][1] = 0
    two = replace(NAMED, camera=("side", "agentview_image"))
    (defect,) = validate_foreign(open_source(path, two), two).defects
    assert (defect.kind, defect.trajectories) == ("frame-order", (2,))
    t, _ = stored(path, tmp_path, two)
    np.testing.assert_array_equal(t.image, np.concatenate([255 - pictures(0), pictures(0)], axis=2)[:4])
    with h5py.File(path, "a") as file:
        for i in (0, 1, 10):
            del file[f"data/demo_{i}/next_obs/side"]
    assert [len(t) for t in stored(path, tmp_path, two)] == [3, 3, 3], "the last observation counts as not recorded"


def test_robomimic_with_an_action_missing(tmp_path: Path) -> None:
    """One action fewer than observations is no file with the last observation in ``obs``: ``next_obs`` says so."""
    h5py = pytest.importorskip("h5py")
    path = robomimic(tmp_path / "demo.hdf5")
    with h5py.File(path, "a") as file:
        del file["data/demo_1/actions"]
        file["data/demo_1/actions"] = actions(1)[1:]
    (defect,) = validate_foreign(open_source(path, NAMED), NAMED).defects
    assert (defect.kind, defect.trajectories) == ("wrong-shape", (1,)) and "3 actions, 5 images" in defect.message


@pytest.mark.parametrize("jpeg", [False, True])
def test_minari_of_others(tmp_path: Path, jpeg: bool) -> None:
    """Nested observations by their names; T + 1 images; JPEG is decoded as its decoder does."""
    h5py = pytest.importorskip("h5py")
    (tmp_path / "set/data").mkdir(parents=True)
    (tmp_path / "set/data/metadata.json").write_text("{}")
    frames = [encoded(frame, "JPEG") for frame in pictures(0)]
    with h5py.File(tmp_path / "set/data/main_data.hdf5", "w") as file:
        group = file.create_group("episode_0")
        if jpeg:
            rows = group.create_dataset("observations/view/wrist", 5, h5py.vlen_dtype(np.uint8))
            for i, frame in enumerate(frames):
                rows[i] = np.frombuffer(frame, np.uint8)
        else:
            group["observations/view/wrist"] = pictures(0)
        group["observations/state"], group["actions"] = states(0), actions(0).astype(np.float64)
        group["rewards"], group["terminations"], group["truncations"] = LAST, LAST > 0, NEVER > 0
        group["observations/view/side"] = pictures(1)
    assert detect(tmp_path / "set") == "minari"
    (t,) = stored(tmp_path / "set", tmp_path, replace(NAMED, camera=("view/wrist",)))
    wanted = np.stack([np.asarray(Image.open(io.BytesIO(f))) for f in frames]) if jpeg else pictures(0)
    np.testing.assert_array_equal(t.image, wanted)
    np.testing.assert_array_equal(t.action, actions(0))
    np.testing.assert_array_equal(t.state, states(0))
    assert t.terminated and t.reward.tolist() == [0, 0, 0, 1]
    (t,) = stored(tmp_path / "set", tmp_path, replace(NAMED, camera=("view/side", "view/wrist")))
    np.testing.assert_array_equal(t.image, np.concatenate([pictures(1), wanted], axis=2))


def transitions(seed: int, stack: bool = True) -> list[dict[str, Any]]:
    """A trial as SERL keeps it: observations stacked as (1, ...)."""
    image, state = pictures(seed), states(seed)
    lead = (None,) if stack else ()
    observation = [{"state": state[i][lead], "wrist": image[i][lead]} for i in range(STEPS + 1)]
    return [
        {
            "observations": observation[i],
            "next_observations": observation[i + 1],
            "actions": actions(seed)[i],
            "rewards": float(LAST[i]),
            "masks": 1.0 - LAST[i],
            "dones": bool(LAST[i]),
            "infos": {"succeed": np.bool_(LAST[i])},
        }
        for i in range(STEPS)
    ]


def beside(step: dict[str, Any]) -> dict[str, Any]:
    """It with a second camera, which sees the negative of the first."""
    seen_by_both = {
        key: {**step[key], "side": 255 - step[key]["wrist"]} for key in ("observations", "next_observations")
    }
    return step | seen_by_both


def serl(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("stack", [True, False])
def test_serl(tmp_path: Path, protocol: int, stack: bool) -> None:
    """Trials are split where they end; frames chain; all pickle protocols that numpy writes are read."""
    source = serl(tmp_path / "demos.pkl", transitions(0, stack) + transitions(1, stack), protocol)
    assert detect(source) == "serl"
    for t, i in zip(stored(source, tmp_path, allow_pickle=True), (0, 1), strict=True):
        np.testing.assert_array_equal(t.image, pictures(i))
        np.testing.assert_array_equal(t.state, states(i))
        np.testing.assert_array_equal(t.action, actions(i))
        assert t.reward.tolist() == [0, 0, 0, 1] and t.terminated
    both = serl(tmp_path / "both.pkl", [beside(step) for step in transitions(0, stack)], protocol)
    (t,) = stored(both, tmp_path, BOTH, allow_pickle=True)
    np.testing.assert_array_equal(t.image, np.concatenate([pictures(0), 255 - pictures(0)], axis=2))


def test_cameras_keep_their_sides(tmp_path: Path) -> None:
    """A second data set with the same cameras the other way round is refused, one in the same order taken."""
    into = tmp_path / "into.sqlite"
    sources = [serl(tmp_path / f"{i}.pkl", [beside(step) for step in transitions(i)]) for i in range(3)]

    def take(source: Path, *camera: str) -> int:
        config = replace(NAMED, camera=camera)
        return import_into(open_source(source, config, allow_pickle=True), into, config).imported

    assert take(sources[0], "wrist", "side") == 1
    with pytest.raises(ValueError, match="--camera wrist side, now it is side wrist: the pictures would change sides"):
        take(sources[1], "side", "wrist")
    assert take(sources[1], "wrist", "side") == 1
    with TrajectoryStore(into) as store:
        assert len(store) == 2


def test_a_camera_that_is_missing_on_the_way_is_named(tmp_path: Path) -> None:
    """With the observation in which it is not there."""
    broken = [beside(step) for step in transitions(0)]
    del broken[2]["observations"]["side"]
    source = open_source(serl(tmp_path / "a.pkl", broken), BOTH, allow_pickle=True)
    (defect,) = validate_foreign(source, BOTH).defects
    assert defect.kind == "wrong-shape" and "observation 2 has no 'side'" in defect.message


def test_a_run_sees_by_as_many_cameras_as_were_named(tmp_path: Path) -> None:
    """``lotj data import --camera wrist side --run``: two squares a picture, and networks of two cameras."""
    source = serl(tmp_path / "demos.pkl", [beside(step) for step in transitions(0) + transitions(1)])
    run = tmp_path / "run"
    options = ["--allow-pickle", "--connector", "usb-a", "--camera", "wrist", "side", "--image-size", "4"]
    cli.main(["data", "import", str(source), "--run", str(run), *options])
    assert load_preset(run).cameras == 2
    with TrajectoryStore(store_path(run)) as store:
        image = store.read(0).image
    wanted = [resized(one, 4) for one in (pictures(0), 255 - pictures(0))]
    np.testing.assert_array_equal(image, np.concatenate(wanted, axis=2))


def test_serl_defects(tmp_path: Path) -> None:
    """Transitions that do not chain are out of order; a mask one step before the reward is a shift."""
    source = open_source(serl(tmp_path / "two.pkl", [beside(step) for step in transitions(0)]), BOTH, allow_pickle=True)
    assert validate_foreign(source, BOTH).trajectories == 1
    unlike = [beside(step) for step in transitions(0)]
    unlike[1]["observations"]["side"] = pictures(9)[0]
    source = open_source(serl(tmp_path / "side.pkl", unlike), BOTH, allow_pickle=True)
    assert {d.kind for d in validate_foreign(source, BOTH).defects} == {"frame-order"}
    shuffled, shifted = transitions(0), transitions(1)
    shuffled[1], shuffled[2] = shuffled[2], shuffled[1]
    for i, step in enumerate(shifted):
        step["masks"] = 1.0 - np.eye(4)[2][i]
    source = open_source(serl(tmp_path / "a.pkl", shuffled + shifted), NAMED, allow_pickle=True)
    found = {d.kind: d.trajectories for d in validate_foreign(source, NAMED).defects}
    assert found == {"frame-order": (0,), "reward-shift": (1,)}


class Payload:
    """What a hostile file does when Python's own reader loads it."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def test_pickles_run_nothing(tmp_path: Path) -> None:
    """Refused without the flag; with it, a payload is named and leaves no marker, which Python's reader would."""
    marker = tmp_path / "marker"
    hostile = [
        (os.system, f"touch {marker}"),
        (eval, f"open({str(marker)!r}, 'w')"),
        (getattr, "", "join"),
        (np.fromfile, str(marker)),
    ]
    source = serl(tmp_path / "plain.pkl", transitions(0))
    with pytest.raises(ValueError, match=r"a program that Python would run.*--allow-pickle"):
        open_source(source, NAMED)
    for i, (function, *arguments) in enumerate(hostile):
        content = transitions(0)
        content[0]["infos"] = Payload(function, *arguments)
        path = serl(tmp_path / f"{i}.pkl", content)
        with pytest.raises(ForeignError, match=r"the pickle names (posix|builtins|numpy)\S*\.") as error:
            open_source(path, NAMED, allow_pickle=True)
        assert error.value.kind == "untrusted-pickle"
        assert not marker.exists()
    pickle.loads((tmp_path / "0.pkl").read_bytes())
    assert marker.exists(), "the payload is real"
    path.write_bytes(b"\x80\x04cos\nsystem")
    with pytest.raises(ForeignError):
        open_source(path, NAMED, allow_pickle=True)


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    """Unknown files and folders name what was expected; so do a list of something else and a damaged file."""
    (tmp_path / "a.txt").write_text("hello")
    for path in (tmp_path, tmp_path / "a.txt"):
        with pytest.raises(ValueError, match="expected a lotj store, a LeRobot or Minari folder"):
            detect(path)
    with pytest.raises(FileNotFoundError, match="no data at"):
        open_source(tmp_path / "none", NAMED)
    for content, message in (([1, 2], "list of transitions"), ([{"actions": 0}], "lacks observations")):
        with pytest.raises(ForeignError, match=message):
            open_source(serl(tmp_path / "x.pkl", content), NAMED, allow_pickle=True)
    pytest.importorskip("h5py")
    (tmp_path / "x.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(ForeignError, match=r"x\.hdf5: "):
        open_source(tmp_path / "x.hdf5", NAMED)


def test_bad_options_name_themselves() -> None:
    """Sizes, scales and names out of range."""
    for changes, name in (
        ({"image_size": 0}, "image_size"),
        ({"action_scale": 0.0}, "action_scale"),
        ({"robot": ""}, "robot"),
    ):
        with pytest.raises(ValueError, match=name):
            ReadConfig(**changes)
