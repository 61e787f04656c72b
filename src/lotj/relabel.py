"""What the scripted expert would have done where it is known where the socket is: on known connectors, whose sockets
the robot that collects has been calibrated to (Sec. IV), and on a novel one once a trial has succeeded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

CENTRED = 0.001
"""m: within this of the axis the expert goes down (Sec. IV)."""
CONTACT = 1.0
"""N: above it, off the axis, the plug is on the face, and the expert lifts it a little."""
LIFT = 0.002
"""m: by so much."""
SENSES = ("tcp", "wrist_force")
"""What a robot must have felt of a trial to know in hindsight where the socket was."""


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


def hindsight_actions(
    action: NDArray[np.float32], sensed: Mapping[str, NDArray[Any]], metres: NDArray[np.float64], give: float
) -> NDArray[np.float32]:
    """What should have been done in a trial that ended in the hole: its end tells where the axis was.

    To the axis all the time; a little up where the plug was pressed beside it. When to go down a success does not say
    (of its frames one or two are over the hole), so along z all else is left open. Where the robot feels neither its
    tool's place nor a force, what was done is all that is known.

    Args:
        action: (T, A) that was done; x, y, z first, in metres along the base frame's axes, the hole pointing up.
        sensed: ``tcp`` (T + 1, 3) m and ``wrist_force`` (T + 1, 3) N in the base frame, both or nothing known.
        metres: (3,) m for an action of 1 along x, y, z.
        give: m/N, how far a plug gives way in the fingers.

    Returns:
        (T, A), NaN where nothing is known of what should have been done.
    """
    if not all(name in sensed for name in SENSES):
        return action
    tcp, force = (np.asarray(sensed[name], np.float64)[: len(action) + 1] for name in SENSES)
    tip = tcp + give * force  # (T + 1, 3), but for the length of the plug
    wanted = expert_actions((tip - tip[-1])[:-1], np.linalg.norm(force[:-1], axis=1), metres)
    wanted[:, 2] = np.where(wanted[:, 2] > 0.0, wanted[:, 2], np.nan)
    return np.concatenate([wanted, action[:, 3:]], axis=1)
