"""Whether the robot's own reward can be believed: a tug after each success that it claims, and an alarm over tugs.

A policy that optimises a learned reward finds states that the reward wrongly likes, such as the plug resting on the
socket's face. A camera cannot tell a picture that fools it from one that does not; the hand can. After a trial that
the judge paid, the robot lifts the plug a little and tugs it to four sides: one that sits in a socket resists, one
that rests on a face is free. The tug is no part of the reward of the paper's method; it says nothing about the last
millimetres of depth, and needs a wrist that feels force.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import log
from pathlib import Path
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np

from lotj.files import write_json
from lotj.types import Trajectory

Mode = Literal["off", "alarm", "gate"]

SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1))
"""Directions of the four tugs, in the base frame's x and y."""


@dataclass(frozen=True)
class TugConfig:
    """How the robot feels whether the plug is held. With the defaults it takes a second."""

    lift: float = 0.2
    """Upward action before tugging: what pressed on the face is lifted off it, what is inserted stays in."""
    lift_steps: int = 2
    tug: float = 0.8
    """Sideways action."""
    tug_steps: int = 2
    """Steps to each side."""
    resistance: float = 2.5
    """N: the plug counts as held where every tug meets at least this."""

    def __post_init__(self) -> None:
        if not (0 <= self.lift <= 1 and 0 < self.tug <= 1):
            raise ValueError(f"TugConfig: lift must lie in [0, 1] and tug in (0, 1], got {self.lift} and {self.tug}")
        if self.lift_steps < 0 or self.tug_steps < 1:
            raise ValueError(
                f"TugConfig: lift_steps must be >= 0 and tug_steps >= 1, got {self.lift_steps} and {self.tug_steps}"
            )
        if not self.resistance > 0:
            raise ValueError(f"TugConfig.resistance must be positive, got {self.resistance}")


@dataclass(frozen=True)
class AlarmConfig:
    """A cumulative sum (Page 1954) over the tugs: quick to notice when the share of refuted successes rises."""

    tolerated: float = 0.2
    """Share of paid trials that may be refuted: there, alarms are false (``evidence`` says how rare they are)."""
    alarming: float = 0.6
    """Share that is to be noticed."""
    evidence: float = 200.0
    """Alarm where the likelihood ratio since the best moment reaches this: at the tolerated share a false alarm comes
    once in at least so many paid trials."""

    def __post_init__(self) -> None:
        if not 0 < self.tolerated < self.alarming < 1:
            raise ValueError(
                f"AlarmConfig needs 0 < tolerated < alarming < 1, got {self.tolerated} and {self.alarming}"
            )
        if not self.evidence > 1:
            raise ValueError(f"AlarmConfig.evidence must be above 1, got {self.evidence}")


@dataclass(frozen=True)
class GuardConfig:
    """What practice does about successes that a tug refutes."""

    mode: Mode = "off"
    """``off``: no tug, the paper's method. ``alarm``: a refuted trial is quarantined, and practice pauses when they
    become many. ``gate``: a refuted trial is not paid and is learned from as a failure; practice goes on."""
    tug: TugConfig = field(default_factory=TugConfig)
    """The tug."""
    alarm: AlarmConfig = field(default_factory=AlarmConfig)
    """When to pause."""

    def __post_init__(self) -> None:
        if self.mode not in ("off", "alarm", "gate"):
            raise ValueError(f"GuardConfig.mode must be 'off', 'alarm' or 'gate', got {self.mode!r}")


class Tug(NamedTuple):
    """What the robot felt."""

    resistance: tuple[float, ...]
    """N, the largest met to each of ``SIDES``; negative where the plug followed by itself."""
    held: bool


def tug_test(env: gymnasium.Env[Any, Any], config: TugConfig) -> Tug | None:
    """Lift a little, tug to four sides, and feel. Call it where a trial has ended and before the next reset.

    A cell whose safety layer backs off (``env.cut_off``, as ``lotj.cells.safety.SafeCell`` has it) has pulled the plug
    out, and nothing is felt from then on. A tug that met the resistance asked for before that is answer enough.

    Args:
        env: its ``info`` holds ``wrist_force`` (3,) N in the base frame, of the plug on the fingers.
        config: how.

    Returns:
        What was felt; None where the safety layer had backed off before there was anything to feel.

    Raises:
        ValueError: the cell does not tell its wrist force.
    """
    for _ in range(0 if _backed_off(env) else config.lift_steps):
        env.step(_action(env, (0, 0), config.lift))
    if _backed_off(env):
        return None
    resistance: list[float] = []
    for side in SIDES:
        forces = []
        for _ in range(config.tug_steps):
            info = env.step(_action(env, np.multiply(side, config.tug), 0.0))[4]
            if "wrist_force" not in info:
                raise ValueError(
                    f"{env} gives no info['wrist_force'], which the guard's tug needs: (3,) N, base frame. Add it to "
                    "the cell, or practise with the guard off"
                )
            forces.append(-float(np.dot(info["wrist_force"][:2], side)))
            if _backed_off(env):
                break
        resistance.append(max(forces))
        if _backed_off(env):
            break
    if _backed_off(env) and resistance[-1] < config.resistance:
        return None
    return Tug(tuple(resistance), min(resistance) >= config.resistance)


def alarm_at(held: Sequence[bool], config: AlarmConfig) -> int | None:
    """The index of the tug at which the alarm sounds, or None.

    The sum of log likelihood ratios of *alarming* against *tolerated*, never below 0, against log(evidence).

    Args:
        held: outcomes of the tugs in order.
        config: the shares and the evidence asked for.
    """
    refuted_counts = log(config.alarming / config.tolerated)
    held_counts = log((1 - config.alarming) / (1 - config.tolerated))
    total = 0.0
    for index, good in enumerate(held):
        total = max(0.0, total + (held_counts if good else refuted_counts))
        if total >= log(config.evidence):
            return index
    return None


def paid(trajectory: Trajectory) -> Trajectory:
    """The trial as a success at its last image, as a person said who looked."""
    reward = np.zeros_like(trajectory.reward)
    reward[-1] = 1
    return replace(trajectory, reward=reward, terminated=True, truncated=False)


def unpaid(trajectory: Trajectory) -> Trajectory:
    """The trial as a failure: no reward, cut off, and ``privileged["refuted"]`` (T + 1,) true at its last image, where
    somebody other than the judge looked."""
    refuted = np.arange(len(trajectory) + 1) == len(trajectory)
    truth = {**trajectory.privileged, "refuted": refuted}
    reward = np.zeros_like(trajectory.reward)
    return replace(trajectory, reward=reward, terminated=False, truncated=True, privileged=truth)


class Audit(NamedTuple):
    """What a person said about quarantined trials."""

    until: int
    """The last trial that the person knew of; the alarm counts later ones only."""
    labels: Mapping[int, bool]
    """Trial -> was it a success."""


def read_audit(folder: Path) -> Audit:
    """The audit of a practice's folder; an empty one where nobody has looked yet."""
    path = folder / "audit.json"
    if not path.exists():
        return Audit(0, {})
    held = json.loads(path.read_text(encoding="utf-8"))
    return Audit(int(held["until"]), {int(trial): bool(label) for trial, label in held["labels"].items()})


def write_audit(folder: Path, audit: Audit) -> None:
    """Keep an audit in a practice's folder."""
    write_json(folder / "audit.json", {"until": audit.until, "labels": {str(k): v for k, v in audit.labels.items()}})


def _backed_off(env: gymnasium.Env[Any, Any]) -> bool:
    return bool(getattr(env, "cut_off", ""))


def _action(env: gymnasium.Env[Any, Any], sideways: Any, up: float) -> Any:
    shape = env.action_space.shape
    if shape is None or len(shape) != 1 or shape[0] < 3:
        raise ValueError(f"the guard's tug needs actions (A,) with A >= 3 whose first three are x, y, z, got {shape}")
    action = np.zeros(shape, np.float32)
    action[:2], action[2] = sideways, up
    return action
