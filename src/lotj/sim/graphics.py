"""Off-screen rendering, with an error that says how to mend it."""

from __future__ import annotations

import os

import mujoco

from lotj.sim import HOW_TO_DRAW, GraphicsError


def make_renderer(model: mujoco.MjModel, height: int, width: int) -> mujoco.Renderer:
    """A renderer of (height, width) px.

    Raises:
        GraphicsError: there is no OpenGL to draw with; says what to set or install.
    """
    try:
        return mujoco.Renderer(model, height, width)
    except (mujoco.FatalError, RuntimeError, ImportError, AttributeError) as error:
        backend = os.environ.get("MUJOCO_GL") or "not set"
        raise GraphicsError(f"MuJoCo cannot draw (MUJOCO_GL is {backend}): {error}. {HOW_TO_DRAW}") from error
