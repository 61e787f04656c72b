"""Any ``gymnasium.Env`` as a cell of lotj, mapped by its file (``lotj.cells.spec``)."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from PIL import Image

from lotj.cells.calibration import Calibration
from lotj.cells.spec import NONE, CellSpec, CellSpecError

Ask = Callable[[str], bool]
"""Asks a person a question of yes or no."""


class Reading(NamedTuple):
    """What the robot feels, in the base frame."""

    position: NDArray[np.float64]
    """(3,) m of the tool."""
    force: NDArray[np.float64]
    """(3,) N of the plug on the fingers; zeros where nothing measures it."""
    torque: NDArray[np.float64]
    """(3,) N m; likewise."""


class CellEnv(gymnasium.Env[dict[str, NDArray[Any]], NDArray[np.float32]]):
    """Observations ``{"image": (H, cameras * H, 3) uint8[, "state": (S,) float32]}``, actions (3,) in [-1, 1].

    It maps and it does not guard: ``lotj.cells.safety.SafeCell`` stands between it and any policy.

    ``info`` has ``connector``, ``robot``, ``dislodged``, ``force`` (N), ``wrist_force`` (3,), ``tcp`` (3,) m,
    ``reading`` (`Reading`), and where a person took over ``executed_action`` (3,). Where the file says how success is
    known and ``truth`` is asked for, also ``privileged/success`` and, calibrated, ``privileged/tip_in_socket`` and
    ``privileged/force``. The environment's own end of an episode is a truncation here, so that it tells no learner
    about success.

    Args:
        spec: the cell.
        connector: what is in its clamp.
        image_size: H in px.
        cameras: how many of the file's cameras are shown, the first ones, side by side.
        scenario: where trials start that do not say otherwise, in a cell that honours scenarios.
        truth: offer ground truth in ``info``, for collection, evaluation and reports.
        ground_truth: pay it as reward and end trials by it, for collection.
        calibration: where full insertion is, for ``success = "pose"``.
        ask: asks a person, for ``success = "ask"``.
        env: an environment already made; ``spec.env`` is made by default.

    Raises:
        CellSpecError: the file does not fit the environment.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - gymnasium's own form

    def __init__(
        self,
        spec: CellSpec,
        connector: str,
        *,
        image_size: int,
        cameras: int = 1,
        scenario: str | None = None,
        truth: bool = False,
        ground_truth: bool = False,
        calibration: Calibration | None = None,
        ask: Ask | None = None,
        env: gymnasium.Env[Any, Any] | None = None,
    ) -> None:
        if spec.metres_per_unit is None:
            spec.require_contract()
        if ground_truth and spec.success is None:
            raise CellSpecError(f"cell {spec.name!r} does not say how success is known: add [success] from to its file")
        truth = truth or ground_truth
        if truth and spec.success == "pose" and calibration is None:
            raise CellSpecError(
                f"cell {spec.name!r} knows success by pose, but {connector!r} is not calibrated there; "
                f"run `lotj cell calibrate` for it first"
            )
        if truth and spec.success == "ask" and ask is None:
            raise CellSpecError(f"cell {spec.name!r} asks a person for success, but nobody is there to be asked")
        if len(spec.images) < cameras:
            raise CellSpecError(
                f"cell {spec.name!r} has {len(spec.images)} camera(s), the networks look at {cameras}: name more under "
                f"[observation] image, or begin a run that sees by fewer, `lotj collect --cameras {len(spec.images)}`"
            )
        self._cameras = spec.images[:cameras]
        self.config, self.connector, self.robot = spec, connector, spec.name
        self.calibration, self.image_size, self.scenario = calibration, image_size, scenario
        self._truth, self._ground_truth, self._ask = truth or ground_truth, ground_truth, ask
        self.env = env if env is not None else make_env(spec, connector)
        self.action_scale = np.full(3, spec.metres_per_unit)
        space = self.env.action_space
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise CellSpecError(f"{spec.env}: actions must be a flat Box, got {space}")
        if max(spec.components) >= space.shape[0]:
            raise CellSpecError(
                f"{spec.env}: [action] components {list(spec.components)} do not exist, its actions have "
                f"{space.shape[0]} components"
            )
        if not (np.all(space.low <= -1 + 1e-6) and np.all(space.high >= 1 - 1e-6)):
            raise CellSpecError(
                f"{spec.env}: actions must span [-1, 1], got {space}; wrap it with gymnasium.wrappers.RescaleAction"
            )
        self.action_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
        self._dim = space.shape[0]
        self._step = self._approach = 0
        self._own_ends: list[int] = []
        self._longest, self._was_ended = 0, False
        self.in_trial = True
        """Whether what comes is a step of a trial; others, on the way out or to a safe pose, are not judged."""
        self.asks = True
        """Whether the end of the trial is still to be asked about, where a person says what success is."""
        self.raw_images: tuple[NDArray[np.uint8], ...] = (np.zeros((0, 0, 3), np.uint8),) * cameras
        """Each camera's last picture as it came, for the watchdog."""
        self.raw_info: Mapping[str, Any] = {}
        """The environment's last info as it came."""
        shape = (image_size, cameras * image_size, 3)
        layout: dict[str, spaces.Space[Any]] = {"image": spaces.Box(0, 255, shape, np.uint8)}
        if spec.state:
            observed = {} if self.env.observation_space is None else self.env.observation_space.sample()
            size = sum(np.size(pick(observed, path, spec.env)) for path in spec.state)
            layout["state"] = spaces.Box(-np.inf, np.inf, (int(size),), np.float32)
        self.observation_space = spaces.Dict(layout)  # type: ignore[assignment]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Begin a trial; options go to the environment where its file says that it honours them."""
        super().reset(seed=seed)
        self._step = self._approach = 0
        self.asks = self.in_trial = True
        self._was_ended = False
        asked = ({} if self.scenario is None else {"scenario": self.scenario}) | (options or {})
        observation, info = self.env.reset(seed=seed, options=asked if self.config.scenarios else None)
        return self._observe(observation), self._info(observation, 0.0, dict(info), ended=False)

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Carry out one action (3,).

        Raises:
            CellSpecError: what the file names is not there, or the environment's own horizon counts the way to the
                start (which ``begin`` says, too).
        """
        full = np.full(self._dim, self.config.others, np.float32)
        full[list(self.config.components)] = action
        observation, reward, terminated, truncated, info = self.env.step(full)
        if self.in_trial:
            self._step += 1
            self._was_ended = bool(truncated)
            self._longest = max(self._longest, self._approach + self._step)
            if truncated and self._approach and self._step < self.config.horizon:
                self._refuse_own_horizon()
        ended = bool(terminated or truncated or self._step >= self.config.horizon)
        seen = self._info(observation, float(reward), dict(info), ended)
        success = self._ground_truth and bool(seen.get("privileged/success"))
        return self._observe(observation), float(success), success, ended and not success, seen

    def begin(self) -> None:
        """The trial begins here: steps that led to its start do not count."""
        self._approach, self._step = self._approach + self._step, 0
        self.asks = True
        if self._was_ended:
            raise self._own_horizon()

    def _refuse_own_horizon(self) -> None:
        """An environment that counts the way to the start leaves trials short. One may also end a trial for a reason of
        its own, such as a force: a horizon is what its limit says, or what ends four of them after as many steps where
        none was longer."""
        total = self._approach + self._step
        limit = None if self.env.spec is None else self.env.spec.max_episode_steps
        self._own_ends = [*self._own_ends, total][-4:]
        alike = self._own_ends == [total] * 4 and self._longest == total
        if alike or (limit is not None and total >= limit):
            raise self._own_horizon()

    def _own_horizon(self) -> CellSpecError:
        return CellSpecError(
            f"{self.config.env} ended the episode itself after {self._approach + self._step} steps, of which "
            f"{self._approach} led to the start of the trial. Give it a longer horizon of its own (under [kwargs], or "
            "its TimeLimit), such as 1000: [control] horizon ends the trials"
        )

    def render(self) -> Any:
        """The environment's own picture."""
        return self.env.render()

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def read(self, observation: Mapping[str, Any]) -> Reading:
        """What the robot feels, from an observation of the environment."""
        spec = self.config
        pose = np.asarray(pick(observation, spec.tcp_pose, spec.env), np.float64).ravel()
        if pose.size < 3:
            raise CellSpecError(f"{spec.env}: tcp_pose {spec.tcp_pose!r} has {pose.size} numbers, expected at least 3")
        felt = []
        for path in (spec.tcp_force, spec.tcp_torque):
            value = np.zeros(3) if path == NONE else np.asarray(pick(observation, path, spec.env), np.float64).ravel()
            if value.size != 3:
                raise CellSpecError(f"{spec.env}: {path!r} has {value.size} numbers, expected 3")
            felt.append(spec.force_sign * value)
        return Reading(pose[:3], felt[0], felt[1])

    def _observe(self, observation: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        spec = self.config
        self.raw_images = tuple(
            np.array(self.env.render() if name == "render" else pick(observation, name, spec.env))
            for name in self._cameras
        )
        squares = [
            to_square(raw, self.image_size, crop, name)
            for raw, crop, name in zip(self.raw_images, spec.crops, self._cameras)
        ]
        seen: dict[str, NDArray[Any]] = {"image": np.concatenate(squares, axis=1)}
        if spec.state:
            parts = [np.ravel(pick(observation, path, spec.env)) for path in spec.state]
            seen["state"] = np.concatenate(parts).astype(np.float32)
        return seen

    def _info(self, observation: Mapping[str, Any], reward: float, info: dict[str, Any], ended: bool) -> dict[str, Any]:
        spec, reading, self.raw_info = self.config, self.read(observation), info
        force = float(np.linalg.norm(reading.force))
        told: dict[str, Any] = {
            "connector": self.connector,
            "robot": self.robot,
            "dislodged": bool(_of_info(info, spec.dislodged, False)) if spec.dislodged else False,
            "force": force,
            "reading": reading,
            "tcp": reading.position.astype(np.float32),
        }
        if spec.tcp_force != NONE:
            told["wrist_force"] = reading.force.astype(np.float32)
        taken = _person(info)
        if taken is not None:
            told["executed_action"] = np.asarray(taken, np.float32)[list(spec.components)]
        if self._truth and spec.success is not None and self.in_trial:
            told["privileged/success"] = self._success(reading, reward, info, ended)
            told["privileged/force"] = force
            if self.calibration is not None:
                told["privileged/tip_in_socket"] = self.calibration.offset(reading.position).astype(np.float32)
        return told

    def ask_when_cut_off(self, info: dict[str, Any]) -> bool:
        """Ask a person, where a person says what success is, about a trial that the safety layer ended, and note it.

        Returns:
            Whether that is a success that pays and ends the trial.
        """
        if not (self._truth and self.config.success == "ask"):
            return False
        assert self._ask is not None
        success = self._ask(f"{self.connector}: was it fully inserted when the trial was cut off?")
        info["privileged/success"] = success
        return self._ground_truth and success

    def _success(self, reading: Reading, reward: float, info: Mapping[str, Any], ended: bool) -> bool:
        spec = self.config
        if spec.success == "reward":
            return reward > spec.success_above
        if spec.success == "ask":
            assert self._ask is not None
            asked, self.asks = ended and self.asks, self.asks and not ended
            return asked and self._ask(f"{self.connector}: is it fully inserted?")
        if spec.success == "pose":
            assert self.calibration is not None
            return self.calibration.inserted(reading.position)
        if ended and (spec.success or "").removeprefix("info/") not in info:  # mistyped, it would say no for ever
            raise CellSpecError(
                f"{spec.env}: [success] from is {spec.success!r}, but the info at the end of a trial has only "
                f"{', '.join(map(str, info)) or 'nothing'}"
            )
        return float(_of_info(info, spec.success or "", 0.0)) > spec.success_above


def make_env(spec: CellSpec, connector: str) -> gymnasium.Env[Any, Any]:
    """Import the module named in ``spec.env`` and make its environment.

    Raises:
        CellSpecError: the module or the environment does not exist, or it does not take the keywords.
    """
    module, colon, name = spec.env.partition(":")
    kwargs = dict(spec.kwargs)
    if spec.connector_argument is not None:
        kwargs[spec.connector_argument] = connector
    try:
        if colon:
            importlib.import_module(module)
        return gymnasium.make(name if colon else spec.env, disable_env_checker=True, **kwargs)
    except ImportError as error:
        raise CellSpecError(
            f"cell {spec.name!r}: env {spec.env!r} cannot be imported ({error}); install its package, or put its "
            "folder on PYTHONPATH"
        ) from error
    except (gymnasium.error.Error, TypeError) as error:
        raise CellSpecError(f"cell {spec.name!r}: env {spec.env!r} cannot be made: {error}") from error


SLICE = re.compile(r"^(.*)\[(\d*):(\d*)\]$")


def pick(observation: Any, path: str, env: str) -> Any:
    """What stands at ``a/b[0:3]`` of a nested observation; keys that contain slashes are found too.

    Raises:
        CellSpecError: names the part that is not there and lists what is.
    """
    match = SLICE.match(path)
    where, part = (match[1], slice(*(int(n) if n else None for n in match.groups()[1:]))) if match else (path, None)
    value, rest = observation, where
    while rest:
        if isinstance(value, Mapping) and rest in value:
            value, rest = value[rest], ""
            break
        key, _, rest = rest.partition("/")
        if not isinstance(value, Mapping) or key not in value:
            there = ", ".join(map(str, value)) if isinstance(value, Mapping) else f"an array {np.shape(value)}"
            raise CellSpecError(f"{env}: no {path!r} in its observations; at {key!r} there is only {there}")
        value = value[key]
    return value if part is None else np.asarray(value)[part]


def to_square(
    image: NDArray[np.uint8], size: int, crop: tuple[int, int, int, int] | None, where: str
) -> NDArray[np.uint8]:
    """Crop (top, left, height, width; the centre square by default), then average down or interpolate to a square.

    Raises:
        CellSpecError: it is not a picture (H, W, 3) uint8, or the crop lies outside.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        hint = "; it looks like channels first, CHW" if image.ndim == 3 and image.shape[0] == 3 else ""
        raise CellSpecError(f"image {where!r} must be (H, W, 3) uint8, got {image.dtype} {image.shape}{hint}")
    height, width = image.shape[:2]
    if crop is None:
        side = min(height, width)
        crop = ((height - side) // 2, (width - side) // 2, side, side)
    top, left, rows, columns = crop
    if top < 0 or left < 0 or top + rows > height or left + columns > width:
        raise CellSpecError(f"crop {list(crop)} lies outside of image {where!r}, which is {height} x {width}")
    part = image[top : top + rows, left : left + columns]
    if part.shape[:2] == (size, size):
        return np.ascontiguousarray(part)
    how = Image.Resampling.BOX if size <= min(rows, columns) else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(part).resize((size, size), how))


def _person(info: Mapping[str, Any]) -> Any | None:
    """The action of a person who took over, in the forms of SERL and of LeRobot."""
    if info.get("intervene_action") is not None:
        return info["intervene_action"]
    if info.get("is_intervention"):
        return info.get("teleop_action")
    return None


def _of_info(info: Mapping[str, Any], path: str, default: Any) -> Any:
    return info.get(path.removeprefix("info/"), default)


def cell_folder(path: Path) -> Path:
    """Where a cell's calibrations are kept: beside its file."""
    return path.with_suffix("")


def left_in(path: Path) -> Path:
    """The file that says that a plug was left in this cell's socket (``SafeCell.stay``)."""
    return cell_folder(path) / "left-in.json"
