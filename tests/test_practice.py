"""The online phase on a toy cell: what it reads, what it writes, that it resumes exactly, and that it improves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_cell import ToyCell, ToyExpert, ToyReward, straight_down, toy_encoder

from lotj.algos.ensemble import EnsembleConfig, EnsemblePractice
from lotj.data.augment import Augment, AugmentConfig
from lotj.data.features import FeatureBuffer
from lotj.data.replay import mix
from lotj.data.store import TrajectoryStore
from lotj.guard import GuardConfig
from lotj.judge import GroundTruthJudge, Judge, SuccessRule
from lotj.online import OnlineMemory, encode_frame
from lotj.practice import PracticeConfig, PracticePaused, PracticeResult, practice
from lotj.rollout import rollout
from lotj.run import Run, load_state
from lotj.trials import TrialRecord, read_records

SMALL = EnsembleConfig(components=24, actor_hidden=(32, 32), critic_hidden=(32, 32), prepare_updates=20, batch_size=16)


class LooseCell(ToyCell):
    """A wrist that never feels anything."""

    def _info(self) -> dict[str, Any]:
        return {**super()._info(), "wrist_force": np.zeros(3, np.float32)}


LATE = 0.1
"""A threshold that the first trials of a short run do not reach."""
LENIENT = SuccessRule(threshold=0.001, frames=1)
"""Fires beside the hole too, so that short runs have predicted successes to remember."""
SHORT = PracticeConfig(
    trials=6, updates_per_step=1, warmup_trials=1, batch_size=16, online_fraction=0.25, online_views=1
)


def _offline(learner: EnsemblePractice, trials: int = 40) -> FeatureBuffer:
    """Noisy expert trials of the toy, ended and paid by true success, and the learner fitted on their images."""
    cell = ToyCell(ends=True)
    expert = ToyExpert(cell)
    trajectories = [
        rollout(cell, expert, np.random.default_rng(i), explore=True, seed=i, source="expert") for i in range(trials)
    ]
    images = [torch.from_numpy(t.image).permute(0, 3, 1, 2) for t in trajectories]
    learner.fit(images)
    buffer = FeatureBuffer(sum(len(i) for i in images), learner.feature_dim, 3)
    for trajectory, image in zip(trajectories, images):
        action, reward = torch.from_numpy(trajectory.action), torch.from_numpy(trajectory.reward)
        buffer.add(learner.encode(image), action, reward, trajectory.terminated, domain=0)
    return buffer


def _learner(config: EnsembleConfig = SMALL) -> tuple[EnsemblePractice, FeatureBuffer]:
    learner = EnsemblePractice(config, [toy_encoder], straight_down, action_dim=3, seed=0)
    return learner, _offline(learner)


def _practise(
    folder: Path,
    config: PracticeConfig = SHORT,
    cell: ToyCell | None = None,
    stop_after: int | None = None,
    checkpoints: list[int] | None = None,
) -> tuple[PracticeResult | None, EnsemblePractice]:
    """Practise in a folder; ``stop_after`` dies after that trial's line and before its checkpoint is due to be read."""
    learner, offline = _learner()

    class Killed(Exception):
        pass

    class DyingRun(Run):
        def save_checkpoint(self, state: Mapping[str, Any]) -> None:
            if stop_after is not None and state["trial"] >= stop_after:
                raise Killed
            if checkpoints is not None:
                checkpoints.append(state["trial"])
            super().save_checkpoint(state)

    run = DyingRun(folder, "practice", config, seed=0).start()
    judge = Judge(ToyReward(), LENIENT) if config.reward == "learned" else None
    try:
        result = practice(config, cell or ToyCell(), learner, judge, offline, run, np.random.default_rng(0))
    except Killed:
        return None, learner
    return result, learner


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(_same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(_same(a, b) for a, b in zip(first, second))
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else bool(first == second)


@pytest.mark.parametrize(("stop_after", "every"), [(1, 1), (4, 1), (6, 1), (4, 2), (6, 4)])
def test_killed_and_resumed_is_uninterrupted(tmp_path: Path, stop_after: int, every: int) -> None:
    """Killed after a trial was stored and learned from but before its checkpoint, practice continues bit for bit:
    parameters, optimizer, generator, trials.jsonl and stored trajectories are those of a run never interrupted."""
    config = replace(SHORT, checkpoint_every_trials=every)
    whole, learner = _practise(tmp_path / "whole", config)
    killed, _ = _practise(tmp_path / "killed", config, stop_after=stop_after)
    assert killed is None
    resumed_at: list[int] = []
    resumed, other = _practise(tmp_path / "killed", config, checkpoints=resumed_at)
    assert resumed_at[0] == stop_after  # it continued from the last checkpoint, and did not start over
    assert whole is not None and resumed == whole
    assert _same(learner.state_dict(), other.state_dict())
    texts = [(tmp_path / name / "trials.jsonl").read_text() for name in ("whole", "killed")]
    assert texts[0] == texts[1] and len(texts[0].splitlines()) == 6
    with (
        TrajectoryStore(tmp_path / "whole/online.sqlite") as a,
        TrajectoryStore(tmp_path / "killed/online.sqlite") as b,
    ):
        assert len(a) == len(b) == 6
        assert all(np.array_equal(a.read(i).image, b.read(i).image) for i in range(6))
    assert sum(record.success for record in whole.trials) >= 2  # or nothing remembered would be told again
    again, same = _practise(tmp_path / "killed", config)  # a finished practice is only read
    assert again == whole and _same(learner.state_dict(), same.state_dict())


def test_killed_while_learning_is_uninterrupted(tmp_path: Path) -> None:
    """Killed in the middle of a trial's updates, when the store holds a trial of which nothing else knows yet."""
    whole, learner = _practise(tmp_path / "whole")

    class Killed(Exception):
        pass

    dying, offline = _learner()
    update, left = dying.update, iter(range(12))

    def die(batch: Any) -> dict[str, float]:
        if next(left, None) is None:
            raise Killed
        return update(batch)

    dying.update = die  # type: ignore[method-assign]
    run = Run(tmp_path / "killed", "practice", SHORT, seed=0).start()
    with pytest.raises(Killed):
        judge = Judge(ToyReward(), LENIENT)
        practice(SHORT, ToyCell(), dying, judge, offline, run, np.random.default_rng(0))
    with TrajectoryStore(tmp_path / "killed/online.sqlite") as store:
        assert len(store) == len((tmp_path / "killed/trials.jsonl").read_text().splitlines()) + 1
    resumed, other = _practise(tmp_path / "killed")
    assert resumed == whole and _same(learner.state_dict(), other.state_dict())


def test_self_reward_never_reads_ground_truth(tmp_path: Path) -> None:
    """Random garbage in place of all ground truth gives bit-identical learning, and other privileged records."""
    clean, learner = _practise(tmp_path / "clean")
    noisy, other = _practise(tmp_path / "noisy", cell=ToyCell(garbage=True))
    assert _same(learner.state_dict(), other.state_dict())
    assert clean is not None and noisy is not None
    privileged = set(clean.trials[0].privileged)
    for a, b in zip(clean.trials, noisy.trials):
        assert all(getattr(a, n) == getattr(b, n) for n in TrialRecord.__dataclass_fields__ if n not in privileged)
    assert any(getattr(clean.trials[0], n) != getattr(noisy.trials[0], n) for n in privileged)


def test_ground_truth_cannot_come_in_by_accident(tmp_path: Path) -> None:
    """A learned reward refuses the diagnostic judge or none; the diagnostic refuses a judge and marks its outputs."""
    learner, offline = _learner()
    for reward, judge in (
        ("learned", None),
        ("learned", GroundTruthJudge()),
        ("ground-truth", Judge(ToyReward(), SuccessRule())),
    ):
        run = Run(tmp_path / "x", "practice", {}, seed=0).start()
        with pytest.raises(ValueError, match=reward):
            config = replace(SHORT, reward=reward)  # type: ignore[arg-type]
            practice(config, ToyCell(), learner, judge, offline, run, np.random.default_rng(0))  # type: ignore[arg-type]
    result, _ = _practise(tmp_path / "truth", replace(SHORT, reward="ground-truth"))
    assert result is not None and result.summary()["diagnostic"] is True
    rows = [json.loads(line) for line in (tmp_path / "truth/trials.jsonl").read_text().splitlines()]
    assert {row["reward"] for row in rows} == {"ground-truth"}
    _practise(tmp_path / "learned")
    for name, reward, source in (
        ("truth", "ground-truth", "practice-ground-truth"),
        ("learned", "learned", "practice"),
    ):
        with TrajectoryStore(tmp_path / name / "online.sqlite") as store:
            assert set(store.index.source.tolist()) == {source}
        assert load_state(tmp_path / name / "checkpoint.safetensors")["reward"] == reward
    assert all(row["success"] == row["true_success"] for row in rows)


def test_a_line_a_trial(tmp_path: Path) -> None:
    """trials.jsonl agrees with the stored trajectories; updates are 5 a step after the warm-up; I and II both occur."""
    cell = ToyCell()
    _practise(tmp_path, replace(SHORT, trials=12, updates_per_step=2, warmup_trials=3), cell)
    rows = [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    assert [row["trial"] for row in rows] == list(range(1, 13)) and {row["recipe"] for row in rows} == {"ensemble"}
    assert [row["scenario"] for row in rows] == [options["scenario"] for options in cell.options if options]
    assert {row["scenario"] for row in rows} == {"I", "II"} and len({row["seed"] for row in rows}) == 12
    with TrajectoryStore(tmp_path / "online.sqlite") as store:
        for index, row in enumerate(rows):
            trajectory = store.read(index)
            assert row["steps"] == len(trajectory) and row["seed"] == trajectory.seed
            assert row["success"] == trajectory.terminated and row["rewarded_frames"] == int(trajectory.reward.sum())
            assert row["updates"] == (0 if index < 3 else 2 * len(trajectory))
            assert row["max_probability"] == pytest.approx(float(ToyReward().probability(trajectory.image[1:]).max()))
            assert (row["tip_at_success"] is not None) == row["success"]
            assert len(row["tips_above"]) == row["above_frames"]
            np.testing.assert_allclose(row["max_force"], len(trajectory))


@pytest.mark.parametrize(
    ("threshold", "refuted", "awaited"), [(LATE, False, 1), (0.01, False, 2), (1.0, False, 1), (0.001, True, 1)]
)
def test_nothing_is_learned_before_something_was_paid(
    tmp_path: Path, threshold: float, refuted: bool, awaited: int
) -> None:
    """Updates begin with the trial whose payment was awaited, and go on; where none ever is paid, claimed or not, the
    policy stays what it was."""
    config = replace(SHORT, trials=12, await_payments=awaited)
    cell = ToyCell()
    if refuted:  # a tug that meets nothing refutes every claim
        config = replace(config, guard=GuardConfig(mode="gate"))
        cell = LooseCell()
    learner, offline = _learner()
    run = Run(tmp_path, "practice", config, seed=0).start()
    judge = Judge(ToyReward(), SuccessRule(threshold, 1))
    result = practice(config, cell, learner, judge, offline, run, np.random.default_rng(0))
    paid = [bool(record.rewarded_frames) for record in result.trials]
    begun = [sum(paid[: trial + 1]) >= awaited and trial >= config.warmup_trials for trial in range(len(paid))]
    assert [record.updates for record in result.trials] == [
        record.steps if learns else 0 for record, learns in zip(result.trials, begun)
    ]
    assert any(paid) is (threshold < 1 and not refuted) and any(record.success for record in result.trials) is (
        threshold < 1
    )
    assert not any(paid) or (any(begun) and begun.index(True) > config.warmup_trials)


def test_a_quarantined_claim_is_no_payment(tmp_path: Path) -> None:
    """Under the alarm nothing is learned from what a tug refuted, until practice pauses."""
    config = replace(SHORT, trials=12, await_payments=1, guard=GuardConfig(mode="alarm"))
    learner, offline = _learner()
    run = Run(tmp_path, "practice", config, seed=0).start()
    with pytest.raises(PracticePaused):
        practice(config, LooseCell(), learner, Judge(ToyReward(), LENIENT), offline, run, np.random.default_rng(0))
    records = read_records(tmp_path / "trials.jsonl")
    refuted = [record for record in records if record.refuted and record.trial > config.warmup_trials]
    assert refuted and not any(record.updates for record in records)


@pytest.mark.parametrize("views", [0, 2])
def test_each_frame_is_encoded_once(tmp_path: Path, views: int) -> None:
    """T steps cost T + 1 encodings, and each augmented version one of the whole trial; exactly the rewarded trials are
    told to the learner, each version with what it did."""
    learner, offline = _learner()
    counted: list[int] = []
    encode = learner.encode
    learner.encode = lambda image: counted.append(len(image)) or encode(image)  # type: ignore[method-assign, func-returns-value]
    told: list[np.ndarray] = []
    learner.remember_success = lambda feature, action: told.append(action.numpy())  # type: ignore[method-assign]
    run = Run(tmp_path, "practice", {}, seed=0).start()
    judge = Judge(ToyReward(), LENIENT)
    config = replace(SHORT, online_views=views)
    result = practice(config, ToyCell(), learner, judge, offline, run, np.random.default_rng(0))
    assert counted == [
        size for record in result.trials for size in [1] * (record.steps + 1) + [record.steps + 1] * views
    ]
    rewarded = [record.trial - 1 for record in result.trials if record.success]
    assert len(rewarded) == len(told) >= 2
    with TrajectoryStore(tmp_path / "online.sqlite") as store:
        for index, action in zip(rewarded, told):
            assert np.array_equal(np.tile(store.read(index).action, (views + 1, 1)), action)


def test_versions_of_an_online_frame(tmp_path: Path) -> None:
    """Beside each frame there are augmented versions of it, of the same trial and step; no two alike."""
    learner, _ = _learner()
    cell = ToyCell()
    trajectory = rollout(cell, ToyExpert(cell), np.random.default_rng(0), seed=3)
    image = torch.from_numpy(trajectory.image).permute(0, 3, 1, 2)
    with OnlineMemory(
        tmp_path / "o.sqlite", learner, 30, 2, Augment(AugmentConfig(0, brightness=0.1, contrast=0, saturation=0))
    ) as memory:
        memory.restore(0)
        memory.append(trajectory, learner.encode(image))
        kept = memory.buffer.features  # (T + 1, 3, F)
    assert torch.equal(kept[:, 0], learner.encode(image))
    apart = torch.cdist(kept[:, 1], kept[:, 0])  # of each version from each frame
    assert not torch.allclose(kept[:, 1], kept[:, 0]) and not torch.allclose(kept[:, 1], kept[:, 2])
    assert apart.diagonal().mean() < 0.5 * apart.mean()


def test_batches_keep_their_shares() -> None:
    """The paper's quarter of 64 is exactly 16 online rows; half is 32."""
    learner, offline = _learner()
    online = FeatureBuffer(20, learner.feature_dim, 3)
    image = np.zeros((32, 32, 3), np.uint8)
    online.add(encode_frame(learner, image).repeat(9, 1), torch.zeros(8, 3), torch.zeros(8), False)
    for fraction, count in ((0.25, 16), (0.5, 32)):
        batch = mix(offline, online, 64, fraction, torch.Generator().manual_seed(0))
        assert int(batch.online.sum()) == count and len(batch.online) == 64
        assert bool((batch.domain[batch.online] == -1).all()) and bool((batch.domain[~batch.online] == 0).all())


def test_practice_improves_the_policy(tmp_path: Path) -> None:
    """Paid by the truth, the recipe turns a policy that goes straight down into one that finds the hole."""
    config = EnsembleConfig(
        components=24, actor_hidden=(64, 64), critic_hidden=(64, 64), prepare_updates=300, bc_weight=0.1
    )
    learner, offline = _learner(config)

    def successes() -> int:
        cell, judge = ToyCell(horizon=8), GroundTruthJudge()
        reveal = judge.reveal_ground_truth
        trials = [
            rollout(cell, learner, np.random.default_rng(0), seed=1000 + i, judge=judge, reveal_ground_truth=reveal)
            for i in range(40)
        ]
        return sum(trial.terminated for trial in trials)

    before = successes()
    run = Run(tmp_path, "practice", {}, seed=0).start()
    settings = PracticeConfig(trials=24, online_fraction=0.5, reward="ground-truth", checkpoint_every_trials=24)
    practice(settings, ToyCell(), learner, None, offline, run, np.random.default_rng(0))
    after = successes()
    assert before <= 8 and after >= 28, (before, after)


def test_another_seed_may_not_continue_a_run(tmp_path: Path) -> None:
    """A folder begun with one rng refuses another: its trials would not be those that were promised."""
    _practise(tmp_path, stop_after=3)
    learner, offline = _learner()
    run = Run(tmp_path, "practice", SHORT, seed=0).start()
    with pytest.raises(ValueError, match="another rng"):
        practice(SHORT, ToyCell(), learner, Judge(ToyReward(), SuccessRule()), offline, run, np.random.default_rng(1))


@pytest.mark.parametrize(
    "bad", [{"trials": 0}, {"online_fraction": 0.0}, {"online_views": -1}, {"scenario": "III"}, {"reward": "human"}]
)
def test_config_is_validated(bad: dict[str, Any]) -> None:
    """Impossible settings name their field."""
    with pytest.raises(ValueError, match=next(iter(bad))):
        replace(SHORT, **bad)
