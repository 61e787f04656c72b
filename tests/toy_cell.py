"""A toy cell for tests of the online phase: a plug over a hole, seen as two wide blobs, in milliseconds a trial."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

torch.set_num_threads(1)  # matrices this small lose more to a second thread than they gain, above all on a busy machine

SIZE = 32
TOLERANCE = 0.25
"""The hole takes the plug within this lateral distance; elsewhere the plug rests on the face, 0.5 above full depth."""


class ToyCell(gymnasium.Env[dict[str, Any], np.ndarray]):
    """Lateral offset in [-1, 1]², height in [0, 2]; an action moves the tip by 0.4 of itself.

    ``garbage`` replaces all ground truth in ``info`` by noise; ``ends`` terminates on true success.
    """

    connector = "toy"
    robot = "toy-robot"

    def __init__(self, *, garbage: bool = False, ends: bool = False, horizon: int = 8, dislodge_at: int = -1) -> None:
        self.observation_space = gymnasium.spaces.Dict(
            {"image": gymnasium.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)}
        )
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.garbage, self.ends, self.horizon, self.dislodge_at = garbage, ends, horizon, dislodge_at
        self.noise = np.random.default_rng(99)
        self.options: list[dict[str, Any] | None] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.options.append(options)
        self.tip = np.array([*self.np_random.uniform(-1.0, 1.0, 2), self.np_random.uniform(1.0, 1.6)])
        self.steps = 0
        return self._observation(), self._info()

    def step(self, action: np.ndarray) -> Any:
        self.steps += 1
        tip = np.clip(self.tip + 0.4 * np.asarray(action, dtype=np.float64), [-1.2, -1.2, 0.0], [1.2, 1.2, 2.0])
        if np.linalg.norm(tip[:2]) > TOLERANCE:
            tip[2] = max(tip[2], 0.5)
        self.tip = tip
        ended = self.success and self.ends
        return self._observation(), float(self.success), ended, self.steps >= self.horizon, self._info()

    @property
    def success(self) -> bool:
        return bool(np.linalg.norm(self.tip[:2]) <= TOLERANCE and self.tip[2] <= 0.1)

    def _observation(self) -> dict[str, Any]:
        """Red: where the hole is beside the tip. Green: the height, as a blob's place."""
        pixel = np.arange(SIZE) / (SIZE - 1) * 4 - 2
        red = np.exp(-((pixel[None] + self.tip[0]) ** 2 + (pixel[:, None] + self.tip[1]) ** 2))
        green = np.exp(-((pixel[:, None] + 1 - self.tip[2]) ** 2)) * np.ones(SIZE)
        image = np.stack([red, green, np.zeros((SIZE, SIZE))], axis=-1)
        return {"image": (image * 255).astype(np.uint8), "privileged/tip": self.tip.copy()}

    def _info(self) -> dict[str, Any]:
        truth = {
            "privileged/success": self.success,
            "privileged/tip_in_socket": self.tip.astype(np.float32),
            "privileged/force": float(self.steps),
        }
        if self.garbage:
            truth = {
                "privileged/success": bool(self.noise.integers(2)),
                "privileged/tip_in_socket": self.noise.normal(size=3).astype(np.float32),
                "privileged/force": float(self.noise.normal()),
            }
        return truth | {"dislodged": self.steps == self.dislodge_at}


class ToyExpert:
    """Moves over the hole, then down; with noise when it explores."""

    def __init__(self, cell: ToyCell) -> None:
        self.cell = cell

    def reset(self) -> None:
        pass

    def act(self, observation: Any, rng: np.random.Generator, explore: bool = False) -> np.ndarray:
        tip = self.cell.tip
        over = np.linalg.norm(tip[:2]) <= TOLERANCE
        action = np.array([*(-tip[:2] / 0.4), -1.0 if over else 0.0])
        noise = rng.normal(0.0, 0.6, 3) if explore else 0.0
        return np.clip(action + noise, -1.0, 1.0).astype(np.float32)


class ToyReward:
    """A learned reward's stand-in: reads the image alone, as height and offset from the blobs' places."""

    def probability(self, image: np.ndarray) -> np.ndarray:
        pixel = np.arange(SIZE) / (SIZE - 1) * 4 - 2
        red = image[..., 0].astype(np.float64)
        total = red.sum(axis=(1, 2)) + 1e-9
        x, y = (red.sum(axis=1) @ pixel) / total, (red.sum(axis=2) @ pixel) / total
        height = pixel[image[..., 1].astype(np.float64).mean(axis=2).argmax(axis=1)] + 1
        return (1 / (1 + np.exp(8 * (np.hypot(x, y) + height - 0.5)))).astype(np.float32)


def toy_encoder(image: Tensor) -> Tensor:
    """(B, 3, H, W) uint8 -> (B, 48): a fixed random projection of the image at 8 × 8."""
    small = torch.nn.functional.avg_pool2d(image.float() / 255, 4).flatten(1)
    matrix = torch.randn(small.shape[1], 48, generator=torch.Generator().manual_seed(7)) / small.shape[1] ** 0.5
    return small @ matrix


def straight_down(feature: Tensor) -> Tensor:
    """A weak base policy (B, 3): always down."""
    return torch.tensor([0.0, 0.0, -0.6]).expand(len(feature), 3)
