"""Plug and socket as meshes: read, checked for units and frame, and taken apart into convex pieces.

Needs the extra ``lotj[mesh]`` (trimesh, coacd, manifold3d), and only where a connector names meshes.
"""

from __future__ import annotations

import hashlib
import io
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lotj.files import write_atomic
from lotj.sim.parts import ConnectorError, check_choice, check_range, check_text

Vector = tuple[float, float, float]
Side = Literal["plug", "socket"]
UNITS = {"mm": 1e-3, "m": 1.0, "inch": 0.0254}
FORMATS = (".stl", ".obj", ".ply", ".glb")
LONGEST = (0.005, 0.2)
"""m, between which the longest side of a plug or socket must be."""
FRAME = 0.0005
"""m that tip plane and mouth may be off."""
OFF_AXIS = 0.25
"""Of its width may the middle of what enters the socket be beside the axis."""
GRIP = 0.005
"""m that a plug must stand above the mouth, to be held."""
TOUCH = 0.00002
"""m of overlap that is a matter of rounding."""
DUST = 1e-13
"""m^3: smaller pieces are left out."""
CACHE = ".lotj-meshes"
"""Folder beside a mesh file with its pieces; it may be deleted."""


@dataclass(frozen=True)
class MeshPair:
    """The files of a plug and a socket, and how they come into their frames: scaled to metres, turned, moved."""

    plug: str
    """STL, OBJ, PLY or GLB file; in a connector's TOML, relative to it."""
    socket: str
    """Likewise."""
    units: str = "mm"
    """Of the files: ``mm``, ``m`` or ``inch``."""
    plug_rotation: Vector = (0.0, 0.0, 0.0)
    """degrees about the fixed axes x, then y, then z."""
    plug_translation: Vector = (0.0, 0.0, 0.0)
    """m, after the rotation."""
    socket_rotation: Vector = (0.0, 0.0, 0.0)
    """degrees, likewise."""
    socket_translation: Vector = (0.0, 0.0, 0.0)
    """m, likewise."""
    detail: float = 0.02
    """Concavity that a piece may keep, as a share of the mesh's size: less keeps narrow holes open, in more pieces
    and more time (below 0.01, minutes)."""
    digest: str = field(default="")
    """SHA-256 of both files' content; filled in on reading, so that edited meshes are another connector."""

    def __post_init__(self) -> None:
        check_choice("mesh.units", self.units, tuple(UNITS))
        check_range("mesh.detail", self.detail, 0.002, 0.2, "of the size")
        for side in ("plug", "socket"):
            path = Path(getattr(self, side))
            check_text(f"mesh.{side}", getattr(self, side))
            if path.suffix.lower() in (".step", ".stp"):
                raise ConnectorError(
                    f"field 'mesh.{side}': {path} is a STEP file, which holds surfaces and no mesh; open it in your "
                    "CAD program and export the part as STL in mm (in FreeCAD: select the body, File > Export, STL)"
                )
            check_choice(f"mesh.{side}, its ending", path.suffix.lower(), FORMATS)
            for value in getattr(self, f"{side}_rotation"):
                check_range(f"mesh.{side}_rotation", value, -360, 360, "degrees")
            for value in getattr(self, f"{side}_translation"):
                check_range(f"mesh.{side}_translation", value, -0.2, 0.2)


class Pieces(NamedTuple):
    """A connector's convex pieces, each (N, 3) m, in the plug's and the socket's frame."""

    plug: tuple[NDArray[np.float64], ...]
    socket: tuple[NDArray[np.float64], ...]


class MeshFrame(NamedTuple):
    """What the figures of the connector's description say about its meshes."""

    insertion_depth: float
    """m."""
    body_size: tuple[float, float]
    """m."""


def digest(plug: Path, socket: Path) -> str:
    """SHA-256 of the content of both files.

    Raises:
        ConnectorError: one cannot be read.
    """
    whole = hashlib.sha256()
    for side, path in (("plug", plug), ("socket", socket)):
        try:
            whole.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError as error:
            raise ConnectorError(
                f"field 'mesh.{side}': {path} cannot be read ({error.strerror}); "
                "give its path relative to the TOML file"
            ) from error
    return whole.hexdigest()


@lru_cache(maxsize=16)
def pieces(pair: MeshPair, frame: MeshFrame) -> Pieces:
    """Read, check and take apart both meshes; the pieces are kept in `CACHE` beside each file.

    Raises:
        ConnectorError: an extra is missing, or a mesh is not watertight, of implausible size, or not in its frame.
    """
    plug, socket = meshes(pair, frame)
    return Pieces(_decompose(pair, "plug", plug), _decompose(pair, "socket", socket))


def meshes(pair: MeshPair, frame: MeshFrame) -> tuple[Any, Any]:
    """Plug and socket as ``trimesh.Trimesh``, in metres and in their frames, checked.

    Raises:
        ConnectorError: as `pieces`.
    """
    plug, socket = _read(pair, "plug"), _read(pair, "socket")
    _check_size(pair, plug, socket, frame)
    wrong = [*_plug_complaints(plug, frame, pair.plug), *_socket_complaints(socket, frame, pair.socket)]
    if wrong:
        # A plug is no taller than a socket is deep by chance only: tried the other way round, frames tell.
        if not [*_plug_complaints(socket, frame, pair.socket), *_socket_complaints(plug, frame, pair.plug)]:
            raise ConnectorError(
                f"fields 'mesh.plug' and 'mesh.socket': {pair.plug} and {pair.socket} look swapped; exchange them"
            )
        raise ConnectorError(wrong[0])
    return plug, socket


def overlap(pair: MeshPair, frame: MeshFrame) -> tuple[float, Vector] | None:
    """How deep (m, roughly) the meshes themselves are inside each other at full insertion, and where (m); None if they
    are not."""
    plug, socket = meshes(pair, frame)
    shared = _trimesh().boolean.intersection([plug, socket], engine="manifold")
    if shared.is_empty or min(shared.extents) < TOUCH:
        return None

    def thickness(body: Any) -> float:
        """Of a sheet: what two parts that run into each other share is thin."""
        return 2 * abs(float(body.volume)) / float(body.area)

    with np.errstate(all="ignore"):  # sheets without a volume have no centre of mass
        deepest = max(shared.split(only_watertight=False), key=thickness)
    x, y, z = deepest.vertices[np.argmin(deepest.vertices[:, 2])]
    return thickness(deepest), (float(x), float(y), float(z))


def _trimesh() -> Any:
    try:
        import manifold3d  # noqa: F401 - which trimesh needs to intersect meshes
        import trimesh
    except ImportError as error:
        raise ConnectorError(
            f"meshes need packages that are not installed ({error}); pip install -e '.[mesh]'"
        ) from error
    return trimesh


def _read(pair: MeshPair, side: Side) -> Any:
    trimesh = _trimesh()
    path = Path(getattr(pair, side))
    try:
        mesh = trimesh.load_mesh(path)
    except OSError as error:
        raise ConnectorError(f"field 'mesh.{side}': {path} cannot be read ({error}); check the path") from error
    except Exception as error:  # whatever a parser makes of a broken file
        raise ConnectorError(f"field 'mesh.{side}': {path} is no mesh ({error}); export it again as STL") from error
    if isinstance(mesh, trimesh.Scene):
        mesh = mesh.to_mesh()
    if not isinstance(mesh, trimesh.Trimesh) or len(mesh.faces) < 4:
        raise ConnectorError(f"field 'mesh.{side}': {path} holds no triangles; export it again as STL")
    if not np.all(np.isfinite(mesh.vertices)):
        raise ConnectorError(f"field 'mesh.{side}': {path} holds coordinates that are not finite; export it again")
    mesh.merge_vertices()
    if not mesh.is_watertight:
        triangles = np.unique(mesh.edges_sorted, axis=0, return_counts=True)[1]  # at each edge
        alone, many = int(np.sum(triangles == 1)), int(np.sum(triangles > 2))
        raise ConnectorError(
            f"field 'mesh.{side}': {path} is not watertight ({alone} edges belong to one triangle only, {many} to more "
            "than two), so what is inside is not defined; in your CAD program close the holes and part bodies that "
            "touch along an edge, or export a solid body instead of surfaces"
        )
    if mesh.volume < 0:
        mesh.invert()
    move = np.eye(4)
    move[:3, :3] = _rotation(getattr(pair, f"{side}_rotation"))
    mesh.apply_scale(UNITS[pair.units])
    move[:3, 3] = getattr(pair, f"{side}_translation")
    mesh.apply_transform(move)
    return mesh


def _rotation(degrees: Vector) -> NDArray[np.float64]:
    """(3, 3), about the fixed axes x, then y, then z."""
    turned = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[[i, j], [i, j]] = np.cos(angle)
        turn[j, i], turn[i, j] = np.sin(angle), -np.sin(angle)
        turned = turn @ turned
    return turned


def _check_size(pair: MeshPair, plug: Any, socket: Any, frame: MeshFrame) -> None:
    """Sizes that no connector has, or that differ from the body's as units do."""
    for side, mesh in (("plug", plug), ("socket", socket)):
        longest = float(max(mesh.extents))
        if LONGEST[0] <= longest <= LONGEST[1]:
            continue
        other = _likely_units(pair, longest, max(*frame.body_size, frame.insertion_depth))
        raise ConnectorError(
            f"field 'mesh.units': with units = \"{pair.units}\", {getattr(pair, side)} would be {1e3 * longest:g} mm "
            f"long, expected {1e3 * LONGEST[0]:g} to {1e3 * LONGEST[1]:g} mm; {other}"
        )


def _likely_units(pair: MeshPair, longest: float, expected: float) -> str:
    """The units under which a length comes nearest to what is expected."""
    lengths = {unit: longest / UNITS[pair.units] * scale for unit, scale in UNITS.items()}
    best = min(lengths, key=lambda unit: abs(np.log(lengths[unit] / expected)))
    if not LONGEST[0] <= lengths[best] <= LONGEST[1]:
        return "no unit makes it plausible: export it again"
    return f'it was likely exported in units = "{best}" ({1e3 * lengths[best]:.3g} mm)'


def _plug_complaints(plug: Any, frame: MeshFrame, path: str) -> list[str]:
    low, high = plug.bounds
    where = f"field 'mesh.plug': {path}"
    wrong = []
    if abs(low[2]) > FRAME:
        wrong.append(
            f"{where}: its lowest point is at z = {1e3 * low[2]:.2f} mm, expected 0 (the tip plane, +z towards the "
            f"hand); add {-low[2]:.5f} to the z of 'mesh.plug_translation', or turn it by 'mesh.plug_rotation'"
        )
        return wrong
    if high[2] < frame.insertion_depth + GRIP:
        wrong.append(
            f"{where}: its top is at z = {1e3 * high[2]:.2f} mm, expected at least {1e3 * GRIP:g} mm above the mouth "
            f"at insertion_depth ({1e3 * frame.insertion_depth:g} mm); is it upside down, or 'insertion_depth' wrong?"
        )
    points = plug.vertices[plug.vertices[:, 2] < 0.5 * frame.insertion_depth]
    middle, width = (points.min(axis=0) + points.max(axis=0)) / 2, np.ptp(points, axis=0)
    if np.any(np.abs(middle[:2]) > np.maximum(OFF_AXIS * width[:2], FRAME)):
        x, y = middle[:2]
        wrong.append(
            f"{where}: what enters the socket is centred at ({1e3 * x:.2f}, {1e3 * y:.2f}) mm, expected near the axis "
            f"(0, 0); add [{-x:.5f}, {-y:.5f}, 0] to 'mesh.plug_translation', and as much to the socket's"
        )
    footprint = np.ptp(plug.bounds, axis=0)[:2]
    if np.any(np.abs(footprint - frame.body_size) > np.maximum(0.2 * np.array(frame.body_size), 0.002)):
        x, y = 1e3 * footprint
        wrong.append(
            f"{where}: its footprint is {x:.2f} x {y:.2f} mm, but 'body_size' says "
            f"{1e3 * frame.body_size[0]:g} x {1e3 * frame.body_size[1]:g} mm; correct 'mesh.units', "
            "'mesh.plug_rotation' or 'body_size'"
        )
    return wrong


def _socket_complaints(socket: Any, frame: MeshFrame, path: str) -> list[str]:
    low, high = socket.bounds
    where = f"field 'mesh.socket': {path}"
    wrong = []
    if abs(high[2] - frame.insertion_depth) > FRAME:
        wrong.append(
            f"{where}: its top is at z = {1e3 * high[2]:.2f} mm, expected the mouth at insertion_depth "
            f"({1e3 * frame.insertion_depth:g} mm; z = 0 is where the plug's tip ends); add "
            f"{frame.insertion_depth - high[2]:.5f} to the z of 'mesh.socket_translation', or correct 'insertion_depth'"
        )
    elif low[2] > -FRAME:
        wrong.append(
            f"{where}: its bottom is at z = {1e3 * low[2]:.2f} mm, expected below the tip plane (z = 0); "
            "is 'insertion_depth' wrong, or the socket without a floor?"
        )
    if np.any(low[:2] > -FRAME) or np.any(high[:2] < FRAME):
        wrong.append(
            f"{where}: it does not lie around the plug's axis (x {1e3 * low[0]:.1f} to {1e3 * high[0]:.1f} mm, y "
            f"{1e3 * low[1]:.1f} to {1e3 * high[1]:.1f} mm); set 'mesh.socket_translation'"
        )
    if socket.is_convex:
        wrong.append(f"{where}: it is convex, so it has no cavity to enter; export the socket with its hole")
    return wrong


def _decompose(pair: MeshPair, side: Side, mesh: Any) -> tuple[NDArray[np.float64], ...]:
    """Convex pieces, from the cache where it has them."""
    key = hashlib.sha256(
        b"1" + mesh.vertices.astype("<f8").tobytes() + mesh.faces.astype("<i8").tobytes() + repr(pair.detail).encode()
    )
    path = Path(getattr(pair, side))
    cached = path.parent / CACHE / f"{path.stem}-{key.hexdigest()[:16]}.npz"
    if cached.is_file():
        with np.load(cached, allow_pickle=False) as held:
            return tuple(held[f"piece_{i}"] for i in range(len(held.files)))
    found = [np.asarray(mesh.vertices)] if mesh.is_convex else _convex_parts(mesh, pair.detail)
    content = io.BytesIO()
    np.savez(content, **{f"piece_{i}": piece for i, piece in enumerate(found)})  # type: ignore[arg-type]
    with suppress(OSError):  # a folder that cannot be written to costs the time of decomposing again
        cached.parent.mkdir(exist_ok=True)
        write_atomic(cached, content.getvalue())
    return tuple(found)


def _convex_parts(mesh: Any, detail: float) -> list[NDArray[np.float64]]:
    """CoACD (Wei et al. 2022) with a fixed seed; the mesh is watertight, so nothing is remeshed."""
    try:
        import coacd
    except ImportError as error:
        raise ConnectorError("meshes with hollows need coacd; pip install -e '.[mesh]'") from error
    from scipy.spatial import ConvexHull, QhullError

    coacd.set_log_level("error")
    raw = coacd.run_coacd(coacd.Mesh(mesh.vertices, mesh.faces), threshold=detail, seed=0, preprocess_mode="off")
    found = []
    for vertices, _ in raw:
        try:
            hull = ConvexHull(vertices)
        except QhullError:
            continue  # flat
        if hull.volume > DUST:
            found.append(np.asarray(vertices, dtype=np.float64)[hull.vertices])
    return found
