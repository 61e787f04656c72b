"""What the scripted expert would have done where it is known where the socket is: on known connectors, whose sockets
the robot that collects has been calibrated to (Sec. IV)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CENTRED = 0.001
"""m: within this of the axis the expert goes down (Sec. IV)."""
CONTACT = 1.0
"""N: above it, off the axis, the plug is on the face, and the expert lifts it a little."""
LIFT = 0.002
"""m: by so much."""


def expert_actions(
    tip_in_socket: NDArray[np.float32], force: NDArray[np.float32], metres: NDArray[np.float64]
) -> NDArray[np.float32]:
    """The scripted expert's action (N, 3) where the plug's tip is known: to the axis, then down it; lifted a little
    where it is pressed off the axis.

    The socket's own small turn about the axis is neglected.

    Args:
        tip_in_socket: (N, 3) m.
        force: (N,) N, of contact; NaN is none.
        metres: (3,) m for an action of 1 along x, y, z.
    """
    error = -np.asarray(tip_in_socket, np.float64)
    centred = np.linalg.norm(error[:, :2], axis=1) < CENTRED
    lift = np.where(np.nan_to_num(force) > CONTACT, LIFT, 0.0)
    error[:, 2] = np.where(np.isfinite(error[:, 2]), np.where(centred, -1.0, lift), np.nan)
    return np.clip(error / metres, -1, 1).astype(np.float32)
