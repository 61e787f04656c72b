"""What ``lotj cell new`` writes, filled in as far as an environment tells about itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from lotj.cells.adapter import make_env
from lotj.cells.spec import CellSpec

TEMPLATE = """# A robot cell. Everything is in SI units and in the robot's base frame, +z up.
name = "my-cell"                          # stored with every trajectory
env = "my_package:MyCell-v0"              # module:Id, for gymnasium.make
# connector_argument = "connector"        # simulators only: the keyword that takes the connector's name
# expert = "my_package:expert"            # who collects, called with (cell, noise, speed, beside);
                                          # without it: `lotj cell calibrate`, then the captured pose is driven to

[kwargs]                                  # of gymnasium.make
# url = "http://127.0.0.1:5000"

[observation]                             # paths into an observation: a/b, a[0:3]
image = "images/wrist_1"                  # (H, W, 3) uint8; "render" takes the environment's own render();
                                          # ["images/wrist_1", "images/wrist_2"] for two cameras
# crop = [0, 80, 480, 480]                # top, left, height, width, px; the centre square by default
# state = ["state/tcp_pose[0:3]"]         # proprioception for the policy; none by default
tcp_pose = "state/tcp_pose"               # x, y, z first
tcp_force = "state/tcp_force"             # of the plug on the fingers; "none" where nothing measures it
tcp_torque = "state/tcp_torque"           # likewise
# force_sign = -1                         # where the sensor tells the force of the fingers on the plug

[action]
components = [0, 1, 2]                    # which components of an action move along x, y, z
# others = 0.0                            # what the others are held at
# metres_per_unit = 0.005                 # what an action of 1 asks for in one step

[control]
# rate_hz = 10.0                          # steps a second
# compliance = "impedance"                # or "admittance": what keeps contact gentle within a step
horizon = 20                              # steps of a trial

[limits]                                  # the safety layer holds any policy to them
# workspace_low = [0.4, -0.1, 0.02]       # m: the tool's target never leaves this box
# workspace_high = [0.6, 0.1, 0.2]
# step = 0.01                             # m: the longest step
# force = 20.0                            # N: above it the robot backs off and the trial ends; inf without a sensor
# torque = 2.0                            # N m: likewise
contact = 3.0                             # N: what counts as contact for the budgets
trial_impulse = 100.0                     # N s of contact in a trial
practice_impulse = 10000.0                # N s of contact in a whole practice
stale_images = 5                          # so many identical pictures in a row are a frozen camera; 0 never

[reset]
retract = true                            # pull the plug out along +z after a trial, before the cell's own reset
retract_height = 0.03                     # m
retract_steps = 30                        # more than that is a jammed plug
scenarios = false                         # reset(options={"scenario": "I" or "II"}) is honoured

[success]                                 # for collection and evaluation only; practice never reads it
from = "ask"                              # "info/<key>", "reward", "pose" (calibrated), or "ask" a person
# above = 0.5                             # the number at "info/<key>" that is success is above this
# dislodged = "info/<key>"                # tells when the plug slipped in the gripper
"""


def filled(env: str) -> tuple[str, list[str]]:
    """The template for an environment: its cameras and sensors where they have SERL's names, and what else there is.

    Args:
        env: ``module:Id``, made with no keywords.

    Returns:
        The file's text, and lines about what was found and what remains to be filled in.

    Raises:
        CellSpecError: it cannot be made.
    """
    made = make_env(CellSpec(name="new", env=env), "unknown")
    try:
        found = _leaves(made.observation_space)
        actions = made.action_space
    finally:
        made.close()
    text = TEMPLATE.replace('env = "my_package:MyCell-v0"  ', f'env = "{env}"', 1)
    notes = [f"actions: {actions}"]
    if not isinstance(actions, spaces.Box) or actions.shape is None or actions.shape[-1:] < (3,):
        notes.append("a cell's actions must be a Box(-1, 1) of which three numbers move the tool: this needs a wrapper")
    pictures = [path for path, space in found.items() if _is_picture(space)]
    notes.append("pictures: " + (", ".join(pictures) or "none; `render` takes the environment's own render()"))
    text = text.replace('image = "images/wrist_1"  ', f'image = "{pictures[0] if pictures else "render"}"  ', 1)
    for sensor in ("tcp_pose", "tcp_force", "tcp_torque"):
        there = next((path for path in found if path.split("/")[-1] == sensor), None)
        if there is not None:
            text = text.replace(f'{sensor} = "state/{sensor}"', f'{sensor} = "{there}"', 1)
        else:
            others = ", ".join(f"{p} {s.shape}" for p, s in found.items() if p not in pictures) or "nothing"
            notes.append(f"{sensor}: not found by name; there is {others}")
    return text, notes


def _leaves(space: Any, path: str = "") -> dict[str, Any]:
    """Every array of an observation space by its path."""
    if isinstance(space, spaces.Dict):
        inner = [_leaves(value, f"{path}/{key}" if path else str(key)) for key, value in space.spaces.items()]
        return {key: value for part in inner for key, value in part.items()}
    return {path: space} if path else {}


def _is_picture(space: Any) -> bool:
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3
