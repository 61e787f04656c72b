"""Learning on the job: a robot masters a novel connector by practising and rewarding itself (Nair et al., 2022)."""

import importlib
import os
from contextlib import suppress

# Before Mesa's drivers: each brings an LLVM of its own, and Triton, which torch imports as late as in the first step of
# an optimizer, crashes the process where Mesa's is there already.
with suppress(ImportError, OSError):
    importlib.import_module("triton._C.libtriton")

# Before MuJoCo is imported: rendering needs no screen.
os.environ.setdefault("MUJOCO_GL", "egl")

import gymnasium as gym

__version__ = "0.1.0"

gym.register("lotj/Insertion-v0", entry_point="lotj.sim.env:InsertionEnv")
gym.register("lotj/SerlInsertion-v0", entry_point="lotj.cells.serl:SerlInsertionEnv")
gym.register("lotj/SerlHttp-v0", entry_point="lotj.cells.serl_http:SerlHttpEnv")
