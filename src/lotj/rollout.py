"""The one loop that steps an environment, for collection, practice and evaluation alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

from lotj.types import PRIVILEGED, Observation, Policy, Trajectory

RECORDED = ("success", "tip_in_socket", "force")
"""Ground truth that is recorded beside a trajectory wherever the environment offers it."""
SENSED = ("tcp", "wrist_force")
"""The robot's own senses, recorded in the same place: the tool's position (3,) m, the plug's force on the fingers (3,)
N, both in the base frame. Policies do not see them."""


class Verdict(Protocol):
    """What a rollout needs of a judgement (``lotj.judge.Judgement``)."""

    @property
    def success(self) -> bool: ...


class TrialJudge(Protocol):
    """What a rollout needs of a judge (``lotj.judge.Judge``)."""

    def reset(self) -> None: ...

    def observe(self, image: NDArray[np.uint8]) -> Verdict: ...


def rollout(
    env: gymnasium.Env[Any, Any],
    policy: Policy,
    rng: np.random.Generator,
    *,
    explore: bool = False,
    seed: int | None = None,
    judge: TrialJudge | None = None,
    options: Mapping[str, Any] | None = None,
    source: str = "practice",
    on_step: Callable[[int, Observation, NDArray[np.float32]], None] | None = None,
    reveal_ground_truth: Callable[[bool], None] | None = None,
) -> Trajectory:
    """Run one trial.

    With a judge, reward and ``terminated`` come from it alone: ``reward[t]`` is 1 where it declares success on
    ``image[t + 1]``, and the trial ends there. Without one, both come from the environment. Ground truth
    (``info["privileged/..."]``) is recorded in ``Trajectory.privileged``; neither policy nor judge is given it.
    ``info["dislodged"]`` ends the trial as truncated and is recorded there too, as ``dislodged`` (T + 1,) bool,
    since a trajectory has no other place for it. Where a person took over, ``info["executed_action"]`` (A,) is
    recorded in place of the policy's action, and ``intervention`` (T + 1,) bool says on the way to which images.
    ``info["sent_action"]`` (A,), what a safety layer let through, is recorded in its place as well.

    Args:
        env: observations are ``{"image": (H, W, 3) uint8[, "state": (S,) float32]}``, actions (A,) in [-1, 1];
            trials must end by truncation at the latest.
        rng: the policy's randomness.
        seed: handed to ``env.reset`` and recorded (None is recorded as -1).
        options: handed to ``env.reset``.
        source: who acts, as recorded.
        on_step: called with (step, new observation, action) after each step.
        reveal_ground_truth: a diagnostic, called with true success before the judge sees an image. Never part
            of practice that claims to reward itself.

    Returns:
        The trial; a judge keeps its own history.

    Raises:
        ValueError: an action that is not finite or has the wrong shape, or an environment that ends a judged trial
        by itself.
    """
    observation, info = env.reset(seed=seed, options=None if options is None else dict(options))
    observation = _visible(observation)
    policy.reset()
    if judge is not None:
        judge.reset()
    observations, infos, actions, rewards = [observation], [info], [], []
    terminated = truncated = False
    while not (terminated or truncated):
        action = _checked(policy.act(observation, rng, explore), env)
        seen, reward, terminated, truncated, info = env.step(action)
        observation = _visible(seen)
        truncated = bool(truncated or info.get("dislodged", False))
        if judge is not None:
            _refuse_own_ending(terminated, env)
            if reveal_ground_truth is not None:
                reveal_ground_truth(bool(info[f"{PRIVILEGED}success"]))
            # Where the safety layer backed off, the picture is of another place: nothing is claimed.
            terminated = bool(judge.observe(observation["image"]).success) and not info.get("safety")
            reward = float(terminated)
        observations.append(observation)
        infos.append(info)
        actions.append(_checked(info.get("executed_action", info.get("sent_action", action)), env))
        rewards.append(float(reward))
        if on_step is not None:
            on_step(len(actions) - 1, observation, action)
    return Trajectory(
        image=np.stack([step["image"] for step in observations]),
        state=np.stack([step.get("state", np.zeros(0)) for step in observations]).astype(np.float32),
        action=np.stack(actions).astype(np.float32),
        reward=np.asarray(rewards, dtype=np.float32),
        terminated=bool(terminated),
        truncated=bool(truncated),
        connector=_name("connector", infos, env),
        robot=_name("robot", infos, env),
        seed=-1 if seed is None else int(seed),
        source=source,
        privileged=_ground_truth(infos),
    )


def policy_rng(seed: int) -> np.random.Generator:
    """The policy's randomness for a trial of this seed. The environment draws its trial from the seed itself; with one
    stream for both, a policy's noise would tell where the socket is."""
    return np.random.default_rng([seed, 1])


def _visible(observation: Mapping[str, Any]) -> Observation:
    """What policy and judge may see: image and state. Images are copied, since an environment may reuse its buffer."""
    return {key: np.array(observation[key]) for key in ("image", "state") if key in observation}


def _checked(action: NDArray[np.float32], env: gymnasium.Env[Any, Any]) -> NDArray[np.float32]:
    """The action as float32, clipped to [-1, 1]."""
    action = np.asarray(action, dtype=np.float32)
    if action.shape != env.action_space.shape or not np.isfinite(action).all():
        raise ValueError(
            f"action {action} of shape {action.shape}; "
            f"expected finite numbers of shape {env.action_space.shape}, from the policy or from a person who took over"
        )
    return np.clip(action, -1.0, 1.0)


def _refuse_own_ending(terminated: bool, env: gymnasium.Env[Any, Any]) -> None:
    """A judged trial that the environment ends would leak ground truth into Eq. 1."""
    if terminated:
        raise ValueError(
            f"{env} returned terminated=True in a judged rollout, which would leak ground truth into learning: "
            "build the environment so that it only truncates (no early end on true success)"
        )


def _name(kind: str, infos: list[dict[str, Any]], env: gymnasium.Env[Any, Any]) -> str:
    """The connector's or robot's name, from info or else an attribute of the environment, or else "unknown"."""
    name = infos[0].get(kind, getattr(env.unwrapped, kind, "unknown"))
    return str(getattr(name, "name", name))


def _ground_truth(infos: list[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    """Stack what the environment tells at every observation: (T + 1, ...)."""
    keys = {key: f"{PRIVILEGED}{key}" for key in RECORDED} | {key: key for key in (*SENSED, "dislodged")}
    recorded = {}
    for key, name in keys.items():
        if name in infos[-1]:
            first = infos[0].get(name, np.zeros_like(infos[-1][name]))
            recorded[key] = np.stack([np.asarray(first), *(np.asarray(info[name]) for info in infos[1:])])
    if any("executed_action" in info for info in infos):
        recorded["intervention"] = np.array(["executed_action" in info for info in infos])
    return recorded
