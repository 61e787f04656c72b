"""A conformance run: does a cell keep what its file promises? The robot moves, a few millimetres at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lotj.cells.adapter import CellEnv
from lotj.cells.safety import CellStoppedError, SafeCell
from lotj.cells.spec import NONE, CellSpec, CellSpecError

RATE_TOLERANCE = 0.3
"""A cell may be this much slower than it declares."""
SCALE_TOLERANCE = 0.5
"""Free motion may fall short of, or exceed, what was asked for by this share: impedance control sags and lags."""


class Finding(NamedTuple):
    """One thing that was looked at."""

    name: str
    good: bool | None
    """None where it could not be looked at."""
    message: str
    """What was seen; and what to do, where it is not good."""


def check_cell(
    spec: CellSpec,
    connector: str,
    image_size: int,
    steps: int = 20,
    told: Callable[[Finding], None] = lambda finding: None,
    env: Any = None,
    left_in: Path | None = None,
) -> list[Finding]:
    """Look at a cell, in free space above the socket.

    Args:
        spec: its file.
        connector: what is in the clamp.
        image_size: H = W in px of what policies will see.
        steps: of motion.
        told: each finding as it comes.
        env: the environment, where it is made already.
        left_in: as for ``SafeCell``.

    Returns:
        All findings; a cell is fit where none of them is bad.
    """
    findings: list[Finding] = []

    def add(name: str, good: bool | None, message: str) -> None:
        findings.append(Finding(name, good, message))
        told(findings[-1])

    try:
        spec.require_contract()
        add("contract", True, "rate, compliance, scale, workspace and limits are declared")
    except CellSpecError as error:
        add("contract", False, str(error))
        return findings
    try:
        truth = (spec.success or "").startswith("info/")
        cell = CellEnv(spec, connector, image_size=image_size, cameras=len(spec.images), truth=truth, env=env)
        safe = SafeCell(cell, left_in=left_in)
    except CellSpecError as error:
        add("environment", False, str(error))
        return findings
    with safe:
        try:
            _look(spec, safe, steps, add)
        except (CellStoppedError, CellSpecError, ValueError) as error:
            add("run", False, str(error))
    return findings


def _look(spec: CellSpec, safe: SafeCell, steps: int, add: Callable[[str, bool | None, str], None]) -> None:
    observation, info = safe.reset(seed=0)
    add("reset", True, f"starts within the workspace, {info['force']:.1f} N")
    raws, size = safe.cell.raw_images, observation["image"].shape[0]
    picture = ", ".join(f"{raw.shape[1]} x {raw.shape[0]} px" for raw in raws) + f" -> {size} px"
    # Of the camera that shows least.
    spread = min(float(observation["image"][:, at * size : (at + 1) * size].std()) for at in range(len(raws)))
    add(
        "picture",
        spread > 2,
        f"{picture}, standard deviation {spread:.0f}"
        + ("" if spread > 2 else ": it shows nothing; is the lens covered?"),
    )
    for name, path in (("force sensor", spec.tcp_force), ("torque sensor", spec.tcp_torque)):
        if path == NONE:
            add(name, None, "there is none: nothing limits it, and the guard's tug cannot be used")
    moves, seen, different = _move(spec, safe, steps)
    success = spec.success if (spec.success or "").startswith("info/") else None
    for name, told, when in (
        ("dislodged", spec.dislodged, "when the plug slips"),
        ("success", success, "at the end of a trial"),
    ):
        if told is not None and told.removeprefix("info/") not in safe.cell.raw_info:
            there = ", ".join(map(str, safe.cell.raw_info)) or "nothing"
            add(name, None, f"{told!r} is not in the info, which has {there}; is it told only {when}?")
    period = float(np.median([move.seconds for move in moves]))
    wanted = 1 / spec.rate_hz  # type: ignore[operator]
    if period > wanted * (1 + RATE_TOLERANCE):
        add(
            "rate", False, f"a step takes {period * 1e3:.0f} ms, declared {wanted * 1e3:.0f}: correct [control] rate_hz"
        )
    else:
        faster = ", faster than real time" if period < wanted * 0.5 else ""
        add("rate", True, f"a step takes {period * 1e3:.0f} ms, declared {wanted * 1e3:.0f}{faster}")
    add(
        "fresh pictures",
        different >= 0.8 * seen,
        f"{different} of {seen} pictures differed from the one before while the robot moved"
        + ("" if different >= 0.8 * seen else ": the camera is slower than the robot, or frozen"),
    )
    _directions(moves, add)
    low, high = np.array(spec.workspace_low), np.array(spec.workspace_high)
    inside = all(np.all(move.after >= low - 2e-3) and np.all(move.after <= high + 2e-3) for move in moves)
    add("workspace", inside, "never left" if inside else "the tool left the box although every target lay in it")
    _reset_again(safe, add)


class _Move(NamedTuple):
    asked: Any
    """(3,) m."""
    before: Any
    after: Any
    seconds: float


def _move(spec: CellSpec, safe: SafeCell, steps: int) -> tuple[list[_Move], int, int]:
    """Back and forth along each axis, up first; returns the moves, and how many pictures differed."""
    pattern = [(0, 0, 0.6), (0.6, 0, 0), (-0.6, 0, 0), (0, 0.6, 0), (0, -0.6, 0), (0, 0, -0.3)]
    moves, different, last = [], 0, safe.cell.raw_images
    for index in range(steps):
        if index and index % spec.horizon == 0:
            safe.reset(seed=index)
            last = safe.cell.raw_images
        before = safe.reading.position.copy()
        action = safe.limit(np.array(pattern[index % len(pattern)]), safe.reading)
        start = time.perf_counter()
        safe.step(action)
        seconds = time.perf_counter() - start
        moves.append(_Move(action * safe.action_scale, before, safe.reading.position.copy(), seconds))
        different += not any(np.array_equal(new, old) for new, old in zip(safe.cell.raw_images, last))
        last = safe.cell.raw_images
    return moves, len(moves), different


def _directions(moves: list[_Move], add: Callable[[str, bool | None, str], None]) -> None:
    """Does an action along an axis move the tool along that axis, by about what was asked for?"""
    for axis, name in enumerate("xyz"):
        own = [move for move in moves if abs(move.asked[axis]) > 1e-4]
        if not own:
            add(f"motion along {name}", None, "the workspace left no room for it")
            continue
        asked = np.array([move.asked[axis] for move in own])
        went = np.array([move.after[axis] - move.before[axis] for move in own])
        across = np.mean([np.linalg.norm(np.delete(move.after - move.before, axis)) for move in own])
        share = float((asked @ went) / (asked @ asked))
        what = f"{share:.0%} of what was asked for, {1e3 * across:.1f} mm across"
        if share < 0:
            add(f"motion along {name}", False, f"{what}: it goes the wrong way; swap the sign or the frame")
        elif abs(share - 1) > SCALE_TOLERANCE:
            add(
                f"motion along {name}",
                False,
                f"{what}: correct [action] metres_per_unit, or the components; after a step the pose must have been "
                "reached",
            )
        else:
            add(f"motion along {name}", True, what)


def _reset_again(safe: SafeCell, add: Callable[[str, bool | None, str], None]) -> None:
    start = time.perf_counter()
    safe.reset(seed=1)
    add("reset again", True, f"takes {time.perf_counter() - start:.1f} s")
    safe.safe_pose()
    add("stop", True, f"stands at {1e3 * safe.reading.position[2]:.0f} mm of height")
