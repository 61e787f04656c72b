"""Convex pieces: boxes, cylinders and meshes with a place, a turn and a colour, and how to cover a plate with holes by
boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class Solid:
    """A convex piece in the frame of its plug or socket."""

    kind: Literal["box", "cylinder", "mesh"]
    """A mesh is the convex hull of its vertices."""
    position: NDArray[np.float64]
    """(3,) m."""
    quaternion: NDArray[np.float64]
    """(4,) wxyz."""
    size: NDArray[np.float64]
    """(3,) m half extents of a box; (2,) radius and half height of a cylinder; (0,) for a mesh."""
    vertices: NDArray[np.float64] | None
    """(N, 3) m, of a mesh."""
    rgba: tuple[float, float, float, float]
    collides: bool
    """False: only drawn."""
    name: str


def make_solid(
    kind: Literal["box", "cylinder", "mesh"],
    position: ArrayLike,
    size: ArrayLike,
    colour: tuple[float, ...],
    name: str,
    *,
    quaternion: ArrayLike = (1.0, 0.0, 0.0, 0.0),
    vertices: NDArray[np.float64] | None = None,
    collides: bool = True,
) -> Solid:
    """A solid from anything array-like; sizes as in `Solid`."""
    place, turn, extents = (np.asarray(value, dtype=np.float64) for value in (position, quaternion, size))
    red, green, blue, alpha = colour
    return Solid(kind, place, turn, extents, vertices, (red, green, blue, alpha), collides, name)


def slab(
    low: ArrayLike,
    high: ArrayLike,
    bottom: float,
    top: float,
    colour: tuple[float, ...],
    name: str,
    *,
    collides: bool = True,
) -> Solid:
    """An upright box between two corners (2,) and two heights."""
    a, b = np.append(low, bottom), np.append(high, top)
    return make_solid("box", (a + b) / 2, (b - a) / 2, colour, name, collides=collides)


def upright(
    half: NDArray[np.float64],
    centre: tuple[float, float],
    degrees: float,
    bottom: float,
    top: float,
    colour: tuple[float, ...],
    name: str,
    *,
    collides: bool = True,
) -> Solid:
    """A box turned about z, between two heights."""
    turn = (np.cos(np.radians(degrees) / 2), 0.0, 0.0, np.sin(np.radians(degrees) / 2))
    size = (*half, (top - bottom) / 2)
    return make_solid("box", (*centre, (bottom + top) / 2), size, colour, name, quaternion=turn, collides=collides)


def quaternion(axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quaternion (4,) wxyz of a rotation matrix (3, 3), by the largest of its four components (Shepperd 1978)."""
    m = axes
    squares = np.array([m.trace(), m[0, 0], m[1, 1], m[2, 2]]) * 2 - m.trace() + 1
    products = np.array(
        [
            [0, m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]],
            [0, 0, m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]],
            [0, 0, 0, m[1, 2] + m[2, 1]],
            [0, 0, 0, 0],
        ]
    )
    table = products + products.T + np.diag(squares)
    row: NDArray[np.float64] = table[int(np.argmax(squares))]
    return row / np.linalg.norm(row)


def cover(
    half: NDArray[np.float64], rectangles: Sequence[NDArray[np.float64]]
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Cover a centred rectangle minus others (each xmin, ymin, xmax, ymax) by few rectangles, given as lower and upper
    corners."""
    xs = np.unique(np.round(np.concatenate([[-half[0], half[0]], *[r[[0, 2]] for r in rectangles]]), 9))
    ys = np.unique(np.round(np.concatenate([[-half[1], half[1]], *[r[[1, 3]] for r in rectangles]]), 9))
    middle_x, middle_y = (xs[1:] + xs[:-1]) / 2, (ys[1:] + ys[:-1]) / 2
    solid = np.ones((len(middle_x), len(middle_y)), dtype=bool)
    for x0, y0, x1, y1 in rectangles:
        solid &= ~np.outer((middle_x > x0) & (middle_x < x1), (middle_y > y0) & (middle_y < y1))
    best = min(_merge_cells(solid), [(y, x) for x, y in _merge_cells(solid.T)], key=len)
    corners = [(np.array([xs[x.start], ys[y.start]]), np.array([xs[x.stop], ys[y.stop]])) for x, y in best]
    return corners


def _merge_cells(solid: NDArray[np.bool_]) -> list[tuple[slice, slice]]:
    """Greedy cover of the true cells: the longest run along the second axis, then as wide as it goes along the
    first."""
    left = solid.copy()
    found = []
    for i, j in zip(*np.nonzero(solid)):
        if not left[i, j]:
            continue
        stop_j = j + 1
        while stop_j < left.shape[1] and left[i, stop_j]:
            stop_j += 1
        stop_i = i + 1
        while stop_i < left.shape[0] and left[stop_i, j:stop_j].all():
            stop_i += 1
        left[i:stop_i, j:stop_j] = False
        found.append((slice(int(i), int(stop_i)), slice(int(j), int(stop_j))))
    return found
