"""The simulated robot cell. Nothing in here imports torch."""

import os

HOW_TO_DRAW = (
    "Without a screen: import lotj before mujoco, or set MUJOCO_GL=egl before Python starts, and install Mesa "
    "(Debian, Ubuntu: apt-get install libegl1 libgl1-mesa-dri). With a screen: MUJOCO_GL=glfw. See docs/install.md"
)


class GraphicsError(RuntimeError):
    """There is no OpenGL to draw with."""


try:
    import mujoco  # noqa: F401
except (ImportError, AttributeError) as error:
    # Where libEGL is missing, PyOpenGL says so by an AttributeError.
    backend = os.environ.get("MUJOCO_GL") or "not set"
    raise GraphicsError(f"MuJoCo cannot be imported (MUJOCO_GL is {backend}): {error}. {HOW_TO_DRAW}") from error
