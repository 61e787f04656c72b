"""Every defect is found where it is, and nowhere else."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lotj.data.store import TrajectoryStore
from lotj.data.validate import Balance, gallery, validate
from lotj.types import Trajectory

LENGTH = 4


def trial(seed: int, connector: str = "a", success: bool = True) -> Trajectory:
    """A sound trajectory: ends at its first success, or at the horizon."""
    rng = np.random.default_rng(seed)
    label = np.zeros(LENGTH + 1, bool)
    label[-1] = success
    tip = np.zeros((LENGTH + 1, 3))
    tip[:, 2] = np.linspace(0.01, 1e-4 * seed if success else 0.002, LENGTH + 1)
    return Trajectory(
        image=rng.integers(0, 256, (LENGTH + 1, 8, 8, 3), dtype=np.uint8),
        state=np.zeros((LENGTH + 1, 0), np.float32),
        action=rng.uniform(-1, 1, (LENGTH, 3)).astype(np.float32),
        reward=label[1:].astype(np.float32),
        terminated=success,
        truncated=not success,
        connector=connector,
        robot=("left", "right")[seed % 2],
        seed=seed,
        source="expert",
        privileged={"success": label, "tip_in_socket": tip},
    )


def sound() -> list[Trajectory]:
    return [trial(0), trial(1), trial(2, "b"), trial(3, "b", success=False)]


def beside(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two cameras' square pictures, side by side."""
    side = min(one.shape[1:3])
    return np.concatenate([one[:, :side, :side], other[:, :side, :side]], axis=2)


def write(path: Path, trajectories: list[Trajectory]) -> Path:
    with TrajectoryStore(path, "a") as store:
        store.extend(trajectories)
    return path


def test_a_sound_store_has_no_defects(tmp_path: Path) -> None:
    """The numbers are those of what was appended, and nothing is found wrong."""
    path = write(tmp_path / "s", sound())
    with TrajectoryStore(path, "a") as store:
        store.count("dislodged/a", 2)
    found = validate(path)
    assert found.sound and found.defects == ()
    assert (found.trajectories, found.transitions, found.frames) == (4, 16, 20)
    assert found.connector == {"a": 2, "b": 2} and found.robot == {"left": 2, "right": 2}
    assert found.source == {"expert": 4} and found.length == {4: 4}
    assert (found.terminated, found.truncated) == (3, 1)
    assert found.balance == {"a": Balance(2, 8), "b": Balance(1, 9)}
    assert found.counts == {"dislodged/a": 2}


def _shifted(t: Trajectory) -> Trajectory:
    """reward[t] = success[t]: the label of s in place of s'."""
    return replace(t, reward=t.privileged["success"][:-1].astype(np.float32))


def _early(t: Trajectory) -> Trajectory:
    """Success in the middle, and again at the end."""
    label = np.array([0, 0, 1, 0, 1], bool)
    return replace(t, reward=label[1:].astype(np.float32), privileged={"success": label})


def _never(t: Trajectory) -> Trajectory:
    """No frame succeeds, yet terminated."""
    label = np.zeros(LENGTH + 1, bool)
    return replace(t, reward=label[1:].astype(np.float32), privileged={"success": label})


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("reward-shift", _shifted, "r(s) in place of r(s')"),
        ("reward-shift", lambda t: replace(t, reward=1 - t.reward), "in 4 transitions (first at t = 0)"),
        ("reward-order", _early, "reward 1 at t = 1, but the trial went on to T = 4"),
        ("reward-order", _never, "terminated without a reward"),
        ("reward-order", lambda t: replace(t, terminated=False, truncated=True), "not terminated"),
        ("unfinished", lambda t: replace(_never(t), terminated=False), "neither terminated nor truncated"),
        ("frozen-images", lambda t: replace(t, image=t.image[:1].repeat(LENGTH + 1, 0)), "the same"),
        ("black-images", lambda t: replace(t, image=0 * t.image), "black"),
    ],
)
def test_defect_of_one_trajectory(
    tmp_path: Path, kind: str, change: Callable[[Trajectory], Trajectory], message: str
) -> None:
    """One spoilt trajectory among sound ones gives one defect, with its id."""
    trials = sound()
    trials.insert(1, change(trial(7)))
    (defect,) = validate(write(tmp_path / "s", trials)).defects
    assert (defect.kind, defect.trajectories) == (kind, (1,))
    assert message in defect.message and defect.remedy


def test_one_camera_of_two_that_failed_is_found(tmp_path: Path) -> None:
    """Its pictures stand beside good ones, and it is named."""
    wide = [replace(t, image=beside(t.image, 255 - t.image)) for t in sound()]
    assert not validate(write(tmp_path / "good", wide)).defects
    still, black = wide[0].image[:1].repeat(LENGTH + 1, 0), 0 * wide[0].image
    wide[0] = replace(wide[0], image=beside(wide[0].image, still))
    wide[1] = replace(wide[1], image=beside(black, wide[1].image))
    found = {defect.kind: defect.message for defect in validate(write(tmp_path / "bad", wide)).defects}
    assert "of camera 2" in found["frozen-images"] and "of camera 1" in found["black-images"] and len(found) == 2


@pytest.mark.parametrize(
    ("kind", "statement", "values"),
    [
        ("no-name", "UPDATE trajectory SET connector = '' WHERE id IN (1, 2)", ()),
        ("no-name", "UPDATE trajectory SET source = '' WHERE id IN (1, 2)", ()),
        ("not-finite", "UPDATE trajectory SET action = ? WHERE id IN (1, 2)", (np.full(12, np.nan, "<f4").tobytes(),)),
        ("out-of-range", "UPDATE trajectory SET action = ? WHERE id IN (1, 2)", (np.full(12, 1.2, "<f4").tobytes(),)),
        ("wrong-shape", "UPDATE trajectory SET action = ? WHERE id IN (1, 2)", (bytes(44),)),
        ("wrong-shape", "UPDATE trajectory SET reward = ? WHERE id IN (1, 2)", (bytes(12),)),
        ("wrong-shape", "UPDATE image SET data = ? WHERE id IN (1, 2)", (bytes(100),)),
        ("wrong-shape", "DELETE FROM image WHERE id IN (1, 2)", ()),
    ],
)
def test_defects_a_store_would_refuse(tmp_path: Path, kind: str, statement: str, values: tuple[bytes, ...]) -> None:
    """What only another writer can put into the file is found too; trajectories with the same defect are grouped."""
    path = write(tmp_path / "s", sound())
    with sqlite3.connect(path) as database:
        database.execute(statement, values)
    database.close()
    (defect,) = validate(path).defects
    assert (defect.kind, defect.trajectories) == (kind, (0, 1))
    assert "trajectory 0" in defect.message and "1 more" in defect.message


def test_defects_of_the_whole(tmp_path: Path) -> None:
    """Emptiness, one label class, copies, a missing robot and a horizon overrun are each found alone."""

    def only(name: str, trajectories: list[Trajectory], **options: int) -> tuple[str, tuple[int, ...]]:
        (defect,) = validate(write(tmp_path / name, trajectories), **options).defects
        return defect.kind, defect.trajectories

    assert only("empty", []) == ("empty", ())
    failed = [trial(5, "c", success=False), trial(6, "c", success=False)]
    assert only("class", [*sound(), *failed]) == ("one-class", (4, 5))
    assert only("twice", [*sound(), replace(trial(9), seed=2, connector="b")]) == ("duplicate", (2, 4))
    assert only("robot", [replace(t, robot="left") for t in sound()]) == ("missing-robot", ())
    assert only("horizon", sound(), horizon=3) == ("over-horizon", (0, 1, 2, 3))
    assert validate(tmp_path / "robot", robots=1).sound


def test_practice_may_be_wrong_about_the_truth(tmp_path: Path) -> None:
    """Rewards of a reward model are no defect where they disagree with ground truth, nor is one robot or one class."""
    trials = [
        replace(_never(trial(i)), reward=np.eye(LENGTH, dtype=np.float32)[-1], source=source)
        for i, source in ((0, "practice"), (2, "practice-ground-truth"))
    ]
    assert validate(write(tmp_path / "s", trials)).sound


def test_a_gallery_needs_somebody_who_knows(tmp_path: Path) -> None:
    """Trajectories without ground truth are left out; a store of them alone has none to show."""
    blind = [replace(t, privileged={}) for t in sound()]
    with pytest.raises(ValueError, match="no trajectory says where the plug was in"):
        gallery(write(tmp_path / "blind", blind), tmp_path / "g.png")
    gallery(write(tmp_path / "some", [*sound(), replace(blind[0], seed=99)]), tmp_path / "some.png")
    gallery(write(tmp_path / "all", sound()), tmp_path / "all.png")
    tiles = [np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("some", "all")]
    green = [int((sheet == (50, 205, 50)).all(-1).sum()) for sheet in tiles]
    assert green[0] == green[1] > 0


def test_gallery_shows_both_classes(tmp_path: Path) -> None:
    """The sheet has a green-framed and a red-framed tile for each trajectory, up to ``per_class``, hardest first."""
    path = write(tmp_path / "s", [replace(t, image=np.full_like(t.image, 10 + t.seed)) for t in sound()])
    sheets = []
    for per_class in (1, 2):
        gallery(path, tmp_path / "g.png", per_class)
        sheets.append(np.asarray(Image.open(tmp_path / "g.png")))
    for sheet, positives, negatives in zip(sheets, (2, 3), (2, 4)):
        # A frame two pixels wide around a tile of 96 x 96.
        for colour, tiles in (((50, 205, 50), positives), ((255, 0, 0), negatives)):
            assert (sheet == colour).all(-1).sum() == tiles * (100**2 - 96**2)
    greys = []
    for connector in (0, 1):
        middle = sheets[1][28 + 14 + 134 * connector + 48, :, 0].tolist()  # across the tiles of a connector
        greys.append([v for v in middle if 10 <= v < 20][::96])
    assert greys[0] == [11, 10, 10, 11], "farthest success first, closest failure first"
    assert greys[1] == [12, 13, 12], "one success alone"
