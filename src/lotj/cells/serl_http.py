"""`SerlHttpEnv`: a robot behind a server that speaks SERL's verbs over HTTP."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from lotj.cells.cameras import Camera, check_source, open_camera
from lotj.cells.serl_client import CellConnectionError, NotFollowingError, RobotServer, RobotState

STALL_STEPS = 5
"""As many commands in a row that move nothing mean a robot that does not follow."""
STALL_FORCE = 3.0
"""N: with less than this, nothing stands in its way."""
SETTLE_STEPS = 20
"""Periods that the arm may take to arrive at the reset pose, after the last step towards it."""
ARRIVED = (0.005, 0.05)
"""m and rad from the reset pose that count as arrived: compliant arms sag."""
JOINT_RESET_TIMEOUT = 60.0
"""s: SERL's server answers when the arm is there, after half a minute."""


class SerlHttpEnv(gymnasium.Env[dict[str, Any], NDArray[np.float32]]):
    """``lotj/SerlHttp-v0``: SERL's observations and actions, by HTTP (`lotj.cells.serl_client`).

    Observations: ``state`` with ``tcp_pose`` (7,) m and quaternion x, y, z, w; ``tcp_vel`` (6,) m/s, rad/s;
    ``tcp_force`` (3,) N; ``tcp_torque`` (3,) N m; ``gripper_pose`` (1,), 0 closed .. 1 open; poses,
    velocities and forces in the base frame; ``images/<camera>`` (H, W, 3) uint8, RGB.

    Actions ``Box(-1, 1, (7,), float32)``: displacement x, y, z and rotation about x, y, z, both along the base
    frame's axes from the pose of the last observation, scaled; gripper (below -0.5 closes, above 0.5 opens).

    A step sends the target, waits for the rest of the period, and observes. Steps begin a period apart, however long
    the policy thought, as long as half a period is left for the motion; ``info["late_s"]`` says by how much one was
    late. ``truncated`` after ``horizon`` steps; reward is 0 and ``terminated`` False.

    ``reset`` clears errors, goes straight up to the reset pose's height, across, and down, in steps no longer than an
    action's; on the way it stops at ``reset_force``. Unlike SERL's client, errors are cleared here only: an arm that
    stopped itself within a trial stays so until the trial is over. Workspace, step size and forces within a trial
    are the safety layer's (`lotj.cells.safety`), not checked here.

    Args:
        url: of the robot server.
        cameras: name -> source: a path on the same server, ``http://...``, ``opencv:<number>``, ``realsense:<serial>``.
        image_shape: (H, W) px that the cameras give.
        metres_per_unit: m that an action of 1 asks for, along each axis.
        radians_per_unit: rad, likewise.
        rate_hz: steps a second; ``inf`` waits for nothing, for simulated robots.
        reset_pose: (7,) m and quaternion x, y, z, w above the socket; not needed with ``rehearsal``.
        reset_force: N above which the way to the reset pose is stopped.
        joint_reset_every: trials between joint resets (long on a real arm); 0 never.
        compliance: sent to ``/update_param`` at each reset, where the server takes parameters.
        wrench_frame: what the server's force and torque are given in: ``tool``, as SERL's Franka server does
            (``K_F_ext_hat_K``), or ``base``.
        gripper: send the gripper's commands; without it the hand keeps what it holds.
        timeout_s: s without an answer after which it is given up.
        horizon: steps of a trial.
        rehearsal: the server is lotj's mock (``lotj cell mock-server``): it begins the trials, honouring ``seed`` and
            the options ``scenario`` and ``offset``, and tells ``info["succeed"]`` and ``info["dislodged"]``.
        connector: with ``rehearsal``, what the mock puts into its clamp.

    Raises:
        ValueError: names the setting, what was expected and what came.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - gymnasium's own form

    def __init__(
        self,
        url: str = "http://127.0.0.1:5000",
        cameras: Mapping[str, str] | None = None,
        image_shape: Sequence[int] = (128, 128),
        metres_per_unit: float = 0.005,
        radians_per_unit: float = 0.05,
        rate_hz: float = 10.0,
        reset_pose: Sequence[float] | None = None,
        reset_force: float = 20.0,
        joint_reset_every: int = 0,
        compliance: Mapping[str, Any] | None = None,
        wrench_frame: Literal["tool", "base"] = "tool",
        gripper: bool = False,
        timeout_s: float = 2.0,
        horizon: int = 20,
        rehearsal: bool = False,
        connector: str | None = None,
    ) -> None:
        positive = {
            "metres_per_unit": metres_per_unit,
            "radians_per_unit": radians_per_unit,
            "rate_hz": rate_hz,
            "reset_force": reset_force,
            "horizon": horizon,
        }
        for name, value in positive.items():
            if not value > 0:
                raise ValueError(f"{name} must be above 0, got {value!r}")
        if wrench_frame not in ("tool", "base"):
            raise ValueError(f"wrench_frame must be 'tool' or 'base', got {wrench_frame!r}")
        if len(image_shape) != 2:
            raise ValueError(f"image_shape must be (height, width) in px, got {image_shape!r}")
        if connector is not None and not rehearsal:
            raise ValueError(f"connector {connector!r} can be put into the clamp by a mock only; say rehearsal = true")
        self.server = RobotServer(url, timeout_s)
        self._sources = dict({"wrist_1": "/image/wrist_1"} if cameras is None else cameras)
        for name, source in self._sources.items():
            check_source(name, source)
        self._shape = (int(image_shape[0]), int(image_shape[1]))
        self.metres_per_unit, self._radians, self._period = metres_per_unit, radians_per_unit, 1 / rate_hz
        self._reset_pose = _check_reset_pose(reset_pose, rehearsal)
        self._reset_force, self._joint_reset_every = reset_force, joint_reset_every
        self._compliance, self._tool_wrench, self._gripper = compliance, wrench_frame == "tool", gripper
        self._timeout, self._horizon, self._rehearsal, self._connector = timeout_s, horizon, rehearsal, connector
        self.action_space = spaces.Box(-1.0, 1.0, (7,), np.float32)
        sizes = {"tcp_pose": 7, "tcp_vel": 6, "tcp_force": 3, "tcp_torque": 3, "gripper_pose": 1}
        state = spaces.Dict({name: spaces.Box(-np.inf, np.inf, (size,), np.float32) for name, size in sizes.items()})
        images = spaces.Dict({name: spaces.Box(0, 255, (*self._shape, 3), np.uint8) for name in self._sources})
        self.observation_space = spaces.Dict({"state": state, "images": images})  # type: ignore[assignment]
        self._cameras: dict[str, Camera] = {}
        self._state: RobotState | None = None
        self._steps = self._trials = self._stalled = 0
        self._due = 0.0
        self._grip = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin a trial at the reset pose; in a rehearsal, where the mock begins it.

        Raises:
            CellConnectionError: server or camera do not answer as they should, or the arm did not arrive.
        """
        super().reset(seed=seed)
        self._state = None  # until it is told anew: no step starts from where an earlier trial ended
        self.server.call("clearerr")
        if self._compliance is not None:
            self.server.call("update_param", self._compliance)
        if self._rehearsal:
            asked = {name: value for name, value in (options or {}).items() if name in ("scenario", "offset")}
            asked |= {} if self._connector is None else {"connector": self._connector}
            self.server.call("mock/reset", {"seed": seed, **asked}, JOINT_RESET_TIMEOUT)
        else:
            self._go_to_reset_pose()
        self._trials += 1
        self._steps = self._stalled = self._grip = 0
        self._due = time.monotonic()
        observation = self._observe()
        return observation, self._info(0.0)

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Carry out one action (7,).

        Raises:
            CellConnectionError: server or camera do not answer as they should, or the robot does not follow.
            ValueError: the action is not seven finite numbers.
        """
        if self._state is None:
            raise RuntimeError("step before reset: the robot's pose is not known; call reset first")
        wanted = np.asarray(action, np.float64)
        if wanted.shape != (7,) or not np.isfinite(wanted).all():
            raise ValueError(f"action must be seven finite numbers, got {action}")
        before = self._state
        self._send(moved(before.pose, wanted, self.metres_per_unit, self._radians))
        if self._gripper and abs(wanted[6]) > 0.5 and np.sign(wanted[6]) != self._grip:
            self._grip = int(np.sign(wanted[6]))
            self.server.call("open_gripper" if self._grip > 0 else "close_gripper")
        late = self._wait()
        observation = self._observe()
        self._notice_stall(before, wanted)
        self._steps += 1
        return observation, 0.0, False, self._steps >= self._horizon, self._info(late)

    def close(self) -> None:
        """Let the cameras go. The robot keeps the last pose that it was sent to."""
        for camera in self._cameras.values():
            camera.close()
        self._cameras = {}

    def _go_to_reset_pose(self) -> None:
        goal = self._reset_pose
        assert goal is not None
        pose = self.server.state().pose
        over = max(float(pose[2]), float(goal[2]))
        up, across = pose.copy(), goal.copy()
        up[2] = across[2] = over
        self._go(up)
        if self._joint_reset_every and self._trials % self._joint_reset_every == self._joint_reset_every - 1:
            self.server.call("jointreset", timeout_s=JOINT_RESET_TIMEOUT)
            self.server.call("clearerr")
            pose = self.server.state().pose
            across[2] = max(float(pose[2]), float(goal[2]))
        self._go(across)
        self._go(goal)

    def _go(self, goal: NDArray[np.float64]) -> None:
        """In small steps to a pose (7,), until it is reached."""
        start = self.server.state().pose
        metres, radians = apart(start, goal)
        count = max(1, int(np.ceil(max(metres / self.metres_per_unit, radians / self._radians))))
        turned = Slerp([0, 1], Rotation.from_quat([start[3:], goal[3:]]))
        for share in np.append(np.arange(1, count + 1) / count, np.ones(SETTLE_STEPS)):
            self._due = time.monotonic()
            self._send(np.concatenate([start[:3] + share * (goal[:3] - start[:3]), turned(share).as_quat()]))
            self._wait()
            state = self.server.state()
            force = float(np.linalg.norm(state.force))
            if force > self._reset_force:
                self._send(state.pose)
                raise NotFollowingError(
                    f"{self.server.url}: {force:.1f} N on the way to the reset pose (limit {self._reset_force:g}); the "
                    "arm was told to stay. Is the plug still in its socket, or something in the way? Free it, or "
                    "raise reset_force"
                )
            metres, radians = apart(state.pose, goal)
            if share == 1 and metres <= ARRIVED[0] and radians <= ARRIVED[1]:
                return
        raise NotFollowingError(
            f"{self.server.url}: the arm did not reach {np.round(goal, 4).tolist()} but stands {1e3 * metres:.1f} mm "
            f"and {radians:.2f} rad away; {FOLLOW}"
        )

    def _send(self, pose: NDArray[np.float64]) -> None:
        self.server.call("pose", {"arr": pose.tolist()})

    def _wait(self) -> float:
        """Sleep until the step's period is over; how much later (s) it ends than it should."""
        now = time.monotonic()
        due = self._due + self._period
        self._due = max(due, now + self._period / 2)
        time.sleep(self._due - now)
        return self._due - due if self._period else 0.0

    def _observe(self) -> dict[str, Any]:
        if not self._cameras:
            for name, source in self._sources.items():
                self._cameras[name] = open_camera(name, source, self._shape, self._timeout, self.server)
        state = self._state = self.server.state()
        turn = Rotation.from_quat(state.pose[3:]) if self._tool_wrench else Rotation.identity()
        numbers = {
            "tcp_pose": state.pose,
            "tcp_vel": state.vel,
            "tcp_force": turn.apply(state.force),
            "tcp_torque": turn.apply(state.torque),
            "gripper_pose": state.gripper_pos,
        }
        images = {}
        for name, camera in self._cameras.items():
            images[name] = camera.read()
            if images[name].shape != (*self._shape, 3):
                height, width = images[name].shape[:2]
                raise CellConnectionError(
                    f"camera {name!r} gives {height} x {width} px, image_shape is {list(self._shape)}; say "
                    f"image_shape = [{height}, {width}]"
                )
        return {"state": {name: value.astype(np.float32) for name, value in numbers.items()}, "images": images}

    def _notice_stall(self, before: RobotState, action: NDArray[np.float64]) -> None:
        """Raise where nothing stands in the robot's way and it stays where it is, again and again."""
        assert self._state is not None
        asked = float(np.linalg.norm(np.clip(action[:3], -1, 1))) * self.metres_per_unit
        went = float(np.linalg.norm(self._state.pose[:3] - before.pose[:3]))
        free = max(np.linalg.norm(before.force), np.linalg.norm(self._state.force)) < STALL_FORCE
        self._stalled = self._stalled + 1 if asked > self.metres_per_unit / 2 and went < 0.05 * asked and free else 0
        if self._stalled >= STALL_STEPS:
            raise NotFollowingError(
                f"{self.server.url}: the robot stayed at {np.round(self._state.pose[:3], 4).tolist()} m through "
                f"{STALL_STEPS} commands, and nothing holds it; {FOLLOW}"
            )

    def _info(self, late: float) -> dict[str, Any]:
        info: dict[str, Any] = {"late_s": late}
        if self._rehearsal:
            truth = self.server.ask("mock/truth")
            info |= {"succeed": bool(truth["success"]), "dislodged": bool(truth["dislodged"])}
        return info


FOLLOW = "has it stopped itself, or is its impedance controller off? Clear its errors, look at it, then repeat"


def moved(
    pose: NDArray[np.float64], action: NDArray[np.float64], metres_per_unit: float, radians_per_unit: float
) -> NDArray[np.float64]:
    """The target (7,) of an action from a measured pose (7,), m and quaternion x, y, z, w: displaced and turned along
    the base frame's axes; components beyond [-1, 1] count as 1."""
    delta = np.clip(action, -1, 1)
    turn = Rotation.from_euler("xyz", delta[3:6] * radians_per_unit) * Rotation.from_quat(pose[3:])
    return np.concatenate([pose[:3] + delta[:3] * metres_per_unit, turn.as_quat()])


def apart(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float]:
    """How far two poses (7,) are from one another: m, rad."""
    turn = Rotation.from_quat(a[3:]).inv() * Rotation.from_quat(b[3:])
    return float(np.linalg.norm(a[:3] - b[:3])), float(turn.magnitude())


def _check_reset_pose(pose: Sequence[float] | None, rehearsal: bool) -> NDArray[np.float64] | None:
    if pose is None:
        if rehearsal:
            return None
        raise ValueError(
            "reset_pose is missing: seven numbers, m and quaternion x, y, z, w, with the plug clear above the socket; "
            "/getpos tells where the arm stands"
        )
    found = np.asarray(pose, np.float64)
    if found.shape != (7,) or not np.isfinite(found).all() or abs(np.linalg.norm(found[3:]) - 1) > 0.01:
        raise ValueError(f"reset_pose must be x, y, z in m and a unit quaternion x, y, z, w, got {list(pose)}")
    return found
