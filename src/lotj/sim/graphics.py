"""Off-screen rendering, with an error that says how to mend it."""

from __future__ import annotations

import importlib
import os
from contextlib import suppress

import mujoco

from lotj.sim import HOW_TO_DRAW, GraphicsError


def make_renderer(model: mujoco.MjModel, height: int, width: int) -> mujoco.Renderer:
    """A renderer of (height, width) px.

    Raises:
        GraphicsError: there is no OpenGL to draw with; says what to set or install.
    """
    _load_triton()
    try:
        return mujoco.Renderer(model, height, width)
    except (mujoco.FatalError, RuntimeError, ImportError, AttributeError) as error:
        backend = os.environ.get("MUJOCO_GL") or "not set"
        raise GraphicsError(f"MuJoCo cannot draw (MUJOCO_GL is {backend}): {error}. {HOW_TO_DRAW}") from error


def _load_triton() -> None:
    """Load Triton, where it is installed, before Mesa's drivers: each brings an LLVM of its own, and Triton, which
    torch imports as late as in the first step of an optimizer, crashes the process where Mesa's is there already."""
    with suppress(ImportError, OSError):
        importlib.import_module("triton._C.libtriton")
