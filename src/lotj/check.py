"""Whether a connector can be used: measured on its solids, then tried by the scripted expert."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from lotj.rollout import policy_rng, rollout
from lotj.sim.clearance import Finding, Fit, measure, touching
from lotj.sim.connector import Connector
from lotj.sim.env import InsertionEnv, Scenario
from lotj.sim.expert import Expert, ExpertConfig

NEEDED = 0.9
"""Share of trials that the expert, which knows where the socket is, must insert."""
WRONG_PLACES = (0.004, 0.006, 0.010)
"""m beside the socket at which near misses press, in turn."""


class Tried(NamedTuple):
    """Trials of one kind."""

    kind: str
    """``I``, ``II`` or ``near misses``."""
    trials: int
    successes: int
    """By ground truth."""
    short: float
    """m missing to full insertion, median of the failures; 0 without any."""
    force: float
    """N, median of the trials' peaks at the wrist."""
    dislodged: int
    resting: str
    """What the first failure rested on; empty without any."""


class Check(NamedTuple):
    """What a check came to."""

    fit: Fit
    tried: list[Tried]
    findings: list[Finding]
    """All of them."""

    @property
    def usable(self) -> bool:
        """Nothing was found that makes it unfit."""
        return not any(finding.unfit for finding in self.findings)


def check(
    connector: Connector,
    trials: int = 10,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Check:
    """Measure a connector, and let the scripted expert try it.

    Args:
        connector: to be checked.
        trials: of each kind: scenario I, scenario II, and near misses (presses 4, 6 and 10 mm beside the socket).
        seed: of the start states.
        progress: called with (trials done, trials in all).

    Raises:
        ConnectorError: its meshes cannot be used.
        ValueError: fewer than one trial.
    """
    if trials < 1:
        raise ValueError(f"trials must be at least 1, got {trials}; 10 are enough to see that a connector works")
    fit = measure(connector)
    tried: list[Tried] = []
    env = InsertionEnv(connector, images=False, ground_truth=True)
    try:
        for kind in ("I", "II", "near misses"):
            tried.append(_try(env, kind, trials, seed, partial(_tell, progress, len(tried) * trials, 3 * trials)))
    finally:
        env.close()
    return Check(fit, tried, fit.findings + _judge(tried))


def _tell(progress: Callable[[int, int], None], before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _try(env: InsertionEnv, kind: str, trials: int, seed: int, progress: Callable[[int], None]) -> Tried:
    short, forces, dislodged, resting = [], [], 0, ""
    for i in range(trials):
        wrong = WRONG_PLACES[i % len(WRONG_PLACES)] if kind == "near misses" else 0.0
        scenario: Scenario = "II" if kind == "II" else "I"
        expert = Expert(env, ExpertConfig(noise_probability=0.0, wrong_place=wrong))
        trial_seed = seed + i
        trial = rollout(env, expert, policy_rng(trial_seed), seed=trial_seed, options={"scenario": scenario})
        forces.append(float(trial.privileged["force"].max()))
        dislodged += bool(trial.privileged["dislodged"].any())
        if not env.success:
            short.append(float(env.tip_in_socket[2]))
            resting = resting or touching(env.model, env.data)
        progress(i + 1)
    median = float(np.median(short)) if short else 0.0
    return Tried(kind, trials, trials - len(short), median, float(np.median(forces)), dislodged, resting)


def _judge(tried: list[Tried]) -> list[Finding]:
    found = []
    for done in tried:
        if done.kind == "near misses" and done.successes:
            what = f"{done.successes} of {done.trials} presses {1e3 * WRONG_PLACES[0]:g} mm and more beside the socket"
            found.append(Finding(True, f"{what} count as inserted", "narrow the cavity, or let the parts reach deeper"))
        elif done.kind != "near misses" and done.successes < NEEDED * done.trials:
            what = f"scenario {done.kind}: the scripted expert inserts {done.successes} of {done.trials}"
            if done.dislodged:
                what += f", {done.dislodged} end with the plug turned or slid in the fingers"
            what += f"; failures end {1e3 * done.short:.1f} mm short"
            if done.resting:
                what += f", in the first one {done.resting}"
            found.append(Finding(True, what, "more 'lead_in' or 'clearance', or see the picture for what bars the way"))
    return found
