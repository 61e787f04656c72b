"""The online phase: the robot practises a connector that it has never seen, and rewards itself (Sec. V-C).

One trial after another: roll it out, let the judge label it, keep it, learn from it; with several cells, one in each
at a time (``lotj.fleet``). The robot never waits for the learner within a trial. Killed at any instant, practice
continues exactly from the last trial that was checkpointed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import gymnasium
import numpy as np
import torch

from lotj.algos.learner import Learner
from lotj.data.augment import Augment, AugmentConfig
from lotj.data.features import FeatureBuffer
from lotj.data.replay import mix
from lotj.files import append_json
from lotj.fleet import Cell, Fleet, LocalFleet, Rolled, Start
from lotj.guard import Audit, GuardConfig, alarm_at, read_audit, unpaid
from lotj.judge import Judge
from lotj.online import OnlineMemory
from lotj.trials import (
    RewardSource,
    TrialRecord,
    make_record,
    quarantined,
    truncate_records,
)
from lotj.types import StoppedError, Trajectory, later

Scenario = Literal["I", "II", "mixed"]
Starts = Scenario | Literal["own"]
"""``own``: wherever a cell that does not honour scenarios begins."""


@dataclass(frozen=True)
class PracticeConfig:
    """Settings of the online phase; exploration noise belongs to the learner's own config."""

    trials: int = 200
    """Trials in all; the paper's 200 take a robot about 50 minutes."""
    updates_per_step: int = 5
    """Gradient steps for each action of the trial just made."""
    warmup_trials: int = 4
    """First trials that are collected without updates."""
    await_payments: int = later(0)
    """No updates before so many trials have been paid: a reward that knows next to no success here teaches a good
    policy that what it does is worth nothing."""
    batch_size: int = 64
    """Transitions in a batch."""
    online_fraction: float | None = None
    """Share of online transitions in a batch; None is the recipe's own (``RecipeConfig.online_fraction``)."""
    online_views: int | None = None
    """Augmented versions that are kept of each online frame, beside the frame itself: frames are so few that critics
    learn them by heart. None is the recipe's own number (``RecipeConfig.online_views``)."""
    augment: AugmentConfig = AugmentConfig()
    """How those versions are augmented."""
    scenario: Starts = "mixed"
    """Where trials start; ``mixed`` draws I or II for each. ``lotj practice`` takes a cell's ``own`` where it must."""
    reward: RewardSource = "learned"
    """``ground-truth`` is a diagnostic and marks every output."""
    checkpoint_every_trials: int = 1
    """A kill costs at most this many trials, and at most a round more with several cells."""
    horizon: int = 20
    """Longest trial, in steps; sizes the online buffer. ``lotj practice`` takes the cell's own."""
    guard: GuardConfig = field(default_factory=GuardConfig)
    """Whether the robot feels for itself what its reward claims."""

    @property
    def online_frames(self) -> int:
        """Frames that all trials can have."""
        return self.trials * (self.horizon + 1)

    def __post_init__(self) -> None:
        for name in ("trials", "updates_per_step", "batch_size", "checkpoint_every_trials", "horizon"):
            if getattr(self, name) < 1:
                raise ValueError(f"PracticeConfig.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("warmup_trials", "await_payments"):
            if getattr(self, name) < 0:
                raise ValueError(f"PracticeConfig.{name} must not be negative, got {getattr(self, name)}")
        if self.online_views is not None and self.online_views < 0:
            raise ValueError(f"PracticeConfig.online_views must not be negative, got {self.online_views}")
        if self.online_fraction is not None and not 0.0 < self.online_fraction <= 1.0:
            raise ValueError(f"PracticeConfig.online_fraction must lie in (0, 1], got {self.online_fraction}")
        for name, known in (("scenario", ("I", "II", "mixed", "own")), ("reward", ("learned", "ground-truth"))):
            if getattr(self, name) not in known:
                raise ValueError(f"PracticeConfig.{name} must be one of {known}, got {getattr(self, name)!r}")
        if self.reward == "ground-truth" and self.guard.mode != "off":
            raise ValueError(
                f"PracticeConfig.guard.mode is {self.guard.mode!r}, but ground truth needs no guard: use 'off'"
            )


class PracticeResult(NamedTuple):
    """What practice leaves beside the learner it changed."""

    recipe: str
    reward: RewardSource
    trials: tuple[TrialRecord, ...]

    def summary(self) -> dict[str, Any]:
        """Counts for ``done.json``; ``true_successes`` is ground truth."""
        return {
            "recipe": self.recipe,
            "reward": self.reward,
            "diagnostic": self.reward == "ground-truth",
            "trials": len(self.trials),
            "steps": sum(record.steps for record in self.trials),
            "updates": sum(record.updates for record in self.trials),
            "predicted_successes": sum(record.success for record in self.trials),
            "true_successes": sum(bool(record.true_success) for record in self.trials),
            "dislodged": sum(record.dislodged for record in self.trials),
            "refuted": sum(record.refuted for record in self.trials),
        }


class PracticePaused(StoppedError):
    """The guard's alarm: the reward wrongly likes what the policy has found. What was practised is saved."""

    def __init__(self, folder: Path, trials: Sequence[int]) -> None:
        self.folder, self.trials = folder, tuple(trials)
        super().__init__(
            f"paused: the reward is not to be trusted here. In trials {', '.join(map(str, trials))} it saw success, "
            "but the plug was not held. They are quarantined: nothing is learned from them until a person has looked"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder, self.trials)


class PracticeRun(Protocol):
    """What practice needs of ``lotj.run.Run``, already started; the caller finishes it."""

    out_dir: Path

    def log(self, step: int, **metrics: float) -> None: ...
    def rewind(self, step: int) -> None: ...
    def save_checkpoint(self, state: Mapping[str, Any]) -> None: ...
    def load_checkpoint(self) -> dict[str, Any] | None: ...


def practice(
    config: PracticeConfig,
    env: gymnasium.Env[Any, Any],
    learner: Learner,
    judge: Judge | None,
    offline: FeatureBuffer,
    run: PracticeRun,
    rng: np.random.Generator,
    progress: Callable[[TrialRecord], None] | None = None,
) -> PracticeResult:
    """Practise in one cell of this process: ``practise_in_rounds``, whose round is then one trial.

    Args:
        config: settings.
        env: the connector to learn; it must not end trials on true success.
        learner: fitted (or about to be restored); it is changed in place.
        judge: rewards the robot; None only with ``reward="ground-truth"``.
        offline: encoded offline data, by this learner.
        run: as below.
        rng: as below.
        progress: told after each trial.

    Raises:
        ValueError: a judge that does not match ``config.reward``, and as below.
        PracticePaused: as below.
    """
    cell = Cell(env, learner, judge, config.reward, config.guard)
    return practise_in_rounds(config, LocalFleet([cell]), learner, offline, run, rng, progress)


def practise_in_rounds(
    config: PracticeConfig,
    fleet: Fleet,
    learner: Learner,
    offline: FeatureBuffer,
    run: PracticeRun,
    rng: np.random.Generator,
    progress: Callable[[TrialRecord], None] | None = None,
) -> PracticeResult:
    """Practise until ``config.trials`` trials are done, continuing what the run folder holds.

    A round is one trial in every cell, all with the same weights; then all of them are learned from, in the cells'
    order. Where the cells are makes no difference, how many there are does.

    Args:
        config: settings.
        fleet: the cells, which reward themselves as ``config.reward`` and ``config.guard`` say.
        learner: fitted (or about to be restored); it is changed in place.
        offline: encoded offline data, by this learner.
        run: receives ``metrics.jsonl``, ``trials.jsonl``, ``online.sqlite`` and the checkpoint.
        rng: drawn from once; every trial's randomness derives from that draw and the trial's number.
        progress: told of each trial after its round.

    Raises:
        ValueError: no share of online data, or a run folder that another seed or another number of cells began.
        PracticePaused: the guard's alarm has sounded, now or earlier, and nobody has audited the folder since.
    """
    if config.online_fraction is None:
        raise ValueError(
            "PracticeConfig.online_fraction is None: practice needs a share; RecipeConfig knows recipes' own"
        )
    seed = int(rng.integers(2**31))
    views, augment = config.online_views or 0, Augment(config.augment)
    with OnlineMemory(run.out_dir / "online.sqlite", learner, config.online_frames, views, augment) as memory:
        audit = read_audit(run.out_dir)
        records = _continue(config, run, learner, memory, seed, fleet.size, audit)
        if records is None:
            records = []
            run.log(0, **learner.prepare(offline))
            _checkpoint(run, config, learner, records, seed, fleet.size)
        _pause_if_alarmed(config, run, records, audit)
        while len(records) < config.trials:
            first = len(records) + 1
            trials = range(first, min(first + fleet.size, config.trials + 1))
            draws = [_draw(config, seed, trial) for trial in trials]
            rolled = fleet.roll(learner, [draw.start for draw in draws])
            for trial, draw, one in zip(trials, draws, rolled):
                paid = sum(record.rewarded_frames > 0 or audit.labels.get(record.trial, False) for record in records)
                updates, metrics = _learn(config, trial, one, learner, offline, memory, draw.generator, paid)
                scenario, (trajectory, _, history, tug) = draw.start.scenario, one
                record = make_record(config.reward, learner.name, trial, scenario, trajectory, history, updates, tug)
                records.append(record)
                run.log(trial, success=record.success, steps=record.steps, **metrics)
                append_json(run.out_dir / "trials.jsonl", record)
            due = any(trial % config.checkpoint_every_trials == 0 for trial in trials)
            if due or len(records) == config.trials or _alarm(config, records, audit):
                _checkpoint(run, config, learner, records, seed, fleet.size)
            if progress is not None:
                for record in records[first - 1 :]:
                    progress(record)
            _pause_if_alarmed(config, run, records, audit)
    return PracticeResult(learner.name, config.reward, tuple(records))


def _learn(
    config: PracticeConfig,
    trial: int,
    rolled: Rolled,
    learner: Learner,
    offline: FeatureBuffer,
    memory: OnlineMemory,
    generator: torch.Generator,
    paid: int,
) -> tuple[int, dict[str, float]]:
    """Keep a trial and take the updates that it brings; returns how many and the mean of their metrics. ``paid`` is
    how many trials before it were."""
    trajectory, refuted = rolled.trajectory, rolled.tug is not None and not rolled.tug.held
    learned = unpaid(trajectory) if refuted and config.guard.mode == "gate" else trajectory
    withheld = refuted and config.guard.mode == "alarm"
    memory.append(learned, rolled.features, learn=not withheld)
    paid += not refuted and bool(trajectory.reward.any())
    waits = trial <= config.warmup_trials or paid < config.await_payments
    updates = 0 if waits else config.updates_per_step * len(trajectory)
    assert config.online_fraction is not None
    metrics = []
    for _ in range(updates):
        batch = mix(offline, memory.buffer, config.batch_size, config.online_fraction, generator)
        metrics.append(learner.update(batch))
    return updates, _mean(metrics)


class _Draws(NamedTuple):
    start: Start
    generator: torch.Generator
    """Of batches."""


def _draw(config: PracticeConfig, seed: int, trial: int) -> _Draws:
    """A trial's randomness, from the run's seed and the trial's number alone: nothing to save, nothing to restore."""
    rng = np.random.default_rng([seed, trial])
    scenario = ("I", "II")[int(rng.integers(2))] if config.scenario == "mixed" else config.scenario
    env_seed, batch_seed = (int(number) for number in rng.integers(2**31, size=2))
    return _Draws(Start(scenario, env_seed, rng), torch.Generator().manual_seed(batch_seed))


def _alarm(config: PracticeConfig, records: Sequence[TrialRecord], audit: Audit) -> bool:
    """Whether the alarm sounds over the tugs since the last audit."""
    held = [not record.refuted for record in records if record.trial > audit.until and record.tug is not None]
    return config.guard.mode == "alarm" and alarm_at(held, config.guard.alarm) is not None


def _pause_if_alarmed(config: PracticeConfig, run: PracticeRun, records: Sequence[TrialRecord], audit: Audit) -> None:
    if _alarm(config, records, audit):
        raise PracticePaused(run.out_dir, quarantined(records, audit))


def _learned(
    config: PracticeConfig, records: Sequence[TrialRecord], audit: Audit
) -> Callable[[int, Trajectory], Trajectory | None]:
    """What is learned from a stored trial: nothing while it is quarantined, afterwards what the person said."""
    refuted = {record.trial for record in records if record.refuted and config.guard.mode == "alarm"}

    def learned(trial: int, stored: Trajectory) -> Trajectory | None:
        if trial not in refuted:
            return stored
        if trial not in audit.labels:
            return None
        return stored if audit.labels[trial] else unpaid(stored)

    return learned


def _continue(
    config: PracticeConfig,
    run: PracticeRun,
    learner: Learner,
    memory: OnlineMemory,
    seed: int,
    cells: int,
    audit: Audit,
) -> list[TrialRecord] | None:
    """Restore learner, memory and records from the last checkpoint; None where there is none."""
    state = run.load_checkpoint()
    trials = 0 if state is None else int(state["trial"])
    if state is not None:
        if state["seed"] != seed:
            raise ValueError(
                f"{run.out_dir} was begun with another rng (drew {state['seed']}, now {seed}): "
                "pass the same seed, or use another folder"
            )
        if (begun := state.get("cells", 1)) != cells:
            raise ValueError(
                f"{run.out_dir} was begun with {begun} cells, now there are {cells}: they would make other trials; "
                "name as many, or use another folder"
            )
        learner.load_state_dict(state["learner"])
    run.rewind(trials if state is not None else -1)
    records = truncate_records(run.out_dir / "trials.jsonl", trials)
    if len(records) != trials:
        raise ValueError(
            f"{run.out_dir}: the checkpoint stands at trial {trials}, but trials.jsonl holds {len(records)} lines; "
            "restore that file, or delete the folder to start over"
        )
    memory.restore(trials, _learned(config, records, audit))
    return None if state is None else records


def _checkpoint(
    run: PracticeRun, config: PracticeConfig, learner: Learner, records: Sequence[TrialRecord], seed: int, cells: int
) -> None:
    state = {"trial": len(records), "seed": seed, "reward": config.reward, "learner": learner.state_dict()}
    if cells > 1:
        state["cells"] = cells
    run.save_checkpoint(state)


def _mean(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each metric over a trial's updates."""
    return {name: float(np.mean([row[name] for row in metrics])) for name in (metrics[0] if metrics else ())}
