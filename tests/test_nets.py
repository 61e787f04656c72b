"""Encoder, heads and distributions."""

import math
from dataclasses import replace

import pytest
import torch

from lotj.algos.training import adam, seeded
from lotj.nets.distributions import Gaussian, gaussian_log_prob, gaussian_sample
from lotj.nets.encoder import Encoder, EncoderConfig
from lotj.nets.heads import PolicyHead, QHead, ValueHead

SMALL = EncoderConfig(width=4, image_size=64)


def images(size: int = 64, count: int = 3, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def encoder(config: EncoderConfig = SMALL) -> Encoder:
    with seeded(0):
        return Encoder(config)


@pytest.mark.parametrize("size, cells", [(32, 1), (33, 2), (64, 2), (128, 2)])
def test_feature_length_is_what_the_config_says(size: int, cells: int) -> None:
    """F = 8 width cells^2, and the encoder returns that many float32."""
    config = EncoderConfig(width=4, image_size=size)
    feature = encoder(config)(images(size))
    assert config.feature_dim == 8 * 4 * cells**2
    assert feature.shape == (3, config.feature_dim) and feature.dtype == torch.float32


def test_width_64_is_the_resnet_18_of_the_paper() -> None:
    """With BatchNorm and width 64 the encoder has exactly the convolutions and norms of torchvision's ResNet-18."""
    from torchvision.models import resnet18

    ours = encoder(EncoderConfig(width=64, norm="batch"))
    theirs = [p.shape for name, p in resnet18().named_parameters() if not name.startswith("fc.")]
    assert sorted(p.shape for p in ours.parameters()) == sorted(theirs)


def test_pixels_are_scaled_here() -> None:
    """The convolutions see black as -2 and white as 2, whatever else is in the batch."""
    network, seen = encoder(), []
    network.stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(torch.stack([torch.zeros(3, 64, 64), torch.full((3, 64, 64), 255)]).to(torch.uint8))
    assert seen[0][0].unique().tolist() == [-2.0] and seen[0][1].unique().tolist() == [2.0]


def test_feature_keeps_place() -> None:
    """The same blob in two corners gives different features, which a global average alone could not promise."""
    image = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    image[0, :, 8:20, 8:20] = 255
    image[1, :, 44:56, 44:56] = 255
    cells = encoder()(image).unflatten(1, (-1, 4))  # (B, 8 width, cells)
    assert (cells[0] - cells[1]).abs().max() > 0.1


@pytest.mark.parametrize(
    "image",
    [images().float(), images(32), images()[0], images().permute(0, 2, 3, 1)],
    ids=["float", "size", "single", "hwc"],
)
def test_other_images_are_refused(image: torch.Tensor) -> None:
    """Pixels are divided by 255 here and only here, so anything but CHW uint8 of the right size is an error."""
    with pytest.raises(ValueError, match=r"expects images \(B, 3, 64, 64\) uint8"):
        encoder()(image)


@pytest.mark.parametrize("change", [{"width": 3}, {"image_size": 31}, {"norm": "layer"}])
def test_bad_encoder_config_is_refused(change: dict) -> None:
    """The error names the field."""
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(SMALL, **change)


def test_group_norm_encodes_alike_in_training_and_evaluation() -> None:
    """GroupNorm has no running statistics: the mode changes nothing, nor do the other images of the batch."""
    network = encoder()
    both = network.train()(images())
    torch.testing.assert_close(network.eval()(images()), both, rtol=0, atol=0)
    torch.testing.assert_close(network(images()[:1]), both[:1], rtol=1e-4, atol=1e-4)


def test_every_encoder_parameter_learns() -> None:
    """No parameter of the encoder is cut off from the feature."""
    network = encoder()
    network(images()).pow(2).sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters())


def test_seeded_gives_the_same_weights_and_leaves_the_global_generator() -> None:
    """Weights depend on the seed alone, and building a network draws nothing from torch's global generator."""
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = encoder().state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert all(torch.equal(a, b) for a, b in zip(first.values(), encoder().state_dict().values(), strict=True))


def test_log_prob_agrees_with_torch() -> None:
    """gaussian_log_prob is torch.distributions.Normal summed over action components."""
    mean, log_std, value = torch.randn(3, 5, 2).unbind(0)
    expected = torch.distributions.Normal(mean, log_std.exp()).log_prob(value).sum(-1)
    torch.testing.assert_close(gaussian_log_prob(Gaussian(mean, log_std), value), expected)


def test_sample_moments_and_reparameterisation() -> None:
    """Samples have the given mean and spread, follow the generator, and pass gradients to both parameters."""
    mean = torch.full((20000, 2), 3.0, requires_grad=True)
    log_std = torch.tensor([-1.0, 0.5], requires_grad=True)
    sample = gaussian_sample(Gaussian(mean, log_std), torch.Generator().manual_seed(0))
    again = gaussian_sample(Gaussian(mean, log_std), torch.Generator().manual_seed(0))
    assert torch.equal(sample, again)
    torch.testing.assert_close(sample.mean(0), torch.tensor([3.0, 3.0]), atol=0.05, rtol=0)
    torch.testing.assert_close(sample.std(0), log_std.exp(), atol=0.05, rtol=0)
    sample.pow(2).sum().backward()
    assert mean.grad is not None and log_std.grad is not None and bool((log_std.grad.abs() > 0).all())


def test_policy_head_is_squashed_and_its_spread_clamped() -> None:
    """Means lie in (-1, 1); log_std never leaves its range, and equal limits make it a constant."""
    head = PolicyHead(6, 3, (8,), (-2.0, -1.0))
    with torch.no_grad():
        head.log_std.fill_(7.0)
    gaussian = head(50 * torch.randn(4, 6))
    assert bool((gaussian.mean.abs() <= 1).all()) and gaussian.mean.shape == (4, 3)
    assert torch.equal(gaussian.log_std, torch.full((3,), -1.0))
    assert not PolicyHead(6, 3, (8,), (-1.5, -1.5)).log_std.requires_grad


def test_a_spread_beyond_its_limit_comes_back() -> None:
    """A step that carries log_std out of its range is undone by later ones that ask for less: each of them moves it."""
    head, z = PolicyHead(6, 3, (8,), (-2.0, -1.0)), torch.zeros(4, 6)
    optimizer = torch.optim.SGD([head.log_std], lr=0.1)
    for wanted, steps in ((-0.5, 20), (-1.5, 200)):
        for _ in range(steps):
            optimizer.zero_grad()
            (head(z).log_std - wanted).square().sum().backward()
            assert head.log_std.grad is not None and bool((head.log_std.grad != 0).all())
            optimizer.step()
    torch.testing.assert_close(head(z).log_std, torch.full((3,), -1.5), atol=1e-3, rtol=0)


def test_q_head_repeats_the_action() -> None:
    """The first layer reads the feature and ``action_repeat`` copies of the action."""
    head = QHead(6, 3, (8,), action_repeat=4)
    assert head.layers[0].in_features == 6 + 4 * 3
    feature, action = torch.randn(5, 6), torch.randn(5, 3)
    expected = head.layers(torch.cat([feature, action, action, action, action], dim=1)).squeeze(-1)
    assert torch.equal(head(feature, action), expected) and expected.shape == (5,)
    assert ValueHead(6, (8,))(feature).shape == (5,)


def test_adam_leaves_frozen_parameters_out() -> None:
    """Only trainable parameters are in the optimizer."""
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    network[0].requires_grad_(False)
    groups = adam(network, 1e-3).param_groups
    assert [p.shape for group in groups for p in group["params"]] == [(1, 2), (1,)]
    assert math.isclose(groups[0]["lr"], 1e-3)


def test_a_second_camera_is_three_more_channels() -> None:
    """Exchanging the two pictures and the halves of the first kernel leaves the feature as it is; the rest of the
    network is that of a single camera."""
    both = encoder(replace(SMALL, cameras=2))
    image = torch.cat([images(seed=1), images(seed=2)], dim=3)  # (B, 3, 64, 128)
    feature = both(image)
    kernel = both.stem[0].weight
    assert kernel.shape[1] == 6 and feature.shape == (3, SMALL.feature_dim)
    exchanged = both(torch.cat(image.split(64, dim=3)[::-1], dim=3))
    assert (exchanged - feature).abs().max() > 0.1
    with torch.no_grad():
        kernel.copy_(kernel.roll(3, dims=1))
    torch.testing.assert_close(both(torch.cat(image.split(64, dim=3)[::-1], dim=3)), feature)


def test_images_of_another_number_of_cameras_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expects images \(B, 3, 64, 128\) uint8, of 2 camera"):
        encoder(replace(SMALL, cameras=2))(images())
