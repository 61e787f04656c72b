"""What the scripted expert would have done, had it known where the trial would end.

The robot that collected the offline data knew each socket's pose, and a scripted expert drove there (Sec. IV). A novel
connector's pose is unknown, until a trial succeeds: then the tool's last position is the pose at full insertion, for
that trial. Every frame of the trial can then be labelled with the expert's action, noise and detours corrected. Tool
position and wrist force are the robot's own senses; the policy that learns from these labels sees images alone.
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
    error = position[-1] - position[:-1]
    centred = np.linalg.norm(error[:, :2], axis=1) < CENTRED
    force = trajectory.privileged.get("wrist_force")
    touching = np.zeros(len(error), bool) if force is None else np.linalg.norm(force[:-1], axis=1) > CONTACT
    error[:, 2] = np.where(centred, -1.0, np.where(touching, LIFT, 0.0))
    action = trajectory.action.copy()
    action[:, :3] = np.clip(error / metres, -1, 1)
    return action
