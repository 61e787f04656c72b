"""Laws of the generated solids: they fit with exactly the play they promise, guide a plug that is a little off, and
refuse one that is far off."""

from __future__ import annotations

import itertools
from functools import cache

import mujoco
import numpy as np
import pytest

from lotj.sim.connectors import load_catalogue
from lotj.sim.geometry import plug_solids, socket_solids

CATALOGUE = load_catalogue()
NAMES = sorted(CATALOGUE)
GEOMS = {
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "mesh": mujoco.mjtGeom.mjGEOM_MESH,
}
SPRING = 60.0
"""N/m sideways: weak beside the 10 N that push."""


@cache
def model(name: str) -> mujoco.MjModel:
    """The colliding solids of one connector: a fixed socket, and a plug on three slides."""
    spec = mujoco.MjSpec()
    spec.option.timestep = 0.002
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.gravity = (0, 0, 0)
    plug = spec.worldbody.add_body(name="plug", mass=0.5, inertia=(1e-3, 1e-3, 1e-3), explicitinertial=True)
    for i, axis in enumerate(np.eye(3)):
        spring = SPRING if i < 2 else 0.0
        plug.add_joint(
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=axis,
            stiffness=[spring, 0, 0],
            damping=[30.0 if i == 2 else 8.0, 0, 0],
        )
    for body, solids, bits in (
        (plug, plug_solids(CATALOGUE[name]), (1, 2)),
        (spec.worldbody, socket_solids(CATALOGUE[name]), (2, 1)),
    ):
        for i, solid in enumerate(s for s in solids if s.collides):
            shared = {"pos": solid.position, "quat": solid.quaternion, "mass": 0.0, "friction": (0.25, 0.001, 0.0001)}
            label = f"{'plug' if body is plug else 'socket'}/{i}-{solid.name}"
            if solid.kind == "mesh":
                assert solid.vertices is not None
                inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX
                spec.add_mesh(name=label, uservert=solid.vertices.astype(np.float32).ravel(), inertia=inertia)
                geom = body.add_geom(type=GEOMS[solid.kind], meshname=label, **shared)
            else:
                geom = body.add_geom(type=GEOMS[solid.kind], size=np.resize(np.append(solid.size, 0), 3), **shared)
            geom.name, geom.contype, geom.conaffinity = label, *bits
            geom.solref, geom.solimp = (0.004, 1.0), (0.95, 0.99, 0.0005, 0.5, 2.0)
    return spec.compile()


def gaps(name: str, shift: tuple[float, float, float], *, body: bool = True) -> float:
    """Least distance (m) between plug and socket with the tip at ``shift``; negative where they overlap.

    Without ``body`` only the parts' sides count: neither the plug's body nor the floor or plate under the tip.
    """
    m = model(name)
    data = mujoco.MjData(m)
    data.qpos[:] = shift
    mujoco.mj_forward(m, data)
    plug = [g for g in range(m.ngeom) if m.geom(g).name.startswith("plug/") and (body or "-body" not in m.geom(g).name)]
    socket = [
        g for g in range(m.ngeom) if m.geom(g).name.startswith("socket/") and (body or "/0-" not in m.geom(g).name)
    ]
    near = 0.002
    return min(mujoco.mj_geomDistance(m, data, p, s, near, None) for p in plug for s in socket)


def press(name: str, offset: tuple[float, float]) -> np.ndarray:
    """Tip position (3,) m after 0.6 s of pressing with 10 N from above the mouth, the springs' rest at ``offset``."""
    m = model(name)
    data = mujoco.MjData(m)
    m.qpos_spring[:2] = offset
    data.qpos[:] = (*offset, CATALOGUE[name].insertion_depth + 0.002)
    data.qfrc_applied[2] = -10.0
    mujoco.mj_step(m, data, 300)
    return np.array(data.qpos)


@pytest.mark.parametrize("name", NAMES)
def test_aligned_plug_rests_without_overlap(name: str) -> None:
    """At full insertion, plug and socket touch at most: no pair of solids overlaps."""
    assert gaps(name, (0, 0, 0)) > -2e-6


@pytest.mark.parametrize("name", NAMES)
def test_least_gap_is_the_clearance(name: str) -> None:
    """Lifted 0.2 mm off the mouth, the least distance between the plug's parts and the cavity's walls is the
    clearance."""
    assert gaps(name, (0, 0, 0.0002), body=False) == pytest.approx(CATALOGUE[name].clearance, abs=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_shifted_plug_overlaps(name: str) -> None:
    """2.5 times the clearance sideways, in any direction, an inserted plug would have to pass through the socket."""
    step = 2.5 * CATALOGUE[name].clearance
    for angle in np.arange(8) * np.pi / 4:
        assert gaps(name, (step * np.cos(angle), step * np.sin(angle), 0.0005)) < 0


@pytest.mark.parametrize("name", NAMES)
def test_pieces_are_few_and_simple(name: str) -> None:
    """Sockets collide as at most 45 boxes, plugs as at most 20 pieces; plugs start at their tip plane, sockets end
    below it."""
    plug, socket = plug_solids(CATALOGUE[name]), socket_solids(CATALOGUE[name])
    assert {solid.kind for solid in socket if solid.collides} == {"box"}
    assert sum(solid.collides for solid in socket) <= 45
    assert sum(solid.collides for solid in plug) <= 20
    low = [solid.vertices[:, 2].min() for solid in plug if solid.vertices is not None]
    assert min(low) == pytest.approx(0.0, abs=1e-9)
    assert all(np.isclose(np.linalg.norm(solid.quaternion), 1) for solid in plug + socket)


@pytest.mark.parametrize("name", NAMES)
def test_lead_in_catches(name: str) -> None:
    """Straight down, 0.8 mm off along x or y, the lead-in guides every plug home."""
    for angle in np.arange(4) * np.pi / 2:
        assert abs(press(name, (0.0008 * np.cos(angle), 0.0008 * np.sin(angle)))[2]) < 0.001, angle


def test_one_pin_off_does_not_go_in() -> None:
    """With one pin over the hole of another like it, the plug rests on the socket's face: the block reaches far
    enough."""
    for connector in CATALOGUE.values():
        pins = [(part, np.array(c)) for part in connector.parts if part.has_cavity for c in part.centres()]
        for (a, first), (b, second) in itertools.permutations(pins, 2):
            if a.size == b.size and a.angle == b.angle:
                assert press(connector.name, tuple(second - first))[2] > 0.0015, connector.name


@pytest.mark.parametrize("name", NAMES)
def test_press(name: str) -> None:
    """Pressed with 10 N against friction 0.25, a plug that is aligned or 0.3 mm off goes home (and no further); 4 mm
    off it does not."""
    for offset in ((0.0, 0.0), (0.0003, 0.0), (-0.0002, 0.0002)):
        assert abs(press(name, offset)[2]) < 0.001, offset
    for offset in ((0.004, 0.0), (0.0, -0.004)):
        assert press(name, offset)[2] > 0.0015, offset
