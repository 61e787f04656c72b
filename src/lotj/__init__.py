"""Learning on the job: a robot masters a novel connector by practising and rewarding itself (Nair et al., 2022)."""

import os

# Before torch and MuJoCo are imported: idle threads must sleep, not spin (on a busy machine spinning makes two
# threads ten
# times slower than one), and rendering needs no screen.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("MUJOCO_GL", "egl")

import gymnasium as gym

__version__ = "0.1.0"

gym.register("lotj/Insertion-v0", entry_point="lotj.sim.env:InsertionEnv")
