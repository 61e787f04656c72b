"""How fast this machine is at what a preset will do, from a few seconds of the real thing."""

from __future__ import annotations

import time

import numpy as np
import torch

from lotj.algos.training import default_device
from lotj.nets.encoder import Encoder
from lotj.presets import Preset, Speed
from lotj.rollout import policy_rng, rollout
from lotj.sim.env import InsertionEnv
from lotj.sim.expert import Expert

FORWARD_SHARE = 2.6
"""How many times faster an encoder runs forward than it trains."""


def measure(preset: Preset) -> Speed:
    """Time some steps of one rendered trial and of one encoder's training, on one thread."""
    train = _training_speed(preset)
    return Speed(_collecting_speed(preset), train, FORWARD_SHARE * train)


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
