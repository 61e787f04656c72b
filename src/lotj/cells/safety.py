"""What stands between any policy and a cell. No action reaches the robot but through ``SafeCell.step``.

Each step: stop if asked to; refuse what is not finite; shorten the step; keep the target in the workspace box; look at
force and torque before and after, and back off above their limits; count the contact; look whether the camera still
sees. After each trial the plug is pulled out along the axis before anything else moves.
"""

from __future__ import annotations

import json
import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray

from lotj.cells.adapter import CellEnv, Reading
from lotj.cells.freshness import Freshness
from lotj.cells.spec import CellSpecError
from lotj.files import write_json
from lotj.types import StoppedError


class CellStoppedError(StoppedError):
    """The robot was stopped and waits in a safe pose; what was practised is saved, and repeating continues."""


class JammedError(CellStoppedError):
    """The plug could not be pulled out."""


class SafeCell(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A cell that holds any policy to its declared limits.

    ``info["safety"]`` says why a trial was cut off, where it was. ``info["contact_impulse"]`` is the contact of the
    trial so far in N s.

    Args:
        cell: the cell; its file must declare the whole contract.
        stop_file: the robot stops as soon as this file exists.
        ledger: where the contact of the whole practice is kept, so that a restart does not forget it.
        left_in: the file that says that the plug was left in the socket (``stay``).

    Raises:
        CellSpecError: a limit is not declared.
    """

    _entered: ClassVar[list[SafeCell]] = []
    """Cells of this process that are open now: one signal stops all of them."""

    def __init__(
        self,
        cell: CellEnv,
        stop_file: Path | None = None,
        ledger: Path | None = None,
        left_in: Path | None = None,
    ) -> None:
        cell.config.require_contract()
        super().__init__(cell)
        self.cell, self.config = cell, cell.config
        self._stop_file, self._ledger, self._left_in = stop_file, ledger, left_in
        self._low, self._high = np.array(self.config.workspace_low), np.array(self.config.workspace_high)
        assert self.config.metres_per_unit is not None and self.config.rate_hz is not None
        self._metres, self._period = self.config.metres_per_unit, 1 / self.config.rate_hz
        self._reading: Reading | None = None
        self._fresh = Freshness(self.config.stale_images)
        self._trial_impulse = 0.0
        self._practice_impulse = 0.0 if ledger is None or not ledger.exists() else float(_load(ledger)["impulse"])
        self._asked_to_stop = False
        self._moved = False
        self.cut_off = ""
        """Why the present trial was cut off; empty where it was not."""
        self._stays = False
        self._handlers: dict[int, Any] = {}

    @property
    def reading(self) -> Reading:
        """What the robot felt last."""
        assert self._reading is not None
        return self._reading

    @property
    def action_scale(self) -> NDArray[np.float64]:
        """(3,) m for an action of 1."""
        return self.cell.action_scale

    @property
    def connector(self) -> str:
        """What is in the clamp."""
        return self.cell.connector

    @property
    def robot(self) -> str:
        """The cell's name."""
        return self.cell.robot

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Pull out, let the environment go to its start, and look whether all is well there.

        Raises:
            CellStoppedError: somebody asked for it, or the robot starts outside its limits.
            JammedError: the plug could not be pulled out.
        """
        self._obey()
        if self._left_in is not None and self._left_in.exists():
            raise CellStoppedError(
                f"{self.robot}: `lotj insert` left a plug in the socket and in the gripper, so nothing moves. Open the "
                f"gripper and raise the tool, or pull the plug out by hand; then delete {self._left_in} and repeat"
            )
        if self._moved and self.config.retract and self._reading is not None:
            self.extract()
        self._keep_ledger()
        self._trial_impulse = 0.0
        self._fresh = Freshness(self.config.stale_images)
        self._reading = None  # nothing moves, on the way out either, unless the robot is where it should be
        with self._answering("reset"):
            observation, info = self.env.reset(seed=seed, options=options)
        reading = self._checked(info["reading"])
        position = reading.position
        if not (np.all(position >= self._low - 1e-3) and np.all(position <= self._high + 1e-3)):
            raise CellStoppedError(
                f"{self.robot} starts at {_mm(position)} mm, outside of its workspace {_mm(self._low)} to "
                f"{_mm(self._high)} mm; correct its reset pose or [limits] in its file"
            )
        excess = self._excess(reading)
        if excess:
            raise CellStoppedError(
                f"{self.robot} feels {excess} before it has moved; is the plug jammed, or the sensor not zeroed?"
            )
        self._reading = reading
        self._moved = self._stays = False
        self.cut_off = ""
        return observation, info

    def step(self, action: NDArray[np.float32]) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Carry out what of an action is within the limits.

        Raises:
            CellStoppedError: somebody asked for it, a sensor or the camera failed, or the budget is spent.
            ValueError: the action is not three finite numbers.
        """
        self._obey()
        if self._reading is None:
            raise CellStoppedError("step before reset: the robot's pose is not known; call reset first")
        allowed = self.limit(action, self._reading)
        self._moved, self._stays = True, False
        observation, reward, terminated, truncated, info = self._send(allowed, in_trial=True)
        reading = self._reading
        self._count_contact(reading)
        info["contact_impulse"], info["sent_action"] = self._trial_impulse, allowed
        if not self._fresh.saw(self.cell.raw_images, reading.position):
            self._stop(
                f"{self.robot}: a camera gave {self.config.stale_images} identical pictures in a row while the tool "
                "moved; it is frozen. Restart it, then repeat"
            )
        why = self._excess(reading)
        if not why and self._trial_impulse > self.config.trial_impulse:
            why = f"{self._trial_impulse:.0f} N s of contact in this trial (limit {self.config.trial_impulse:g})"
        if why:
            info["safety"] = self.cut_off = why
            self._back_off()
            if not (terminated or truncated) and self.cell.ask_when_cut_off(info):
                reward, terminated = 1.0, True
            truncated = not terminated
        if self._practice_impulse > self.config.practice_impulse:
            self._keep_ledger()
            self._stop(
                f"{self.robot}: {self._practice_impulse:.0f} N s of contact in this practice, the budget is "
                f"{self.config.practice_impulse:g}. Look at plug and socket; raise [limits] practice_impulse to go on"
            )
        return observation, reward, terminated, truncated, info

    def limit(self, action: Any, reading: Reading) -> NDArray[np.float32]:
        """The action (3,) that may be carried out in place of this one, at this pose."""
        wanted = np.asarray(action, np.float64)
        if wanted.shape != (3,) or not np.isfinite(wanted).all():
            raise ValueError(f"a cell's action must be three finite numbers, got {action!r}")
        here = reading.position
        # An arm that has crept out of the box is led back into it.
        metres = np.clip(here + np.clip(wanted, -1, 1) * self._metres, self._low, self._high) - here
        metres = np.clip(metres, -self._metres, self._metres)
        length = float(np.linalg.norm(metres))
        if length > self.config.longest_step:
            metres *= self.config.longest_step / length
        if self._excess(reading):
            metres = np.array([0.0, 0.0, max(0.0, metres[2])])
        return (metres / self._metres).astype(np.float32)

    def extract(self) -> None:
        """Pull the plug out along +z, straight.

        Raises:
            JammedError: it does not come, or not without more than the force limit.
        """
        assert self._reading is not None
        start = float(self._reading.position[2])
        goal = min(start + self.config.retract_height, float(self._high[2]))
        best, without_progress, above = start, 0, 0
        for _ in range(self.config.retract_steps):
            if self._reading.position[2] >= goal - 5e-4:
                return
            self._obey()
            self._send(self._up(goal))
            height = float(self._reading.position[2])
            without_progress = 0 if height > best + 1e-4 else without_progress + 1
            above = above + 1 if self._excess(self.reading) else 0
            best = max(best, height)
            if without_progress >= 5 or above >= 2:
                break
        if self._reading.position[2] >= goal - 2e-3 and above < 2:
            return
        raise JammedError(
            f"{self.robot} pulled, but the plug came only {1e3 * (best - start):.1f} of {1e3 * (goal - start):.1f} mm "
            f"(force {np.linalg.norm(self._reading.force):.1f} N). Free it by hand, then repeat the same command"
        )

    def stay(self) -> bool:
        """The plug is in: leave the tool where it is when the cell is closed, unless it moves again before.

        It is told to stay where it is first, so that it does not go on pressing. Nothing moves this cell afterwards
        until a person has deleted ``left_in``: the plug is still held, and no trial can begin with it in the socket.

        Returns:
            False where that cannot be: the robot has backed off from its last step, or is above a limit.

        Raises:
            CellStoppedError: somebody asked for a stop.
        """
        self._obey()
        if not self.cut_off:
            self._send(np.zeros(3, np.float32))
            self._stays = not self._excess(self.reading)
        return self._stays

    def safe_pose(self) -> None:
        """Go straight up to the top of the workspace, as far as the robot obeys and nothing holds it back with more
        than the force limit; never raises."""
        assert self.config.force is not None
        with suppress(Exception):
            still = 0
            steps = math.ceil((self._high[2] - self._low[2]) / min(self._metres, self.config.longest_step))
            for _ in range(steps + self.config.retract_steps):
                if self._reading is None or self._reading.position[2] >= self._high[2] - 5e-4:
                    return
                if self._reading.force[2] < -self.config.force:
                    return
                before = float(self._reading.position[2])
                self._send(self._up(float(self._high[2])))
                # Once may be the first step after one that raised: what was felt last is of before that.
                still = still + 1 if self._reading.position[2] <= before + 1e-5 else 0
                if still >= 2:
                    return

    def __enter__(self) -> SafeCell:
        """Inside, Ctrl-C and SIGTERM end the trial in a safe pose, a second Ctrl-C at once."""

        def asked(number: int, frame: FrameType | None) -> None:
            if self._asked_to_stop:
                raise KeyboardInterrupt
            for cell in SafeCell._entered:  # whichever of them is moving
                cell._asked_to_stop = True

        SafeCell._entered.append(self)
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: Any) -> Literal[False]:
        """Leave the robot in a safe pose whatever happened, and the signals as they were."""
        self._stays = self._stays and error[0] is None and not self._asked_to_stop
        SafeCell._entered.remove(self)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
        self.close()
        if self._asked_to_stop and error[0] is None:
            raise KeyboardInterrupt
        return False

    def close(self) -> None:
        """Go to a safe pose, unless the plug shall stay in, and close the cell."""
        if not self._stays:
            self.safe_pose()
        elif self._left_in is not None:
            self._left_in.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._left_in, {"connector": self.connector, "tcp": self.reading.position.tolist()})
        self._keep_ledger()
        super().close()

    def _send(self, action: NDArray[np.float32], in_trial: bool = False) -> Any:
        """One step of the cell."""
        self.cell.in_trial = in_trial
        with self._answering("carry out a step"):
            result = self.env.step(action)
        self._reading = self._checked(result[4]["reading"])
        return result

    @contextmanager
    def _answering(self, what: str) -> Iterator[None]:
        """A robot that does not answer is a stop."""
        try:
            yield
        except CellSpecError:
            raise
        except (OSError, RuntimeError, ValueError) as error:
            raise CellStoppedError(f"{self.robot} did not {what}: {error}") from error

    def _back_off(self) -> None:
        """One step straight up."""
        self._send(self._up(float(self._high[2])))

    def _up(self, goal: float) -> NDArray[np.float32]:
        """The action (3,) straight up towards a height in m, no longer than a step and not out of the box."""
        longest = min(self._metres, self.config.longest_step)
        metres = np.clip(min(goal, float(self._high[2])) - self.reading.position[2], 0, longest)
        return np.array([0.0, 0.0, metres / self._metres], np.float32)

    def _obey(self) -> None:
        if self._asked_to_stop:
            self.safe_pose()
            raise KeyboardInterrupt
        if self._stop_file is not None and self._stop_file.exists():
            self._stop(f"{self.robot} stopped because {self._stop_file} exists; delete it and repeat to go on")

    def _stop(self, why: str) -> None:
        self.safe_pose()
        raise CellStoppedError(why)

    def _checked(self, reading: Reading) -> Reading:
        for name, value in zip(("pose", "force", "torque"), reading):
            if not np.isfinite(value).all():
                raise CellStoppedError(f"{self.robot}: the {name} is {value}, not finite; its sensor or driver failed")
        return reading

    def _excess(self, reading: Reading | None) -> str:
        """What is above its limit, in words; empty where nothing is."""
        assert reading is not None and self.config.force is not None and self.config.torque is not None
        for name, value, limit, unit in (
            ("a force of", reading.force, self.config.force, "N"),
            ("a torque of", reading.torque, self.config.torque, "N m"),
        ):
            size = float(np.linalg.norm(value))
            if size > limit:
                return f"{name} {size:.2f} {unit} (limit {limit:g})"
        return ""

    def _count_contact(self, reading: Reading | None) -> None:
        assert reading is not None
        force = float(np.linalg.norm(reading.force))
        if force > self.config.contact:
            self._trial_impulse += force * self._period
            self._practice_impulse += force * self._period

    def _keep_ledger(self) -> None:
        if self._ledger is not None and math.isfinite(self.config.practice_impulse):
            self._ledger.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._ledger, {"impulse": self._practice_impulse})


def _load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _mm(position: NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{1e3 * value:.1f}" for value in position) + ")"
