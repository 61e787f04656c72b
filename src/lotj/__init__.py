"""Learning on the job: a robot masters a novel connector by practising and rewarding itself (Nair et al., 2022)."""

import os

# Before MuJoCo is imported: rendering needs no screen.
os.environ.setdefault("MUJOCO_GL", "egl")

import gymnasium as gym

__version__ = "0.1.0"

gym.register("lotj/Insertion-v0", entry_point="lotj.sim.env:InsertionEnv")
gym.register("lotj/SerlInsertion-v0", entry_point="lotj.cells.serl:SerlInsertionEnv")
gym.register("lotj/SerlHttp-v0", entry_point="lotj.cells.serl_http:SerlHttpEnv")
