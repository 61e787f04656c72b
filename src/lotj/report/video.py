"""Videos of trials: what the robot saw, and under each image what its reward model thought of it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from av.codec.codec import Codec, UnknownCodecError
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lotj.types import Trajectory

FRAMES_PER_SECOND = 5
HOLD = 5
"""Frames for which the last image of the longest trial stays."""
H264 = "libx264"
MIME = {".mp4": "video/mp4", ".webp": "image/webp"}
_TILE, _BAR, _CAPTION, _GAP = 256, 18, 46, 8
_BACKGROUND, _INK, _TRACK, _TRUE, _JUDGED = (15, 19, 26), (226, 232, 240), (51, 60, 75), (59, 130, 246), (245, 158, 11)


def trajectory_video(
    trajectories: Sequence[Trajectory],
    probability: Sequence[NDArray[np.floating]] | None,
    path: Path,
    captions: Sequence[str] | None = None,
    threshold: float | None = None,
) -> Path:
    """Write trials side by side as a video, every trial starting at once and holding its last image.

    Images are enlarged by pixel repetition, so they stay what the networks saw. Under each is a bar for the probability
    of success with a mark at the threshold, then step and caption. A blue frame marks true success, an orange one a
    predicted success that is not true.

    Args:
        trajectories: at least one; all with images of one size.
        probability: (T + 1,) for each trajectory, or None to draw no bars. NaN draws an empty bar.
        path: ``.mp4`` (H.264) or ``.webp``.
        captions: a line for each trajectory.
        threshold: the rule's, in [0, 1].

    Returns:
        The path written.

    Raises:
        ValueError: if there is nothing to show, lengths differ, or the suffix is unknown.
    """
    path.write_bytes(encode(compose(trajectories, probability, captions, threshold), path.suffix))
    return path


def compose(
    trajectories: Sequence[Trajectory],
    probability: Sequence[NDArray[np.floating]] | None = None,
    captions: Sequence[str] | None = None,
    threshold: float | None = None,
) -> NDArray[np.uint8]:
    """Return the frames of :func:`trajectory_video`, (N, H, W, 3) uint8 with even H and W."""
    if not trajectories:
        raise ValueError("a video needs at least one trajectory, got none")
    for name, values in (("probability", probability), ("captions", captions)):
        if values is not None and len(values) != len(trajectories):
            raise ValueError(f"{name} needs an entry for each of {len(trajectories)} trajectories, got {len(values)}")
    longest = max(len(trajectory) for trajectory in trajectories)
    frames = []
    for step in range(longest + 1 + HOLD):
        tiles = [
            _tile(
                trajectory,
                min(step, len(trajectory)),
                None if probability is None else probability[i],
                captions[i] if captions else "",
                threshold,
            )
            for i, trajectory in enumerate(trajectories)
        ]
        gap = np.full((tiles[0].shape[0], _GAP, 3), _BACKGROUND, np.uint8)
        row = [part for tile in tiles for part in (tile, gap)][:-1]
        frames.append(np.concatenate(row, axis=1))
    return np.stack(frames)


def can_encode(suffix: str) -> bool:
    """Whether this machine can write such a video; builds of FFmpeg without H.264 exist."""
    try:
        return suffix != ".mp4" or bool(Codec(H264, "w"))
    except UnknownCodecError:
        return False


def encode(frames: NDArray[np.uint8], suffix: str) -> bytes:
    """Encode frames (N, H, W, 3) uint8 as ``.mp4`` (H.264, for any browser) or ``.webp`` (animated)."""
    if suffix == ".mp4":
        return bytes(
            iio.imwrite(
                "<bytes>", frames, extension=".mp4", plugin="pyav", codec=H264, fps=FRAMES_PER_SECOND,
                out_pixel_format="yuv420p",
            )
        )  # fmt: skip
    if suffix == ".webp":
        out = io.BytesIO()
        first, *rest = (Image.fromarray(frame) for frame in frames)
        duration = 1000 // FRAMES_PER_SECOND
        first.save(out, "WEBP", save_all=True, append_images=rest, duration=duration, loop=0, quality=80)
        return out.getvalue()
    raise ValueError(f"unknown video suffix {suffix!r}: expected one of {', '.join(MIME)}")


def encode_for_web(frames: NDArray[np.uint8]) -> tuple[bytes, str]:
    """Encode as H.264, or as animated WebP where the installed FFmpeg has no H.264 encoder.

    Returns:
        The bytes and their media type.
    """
    suffix = ".mp4" if can_encode(".mp4") else ".webp"
    return encode(frames, suffix), MIME[suffix]


def _tile(
    trajectory: Trajectory,
    step: int,
    probability: NDArray[np.floating] | None,
    caption: str,
    threshold: float | None,
) -> NDArray[np.uint8]:
    scale = max(1, round(_TILE / trajectory.image.shape[1]))
    image = trajectory.image[step].repeat(scale, axis=0).repeat(scale, axis=1)
    height, width = image.shape[:2]
    canvas = Image.new("RGB", (width + width % 2, (height + _BAR + _CAPTION + 1) // 2 * 2), _BACKGROUND)
    canvas.paste(Image.fromarray(image))
    draw = ImageDraw.Draw(canvas)
    success = trajectory.privileged.get("success")
    inserted = bool(success is not None and success[step])
    if inserted or (step == len(trajectory) and trajectory.terminated):
        draw.rectangle((0, 0, width - 1, height - 1), outline=_TRUE if inserted else _JUDGED, width=5)
    text = f"step {step}/{len(trajectory)}"
    if probability is not None:
        _draw_bar(draw, width, height, float(probability[step]), threshold)
        if np.isfinite(probability[step]):
            text += f"   p = {probability[step]:.2f}"
    text += "   inserted" if inserted else ""
    font = ImageFont.load_default(16)
    draw.text((4, height + _BAR + 2), caption, _INK, font)
    draw.text((4, height + _BAR + 22), text, _INK, font)
    return np.asarray(canvas)


def _draw_bar(draw: ImageDraw.ImageDraw, width: int, top: int, probability: float, threshold: float | None) -> None:
    box = (4, top + 5, width - 5, top + _BAR - 4)
    draw.rectangle(box, _TRACK)
    if np.isfinite(probability):
        length = round((box[2] - box[0]) * min(max(probability, 0.0), 1.0))
        draw.rectangle((box[0], box[1], box[0] + length, box[3]), _JUDGED)
    if threshold is not None:
        x = box[0] + round((box[2] - box[0]) * threshold)
        draw.line((x, top + 2, x, top + _BAR - 1), _INK, 2)
