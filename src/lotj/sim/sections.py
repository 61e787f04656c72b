"""Outlines in which a plane cuts convex solids: the measured drawing of a plug in its socket."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from lotj.sim.profiles import Polygon
from lotj.sim.solids import Solid

ROUND = 48
"""Corners that stand for a cylinder's circle."""


class Cut(NamedTuple):
    """What a plane leaves of one solid."""

    outline: Polygon
    """(N, 2) m, along the two axes that the plane spans, in their order."""
    solid: Solid


def corners(solid: Solid) -> NDArray[np.float64]:
    """(N, 3) m, corners of a solid in its plug's or socket's frame; a cylinder's circle has 48."""
    if solid.kind == "mesh":
        assert solid.vertices is not None
        local = np.asarray(solid.vertices, dtype=np.float64)
    elif solid.kind == "box":
        local = np.array(np.meshgrid(*[(-1.0, 1.0)] * 3)).reshape(3, -1).T * solid.size
    else:
        angles = 2 * np.pi * np.arange(ROUND) / ROUND
        ring = solid.size[0] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        local = np.concatenate([np.column_stack([ring, np.full(ROUND, z)]) for z in (-solid.size[1], solid.size[1])])
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, solid.quaternion)
    return local @ rotation.reshape(3, 3).T + solid.position


def cut(solids: Sequence[Solid], axis: int, at: float) -> list[Cut]:
    """Cut solids by the plane where coordinate ``axis`` is ``at`` (m). Those that it misses, or only grazes, are left
    out."""
    across = [i for i in range(3) if i != axis]
    found = []
    for solid in solids:
        points = corners(solid)
        above, below = points[points[:, axis] > at], points[points[:, axis] <= at]
        if not len(above) or not len(below):
            continue
        # Every edge of the solid joins two corners; lines between others pierce the plane inside the outline.
        share = (at - below[:, None, axis]) / (above[None, :, axis] - below[:, None, axis])
        pierced = below[:, None] + share[..., None] * (above[None] - below[:, None])
        flat = pierced.reshape(-1, 3)[:, across]
        try:
            found.append(Cut(flat[ConvexHull(flat).vertices], solid))
        except QhullError:
            continue
    return found
