"""Where a connector is fully inserted, captured once from the robot's pose (Sec. IV); novel connectors need none."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lotj.files import write_json

SUCCESS_DEPTH = 0.001
"""m: the pose is this close to full depth."""
SUCCESS_LATERAL = 0.0025
"""m: and this close to the axis."""


@dataclass(frozen=True)
class Calibration:
    """The tool's pose at full insertion."""

    connector: str
    position: tuple[float, float, float]
    """m, base frame; the axis of insertion is the base frame's z."""
    depth: float
    """m from the socket's mouth to full insertion."""
    spread: float = 0.0
    """m: how far repeated readings lay apart."""

    def __post_init__(self) -> None:
        if len(self.position) != 3 or not np.isfinite(self.position).all():
            raise ValueError(f"calibration of {self.connector!r}: position must be 3 finite numbers (m)")
        if not 0 < self.depth < 0.2:
            raise ValueError(
                f"calibration of {self.connector!r}: depth must lie between 0 and 0.2 m, got {self.depth}; "
                "it is the way from the socket's mouth to full insertion, in metres"
            )

    def offset(self, position: NDArray[np.float64]) -> NDArray[np.float64]:
        """(3,) m: the tool relative to full insertion; z is the depth missing."""
        return np.asarray(position, np.float64) - np.asarray(self.position)

    def inserted(self, position: NDArray[np.float64]) -> bool:
        """Whether this pose is full insertion, by the simulator's own measures (1 mm of depth, 2.5 mm beside)."""
        x, y, z = self.offset(position)
        return bool(z <= SUCCESS_DEPTH and np.hypot(x, y) <= SUCCESS_LATERAL)


def save_calibration(folder: Path, calibration: Calibration) -> Path:
    """Write it into a cell's folder."""
    path = folder / f"{calibration.connector}.json"
    folder.mkdir(parents=True, exist_ok=True)
    held = {**vars(calibration), "position": list(calibration.position)}
    write_json(path, held)
    return path


def load_calibration(folder: Path, connector: str) -> Calibration | None:
    """Read it from a cell's folder; None where the connector was not calibrated there."""
    path = folder / f"{connector}.json"
    if not path.exists():
        return None
    held = json.loads(path.read_text(encoding="utf-8"))
    return Calibration(**held | {"position": tuple(held["position"])})
