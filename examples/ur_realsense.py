"""A UR arm over ur-rtde and RealSense cameras, in SERL's layout: an example to start from.

UNTESTED ON HARDWARE. Its arithmetic is tested against a fake of the libraries (`tests/test_example_ur.py`), and its
calls were written against the signatures of ur-rtde 1.6 and pyrealsense2 2.59; no UR arm has been moved by it. Begin
with the arm in free space, reduced speed, low limits, and a hand on the emergency stop.

    pip install -e '.[ur]'
    PYTHONPATH=examples lotj cell check --cell examples/ur_realsense.toml --connector my-plug

Within a step the arm is in force mode, driven by a spring and a damper towards the target, with force and torque cut at
``max_force`` and ``max_torque``: contact is as gentle as these. Between steps it holds its position, so that nothing
drifts while networks are trained. TCP and payload must be set on the robot: the TCP at the plug's tip.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from lotj.cells.cameras import Camera, MissingPackageError, check_source, open_camera

Vector = NDArray[np.float64]

BASE = [0.0] * 6
"""The force frame: the robot's base frame."""
ALL_AXES = [1] * 6
NOT_TRANSFORMED = 2
"""force_mode's type: the force frame is used as it is."""
SPEED_LIMITS = [0.1, 0.1, 0.1, 0.5, 0.5, 0.5]
"""m/s and rad/s that force mode may reach."""
TICK = 0.01
"""s between two updates of the spring's force."""


class UrRealSenseEnv(gymnasium.Env[dict[str, Any], NDArray[np.float32]]):
    """``ur_realsense:UrRealSense-v0``.

    Observations: ``state`` with ``tcp_pose`` (7,) m and quaternion x, y, z, w, ``tcp_vel`` (6,), ``tcp_force`` (3,) N,
    ``tcp_torque`` (3,) N m, all in the base frame, ``gripper_pose`` (1,), always 0: the hand keeps what it holds;
    ``images/<camera>`` (H, W, 3) uint8. Actions ``Box(-1, 1, (7,))``: displacement and rotation along the base frame's
    axes from the measured pose, scaled; the seventh is ignored.

    Args:
        host: of the robot.
        reset_pose: (6,) m and rotation vector as the pendant shows them, with the plug clear above the socket.
        cameras: name -> ``realsense:<serial number>`` or ``opencv:<number>``.
        image_shape: (H, W) px; must be a size that the cameras offer.
        metres_per_unit: m that an action of 1 asks for.
        radians_per_unit: rad, likewise.
        rate_hz: steps a second.
        stiffness: N/m and N m/rad of the spring.
        damping: N s/m and N m s/rad of the damper.
        max_force: N that the arm is ever told to press with.
        max_torque: N m, likewise.
        reset_speed: m/s of the way to the reset pose.
        horizon: steps of a trial.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - gymnasium's own form

    def __init__(
        self,
        host: str,
        reset_pose: Sequence[float],
        cameras: Mapping[str, str],
        image_shape: Sequence[int] = (480, 640),
        metres_per_unit: float = 0.005,
        radians_per_unit: float = 0.05,
        rate_hz: float = 10.0,
        stiffness: Sequence[float] = (2000.0, 40.0),
        damping: Sequence[float] = (100.0, 2.0),
        max_force: float = 15.0,
        max_torque: float = 1.0,
        reset_speed: float = 0.05,
        horizon: int = 20,
    ) -> None:
        self._home = np.asarray(reset_pose, np.float64)
        if self._home.shape != (6,) or not np.isfinite(self._home).all():
            raise ValueError(f"reset_pose must be six numbers, m and rotation vector, got {list(reset_pose)}")
        for name, source in cameras.items():
            check_source(name, source)
        self._host, self._sources = host, dict(cameras)
        self._shape = (int(image_shape[0]), int(image_shape[1]))
        self._metres, self._radians, self._period = metres_per_unit, radians_per_unit, 1 / rate_hz
        self._stiffness, self._damping = stiffness, damping
        self._max_force, self._max_torque = max_force, max_torque
        self._speed, self._horizon, self._steps = reset_speed, horizon, 0
        self.action_space = spaces.Box(-1.0, 1.0, (7,), np.float32)
        sizes = {"tcp_pose": 7, "tcp_vel": 6, "tcp_force": 3, "tcp_torque": 3, "gripper_pose": 1}
        state = spaces.Dict({name: spaces.Box(-np.inf, np.inf, (size,), np.float32) for name, size in sizes.items()})
        images = spaces.Dict({name: spaces.Box(0, 255, (*self._shape, 3), np.uint8) for name in self._sources})
        self.observation_space = spaces.Dict({"state": state, "images": images})  # type: ignore[assignment]
        self._control: Any = None
        self._receive: Any = None
        self._cameras: dict[str, Camera] = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Straight up to the reset pose's height, across, down; then the force sensor is zeroed."""
        super().reset(seed=seed)
        self._connect()
        here = np.array(self._receive.getActualTCPPose())
        up, across = here.copy(), self._home.copy()
        up[2] = across[2] = max(here[2], self._home[2])
        for pose in (up, across, self._home):
            self._refuse_when_stopped()
            if not self._control.moveL(pose.tolist(), self._speed, 0.5):
                raise RuntimeError(f"the UR at {self._host} did not move to {pose.tolist()}; look at its pendant")
        time.sleep(0.1)  # at rest before the sensor is zeroed
        self._control.zeroFtSensor()
        self._steps = 0
        return self._observe(), {}

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One period in force mode towards the action's target, then hold."""
        if self._control is None:
            raise RuntimeError("step before reset: the robot is not connected; call reset first")
        wanted = np.asarray(action, np.float64)
        if wanted.shape != (7,) or not np.isfinite(wanted).all():
            raise ValueError(f"action must be seven finite numbers, got {action}")
        target = target_pose(np.array(self._receive.getActualTCPPose()), wanted, self._metres, self._radians)
        end = time.monotonic() + self._period
        try:
            while (left := end - time.monotonic()) > TICK / 10:
                self._refuse_when_stopped()
                force = self._spring(target)
                if not self._control.forceMode(BASE, ALL_AXES, force, NOT_TRANSFORMED, SPEED_LIMITS):
                    raise RuntimeError(f"the UR at {self._host} did not take a force command; look at its pendant")
                time.sleep(min(TICK, left))
        finally:
            self._control.forceModeStop()
        self._steps += 1
        return self._observe(), 0.0, False, self._steps >= self._horizon, {}

    def close(self) -> None:
        """Stop the arm and let robot and cameras go."""
        if self._control is not None:
            self._control.forceModeStop()
            self._control.stopScript()
            self._control.disconnect()
            self._receive.disconnect()
        for camera in self._cameras.values():
            camera.close()
        self._control = self._receive = None
        self._cameras = {}

    def _connect(self) -> None:
        if self._control is None:
            try:
                from rtde_control import RTDEControlInterface
                from rtde_receive import RTDEReceiveInterface
            except ImportError as error:
                raise MissingPackageError("a UR arm needs ur-rtde: pip install -e '.[ur]'") from error
            try:
                self._receive = RTDEReceiveInterface(self._host)
                self._control = RTDEControlInterface(self._host)
            except RuntimeError as error:
                raise RuntimeError(
                    f"no UR robot answers at {self._host} ({error}); is it on, in remote control, in this network?"
                ) from error
        for name, source in self._sources.items():
            if name not in self._cameras:
                self._cameras[name] = open_camera(name, source, self._shape, timeout_s=2.0)

    def _refuse_when_stopped(self) -> None:
        stopped = self._receive.isEmergencyStopped() or self._receive.isProtectiveStopped()
        if stopped or not self._receive.isConnected():
            what = "has stopped itself" if stopped else "is no longer connected"
            raise RuntimeError(f"the UR at {self._host} {what}; find out why, unlock it on its pendant, then repeat")

    def _spring(self, target: Vector) -> list[float]:
        """Force and torque (6,) towards a pose (6,), cut at their limits."""
        pose, speed = np.array(self._receive.getActualTCPPose()), np.array(self._receive.getActualTCPSpeed())
        turn = Rotation.from_rotvec(target[3:]) * Rotation.from_rotvec(pose[3:]).inv()
        force = self._stiffness[0] * (target[:3] - pose[:3]) - self._damping[0] * speed[:3]
        torque = self._stiffness[1] * turn.as_rotvec() - self._damping[1] * speed[3:]
        return [*at_most(force, self._max_force).tolist(), *at_most(torque, self._max_torque).tolist()]

    def _observe(self) -> dict[str, Any]:
        pose, force = np.array(self._receive.getActualTCPPose()), self._receive.getActualTCPForce()
        numbers = {
            "tcp_pose": [*pose[:3], *Rotation.from_rotvec(pose[3:]).as_quat()],
            "tcp_vel": self._receive.getActualTCPSpeed(),
            "tcp_force": force[:3],
            "tcp_torque": force[3:],
            "gripper_pose": [0.0],
        }
        state = {name: np.asarray(value, np.float32) for name, value in numbers.items()}
        return {"state": state, "images": {name: camera.read() for name, camera in self._cameras.items()}}


def target_pose(pose: Vector, action: Vector, metres_per_unit: float, radians_per_unit: float) -> Vector:
    """The target (6,) of an action from a pose (6,), m and rotation vector, along the base frame's axes."""
    delta = np.clip(action, -1, 1)
    turn = Rotation.from_euler("xyz", delta[3:6] * radians_per_unit) * Rotation.from_rotvec(pose[3:])
    return np.concatenate([pose[:3] + delta[:3] * metres_per_unit, turn.as_rotvec()])


def at_most(vector: Vector, limit: float) -> Vector:
    """A vector, shortened to a length."""
    length = float(np.linalg.norm(vector))
    return vector if length <= limit else vector * (limit / length)


gymnasium.register("UrRealSense-v0", entry_point="ur_realsense:UrRealSenseEnv")
