"""Learning on the job: a robot masters a novel connector by practising and rewarding itself (Nair et al., 2022)."""

import gymnasium as gym

__version__ = "0.1.0"

gym.register("lotj/Insertion-v0", entry_point="lotj.sim.env:InsertionEnv")
