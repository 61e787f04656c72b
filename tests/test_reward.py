"""The reward model and the calibration of its probabilities."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lotj.algos.calibration import (
    SURE,
    auroc,
    balanced_accuracy,
    balanced_threshold,
    expected_calibration_error,
    fit_logit_temperature,
    reliability,
)
from lotj.algos.reward import RewardConfig, RewardLearner, RewardModel
from lotj.checkpoint import load_state, save_state
from lotj.data.batches import FrameBatch
from lotj.nets.bottleneck import BottleneckConfig
from lotj.nets.encoder import EncoderConfig

CONFIG = RewardConfig(
    encoder=EncoderConfig(width=4, image_size=32),
    bottleneck=BottleneckConfig(invariant_dim=4, specific_dim=4, adversarial_warmup=0),
    hidden=(8,),
    learning_rate=3e-3,
)
RNG = np.random.default_rng(0)


def batch(count: int = 12, seed: int = 0) -> FrameBatch:
    """Success is a bright patch; three domains."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 100, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    label = (torch.arange(count) % 2).float()
    image[label > 0, :, 8:24, 8:24] += 120
    return FrameBatch(image, label, torch.arange(count) % 3)


def camera(images: torch.Tensor) -> np.ndarray:
    return images.permute(0, 2, 3, 1).contiguous().numpy()


def trained(steps: int = 30, config: RewardConfig = CONFIG) -> RewardLearner:
    learner = RewardLearner(config, domains=3, seed=0, device="cpu")
    for step in range(steps):
        learner.update(batch(seed=step))
    return learner


def test_learns_a_visible_success() -> None:
    """Eq. 5 separates images that differ visibly, on images it has not seen."""
    model = trained().model()
    unseen = batch(40, seed=999)
    assert auroc(unseen.label.numpy(), model.probability(camera(unseen.image))) > 0.95


def test_every_parameter_gets_a_gradient() -> None:
    """No parameter of the reward network is cut off from Eq. 5 (a classifier under no_grad passes shape tests)."""
    learner = trained(0)
    learner.update(batch())
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in learner.network.parameters())


def test_unlabelled_domains_train_too() -> None:
    """A batch without any domain class still gives a finite step."""
    metrics = trained(0).update(batch()._replace(domain=torch.full((12,), -1)))
    assert np.isfinite(list(metrics.values())).all()


def test_probability_is_deterministic_and_independent_of_company() -> None:
    """Two calls agree to the bit although z_specific is sampled in training; the rest of a batch is no matter."""
    model = trained(3).model()
    images = camera(batch().image)
    first = model.probability(images)
    assert np.array_equal(first, model.probability(images)) and first.dtype == np.float32
    np.testing.assert_allclose(model.probability(images[:1]), first[:1], atol=1e-5)
    assert model.probability(images[:0]).shape == (0,)


def test_temperature_divides_the_logit() -> None:
    """probability = sigmoid(logit / temperature), kept off 0 and 1."""
    learner = trained(3)
    images = camera(batch().image)
    logit = learner.model().logit(images)
    warm = learner.model(logit_temperature=2.0).probability(images)
    np.testing.assert_allclose(warm, 1 / (1 + np.exp(-logit / 2)), rtol=1e-5)
    sharp = learner.model(logit_temperature=1e-6).probability(images)
    assert sharp.min() >= np.float32(SURE) and sharp.max() < 1


def test_state_survives_a_file(tmp_path) -> None:
    """A reward model read back from safetensors gives the same bits, threshold and temperature."""
    model = trained(3).model(logit_temperature=1.7, threshold=0.8)
    save_state(tmp_path / "reward.safetensors", model.state_dict())
    again = RewardModel.from_state(load_state(tmp_path / "reward.safetensors"))
    images = camera(batch().image)
    assert np.array_equal(model.probability(images), again.probability(images))
    assert (again.logit_temperature, again.threshold) == (1.7, 0.8)


def test_model_from_a_learner_state() -> None:
    """A training checkpoint is enough to rebuild the model."""
    learner = trained(2)
    images = camera(batch().image)
    again = RewardModel.from_state(learner.state_dict())
    assert np.array_equal(again.probability(images), learner.model().probability(images))


@pytest.mark.parametrize("image", [np.zeros((2, 32, 32, 3), np.float32), np.zeros((32, 32, 3), np.uint8)])
def test_other_images_are_refused(image: np.ndarray) -> None:
    """The error says what was expected and what came."""
    with pytest.raises(ValueError, match=r"\(B, H, W, 3\) uint8"):
        trained(0).model().probability(image)


@pytest.mark.parametrize(
    "config",
    [
        replace(CONFIG, learning_rate=1e-4),
        replace(CONFIG, hidden=()),
        replace(CONFIG, bottleneck=BottleneckConfig.of("erm", dim=8)),
        replace(CONFIG, encoder=EncoderConfig(width=8, image_size=32)),
    ],
)
def test_each_config_field_changes_the_model(config: RewardConfig) -> None:
    """No field is decoration."""
    images = camera(batch().image)
    base = trained(3).model().probability(images)
    assert not np.array_equal(base, trained(3, config).model().probability(images))


# -- calibration ------------------------------------------------------------------------------------------------------


def test_auroc_is_the_probability_of_the_right_order() -> None:
    """Against all pairs, ties counting half."""
    label = RNG.integers(0, 2, 60)
    score = RNG.integers(0, 8, 60) + 2 * label
    above = score[label == 1][:, None] - score[label == 0][None]
    assert auroc(label, score) == pytest.approx(((above > 0) + 0.5 * (above == 0)).mean())
    assert auroc([0, 1, 0, 1], [5, 5, 5, 5]) == 0.5
    with pytest.raises(ValueError, match="both classes"):
        auroc([1, 1], [0.1, 0.2])


def test_temperature_recovers_the_one_that_generated_labels() -> None:
    """Labels drawn with probability sigmoid(logit / 3) are best explained by a temperature of 3."""
    logit = RNG.normal(0, 6, 40000)
    label = RNG.random(40000) < 1 / (1 + np.exp(-logit / 3))
    assert fit_logit_temperature(logit, label) == pytest.approx(3.0, rel=0.05)


def test_balanced_threshold_cuts_between_the_classes_of_every_connector() -> None:
    """Where one cut separates all connectors it is found; where none does, connectors weigh alike, whatever their
    size."""
    probability = np.array([0.1, 0.2, 0.7, 0.9, 0.3, 0.8])
    label = np.array([0, 0, 1, 1, 0, 1])
    connector = np.array(["a", "a", "a", "a", "b", "b"])
    assert 0.3 < balanced_threshold(label, probability, connector) <= 0.7
    # Connector b separates at .9 only; a, with a hundred times the frames, at .5: either cut is perfect for one and
    # worth half for the other, and adding a second connector like b decides.
    low = np.r_[np.full(200, 0.4), np.full(200, 0.6)]
    high = np.array([0.8, 0.95])
    truth = np.r_[np.zeros(200), np.ones(200), [0, 1], [0, 1]]
    names = np.r_[np.full(400, "a"), ["b", "b"], ["c", "c"]]
    assert balanced_threshold(truth, np.r_[low, high, high], names) > 0.8
    assert balanced_threshold(truth[:402], np.r_[low, high], names[:402]) > 0.4


def test_balanced_accuracy_by_hand() -> None:
    """Mean of true positive and true negative rate; connectors with one class are left out."""
    label = [1, 1, 0, 0, 0, 0, 1]
    predicted = [1, 0, 0, 0, 0, 1, 1]
    connector = ["a"] * 6 + ["b"]
    assert balanced_accuracy(label, predicted, connector) == {"a": pytest.approx((1 / 2 + 3 / 4) / 2)}


def test_calibration_error_of_known_cases() -> None:
    """Zero where frequencies equal predictions; the gap where all predictions are equally off."""
    label = np.r_[np.ones(30), np.zeros(70)]
    assert expected_calibration_error(np.full(100, 0.3), label) == pytest.approx(0)
    assert expected_calibration_error(np.full(100, 0.9), label) == pytest.approx(0.6)
    rows = reliability([0.0, 0.05, 0.1, 1.0], [0, 1, 1, 1])
    assert [row.samples for row in rows] == [2, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    assert rows[0].frequency == 0.5 and np.isnan(rows[2].confidence)
