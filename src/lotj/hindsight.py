"""What the scripted expert would have done where it is known, or found out later, where the socket was.

``expert_actions`` is for known connectors: the robot that collects has been calibrated to their sockets.

``hindsight_actions`` is for novel ones. The robot that collected the offline data knew each socket's pose, and a
scripted expert drove there (Sec. IV). A novel connector's pose is unknown, until a trial succeeds: then the tool's last
position is the pose at full insertion, for that trial. Every frame of the trial can then be labelled with the expert's
action, noise and detours corrected. Tool position and wrist force are the robot's own senses; the policy that learns
from these labels sees images alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lotj.types import Trajectory

CENTRED = 0.001
"""m: within this of the axis the expert goes down (Sec. IV)."""
CONTACT = 1.0
"""N: above it, off the axis, the plug is on the face, and the expert lifts it a little."""
LIFT = 0.002
"""m: by so much."""
LAST = 3
"""Of so many last frames the one with the least force sideways tells where the axis is."""


def hindsight_actions(trajectory: Trajectory, metres: NDArray[np.float64]) -> NDArray[np.float32] | None:
    """The expert's action (T, A) at each frame but the last of a trial that succeeded.

    Args:
        trajectory: with ``privileged["tcp"]`` (T + 1, 3) m and, where the wrist feels, ``"wrist_force"`` (T + 1, 3) N.
        metres: (3,) m for an action of 1 along x, y, z.

    Returns:
        None where the trial did not succeed or the tool's position was not recorded. Components of an action beyond
        the third are those that were taken.
    """
    position = trajectory.privileged.get("tcp")
    if position is None or not trajectory.terminated:
        return None
    position = np.asarray(position, np.float64)
    force = trajectory.privileged.get("wrist_force")
    force = np.zeros_like(position) if force is None else np.asarray(force, np.float64)
    sideways, upward = np.linalg.norm(force[:, :2], axis=1), np.abs(force[:, 2])
    # The hand gives: where it is pulled aside while the plug is in the hole, it is not over the axis.
    goal = position[-1].copy()
    goal[:2] = position[-1 - np.argmin(sideways[-LAST:][::-1]), :2]
    error = goal - position[:-1]
    centred = np.linalg.norm(error[:, :2], axis=1) < CENTRED
    touching = (np.hypot(sideways, upward) > CONTACT)[:-1]
    # Friction on a face holds no plug sideways harder than it is pressed; the walls of a hole do.
    inside = touching & (sideways > upward)[:-1]
    error[:, 2] = np.where(centred | inside, -1.0, np.where(touching, LIFT, 0.0))
    action = trajectory.action.copy()
    action[:, :3] = np.clip(error / metres, -1, 1)
    return action


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
