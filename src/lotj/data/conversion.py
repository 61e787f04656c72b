"""How a foreign episode becomes a trajectory of ours, above all: ``reward[t]`` describes ``image[t + 1]``.

What cannot be brought there is refused with a `ForeignError`, never settled by a guess.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lotj.data.foreign import Episode, ForeignError, ReadConfig
from lotj.types import Trajectory

STILL = 8
"""Levels of 256 by which a video codec changes the pictures of a camera that stands still; what moves changes more."""


def to_trajectory(episode: Episode, config: ReadConfig, seed: int) -> Trajectory:
    """Bring an episode to our conventions.

    The trial ends at its first success, where it is ``terminated``; without one it is ``truncated``. Whether the first
    observation shows a success is unknown where flags belong to actions, and taken as no.

    Args:
        episode: What was recorded.
        config: How to read it.
        seed: The number that names this trial.

    Returns:
        A trajectory that a store accepts; ``privileged`` holds ``success``.

    Raises:
        ForeignError: Something is missing, contradictory or of the wrong shape.
    """
    connector = episode.connector or config.connector or ""
    if not connector:
        raise ForeignError("no-name", "the data does not say which connector this is")
    images = _checked_images(episode, config)
    action = _numbers(episode.action, "action", 2) * np.float32(config.action_scale)
    steps, n = len(action), len(images[0])
    state = np.zeros((n, 0), np.float32) if episode.state is None else _numbers(episode.state, "state", 2)
    if n not in (steps, steps + 1) or len(state) != n or not steps:
        raise ForeignError("wrong-shape", f"{steps} actions, {n} images and {len(state)} states do not fit together")
    if np.abs(action).max(initial=0.0) > 1.0:
        raise ForeignError("out-of-range", f"actions: expected [-1, 1], got a magnitude of {np.abs(action).max():.4g}")
    label = _labels(episode, config, steps)  # (n or n + 1,) one an observation
    if len(label) > n:
        if config.final == "repeat":
            state = np.concatenate([state, state[-1:]])
            images = [np.concatenate([one, one[-1:]]) for one in images]
        label = label[: len(images[0])]
    first = np.flatnonzero(label[1:])
    length = int(first[0]) + 1 if len(first) else len(label) - 1
    if length < 1:
        raise ForeignError("too-short", f"{n} observation and no next one")
    label = label[: length + 1]
    return Trajectory(
        image=np.concatenate(
            [resized(one[: length + 1], config.image_size, config.cameras or 1) for one in images], axis=2
        ),
        state=state[: length + 1],
        action=action[:length],
        reward=label[1:].astype(np.float32),
        terminated=bool(label[-1]),
        truncated=not label[-1],
        connector=connector,
        robot=episode.robot or config.robot,
        seed=seed,
        source=episode.acted_by or config.acted_by,
        privileged={"success": label},
    )


def lost_success(episode: Episode, config: ReadConfig) -> bool:
    """Whether the only success belongs to the observation that was not recorded, and is dropped with it."""
    n = len(next(iter(episode.images.values())))
    if config.final == "repeat" or n != len(episode.action):
        return False
    label = _labels(episode, config, len(episode.action))
    return len(label) > n and bool(label[-1]) and not label[:-1].any()


def resized(image: NDArray[np.uint8], size: int | None, cameras: int = 1) -> NDArray[np.uint8]:
    """Centre-cropped to a square and scaled, (N, size, size, 3); as it is where ``size`` is None or already its own.
    ``cameras`` such pictures side by side stay side by side."""
    if cameras > 1:
        return np.concatenate([resized(one, size) for one in np.split(image, cameras, axis=2)], axis=2)
    height, width = image.shape[1:3]
    if size is None or (height, width) == (size, size):
        return image
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[:, top : top + side, left : left + side]
    # BOX averages what shrinks; enlarging is left blocky no more than BILINEAR makes it.
    how = Image.Resampling.BOX if side > size else Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(frame).resize((size, size), how)) for frame in square])


def reward_on_same(episode: Episode) -> str:
    """How the rewards contradict the success flag or the end of the task by one step; empty where they do not.

    The first positive reward must come with the first success flag, or, without such a flag, with the first ``done``.
    """
    flag, name = (episode.success, "success") if episode.success is not None else (episode.done, "done")
    if episode.reward is None or flag is None or len(flag) != len(episode.reward):
        return ""
    paid, ended = np.flatnonzero(np.asarray(episode.reward) > 0.5), np.flatnonzero(np.asarray(flag) > 0.5)
    if not len(paid) or not len(ended) or abs(int(paid[0]) - int(ended[0])) != 1:
        return ""
    late = paid[0] > ended[0]
    if name == "done" and not late and ended[0] in paid:
        return ""  # a trial may go on for a step after its success
    why = "r(s) in place of r(s')" if late else "the flag, not the reward, describes the observation before the action"
    return f"the first reward is at t = {paid[0]}, the first {name} at t = {ended[0]}: {why}"


def _labels(episode: Episode, config: ReadConfig, steps: int) -> NDArray[np.bool_]:
    """Success of each observation, the one after the last action included where a flag tells."""
    success = None if episode.success is None else _numbers(episode.success, "success", 1)
    reward = None if episode.reward is None else _numbers(episode.reward, "reward", 1)
    for name, array in (("success", success), ("reward", reward)):
        if array is not None and len(array) not in (steps, steps + 1):
            raise ForeignError("wrong-shape", f"{name}: expected {steps} or {steps + 1} values, got {len(array)}")
    if success is None and reward is None:
        raise ForeignError("no-reward", "neither rewards nor a success flag")
    if reward is not None and not config.success and not np.isin(reward, (0.0, 1.0)).all():
        if success is None:
            got = f"{reward.min():.4g} to {reward.max():.4g}"
            raise ForeignError("reward-scale", f"rewards: expected 0 or 1, got {got}, and no success flag")
        reward = None  # a shaped reward: the flag says what succeeded
    from_success = None if success is None else _by_observation(success > 0.5, steps, shifted=True)
    if config.success and from_success is not None:
        return from_success
    if reward is None:
        assert from_success is not None
        return from_success
    from_reward = _by_observation(reward > 0.5, steps, shifted=config.reward_on == "next")
    if from_success is not None:
        both = min(len(from_reward), len(from_success))
        wrong = np.flatnonzero(from_reward[1:both] != from_success[1:both])
        if len(wrong):
            why = reward_on_same(episode) or f"first at t = {wrong[0]}"
            raise ForeignError("reward-shift", f"rewards and success flag disagree ({why})")
        return from_success
    if config.reward_on == "next":
        why = reward_on_same(episode)
        if why:
            raise ForeignError("reward-shift", f"rewards and the end of the task disagree ({why})")
    return from_reward


def _by_observation(flag: NDArray[np.bool_], steps: int, *, shifted: bool) -> NDArray[np.bool_]:
    """One flag an observation: ``shifted`` flags belong to actions and describe the observation after each."""
    if len(flag) == steps + 1 or not shifted:
        return flag
    return np.concatenate([[False], flag])


def _checked_images(episode: Episode, config: ReadConfig) -> list[NDArray[np.uint8]]:
    """Of each camera (N, H, W, 3); squares of one size, unless ``image_size`` is to make them so."""
    images: list[NDArray[np.uint8]] = []
    for camera, image in episode.images.items():
        try:
            images.append(_checked(image, config.channels_first))
        except ForeignError as error:
            if len(episode.images) == 1:
                raise
            raise ForeignError(error.kind, f"{camera}: {error.message}") from error
    sizes = [(len(image), *image.shape[2:0:-1]) for image in images]  # N, W, H
    if len({n for n, _, _ in sizes}) > 1:
        told = ", ".join(f"{n} of {camera}" for camera, (n, _, _) in zip(episode.images, sizes))
        raise ForeignError("wrong-shape", f"expected as many images of each camera, got {told}")
    for _, width, height in sizes:
        # A row of squares may be several cameras', or one wide picture: that is for a person to say.
        row = width != height and not width % height and (config.image_size is None or config.cameras is None)
        if width != height * (config.cameras or 1) and ((config.cameras or 1) > 1 or row):
            raise ForeignError(
                "wrong-shape",
                f"images are {width} x {height} px, {width / height:g} squares side by side, and "
                f"{config.cameras or 'no number of'} camera(s) were said: give --cameras, which is 1 with --image-size "
                "for the middle square of a single wide picture",
            )
    _, width, height = sizes[0]
    if len(images) > 1 and config.image_size is None and (width != height or len(set(sizes)) > 1):
        told = ", ".join(f"{w} x {h} px of {camera}" for camera, (_, w, h) in zip(episode.images, sizes))
        raise ForeignError(
            "wrong-shape", f"expected squares of one size to put side by side, got {told}: give --image-size"
        )
    return images


def _checked(image: NDArray[Any], channels_first: bool) -> NDArray[np.uint8]:
    image = np.asarray(image)
    got = f"{image.dtype} {image.shape}"
    if image.ndim != 4 or image.dtype != np.uint8:
        raise ForeignError("wrong-shape", f"images: expected uint8 (N, H, W, 3), got {got}")
    if channels_first:
        if image.shape[1] != 3:
            raise ForeignError("wrong-shape", f"images: expected (N, 3, H, W) with --channels-first, got {got}")
        image = np.ascontiguousarray(image.transpose(0, 2, 3, 1))
    elif image.shape[3] != 3 and image.shape[1] == 3:
        raise ForeignError("channels-first", f"images: expected uint8 (N, H, W, 3), got {got}")
    if image.shape[3] != 3:
        raise ForeignError("wrong-shape", f"images: expected three channels, got {got}")
    if not image.any():
        raise ForeignError("black-images", "all images are black")
    if len(image) > 1 and int(np.ptp(image, axis=0).max()) <= STILL:
        raise ForeignError("frozen-images", "all images are the same")
    return image


def _numbers(array: NDArray[Any], name: str, ndim: int) -> NDArray[np.float32]:
    array = np.asarray(array)
    if array.dtype.kind not in "biuf" or array.ndim != ndim:
        wanted = "(T,)" if ndim == 1 else "(T, n)"
        raise ForeignError("wrong-shape", f"{name}: expected numbers {wanted}, got {array.dtype} {array.shape}")
    if not np.isfinite(array).all():
        raise ForeignError("not-finite", f"{name}: expected finite numbers, got NaN or infinity")
    return array.astype(np.float32)
