"""Whether a plug fits its socket, measured on the solids that collide: overlap, play, hold, lead-in and reach.

A plug that hangs on three slides is put into its socket, shifted, and pressed. What is found names the part and the
millimetres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from lotj.sim.connector import Connector
from lotj.sim.controller import ControllerConfig
from lotj.sim.env import SUCCESS_DEPTH, SUCCESS_LATERAL
from lotj.sim.geometry import plug_solids, socket_solids
from lotj.sim.mesh import TOUCH, MeshFrame, overlap
from lotj.sim.randomize import Randomization
from lotj.sim.robot import TOOL_TO_TIP
from lotj.sim.scene import SOCKET_HOME, add_solids

LEAST_PLAY = 0.00005
"""m: with less play on each side, rigid bodies jam."""
REST = 0.0001
"""m of overlap above each other: the plug rests so much higher, as it does where the pieces of a mesh stick out of the
mouth."""
LIFT = 0.0002
"""m that the plug is lifted to measure the play of its sides, so that its body does not touch."""
LEAD_IN = (0.0003, 0.0008)
"""m beside the axis: from the first a plug must slide home, from the second it should (as all of the catalogue do)."""
BESIDE = 0.004
"""m beside the axis from where a plug must not go in."""
PRESS = 10.0
"""N downwards."""
SPRING = 60.0
"""N/m sideways: weak beside the force that presses."""
HAND = 0.10
"""m above the tip where the hand begins."""
PIECES = (24, 80)
"""Of plug and socket, beyond which the simulator becomes slow."""


@dataclass(frozen=True)
class Finding:
    """Something wrong, or odd, with a connector."""

    unfit: bool
    """False: worth knowing, but it can be used."""
    what: str
    """What is wrong and where: part, millimetres."""
    remedy: str


class Pair(NamedTuple):
    """A piece of the plug and the piece of the socket that it is near to."""

    plug: str
    socket: str
    gap: float
    """m, negative where they overlap."""
    place: NDArray[np.float64]
    """(3,) m in the socket frame, halfway between the nearest points."""
    sideways: bool
    """The nearest points lie beside rather than above each other."""


class Fit(NamedTuple):
    """All that was measured."""

    play: dict[str, float]
    """m beside each part of the plug at full insertion, where it is less than 2 mm."""
    home_from: float
    """m beside the axis from where a plug that is pressed down still slides home; 0: only from the axis."""
    findings: list[Finding]


class Bench:
    """A fixed socket and a plug on three slides."""

    def __init__(self, connector: Connector) -> None:
        spec = mujoco.MjSpec()
        spec.option.timestep = 0.002
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        spec.option.gravity = (0, 0, 0)
        plug = spec.worldbody.add_body(name="plug", mass=0.5, inertia=(1e-3, 1e-3, 1e-3), explicitinertial=True)
        for i, axis in enumerate(np.eye(3)):
            plug.add_joint(
                type=mujoco.mjtJoint.mjJNT_SLIDE,
                axis=axis,
                stiffness=[SPRING if i < 2 else 0.0, 0, 0],
                damping=[30.0 if i == 2 else 8.0, 0, 0],
            )
        add_solids(spec, plug, [s for s in plug_solids(connector) if s.collides], "plug", mass=0.0)
        socket = spec.worldbody.add_body(name="socket")
        add_solids(spec, socket, [s for s in socket_solids(connector) if s.collides], "socket", mass=0.0)
        self.connector, self.model = connector, spec.compile()
        self.data = mujoco.MjData(self.model)
        self.plug, self.socket = (
            [g for g in range(self.model.ngeom) if self.model.geom(g).name.startswith(prefix)]
            for prefix in ("plug/", "socket/")
        )

    def near(self, shift: Sequence[float], within: float = 0.002) -> list[Pair]:
        """Pairs of pieces nearer than ``within`` (m) with the tip at ``shift`` (3,) m in the socket frame."""
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:] = shift
        mujoco.mj_forward(self.model, self.data)
        found, ends = [], np.zeros(6)
        for p in self.plug:
            for s in self.socket:
                gap = mujoco.mj_geomDistance(self.model, self.data, p, s, within, ends)
                if gap < within:
                    across = ends[3:] - ends[:3]
                    sideways = bool(abs(across[2]) < 0.7 * np.linalg.norm(across))
                    place = (ends[:3] + ends[3:]) / 2
                    found.append(Pair(label(self.model, p), label(self.model, s), gap, place, sideways))
        return found

    def press(self, offset: Sequence[float]) -> NDArray[np.float64]:
        """Tip (3,) m in the socket frame after 0.6 s of pressing from 2 mm above the mouth, ``offset`` (2,) m beside
        the axis."""
        mujoco.mj_resetData(self.model, self.data)
        self.model.qpos_spring[:2] = offset
        self.data.qpos[:] = (*offset, self.connector.insertion_depth + 0.002)
        self.data.qfrc_applied[2] = -PRESS
        mujoco.mj_step(self.model, self.data, 300)
        return np.array(self.data.qpos)


def measure(connector: Connector) -> Fit:
    """Measure how a plug fits its socket.

    Raises:
        ConnectorError: its meshes cannot be used.
    """
    bench = Bench(connector)
    play: dict[str, float] = {}
    for pair in bench.near((0, 0, LIFT)):
        if pair.sideways:
            play[pair.plug] = min(play.get(pair.plug, np.inf), pair.gap)
    findings = _overlaps(bench) + _play(connector, play) + _engagement(connector) + _hold(bench)
    home_from, stuck = _lead_in(bench)
    return Fit(play, home_from, findings + stuck + _reach(connector, bench))


def label(model: mujoco.MjModel, geom: int) -> str:
    """What people call a piece: its part's name."""
    name: str = model.geom(geom).name
    return name.split("/", 1)[-1].split("-", 1)[-1] if name.startswith(("plug/", "socket/")) else name


def touching(model: mujoco.MjModel, data: mujoco.MjData) -> str:
    """The pieces of plug and socket that press on each other most, as text; empty where none touch."""
    force, worst, text = np.zeros(6), 0.0, ""
    for i in range(data.ncon):
        mujoco.mj_contactForce(model, data, i, force)
        pair = sorted(data.contact[i].geom.tolist(), key=lambda g: not model.geom(g).name.startswith("plug/"))
        if force[0] > worst:
            x, y, z = 1e3 * _in_socket(model, data, data.contact[i].pos)
            worst = float(force[0])
            text = (
                f"part '{label(model, pair[0])}' rests on the socket's '{label(model, pair[1])}' "
                f"at ({x:.1f}, {y:.1f}, {z:.1f}) mm"
            )
    return text


def _in_socket(model: mujoco.MjModel, data: mujoco.MjData, place: NDArray[np.float64]) -> NDArray[np.float64]:
    socket = model.body("socket").id
    return data.xmat[socket].reshape(3, 3).T @ (place - data.xpos[socket])


def _overlaps(bench: Bench) -> list[Finding]:
    worst: dict[str, Pair] = {}
    for pair in bench.near((0, 0, 0), within=0.0):
        allowed = TOUCH if pair.sideways else REST
        if pair.gap < -allowed and pair.gap < worst.get(pair.plug, pair._replace(gap=0.0)).gap:
            worst[pair.plug] = pair
    remedy = _mesh_remedy(bench.connector) if worst and bench.connector.mesh is not None else "move or shrink the part"
    return [
        Finding(
            True,
            f"part '{pair.plug}' is {-1e3 * pair.gap:.2f} mm inside the socket's '{pair.socket}' at full insertion, "
            f"at ({', '.join(f'{1e3 * v:.1f}' for v in pair.place)}) mm",
            remedy,
        )
        for pair in worst.values()
    ]


def _mesh_remedy(connector: Connector) -> str:
    """Whether the meshes themselves overlap, or only the convex pieces that stand for them."""
    assert connector.mesh is not None
    shared = overlap(connector.mesh, MeshFrame(connector.insertion_depth, connector.body_size))
    if shared is None:
        return (
            "the meshes themselves fit: their decomposition into convex pieces closes the hole; lower 'mesh.detail' "
            f"(now {connector.mesh.detail:g})"
        )
    place = ", ".join(f"{1e3 * value:.1f}" for value in shared[1])
    depth = f"{1e3 * shared[0]:.2f} mm, from ({place}) mm upwards"
    return f"the meshes themselves overlap by about {depth}; correct them or their frames"


def _play(connector: Connector, play: dict[str, float]) -> list[Finding]:
    detail = "" if connector.mesh is None else f", or lower 'mesh.detail' (now {connector.mesh.detail:g})"
    return [
        Finding(
            True,
            f"part '{part}' has {1e3 * gap:.2f} mm of play beside it, at least {1e3 * LEAST_PLAY:g} mm is needed",
            f"widen the cavity, or shrink the part{detail}",
        )
        for part, gap in play.items()
        if -TOUCH <= gap < LEAST_PLAY  # less is an overlap, and told as one
    ]


def _engagement(connector: Connector) -> list[Finding]:
    """Parts that hardly enter: success counts from `SUCCESS_DEPTH` before full insertion."""
    shallow = [
        part
        for part in connector.parts
        if part.has_cavity and part.length is not None and part.length < 2 * SUCCESS_DEPTH
    ]
    alone = len(shallow) == sum(part.has_cavity for part in connector.parts)
    return [
        Finding(
            alone,
            f"part '{part.name}' enters its cavity by only {1e3 * (part.length or 0.0):.1f} mm, while "
            f"{1e3 * SUCCESS_DEPTH:g} mm short counts as inserted",
            "lengthen the part",
        )
        for part in shallow
    ]


def _hold(bench: Bench) -> list[Finding]:
    """Full depth must not be reached beside the socket."""
    free = []
    for angle in np.arange(8) * np.pi / 4:
        beside = SUCCESS_LATERAL * np.array([np.cos(angle), np.sin(angle)])
        if not bench.near((*beside, SUCCESS_DEPTH + LIFT), within=0.0):
            free.append(f"{np.degrees(angle):.0f}")
    if not free:
        return []
    return [
        Finding(
            True,
            f"{1e3 * SUCCESS_LATERAL:g} mm beside the axis (towards {', '.join(free)} degrees from x) the plug still "
            "reaches full depth: no part is held by a cavity",
            "let the parts reach down to the tip, or narrow the cavity",
        )
    ]


def _lead_in(bench: Bench) -> tuple[float, list[Finding]]:
    def short(distance: float) -> tuple[float, str]:
        """The worst of four directions: m missing to full insertion, and what it rests on."""
        worst, resting = -np.inf, ""
        for angle in np.arange(4 if distance else 1) * np.pi / 2:
            missing = float(bench.press((distance * np.cos(angle), distance * np.sin(angle)))[2])
            if missing > worst:
                worst, resting = missing, touching(bench.model, bench.data)
        return worst, resting

    missing, resting = short(0.0)
    if missing > SUCCESS_DEPTH:
        what = f"pressed down with {PRESS:g} N on the axis, the plug stops {1e3 * missing:.1f} mm short"
        return 0.0, [Finding(True, f"{what}: {resting}", "clear what stands in the way")]
    home, findings = 0.0, []
    for distance in LEAD_IN:
        missing, resting = short(distance)
        if missing > SUCCESS_DEPTH:
            what = f"pressed down {1e3 * distance:g} mm beside the axis, the plug stops {1e3 * missing:.1f} mm short"
            remedy = "give it more lead-in (a slope at the tip or at the rim) or more play"
            findings.append(Finding(distance == LEAD_IN[0], f"{what}: {resting}", remedy))
            break
        home = distance
    for angle in np.arange(4) * np.pi / 2:
        place = (BESIDE * np.cos(angle), BESIDE * np.sin(angle))
        if bench.press(place)[2] < SUCCESS_DEPTH:
            what = f"pressed down {1e3 * BESIDE:g} mm beside the axis, towards {np.degrees(angle):.0f} degrees from x"
            findings.append(Finding(True, f"{what}, the plug still reaches full depth", "narrow the cavity"))
    return home, findings


def _reach(connector: Connector, bench: Bench) -> list[Finding]:
    """Room of the robot: depth, height, bench, camera and simulator."""
    variation = Randomization()
    mouth = float(SOCKET_HOME[2]) - variation.socket_height
    floor = ControllerConfig().workspace_low[2]
    room = mouth - floor - variation.grasp_lateral
    found = []
    if connector.insertion_depth > room + 1e-9:
        found.append(
            Finding(
                True,
                f"the robot's workspace ends {1e3 * room:.1f} mm below the lowest mouth, full insertion is at "
                f"{1e3 * connector.insertion_depth:.1f} mm",
                "shorten 'insertion_depth' (the socket's cavity may stay deeper)",
            )
        )
    if connector.plug_height > HAND:
        what = (
            f"the plug is {1e3 * connector.plug_height:.0f} mm high, the hand begins {1e3 * HAND:.0f} mm above its tip"
        )
        found.append(
            Finding(
                True,
                what,
                f"cut the plug off above the fingers, which hold it {1e3 * TOOL_TO_TIP:.0f} mm above the tip",
            )
        )
    below = connector.socket_size[2]
    if below > mouth:
        what = f"the socket is {1e3 * below:.0f} mm high, {1e3 * (below - mouth):.0f} mm may stand inside the bench"
        found.append(Finding(False, what, "shorten what is below the cavity: it is only drawn"))
    for side, pieces, limit in (("plug", bench.plug, PIECES[0]), ("socket", bench.socket, PIECES[1])):
        if len(pieces) > limit:
            what = f"the {side} has {len(pieces)} pieces, above {limit} the simulator becomes slow"
            found.append(Finding(False, what, "leave out what touches nothing"))
    return found
