"""Cartesian command -> inverse kinematics -> joint velocities under force limits (Sec. IV).

A command moves the tool by a few millimetres within one control period. The target is clipped to the workspace box,
turned into joint angles by mink, and followed by the joints' velocity loops at 100 Hz. At every physics step (500 Hz)
the load between plug and fingers is read: where force or torque reach their guards, the motion stops and backs off to
them. A command that would press or twist harder than the guards is cut before it starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import mink
import mujoco
import numpy as np
from numpy.typing import NDArray

from lotj.sim.robot import HOME, JOINT_VELOCITY, JOINTS, TOOL_TO_TIP, Grasp, add_sawyer

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class ControllerConfig:
    """Limits and rates of the motion controller."""

    period: float = 0.1
    """s, one command (10 Hz)."""
    ticks: int = 10
    """Velocity set points a command (100 Hz)."""
    force_limit: float = 16.0
    """N at the wrist, never exceeded."""
    torque_limit: float = 0.8
    """N m at the wrist, likewise."""
    guard: float = 0.75
    """Share of the limits at which the motion stops: the rest is for what is under way."""
    position_gain: float = 15.0
    """1/s, of joint position error into joint velocity."""
    workspace_low: tuple[float, float, float] = (0.53, -0.07, 0.02)
    """m, the lowest corner of the box that the tip may be commanded into, in the robot's base frame."""
    workspace_high: tuple[float, float, float] = (0.67, 0.07, 0.16)
    """m, the highest corner."""

    def __post_init__(self) -> None:
        for name in ("period", "ticks", "force_limit", "torque_limit", "position_gain"):
            if not getattr(self, name) > 0:
                raise ValueError(f"ControllerConfig.{name} must be positive, got {getattr(self, name)}")
        if not 0 < self.guard <= 1:
            raise ValueError(f"ControllerConfig.guard must be in (0, 1], got {self.guard}")
        if not all(low < high for low, high in zip(self.workspace_low, self.workspace_high)):
            raise ValueError(f"workspace_low {self.workspace_low} must lie below workspace_high {self.workspace_high}")


class Motion(NamedTuple):
    """What came of one command."""

    force: float
    """N, the largest wrist force during the period."""
    dislodged: bool
    held: bool
    """The force limit stopped the motion."""


class Arm:
    """Inverse kinematics of the bare arm (a model of its own: seven joints, nothing else)."""

    def __init__(self) -> None:
        spec = mujoco.MjSpec()
        add_sawyer(spec, visible=False)
        model = spec.compile()
        self.configuration = mink.Configuration(model, q=HOME)
        self._task = mink.FrameTask("tool", "site", position_cost=1.0, orientation_cost=0.3)
        self._posture = mink.PostureTask(model, cost=1e-2)
        self._posture.set_target(HOME)
        self._range = mink.ConfigurationLimit(model)
        self._speed = mink.VelocityLimit(model, dict(zip(JOINTS, JOINT_VELOCITY)))

    def solve(self, start: Vector, position: Vector, yaw: float, period: float, iterations: int) -> Vector:
        """Joint angles (7,) that bring the upright tool to ``position`` (3,) m and ``yaw`` rad, ``iterations`` steps
        of ``period``."""
        self._task.set_target(mink.SE3.from_rotation_and_translation(mink.SO3.from_z_radians(yaw + np.pi), position))
        self.configuration.update(start)
        for _ in range(iterations):
            velocity = mink.solve_ik(
                self.configuration,
                [self._task, self._posture],
                period / iterations,
                solver="daqp",
                damping=1e-6,
                limits=[self._range, self._speed],
            )
            self.configuration.integrate_inplace(velocity, period / iterations)
        return self.configuration.q.copy()


class Controller:
    """Moves the tool of one simulated robot; all of its motion goes through here."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, grasp: Grasp, config: ControllerConfig) -> None:
        self.config = config
        self._model, self._data, self._grasp = model, data, grasp
        self._arm = Arm()
        self._site = model.site("tool").id
        self._substeps = round(config.period / config.ticks / model.opt.timestep)
        self._jacobian = np.zeros((6, model.nv))
        self._ready = self._arm.solve(HOME, np.array([0.6, 0.0, 0.15]), 0.0, 20.0, 40)
        self._yaw = 0.0
        self._guarded_force = config.guard * config.force_limit
        self._guarded_torque = config.guard * config.torque_limit
        # The workspace is given for the tip, the arm moves the tool.
        self._low = np.array(config.workspace_low) + (0, 0, TOOL_TO_TIP)
        self._high = np.array(config.workspace_high) + (0, 0, TOOL_TO_TIP)

    @property
    def position(self) -> Vector:
        """Tool position (3,) m in the base frame, from the joint angles."""
        return self._data.site_xpos[self._site].copy()

    def start(self, tip: Vector) -> None:
        """Place the arm at rest with the nominal tip at ``tip`` (3,) m. Calls no physics."""
        target = np.clip(tip + (0, 0, TOOL_TO_TIP), self._low, self._high)
        self._data.qpos[:7] = self._arm.solve(self._ready, target, 0.0, 2.0, 8)
        self._data.qvel[:] = 0
        self._yaw = 0.0

    def move(self, displacement: Vector, turn: float = 0.0) -> Motion:
        """Carry out one command.

        Args:
            displacement: (3,) m in the base frame, from where the tool is measured to be.
            turn: rad about the vertical.
        """
        data, config = self._data, self.config
        wrench = self._grasp.wrench()
        displacement = _relieved(displacement, wrench[:3], self._guarded_force, self._grasp.config.stiffness)
        twist = _relieved(
            np.array([0, 0, turn]), wrench[3:], self._guarded_torque, self._grasp.config.rotational_stiffness
        )
        self._yaw = float(np.clip(self._yaw + twist[2], -0.35, 0.35))
        target = np.clip(self.position + displacement, self._low, self._high)
        start = data.qpos[:7].copy()
        goal = self._arm.solve(start, target, self._yaw, config.period, 2)
        peak, held, dislodged = 0.0, False, False
        for tick in range(config.ticks):
            fraction = 1.0 if held else (tick + 1) / config.ticks
            rate = np.zeros(7) if held else (goal - start) / config.period
            self._follow(rate, start + fraction * (goal - start))
            for _ in range(self._substeps):
                mujoco.mj_step(self._model, data)
                force, torque = self._grasp.load()
                peak = max(peak, force)
                if not held and (force > self._guarded_force or torque > self._guarded_torque):
                    held = True
                    start = goal = data.qpos[:7] + self._back_off(self._grasp.wrench())
                    self._follow(np.zeros(7), goal)
            dislodged = self._grasp.slide() or dislodged
        return Motion(peak, dislodged, held)

    def _follow(self, rate: Vector, aim: Vector) -> None:
        """Set the joints' velocities (7,) rad/s: ``rate``, and what is missing to ``aim`` (7,) rad."""
        wanted = rate + self.config.position_gain * (aim - self._data.qpos[:7])
        self._data.ctrl[:7] = np.clip(wanted, -JOINT_VELOCITY, JOINT_VELOCITY)

    def _back_off(self, wrench: Vector) -> Vector:
        """Joint displacement (7,) that unloads the wrist to the guards."""
        config = self._grasp.config
        step = np.concatenate(
            [
                _excess(wrench[:3], self._guarded_force) / config.stiffness,
                _excess(wrench[3:], self._guarded_torque) / config.rotational_stiffness,
            ]
        )
        mujoco.mj_jacSite(self._model, self._data, self._jacobian[:3], self._jacobian[3:], self._site)
        return np.linalg.pinv(self._jacobian[:, :7], rcond=1e-3) @ step


def _relieved(command: Vector, load: Vector, guard: float, stiffness: float) -> Vector:
    """A command (3,) without the part that would load the wrist beyond its guard; above it, a retreat.

    Args:
        command: m, or rad.
        load: what the plug puts on the fingers, N or N m.
        guard: its limit.
        stiffness: of the grasp, N/m or N m/rad.
    """
    size = float(np.linalg.norm(load))
    if size < 0.03 * guard:
        return command
    outward = load / size
    pressing = -float(command @ outward)
    return command + outward * max(0.0, pressing - (guard - size) / stiffness)


def _excess(load: Vector, guard: float) -> Vector:
    """The part of a load (3,) beyond its guard."""
    size = float(np.linalg.norm(load))
    return load / size * max(0.0, size - guard) if size > 0 else load
