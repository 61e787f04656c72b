"""One torch thread for each test process: several processes with two threads each slow one another down many times."""

import os

os.environ["OMP_NUM_THREADS"] = "1"

# Imported first: it chooses how MuJoCo draws, which counts only before mujoco is imported.
import lotj  # noqa: F401
