"""How far apart the mating faces of two connectors are, in metres: what "never close to a test connector" means."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from lotj.sim.connector import Connector
from lotj.sim.connectors import TEST_CONNECTORS, load_catalogue, variants_of
from lotj.sim.fit import placed_envelopes
from lotj.sim.parts import ConnectorError

TWIN = 0.0021
"""m: nearer faces are those of close variants, whatever their families. The grouping rule of docs/connectors.md, 1 mm
in each size and along each axis of place, comes to this."""
DIRECTIONS = 32
"""In which outlines are compared; a multiple of four, so that quarter turns and mirror images permute them."""

_ANGLES = 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS
_AXES = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)])


def distance(a: Connector, b: Connector) -> float:
    r"""How far (m) an outline of one mating face lies from its counterpart on the other, at worst.

    Outlines are those of all copies of pins, shells and studs. Two of them are apart by the largest difference of their
    support functions, :math:`d(p, q) = \max_u |h_p(u) - h_q(u)|`, which for convex outlines is their Hausdorff
    distance: place, size, angle and profile in one figure. Two faces are apart by the worst of their outlines, paired
    one to one, at the best of all placements that bring one pair of centres together, quarter turns and mirror images
    included: a plug turned by a quarter is no other plug. Outlines of the richer face may be left over (a plug without
    its earth pin is a close variant), unless the other has only one: then all count.

    Colour, body, keys, drawn-only contacts and insertion depth do not count, nor whether an outline is hollow: without
    them two faces can only be nearer. Studs on a plate are infinitely far from cavities in a block.

    Args:
        a: a connector.
        b: another; the order does not matter.

    Returns:
        m, 0 for a connector and itself.
    """
    if a.open_socket != b.open_socket:
        return np.inf
    return _apart(_outlines(a), _outlines(b))


def distance_to_test(connector: Connector) -> float:
    """How far (m) a connector's face is from that of the nearest test connector or close variant of one."""
    face = _outlines(connector)
    return min(_apart(face, other) for other in _protected_outlines(connector.open_socket))


@cache
def protected() -> tuple[Connector, ...]:
    """The test connectors and all their close variants: what training must not know."""
    names = sorted({variant for name in TEST_CONNECTORS for variant in variants_of(name)})
    return tuple(load_catalogue()[name] for name in names)


@cache
def barred_from_training() -> frozenset[str]:
    """Catalogue names that offline training must not know if the four test connectors are to be novel: these, their
    close variants, and `TWIN` faces in other families (a banana plug of 19 mm pitch is nearly a Europlug)."""
    kin = {connector.name for connector in protected()}
    return frozenset(kin | {name for name, other in load_catalogue().items() if distance_to_test(other) < TWIN})


@cache
def _protected_outlines(open_socket: bool) -> tuple[NDArray[np.float64], ...]:
    """The faces to keep away from: of each set that share their outlines, one."""
    faces = {_outlines(other).tobytes(): _outlines(other) for other in protected() if other.open_socket == open_socket}
    return tuple(faces.values())


def _apart(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """`distance` of two faces (N, D) and (M, D)."""
    fewer, more = sorted((a, b), key=len)
    turned = _symmetries(fewer)  # (8, N, D)
    shift = _centres(more) - _centres(turned)[:, :, None]  # (8, N, M, 2)
    placed = turned[:, None, None] + (shift @ _AXES)[..., None, :]  # (8, N, M, N, D)
    apart = np.abs(placed[..., None, :] - more).max(axis=-1).reshape(-1, len(fewer), len(more))
    if len(fewer) == 1:
        return float(apart.max(axis=(1, 2)).min())
    best = np.inf
    # Each outline's nearest counterpart bounds what a pairing can reach.
    bound = apart.min(axis=2).max(axis=1)
    for i in np.argsort(bound):
        if bound[i] >= best:
            break
        best = min(best, float(apart[i][linear_sum_assignment(apart[i])].max()))
    return best


def _outlines(connector: Connector) -> NDArray[np.float64]:
    """(N, D) m, support function of every outline that counts."""
    if connector.mesh is not None:
        raise ConnectorError(
            f"connector '{connector.name}' has meshes: faces are compared by parts, of which it has none"
        )
    placed = [outline for part, outline in placed_envelopes(connector) if part.kind != "key"]
    return np.stack([np.max(outline @ _AXES, axis=0) for outline in placed])


def _symmetries(outlines: NDArray[np.float64]) -> NDArray[np.float64]:
    """(8, N, D), the face (N, D) turned by quarters, and its mirror image likewise."""
    mirrored = np.roll(outlines[:, ::-1], 1, axis=1)
    turns = [np.roll(face, quarter * DIRECTIONS // 4, axis=1) for face in (outlines, mirrored) for quarter in range(4)]
    return np.stack(turns)


def _centres(outlines: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 2) m, Steiner points of outlines (..., D): they move and turn with the outline."""
    return 2 / DIRECTIONS * outlines @ _AXES.T
