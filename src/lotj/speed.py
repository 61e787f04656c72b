"""What a preset will take on this machine: minutes, memory and disk, from a few seconds of the real thing."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import torch

from lotj.algos.training import default_device
from lotj.data.replay import PRELOAD_BYTES
from lotj.nets.encoder import Encoder
from lotj.presets import Preset
from lotj.rollout import policy_rng, rollout
from lotj.sim.env import InsertionEnv
from lotj.sim.expert import Expert

FRAMES_PER_TRAJECTORY = 12.5
"""Mean over the catalogue."""
FRAMES_PER_ROLL_OUT = 16.0
"""The same of roll-outs of a first policy."""
FORWARD_SHARE = 2.6
"""How many times faster an encoder runs forward than it trains."""


class Speed(NamedTuple):
    """Rates that an estimate rests on, of one core; ``lotj.speed.measure`` measures them."""

    trajectories: float
    """Collected a second, with images."""
    train_images: float
    """Images a second through one encoder, forward and backward."""
    encode_images: float
    """Images a second through one encoder, forward."""


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


def measure(preset: Preset) -> Speed:
    """Time some steps of one rendered trial and of one encoder's training, on one thread."""
    train = _training_speed(preset)
    return Speed(_collecting_speed(preset), train, FORWARD_SHARE * train)


def estimate(preset: Preset, speed: Speed, workers: int) -> Estimate:
    """Expected minutes by stage, memory and disk of a whole ``lotj demo`` on a machine of this speed.

    Args:
        preset: what is to be done.
        speed: of one core.
        workers: processes that collect.
    """
    connectors = (len(preset.known) or preset.connectors) + preset.beside
    trajectories, rolled = connectors * preset.trajectories, connectors * preset.dagger.trials
    frames = trajectories * FRAMES_PER_TRAJECTORY + rolled * FRAMES_PER_ROLL_OUT
    frame_bytes = preset.image_size**2 * 3 * preset.cameras
    practice, features = preset.practice.practice, preset.practice.features
    seconds_a_step = 1 / (speed.trajectories * FRAMES_PER_TRAJECTORY)
    reward = preset.reward.steps * preset.reward.batch_size / speed.train_images
    # A critic step trains two encoders and runs the target and the next value forward.
    critic = preset.critic.steps * preset.critic.batch_size * (2 + 2 / 3) / speed.train_images
    weights = 0.0 if preset.policy.relabel else 2 * frames / speed.encode_images
    first = preset.dagger.steps * preset.policy.batch_size / speed.train_images if rolled else 0.0
    policy = preset.policy.steps * preset.policy.batch_size / speed.train_images
    # An update of practice costs about what training on two images does; a frame and its versions are encoded thrice.
    steps, encoded = practice.trials * 17, 3 * (1 + preset.practice.online_views)
    a_step = seconds_a_step + encoded / speed.encode_images + 2 * practice.updates_per_step / speed.train_images
    evaluating = 2 * len(preset.evaluate.scenarios) * preset.evaluate.trials * 20 * seconds_a_step
    seconds = {
        "collect": trajectories / (speed.trajectories * workers),
        "roll out": first + rolled * FRAMES_PER_ROLL_OUT * (seconds_a_step + 1 / speed.encode_images) / workers,
        "train": max(reward, critic + weights + policy),
        "encode": frames * features.views * 3 / speed.encode_images,
        "practise": (steps * a_step + evaluating) * len(preset.practise_on),
    }
    iql = preset.practice.recipe == "iql"
    critic_dim = preset.critic.model.encoder.feature_dim
    feature_dim = (
        preset.policy.model.encoder.feature_dim + 2 * critic_dim if iql else preset.practice.ensemble.components
    )
    disk = frames * (frame_bytes + 2 * features.views * feature_dim) / 1e9 + 0.3
    # Images beyond PRELOAD_BYTES stay on the disk; two processes hold them.
    memory = 3 + 2 * min(frames * frame_bytes, PRELOAD_BYTES) / 1e9
    return Estimate({k: v / 60 for k, v in seconds.items()}, memory, disk)


def _training_speed(preset: Preset, seconds: float = 1.0) -> float:
    config = preset.reward.model.encoder
    device = default_device()
    encoder = Encoder(config).to(device)
    batch = preset.reward.batch_size if device.type == "cuda" else 16
    size = config.image_size
    image = torch.zeros(batch, 3, size, config.cameras * size, dtype=torch.uint8, device=device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        encoder(image).square().mean().backward()
        started, batches = time.monotonic(), 0
        while time.monotonic() - started < seconds:
            encoder(image).square().mean().backward()
            batches += 1
        return batches * batch / (time.monotonic() - started)
    finally:
        torch.set_num_threads(threads)


def _collecting_speed(preset: Preset, trials: int = 3) -> float:
    env = InsertionEnv(
        preset.practise_on[0],
        preset.robot,
        "mixed",
        image_size=preset.image_size,
        cameras=preset.cameras,
        ground_truth=True,
    )
    try:
        expert = Expert(env)
        rollout(env, expert, np.random.default_rng(0), seed=0)
        started = time.monotonic()
        for seed in range(trials):
            rollout(env, expert, policy_rng(seed), seed=seed)
        return trials / (time.monotonic() - started)
    finally:
        env.close()
