"""Named sizes of the whole job: ``debug`` (seconds), ``desk`` (two CPU cores), ``paper`` (a GPU and a day)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lotj.algos.ensemble import EnsembleConfig
from lotj.algos.iql import CriticConfig
from lotj.algos.iql_practice import IqlPracticeConfig
from lotj.algos.policy import PolicyConfig
from lotj.algos.reward import RewardConfig
from lotj.algos.training import config_from
from lotj.collect import CollectConfig
from lotj.dagger import DaggerConfig
from lotj.data.augment import AugmentConfig
from lotj.encoding import FeatureConfig
from lotj.evaluate import EvaluateConfig
from lotj.nets.bottleneck import BottleneckConfig
from lotj.nets.encoder import EncoderConfig
from lotj.offline import CriticStage, Known, PolicyStage, RewardStage
from lotj.practice import PracticeConfig
from lotj.preflight import PreflightConfig
from lotj.recipe import AUGMENT, RecipeConfig
from lotj.sim.connectors import get_connector
from lotj.sim.generate import generated_apart_from
from lotj.split import known_connectors, split_by_group, split_by_name

GENERATOR_SEED = 0
"""Of the connectors that presets draw at random: the first of ``lotj connectors generate --seed 0``."""
DESK_POLICY_BOTTLENECK = BottleneckConfig(adversarial_weight=0.03, kl_weight=0.001)
"""DAIB on the policy at small sizes: a deviation from the paper, whose λ is 0.01 (docs/decisions.md, Networks)."""


@dataclass(frozen=True)
class Preset:
    """Every setting of the whole job."""

    name: str = "desk"
    """Of the preset, stored in the run folder; a folder keeps to one."""
    connectors: int = 60
    """Connectors to know, drawn from all families; variants of the four test connectors are never among them."""
    generated: int = 0
    """Connectors to know beside these, made at random from the families' dimensions (``lotj.sim.generate``): never
    close to a test connector, nor to one of validation; families in turn. The paper has none."""
    generated_more: int = 0
    """Connectors made at random in the same way beyond ``generated``, all of one family."""
    generated_family: str = "bricks"
    """Which family: of bricks, the more are known the better unseen ones are inserted (docs/bricks.md)."""
    known: tuple[str, ...] = ()
    """Connectors to know by name or TOML file, instead of ``connectors``, ``generated`` and ``generated_more``."""
    imported: tuple[str, ...] = ()
    """Connectors known by trajectories from elsewhere (another cell, a data set, practice): any names."""
    validation: int = 5
    """Groups of them that are kept out of training."""
    trajectories: int = 60
    """Of each connector."""
    slow: float = 0.15
    """Share of slow insertions (docs/data.md)."""
    wrong_place: float = 0.15
    """Share of presses beside the socket."""
    image_size: int = 64
    """px."""
    dagger: DaggerConfig = field(default_factory=DaggerConfig)
    """Roll-outs of a first policy, which join what is collected."""
    reward: RewardStage = RewardStage()
    """Reward model."""
    critic: CriticStage = CriticStage()
    """Q and V."""
    policy: PolicyStage = PolicyStage()
    """Policy."""
    practice: RecipeConfig = RecipeConfig()
    """Practice."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Evaluation before and after."""
    practise_on: tuple[str, ...] = ("nema-5-15",)
    """What ``lotj demo`` practises: never known, nor a variant of it."""
    robot: str = "sawyer-a"
    """The cell that practises."""
    threads: int = 1
    """Torch threads of each process; two processes work side by side. Two threads on one narrow network gain a half on
    idle cores (571 to 385 images/s, measured once by hand) and lose most of it when anything else runs (165)."""
    seed: int = 0
    """Of collection, training and practice; evaluation and the offline features have seeds of their own."""

    def __post_init__(self) -> None:
        for name in ("generated", "generated_more"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"Preset.{name} is how many connectors are made, expected 0 or more, got {getattr(self, name)}"
                )
        for name, stage in (("reward", self.reward), ("critic", self.critic), ("policy", self.policy)):
            size = stage.model.encoder.image_size
            if size != self.image_size:
                raise ValueError(
                    f"Preset.{name}.model.encoder.image_size is {size}, but image_size is {self.image_size}: images "
                    "are collected at one size, so give both the same"
                )
            if stage.model.encoder.cameras != self.cameras:
                raise ValueError(
                    f"Preset.{name}.model.encoder.cameras is {stage.model.encoder.cameras}, the reward's is "
                    f"{self.cameras}: all look at the same images; `--cameras` sets all three"
                )
        for name, steps, decay in (
            ("reward", self.reward.steps, self.reward.model.decay_steps),
            ("policy", self.policy.steps, self.policy.model.decay_steps),
        ):
            if decay not in (0, steps):
                raise ValueError(
                    f"Preset.{name}.model.decay_steps is {decay}, but {name}.steps is {steps}: the learning rate would "
                    "not fall to 0 at the end, or stay there; give both the same, or decay_steps 0 for a constant rate"
                )

    @property
    def cameras(self) -> int:
        """How many of the wrist's cameras the robot sees by."""
        return self.reward.model.encoder.cameras

    def split(self) -> Known:
        """Which connectors are trained on and which are kept for validation."""
        if not self.known and not self.connectors:
            return split_by_name(self.imported, self.validation)
        if self.known:
            own = split_by_group([get_connector(name) for name in self.known], self.validation)
        else:
            own = known_connectors(self.connectors, self.validation)
        added = tuple(name for name in self.imported if name not in own.train + own.validation)
        made = self._generated(own.validation) if self.beside else ()
        return Known((*own.train, *made, *added), own.validation)

    @property
    def beside(self) -> int:
        """How many are made at random: none where all others are named or come from elsewhere."""
        return 0 if self.known or not self.connectors else self.generated + self.generated_more

    def _generated(self, validation: tuple[str, ...]) -> tuple[str, ...]:
        """The connectors made at random, away from those of validation."""
        apart = [get_connector(name) for name in validation]
        drawn = generated_apart_from(apart, self.generated, GENERATOR_SEED)
        return drawn + generated_apart_from(
            apart, self.generated_more, GENERATOR_SEED, self.generated_family, beyond=drawn
        )

    def collect(self) -> CollectConfig:
        """The collection of this preset. Connectors that are named need not be enough to split."""
        own = self.known
        if not own and self.connectors:
            drawn = known_connectors(self.connectors, self.validation)
            own = (*drawn.train, *drawn.validation)
        if self.beside:
            own = (*own, *self._generated(self.split().validation))
        return CollectConfig(
            connectors=own,
            trajectories=self.trajectories,
            slow=self.slow,
            wrong_place=self.wrong_place,
            image_size=self.image_size,
            cameras=self.cameras,
            seed=self.seed,
        )


def with_cameras(preset: Preset, cameras: int) -> Preset:
    """The preset, for a robot that sees by so many cameras.

    Raises:
        ValueError: fewer than one.
    """
    if cameras < 1:
        raise ValueError(f"--cameras {cameras}: expected at least 1")

    def seeing(stage: Any) -> Any:
        return replace(stage, model=replace(stage.model, encoder=replace(stage.model.encoder, cameras=cameras)))

    return replace(preset, reward=seeing(preset.reward), critic=seeing(preset.critic), policy=seeing(preset.policy))


def _sized(
    name: str,
    width: int,
    image_size: int,
    steps: tuple[int, int, int],
    batch: int,
    policy_bottleneck: BottleneckConfig = DESK_POLICY_BOTTLENECK,
    relabel: bool = True,
    reward_augment: AugmentConfig = AugmentConfig(turn=10.0, zoom=0.15, recolour=0.8),
    recolour: float = 0.8,
    cameras: int = 1,
    **fields: object,
) -> Preset:
    """A preset whose three networks share a size: ``steps`` of reward, critic and policy. ``recolour`` is what of
    `AugmentConfig` critic and policy bear as well: a turned picture wants a turned action."""
    encoder = EncoderConfig(width, image_size, cameras)
    reward, critic, policy = steps
    return Preset(
        name=name,
        image_size=image_size,
        reward=RewardStage(
            RewardConfig(encoder, learning_rate=1e-3, decay_steps=reward),
            reward_augment,
            steps=reward,
            batch_size=batch,
        ),
        critic=CriticStage(CriticConfig(encoder), AugmentConfig(recolour=recolour), steps=critic, batch_size=batch),
        policy=PolicyStage(
            PolicyConfig(encoder, policy_bottleneck, learning_rate=1e-3, decay_steps=policy),
            replace(AUGMENT["iql"], recolour=recolour),
            steps=policy,
            batch_size=batch,
            relabel=relabel,
        ),
        **fields,  # type: ignore[arg-type]
    )


PARTS = ("reward", "critic", "policy", "practice", "evaluate")
"""Sections without which a ``preset.json`` is none."""
PRESETS: dict[str, Preset] = {
    "debug": _sized(
        "debug",
        width=4,
        image_size=32,
        steps=(30, 20, 30),
        batch=16,
        cameras=2,
        connectors=6,
        validation=1,
        trajectories=8,
        slow=0.0,
        wrong_place=0.0,
        dagger=DaggerConfig(trials=2, steps=20),
        practice=RecipeConfig(
            practice=PracticeConfig(trials=3, warmup_trials=1, updates_per_step=1, batch_size=16),
            ensemble=EnsembleConfig(components=16, prepare_updates=10),
            features=FeatureConfig(views=1, fit_images=128),
            preflight=PreflightConfig(attempts=4),
        ),
        evaluate=EvaluateConfig(trials=2),
    ),
    "desk": _sized(
        "desk",
        width=16,
        image_size=64,
        steps=(6000, 800, 7000),
        batch=64,
        cameras=2,
        generated=180,
        generated_more=60,
        trajectories=40,
        dagger=DaggerConfig(trials=20),
        practice=RecipeConfig(
            practice=PracticeConfig(await_payments=3),
            iql=IqlPracticeConfig(learning_rate=1e-4, imitate_offline_policy=True, advantage_temperature=0.02),
            preflight=PreflightConfig(attempts=20),
        ),
    ),
    "paper": _sized(
        "paper",
        width=64,
        image_size=128,
        steps=(20_000, 100_000, 100_000),
        batch=128,
        policy_bottleneck=BottleneckConfig(),
        relabel=False,
        reward_augment=AugmentConfig(),
        recolour=0.0,
        dagger=DaggerConfig(trials=0),
        connectors=50,
        validation=6,
        trajectories=1400,
        threads=8,
        evaluate=EvaluateConfig(acting_std=0.0),
        practice=RecipeConfig(
            recipe="iql",
            practice=PracticeConfig(batch_size=128),
            features=FeatureConfig(views=2, augment=replace(AUGMENT["iql"], recolour=0.0), fit_images=16_384),
        ),
    ),
}


def read_preset(run_root: Path) -> dict[str, Any]:
    """What a run folder says that it was begun with, as JSON.

    Raises:
        FileNotFoundError: it is not a run folder.
        ValueError: its ``preset.json`` is damaged.
    """
    path = run_root / "preset.json"
    if not path.exists():
        inside = next((parent for parent in run_root.parents if (parent / "preset.json").exists()), None)
        hint = "make one with `lotj collect`" if inside is None else f"did you mean {inside}?"
        raise FileNotFoundError(f"{run_root} is not a run folder (no preset.json); {hint}")
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(held, dict) or not all(isinstance(held.get(part), dict) for part in PARTS):
            raise ValueError(f"it holds {str(held)[:40]}")
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged, expected the settings that the run was begun with as JSON ({error}): restore it, or "
            "begin another run"
        ) from error
    return held


def load_preset(run_root: Path) -> Preset:
    """The preset that a run folder was begun with.

    Raises:
        FileNotFoundError: it is not a run folder.
        ValueError: its ``preset.json`` is damaged, or another version of lotj wrote it.
    """
    held = read_preset(run_root)
    try:
        return config_from(Preset, held)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{run_root / 'preset.json'} was written by another version of lotj, whose settings are not today's "
            f"({error}): use that version, or begin another run"
        ) from error
