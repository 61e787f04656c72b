"""How many frames should the frozen networks encode at once? -> results/encoding.json.

Practice encodes every offline frame by three networks before it begins. Images a second of the desk preset's encoder,
forward alone, on random pictures, by batch size; one thread, timed in turn, medians.

    python benchmarks/encoding.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from lotj.files import write_json
from lotj.nets.encoder import Encoder
from lotj.presets import PRESETS
from lotj.provenance import provenance

SIZES = (1, 16, 32, 64, 128, 256, 512)
IMAGES = 512
"""Timed at once, whatever the batch."""


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("results/encoding.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = PRESETS["desk"].policy.model.encoder
    encoder = Encoder(config).eval()
    # Channels last in memory, as batches are.
    pixels = torch.randint(256, (IMAGES, config.image_size, config.cameras * config.image_size, 3), dtype=torch.uint8)
    image = pixels.permute(0, 3, 1, 2)
    seconds: dict[int, list[float]] = {size: [] for size in SIZES}
    for _ in range(arguments.repeats):
        for size in SIZES:
            start = time.perf_counter()
            for part in image.split(size):
                encoder(part)
            seconds[size].append(time.perf_counter() - start)
    rate = {size: IMAGES / statistics.median(values) for size, values in seconds.items()}
    rows = [{"batch": size, "images_per_second": round(rate[size], 1), "ratio": round(rate[size] / rate[512], 3)}
            for size in SIZES]  # fmt: skip
    for row in rows:
        print(row)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out, {**provenance(), "threads": 1, "batches": rows})


if __name__ == "__main__":
    main()
