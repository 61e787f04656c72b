"""Our simulator behind the verbs of SERL's robot server (`lotj.cells.mock_server` puts them on HTTP).

The verbs, their fields and what they mean are those of ``serl_robot_infra/robot_servers/franka_server.py`` (HIL-SERL,
Luo et al. 2024). What differs from a robot: time passes only while a pose is sent, one control period (0.1 s) a pose;
the arm stays upright, so that of a rotation only the turn about the vertical is carried out; and the hand never lets
go of the plug, whatever its gripper is told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from lotj.sim.env import InsertionEnv
from lotj.sim.robot import TOOL_TO_TIP

Body = Mapping[str, Any]
Verb = Callable[[Body], "dict[str, Any] | str"]

TCP_IN_TOOL = np.diag([-1.0, 1.0, -1.0])
"""Orientation: SERL's tool looks down along its z, and stands at (1, 0, 0, 0) where our tool has no yaw."""
JOINT_RESET_TIP = (0.6, 0.0, 0.15)
"""m: where the tip is after a joint reset, clear of any socket."""
CAMERAS = ("wrist_1", "wrist_2", "overview")
SCENARIOS = ("I", "II", "mixed")


class BadRequestError(ValueError):
    """A body that a verb cannot take; says what was expected and what came."""


class MockRobot:
    """One simulated robot. All calls must come from one thread, because its graphics context belongs to it.

    Args:
        connector: in the clamp and the hand.
        robot: ``sawyer-a`` or ``sawyer-b``.
        scenario: where trials start that do not say otherwise.
        image_size: H = W in px of the wrist's cameras.
    """

    def __init__(
        self, connector: str = "usb-a", robot: str = "sawyer-a", scenario: str = "I", image_size: int = 128
    ) -> None:
        self._settings: dict[str, Any] = {"robot": robot, "scenario": scenario, "image_size": image_size, "cameras": 2}
        self._settings["yaw"] = True
        self.refuses_motion = False
        """A pose is answered, and nothing moves: an arm in its error state."""
        self.sim = self._make(connector)
        self._gripper = 0.0
        self._compliant = True
        self._trial({"seed": 0})

    def verbs(self) -> dict[str, Verb]:
        """What the server answers, by name."""
        state = {
            "getpos": ("pose",),
            "getvel": ("vel",),
            "getforce": ("force",),
            "gettorque": ("torque",),
            "getq": ("q",),
            "getdq": ("dq",),
            "getjacobian": ("jacobian",),
            "getstate": ("pose", "vel", "force", "torque", "q", "dq", "jacobian", "gripper_pos"),
        }
        reading = {verb: self._reader(names) for verb, names in state.items()}
        return reading | {
            "pose": self._pose,
            "clearerr": lambda body: "Clear",
            "jointreset": self._joint_reset,
            "startimp": lambda body: self._impedance(True),
            "stopimp": lambda body: self._impedance(False),
            "update_param": lambda body: "Updated compliance parameters",
            "activate_gripper": lambda body: "Activated",
            "reset_gripper": lambda body: self._grip(0.0, "Reset"),
            "open_gripper": lambda body: self._grip(1.0, "Opened"),
            "close_gripper": lambda body: self._grip(0.0, "Closed"),
            "close_gripper_slow": lambda body: self._grip(0.0, "Closed"),
            "move_gripper": self._move_gripper,
            "get_gripper": lambda body: {"gripper": self._gripper},
            "mock/reset": self._trial,
            "mock/truth": lambda body: self.truth(),
        }

    def state(self) -> dict[str, Any]:
        """What ``/getstate`` tells: ``pose`` (7,) m and quaternion x, y, z, w; ``vel`` (6,) m/s and rad/s; ``force``
        (3,) N and ``torque`` (3,) N m of the plug on the fingers, in the tool's frame; ``q`` (7,) rad, ``dq`` (7,)
        rad/s, ``jacobian`` (6, 7); ``gripper_pos`` 0 (closed) .. 1."""
        sim = self.sim
        rotation, jacobian = self._rotation(), np.zeros((6, sim.model.nv))
        mujoco.mj_jacSite(sim.model, sim.data, jacobian[:3], jacobian[3:], sim.model.site("tool").id)
        wrench, rates = sim.wrench, sim.data.qvel[:7]
        return {
            "pose": [*self._position(), *Rotation.from_matrix(rotation).as_quat()],
            "vel": jacobian[:, :7] @ rates,
            "force": rotation.T @ wrench[:3],
            "torque": rotation.T @ wrench[3:],
            "q": sim.data.qpos[:7].copy(),
            "dq": rates.copy(),
            "jacobian": jacobian[:, :7],
            "gripper_pos": self._gripper,
        }

    def truth(self) -> dict[str, Any]:
        """Ground truth, for tests, scripted collection and evaluation: what no robot can tell."""
        sim = self.sim
        return {
            "connector": sim.connector.name,
            "success": sim.success,
            "dislodged": self._dislodged,
            "tip_in_socket": sim.tip_in_socket,
            "socket_rotation": sim.data.xmat[sim.model.body("socket").id].reshape(3, 3).copy(),
            "insertion_depth": sim.connector.insertion_depth,
            "force": self._force,
        }

    def image(self, camera: str) -> NDArray[np.uint8]:
        """(H, W, 3) of a wrist camera, as of the last motion, or of ``overview``.

        Raises:
            BadRequestError: there is no such camera.
        """
        if camera not in CAMERAS:
            raise BadRequestError(f"no camera {camera!r}; there are {', '.join(CAMERAS)}")
        if camera == "overview":
            return self.sim.render()
        return np.split(self._image, len(self.sim.cameras), axis=1)[CAMERAS.index(camera)]

    def close(self) -> None:
        """Free the graphics contexts."""
        self.sim.close()

    def _make(self, connector: str) -> InsertionEnv:
        return InsertionEnv(connector, **self._settings)

    def _trial(self, body: Body) -> dict[str, Any]:
        """Begin a trial: another socket place, grasp and light; ``connector`` puts another one into the clamp."""
        seed, scenario, connector = (body.get(name) for name in ("seed", "scenario", "connector"))
        unknown = set(body) - {"seed", "scenario", "connector", "offset"}
        if unknown:
            raise BadRequestError(f"/mock/reset takes seed, scenario, connector and offset, got {sorted(unknown)}")
        if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool) or seed < 0):
            raise BadRequestError(f"'seed' must be a whole number of at least 0 or null, got {seed!r}")
        if scenario not in (None, *SCENARIOS):
            raise BadRequestError(f"'scenario' must be one of {', '.join(SCENARIOS)} or null, got {scenario!r}")
        options: dict[str, Any] = {} if scenario is None else {"scenario": scenario}
        if "offset" in body:
            options["offset"] = numbers(body, "offset", 3)
        if connector is not None and connector != self.sim.connector.name:
            try:
                other = self._make(str(connector))
            except ValueError as error:
                raise BadRequestError(f"'connector': {error}") from error
            self.sim.close()
            self.sim = other
        observation, info = self.sim.reset(seed=seed, options=options)
        self._image, self._force, self._dislodged = observation["image"], 0.0, False
        return {"scenario": info["scenario"]}

    def _pose(self, body: Body) -> str:
        """One control period towards a pose; an action's step at most, as compliant controllers limit their error."""
        target = numbers(body, "arr", 7)
        if not 0.5 < np.linalg.norm(target[3:]) < 2:
            raise BadRequestError(f"'arr' must end in a unit quaternion x, y, z, w, got {target[3:].tolist()}")
        turn = (Rotation.from_quat(target[3:]) * Rotation.from_matrix(self._rotation()).inv()).as_rotvec()[2]
        command = np.array([*(target[:3] - self._position()), turn])
        self._move(np.zeros(4) if self.refuses_motion or not self._compliant else command)
        return "Moved"

    def _joint_reset(self, body: Body) -> str:
        if not self.refuses_motion:
            self.sim.controller.start(np.array(JOINT_RESET_TIP))
            mujoco.mj_forward(self.sim.model, self.sim.data)
            self._move(np.zeros(4))
        return "Reset Joint"

    def _move(self, command: NDArray[np.float64]) -> None:
        observation, *_, info = self.sim.step(np.clip(command / self.sim.action_scale, -1, 1).astype(np.float32))
        self._image, self._force = observation["image"], info["force"]
        self._dislodged |= bool(info["dislodged"])

    def _impedance(self, on: bool) -> str:
        self._compliant = on
        return f"{'Started' if on else 'Stopped'} impedance"

    def _grip(self, opening: float, answer: str) -> str:
        self._gripper = opening
        return answer

    def _move_gripper(self, body: Body) -> str:
        (value,) = numbers(body, "gripper_pos", 0)
        return self._grip(1 - float(np.clip(int(value), 0, 255)) / 255, "Moved Gripper")

    def _reader(self, names: tuple[str, ...]) -> Verb:
        def read(body: Body) -> dict[str, Any]:
            state = self.state()
            return {name: state[name] for name in names}

        return read

    def _position(self) -> NDArray[np.float64]:
        """(3,) m of the plug's tip as it is calibrated."""
        return self.sim.controller.position - (0, 0, TOOL_TO_TIP)

    def _rotation(self) -> NDArray[np.float64]:
        """(3, 3) of SERL's tool frame in the base frame."""
        sim = self.sim
        return sim.data.site_xmat[sim.model.site("tool").id].reshape(3, 3) @ TCP_IN_TOOL


def numbers(body: Body, name: str, count: int) -> NDArray[np.float64]:
    """A field of finite numbers, (count,); of a single number, where ``count`` is 0, as (1,).

    Raises:
        BadRequestError: names the field, what was expected and what came.
    """
    expected = f"{count} finite numbers" if count else "a finite number"
    if name not in body:
        raise BadRequestError(f"the body must hold {name!r}: {expected}; it holds {', '.join(body) or 'nothing'}")
    value = body[name]
    items = value if isinstance(value, list) else [value]
    plain = all(isinstance(item, int | float) and not isinstance(item, bool) for item in items)
    fits = len(items) == count if count else not isinstance(value, list)
    if not plain or not fits or not np.isfinite(np.array(items, np.float64)).all():
        came = f"{len(value)} items" if isinstance(value, list) and plain and not fits else repr(value)
        raise BadRequestError(f"{name!r} must be {expected}, got {came}")
    return np.array(items, np.float64)
