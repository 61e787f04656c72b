"""Rethink Sawyer, seven joints, with a two-finger gripper and a grasp that gives.

Kinematics, joint ranges, velocity and effort limits, masses and inertias are the published ones (Rethink Robotics
`sawyer_description` URDF, Apache-2.0; the same figures stand in MuJoCo Menagerie's model). The look is ours: capsules
and boxes, no foreign meshes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

JOINTS = tuple(f"right_j{i}" for i in range(7))
JOINT_RANGE = np.array(
    [
        (-3.0503, 3.0503),
        (-3.8095, 2.2736),
        (-3.0426, 3.0426),
        (-3.0439, 3.0439),
        (-2.9761, 2.9761),
        (-2.9761, 2.9761),
        (-4.7124, 4.7124),
    ]
)
"""(7, 2) rad."""
JOINT_VELOCITY = np.array([1.74, 1.328, 1.957, 1.957, 3.485, 3.485, 4.545])
"""(7,) rad/s."""
JOINT_EFFORT = np.array([80.0, 80.0, 40.0, 40.0, 9.0, 9.0, 9.0])
"""(7,) N m."""
VELOCITY_GAIN = np.array([160.0, 160.0, 120.0, 120.0, 40.0, 40.0, 40.0])
"""(7,) N m s/rad of the joint velocity loops; our tuning."""
HOME = np.array([0.0, -1.18, 0.0, 2.18, 0.0, 0.57, 3.3161])
"""(7,) rad, the customary ready pose."""

HAND_TO_TOOL = 0.0245 + 0.11
"""Metres from the last link to the fingertips, along its z axis."""
TOOL_TO_TIP = 0.045
"""Metres from the fingertips' centre down to the tip of the held plug: whoever loads the gripper always leaves this
much."""
GRASP_JOINTS = tuple(f"grasp_{axis}" for axis in ("x", "y", "z", "rx", "ry", "rz"))
_HALF_TURN = np.array([-1.0, -1.0, 1.0, -1.0, -1.0, 1.0])


class Link(NamedTuple):
    """One link: pose in its parent (metres, wxyz), mass (kg), centre of mass and principal inertia, and the capsule
    that shows it."""

    position: tuple[float, float, float]
    quaternion: tuple[float, float, float, float]
    mass: float
    centre: tuple[float, float, float]
    inertia: tuple[float, float, float]
    capsule: tuple[float, float, float, float, float, float]
    radius: float


LINKS = (
    Link(
        (0, 0, 0.08),
        (1, 0, 0, 0),
        5.3213,
        (0.0244, 0.0110, 0.1436),
        (0.0652, 0.0511, 0.0186),
        (0, 0, 0, 0, 0, 0.25),
        0.07,
    ),
    Link(
        (0.081, 0.05, 0.237),
        (1, -1, 1, 1),
        4.505,
        (-0.0031, -0.0268, 0.0925),
        (0.0224, 0.0222, 0.0097),
        (0, 0, -0.06, 0, 0, 0.13),
        0.062,
    ),
    Link(
        (0, -0.14, 0.1425),
        (1, 1, 0, 0),
        1.745,
        (-0.0002, -0.0150, 0.1358),
        (0.0258, 0.0255, 0.0029),
        (0, 0, -0.12, 0, 0, 0.24),
        0.052,
    ),
    Link(
        (0, -0.042, 0.26),
        (1, -1, 0, 0),
        2.5097,
        (-0.0048, -0.0281, -0.0842),
        (0.0102, 0.0097, 0.0037),
        (0, 0, -0.11, 0, 0, 0.03),
        0.05,
    ),
    Link(
        (0, -0.125, -0.1265),
        (1, 1, 0, 0),
        1.1136,
        (-0.0019, 0.0069, 0.1341),
        (0.0137, 0.0135, 0.0013),
        (0, 0, -0.1, 0, 0, 0.25),
        0.043,
    ),
    Link(
        (0, 0.031, 0.275),
        (1, -1, 0, 0),
        1.5625,
        (0.0061, -0.0237, 0.0764),
        (0.0047, 0.0042, 0.0019),
        (0, 0, 0, 0, -0.08, 0.105),
        0.042,
    ),
    Link(
        (0, -0.11, 0.1053),
        (0.0616248, 0.06163, -0.704416, 0.704416),
        0.3292,
        (0, 0.0086, -0.0050),
        (0.00036, 0.00031, 0.00021),
        (0, 0, -0.015, 0, 0, 0.02),
        0.04,
    ),
)


@dataclass(frozen=True)
class GraspConfig:
    """How firmly the fingers hold the plug: a stiff spring in six degrees of freedom that slides beyond a friction
    limit."""

    stiffness: float = 4000.0
    """N/m along each axis."""
    rotational_stiffness: float = 8.0
    """N m/rad about each axis through the grip point."""
    slip_force: float = 25.0
    """N: above this the plug slides between the fingers."""
    slip_torque: float = 0.9
    """N m: above this it turns between the fingers."""
    dislodged_distance: float = 0.003
    """m of accumulated sliding after which the trial is over."""
    dislodged_angle: float = 0.10
    """rad of accumulated turning after which the trial is over."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"GraspConfig.{name} must be positive, got {value}")


def add_sawyer(spec: mujoco.MjSpec, *, visible: bool = True) -> mujoco.MjsBody:
    """Add the arm at the world's origin and return the ``tool`` body between the fingertips.

    Args:
        spec: the scene to add to.
        visible: draw the links; the inverse kinematics works on an arm without geometry.

    Returns:
        The ``tool`` body, whose z axis points from the fingertips back to the hand (up, when the arm reaches down),
        with a site of the same name at its origin.
    """
    spec.compiler.degree = False
    grey, dark = (0.62, 0.12, 0.12, 1.0), (0.2, 0.2, 0.22, 1.0)
    parent = spec.worldbody.add_body(name="base", gravcomp=1)
    for i, link in enumerate(LINKS):
        body = parent.add_body(
            name=f"right_l{i}",
            pos=link.position,
            quat=link.quaternion,
            gravcomp=1,
            mass=link.mass,
            ipos=link.centre,
            inertia=link.inertia,
            explicitinertial=True,
        )
        body.add_joint(
            name=JOINTS[i],
            type=mujoco.mjtJoint.mjJNT_HINGE,
            axis=(0, 0, 1),
            limited=mujoco.mjtLimited.mjLIMITED_TRUE,
            range=JOINT_RANGE[i],
            armature=0.1,
            damping=(0.1, 0, 0),
        )
        if visible:
            body.add_geom(
                type=mujoco.mjtGeom.mjGEOM_CAPSULE,
                fromto=link.capsule,
                size=(link.radius, 0, 0),
                rgba=grey if i % 2 == 0 else dark,
                contype=0,
                conaffinity=0,
                mass=0,
                group=2,
            )
        parent = body
    # The tool's z axis looks back at the hand: half a turn about x from the link's, which looks at the work.
    tool = parent.add_body(name="tool", pos=(0, 0, HAND_TO_TOOL), quat=(0, 1, 0, 0), gravcomp=1)
    tool.add_site(name="tool", pos=(0, 0, 0), size=(0.001, 0, 0))
    if visible:
        _draw_gripper(tool)
    return tool


def add_grasp(tool: mujoco.MjsBody, config: GraspConfig) -> mujoco.MjsBody:
    """Add the held body: six sprung joints at the grip point. Returns the ``plug`` body, in the plug frame (origin at
    the tip)."""
    # Turned back by the half turn that the tool has against the base: plug, socket and base frames are parallel.
    held = tool.add_body(name="plug", pos=(0, 0, -TOOL_TO_TIP), quat=(0, 0, 0, 1), gravcomp=1)
    axes = np.eye(3)
    grip = (0.0, 0.0, TOOL_TO_TIP)
    for i, name in enumerate(GRASP_JOINTS):
        slide = i < 3
        held.add_joint(
            name=name,
            type=mujoco.mjtJoint.mjJNT_SLIDE if slide else mujoco.mjtJoint.mjJNT_HINGE,
            axis=axes[i % 3],
            pos=grip,
            stiffness=(config.stiffness if slide else config.rotational_stiffness, 0, 0),
            # Near critical damping for the mass (0.08 kg) and inertia (with armature) of a held plug.
            damping=(35.0 if slide else 0.09, 0, 0),
            armature=0.0 if slide else 2e-4,
        )
    return held


def add_velocity_loops(spec: mujoco.MjSpec) -> None:
    """Add one velocity actuator a joint, saturated at the joint's effort limit."""
    for i, joint in enumerate(JOINTS):
        actuator = spec.add_actuator(
            name=joint,
            target=joint,
            trntype=mujoco.mjtTrn.mjTRN_JOINT,
            forcelimited=mujoco.mjtLimited.mjLIMITED_TRUE,
            forcerange=(-JOINT_EFFORT[i], JOINT_EFFORT[i]),
            ctrllimited=mujoco.mjtLimited.mjLIMITED_TRUE,
            ctrlrange=(-JOINT_VELOCITY[i], JOINT_VELOCITY[i]),
        )
        actuator.set_to_velocity(kv=VELOCITY_GAIN[i])


class Grasp:
    """Reads and slides the held plug: an elastic spring with a friction limit.

    The spring's rest pose creeps so that the spring force never exceeds the friction limit (elastic, perfectly
    plastic); what has crept is the slip.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, config: GraspConfig) -> None:
        joints = [model.joint(name) for name in GRASP_JOINTS]
        self.config = config
        self.strength = 1.0
        """Share of the friction limits that this trial's grasp has."""
        self.qpos = np.array([joint.qposadr[0] for joint in joints])
        first, place = int(joints[0].dofadr[0]), int(self.qpos[0])
        # Views of the simulation's own memory.
        self._held, self._anchor = data.qpos[place : place + 6], model.qpos_spring[place : place + 6]
        # Not qfrc_passive: gravity compensation is in it.
        self._spring, self._damper = (force[first : first + 6] for force in (data.qfrc_spring, data.qfrc_damper))
        self._tool = data.xmat[model.body("tool").id].reshape(3, 3)
        self._stiffness = np.array([config.stiffness] * 3 + [config.rotational_stiffness] * 3)
        self._rest = np.zeros(6)
        self._dislodged = False

    def reset(self, offset: NDArray[np.float64], strength: float = 1.0) -> None:
        """Take the plug with ``offset`` (6,), metres and radians, from the nominal pose, and a share of the full
        strength."""
        self.strength = strength
        self._rest = np.array(offset, dtype=np.float64)
        self._anchor[:] = self._held[:] = offset
        self._dislodged = False

    def load(self) -> tuple[float, float]:
        """Force (N) and torque (N m) between plug and fingers, spring and damping, as of the last physics step."""
        # Six floats: at 500 Hz, arrays would take longer than the physics.
        fx, fy, fz, tx, ty, tz = (self._spring + self._damper).tolist()
        return math.sqrt(fx * fx + fy * fy + fz * fz), math.sqrt(tx * tx + ty * ty + tz * tz)

    def wrench(self) -> NDArray[np.float64]:
        """Force (3,) N and torque (3,) N m that the plug puts on the fingers, along the base frame's axes."""
        # The grasp's joints lie along the tool's axes, which are turned half a turn about z against the base's.
        held = -(self._spring + self._damper) * _HALF_TURN
        return np.concatenate([self._tool @ held[:3], self._tool @ held[3:]])

    def slide(self) -> bool:
        """Let the plug slide where friction gives way. Returns whether it is dislodged."""
        config, strength = self.config, self.strength
        spring = self._stiffness * (self._held - self._anchor)
        fx, fy, fz, tx, ty, tz = spring.tolist()
        force, torque = math.sqrt(fx * fx + fy * fy + fz * fz), math.sqrt(tx * tx + ty * ty + tz * tz)
        for part, size, limit in (
            (slice(0, 3), force, strength * config.slip_force),
            (slice(3, 6), torque, strength * config.slip_torque),
        ):
            if size > limit:
                self._anchor[part] += spring[part] * (1 - limit / size) / self._stiffness[part]
                slip = self._anchor - self._rest
                self._dislodged |= bool(
                    np.linalg.norm(slip[:3]) > config.dislodged_distance
                    or np.linalg.norm(slip[3:]) > config.dislodged_angle
                )
        return self._dislodged


def _draw_gripper(tool: mujoco.MjsBody) -> None:
    """A hand and two fingers that close along the tool's y axis; for show, they collide with nothing."""
    show = {"contype": 0, "conaffinity": 0, "mass": 0, "group": 2}
    box = mujoco.mjtGeom.mjGEOM_BOX
    tool.add_geom(type=box, pos=(0, 0, 0.085), size=(0.03, 0.05, 0.025), rgba=(0.15, 0.15, 0.17, 1), **show)
    for side in (-1, 1):
        tool.add_geom(
            name=f"finger_{'left' if side < 0 else 'right'}",
            type=box,
            pos=(0, side * 0.014, 0.03),
            size=(0.008, 0.004, 0.035),
            rgba=(0.3, 0.3, 0.32, 1),
            **show,
        )
