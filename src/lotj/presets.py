"""Named sizes of the whole job: ``debug`` (seconds), ``desk`` (two CPU cores), ``paper`` (a GPU and a day)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from lotj.algos.ensemble import EnsembleConfig
from lotj.algos.iql import CriticConfig
from lotj.algos.policy import PolicyConfig
from lotj.algos.reward import RewardConfig
from lotj.collect import CollectConfig
from lotj.data.augment import AugmentConfig
from lotj.evaluate import EvaluateConfig
from lotj.nets.bottleneck import BottleneckConfig
from lotj.nets.encoder import EncoderConfig
from lotj.offline import CriticStage, Known, PolicyStage, RewardStage
from lotj.pipeline import FeatureConfig, RecipeConfig, known_connectors, split_by_group
from lotj.practice import PracticeConfig
from lotj.sim.connectors import get_connector

FRAMES_PER_TRAJECTORY = 12.5
"""Mean over the catalogue."""

POLICY_BOTTLENECK = BottleneckConfig(adversarial_weight=0.03, kl_weight=0.001)
"""DAIB on the policy, ten times weaker than the paper's on the reward, since a log likelihood is a larger loss than a
classifier's. With the reward's weights, a constant rate of 3e-4 and full augmentation the action error was .328 after
5000 steps and z_specific held less than one nat; with these weights, 1e-3 with decay and milder augmentation it was
.291 after 2500 (one seed each, changed together, judged on training and validation connectors)."""


class Speed(NamedTuple):
    """Rates that the estimate rests on; for ``desk`` measured on two cores (docs/decisions.md), elsewhere expected."""

    trajectories: float
    """Collected a second."""
    train_images: float
    """Images a second through one encoder, forward and backward."""
    encode_images: float
    """Images a second through one encoder, forward."""
    update_seconds: float
    """An update of practice from cached features."""


class Estimate(NamedTuple):
    """What a preset will take."""

    minutes: dict[str, float]
    """By stage."""
    memory_gb: float
    disk_gb: float

    @property
    def total_minutes(self) -> float:
        """All stages together."""
        return sum(self.minutes.values())


@dataclass(frozen=True)
class Preset:
    """Every setting of the whole job."""

    name: str = "desk"
    """Named in the run folder; a folder keeps to one."""
    connectors: int = 60
    """Connectors to know, drawn from all families; variants of the four test connectors are never among them."""
    known: tuple[str, ...] = ()
    """Connectors to know by name or TOML file, instead of drawing ``connectors`` of them."""
    validation: int = 5
    """Groups of them that are kept out of training."""
    trajectories: int = 80
    """Of each connector."""
    slow: float = 0.15
    """Share of slow insertions (docs/data.md)."""
    wrong_place: float = 0.15
    """Share of presses beside the socket."""
    image_size: int = 64
    """px."""
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
    """Torch threads. Narrow networks on two cores: two threads train 1706 images/s on an idle machine and 77 on a busy
    one, where they spin for each other; one thread trains 1135 on either."""
    seed: int = 0
    """Of everything."""

    def split(self) -> Known:
        """Which connectors are trained on and which are kept for validation."""
        if self.known:
            return split_by_group([get_connector(name) for name in self.known], self.validation)
        return known_connectors(self.connectors, self.validation)

    def collect(self) -> CollectConfig:
        """The collection of this preset."""
        split = self.split()
        return CollectConfig(
            connectors=self.known or (*split.train, *split.validation),
            trajectories=self.trajectories,
            slow=self.slow,
            wrong_place=self.wrong_place,
            image_size=self.image_size,
            seed=self.seed,
        )


def _sized(name: str, width: int, image_size: int, steps: tuple[int, int, int], batch: int, **fields: object) -> Preset:
    """A preset whose three networks share a size: ``steps`` of reward, critic and policy."""
    encoder = EncoderConfig(width, image_size)
    reward, critic, policy = steps
    return Preset(
        name=name,
        image_size=image_size,
        reward=RewardStage(
            RewardConfig(encoder, learning_rate=1e-3, decay_steps=reward), steps=reward, batch_size=batch
        ),
        critic=CriticStage(CriticConfig(encoder), steps=critic, batch_size=batch),
        policy=PolicyStage(
            PolicyConfig(encoder, POLICY_BOTTLENECK, learning_rate=1e-3, decay_steps=policy),
            AugmentConfig(pad=2, brightness=0.1, contrast=0.1, saturation=0.1),
            steps=policy,
            batch_size=batch,
        ),
        **fields,  # type: ignore[arg-type]
    )


PRESETS: dict[str, Preset] = {
    "debug": _sized(
        "debug",
        width=4,
        image_size=32,
        steps=(30, 20, 30),
        batch=16,
        connectors=6,
        validation=1,
        trajectories=8,
        slow=0.0,
        wrong_place=0.0,
        practice=RecipeConfig(
            practice=PracticeConfig(trials=3, warmup_trials=1, updates_per_step=1, batch_size=16, online_fraction=0.5),
            ensemble=EnsembleConfig(components=16, prepare_updates=10),
            features=FeatureConfig(views=1, fit_images=128),
        ),
        evaluate=EvaluateConfig(trials=2),
    ),
    "desk": _sized("desk", width=16, image_size=64, steps=(3000, 1500, 8000), batch=64),
    "paper": _sized(
        "paper",
        width=64,
        image_size=128,
        steps=(20_000, 100_000, 100_000),
        batch=128,
        connectors=50,
        validation=6,
        trajectories=1400,
        threads=8,
        practice=RecipeConfig(
            recipe="iql", practice=PracticeConfig(batch_size=128), features=FeatureConfig(views=2, fit_images=16_384)
        ),
    ),
}

SPEEDS: dict[str, Speed] = {
    "debug": Speed(20, 3000, 9000, 0.004),
    "desk": Speed(30, 1100, 2900, 0.005),
    "paper": Speed(20, 1500, 5000, 0.004),
}


def estimate(preset: Preset) -> Estimate:
    """Expected minutes by stage, memory and disk of a whole ``lotj demo``."""
    speed = SPEEDS.get(preset.name, SPEEDS["desk"])
    trajectories = (len(preset.known) or preset.connectors) * preset.trajectories
    frames = trajectories * FRAMES_PER_TRAJECTORY
    frame_bytes = preset.image_size**2 * 3
    practice = preset.practice.practice
    views = preset.practice.features.views
    steps = practice.trials * 17
    # A critic step trains two encoders and runs the target and the next value forward.
    critic_images = preset.critic.steps * preset.critic.batch_size * (2 + 2 / 3)
    practising = steps * (practice.updates_per_step * speed.update_seconds + 0.025)
    evaluating = 3 * len(preset.evaluate.scenarios) * preset.evaluate.trials * 20 * 0.025
    seconds = {
        "collect": trajectories / speed.trajectories,
        "reward": preset.reward.steps * preset.reward.batch_size / speed.train_images,
        "critic": critic_images / speed.train_images,
        "policy": preset.policy.steps * preset.policy.batch_size / speed.train_images
        + 2 * frames / speed.encode_images,
        "features": frames * views * 3 / speed.encode_images,
        "practice": 2 * practising * len(preset.practise_on),
        "evaluate": evaluating * len(preset.practise_on),
    }
    memory = 1.5 + min(frames * frame_bytes, 6 << 30) / 1e9
    return Estimate({k: v / 60 for k, v in seconds.items()}, memory, frames * frame_bytes / 1e9 + 0.3)
