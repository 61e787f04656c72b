"""Laws of augmentation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from kornia.enhance import adjust_brightness_accumulative, adjust_contrast_with_mean_subtraction
from kornia.geometry.transform import rotate, scale
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
    for name, value in (("pad", -1), ("noise", -1.0), ("contrast", 1.5), ("grayscale", -0.1), ("turn", -1.0)):
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
        AugmentConfig(pad=0, brightness=0.0, contrast=0.0, saturation=0.0, recolour=1.0),
        AugmentConfig(pad=0, turn=10.0, brightness=0.0, contrast=0.0, saturation=0.0),
        AugmentConfig(pad=0, zoom=0.1, brightness=0.0, contrast=0.0, saturation=0.0),
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


def test_turn_and_zoom_agree_with_kornia() -> None:
    """For the angle or factor that was drawn, the middle is kornia's to within rounding, on pictures that are not
    square; a flip is an exact mirror image of about half of them."""
    image = images(8)
    draw = torch.rand(3, len(image), generator=generator(7)) * 2.0 - 1.0
    plain = {"pad": 0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
    laws = {
        "turn": rotate(image.float(), 15.0 * draw[0], padding_mode="reflection", align_corners=False),
        "zoom": scale(image.float(), torch.exp(-0.15 * draw[1])[:, None].repeat(1, 2), align_corners=False),
    }
    for name, expected in laws.items():
        out = Augment(AugmentConfig(**plain, **{name: 15.0 if name == "turn" else 0.15}))(image, generator(7))
        error = (out.float() - expected)[:, :, 5:-5, 5:-5].abs()
        assert error.max() <= 1.01, (name, error.max())
    flipped = Augment(AugmentConfig(**plain, flip=True))(images(40), generator(0))
    mirrored = [torch.equal(one, source.flip(-1)) for one, source in zip(flipped, images(40))]
    same = [torch.equal(one, source) for one, source in zip(flipped, images(40))]
    assert all(a != b for a, b in zip(mirrored, same)) and 10 < sum(mirrored) < 30


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


def test_recolouring_exchanges_colours() -> None:
    """Grey images stay; a pure colour becomes a mix of itself and another of the same sum; each of the six permutations
    comes up; contrast is about the mean of the new colours; without it the other draws are what they were."""
    recolour = Augment(AugmentConfig(pad=0, brightness=0.0, contrast=0.0, saturation=0.0, recolour=1.0))
    grey = images()[:, :1].expand(-1, 3, -1, -1)
    assert torch.equal(recolour(grey, generator(0)), grey)
    colours = torch.zeros(400, 3, 4, 4, dtype=torch.uint8)
    colours[:, 0, :2], colours[:, 1, 2:] = 200, 120
    out = recolour(colours, generator(0)).int()
    red, green = out[:, :, 0, 0], out[:, :, 2, 0]
    assert ((red.sum(1) - 200).abs() <= 1).all() and ((green.sum(1) - 120).abs() <= 1).all()
    mostly = red.argmax(1) * 3 + green.argmax(1)
    assert set(mostly.tolist()) >= {0 * 3 + 1, 0 * 3 + 2, 1 * 3 + 0, 2 * 3 + 1}
    mild = images() // 4 + torch.tensor([60, 90, 130], dtype=torch.uint8).view(1, 3, 1, 1)
    luma = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    with_contrast, without = (
        Augment(AugmentConfig(pad=0, brightness=0.0, contrast=contrast, saturation=0.0, recolour=1.0))(
            mild, generator(1)
        )
        for contrast in (0.5, 0.0)
    )
    assert (with_contrast != without).any()
    lumas = [torch.einsum("bchw,c->b", out.double(), luma) / (20 * 24) for out in (with_contrast, without)]
    assert (lumas[0] - lumas[1]).abs().max() < 0.3
    some = Augment(AugmentConfig(pad=0, brightness=0.0, contrast=0.0, saturation=0.0, recolour=0.25))
    changed = (some(colours, generator(2)) != colours).flatten(1).any(1).double().mean()
    assert 0.1 < changed < 0.3


@pytest.mark.parametrize("config", [AugmentConfig(pad=5), AugmentConfig(pad=0, turn=20.0, zoom=0.3, flip=True)])
def test_two_cameras_pictures_move_apart(config: AugmentConfig) -> None:
    """Each picture of an image that is two is changed as if it were alone: nothing of the one gets into the other, and
    they are drawn for one by one."""
    still = replace(config, brightness=0.0, contrast=0.0, saturation=0.0)
    plain = torch.cat([torch.full((4, 3, 16, 16), 10), torch.full((4, 3, 16, 16), 200)], 3).to(torch.uint8)
    assert torch.equal(Augment(still)(plain, generator(0)), plain)
    one = images(4, 16, 16)
    left, right = Augment(still)(torch.cat([one, one], 3), generator(1)).split(16, dim=3)
    assert not torch.equal(left, right)
    alone = Augment(still)(one.repeat_interleave(2, 0), generator(1))
    assert torch.equal(torch.stack([left, right], 1).flatten(0, 1), alone)


@pytest.mark.parametrize("config", [AugmentConfig(pad=5), AugmentConfig(pad=5, turn=20.0, zoom=0.3, flip=True)])
def test_two_frames_move_together(config: AugmentConfig) -> None:
    """Two frames of one camera are changed alike, as either is alone, and the next image is not changed as this one."""
    one = images(4, 16, 16)
    both = Augment(replace(config, together=True))(torch.cat([one, one], 3), generator(1))
    left, right = both.split(16, dim=3)
    assert torch.equal(left, right)
    still = replace(config, brightness=0.0, contrast=0.0, saturation=0.0)
    alone = Augment(still)(one, generator(1))
    assert torch.equal(Augment(replace(still, together=True))(torch.cat([one, one], 3), generator(1))[..., :16], alone)
    source = generator(2)
    first, second = (Augment(replace(still, together=True))(torch.cat([one, one], 3), source) for _ in range(2))
    assert not torch.equal(first, second)


def test_two_cameras_pictures_change_colour_together() -> None:
    """Light and colours are the cell's, not a camera's."""
    one = images(4, 16, 16)
    config = AugmentConfig(pad=0, recolour=1.0)
    left, right = Augment(config)(torch.cat([one, one], 3), generator(3)).split(16, dim=3)
    assert torch.equal(left, right) and not torch.equal(left, one)
