"""panda-gym's ``PandaPush-v3`` as a cell: a Franka in PyBullet pushes a block onto its place, marked by a shadow.

Three things that a cell needs and the package does not give: the contact force on the hand, a robot that has come to
rest when it is looked at, and an episode that does not end by itself at success, for a practice must not be told. Which
block is pushed (its "connector") is a colour, a mass and a friction. Needs ``pip install panda-gym``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray


class Block(NamedTuple):
    """What the robot pushes."""

    colour: tuple[float, float, float]
    """RGB in 0..1."""
    mass: float
    """kg."""
    friction: float
    """Coulomb, on the table."""


BLOCKS = {
    "green": Block((0.1, 0.9, 0.1), 1.0, 0.5),
    "red": Block((0.9, 0.1, 0.1), 1.0, 0.5),
    "blue": Block((0.1, 0.2, 0.9), 0.5, 0.7),
    "yellow": Block((0.9, 0.8, 0.1), 1.5, 0.4),
    "cyan": Block((0.1, 0.8, 0.8), 0.7, 0.6),
    "violet": Block((0.6, 0.1, 0.8), 1.0, 0.5),
}


class Pushing(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Observations ``state/tcp_pose`` (3,) m and ``state/tcp_force`` (3,) N beside the package's own; actions (3,).

    Args:
        block: one of ``BLOCKS``.
        size: H = W of the picture in px.
        spread: m, how far from the middle the block and its place lie at most.
        settle: periods of 40 ms that the robot is given beside its own one, to arrive.

    Raises:
        ValueError: no such block.
    """

    def __init__(self, block: str, size: int = 96, spread: float = 0.1, settle: int = 2) -> None:
        import panda_gym  # noqa: F401 - registers its environments

        if block not in BLOCKS:
            raise ValueError(f"no block {block!r}; there are {', '.join(BLOCKS)}: name one of them as the connector")
        super().__init__(gymnasium.make("PandaPush-v3", renderer="Tiny", disable_env_checker=True).unwrapped)
        self.settle = settle
        self.task, self.robot, self.sim = (getattr(self.env, name) for name in ("task", "robot", "sim"))
        reach = np.array([spread, spread, 0.0])
        self.task.goal_range_low = self.task.obj_range_low = -reach
        self.task.goal_range_high = self.task.obj_range_high = reach
        colour, mass, friction = BLOCKS[block]
        client, bodies = self.sim.physics_client, self.sim._bodies_idx
        client.changeDynamics(bodies["object"], -1, mass=mass, lateralFriction=friction)
        client.changeVisualShape(bodies["object"], -1, rgbaColor=(*colour, 1.0))
        client.changeVisualShape(bodies["target"], -1, rgbaColor=(*colour, 0.3))
        self._camera = {
            "width": size,
            "height": size,
            "viewMatrix": client.computeViewMatrixFromYawPitchRoll([0.02, 0.0, 0.0], 0.5, 90, -55, 0, 2),
            "projectionMatrix": client.computeProjectionMatrixFOV(60, 1.0, 0.1, 10.0),
            "shadow": 0,
            "renderer": client.ER_TINY_RENDERER,
        }

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """The block and its place are drawn anew, until they lie 10 cm apart."""
        observation, info = self.env.reset(seed=seed)
        rng = np.random.default_rng(seed)
        while np.linalg.norm(observation["achieved_goal"] - observation["desired_goal"]) < 0.1:
            observation, info = self.env.reset(seed=int(rng.integers(2**31)))
        return self._with_state(observation, np.zeros(3)), info

    def step(self, action: NDArray[np.float32]) -> Any:
        """Ask for a displacement, wait until the arm is there; the force is the strongest on the way."""
        self.env.step(action)
        felt = [self._contact()]
        for _ in range(self.settle):
            self.sim.step()
            felt.append(self._contact())
        observation = self.env.unwrapped._get_obs()  # type: ignore[attr-defined]
        done = bool(self.task.is_success(observation["achieved_goal"], observation["desired_goal"]))
        strongest = max(felt, key=np.linalg.norm)
        return self._with_state(observation, strongest), 0.0, False, False, {"is_success": done}

    def render(self) -> NDArray[np.uint8]:  # type: ignore[override]
        """(H, W, 3) from the robot's side of the table, without the package's shadows, which take half of the time."""
        width, height, picture, *_ = self.sim.physics_client.getCameraImage(**self._camera)
        return np.array(picture, np.uint8).reshape(height, width, 4)[..., :3]

    def _with_state(self, observation: dict[str, Any], force: NDArray[np.float64]) -> dict[str, Any]:
        state = {"tcp_pose": observation["observation"][:3], "tcp_force": force.astype(np.float32)}
        return observation | {"state": state}

    def _contact(self) -> NDArray[np.float64]:
        """(3,) N, the sum over the hand's contacts of the force that acts on it."""
        force = np.zeros(3)
        for contact in self.sim.physics_client.getContactPoints(self.sim._bodies_idx["panda"]):
            normal, along, across = contact[7], contact[11], contact[13]
            force += contact[9] * np.array(normal) + contact[10] * np.array(along) + contact[12] * np.array(across)
        return force


class Pusher:
    """Goes behind the block, down, and pushes it onto its place along the line between the two.

    Args:
        cell: the cell.
        noise: chance of a random action in each step.
        speed: share of a full step.
        beside: m; above 0 it pushes to a wrong place, ten times as far beside the right one.
    """

    HIGH, LOW, BEHIND, PUSH = 0.09, 0.025, 0.055, 0.025
    """m: heights of the hand's way and of the push; how far behind the block's middle it goes down; the longest push
    in a step, for a faster one throws the block."""

    def __init__(self, cell: Any, noise: float, speed: float, beside: float) -> None:
        while not isinstance(cell, Pushing):
            cell = cell.env
        self._cell, self._noise, self._speed, self._beside = cell, noise, speed, beside
        self._aim: NDArray[np.float64] | None = None

    def reset(self) -> None:
        """Forget the last trial's wrong place."""
        self._aim = None

    def act(self, observation: Any, rng: np.random.Generator, explore: bool = False) -> NDArray[np.float32]:
        """(3,) the next action."""
        if self._aim is None:
            angle = rng.uniform(0, 2 * np.pi)
            self._aim = 10 * self._beside * np.array([np.cos(angle), np.sin(angle)])
        if rng.random() < self._noise:
            return rng.uniform(-1, 1, 3).astype(np.float32)
        hand = np.asarray(self._cell.robot.get_ee_position())
        block = np.asarray(self._cell.task.get_achieved_goal())[:2]
        goal = np.asarray(self._cell.task.get_goal())[:2] + self._aim
        way = goal - block
        left = float(np.linalg.norm(way))
        way = way / max(left, 1e-6)
        from_block = hand[:2] - block
        along = float(from_block @ way)
        aside = float(np.linalg.norm(from_block - along * way))
        back = block - self.BEHIND * way
        if left < 0.01:
            target = np.array([*hand[:2], self.HIGH])
        elif hand[2] < self.LOW + 0.02 and along < 0 and aside < 0.02:
            target = np.array([*(hand[:2] + min(left, self.PUSH) * way), self.LOW])
        elif np.linalg.norm(hand[:2] - back) < (0.012 if hand[2] > self.HIGH - 0.02 else 0.025):
            target = np.array([*back, self.LOW])
        else:
            over = hand[:2] if hand[2] < self.HIGH - 0.03 else back
            target = np.array([*over, self.HIGH])
        action = np.clip((target - hand) / 0.05, -1, 1) * self._speed
        return action.astype(np.float32)


gymnasium.register("Pushing-v0", entry_point="pushing:Pushing", order_enforce=False)
