"""Collecting on one's own cell, as the paper did (Sec. IV): a pose captured once, then a scripted expert with noise."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from lotj.cells.adapter import Ask, CellEnv, cell_folder, left_in, make_env
from lotj.cells.calibration import Calibration, load_calibration
from lotj.cells.safety import CellStoppedError, SafeCell
from lotj.cells.spec import CellSpec, CellSpecError, load_cell
from lotj.data.schema import DISLODGED
from lotj.data.store import TrajectoryStore
from lotj.rollout import policy_rng, rollout
from lotj.seeds import stream_seed
from lotj.sim.expert import scripted_action
from lotj.types import Observation, Policy

READINGS = 5
SETTLING = 30
"""Steps that a robot may take to come to rest."""
START = 0.01
"""m beside the socket that trials begin at most."""
ARRIVED = 0.005
"""m from a start that count as there: compliant arms sag."""
STALLED = 3
"""Steps without a tenth of a millimetre gained after which an arm comes no nearer; a server that watches for an arm
that does not follow (``serl_http``) waits for five."""
STEADY = 5e-4
"""m: repeated readings of a pose that is to be kept may lie this far apart."""


@dataclass(frozen=True)
class CellCollectConfig:
    """What to collect on an own cell."""

    connectors: tuple[str, ...]
    """Any names; the one after the other is asked to be put into the clamp."""
    trajectories: int = 60
    """Of each connector, discarded ones included: the budget."""
    noise_probability: float = 0.2
    """Chance of a random action at each step (Sec. IV)."""
    wrong_place: float = 0.15
    """Share of presses 3-15 mm beside the socket, which a reward needs to see. Labels stay true."""
    slow: float = 0.15
    """Share of slow insertions."""
    image_size: int = 64
    """px."""
    cameras: int = 1
    """How many of the cell's cameras are recorded, side by side."""
    seed: int = 0
    """Of all draws."""

    def __post_init__(self) -> None:
        if not self.connectors:
            raise ValueError("CellCollectConfig.connectors is empty; name what is to be collected")
        if self.trajectories < 1:
            raise ValueError(f"CellCollectConfig.trajectories must be at least 1, got {self.trajectories}")
        if not 0 <= self.noise_probability <= 1:
            raise ValueError(f"CellCollectConfig.noise_probability must lie in 0..1, got {self.noise_probability}")
        if self.slow < 0 or self.wrong_place < 0 or self.slow + self.wrong_place > 1:
            raise ValueError(f"shares slow={self.slow} and wrong_place={self.wrong_place} must be >= 0 and sum to <= 1")


class CellCollected(NamedTuple):
    """What came of it."""

    trajectories: int
    successes: int
    discarded: int


class PoseExpert:
    """Move towards the captured pose's axis until within 1 mm, then down; noisy, or slow, or beside, as it is told."""

    def __init__(self, cell: SafeCell, calibration: Calibration, noise: float, speed: float, beside: float) -> None:
        self._cell, self._calibration = cell, calibration
        self._noise, self._speed, self._beside = noise, speed, beside
        self._aim: NDArray[np.float64] | None = None

    def reset(self) -> None:
        """Forget the last trial's wrong place."""
        self._aim = None

    def act(self, observation: Observation, rng: np.random.Generator, explore: bool = False) -> NDArray[np.float32]:
        """(3,) the next action, from the measured pose."""
        if self._aim is None:
            angle = rng.uniform(0, 2 * np.pi)
            self._aim = self._beside * np.array([np.cos(angle), np.sin(angle)])
        if rng.random() < self._noise:
            return rng.uniform(-1, 1, 3).astype(np.float32)
        offset, depth = self._calibration.offset(self._cell.reading.position), self._calibration.depth
        action = scripted_action(offset, np.eye(3), depth, self._aim, self._cell.action_scale)
        return (action * self._speed).astype(np.float32)


class StartAbove(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Trials begin within 10 mm above the calibrated socket, 6-12 mm over its mouth (Sec. IV), or close by."""

    def __init__(self, cell: SafeCell, calibration: Calibration, close: bool = False) -> None:
        super().__init__(cell)
        self._safe, self._calibration, self._close = cell, calibration, close

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the cell, then move to a start drawn from the seed.

        Raises:
            CellStoppedError: a limit ended the way, or the start was not reached.
        """
        observation, info = self._safe.reset(seed=seed, options=options)
        self._safe.cell.asks = False
        rng = np.random.default_rng([0 if seed is None else seed, 2])
        lateral = rng.uniform(-0.003, 0.003, 2) if self._close else rng.uniform(-START, START, 2)
        height = rng.uniform(0.002, 0.006) if self._close else rng.uniform(0.006, 0.012)
        mouth = np.array(self._calibration.position) + (0, 0, self._calibration.depth)
        goal = mouth + (*lateral, height)
        # Across first and then down, so that nothing is touched on the way.
        for across in (True, False):
            best, waited, left = np.inf, 0, 0.0
            while waited < STALLED:
                error = goal - self._safe.reading.position
                left = float(np.linalg.norm(error[:2] if across else error))
                if left < (2e-3 if across else 1e-3):
                    break
                best, waited = (left, 0) if left < best - 1e-4 else (best, waited + 1)
                if across:
                    error[2] = max(0.0, mouth[2] + 0.006 - self._safe.reading.position[2])
                action = np.clip(error / self._safe.action_scale, -1, 1).astype(np.float32)
                observation, _, _, _, info = self._safe.step(action)
                _refuse_cut_off(self._safe, "on the way to the start of the trial")
            if left > ARRIVED:
                break
        here, felt = self._safe.reading.position, float(np.linalg.norm(self._safe.reading.force))
        away = float(np.linalg.norm(goal - here))
        if away > ARRIVED or here[2] < mouth[2] or felt > self._safe.config.contact:
            raise CellStoppedError(
                f"{self._safe.robot} did not reach the start of the trial at {np.round(1e3 * goal, 1)} mm but stands "
                f"{1e3 * away:.1f} mm away and feels {felt:.1f} N; is it in the workspace, and "
                "nothing in the way? Calibrate anew if the socket was moved"
            )
        self._safe.cell.begin()
        return observation, info


def calibrate(
    cell: SafeCell,
    connector: str,
    depth: float,
    jogs: Iterable[tuple[float, float, float]],
    confirm: Ask,
) -> Calibration:
    """Capture the pose at full insertion.

    Args:
        cell: just opened.
        connector: its name.
        depth: m from the socket's mouth to full insertion.
        jogs: displacements (m) that a person asks for until the plug is in; ends when they say so.
        confirm: asks the person whether it is fully inserted.

    Raises:
        CellStoppedError: a limit was exceeded.
        ValueError: the pose is not steady, outside of the workspace, or the person says no.
    """
    cell.reset()
    for jog in jogs:
        _jog(cell, np.asarray(jog, np.float64))
    positions: list[NDArray[np.float64]] = []
    spread = np.inf
    for _ in range(SETTLING):
        cell.step(np.zeros(3, np.float32))
        _refuse_cut_off(cell, "while it was to rest; nothing was calibrated")
        positions = [*positions, cell.reading.position.copy()][-READINGS:]
        spread = float(np.ptp(np.array(positions), axis=0).max())
        if len(positions) == READINGS and spread <= STEADY:
            break
    if spread > STEADY:
        raise ValueError(
            f"the pose of {connector!r} is not steady: {READINGS} readings lie {1e3 * spread:.2f} mm apart (limit "
            f"{1e3 * STEADY:g}). Wait until the robot rests, then calibrate again"
        )
    position = np.mean(positions, axis=0)
    low, high = np.array(cell.config.workspace_low), np.array(cell.config.workspace_high)
    starts = position + np.array([(-START, -START, 0), (START, START, depth + 0.012)])
    if not (np.all(position >= low) and np.all(starts >= low) and np.all(starts <= high)):
        raise ValueError(
            f"full insertion of {connector!r} at {np.round(1e3 * position, 1)} mm, or a start {1e3 * START:g} mm "
            "beside and 12 mm over its mouth, lies outside of the workspace; widen [limits] workspace_low and "
            "workspace_high, or move the socket"
        )
    if not confirm(f"{connector}: is the plug fully inserted now?"):
        raise ValueError(f"{connector!r} was not calibrated: it was not fully inserted; jog on, then calibrate again")
    return Calibration(connector, tuple(float(v) for v in position), depth, spread)  # type: ignore[arg-type]


def _jog(cell: SafeCell, displacement: NDArray[np.float64]) -> None:
    """Move by a displacement (3,) m in steps that the cell allows."""
    steps = max(1, int(np.ceil(np.abs(displacement / cell.action_scale).max())))
    for _ in range(steps):
        cell.step((displacement / steps / cell.action_scale).astype(np.float32))
        _refuse_cut_off(cell, "while it was moved; nothing was calibrated")


def _refuse_cut_off(cell: SafeCell, when: str) -> None:
    """A limit that ended a trial ends whatever else moves the robot, too."""
    if cell.cut_off:
        raise CellStoppedError(
            f"{cell.robot} backed off from {cell.cut_off} {when}. Look at plug and socket, then repeat"
        )


def collect_on_cell(
    config: CellCollectConfig,
    cell_file: Path,
    path: Path,
    *,
    ask: Ask | None = None,
    ready: Callable[[str], None] = lambda connector: None,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
    stop_file: Path | None = None,
) -> CellCollected:
    """Fill the store at ``path`` from an own cell; a collection that was killed continues.

    Args:
        config: what to collect.
        cell_file: the cell.
        path: the store, made where it does not exist.
        ask: asks a person whether a trial without success dislodged the plug, and about success where the cell's file
            says so; None never asks.
        ready: called before each connector, so that a person can put it into the clamp.
        progress: called with (trajectories done, in all, a note).
        stop_file: the robot stops as soon as it exists.

    Raises:
        CellSpecError: no success, no calibration and no expert.
        CellStoppedError: the safety layer stopped the robot; the same call continues.
    """
    spec = load_cell(cell_file)
    total = len(config.connectors) * config.trajectories
    path.parent.mkdir(parents=True, exist_ok=True)
    with TrajectoryStore(path, mode="a") as store:
        _claim(store, spec, config)
        finished = {*zip(store.index.connector.tolist(), store.index.seed.tolist())}
        finished |= {(k.split("/")[1], int(k.split("/")[2])) for k in store.counts if k.startswith(f"{DISLODGED}/")}
        done = 0
        for connector in config.connectors:
            seeds = [stream_seed(config.seed, connector, str(n)) % 2**31 for n in range(config.trajectories)]
            waiting = [seed for seed in seeds if (connector, seed) not in finished]
            done += len(seeds) - len(waiting)
            progress(done, total, connector)
            if not waiting:
                continue
            ready(connector)
            with _opened(config, spec, cell_file, connector, ask, stop_file) as (cell, calibration):
                for seed in waiting:
                    trajectory = _roll(config, spec, cell, calibration, seed)
                    if _discard(trajectory, spec, ask):
                        store.count(f"{DISLODGED}/{connector}/{seed}")
                    else:
                        store.append(trajectory)
                    done += 1
                    progress(done, total, connector)
        lost = sum(key.startswith(f"{DISLODGED}/") for key in store.counts)
        return CellCollected(len(store), int(store.index.terminated.sum()), lost)


class _opened:
    """The cell and the connector's calibration, for one connector."""

    def __init__(
        self,
        config: CellCollectConfig,
        spec: CellSpec,
        cell_file: Path,
        connector: str,
        ask: Ask | None,
        stop_file: Path | None,
    ) -> None:
        self.calibration = load_calibration(cell_folder(cell_file), connector)
        if spec.expert is None and self.calibration is None:
            raise CellSpecError(
                f"{connector!r} is not calibrated on cell {spec.name!r}, so the scripted expert does not know its way: "
                f"run `lotj cell calibrate --cell {cell_file} --connector {connector}`, or name an [expert] in the file"
            )
        self.safe = SafeCell(
            CellEnv(
                spec,
                connector,
                image_size=config.image_size,
                cameras=config.cameras,
                ground_truth=True,
                calibration=self.calibration,
                ask=ask,
                env=make_env(spec, connector),
            ),
            stop_file,
            left_in=left_in(cell_file),
        )

    def __enter__(self) -> tuple[SafeCell, Calibration | None]:
        return self.safe.__enter__(), self.calibration

    def __exit__(self, *error: Any) -> None:
        self.safe.__exit__(*error)


def _roll(config: CellCollectConfig, spec: CellSpec, cell: SafeCell, calibration: Calibration | None, seed: int) -> Any:
    """One trajectory; who acts in it is drawn from its seed."""
    rng = policy_rng(seed)
    draw = rng.random()
    slow, beside = draw < config.slow, config.slow <= draw < config.slow + config.wrong_place
    source = "slow" if slow else "wrong-place" if beside else "expert"
    noise = config.noise_probability / (2 if slow else 1)
    speed = rng.uniform(0.2, 0.5) if slow else 1.0
    away = rng.uniform(0.003, 0.015) if beside else 0.0
    if spec.expert is not None:
        policy = load_expert(spec)(cell.cell, noise=noise, speed=speed, beside=away)
        options = {"scenario": "I"} if spec.scenarios else None
        return rollout(cell, policy, rng, seed=seed, options=options, source=source)
    assert calibration is not None
    env = StartAbove(cell, calibration, close=slow)
    return rollout(env, PoseExpert(cell, calibration, noise, speed, away), rng, seed=seed, source=source)


def load_expert(spec: CellSpec) -> Callable[..., Policy]:
    """The class or function that the file names under ``expert``: ``module:name``, called with (cell, noise, speed,
    beside).

    Raises:
        CellSpecError: it does not exist.
    """
    module, colon, name = (spec.expert or "").partition(":")
    try:
        found: Callable[..., Policy] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise CellSpecError(
            f"cell {spec.name!r}: expert {spec.expert!r} cannot be imported ({error}); expected module:name"
        ) from error
    if not colon or not callable(found):
        raise CellSpecError(f"cell {spec.name!r}: expert {spec.expert!r} must be module:name of something callable")
    return found


def _discard(trajectory: Any, spec: CellSpec, ask: Ask | None) -> bool:
    """Whether the plug was dislodged: the cell says so, or else a person."""
    if spec.dislodged is not None:
        return bool(np.any(trajectory.privileged["dislodged"]))
    if trajectory.terminated or ask is None:
        return False
    return ask(f"{trajectory.connector}: did the plug slip in the gripper? Then the trial is discarded")


def _claim(store: TrajectoryStore, spec: CellSpec, config: CellCollectConfig) -> None:
    """Note what the actions mean, or refuse a store in which they mean something else; note what is to be expected."""
    scale = [spec.metres_per_unit] * 3
    held = store.metadata.get("action_scale")
    if held is not None and held != scale:
        raise ValueError(
            f"{store.path} holds actions of {held} m for 1, cell {spec.name!r} moves {scale}: name another run folder"
        )
    shape = store.shape if len(store) else None
    if shape is not None and (shape.height, shape.cameras) != (config.image_size, config.cameras):
        raise ValueError(
            f"{store.path} holds images of {shape.height} px and {shape.cameras} camera(s), this collection would add "
            f"{config.image_size} px and {config.cameras}: give it the same, or name another run folder"
        )
    if held is not None or not len(store):  # of trajectories that do not say theirs, nobody knows it
        store.set_metadata("action_scale", scale)
    store.set_metadata("robots", 1)
    store.set_metadata("horizon", max(spec.horizon, int(store.metadata.get("horizon", 0))))
