"""Outlines of connector parts: convex polygons (N, 2) in metres, counterclockwise, and the little plane geometry they
need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Polygon: TypeAlias = NDArray[np.float64]
"""(N, 2) m, convex, counterclockwise."""


def rectangle(width: float, height: float, corner: float = 0.0) -> Polygon:
    """A rectangle of full ``width`` and ``height``; ``corner`` cuts its corners off at 45 degrees (the cheap rounded
    end)."""
    x, y = width / 2, height / 2
    if corner <= 0:
        return np.array([(x, -y), (x, y), (-x, y), (-x, -y)])
    a, b = x - corner, y - corner
    return np.array([(x, -b), (x, b), (a, y), (-a, y), (-x, b), (-x, -b), (-a, -y), (a, -y)])


def bevelled(width: float, height: float, corner: float) -> Polygon:
    """A rectangle whose two corners at +y are cut off at 45 degrees."""
    x, y = width / 2, height / 2
    return np.array([(x, -y), (x, y - corner), (x - corner, y), (corner - x, y), (-x, y - corner), (-x, -y)])


def regular(across_flats: float, sides: int) -> Polygon:
    """A regular polygon whose flats (not corners) touch the circle of diameter ``across_flats``; one flat faces +x."""
    angles = (2 * np.arange(sides) - 1) * np.pi / sides
    return across_flats / 2 / np.cos(np.pi / sides) * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def circle(diameter: float, sides: int = 16) -> Polygon:
    """A regular polygon inscribed in a circle: its corners, one of them on +x, have the true radius."""
    angles = 2 * np.pi * np.arange(sides) / sides
    return diameter / 2 * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def trapezoid(wide: float, narrow: float, height: float) -> Polygon:
    """An isosceles trapezoid, the wide side at +y."""
    x, y = wide / 2, height / 2
    return np.array([(narrow / 2, -y), (x, y), (-x, y), (-narrow / 2, -y)])


def place(polygon: Polygon, centre: Sequence[float] = (0.0, 0.0), degrees: float = 0.0) -> Polygon:
    """Turn a polygon about its own origin, then move it to ``centre``."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return polygon @ np.array([(c, s), (-s, c)]) + np.asarray(centre)


def normals(polygon: Polygon) -> Polygon:
    """Outward unit normals (N, 2); edge ``i`` runs from vertex ``i`` to vertex ``i + 1``."""
    along = np.roll(polygon, -1, axis=0) - polygon
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    return np.stack([along[:, 1], -along[:, 0]], axis=1)


def offset(polygon: Polygon, distance: float | NDArray[np.float64]) -> Polygon:
    """Move every edge outwards by ``distance`` (m; one for all or one for each edge); negative moves inwards."""
    outward = normals(polygon)
    level = np.sum(outward * polygon, axis=1) + distance
    # A vertex is where the lines of the two edges that share it meet.
    pairs = np.stack([np.roll(outward, 1, axis=0), outward], axis=1)
    levels = np.stack([np.roll(level, 1), level], axis=1)
    corners: Polygon = np.linalg.solve(pairs, levels[..., None])[..., 0]
    return corners


def keeps_its_sides(polygon: Polygon, distance: float) -> bool:
    """Whether every edge is still there after ``offset`` by ``distance``: inwards, the short ones vanish first."""
    return bool(np.all(np.sum(normals(polygon) * normals(offset(polygon, distance)), axis=1) > 0))


def bounds(polygons: Sequence[Polygon]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper corner (2,), (2,) of the rectangle round all polygons."""
    points = np.concatenate(list(polygons))
    return points.min(axis=0), points.max(axis=0)


def gap(first: Polygon, second: Polygon) -> float:
    """Largest separation (m) of two convex polygons along any of their edge normals; negative where they overlap."""
    best = -np.inf
    for a, b in ((first, second), (second, first)):
        outward = normals(a)
        reach = np.sum(outward * a, axis=1)
        best = max(best, float(np.max(np.min(b @ outward.T, axis=0) - reach)))
    return best


def fillers(polygon: Polygon) -> list[Polygon]:
    """Rectangles (4, 2) that fill the bounding rectangle up to the polygon's slanted sides, one for each; the first
    edge lies on the side and runs as it does, so these are clockwise."""
    found = []
    for start, end, outward in zip(polygon, np.roll(polygon, -1, axis=0), normals(polygon)):
        legs = np.abs(end - start)
        if legs.min() > 1e-7:
            # Side and bounding rectangle form a right triangle; its height, and a little overlap, is the rectangle's
            # thickness.
            thick = (legs.prod() / np.hypot(*legs) + 0.0001) * outward
            found.append(np.array([start, start + thick, end + thick, end])[[0, 3, 2, 1]])
    return found


def contains(outer: Polygon, inner: Polygon, tolerance: float = 1e-6) -> bool:
    """Whether ``inner`` lies within ``outer``, up to ``tolerance`` (m)."""
    outward = normals(outer)
    reach = np.sum(outward * outer, axis=1)
    return bool(np.all(inner @ outward.T <= reach + tolerance))
