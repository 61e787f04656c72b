"""Laws of augmentation."""

from __future__ import annotations

import pytest
import torch
from kornia.enhance import adjust_brightness_accumulative, adjust_contrast_with_mean_subtraction
from torch import Tensor

from lotj.data.augment import Augment, AugmentConfig

NOTHING = AugmentConfig(pad=0, brightness=0.0, contrast=0.0, saturation=0.0)


def images(batch: int = 6, height: int = 20, width: int = 24, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=generator(seed))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_shape_dtype_and_errors() -> None:
    """uint8 (B, 3, H, W) goes in and comes out; anything else is refused with its remedy, as is a bad setting."""
    out = Augment(AugmentConfig(noise=2.0, grayscale=0.5))(images(), generator(0))
    assert out.shape == (6, 3, 20, 24) and out.dtype == torch.uint8
    for bad in (images().float(), images()[0], images().permute(0, 2, 3, 1)):
        with pytest.raises(ValueError, match="augment before the encoder"):
            Augment(AugmentConfig())(bad, generator(0))
    for name, value in (("pad", -1), ("noise", -1.0), ("contrast", 1.5), ("grayscale", -0.1)):
        with pytest.raises(ValueError, match=name):
            AugmentConfig(**{name: value})


def test_identity_is_exact_and_input_is_kept() -> None:
    """A config of zeros is the identity bit for bit, and no config writes into its input."""
    image = images()
    assert torch.equal(Augment(NOTHING)(image, generator(1)), image)
    Augment(AugmentConfig(noise=3.0))(image, generator(1))
    assert torch.equal(image, images())


def test_result_is_a_function_of_the_generator() -> None:
    """Equal generator states give equal batches whatever the global generator does; other seeds give others."""
    augment = Augment(AugmentConfig(noise=1.0, grayscale=0.3))
    torch.manual_seed(0)
    first = augment(images(), generator(5))
    torch.manual_seed(1)
    assert torch.equal(first, augment(images(), generator(5)))
    assert not torch.equal(first, augment(images(), generator(6)))


@pytest.mark.parametrize(
    "config",
    [
        AugmentConfig(pad=3, brightness=0.0, contrast=0.0, saturation=0.0),
        AugmentConfig(pad=0, brightness=0.4, contrast=0.0, saturation=0.0),
        AugmentConfig(pad=0, brightness=0.0, contrast=0.4, saturation=0.0),
        AugmentConfig(pad=0, brightness=0.0, contrast=0.0, saturation=0.4),
    ],
)
def test_each_image_draws_for_itself(config: AugmentConfig) -> None:
    """A batch of equal images does not stay equal."""
    out = Augment(config)(images(1).repeat(8, 1, 1, 1), generator(0))
    assert len({bytes(image.numpy().tobytes()) for image in out}) >= 6


def test_shift_moves_pixels_and_repeats_edges() -> None:
    """out[y, x] = in[clamp(y + dy), clamp(x + dx)] for one whole (dy, dx) an image; all of -pad..pad occur."""
    pad, (height, width) = 2, (20, 24)
    image = images(200)
    out = Augment(AugmentConfig(pad=pad, brightness=0.0, contrast=0.0, saturation=0.0))(image, generator(3))
    padded = torch.nn.functional.pad(image.float(), (pad,) * 4, mode="replicate").to(torch.uint8)
    seen = set()
    for one, source in zip(out, padded):
        fits = [
            (y, x)
            for y in range(2 * pad + 1)
            for x in range(2 * pad + 1)
            if torch.equal(one, source[:, y : y + height, x : x + width])
        ]
        assert len(fits) == 1
        seen.add(fits[0])
    assert len(seen) == (2 * pad + 1) ** 2


def test_brightness_and_contrast_agree_with_kornia() -> None:
    """For the factor that was drawn, colours are kornia's to within rounding, where nothing is clipped."""
    image = images(5) // 4 + 96
    batch = len(image)
    for name, law in (
        ("brightness", adjust_brightness_accumulative),
        ("contrast", adjust_contrast_with_mean_subtraction),
    ):
        row = ("brightness", "contrast").index(name)
        factor = 1.0 + 0.2 * (2.0 * torch.rand(4, batch, generator=generator(7))[row] - 1.0)
        out = Augment(AugmentConfig(**{"pad": 0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, name: 0.2}))
        expected = law(image.float() / 255.0, factor) * 255.0
        assert (out(image, generator(7)).float() - expected).abs().max() <= 0.51


def test_colour_laws() -> None:
    """Saturation keeps grey images and the luma of all; grayscale makes channels equal; noise has the given spread."""
    grey = images(5)[:, :1].repeat(1, 3, 1, 1)
    saturate = Augment(AugmentConfig(pad=0, brightness=0.0, contrast=0.0, saturation=0.9))
    assert torch.equal(saturate(grey, generator(0)), grey)
    mild, weight = images(5) // 4 + 96, torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    changed = saturate(mild, generator(0))
    assert not torch.equal(changed, mild)
    assert ((changed.float() - mild.float()) * weight).sum(1).abs().max() <= 0.51
    dull = Augment(AugmentConfig(pad=0, brightness=0.0, contrast=0.0, saturation=0.0, grayscale=1.0))
    out = dull(images(5), generator(0))
    assert torch.equal(out[:, 0], out[:, 1]) and torch.equal(out[:, 0], out[:, 2])
    noisy = Augment(AugmentConfig(pad=0, brightness=0.0, contrast=0.0, saturation=0.0, noise=5.0))
    difference = noisy(torch.full((8, 3, 32, 32), 128, dtype=torch.uint8), generator(0)).float() - 128.0
    assert abs(difference.std().item() - 5.0) < 0.1 and abs(difference.mean().item()) < 0.1
