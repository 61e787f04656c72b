"""What a cell must say about itself: a TOML file that maps a ``gymnasium.Env`` to lotj and declares its limits.

The contract is SERL's observation layout and delta end-effector actions; the file says where in an observation the
camera, pose and forces are, what an action of 1 means in metres, and what the robot must never exceed.
``docs/cells.md`` explains every field; ``lotj cell new`` writes one to fill in.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

COMPLIANCE = ("impedance", "admittance")
NONE = "none"
"""Written where a sensor does not exist, so that leaving it out by mistake is not the same."""


class CellSpecError(ValueError):
    """The file does not describe a cell that may be practised on; says the field, what was expected and the remedy."""


@dataclass(frozen=True)
class CellSpec:
    """A cell, as its file describes it. Fields that are None were not given."""

    name: str
    """Stored as the trajectories' ``robot``."""
    env: str
    """``module:Id`` or ``Id``, for ``gymnasium.make``."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Of ``gymnasium.make``."""
    connector_argument: str | None = None
    """Which of them receives the connector's name: for simulators, which change the connector by software."""

    image: str | tuple[str, ...] = "images/wrist_1"
    """Path of the camera's picture in an observation, or ``render`` for the environment's own ``render()``; or several,
    of which a run uses as many as its networks look at, the first ones."""
    crop: tuple[Any, ...] | None = None
    """Top, left, height, width in px, or such a list for each camera; the centre square by default."""
    state: tuple[str, ...] = ()
    """Paths of proprioception handed to policies; none by default."""
    tcp_pose: str = "state/tcp_pose"
    """(>= 3,) m: x, y, z of the tool in the base frame first."""
    tcp_force: str = "state/tcp_force"
    """(3,) N in the base frame, of the plug on the fingers; ``none`` where nothing measures it."""
    tcp_torque: str = "state/tcp_torque"
    """(3,) N m; ``none`` where nothing measures it."""
    force_sign: float = 1.0
    """-1 where the sensor tells the force of the fingers on the plug."""

    components: tuple[int, int, int] = (0, 1, 2)
    """Which components of an action move the tool along x, y, z."""
    others: float = 0.0
    """What the other components are held at."""
    metres_per_unit: float | None = None
    """Displacement that an action of 1 asks for in one step."""

    rate_hz: float | None = None
    """Steps a second."""
    compliance: str | None = None
    """``impedance`` or ``admittance``: what keeps contact gentle within a step."""
    horizon: int = 20
    """Steps of a trial."""

    workspace_low: tuple[float, float, float] | None = None
    workspace_high: tuple[float, float, float] | None = None
    """m, base frame: the tool's target never leaves this box."""
    step: float | None = None
    """m: the longest step; ``metres_per_unit`` times the square root of 3 by default, which any action fits in."""
    force: float | None = None
    """N: above it the trial ends and the robot backs off."""
    torque: float | None = None
    """N m: likewise."""
    contact: float = 3.0
    """N: what counts as contact for the two budgets below."""
    trial_impulse: float = math.inf
    """N s of contact in one trial; the trial ends there."""
    practice_impulse: float = math.inf
    """N s of contact in a whole practice; it stops there."""
    stale_images: int = 5
    """As many identical pictures in a row while the tool moved mean a frozen camera. 0 never."""

    retract: bool = True
    """Pull the tool up along +z after a trial, before the environment's own reset."""
    retract_height: float = 0.03
    """m above where the trial ended."""
    retract_steps: int = 30
    """Steps that this may take before it counts as jammed."""
    scenarios: bool = False
    """Whether ``reset(options={"scenario": "I" or "II"})`` is honoured: 10 mm, 10-20 mm beside the socket."""

    success: str | None = None
    """How collection and evaluation know true success: ``info/<key>``, ``reward``, ``pose`` (calibrated), or ``ask`` a
    person. Practice never reads it."""
    success_above: float = 0.5
    """The number at ``success`` that counts as success is above this."""
    expert: str | None = None
    """``module:name`` of a scripted policy for collection, called with (cell, noise, speed, beside); by default the
    calibrated pose is driven to."""
    dislodged: str | None = None
    """``info/<key>`` that tells when the plug slipped in the grasp."""

    def __post_init__(self) -> None:
        _check(self)

    @property
    def longest_step(self) -> float:
        """m."""
        if self.step is not None:
            return self.step
        return math.sqrt(3) * (self.metres_per_unit or math.inf)

    @property
    def images(self) -> tuple[str, ...]:
        """Paths of all cameras' pictures."""
        return (self.image,) if isinstance(self.image, str) else self.image

    @property
    def crops(self) -> tuple[tuple[int, int, int, int] | None, ...]:
        """One for each of ``images``."""
        if self.crop is None or isinstance(self.crop[0], int):
            return (self.crop,) * len(self.images)  # type: ignore[return-value]
        return tuple(tuple(crop) for crop in self.crop)  # type: ignore[return-value]

    def require_contract(self) -> None:
        """Raise unless everything is declared that practice needs to be safe.

        Raises:
            CellSpecError: names every field that is missing.
        """
        missing = {
            "[control] rate_hz": (self.rate_hz, "steps a second"),
            "[control] compliance": (self.compliance, f"one of {', '.join(COMPLIANCE)}"),
            "[action] metres_per_unit": (self.metres_per_unit, "metres that an action of 1 asks for"),
            "[limits] workspace_low": (self.workspace_low, "three numbers, m"),
            "[limits] workspace_high": (self.workspace_high, "three numbers, m"),
            "[limits] force": (self.force, "N, or inf where tcp_force is none"),
            "[limits] torque": (self.torque, "N m, or inf where tcp_torque is none"),
        }
        lacking = [f"{name} ({what})" for name, (value, what) in missing.items() if value is None]
        if lacking:
            raise CellSpecError(
                f"cell {self.name!r} may not be practised on, because its file does not declare {'; '.join(lacking)}. "
                "Add them: the safety layer holds the robot to them"
            )


SECTIONS: Mapping[str, tuple[str, ...]] = {
    "": ("name", "env", "connector_argument", "expert"),
    "observation": ("image", "crop", "state", "tcp_pose", "tcp_force", "tcp_torque", "force_sign"),
    "action": ("components", "others", "metres_per_unit"),
    "control": ("rate_hz", "compliance", "horizon"),
    "limits": (
        "workspace_low",
        "workspace_high",
        "step",
        "force",
        "torque",
        "contact",
        "trial_impulse",
        "practice_impulse",
        "stale_images",
    ),
    "reset": ("retract", "retract_height", "retract_steps", "scenarios"),
    "success": ("success", "success_above", "dislodged"),
    "kwargs": (),
}
"""Sections of the file and their fields; in ``[success]`` the first is written ``from`` and ``above``."""

ALIASES = {("success", "from"): "success", ("success", "above"): "success_above"}


def load_cell(path: Path) -> CellSpec:
    """Read a cell's file.

    Raises:
        FileNotFoundError: there is none.
        CellSpecError: names the field, what was expected, what came and what to do.
    """
    if path.is_dir():
        raise CellSpecError(f"{path} is a folder, expected a cell's TOML file")
    if not path.is_file():
        raise FileNotFoundError(f"no cell file {path}; `lotj cell new --out {path}` writes one to fill in")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise CellSpecError(f"{path} is not valid TOML: {error}") from error
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key == "kwargs":
            values["kwargs"] = value
        elif isinstance(value, dict):
            if key not in SECTIONS:
                raise CellSpecError(f"{path}: unknown section [{key}]; there are {', '.join(filter(None, SECTIONS))}")
            for inner, setting in value.items():
                values[_known(path, key, inner)] = setting
        else:
            values[_known(path, "", key)] = value
    for name in ("name", "env"):
        if name not in values:
            raise CellSpecError(f"{path}: {name!r} is missing; it goes to the top of the file")
    try:
        given = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return CellSpec(**given)  # type: ignore[arg-type]
    except CellSpecError as error:
        raise CellSpecError(f"{path}: {error}") from error


def _known(path: Path, section: str, key: str) -> str:
    """The field's name, or an error that lists what the section has."""
    name = ALIASES.get((section, key), key)
    if name not in SECTIONS[section] or (section == "success" and key in ("success", "success_above")):
        own = [written for (part, written) in ALIASES if part == section]
        own += [n for n in SECTIONS[section] if n not in ALIASES.values()]
        home = next((f"[{s}]" for s, names in SECTIONS.items() if s and key in names), None)
        hint = f"; {key!r} belongs to {home}" if home else ""
        raise CellSpecError(f"{path}: unknown field {key!r} in [{section or 'top'}]; it has {', '.join(own)}{hint}")
    return name


def _check(spec: CellSpec) -> None:
    for name in ("name", "env", "tcp_pose", "tcp_force", "tcp_torque"):
        value = getattr(spec, name)
        if not isinstance(value, str) or not value:
            raise CellSpecError(f"{name} must be a non-empty string, got {value!r}")
    several = isinstance(spec.image, tuple) and spec.image and all(isinstance(path, str) for path in spec.image)
    if not (isinstance(spec.image, str) or several) or not all(spec.images):
        raise CellSpecError(f"image must be a path, or a list of paths for several cameras, got {spec.image!r}")
    if not isinstance(spec.state, tuple) or not all(isinstance(path, str) and path for path in spec.state):
        raise CellSpecError(f"state must be a list of paths, got {spec.state!r}")
    optional = ("metres_per_unit", "rate_hz", "step", "force", "torque")
    positive = ("contact", "trial_impulse", "practice_impulse", "retract_height")
    for name in (*optional, *positive):
        value = getattr(spec, name)
        if value is None and name in optional:
            continue
        if not _number(value) or not value > 0:
            raise CellSpecError(f"{name} must be a number above 0, got {value!r}")
        if name in ("metres_per_unit", "rate_hz") and not math.isfinite(value):
            raise CellSpecError(f"{name} must be finite, got {value!r}: contact and steps are counted by it")
    for name, least in (("horizon", 1), ("retract_steps", 1), ("stale_images", 0)):
        value = getattr(spec, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise CellSpecError(f"{name} must be a whole number of at least {least}, got {value!r}")
    if spec.stale_images == 1:
        raise CellSpecError("stale_images must be 0 (never) or at least 2, got 1: a picture alone is like no other")
    for name in ("retract", "scenarios"):
        if not isinstance(getattr(spec, name), bool):
            raise CellSpecError(f"{name} must be true or false, got {getattr(spec, name)!r}")
    for name in ("others", "success_above", "force_sign"):
        if not _number(getattr(spec, name)):
            raise CellSpecError(f"{name} must be a number, got {getattr(spec, name)!r}")
    if not -1 <= spec.others <= 1:
        raise CellSpecError(f"others must lie in [-1, 1], as actions do, got {spec.others!r}")
    if spec.force_sign not in (1, -1):
        raise CellSpecError(f"force_sign must be 1 or -1, got {spec.force_sign!r}")
    if spec.compliance is not None and spec.compliance not in COMPLIANCE:
        raise CellSpecError(f"compliance must be one of {', '.join(COMPLIANCE)}, got {spec.compliance!r}")
    for name in ("workspace_low", "workspace_high"):
        value = getattr(spec, name)
        three = isinstance(value, tuple) and len(value) == 3
        if value is not None and not (three and all(_number(v) and math.isfinite(v) for v in value)):
            raise CellSpecError(f"{name} must be three finite numbers (m), got {value!r}")
    low, high = spec.workspace_low, spec.workspace_high
    if low is not None and high is not None and not all(a < b for a, b in zip(low, high)):
        raise CellSpecError(f"workspace_low must lie below workspace_high along every axis, got {low} and {high}")
    components = spec.components
    three = isinstance(components, tuple) and len(components) == 3 and len(set(components)) == 3
    if not (three and all(isinstance(c, int) and c >= 0 for c in components)):
        raise CellSpecError(f"components must be three different whole numbers, got {components!r}")
    _check_crops(spec)
    known = spec.success in (None, "reward", "pose", "ask") or str(spec.success).startswith("info/")
    if not known:
        raise CellSpecError(f"[success] from must be 'info/<key>', 'reward', 'pose' or 'ask', got {spec.success!r}")
    for limit, sensor in (("force", "tcp_force"), ("torque", "tcp_torque")):
        value = getattr(spec, limit)
        if getattr(spec, sensor) == NONE and value is not None and math.isfinite(value):
            raise CellSpecError(f"{limit} is limited to {value}, but {sensor} is {NONE!r}: name the sensor, or say inf")
        if getattr(spec, sensor) != NONE and value is not None and not math.isfinite(value):
            raise CellSpecError(f"{limit} is unlimited although {sensor} is measured: give a limit")


def _check_crops(spec: CellSpec) -> None:
    crop = spec.crop
    if crop is None:
        return
    if not isinstance(crop, tuple) or not crop:
        raise CellSpecError(f"crop must be [top, left, height, width] in px, or a list of such, got {crop!r}")
    single = all(isinstance(c, int) for c in crop)
    for one in (crop,) if single else crop:
        whole = isinstance(one, list | tuple) and len(one) == 4 and all(isinstance(c, int) for c in one)
        if not whole or min(one[2:]) < 1:
            raise CellSpecError(f"crop must be [top, left, height, width] in px, or a list of such, got {crop!r}")
    if not single and len(crop) != len(spec.images):
        raise CellSpecError(f"crop has {len(crop)} entries for {len(spec.images)} cameras: give one for each, or one")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


assert {name for names in SECTIONS.values() for name in names} | {"kwargs"} == {f.name for f in fields(CellSpec)}
