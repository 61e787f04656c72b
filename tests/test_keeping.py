"""What a robot keeps of its own trials: its own labels, a person's where one looked, and no ground truth."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lotj import cli
from lotj.data.replay import FrameSampling, TransitionDataset
from lotj.data.store import TrajectoryStore
from lotj.files import append_json
from lotj.guard import Audit, unpaid, write_audit
from lotj.keeping import PERSON, ROBOT, keep
from lotj.offline import Known
from lotj.presets import load_preset
from lotj.run import Run
from lotj.trials import TrialRecord
from lotj.types import Trajectory


def practised(folder: Path, diagnostic: bool = False, frames: int = 1, gate: bool = False) -> Path:
    """A finished practice of four trials: failed, paid, refuted and audited as right, refuted and not looked at. The
    gate stores the refuted ones unpaid."""
    run = Run(folder, "practice", {"rule": {"threshold": 0.5, "frames": frames}}, 0)
    run.start()
    run.finish({"diagnostic": diagnostic})
    with TrajectoryStore(folder / "online.sqlite", mode="a") as store:
        for trial, paid in enumerate((False, True, True, True), 1):
            reward = np.zeros(3, np.float32)
            reward[-1] = paid
            truth = {"success": np.array([False, True, True, True]), "tip_in_socket": np.zeros((4, 3), np.float32)}
            frame = np.full((4, 8, 8, 3), trial, np.uint8)
            state, action = np.zeros((4, 0), np.float32), np.zeros((3, 3), np.float32)
            truth["force"] = np.ones(4, np.float32)
            made = Trajectory(frame, state, action, reward, paid, not paid, "plug", "cell", 7, "practice", truth)
            store.append(unpaid(made) if gate and trial >= 3 else made)
            append_json(folder / "trials.jsonl", record(trial, paid, refuted=trial >= 3))
    write_audit(folder, Audit(3, {3: True}))
    return folder


def record(trial: int, paid: bool, refuted: bool) -> TrialRecord:
    fields: dict[str, Any] = dict.fromkeys(("true_success", "true_at_success", "tip_at_success", "tips_above"))
    return TrialRecord(
        trial, "ensemble", "learned", "I", 7, 3, paid, 0, 0, 0.5, 0, max_force=None, dislodged=False, refuted=refuted,
        **fields,
    )  # fmt: skip


def test_own_labels_are_kept_and_ground_truth_is_not(tmp_path: Path) -> None:
    library = tmp_path / "library.sqlite"
    kept = keep(practised(tmp_path / "plug" / "ensemble-learned-s0"), library, {"commit": "abc"})
    assert kept == (3, 2, 1)
    with TrajectoryStore(library) as store:
        trials = [store.read(index) for index in range(len(store))]
        (about,) = store.metadata["kept"].items()
    assert about[0] == "plug/ensemble-learned-s0" and about[1].items() >= {"commit": "abc", "trials": 3}.items()
    assert [int(trial.image[0, 0, 0, 0]) for trial in trials] == [1, 2, 3]
    for trial, paid, source in zip(trials, (False, True, True), (ROBOT, ROBOT, PERSON)):
        assert trial.privileged["success"].tolist() == [False, False, False, paid]
        assert trial.privileged["label_source"].tolist() == [source] * 4
        assert set(trial.privileged) == {"success", "label_source", "force"}
        assert trial.terminated == paid


def test_a_persons_yes_undoes_the_gate(tmp_path: Path) -> None:
    """The gate stores what a tug refuted without pay; a person who looked says more, and is kept so."""
    folder = practised(tmp_path / "plug" / "ensemble-learned-gate-s0", gate=True)
    assert keep(folder, tmp_path / "library.sqlite", {}) == (3, 2, 1)
    with TrajectoryStore(tmp_path / "library.sqlite") as store:
        said = store.read(2)
    assert said.terminated and not said.truncated and said.reward.tolist() == [0, 0, 1]
    assert said.privileged["success"].tolist() == [False] * 3 + [True]
    assert set(said.privileged) == {"success", "label_source", "force"}


def test_a_practice_made_anew_is_another_one(tmp_path: Path) -> None:
    """In a folder of the same name, where the first was deleted: its trials join those that were kept."""
    library, folder = tmp_path / "library.sqlite", tmp_path / "plug" / "ensemble-learned-s0"
    for began in ("2026-01-01", "2026-01-02"):
        practised(folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "started": began}))
        for _ in range(2):
            assert keep(folder, library, {}) == (3, 2, 1)
        shutil.rmtree(folder)
    with TrajectoryStore(library) as store:
        assert len(store) == 6
        assert {name: about["began"] for name, about in store.metadata["kept"].items()} == {
            "plug/ensemble-learned-s0": "2026-01-01",
            "plug/ensemble-learned-s0 2026-01-02": "2026-01-02",
        }


def test_a_claim_is_of_all_its_frames(tmp_path: Path) -> None:
    """A rule of two frames claims that both show success, though only the last is paid: an inserted plug is not kept as
    a failure."""
    keep(practised(tmp_path / "plug" / "ensemble-learned-s0", frames=2), tmp_path / "library.sqlite", {})
    with TrajectoryStore(tmp_path / "library.sqlite") as store:
        labels = [store.read(index).privileged["success"].tolist() for index in range(len(store))]
    assert labels == [[False] * 4, [False, False, True, True], [False, False, True, True]]


def test_keeping_twice_or_after_a_kill_adds_nothing_twice(tmp_path: Path) -> None:
    """Another practice with the same start states is another practice; a kill leaves the rest to the next call."""
    library = tmp_path / "library.sqlite"
    first = practised(tmp_path / "plug" / "ensemble-learned-s0")
    keep(first, library, {})
    keep(first, library, {})
    second = practised(tmp_path / "plug" / "iql-learned-s0")
    keep(second, library, {})
    with TrajectoryStore(library, mode="a") as store:
        assert len(store) == 6
    third, fourth = (practised(tmp_path / "plug" / f"iql-learned-s{seed}") for seed in (1, 2))
    with pytest.MonkeyPatch.context() as patch:
        whole = TrajectoryStore.append

        def killed(self: TrajectoryStore, trajectory: Trajectory, nth: tuple[str, int] | None = None) -> int:
            if len(self) == 8:
                raise KeyboardInterrupt
            return whole(self, trajectory, nth)

        patch.setattr(TrajectoryStore, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            keep(third, library, {})
    keep(fourth, library, {})
    keep(third, library, {})
    with TrajectoryStore(library) as store:
        frames = [int(store.read(index).image[0, 0, 0, 0]) for index in range(len(store))]
    assert frames == [1, 2, 3, 1, 2, 3, 1, 2] + [1, 2, 3] + [3]


def test_what_a_person_labels_later_joins_when_it_is_kept_again(tmp_path: Path) -> None:
    """The quarantined trial joins once it has a label, and those that are there stay alone."""
    library, folder = tmp_path / "library.sqlite", practised(tmp_path / "plug" / "ensemble-learned-s0")
    assert keep(folder, library, {}) == (3, 2, 1)
    write_audit(folder, Audit(4, {3: True, 4: False}))
    assert keep(folder, library, {}) == keep(folder, library, {}) == (4, 2, 0)
    with TrajectoryStore(library) as store:
        assert [int(store.read(index).image[0, 0, 0, 0]) for index in range(len(store))] == [1, 2, 3, 4]
        assert store.metadata["kept"]["plug/ensemble-learned-s0"]["trials"] == 4
        assert not store.read(3).terminated


@pytest.mark.parametrize("answer", [True, False])
def test_a_persons_answer_reaches_the_rewards_batches(tmp_path: Path, answer: bool) -> None:
    """The claim that the tug refuted and a person looked at is drawn for the next reward as what the person said. Every
    frame of a trial shows its number, and the claim is of its last one alone."""
    folder = practised(tmp_path / "plug" / "ensemble-learned-s0")
    write_audit(folder, Audit(4, {3: True, 4: answer}))
    keep(folder, tmp_path / "library.sqlite", {})
    with TrajectoryStore(tmp_path / "library.sqlite") as store:
        sampling = FrameSampling(near_share=0.5, beside_share=0.2)
        dataset = TransitionDataset(store, ("plug",))
        batch = dataset.sample_frames_balanced(256, torch.Generator().manual_seed(0), sampling)
    said = {trial: batch.label[batch.image[:, 0, 0, 0] == trial] for trial in (1, 2, 3, 4)}
    assert not said[1].any() and said[2].any() and said[3].any()
    assert len(said[4]) and said[4].any() == answer


def test_a_diagnostic_and_an_unfinished_practice_are_refused(tmp_path: Path) -> None:
    folder = practised(tmp_path / "plug" / "ensemble-ground-truth-s0", diagnostic=True)
    with pytest.raises(ValueError, match="paid by ground truth"):
        keep(folder, tmp_path / "library.sqlite", {})
    (folder / "done.json").unlink()
    with pytest.raises(FileNotFoundError, match="finish it"):
        keep(folder, tmp_path / "library.sqlite", {})


def test_the_next_offline_training_knows_what_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Imported into a run, a library's connectors are trained on, never validated on: their labels are the robot's own.
    One that never succeeded stays aside."""
    monkeypatch.chdir(tmp_path)
    keep(practised(tmp_path / "plug" / "ensemble-learned-s0"), tmp_path / "library.sqlite", {})
    collected = tmp_path / "collected.sqlite"
    with TrajectoryStore(collected, mode="a") as store, TrajectoryStore(tmp_path / "library.sqlite") as library:
        for name, source in (("a", 1), ("b", 1), ("c", 1), ("d", 1), ("never", 0)):
            store.append(replace(library.read(source), connector=name, source="expert"))
    for source in ("collected.sqlite", "library.sqlite", "library.sqlite"):
        cli.main(["data", "import", source, "--run", "runs/next", "--preset", "debug", "--image-size", "8"])
    preset = load_preset(Path("runs/next"))
    assert preset.imported == ("plug", "a", "b", "c", "d") and preset.connectors == 0
    assert preset.split() == Known(("plug", "a", "b", "c"), ("d",))
    with TrajectoryStore("runs/next/data/trajectories.sqlite") as store:
        assert len(store) == 8
