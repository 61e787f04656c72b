"""How near is offline training to the bare network? -> results/training.json.

For each of the three networks of the desk preset: images a second of training as `lotj train` does it (batches drawn
from a store, augmented, all losses and metrics) against forward, backward and Adam of the same encoder on one random
tensor; one thread, timed in turn, medians. A critic step trains two encoders and runs two more forward: its bare loop
does the same.

    python benchmarks/training.py
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lotj.algos.iql import CriticLearner
from lotj.algos.policy import PolicyBatch, PolicyLearner
from lotj.algos.reward import RewardLearner
from lotj.collect import collect
from lotj.data.augment import Augment
from lotj.data.replay import TransitionDataset
from lotj.data.store import TrajectoryStore
from lotj.files import write_json
from lotj.nets.encoder import Encoder, EncoderConfig
from lotj.presets import PRESETS, Preset
from lotj.provenance import provenance

CONNECTORS = ("usb-a", "rj45", "din-5", "bnc")


def bare(config: EncoderConfig, batch: int, encoders: int, forward_only: int) -> Callable[[], None]:
    """Forward, backward and Adam of encoders on a random tensor, and more encoders forward."""
    image = torch.randint(256, (batch, 3, config.image_size, config.cameras * config.image_size), dtype=torch.uint8)
    trained = [Encoder(config) for _ in range(encoders)]
    still = [Encoder(config).requires_grad_(False) for _ in range(forward_only)]
    adam = torch.optim.Adam([p for encoder in trained for p in encoder.parameters()], fused=True)

    def step() -> None:
        for encoder in still:
            encoder(image)
        loss = sum(encoder(image).square().mean() for encoder in trained)
        adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[union-attr]
        adam.step()

    return step


def steps(preset: Preset, store: TrajectoryStore) -> dict[str, tuple[Callable[[], Any], Callable[[], None]]]:
    """Of each stage: its own step, and the bare one."""
    generator = torch.Generator().manual_seed(0)
    domains = len(CONNECTORS)
    frames = TransitionDataset(store, CONNECTORS, augment=Augment(preset.reward.augment))
    reward = RewardLearner(preset.reward.model, domains, 0)
    critic = CriticLearner(preset.critic.model, store.shape.action, 0)
    policy = PolicyLearner(preset.policy.model, store.shape.action, domains, 0)
    augment = Augment(preset.policy.augment)
    size = preset.reward.batch_size

    def policy_step() -> None:
        drawn = TransitionDataset.transitions(frames, torch.randint(len(frames), (size,), generator=generator).numpy())
        batch = PolicyBatch(augment(drawn.image, generator), drawn.action, drawn.domain, torch.ones(size))
        policy.update(batch)

    encoder = preset.reward.model.encoder
    return {
        "reward": (
            lambda: reward.update(frames.sample_frames_balanced(size, generator, preset.reward.sampling)),
            bare(encoder, size, 1, 0),
        ),
        "critic": (lambda: critic.update(frames.sample(size, generator)), bare(encoder, size, 2, 2)),
        "policy": (policy_step, bare(encoder, size, 1, 0)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("results/training.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    preset = PRESETS["desk"]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trajectories.sqlite"
        collect(replace(preset, known=CONNECTORS, trajectories=20).collect(), path, workers=2)
        with TrajectoryStore(path) as store:
            for stage, (own, floor) in steps(preset, store).items():
                times: dict[str, list[float]] = {"own": [], "bare": []}
                for _ in range(arguments.repeats):
                    for name, step in (("own", own), ("bare", floor)):
                        start = time.perf_counter()
                        step()
                        times[name].append(time.perf_counter() - start)
                rate = {name: preset.reward.batch_size / statistics.median(values) for name, values in times.items()}
                rows.append({"stage": stage, **{k: round(v, 1) for k, v in rate.items()}})
                rows[-1]["share"] = round(rate["own"] / rate["bare"], 3)
                print(rows[-1], flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out, {**provenance(), "threads": 1, "images_per_second": rows})


if __name__ == "__main__":
    main()
