"""Does the reward model hold better on unseen connectors if it trained on more of them? The total of training
trajectories is fixed, so that more connectors do not mean more data.

The connectors scored are those of Table IV's draws. A smaller training set is the beginning of a larger one: first what
the catalogue has left, in the draw's order, then connectors drawn at random (``lotj.sim.generate``), which are a
deviation from the paper. A control of such connectors alone separates "generated" from "more".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from lotj.experiments.reward_runs import TOLERANCE, Draw, RewardCase, draw_connectors, with_method
from lotj.nets.bottleneck import METHODS
from lotj.offline import RewardStage
from lotj.sim.connectors import GENERATED, get_connector
from lotj.sim.generate import generated_apart_from
from lotj.sim.parts import did_you_mean


@dataclass(frozen=True)
class RewardConnectorsConfig:
    """How many training connectors to compare, on which draws."""

    sizes: tuple[int, ...] = (10, 25, 50, 100, 300)
    """Training connectors; the paper's reward model had 25, its policy 50."""
    generated_sizes: tuple[int, ...] = (50,)
    """Training connectors of the controls, all of them drawn at random."""
    total: int = 3000
    """Training trajectories of every case, shared out equally among its connectors."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """The first draws of Table IV."""
    method: str = "daib"
    """The bottleneck that all of them have."""
    validation: int = 5
    """Connectors for temperature and threshold."""
    held_out: int = 20
    """Connectors scored."""
    generator_seed: int = 0
    """Of the connectors drawn at random."""
    spare: float = 0.1
    """Share that is collected beyond what is trained on: dislodged trials, some one in fifty, are discarded."""
    stage: RewardStage = field(default_factory=RewardStage)
    """Network, augmentation, steps and sampling, the same for every size."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            near = did_you_mean(self.method, METHODS)
            raise ValueError(f"RewardConnectorsConfig.method: {self.method!r}{near}; expected {', '.join(METHODS)}")
        if not self.sizes:
            raise ValueError("RewardConnectorsConfig.sizes is empty; name at least one number of training connectors")
        for name in ("sizes", "generated_sizes"):
            for size in getattr(self, name):
                if size < 2:
                    raise ValueError(f"RewardConnectorsConfig.{name}: got {size}, expected at least 2 connectors")
                self._check_total(name, size)
        for name in ("validation", "held_out"):
            if getattr(self, name) < 1:
                raise ValueError(f"RewardConnectorsConfig.{name} must be at least 1, got {getattr(self, name)}")
        if self.spare < 0 or self.generator_seed < 0:
            raise ValueError(
                f"RewardConnectorsConfig: spare and generator_seed cannot be negative, got {self.spare} and "
                f"{self.generator_seed}"
            )

    def trajectories(self, size: int) -> int:
        """Training trajectories of each of ``size`` connectors."""
        return round(self.total / size)

    def cases(self) -> list[RewardCase]:
        """Every size on every draw, draw by draw, the controls of a draw last."""
        return [case for seed in self.seeds for case in self._draw_cases(seed)]

    def _draw_cases(self, seed: int) -> list[RewardCase]:
        draw = draw_connectors(seed, None, self.validation, self.held_out)
        missing = max(0, max(self.sizes) - len(draw.train))
        scored = map(get_connector, (*draw.held_out, *draw.validation))
        generated = generated_apart_from(scored, max(missing, *self.generated_sizes, 0), self.generator_seed)
        pool = (*draw.train, *generated[:missing])
        sets = [(str(size), pool[:size]) for size in self.sizes]
        sets += [(f"{size}-generated", generated[:size]) for size in self.generated_sizes]
        return [self._case(label, replace(draw, train=train), seed) for label, train in sets]

    def _case(self, label: str, draw: Draw, seed: int) -> RewardCase:
        stage = with_method(self.stage, self.method)
        return RewardCase(f"{label}-s{seed}", label, seed, draw, stage, self.trajectories(len(draw.train)))

    def _check_total(self, name: str, size: int) -> None:
        each = self.trajectories(size)
        if each < 1 or abs(each * size - self.total) > TOLERANCE * self.total:
            multiple = math.lcm(*self.sizes, *self.generated_sizes)
            raise ValueError(
                f"RewardConnectorsConfig.total: {self.total} trajectories over {size} connectors ({name}) are {each} "
                f"each, {each * size} in all, which is more than {TOLERANCE:.0%} off; give a total that all sizes "
                f"divide, such as {multiple * max(1, round(self.total / multiple))}"
            )


def is_generated(name: str) -> bool:
    """Whether a connector is generated, not of the catalogue."""
    return GENERATED.fullmatch(name) is not None


def demand(cases: Sequence[RewardCase], spare: float) -> dict[str, int]:
    """How many trajectories of each training connector to collect: what the most demanding case trains on, and some
    more for those that will be discarded."""
    needed: dict[str, int] = {}
    for case in cases:
        for name in case.draw.train:
            needed[name] = max(needed.get(name, 0), case.trajectories or 0)
    return {name: most + max(2, math.ceil(spare * most)) if spare else most for name, most in needed.items()}
