"""Roll-outs of a first policy, and what a policy learns from frames whose tip is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lotj import offline
from lotj.algos.iql import CriticConfig, CriticNetwork
from lotj.algos.policy import ImagePolicy, PolicyConfig, PolicyNetwork
from lotj.collect import CollectConfig, collect
from lotj.dagger import SOURCE, DaggerConfig, roll_out, train_first_policy
from lotj.data.replay import TransitionDataset
from lotj.data.store import TrajectoryStore
from lotj.nets.encoder import EncoderConfig
from lotj.offline import Known, PolicyStage
from lotj.relabel import expert_actions
from lotj.rollout import policy_rng, rollout
from lotj.sim.env import InsertionEnv
from lotj.sim.expert import Expert, ExpertConfig
from lotj.types import Trajectory

METRES = np.array([0.005, 0.005, 0.005])
ENCODER = EncoderConfig(4, 32)
CONNECTORS = ("usb-a", "rj45")
STAGE = PolicyStage(PolicyConfig(ENCODER), steps=4, batch_size=8, relabel=True)


def network() -> PolicyNetwork:
    torch.manual_seed(0)
    return PolicyNetwork(PolicyConfig(ENCODER), 3, 2)


# -- what the expert would have done -------------------------------------------------------------------------------


def test_expert_actions_in_closed_form() -> None:
    """To the axis, at most a step; down within 1 mm of it; a little up where it is pressed beside; unknown stays so."""
    tip = np.array([[0.02, 0, 0.03], [0.002, -0.001, 0.02], [0.002, -0.001, 0.02], [0.0009, 0, 0.02], [np.nan] * 3])
    force = np.array([np.nan, 0.9, 1.1, 9.0, 0.0])
    found = expert_actions(tip.astype(np.float32), force.astype(np.float32), METRES)
    wanted = [[-1, 0, 0], [-0.4, 0.2, 0], [-0.4, 0.2, 0.4], [-0.18, 0, -1], [np.nan] * 3]
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("wrong_place", [0.0, 0.006])
def test_they_are_the_scripted_experts(wrong_place: float) -> None:
    """In the simulator, on trials of a noisy expert and of one that presses beside the hole: what the expert with the
    socket's full pose would have done. The socket's turn of up to .02 rad and the edge of contact are what differs."""
    env = InsertionEnv("usb-b", "sawyer-a", "mixed", image_size=16, images=False, ground_truth=True)
    errors, downs = [], []
    for seed in range(6):
        acting, knowing = Expert(env, ExpertConfig(0.3, wrong_place=wrong_place)), Expert(env, ExpertConfig(0.0))
        wanted: list[Any] = []

        class Both:
            def reset(self) -> None:
                acting.reset()  # noqa: B023
                knowing.reset()  # noqa: B023

            def act(self, observation: Any, rng: Any, explore: bool = False) -> Any:
                wanted.append(knowing.act(observation, np.random.default_rng(0)))  # noqa: B023
                return acting.act(observation, rng)  # noqa: B023

        done = rollout(env, Both(), policy_rng(seed), seed=seed)
        found = expert_actions(
            done.privileged["tip_in_socket"][:-1], done.privileged["force"][:-1].ravel(), env.action_scale
        )
        errors.append(np.abs(found - wanted)[:, :2])
        downs.append((found[:, 2] < -0.5) == (np.array(wanted)[:, 2] < -0.5))
    env.close()
    assert np.concatenate(errors).max() < 0.1
    assert np.concatenate(downs).mean() > 0.95


# -- lessons -------------------------------------------------------------------------------------------------------


def lesson_store(path: Path, scale: bool = True) -> TrajectoryStore:
    """Of each connector one expert without a known tip, one wrong place with a known tip, one without."""
    rng = np.random.default_rng(0)
    with TrajectoryStore(path, "a") as writing:
        if scale:
            writing.set_metadata("action_scale", METRES.tolist())
        for connector in CONNECTORS:
            for source, known in (("expert", False), ("wrong-place", True), ("wrong-place", False)):
                tip = np.tile(np.float32([0.002, 0, 0.02]), (3, 1))
                privileged = {"success": np.zeros(3, bool), "force": np.zeros(3, np.float32)}
                writing.append(
                    Trajectory(
                        rng.integers(0, 256, (3, 32, 32, 3), np.uint8), np.zeros((3, 0), np.float32),
                        np.full((2, 3), 0.7, np.float32), np.zeros(2, np.float32), False, True,
                        connector, "sawyer-a", len(writing), source,
                        privileged | ({"tip_in_socket": tip} if known else {}),
                    )
                )  # fmt: skip
    return TrajectoryStore(path)


def test_what_is_known_is_relabelled_and_what_is_not_is_weighed_by_the_critic(tmp_path: Path) -> None:
    """A frame whose tip is known teaches the expert's action with weight 1, whoever acted; of the others only the
    sources worth imitating teach what was done, with Eq. 3's weight."""
    torch.manual_seed(0)
    critic = CriticNetwork(CriticConfig(ENCODER), 3)
    with lesson_store(tmp_path / "t.sqlite") as store:
        dataset = TransitionDataset(store, CONNECTORS)
        rows, action, weight = offline._lessons(STAGE, dataset, critic)
        relabelled = dataset.source[rows] == "wrong-place"
        assert relabelled.tolist() == [False, False, True, True] * 2
        np.testing.assert_allclose(action[relabelled], np.tile([-0.4, 0, 0], (4, 1)), atol=1e-6)
        np.testing.assert_allclose(action[~relabelled], 0.7)
        assert weight[relabelled].tolist() == [1.0] * 4
        plain = offline.transition_weights(dataset, critic, STAGE.model)
        assert torch.equal(weight[~relabelled], plain[rows[~relabelled]]) and not (weight[~relabelled] == 1.0).any()
        _, action, weight = offline._lessons(replace(STAGE, relabel=False), dataset, None)
        assert torch.equal(action, torch.full((4, 3), 0.7)) and torch.equal(weight, torch.ones(4))


def test_a_store_that_does_not_say_what_an_action_moves_is_refused(tmp_path: Path) -> None:
    with (
        lesson_store(tmp_path / "t.sqlite", scale=False) as store,
        pytest.raises(ValueError, match=r"action_scale.*relabel"),
    ):
        offline._lessons(STAGE, TransitionDataset(store, CONNECTORS), None)


# -- roll-outs -----------------------------------------------------------------------------------------------------


@pytest.fixture
def scripted(tmp_path: Path) -> Path:
    path = tmp_path / "t.sqlite"
    collect(CollectConfig(CONNECTORS, trajectories=2, image_size=32), path, workers=1)
    return path


def contents(path: Path) -> list[tuple[Any, ...]]:
    with TrajectoryStore(path) as store:
        read = [store.read(i) for i in range(len(store))]
    return [(t.connector, t.robot, t.seed, t.source, t.action.tobytes(), t.image.tobytes()) for t in read]


def test_roll_outs_join_the_store_and_continue_after_a_kill(scripted: Path, tmp_path: Path) -> None:
    """Every connector by every cell in turn, labelled by the simulator; interrupted after any trial and repeated, the
    store is the one of a run that was not; repeated once more, nothing changes."""
    config = DaggerConfig(trials=3)
    before, other = contents(scripted), tmp_path / "other.sqlite"
    other.write_bytes(scripted.read_bytes())
    roll_out(config, network(), CONNECTORS, ("sawyer-a", "sawyer-b"), 0, scripted, workers=1)
    whole = contents(scripted)
    assert whole[: len(before)] == before
    rolled = whole[len(before) :]
    assert {row[3] for row in rolled} == {SOURCE}
    assert [(row[0], row[1]) for row in rolled] == [
        (connector, robot) for connector in CONNECTORS for robot in ("sawyer-a", "sawyer-a", "sawyer-b")
    ]
    assert len({row[2] for row in whole}) == len(whole)
    with TrajectoryStore(scripted) as store:
        for index in range(len(before), len(store)):
            trial = store.read(index)
            assert np.array_equal(trial.reward > 0, trial.privileged["success"][1:].astype(bool).ravel())

    class Kill(Exception):
        pass

    def killed(done: int, total: int) -> None:
        assert total == 6
        if done == 1:  # in the middle of a task: what it rolled is rolled again and not stored twice
            raise Kill

    with pytest.raises(Kill):
        roll_out(config, network(), CONNECTORS, ("sawyer-a", "sawyer-b"), 0, other, workers=1, progress=killed)
    assert 0 < len(contents(other)) - len(before) < 6
    for _ in range(2):
        roll_out(config, network(), CONNECTORS, ("sawyer-a", "sawyer-b"), 0, other, workers=1)
        assert contents(other) == whole


def test_a_roll_out_is_the_policys_own_doing_with_noise(scripted: Path) -> None:
    """Without noise, the trial that the policy makes of the same seed."""
    config = DaggerConfig(trials=1, exploration_std=0.0)
    roll_out(config, network(), ("usb-a",), ("sawyer-a",), 0, scripted, workers=1)
    with TrajectoryStore(scripted) as store:
        rolled = store.read(len(store) - 1)
    env = InsertionEnv("usb-a", "sawyer-a", "mixed", image_size=32, ground_truth=True)
    rng = policy_rng(rolled.seed)
    rng.uniform()
    again = rollout(env, ImagePolicy(network()), rng, seed=rolled.seed)
    env.close()
    assert np.array_equal(again.action, rolled.action) and np.array_equal(again.image, rolled.image)


def test_the_first_policy_is_kept_when_the_store_has_grown(scripted: Path, tmp_path: Path) -> None:
    """Roll-outs change what a policy would be trained on; the one that made them stays."""
    out, known, config = tmp_path / "first", Known(CONNECTORS, ("bnc",)), DaggerConfig(trials=1, steps=3)
    with TrajectoryStore(scripted) as store:
        train_first_policy(config, STAGE, store, known, out, 0)
    first = offline.load_policy(out)
    roll_out(config, first, CONNECTORS, ("sawyer-a",), 0, scripted, workers=1)
    with TrajectoryStore(scripted) as store:
        train_first_policy(config, STAGE, store, known, out, 0)
    kept = offline.load_policy(out)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), kept.state_dict().values()))


def test_counts_are_checked() -> None:
    with pytest.raises(ValueError, match="trials must not be negative and steps at least 1, got -1 and 2000"):
        DaggerConfig(trials=-1)
