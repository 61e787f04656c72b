"""The learning rate's schedule."""

import pytest
import torch

from lotj.algos.reward import RewardConfig, RewardLearner
from lotj.algos.training import cosine_decay
from lotj.data.batches import FrameBatch
from lotj.nets.encoder import EncoderConfig


def test_cosine_decay_in_closed_form():
    """Rises linearly over the warm-up, is a half at half time and 0 at the end, and stays there."""
    assert cosine_decay(0, 1000, warmup=10) == pytest.approx(0.1, rel=1e-4)
    assert cosine_decay(500, 1000) == pytest.approx(0.5)
    assert cosine_decay(1000, 1000) == pytest.approx(0.0, abs=1e-12)
    assert cosine_decay(2000, 1000) == pytest.approx(0.0, abs=1e-12)


def test_the_schedule_reaches_the_optimizer():
    """After the last step of the decay nothing moves any more, domain head aside; without decay everything does."""
    batch = FrameBatch(
        torch.randint(0, 255, (4, 3, 32, 32), dtype=torch.uint8), torch.tensor([1, 0, 1, 0]), torch.tensor([0, 1, 0, 1])
    )
    for decay_steps, moves in ((3, False), (0, True)):
        config = RewardConfig(EncoderConfig(4, 32), decay_steps=decay_steps)
        learner = RewardLearner(config, 2, seed=0, device="cpu")
        for _ in range(3):
            learner.update(batch)
        before = learner.network.head[0].weight.clone()
        learner.update(batch)
        assert bool((learner.network.head[0].weight != before).any()) is moves
