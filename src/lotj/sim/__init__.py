"""The simulated robot cell. Nothing in here imports torch."""

import os

# Headless rendering: EGL unless the user says otherwise. It must be set before MuJoCo is imported.
os.environ.setdefault("MUJOCO_GL", "egl")
