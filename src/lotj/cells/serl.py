"""Our simulator in SERL's layout: what a robot cell looks like to lotj, for rehearsals, tests and the mock server."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from lotj.sim.env import ACTION_SCALE, HORIZON, InsertionEnv
from lotj.sim.expert import Expert, ExpertConfig
from lotj.sim.randomize import Randomization
from lotj.sim.robot import TOOL_TO_TIP

PLUG_DOWN = (1.0, 0.0, 0.0, 0.0)
"""Quaternion x, y, z, w of a tool that points down."""


class SerlInsertionEnv(gymnasium.Env[dict[str, Any], NDArray[np.float32]]):
    """``lotj/SerlInsertion-v0``: `InsertionEnv` with SERL's observations and actions.

    Observations: ``state`` with ``tcp_pose`` (7,) m and quaternion of the plug's tip as it is calibrated, ``tcp_vel``
    (6,) m/s, ``tcp_force`` (3,) N, ``tcp_torque`` (3,) N m, ``gripper_pose`` (1,); ``images/wrist_1`` (H, H, 3)
    uint8, with ``cameras=2`` ``images/wrist_2`` too.
    Actions ``Box(-1, 1, (7,))``: displacement (5 mm), rotation (ignored), gripper (ignored). Truncation after
    ``horizon`` steps.
    ``info["succeed"]`` is true success.

    Args:
        connector: in the clamp.
        robot: ``sawyer-a`` or ``sawyer-b``.
        image_size: H in px.
        fixed: the socket stands in one place and the plug is held true, as in a fixture, so that a pose can be
            captured.
        horizon: steps to truncation.
        settings: others of `InsertionEnv`.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - gymnasium's own form

    def __init__(
        self,
        connector: str = "usb-a",
        robot: str = "sawyer-a",
        image_size: int = 128,
        fixed: bool = False,
        horizon: int = HORIZON,
        **settings: Any,
    ) -> None:
        if fixed:
            still = ("socket_lateral", "socket_height", "socket_yaw", "grasp_lateral", "grasp_tilt", "grasp_weakness")
            settings["randomization"] = Randomization(**dict.fromkeys(still, 0.0))
        self.sim = InsertionEnv(connector, robot, image_size=image_size, **settings)
        self.render_mode = self.sim.render_mode
        self.action_space = spaces.Box(-1.0, 1.0, (7,), np.float32)
        numbers = {"tcp_pose": 7, "tcp_vel": 6, "tcp_force": 3, "tcp_torque": 3, "gripper_pose": 1}
        state: dict[str, spaces.Space[Any]] = {
            name: spaces.Box(-np.inf, np.inf, (size,), np.float32) for name, size in numbers.items()
        }
        self._images = tuple(f"wrist_{number}" for number in range(1, len(self.sim.cameras) + 1))
        picture = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        images = spaces.Dict(dict.fromkeys(self._images, picture))
        self.observation_space = spaces.Dict({"state": spaces.Dict(state), "images": images})  # type: ignore[assignment]
        self._before = np.zeros(3)
        self._horizon, self._steps = horizon, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin a trial; ``options["scenario"]`` is honoured."""
        super().reset(seed=seed)
        observation, info = self.sim.reset(seed=seed, options=options)
        self._steps = 0
        self._before = self.sim.controller.position
        return self._layout(observation), self._told(info)

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Carry out one action (7,)."""
        action = np.asarray(action, np.float32)
        if action.shape != (7,):
            raise ValueError(f"action must have shape (7,), got {action.shape}")
        self._before = self.sim.controller.position
        observation, reward, terminated, _, info = self.sim.step(action[:3])
        self._steps += 1
        truncated = bool(info["dislodged"]) or self._steps >= self._horizon
        return self._layout(observation), reward, terminated, truncated, self._told(info)

    def render(self) -> NDArray[np.uint8]:  # type: ignore[override]
        """The whole cell."""
        return self.sim.render()

    def close(self) -> None:
        """Free the graphics contexts."""
        self.sim.close()

    def _layout(self, observation: dict[str, NDArray[Any]]) -> dict[str, Any]:
        position = self.sim.controller.position
        velocity = (position - self._before) / self.sim.controller.config.period
        wrench = self.sim.wrench
        state = {
            "tcp_pose": np.array([*(position - (0, 0, TOOL_TO_TIP)), *PLUG_DOWN], np.float32),
            "tcp_vel": np.array([*velocity, 0, 0, 0], np.float32),
            "tcp_force": wrench[:3].astype(np.float32),
            "tcp_torque": wrench[3:].astype(np.float32),
            "gripper_pose": np.zeros(1, np.float32),
        }
        pictures = np.split(observation["image"], len(self._images), axis=1)
        return {"state": state, "images": {name: np.ascontiguousarray(p) for name, p in zip(self._images, pictures)}}

    def _told(self, info: dict[str, Any]) -> dict[str, Any]:
        return {"succeed": info["privileged/success"], "dislodged": info["dislodged"], "action_scale": ACTION_SCALE[:3]}


def expert(cell: Any, noise: float, speed: float, beside: float) -> Expert:
    """The simulator's own expert, which knows where the socket is, for ``expert`` in a cell's file."""
    return Expert(cell.env.unwrapped.sim, ExpertConfig(noise, speed, beside))
