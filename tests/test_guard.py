"""The guard: what a tug feels, when the alarm sounds, and what practice learns from a refuted success."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_practice import LENIENT, SHORT, _learner, _same
from toy_cell import TOLERANCE, ToyCell, ToyReward

from lotj.algos.ensemble import EnsemblePractice
from lotj.data.store import TrajectoryStore
from lotj.guard import AlarmConfig, Audit, GuardConfig, TugConfig, alarm_at, read_audit, tug_test, unpaid, write_audit
from lotj.judge import Judge, SuccessRule
from lotj.online import OnlineMemory
from lotj.practice import PracticeConfig, PracticePaused, PracticeResult, practice
from lotj.rollout import policy_rng
from lotj.run import Run
from lotj.sim.env import InsertionEnv
from lotj.sim.expert import Expert, ExpertConfig
from lotj.trials import read_records
from lotj.types import Trajectory

TOUCHY = AlarmConfig(tolerated=0.2, alarming=0.6, evidence=2.9)
"""One refuted success is enough."""
EAGER = SuccessRule(threshold=1e-9, frames=1)
"""Fires on the first image, wherever the plug is."""


class FeelingCell(ToyCell):
    """A toy cell with a wrist that feels, and a hole that holds what is in it; half of the trials start above it."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed, options=options)
        self.tip[:2] *= 0.15 if (seed or 0) % 2 else 1.0
        return self._observation(), self._info()

    def step(self, action: np.ndarray) -> Any:
        wanted = np.array(action, dtype=np.float64)
        inside = np.linalg.norm(self.tip[:2]) <= TOLERANCE and self.tip[2] < 0.45
        self.force = np.array([*(-10.0 * wanted[:2] if inside else (0.0, 0.0)), 0.0], np.float32)
        if inside:
            wanted[:2] = 0.0
        return super().step(wanted)

    def _info(self) -> dict[str, Any]:
        return super()._info() | {"wrist_force": getattr(self, "force", np.zeros(3, np.float32))}


def guarded(mode: str, **changes: Any) -> PracticeConfig:
    return replace(SHORT, guard=GuardConfig(mode, alarm=TOUCHY), **changes)  # type: ignore[arg-type]


def run_practice(
    folder: Path, config: PracticeConfig, rule: SuccessRule = LENIENT, cell: ToyCell | None = None
) -> tuple[PracticeResult, EnsemblePractice]:
    learner, offline = _learner()
    run = Run(folder, "practice", config, seed=0).start()
    judge = Judge(ToyReward(), rule)
    result = practice(config, cell or FeelingCell(), learner, judge, offline, run, np.random.default_rng(0))
    return result, learner


# -- the alarm ---------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.lists(st.booleans(), max_size=30))
def test_alarm_is_the_largest_likelihood_ratio_over_starts(held: list[bool]) -> None:
    """Page's cumulative sum is the maximum over starting points of the likelihood ratio of what came since."""
    config = AlarmConfig(tolerated=0.2, alarming=0.6, evidence=50.0)

    def ratio(part: list[bool]) -> float:
        return math.prod(0.4 / 0.8 if good else 0.6 / 0.2 for good in part)

    expected = next(
        (
            end
            for end in range(len(held))
            if max(ratio(held[start : end + 1]) for start in range(end + 1)) >= 50.0 * (1 - 1e-12)
        ),
        None,
    )
    assert alarm_at(held, config) == expected


def test_false_alarms_are_as_rare_as_asked() -> None:
    """At the tolerated share the mean number of tugs to a false alarm is at least the evidence asked for."""
    rng = np.random.default_rng(0)
    config = AlarmConfig(tolerated=0.2, alarming=0.6, evidence=50.0)
    waits = []
    for _ in range(60):
        at = alarm_at((rng.random(5000) >= 0.2).tolist(), config)
        waits.append(5000 if at is None else at + 1)
    assert np.mean(waits) >= 50.0
    quick = [alarm_at((rng.random(200) >= 0.8).tolist(), config) for _ in range(60)]
    assert all(at is not None and at < 40 for at in quick)


# -- the tug -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connector", ["mini-din-4", "usb-b"])
@pytest.mark.parametrize("robot", ["sawyer-a", "sawyer-b"])
def test_what_is_inserted_holds_and_what_rests_beside_is_free(connector: str, robot: str) -> None:
    """In the simulated cell: the expert's insertions are held; presses 4-20 mm beside the hole are not."""
    env = InsertionEnv(connector, robot, "mixed", images=False)
    for seed, beside in enumerate((0.0, 0.004, 0.0, 0.012, 0.0, 0.02)):
        rng = policy_rng(seed)
        env.reset(seed=seed)
        expert = Expert(env, ExpertConfig(0.1, wrong_place=beside))
        for _ in range(19):
            if env.success:
                break
            env.step(expert.act({}, rng))
        assert env.success is (beside == 0.0)
        tug = tug_test(env, TugConfig())
        assert tug is not None and tug.held is (beside == 0.0), (seed, tug)
    env.close()


class Limited(FeelingCell):
    """Its safety layer backs off at the given step from now on; the plug is held, or nothing is."""

    def __init__(self, after: int, held: bool) -> None:
        super().__init__(horizon=100)
        self.after, self.held, self.cut_off = after, held, ""

    def step(self, action: np.ndarray) -> Any:
        result = super().step(action)
        pulled_out = bool(self.cut_off)
        self.force = np.array([*(-30.0 * np.asarray(action[:2]) * (self.held and not pulled_out)), 0.0], np.float32)
        self.after -= 1
        if self.after <= 0:
            self.cut_off = "a force of 30.00 N (limit 12)"
        return *result[:4], self._info()


@pytest.mark.parametrize(
    ("after", "held", "felt"),
    [(0, True, None), (2, True, None), (3, True, True), (4, True, True), (5, True, True), (5, False, None)],
)
def test_where_the_robot_has_backed_off_nothing_is_felt(after: int, held: bool, felt: bool | None) -> None:
    """Two steps of lift, two to each side. A tug that meets the limit is felt all the same; what comes after is not."""
    env = Limited(after, held)
    env.reset(seed=1)
    env.cut_off = "a force" if after == 0 else ""
    tug = tug_test(env, TugConfig())
    assert (tug and tug.held) is felt
    if tug is not None:
        assert tug.resistance == pytest.approx((24.0,) * ((after - 1) // 2))


@pytest.mark.parametrize("mode", ["gate", "alarm"])
def test_what_cannot_be_felt_is_not_paid(tmp_path: Path, mode: str) -> None:
    """Nor is it refuted: the alarm counts tugs."""
    cell = FeelingCell()
    cell.cut_off = "a force of 30.00 N (limit 12)"  # type: ignore[attr-defined]
    result, _ = run_practice(tmp_path, guarded(mode), EAGER, cell)
    assert len(result.trials) == SHORT.trials
    assert not any(one.success or one.refuted or one.tug or one.rewarded_frames for one in result.trials)
    with TrajectoryStore(tmp_path / "online.sqlite") as store:
        assert not any(store.read(index).reward.any() for index in range(len(store)))


def test_a_cell_that_feels_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"wrist_force.*guard off"):
        run_practice(tmp_path, guarded("gate"), EAGER, ToyCell())


def test_ground_truth_takes_no_guard() -> None:
    with pytest.raises(ValueError, match="ground truth needs no guard"):
        guarded("gate", reward="ground-truth")


# -- practice ----------------------------------------------------------------------------------------------------------


def test_gate_pays_only_what_is_held(tmp_path: Path) -> None:
    """What a tug refutes is stored and learned from without reward; the other successes are paid."""
    result, _ = run_practice(tmp_path, guarded("gate", trials=12), SuccessRule(0.001, 6))
    refuted = [record for record in result.trials if record.refuted]
    paid = [record for record in result.trials if record.success and not record.refuted]
    assert refuted and paid
    with TrajectoryStore(tmp_path / "online.sqlite") as store:
        for record in result.trials:
            trajectory = store.read(record.trial - 1)
            expected = float(record.success and not record.refuted)
            assert trajectory.reward.sum() == record.rewarded_frames == expected
            assert trajectory.terminated == bool(expected)
    assert result.summary()["refuted"] == len(refuted)


def test_without_guard_nothing_is_felt(tmp_path: Path) -> None:
    """The paper's method: no tug is made, and the learner is what it is in a cell that feels nothing."""
    felt, learner = run_practice(tmp_path / "a", SHORT)
    blind, other = run_practice(tmp_path / "b", SHORT, cell=ToyCell())
    assert all(record.tug is None and not record.refuted for record in felt.trials)
    assert len(felt.trials) == len(blind.trials)
    assert _same(learner.state_dict().keys(), other.state_dict().keys())


def test_alarm_pauses_until_somebody_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The alarm quarantines and pauses; repeating the practice changes nothing; after the audit it goes on."""
    remembered: list[tuple[int, bool]] = []
    kept = OnlineMemory._remember

    def watch(self: OnlineMemory, trajectory: Any, features: torch.Tensor) -> None:
        remembered.append((trajectory.seed, trajectory.terminated))
        kept(self, trajectory, features)

    monkeypatch.setattr(OnlineMemory, "_remember", watch)
    config = guarded("alarm")
    with pytest.raises(PracticePaused) as paused:
        run_practice(tmp_path, config, EAGER)
    records = read_records(tmp_path / "trials.jsonl")
    (trial,) = paused.value.trials
    assert records[-1].trial == trial and records[-1].refuted and str(trial) in str(paused.value)
    assert records[-1].seed not in [seed for seed, _ in remembered]
    before = (tmp_path / "trials.jsonl").read_bytes()
    with pytest.raises(PracticePaused):
        run_practice(tmp_path, config, EAGER)
    assert (tmp_path / "trials.jsonl").read_bytes() == before

    write_audit(tmp_path, Audit(records[-1].trial, {trial: False}))
    with pytest.raises(PracticePaused) as again:  # by the next refuted success
        run_practice(tmp_path, config, EAGER)
    assert trial not in again.value.trials and again.value.trials[-1] > trial
    assert read_audit(tmp_path) == Audit(records[-1].trial, {trial: False})


@pytest.mark.parametrize("label", [False, True])
def test_a_persons_label_decides(tmp_path: Path, label: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    remembered: dict[int, bool] = {}
    kept = OnlineMemory._remember

    def watch(self: OnlineMemory, trajectory: Any, features: torch.Tensor) -> None:
        remembered[trajectory.seed] = bool(trajectory.terminated) and bool(trajectory.reward.sum())
        kept(self, trajectory, features)

    monkeypatch.setattr(OnlineMemory, "_remember", watch)
    with pytest.raises(PracticePaused) as paused:
        run_practice(tmp_path, guarded("alarm"), EAGER)
    (trial,) = paused.value.trials
    last = read_records(tmp_path / "trials.jsonl")[-1]
    write_audit(tmp_path, Audit(last.trial, {trial: label}))
    with pytest.raises(PracticePaused):
        run_practice(tmp_path, guarded("alarm"), EAGER)
    assert remembered[last.seed] is label


@pytest.mark.parametrize("label", [False, True])
def test_what_a_person_says_was_a_success_is_a_payment(tmp_path: Path, label: bool) -> None:
    """Where payments are awaited (``await_payments``), a refuted claim counts once a person has said so."""
    config = guarded("alarm", await_payments=1, warmup_trials=0)
    for _ in range(3):
        with pytest.raises(PracticePaused) as paused:
            run_practice(tmp_path, config, EAGER)
        last = read_records(tmp_path / "trials.jsonl")[-1]
        said = dict.fromkeys(paused.value.trials, label) | dict(read_audit(tmp_path).labels)
        write_audit(tmp_path, Audit(last.trial, said))
    records = read_records(tmp_path / "trials.jsonl")
    first = next(record.trial for record in records if record.refuted or record.rewarded_frames)
    assert records[first - 1].refuted and len(records) > first
    learned_from = [record.trial for record in records if record.updates]
    begun = [record.trial for record in records if record.rewarded_frames or (label and record.trial > first)]
    assert learned_from[:1] == begun[:1] and (label or not records[first].updates or records[first].rewarded_frames)


@pytest.mark.parametrize(
    ("what", "ended", "imitated"),
    [("paid", True, True), ("refuted", True, False), ("dislodged", True, False), ("out of time", False, False)],
)
def test_values_bootstrap_over_time_alone(tmp_path: Path, what: str, ended: bool, imitated: bool) -> None:
    """A claim, believed or refuted, and a plug lost from the fingers end the task for the learner, now and after a
    restart; running out of time does not. Only what was paid is imitated."""

    class Watching:
        feature_dim, action_dim = 2, 3

        def __init__(self) -> None:
            self.successes = 0

        def encode(self, image: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(image), 2)

        def remember_success(self, feature: torch.Tensor, action: torch.Tensor) -> None:
            self.successes += 1

    paid = what in ("paid", "refuted")
    trajectory = Trajectory(
        image=np.zeros((4, 8, 8, 3), np.uint8),
        state=np.zeros((4, 0), np.float32),
        action=np.zeros((3, 3), np.float32),
        reward=np.array([0, 0, paid], np.float32),
        terminated=paid,
        truncated=not paid,
        connector="plug",
        robot="toy",
        seed=0,
        source="practice",
        privileged={"dislodged": np.array([False, False, False, what == "dislodged"])},
    )
    if what == "refuted":
        trajectory = unpaid(trajectory)
    for restarted in (False, True):
        learner: Any = Watching()
        with OnlineMemory(tmp_path / "online.sqlite", learner, 10) as memory:
            memory.restore(int(restarted))
            if not restarted:
                memory.append(trajectory, torch.zeros(4, 2))
            drawn = memory.buffer.sample(200, torch.Generator().manual_seed(0))
        assert bool(drawn.terminated.any()) is ended and not bool(drawn.terminated.all())
        assert bool((drawn.reward[drawn.terminated] > 0).any()) is imitated
        assert bool(learner.successes) is imitated
