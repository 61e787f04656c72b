"""What a report reads from a run folder. Parts that are not there become named messages, not errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lotj.data.store import TrajectoryStore
from lotj.evaluate import Evaluation
from lotj.report.video import MIME
from lotj.types import Trajectory

RED_TEAMED = "redteam/reward"
STAGES = ("reward", "critic", "policy", RED_TEAMED)
"""Folders of offline training, in the order they are made; the last where the reward learned from attacks."""

GROUND_TRUTH = "ground-truth"
"""The reward source that is a diagnostic."""


class PracticeTrial(NamedTuple):
    """One line of ``trials.jsonl``; None where the practice did not say."""

    trial: int
    steps: int
    judged: bool
    true: bool | None
    max_probability: float | None
    true_when_judged: bool | None
    """Ground truth on the image at which the rule fired; None where it did not fire."""
    distance_when_judged: float | None
    """Metres from full insertion at the predicted success."""
    max_force: float | None
    dislodged: bool


class Frames(NamedTuple):
    """Single images as the reward model saw them, all (N,)."""

    probability: NDArray[np.float64]
    above: NDArray[np.bool_]
    success: NDArray[np.bool_]
    distance: NDArray[np.float64]
    """Metres from full insertion; NaN where the cell does not say."""


@dataclass(frozen=True)
class PracticeRecord:
    """All that is known of one practice."""

    path: Path
    connector: str
    recipe: str
    reward_source: str
    seed: str
    provenance: Mapping[str, Any]
    """``config.json``; empty where missing."""
    seconds: float | None
    trials: tuple[PracticeTrial, ...]
    before: Evaluation | None
    after: Evaluation | None
    first: tuple[tuple[int, Trajectory], ...]
    """(Number from 1, trajectory) of the first trials kept in ``online.sqlite``."""
    last: tuple[tuple[int, Trajectory], ...]
    missing: Mapping[str, str]
    """For each part that is not there, why."""

    @property
    def diagnostic(self) -> bool:
        """Whether practice was paid by ground truth."""
        return self.reward_source == GROUND_TRUTH

    @property
    def validation(self) -> bool:
        """Whether a validation connector was practised on purpose."""
        return bool(self.provenance.get("config", {}).get("validation", False))

    @property
    def red_teamed(self) -> bool:
        """Whether the reward model had learned from attacks (``lotj redteam``)."""
        return bool(self.provenance.get("config", {}).get("red_teamed", False))

    @property
    def guard(self) -> str:
        """What practice did about successes that a tug refuted: ``off``, ``alarm`` or ``gate``."""
        practice = self.provenance.get("config", {}).get("recipe", {}).get("practice", {})
        return str(practice.get("guard", {}).get("mode", "off"))

    @property
    def title(self) -> str:
        """Connector, recipe, reward source and guard."""
        guard = "" if self.guard == "off" else f" · guard {self.guard}"
        kind = "red-teamed " if self.red_teamed else ""
        return f"{self.connector} · {self.recipe} · {kind}{self.reward_source} reward{guard}"

    def frames(self) -> Frames | None:
        """Return the judged images of both evaluations, or None where no judge watched."""
        rows = [
            (p, above, success, trial.distance[i] if trial.distance else float("nan"))
            for evaluation in (self.before, self.after)
            if evaluation is not None
            for trial in evaluation.trials
            for i, (p, above, success) in enumerate(zip(trial.probability, trial.above, trial.success))
        ]
        if not rows:
            return None
        table = np.asarray(rows, np.float64)
        return Frames(table[:, 0], table[:, 1] > 0, table[:, 2] > 0, table[:, 3])


def film_of(practice: Path) -> Path | None:
    """The film in a practice's folder (``lotj.film``), if there is one."""
    return next((path for suffix in MIME if (path := practice / f"film{suffix}").exists()), None)


EVALUATED = "practice writes it, where the cell tells success"


def load_practice(path: Path, videos: int = 2) -> PracticeRecord:
    """Read a practice folder ``<connector>/<recipe>-<reward source>-s<seed>``.

    Args:
        path: the folder.
        videos: how many first and how many last trajectories to read.

    Raises:
        FileNotFoundError: if the folder does not exist.
        ValueError: if a file is there but cannot be read.
    """
    if not path.is_dir():
        raise FileNotFoundError(
            f"no practice folder {path}: expected practice/<connector>/<recipe>-<reward source>-s<seed>"
        )
    missing: dict[str, str] = {}

    def optional(name: str, read: Callable[[Path], Any], otherwise: Any, remedy: str) -> Any:
        if (path / name).exists():
            return read(path / name)
        missing[name] = f"{name} is not in {path.name}: {remedy}"
        return otherwise

    provenance = optional("config.json", _read_json, {}, "practice writes it when it starts")
    done = optional("done.json", _read_json, {}, "this practice is not finished")
    rows = optional("trials.jsonl", _read_rows, (), "practice writes a line a trial")
    recipe, reward_source, seed = _parse_name(path.name, _said(provenance) or (rows[0] if rows else {}))
    before = optional("evaluation-before.json", _read_evaluation, None, EVALUATED)
    after = optional("evaluation-after.json", _read_evaluation, None, EVALUATED)
    first, last = optional(
        "online.sqlite", lambda file: _read_ends(file, videos), ((), ()), "practice keeps its trajectories there"
    )
    return PracticeRecord(
        path, path.parent.name, recipe, reward_source, seed, provenance, done.get("seconds"),
        tuple(map(_trial, rows)), before, after, first, last, missing,
    )  # fmt: skip


def stage_records(run_root: Path) -> dict[str, dict[str, Any]]:
    """Return what is known of how a run was made, by stage: of ``data`` what its store says, of the offline stages
    ``config.json`` and ``done.json``, merged."""
    records = {}
    store = run_root / "data" / "trajectories.sqlite"
    if store.exists():
        records["data"] = _read_collection(store)
    for stage in STAGES:
        files = [run_root / stage / name for name in ("config.json", "done.json")]
        merged: dict[str, Any] = {}
        for file in files:
            if file.exists():
                merged |= _read_json(file)
        if merged:
            records[stage] = merged
    return records


def find_value(tree: Any, name: str) -> Any:
    """Return the first value under a key anywhere in nested mappings, or None."""
    if not isinstance(tree, Mapping):
        return None
    if tree.get(name) is not None:
        return tree[name]
    return next((found for branch in tree.values() if (found := find_value(branch, name)) is not None), None)


def _read_collection(path: Path) -> dict[str, Any]:
    with TrajectoryStore(path) as store:
        metadata = store.metadata
    config = metadata.get("collect", {})
    return {**metadata.get("provenance", {}), "config": config, "seed": config.get("seed", "–")}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}): delete it and repeat the stage that writes it") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, expected an object: repeat the stage that writes it")
    return value


def _read_evaluation(path: Path) -> Evaluation:
    return Evaluation.from_json(_read_json(path))


def _read_rows(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]  # a torn last line is not a trial


def _trial(row: Mapping[str, Any]) -> PracticeTrial:
    tip = row.get("tip_at_success")
    return PracticeTrial(
        trial=int(row["trial"]),
        steps=int(row["steps"]),
        judged=bool(row["success"]),
        true=row.get("true_success"),
        max_probability=row.get("max_probability"),
        true_when_judged=row.get("true_at_success"),
        distance_when_judged=None if tip is None else float(np.linalg.norm(tip)),
        max_force=row.get("max_force"),
        dislodged=bool(row.get("dislodged", False)),
    )


def _read_ends(path: Path, count: int) -> tuple[tuple[tuple[int, Trajectory], ...], tuple[tuple[int, Trajectory], ...]]:
    with TrajectoryStore(path) as store:
        half = min(count, len(store) // 2) or len(store)
        first = range(half)
        last = range(max(half, len(store) - count), len(store))
        return tuple((i + 1, store.read(i)) for i in first), tuple((i + 1, store.read(i)) for i in last)


def _said(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Recipe and reward, as the practice's ``config.json`` says."""
    recipe = provenance.get("config", {}).get("recipe")
    return {"recipe": recipe["recipe"], "reward": recipe["practice"]["reward"]} if isinstance(recipe, dict) else {}


def _parse_name(name: str, row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Split ``<recipe>-<reward source>[-redteam][-<guard>]-s<seed>``; a row's own words for recipe and reward win."""
    stem, _, seed = name.rpartition("-s")
    stem = (stem or name).removesuffix("-alarm").removesuffix("-gate").removesuffix("-redteam")
    source = GROUND_TRUTH if stem.endswith(GROUND_TRUTH) else stem.rpartition("-")[2]
    recipe = stem.removesuffix(source).rstrip("-") or stem
    return str(row.get("recipe", recipe)), str(row.get("reward", source)), seed
