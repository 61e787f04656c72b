"""How many times faster an update of practice is from cached features than from pixels, and how long a robot waits for
its networks within a trial -> results/practice_update.json.

Both sides do the same update of the same recipe with the networks and images of a preset: the pixel side draws
images, augments them and runs the frozen convolutions; the cached side draws features. One thread, timed in turn,
medians. Within a trial the learner does not update: a control period has room for encoding a picture, an action and the
judge's look at the picture after it, and these are timed together, picture by picture.

    python benchmarks/practice.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from lotj.algos.iql import CriticNetwork
from lotj.algos.iql_practice import IqlPractice
from lotj.algos.policy import PolicyNetwork
from lotj.algos.reward import RewardModel, RewardNetwork
from lotj.collect import collect
from lotj.data.augment import Augment
from lotj.data.batches import FeatureBatch
from lotj.data.replay import TransitionDataset
from lotj.data.store import TrajectoryStore
from lotj.encoding import offline_features
from lotj.files import write_json
from lotj.judge import Judge, SuccessRule
from lotj.offline import Known
from lotj.presets import PRESETS
from lotj.provenance import provenance
from lotj.recipe import Offline, RecipeConfig, make_learner
from lotj.sim.controller import ControllerConfig

KNOWN = Known(("usb-a", "rj45", "din-5"), ("bnc",))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", choices=("desk", "paper"), default=["desk", "paper"])
    parser.add_argument("--repeats", type=int, default=40, help="updates timed each way; a quarter at paper size")
    parser.add_argument("--out", type=Path, default=Path("results/practice_update.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows, steps = [], []
    for name in arguments.presets:
        repeats = arguments.repeats if name == "desk" else max(1, arguments.repeats // 4)
        updates, waits = measure_preset(name, repeats)
        rows, steps = rows + updates, steps + waits
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out, {**provenance(), "threads": 1, "rows": rows, "steps": steps})
    print(json.dumps(rows + steps, indent=1))


Row = dict[str, float | str]


def measure_preset(name: str, repeats: int) -> tuple[list[Row], list[Row]]:
    """Rows of one preset: updates of both recipes at two sizes of batch, steps of both recipes."""
    preset = PRESETS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trajectories.sqlite"
        collect(replace(preset, known=(*KNOWN.train, *KNOWN.validation), trajectories=12).collect(), path, workers=1)
        with TrajectoryStore(path) as store:
            offline = Offline(
                PolicyNetwork(preset.policy.model, 3, len(KNOWN.train)).eval(),
                CriticNetwork(preset.critic.model, 3).eval(),
                RewardModel(RewardNetwork(preset.reward.model, len(KNOWN.train)), {}),
                SuccessRule(),
                KNOWN,
            )
            updates = [
                {"preset": name} | measure(recipe, batch, offline, store, repeats)
                for recipe in ("iql", "ensemble")
                for batch in (64, 128)
            ]
            steps = [{"preset": name} | measure_step(recipe, offline, store, repeats) for recipe in ("iql", "ensemble")]
            return updates, steps


def measure_step(recipe: str, offline: Offline, store: TrajectoryStore, repeats: int) -> Row:
    """Milliseconds that the networks take of a control period: median, 99th percentile and longest."""
    config = RecipeConfig(recipe=recipe)  # type: ignore[arg-type]
    learner, judge = make_learner(config, offline, seed=0), Judge(offline.reward, offline.rule)
    offline_features(learner, config.features, store, KNOWN)
    rng, waits = np.random.default_rng(0), []
    for index in range(max(2, repeats // 4)):
        images = store.read(index % len(store)).image
        judge.reset()
        learner.reset()
        for image, following in pairwise(images):
            start = time.perf_counter()
            learner.act({"image": image}, rng, explore=True)
            judge.observe(following)
            waits.append((time.perf_counter() - start) * 1e3)
    waits = waits[5:]  # the first calls allocate
    return {
        "recipe": recipe,
        "pictures": len(waits),
        "median_ms": round(statistics.median(waits), 2),
        "p99_ms": round(float(np.percentile(waits, 99)), 2),
        "longest_ms": round(max(waits), 2),
        "control_period_ms": 1e3 * ControllerConfig().period,
    }


def measure(recipe: str, batch: int, offline: Offline, store: TrajectoryStore, repeats: int) -> Row:
    """Median milliseconds of one update each way, timed in turn."""
    config = RecipeConfig(recipe=recipe)  # type: ignore[arg-type]
    learner = make_learner(config, offline, seed=0)
    buffer = offline_features(learner, config.features, store, KNOWN)
    dataset = TransitionDataset(store, KNOWN.train, augment=Augment(config.features.augment))
    generator = torch.Generator().manual_seed(0)

    @torch.no_grad()
    def encode_next(image: torch.Tensor) -> torch.Tensor:
        """Only what the update reads of s': V's feature in Eq. 1, all features where the policy acts on s'."""
        if not isinstance(learner, IqlPractice):
            return learner.encode(image)
        value = learner.critic.v_encoder(image)
        return torch.cat([value.new_zeros(batch, learner.feature_dim - value.shape[1]), value], dim=1)

    def cached() -> None:
        learner.update(buffer.sample(batch, generator))

    def pixels() -> None:
        drawn = dataset.sample(batch, generator)
        online = torch.zeros(batch, dtype=torch.bool)
        feature, following = learner.encode(drawn.image), encode_next(drawn.next_image)
        learner.update(
            FeatureBatch(feature, following, drawn.action, drawn.reward, drawn.terminated, drawn.domain, online)
        )

    times: dict[str, list[float]] = {"cached": [], "pixels": []}
    for _ in range(repeats):
        for name, update in (("cached", cached), ("pixels", pixels)):
            start = time.perf_counter()
            update()
            times[name].append((time.perf_counter() - start) * 1e3)
    cached_ms, pixel_ms = statistics.median(times["cached"]), statistics.median(times["pixels"])
    return {
        "recipe": recipe,
        "batch": batch,
        "cached_ms": round(cached_ms, 2),
        "pixels_ms": round(pixel_ms, 2),
        "ratio": round(pixel_ms / cached_ms, 1),
    }


if __name__ == "__main__":
    main()
