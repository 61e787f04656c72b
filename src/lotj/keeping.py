"""A connector learned on the job is kept: its trials, with the labels that the robot gave them, join the library.

The next offline training then knows it (the paper's lifelong learning). These labels are the robot's own, or a
person's from an audit; ``privileged["label_source"]`` says which, so that they never pass for ground truth.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lotj.data.store import TrajectoryStore
from lotj.guard import paid, read_audit, unpaid
from lotj.trials import quarantined, read_records
from lotj.types import Trajectory

TRUTH, ROBOT, PERSON = 0, 1, 2
"""Values of ``label_source``; trajectories that do not have it were labelled by ground truth."""

SENSED = ("force", "tcp", "wrist_force", "dislodged", "intervention")
"""What a cell records that is not ground truth."""


class Kept(NamedTuple):
    """What joined the library."""

    trials: int
    successes: int
    """By the robot's own judgement, or a person's."""
    left_out: int
    """Quarantined trials that nobody has labelled."""


def keep(practised: Path, library: Path, about: dict[str, Any]) -> Kept:
    """Put a finished practice's trials into the library's store. Repeating it adds only what was labelled since.

    Args:
        practised: folder of a practice.
        library: the store, made where it does not exist.
        about: provenance, recorded with them under ``metadata["kept"]``.

    Raises:
        FileNotFoundError: the practice is not finished.
        ValueError: it was paid by ground truth, which no robot's library may claim as its own.
    """
    if not (practised / "done.json").exists():
        raise FileNotFoundError(f"{practised} is not the folder of a finished practice; finish it, then keep it")
    if json.loads((practised / "done.json").read_text(encoding="utf-8"))["summary"]["diagnostic"]:
        raise ValueError(f"{practised} was paid by ground truth: its labels are not the robot's own, so it is not kept")
    config = json.loads((practised / "config.json").read_text(encoding="utf-8"))
    frames, began = config["config"]["rule"]["frames"], config["started"]
    records, audit = read_records(practised / "trials.jsonl"), read_audit(practised)
    waiting = set(quarantined(records, audit))
    name = f"{practised.parent.name}/{practised.name}"
    labelled = {}
    with TrajectoryStore(practised / "online.sqlite") as online:
        for record in records:
            if record.trial in waiting:
                continue
            trajectory = online.read(record.trial - 1)
            by_person = record.trial in audit.labels
            if record.refuted:  # the gate stored it unpaid, whatever a person says of it now
                trajectory = paid(trajectory) if audit.labels.get(record.trial, False) else unpaid(trajectory)
            labelled[record.trial] = _relabelled(trajectory, frames, PERSON if by_person else ROBOT)
    library.parent.mkdir(parents=True, exist_ok=True)
    with TrajectoryStore(library, mode="a") as store:
        there, held = store.counts, store.metadata.get("kept", {})
        if held.get(name, {}).get("began", began) != began:  # this folder was deleted, and the connector practised anew
            name = f"{name} {began}"
        if name not in held:
            store.set_metadata("kept", {**held, name: {**about, "began": began, "trials": 0}})
        for trial, trajectory in labelled.items():
            # A counter for each trial: raised with it or not at all, so a kill or a later label leaves no doubt.
            if not there.get(key := f"kept/{name}/{trial}"):
                store.append(trajectory, (key, 0))
        if held.get(name, {}).get("trials") != len(labelled):
            store.set_metadata("kept", {**held, name: {**about, "began": began, "trials": len(labelled)}})
    return Kept(len(labelled), sum(t.terminated for t in labelled.values()), len(waiting))


def _relabelled(trajectory: Trajectory, frames: int, source: int) -> Trajectory:
    """With its own judgement as the only label, and nothing that the robot could not have known.

    A claim is that the last ``frames`` images, all of them above the threshold, show success; paid is the last alone.
    """
    success = np.zeros(len(trajectory) + 1, bool)
    for claimed in np.flatnonzero(trajectory.reward > 0) + 1:
        success[max(1, claimed - frames + 1) : claimed + 1] = True
    sensed = {key: value for key, value in trajectory.privileged.items() if key in SENSED}
    labels = {"success": success, "label_source": np.full(len(success), source, np.int8)}
    return replace(trajectory, privileged={**sensed, **labels})
