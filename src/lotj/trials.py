"""What is written down of each trial of practice: the lines of ``trials.jsonl``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from lotj.files import write_text
from lotj.guard import Audit, Tug
from lotj.judge import Judgement
from lotj.types import Trajectory

RewardSource = Literal["learned", "ground-truth"]


@dataclass(frozen=True)
class TrialRecord:
    """A line of ``trials.jsonl``. The fields named in ``privileged`` are ground truth, written for the report only."""

    trial: int
    """Counted from 1."""
    recipe: str
    reward: RewardSource
    scenario: str
    seed: int
    steps: int
    success: bool
    """The judge's rule fired: the trial ended, and was paid unless a tug refuted it."""
    rewarded_frames: int
    above_frames: int
    """Images at or above the judge's threshold."""
    max_probability: float
    updates: int
    true_success: bool | None
    """True success on any image of the trial; None where the cell does not say, as below."""
    true_at_success: bool | None
    """True success on the image at which the rule fired; None where it did not."""
    tip_at_success: list[float] | None
    """Tip in the socket's frame there, metres."""
    tips_above: list[list[float]] | None
    """The same on every image at or above the threshold."""
    max_force: float | None
    """Newton."""
    dislodged: bool
    tug: list[float] | None = None
    """Resistance to the tugs after a trial that the judge's rule ended, newton; None where there was none."""
    refuted: bool = False
    """The judge claimed success and the plug was not held."""
    privileged: tuple[str, ...] = ("true_success", "true_at_success", "tip_at_success", "tips_above", "max_force")


def quarantined(records: Sequence[TrialRecord], audit: Audit) -> list[int]:
    """Trials that a tug refuted and nobody has labelled."""
    return [record.trial for record in records if record.refuted and record.trial not in audit.labels]


def count_claims(records: Sequence[TrialRecord]) -> dict[str, int]:
    """What a practice claimed and what it was paid, by ground truth: ``claimed``, ``claimed_falsely``,
    ``paid_falsely``, ``refuted`` and ``refuted_wrongly``. Needs a cell that tells ground truth."""
    return {
        "claimed": sum(record.success for record in records),
        "claimed_falsely": sum(record.success and not record.true_at_success for record in records),
        "paid_falsely": sum(bool(record.rewarded_frames) and not record.true_at_success for record in records),
        "refuted": sum(record.refuted for record in records),
        "refuted_wrongly": sum(record.refuted and bool(record.true_at_success) for record in records),
    }


def make_record(
    reward: RewardSource,
    recipe: str,
    trial: int,
    scenario: str,
    trajectory: Trajectory,
    history: Sequence[Judgement],
    updates: int,
    tug: Tug | None,
) -> TrialRecord:
    """What a trial came to, from the trajectory as the judge ended it."""
    truth = trajectory.privileged
    above = np.asarray([False, *(judgement.above for judgement in history)])
    tip = truth.get("tip_in_socket")
    fired = trajectory.terminated
    refuted = tug is not None and not tug.held
    return TrialRecord(
        trial=trial,
        recipe=recipe,
        reward=reward,
        scenario=scenario,
        seed=trajectory.seed,
        steps=len(trajectory),
        success=fired,
        rewarded_frames=0 if refuted else int(np.count_nonzero(trajectory.reward)),
        above_frames=int(above.sum()),
        max_probability=max(judgement.probability for judgement in history),
        updates=updates,
        true_success=bool(truth["success"].any()) if "success" in truth else None,
        true_at_success=bool(truth["success"][-1]) if "success" in truth and fired else None,
        tip_at_success=tip[-1].tolist() if tip is not None and fired else None,
        tips_above=tip[above].tolist() if tip is not None else None,
        max_force=float(truth["force"].max()) if "force" in truth else None,
        dislodged=bool(np.any(truth.get("dislodged", False))),
        tug=None if tug is None else list(tug.resistance),
        refuted=refuted,
    )


def truncate_records(path: Path, trials: int) -> list[TrialRecord]:
    """Keep the first lines of ``trials.jsonl``: later ones will be written again."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)[:trials] if path.exists() else []
    write_text(path, "".join(lines))
    return read_records(path)


def read_records(path: Path) -> list[TrialRecord]:
    """The lines of a ``trials.jsonl``; none where there is no file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines]
    return [TrialRecord(**row | {"privileged": tuple(row["privileged"])}) for row in rows]
