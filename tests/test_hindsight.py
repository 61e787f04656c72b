"""Labels in hindsight are the scripted expert's own actions, found without knowing where the socket is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lotj.hindsight import hindsight_actions
from lotj.rollout import policy_rng, rollout
from lotj.sim.env import InsertionEnv
from lotj.sim.expert import Expert, ExpertConfig
from lotj.types import Trajectory

METRES = np.array([0.005, 0.005, 0.005])


def trial(tcp: Any, force: Any = None, terminated: bool = True) -> Trajectory:
    steps = len(tcp) - 1
    sensed = {"tcp": np.asarray(tcp, np.float32)} | ({} if force is None else {"wrist_force": np.asarray(force)})
    return Trajectory(
        np.zeros((steps + 1, 2, 2, 3), np.uint8), np.zeros((steps + 1, 0), np.float32),
        np.full((steps, 3), 0.7, np.float32), np.zeros(steps, np.float32), terminated, not terminated,
        "plug", "cell", 0, "practice", sensed,
    )  # fmt: skip


def test_labels_in_closed_form() -> None:
    """Across by what is missing, at most a step; down within 1 mm of the axis, or where the walls of the hole hold
    the plug sideways; a little up where it is pressed on the face."""
    beside = (0.002, -0.001, 0.02)
    tcp = [(0.02, 0, 0.03), beside, beside, beside, (0.0009, 0, 0.02), (0, 0, 0)]
    force = np.zeros((6, 3))
    force[2], force[3] = (1.0, 0, 3.0), (3.0, 0, 1.0)
    found = hindsight_actions(trial(tcp, force), METRES)
    wanted = [[-1, 0, 0], [-0.4, 0.2, 0], [-0.4, 0.2, 0.4], [-0.4, 0.2, -1], [-0.18, 0, -1]]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    without = hindsight_actions(trial(tcp), METRES)
    assert without is not None and without[2].tolist() == pytest.approx([-0.4, 0.2, 0.0])


def test_a_hand_that_is_pulled_aside_at_the_end_does_not_tell_the_axis() -> None:
    """The last frame is 3 mm off the axis and feels it; the one before was free."""
    tcp = [(0.004, 0, 0.02), (0, 0, 0.01), (0, 0, 0.005), (0.003, 0, 0)]
    force = np.zeros((4, 3))
    force[3] = (5.0, 0, 0)
    found = hindsight_actions(trial(tcp, force), METRES)
    assert found is not None
    np.testing.assert_allclose(found, [[-0.8, 0, 0], [0, 0, -1], [0, 0, -1]], atol=1e-6)


def test_only_successes_with_a_known_pose_are_labelled() -> None:
    tcp = np.zeros((3, 3))
    assert hindsight_actions(trial(tcp, terminated=False), METRES) is None
    assert hindsight_actions(replace(trial(tcp), privileged={}), METRES) is None
    assert hindsight_actions(trial(tcp), METRES) is not None


def test_ground_truth_is_not_looked_at() -> None:
    plain = trial(np.cumsum(np.full((4, 3), -0.001), axis=0))
    lies = {"success": np.ones(4, bool), "tip_in_socket": np.full((4, 3), 9.0), "force": np.full(4, 99.0)}
    lied = replace(plain, privileged={**plain.privileged, **lies})
    assert np.array_equal(hindsight_actions(plain, METRES), hindsight_actions(lied, METRES))  # type: ignore[arg-type]


@pytest.mark.parametrize(("noise", "across", "down"), [(0.0, 0.06, 0.0), (0.4, 0.08, 0.1)])
def test_they_agree_with_the_expert_that_knows_the_socket(noise: float, across: float, down: float) -> None:
    """In the simulator, over trials of a noisy expert: the noise-free expert's action at each frame, from its ground
    truth, against the label from the tool's own positions."""
    env = InsertionEnv("usb-b", "sawyer-a", "mixed", image_size=16, images=False, ground_truth=True)
    errors, missed = [], []
    for seed in range(8):
        acting, knowing = Expert(env, ExpertConfig(noise)), Expert(env, ExpertConfig(0.0))
        wanted: list[np.ndarray] = []

        class Both:
            def reset(self) -> None:
                acting.reset()  # noqa: B023
                knowing.reset()  # noqa: B023

            def act(self, observation: Any, rng: Any, explore: bool = False) -> Any:
                wanted.append(knowing.act(observation, np.random.default_rng(0)))  # noqa: B023
                return acting.act(observation, rng)  # noqa: B023

        done = rollout(env, Both(), policy_rng(seed), seed=seed)
        found = hindsight_actions(done, env.action_scale)
        if found is not None:
            errors.append(np.abs(found - wanted)[:, :2])
            going = np.array(wanted)[:, 2] < -0.5
            missed.append(found[going, 2] > -0.5)
    env.close()
    assert len(errors) >= 6
    assert np.concatenate(errors).mean() < across
    assert np.concatenate(missed).mean() <= down
