"""gym-taskboard's NIST task board as a cell: a Franka holds a part over its hole, seen by the camera on its wrist.

What a cell needs and the package does not give: displacements of the tool instead of joint angles (by the package's own
inverse kinematics), trials that begin with the part in the gripper, a compliant arm, and the force of the board on the
part. The other parts of the board stay where they belong and are air to the one that is held: that is ten times faster.
Needs ``pip install gym-taskboard`` (docs/foreign.md says how before Python 3.13).
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

GRIP = {"peg": 0.018, "usb": 0.027, "rj45": 0.0265, "waterproof": 0.0235, "dsub": 0.021}
"""m: where the fingers hold a part, above its own origin (of a peg the middle, of a plug the tip)."""
DOWN = {"peg": 0.025}
"""m: how far its lowest point is below its origin."""
SOFTER = 0.1
"""The arm's stiffness, as a share of the package's: a stiff position controller must not be practised on."""
PERIODS = 3
"""Of 50 ms in one step of the cell."""
STEP = 0.004
"""m for an action of 1."""


class Inserting(gymnasium.Env[dict[str, Any], NDArray[np.float32]]):
    """``state/tcp_pose`` (3,) m, ``state/tcp_force`` (3,) N and ``state/tcp_torque`` (3,) N m of the board on the part,
    ``images/wrist`` (H, W, 3) uint8; actions (3,) displace the tool, which always points down.

    Args:
        part: of Task Board 1, by the package's name for it.
        size: H = W of the picture in px.

    Raises:
        ValueError: no such part, or one that has to be turned.
    """

    def __init__(self, part: str, size: int = 96) -> None:
        from gym_taskboard.boards.board1 import PARTS
        from gym_taskboard.env import TaskBoardEnv

        there = [p.name for p in PARTS if p.name.split("_")[0] in GRIP]
        if part not in there:
            raise ValueError(f"no part {part!r}; there are {', '.join(there)}: name one of them as the connector")
        self.board = TaskBoardEnv(parts=[part], image_size=(size, size))
        self.model, self.data, self.part = self.board.model, self.board.data, self.board.active[0]
        kind = part.split("_")[0]
        self._grip, self._down = GRIP[kind], DOWN.get(kind, 0.0)
        self._still()
        self.model.actuator_gainprm[:7] *= SOFTER
        self.model.actuator_biasprm[:7] *= SOFTER
        self.action_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
        numbers = {
            name: spaces.Box(-np.inf, np.inf, (3,), np.float32) for name in ("tcp_pose", "tcp_force", "tcp_torque")
        }
        picture = spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.observation_space = spaces.Dict(
            {"state": spaces.Dict(numbers), "images": spaces.Dict({"wrist": picture})}  # type: ignore[assignment]
        )
        self._size = size
        self.felt = np.zeros(3, np.float32)
        """(3,) N of the board on the part."""

    def _still(self) -> None:
        """Take the other parts out of the physics."""
        model = self.model
        for other in self.board.parts:
            if other is not self.part:
                own = model.geom_bodyid == other.body_id
                model.geom_contype[own] = model.geom_conaffinity[own] = 0
                model.body_gravcomp[other.body_id] = 1.0
                other.coupling = None
        self.board.coupled = [p for p in self.board.coupled if p is self.part]

    @property
    def tcp(self) -> NDArray[np.float64]:
        """(3,) m between the fingertips."""
        from gym_taskboard.control import tcp

        return np.asarray(tcp(self.board))

    @property
    def offset(self) -> NDArray[np.float64]:
        """(3,) m from the part's place when it is seated to where it is, in the world's axes."""
        return np.asarray(self.data.xpos[self.part.body_id] - self._seat)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Board and part are drawn anew: held 8-14 mm over the hole, up to 8 mm beside it."""
        import mujoco

        super().reset(seed=seed)
        self.board.reset(seed=seed)
        model, data, board = self.model, self.data, self.board
        self._rotation = data.xmat[self.part.fixture_id].reshape(3, 3).copy()
        self._yaw = float(np.arctan2(self._rotation[1, 0], self._rotation[0, 0]))
        self._seat = data.xpos[self.part.fixture_id] + (0.0, 0.0, self.part.target_z)
        top = self._top()
        lift = top + self.np_random.uniform(0.008, 0.014) + self._down
        start = np.array([*(self._seat[:2] + self.np_random.uniform(-0.008, 0.008, 2)), lift])
        self._reach(start + (0.0, 0.0, self._grip))
        data.qpos[board.q_robot[7:]], data.ctrl[7] = 0.04, 255
        data.qpos[self.part.qadr : self.part.qadr + 3] = start
        data.qpos[self.part.qadr + 3 : self.part.qadr + 7] = (np.cos(self._yaw / 2), 0, 0, np.sin(self._yaw / 2))
        data.qvel[:] = 0.0
        model.body_gravcomp[self.part.body_id] = 1.0
        mujoco.mj_forward(model, data)
        data.ctrl[7] = 0
        for _ in range(300):
            mujoco.mj_step(model, data)
        return self._observe(), {}

    def step(self, action: NDArray[np.float32]) -> Any:
        """Ask for a displacement, with the package's own controller."""
        from gym_taskboard.control import ik_action

        target = self.tcp + STEP * np.clip(np.asarray(action, np.float64), -1, 1)
        info: dict[str, Any] = {}
        for _ in range(PERIODS):
            *_, info = self.board.step(ik_action(self.board, target, self._yaw, 1.0))
        part = info["parts"][self.part.name]
        lost = bool(np.linalg.norm(self.data.xpos[self.part.body_id] + (0, 0, self._grip) - self.tcp) > 0.01)
        told = {"seated": bool(part["seated"]), "inserted": bool(part["inserted"]), "slipped": lost}
        return self._observe(), 0.0, False, False, told

    def render(self) -> NDArray[np.uint8]:  # type: ignore[override]
        """The wrist camera's picture."""
        import mujoco

        renderer = self.board._get_renderer(self._size, self._size)
        renderer.update_scene(self.data, camera="panda/hand")
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0  # shadows take most of the time
        return np.array(renderer.render())

    def close(self) -> None:
        """Free the graphics context."""
        self.board.close()

    def _top(self) -> float:
        """m: the height of the hole's mouth."""
        rim = getattr(self.part, "housing", (0.0, 0.0, 0.0))[2] + getattr(self.part, "post_z", 0.0)
        return float(self.data.xpos[self.part.fixture_id][2] + rim)

    def _reach(self, target: NDArray[np.float64]) -> None:
        """Put the arm there, without physics."""
        import mujoco
        from gym_taskboard.control import ik_action
        from gym_taskboard.env import ARM_STEP

        data, joints = self.data, self.board.q_robot[:7]
        for _ in range(60):
            data.ctrl[:7] = data.qpos[joints]
            mujoco.mj_forward(self.model, data)
            data.qpos[joints] += ARM_STEP * ik_action(self.board, target, self._yaw, 0.0)[:7]
        data.ctrl[:7] = data.qpos[joints]

    def _observe(self) -> dict[str, Any]:
        force, torque = self._wrench()
        self.felt = force
        state = {"tcp_pose": self.tcp.astype(np.float32), "tcp_force": force, "tcp_torque": torque}
        return {"state": state, "images": {"wrist": self.render()}}

    def _wrench(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Force (N) and torque (N m, about the fingertips) of everything but the hand on the part."""
        import mujoco

        model, data, tcp = self.model, self.data, self.tcp
        own = self.board.geom_root
        robot = model.body_rootid[model.body("panda/hand").id]
        force, torque, local = np.zeros(3), np.zeros(3), np.zeros(6)
        for index in range(data.ncon):
            contact = data.contact[index]
            first, second = own[contact.geom1], own[contact.geom2]
            if self.part.body_id not in (first, second) or robot in (first, second):
                continue
            mujoco.mj_contactForce(model, data, index, local)
            push = contact.frame.reshape(3, 3).T @ local[:3] * (1.0 if second == self.part.body_id else -1.0)
            force += push
            torque += np.cross(contact.pos - tcp, push)
        return force.astype(np.float32), torque.astype(np.float32)


class Inserter:
    """Moves over the hole, then down, from the part's true place; a little sideways search when it rests on the rim.

    Args:
        cell: the cell.
        noise: chance of a random action in each step.
        speed: share of a full step.
        beside: m; above 0 it presses so far beside the hole.
    """

    CENTRED = 0.0006
    """m: near enough to go down."""
    BLOCKED = 4.0
    """N: it rests on something, and the search begins."""

    def __init__(self, cell: Any, noise: float, speed: float, beside: float) -> None:
        self._robot: Inserting = cell.env.unwrapped
        self._noise, self._speed, self._beside = noise, speed, beside
        self._aim: NDArray[np.float64] | None = None

    def reset(self) -> None:
        """Forget the last trial's wrong place."""
        self._aim = None

    def act(self, observation: Any, rng: np.random.Generator, explore: bool = False) -> NDArray[np.float32]:
        """(3,) the next action."""
        if self._aim is None:
            angle = rng.uniform(0, 2 * np.pi)
            self._aim = self._beside * np.array([np.cos(angle), np.sin(angle)])
        if rng.random() < self._noise:
            return rng.uniform(-1, 1, 3).astype(np.float32)
        error = np.array([*(self._aim - self._robot.offset[:2]), 0.0])
        if np.linalg.norm(error[:2]) < self.CENTRED:
            error[2] = -STEP
            if np.linalg.norm(self._robot.felt) > self.BLOCKED:
                error += rng.uniform((-0.001, -0.001, 0.0), (0.001, 0.001, STEP))
        return (np.clip(error / STEP, -1, 1) * self._speed).astype(np.float32)


gymnasium.register("Inserting-v0", entry_point="inserting:Inserting", order_enforce=False)
