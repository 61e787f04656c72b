"""How many times faster an update of practice is from cached features than from pixels -> results/practice_update.json.

Both sides do the same update of the same recipe with the networks and images of a preset: the pixel side draws
images, augments them and runs the frozen convolutions; the cached side draws features. One thread, timed in turn,
medians.

    python benchmarks/practice.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

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
from lotj.judge import SuccessRule
from lotj.offline import Known
from lotj.presets import PRESETS
from lotj.provenance import provenance
from lotj.recipe import Offline, RecipeConfig, make_learner

KNOWN = Known(("usb-a", "rj45", "din-5"), ("bnc",))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", choices=("desk", "paper"), default=["desk", "paper"])
    parser.add_argument("--repeats", type=int, default=40, help="updates timed each way; a quarter at paper size")
    parser.add_argument("--out", type=Path, default=Path("results/practice_update.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in arguments.presets:
        rows += measure_preset(name, arguments.repeats if name == "desk" else max(1, arguments.repeats // 4))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out, {**provenance(), "threads": 1, "rows": rows})
    print(json.dumps(rows, indent=1))


def measure_preset(name: str, repeats: int) -> list[dict[str, float | str]]:
    """Rows of one preset, both recipes, two sizes of batch."""
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
            return [
                {"preset": name} | measure(recipe, batch, offline, store, repeats)
                for recipe in ("iql", "ensemble")
                for batch in (64, 128)
            ]


def measure(recipe: str, batch: int, offline: Offline, store: TrajectoryStore, repeats: int) -> dict[str, float | str]:
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
