"""What makes a reward model hold on connectors it never saw: one change at a time, on the draws of Table IV."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lotj.experiments.reward_runs import RewardCase, draw_connectors, with_method
from lotj.experiments.reward_table import by_method, markdown, mean_over_draws, paired, show
from lotj.offline import RewardStage
from lotj.sim.parts import did_you_mean

BASE = "base"


def _augment(stage: RewardStage, **changes: Any) -> RewardStage:
    return replace(stage, augment=replace(stage.augment, **changes))


def _bottleneck(stage: RewardStage, **changes: Any) -> RewardStage:
    return replace(stage, model=replace(stage.model, bottleneck=replace(stage.model.bottleneck, **changes)))


def _steps(stage: RewardStage, factor: float) -> RewardStage:
    steps = round(stage.steps * factor)
    decay = steps if stage.model.decay_steps else 0
    return replace(stage, steps=steps, model=replace(stage.model, decay_steps=decay))


def _pixels(stage: RewardStage, size: int) -> RewardStage:
    encoder = replace(stage.model.encoder, image_size=size)
    return replace(stage, model=replace(stage.model, encoder=encoder))


def _cameras(stage: RewardStage, cameras: int) -> RewardStage:
    return replace(stage, model=replace(stage.model, encoder=replace(stage.model.encoder, cameras=cameras)))


def _frames(stage: RewardStage, frames: int) -> RewardStage:
    """Frames of one camera in place of cameras: they are shifted, turned and zoomed alike."""
    return _augment(_cameras(stage, frames), together=True)


LEVERS: Mapping[str, Callable[[RewardStage], RewardStage]] = {
    BASE: lambda stage: stage,
    "no-recolouring": lambda stage: _augment(stage, recolour=0.0),
    "no-turn-no-zoom": lambda stage: _augment(stage, turn=0.0, zoom=0.0),
    "neither": lambda stage: _augment(stage, recolour=0.0, turn=0.0, zoom=0.0),
    "mirrored": lambda stage: _augment(stage, flip=True),
    "turn-20-zoom-0.3": lambda stage: _augment(stage, turn=20.0, zoom=0.3),
    "shift-8": lambda stage: _augment(stage, pad=8),
    "more-jitter": lambda stage: _augment(stage, brightness=0.4, contrast=0.4, saturation=0.6),
    "no-near-misses": lambda stage: replace(stage, sampling=replace(stage.sampling, near_share=None)),
    "no-presses-beside": lambda stage: replace(stage, sampling=replace(stage.sampling, beside_share=None)),
    "half-the-steps": lambda stage: _steps(stage, 0.5),
    "twice-the-steps": lambda stage: _steps(stage, 2.0),
    "adversary-0.03": lambda stage: _bottleneck(stage, adversarial_weight=0.03),
    "adversary-0.3": lambda stage: _bottleneck(stage, adversarial_weight=0.3),
    "no-warm-up": lambda stage: _bottleneck(stage, adversarial_warmup=0),
    "kl-0.001": lambda stage: _bottleneck(stage, kl_weight=0.001),
    "kl-0.1": lambda stage: _bottleneck(stage, kl_weight=0.1),
    "invariant-16": lambda stage: _bottleneck(stage, invariant_dim=16),
    "specific-16": lambda stage: _bottleneck(stage, specific_dim=16),
    "z-256": lambda stage: _bottleneck(stage, invariant_dim=256, specific_dim=256),
    "32-px": lambda stage: _pixels(stage, 32),
    "96-px": lambda stage: _pixels(stage, 96),
    "closer": lambda stage: stage,
    "two-cameras": lambda stage: _cameras(stage, 2),
    "two-frames": lambda stage: _frames(stage, 2),
    "three-networks": lambda stage: stage,
}
"""A change to the training of the reward model, by name."""
BESIDES: Mapping[str, Mapping[str, Any]] = {
    "closer": {"crop": 2 / 3},
    "two-frames": {"before": 1},
    "three-networks": {"members": 3},
}
"""What some change beside its training: the middle two thirds of the view, the frame before, the mean of three."""


@dataclass(frozen=True)
class RewardLeversConfig:
    """Which changes to measure, on which draws."""

    levers: tuple[str, ...] = tuple(LEVERS)
    """Names of changes; ``base`` is what they are compared with."""
    method: str = "daib"
    """The bottleneck that all of them have."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """The first draws of Table IV."""
    train: int = 25
    """Training connectors."""
    validation: int = 5
    """Connectors for temperature and threshold."""
    held_out: int = 20
    """Connectors scored."""
    stage: RewardStage = field(default_factory=RewardStage)
    """What is changed."""

    def __post_init__(self) -> None:
        for name in self.levers:
            if name not in LEVERS:
                raise ValueError(f"unknown lever {name!r}{did_you_mean(name, LEVERS)}; there are {', '.join(LEVERS)}")

    def cases(self) -> list[RewardCase]:
        """Every change on every draw, draw by draw."""
        return [
            RewardCase(
                f"{lever}-s{seed}",
                lever,
                seed,
                draw_connectors(seed, self.train, self.validation, self.held_out),
                LEVERS[lever](with_method(self.stage, self.method)),
                **BESIDES.get(lever, {}),
            )
            for seed in self.seeds
            for lever in self.levers
        ]


def levers_table(results: Sequence[Mapping[str, Any]], frames: str = "all") -> str:
    """A row for each change as markdown, best AUROC first: means, and the paired difference to ``base``."""
    rows = by_method(results, frames)
    columns = ("accuracy_balanced", "auroc", "true_positive_rate", "false > 2 mm", "false beside")
    head = ["change", "accuracy at the balanced threshold", "AUROC", "true positives", "false, > 2 mm short"]
    head += ["false, pressed beside", "AUROC against base", "draws"]
    lines = [head, ["---"] * len(head)]
    for lever in sorted(rows, key=lambda name: -mean_over_draws([one["auroc"] for one in rows[name].values()]).value):
        cells = [show(mean_over_draws([one[column] for one in rows[lever].values()])) for column in columns]
        seeds = sorted(set(rows[lever]) & set(rows.get(BASE, {})))
        against = ""
        if lever != BASE and seeds:
            test = paired([rows[lever][s]["auroc"] for s in seeds], [rows[BASE][s]["auroc"] for s in seeds])
            against = f"{test.difference:+.3f} (p = {test.p_t:.2f})"
        lines.append([lever, *cells, against, str(len(rows[lever]))])
    return markdown(lines)
