"""Bench, clamp, socket, camera, lights and clutter around the robot, as one MuJoCo model for one connector.

A camera is a RealSense D435's colour camera (640 x 480, focal length 617 px) on a bracket at the robot's wrist,
looking at the tip. What a policy sees is a square crop round the optical axis, rendered at twice the resolution and
averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from lotj.sim.connector import Connector
from lotj.sim.geometry import Solid, plug_solids, socket_solids
from lotj.sim.robot import TOOL_TO_TIP, GraspConfig, add_grasp, add_sawyer, add_velocity_loops

FOCAL_LENGTH = 617.0
"""px at 640 x 480: a D435's factory calibration lies within a few px of this (69.4 x 42.5 degrees of view at 16:9)."""
WRIST = ("wrist", "wrist_2")
"""Names of the wrist's cameras."""
CLUTTER = 5
SOCKET_HOME = np.array([0.6, 0.0, 0.05])
"""m, where the socket's mouth is on average, in the base frame."""
BENCH_HEIGHT = 0.0


@dataclass(frozen=True)
class CameraConfig:
    """Where a wrist camera is and what of its picture is used."""

    azimuth: float = 18.0
    """degrees about the vertical, from the robot's forward direction."""
    elevation: float = 38.0
    """degrees above the horizontal: high shows lateral offset, low shows depth."""
    distance: float = 0.17
    """m from the look-at point."""
    below_tip: float = 0.004
    """m, the look-at point lies this far below the nominal tip."""
    crop: int = 168
    """px of the 640 x 480 picture that are kept, square."""

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 480:
            raise ValueError(f"CameraConfig.crop must be in 1..480 px of a 640 x 480 picture, got {self.crop}")
        if not 0.08 <= self.distance <= 0.5:
            raise ValueError(f"CameraConfig.distance must be in 0.08..0.5 m, got {self.distance}")

    @property
    def field_of_view(self) -> float:
        """degrees, vertical, of the crop."""
        return float(2 * np.degrees(np.arctan(self.crop / 2 / FOCAL_LENGTH)))

    def pose(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Position (3,) m and quaternion (4,) wxyz in the tool frame."""
        azimuth, elevation = np.radians([self.azimuth, self.elevation])
        # The tool frame is turned half a turn about z against the base frame: forward is -x.
        outward = np.array(
            [-np.cos(elevation) * np.cos(azimuth), -np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
        )
        look_at = np.array([0.0, 0.0, -TOOL_TO_TIP - self.below_tip])
        return look_at + self.distance * outward, look_quaternion(outward)


def look_quaternion(outward: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quaternion (4,) wxyz of a camera that looks along ``-outward`` (3,) with the vertical up in the picture."""
    right = np.cross([0.0, 0.0, 1.0], outward)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(outward, right), outward], axis=1)
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, rotation.ravel())
    return quaternion


def build_scene(
    connector: Connector, cameras: Sequence[CameraConfig], grasp: GraspConfig, timestep: float = 0.002
) -> mujoco.MjModel:
    """Compile the cell for one connector.

    Named for randomisation: bodies ``socket``, ``clutter_0`` ..; geoms ``bench``, ``wall``, ``plug/..`` and
    ``socket/..``; cameras ``wrist``, ``wrist_2`` (the policy's, as many as are given) and ``overview``; lights
    ``key``, ``fill``.
    """
    spec = mujoco.MjSpec()
    spec.option.timestep = timestep
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 5
    spec.visual.quality.offsamples = 0
    spec.visual.quality.shadowsize = 256
    spec.visual.global_.offwidth = 960
    spec.visual.global_.offheight = 720
    spec.visual.map.znear = 0.02
    spec.stat.extent = 1.0
    spec.stat.center = SOCKET_HOME
    _add_surroundings(spec)
    tool = add_sawyer(spec)
    add_velocity_loops(spec)
    for name, camera in zip(WRIST, cameras):
        position, quaternion = camera.pose()
        tool.add_camera(name=name, pos=position, quat=quaternion, fovy=camera.field_of_view)
    spec.worldbody.add_camera(
        name="overview",
        pos=(0.86, -0.36, 0.34),
        quat=look_quaternion(np.array([0.55, -0.72, 0.52]) / np.linalg.norm([0.55, -0.72, 0.52])),
        fovy=30,
    )
    plug = add_grasp(tool, grasp)
    add_solids(spec, plug, plug_solids(connector), "plug", mass=0.08)
    _add_holder(plug, connector)
    socket = spec.worldbody.add_body(name="socket", pos=SOCKET_HOME)
    add_solids(spec, socket, socket_solids(connector), "socket", mass=0.0)
    _add_clamp(socket, connector)
    return spec.compile()


def add_solids(spec: mujoco.MjSpec, body: mujoco.MjsBody, solids: list[Solid], prefix: str, mass: float) -> None:
    """Hang a plug's or a socket's solids on a body; geoms are named ``<prefix>/<number>-<solid>``, mass (kg) is
    shared among those that collide."""
    colliding = sum(solid.collides for solid in solids)
    # Plug parts never meet plug parts, nor socket parts the bench: one bit for each side.
    contype, conaffinity = (1, 2) if prefix == "plug" else (2, 1)
    for i, solid in enumerate(solids):
        name = f"{prefix}/{i}-{solid.name}"
        shared = {
            "name": name,
            "pos": solid.position,
            "quat": solid.quaternion,
            "rgba": solid.rgba,
            "contype": contype if solid.collides else 0,
            "conaffinity": conaffinity if solid.collides else 0,
            "mass": mass / colliding if solid.collides else 0.0,
            "friction": (0.25, 0.001, 0.0001),
            "solref": (0.004, 1.0),
            "solimp": (0.95, 0.99, 0.0005, 0.5, 2.0),
            "condim": 3,
        }
        if solid.kind == "mesh":
            assert solid.vertices is not None
            spec.add_mesh(
                name=name,
                uservert=np.asarray(solid.vertices, dtype=np.float32).ravel(),
                inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX,
            )
            body.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname=name, **shared)
        else:
            kind = mujoco.mjtGeom.mjGEOM_BOX if solid.kind == "box" else mujoco.mjtGeom.mjGEOM_CYLINDER
            size = np.zeros(3)
            size[: len(solid.size)] = solid.size
            body.add_geom(type=kind, size=size, **shared)


def _add_holder(plug: mujoco.MjsBody, connector: Connector) -> None:
    """A stem from the plug's top up to the fingertips, where the plug is shorter than the grip."""
    gap = TOOL_TO_TIP + 0.004 - connector.plug_height
    if gap > 0.002:
        plug.add_geom(
            name="plug/holder",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=(0, 0, connector.plug_height + gap / 2),
            size=(0.006, 0.009, gap / 2),
            rgba=(0.25, 0.25, 0.27, 1),
            contype=0,
            conaffinity=0,
            mass=0,
        )


def _add_clamp(socket: mujoco.MjsBody, connector: Connector) -> None:
    """Two jaws on a foot that reaches down to the bench. They stand below the mouth and collide with the plug like
    the socket does."""
    x, y, z = connector.socket_size
    mouth = connector.insertion_depth
    top, bottom = mouth - min(0.008, z / 2), mouth - SOCKET_HOME[2] - 0.015
    show = {"contype": 2, "conaffinity": 1, "mass": 0, "friction": (0.25, 0.001, 0.0001), "solref": (0.004, 1.0)}
    box = mujoco.mjtGeom.mjGEOM_BOX
    for side in (-1, 1):
        socket.add_geom(
            name=f"clamp/jaw_{'left' if side < 0 else 'right'}",
            type=box,
            pos=(0, side * (y / 2 + 0.006), (top + top - 0.02) / 2),
            size=(max(x / 2, 0.012), 0.006, 0.01),
            rgba=(0.45, 0.46, 0.48, 1),
            **show,
        )
    socket.add_geom(
        name="clamp/foot",
        type=box,
        pos=(0, 0, (top - 0.02 + bottom) / 2),
        size=(0.02, y / 2 + 0.012, max((top - 0.02 - bottom) / 2, 0.002)),
        rgba=(0.35, 0.36, 0.38, 1),
        **show,
    )


def _add_surroundings(spec: mujoco.MjSpec) -> None:
    world = spec.worldbody
    spec.add_texture(
        name="grain",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_FLAT,
        mark=mujoco.mjtMark.mjMARK_RANDOM,
        random=0.08,
        rgb1=(0.9, 0.9, 0.9),
        markrgb=(0.6, 0.6, 0.6),
        width=256,
        height=256,
    )
    grain = spec.add_material(name="grain", texrepeat=(12, 12), specular=0.1)
    grain.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "grain"
    still = {"contype": 0, "conaffinity": 0}
    box = mujoco.mjtGeom.mjGEOM_BOX
    world.add_geom(
        name="bench",
        type=box,
        pos=(0.6, 0, BENCH_HEIGHT - 0.02),
        size=(0.4, 0.5, 0.02),
        material="grain",
        rgba=(0.6, 0.55, 0.5, 1),
        **still,
    )
    world.add_geom(name="wall", type=box, pos=(-0.5, 0, 0.5), size=(0.02, 2, 1.5), rgba=(0.6, 0.62, 0.65, 1), **still)
    for i in range(CLUTTER):
        body = world.add_body(name=f"clutter_{i}", pos=(0.6, 0.1 + 0.02 * i, 0.01))
        kind = box if i % 2 == 0 else mujoco.mjtGeom.mjGEOM_CYLINDER
        body.add_geom(name=f"clutter_{i}", type=kind, size=(0.012, 0.012, 0.012), rgba=(0.5, 0.5, 0.5, 1), **still)
    spec.visual.headlight.ambient = (0.25, 0.25, 0.25)
    spec.visual.headlight.diffuse = (0.15, 0.15, 0.15)
    spec.visual.headlight.specular = (0.0, 0.0, 0.0)
    for name, position in (("key", (0.9, 0.4, 1.2)), ("fill", (0.5, -0.6, 1.0))):
        light = world.add_light(name=name, pos=position, dir=tuple(SOCKET_HOME - position), castshadow=False)
        light.type = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
