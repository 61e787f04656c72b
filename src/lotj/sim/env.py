"""`InsertionEnv`: one connector, one robot, one or two cameras."""

from __future__ import annotations

from typing import Any, Literal

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from lotj.sim.connector import Connector
from lotj.sim.connectors import get_connector
from lotj.sim.controller import Controller, ControllerConfig
from lotj.sim.graphics import make_renderer
from lotj.sim.randomize import CELLS, Cell, Randomization, Randomizer
from lotj.sim.robot import Grasp, GraspConfig
from lotj.sim.scene import WRIST, build_scene

Scenario = Literal["I", "II", "mixed"]
HORIZON = 20
ACTION_SCALE = (0.005, 0.005, 0.005, 0.05)
"""m, m, m, rad: what an action of 1 asks for in a step."""
MAX_IMAGE_SIZE = 360
"""px: half the height of the scene's frame buffer."""
SUCCESS_DEPTH = 0.001
"""m: the tip is this close to full insertion."""
SUCCESS_LATERAL = 0.0025
"""m: and this close to the socket's axis, so that reaching the depth beside the socket does not count."""


class InsertionEnv(gym.Env[dict[str, NDArray[Any]], NDArray[np.float32]]):
    """Insert a held connector into its socket, from the picture of a wrist camera, or of two.

    ### Robot
    A simulated Rethink Sawyer holds the plug in a grasp that gives; Cartesian commands become joint velocities under
    force limits (`lotj.sim.controller`). The tip never leaves the controller's workspace box by command.

    ### Action space
    ``Box(-1, 1, (3,), float32)``, or ``(4,)`` with ``yaw=True``.

    | index | meaning | unit of 1.0 |
    |---|---|---|
    | 0, 1, 2 | displacement of the tool along the base frame's x, y, z from where it is measured to be | 5 mm |
    | 3 | turn about the vertical (optional) | 0.05 rad |

    ### Observation space
    ``Dict`` of ``image``: ``Box(0, 255, (H, cameras * H, 3), uint8)``, RGB, the crop round the tip of each camera, side
    by side; and with ``state=True``
    ``state``: ``Box(-inf, inf, (6,), float32)``: tool position relative to the workspace's centre (m), wrist force
    (N, base frame).

    ### Starting state
    The socket lies anywhere within ±30 mm and ±8 mm in height, so neither place nor depth can be read from ``state``.
    The tip starts 6-12 mm above the socket's mouth, offset laterally:

    | scenario | offset |
    |---|---|
    | I | uniform within ±10 mm along x and along y |
    | II | 10-20 mm away, in any direction |
    | mixed | I or II with equal chance |

    ### Success (ground truth)
    The tip is within 1 mm of full depth and within 2.5 mm of the socket's axis at the end of a control period.

    ### Reward and episode end
    ``reward`` is 0 and ``terminated`` False throughout, because ground truth is not the learner's to see: a caller
    who may see it says ``ground_truth=True`` and gets 1 and an early end on success. ``truncated`` after 20 steps, or
    when the plug is dislodged.

    ### Info
    ``connector``, ``robot``, ``scenario`` (str), ``dislodged`` (bool); sensor readings: ``force`` (N, peak of the last
    period), ``wrist_force`` ((3,) N, base frame, of the plug on the fingers at the end of it), ``tcp`` ((3,) m, base
    frame, the tool's position from the joint angles); and the ground truth:
    ``privileged/success`` (bool), ``privileged/tip_in_socket`` ((3,) m; zero at full insertion, z is the depth
    missing), ``privileged/force`` (N).

    ### Reset options
    ``{"scenario": "I" | "II" | "mixed", "offset": (dx, dy, height)}``; the offset, in metres from the socket's mouth,
    overrides the draw.

    ### Version history
    v0: first.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - gymnasium's own form

    def __init__(
        self,
        connector: str | Connector = "nema-5-15",
        robot: str | Cell = "sawyer-a",
        scenario: Scenario = "I",
        *,
        image_size: int = 64,
        cameras: int = 1,
        state: bool = False,
        yaw: bool = False,
        ground_truth: bool = False,
        randomization: Randomization | None = None,
        controller: ControllerConfig | None = None,
        grasp: GraspConfig | None = None,
        images: bool = True,
        render_mode: str | None = None,
    ) -> None:
        """Build the cell.

        Args:
            connector: a name of the catalogue, a TOML file, or a description.
            robot: ``sawyer-a``, ``sawyer-b``, or a cell with cameras and light of your own.
            scenario: how far from the socket trials start.
            image_size: H in px; each camera's picture is square.
            cameras: 1, or 2 for another wrist camera that looks from the other side.
            state: add proprioception to the observation.
            yaw: add a fourth action.
            ground_truth: pay reward and end on true success (collection, diagnosis).
            randomization: ranges of the variation from trial to trial.
            controller: rates and limits of the motion.
            grasp: how the plug is held.
            images: False returns black images without rendering, for searches that need none.
            render_mode: ``rgb_array`` gives a view of the whole cell from ``render()``.

        Raises:
            ValueError: unknown robot or scenario, or pictures that cannot be rendered.
        """
        if isinstance(robot, str) and robot not in CELLS:
            raise ValueError(f"unknown robot {robot!r}; the cells are {', '.join(CELLS)}")
        if not 16 <= image_size <= MAX_IMAGE_SIZE or image_size % 2:
            raise ValueError(f"image_size must be an even number from 16 to {MAX_IMAGE_SIZE} px, got {image_size}")
        if cameras not in range(1, len(WRIST) + 1):
            raise ValueError(f"cameras must be from 1 to {len(WRIST)}, got {cameras}: the wrist has no more")
        self.connector = get_connector(connector) if isinstance(connector, str) else connector
        cell = CELLS[robot] if isinstance(robot, str) else robot
        self.robot = robot if isinstance(robot, str) else "own"
        self.scenario: Scenario = _check_scenario(scenario)
        self.image_size = image_size
        self.cameras = WRIST[:cameras]
        """Names of those whose pictures are observed."""
        self.ground_truth = ground_truth
        self.render_mode = render_mode
        self.action_scale = np.array(ACTION_SCALE[: 4 if yaw else 3])
        self._state, self._images = state, images
        grasp = grasp or GraspConfig()
        self.model = build_scene(self.connector, cell.cameras[:cameras], grasp)
        self.data = mujoco.MjData(self.model)
        self._grasp = Grasp(self.model, self.data, grasp)
        self._randomizer = Randomizer(self.model, cell, randomization or Randomization())
        self.controller = Controller(self.model, self.data, self._grasp, controller or ControllerConfig())
        self._plug, self._socket = self.model.body("plug").id, self.model.body("socket").id
        self._renderer: mujoco.Renderer | None = None
        self._overview: mujoco.Renderer | None = None
        self._step = 0
        self._offset = np.zeros(3)
        self._drawn_scenario: str = scenario
        self.action_space = spaces.Box(-1.0, 1.0, self.action_scale.shape, np.float32)
        shape = (image_size, cameras * image_size, 3)
        observation: dict[str, spaces.Space[Any]] = {"image": spaces.Box(0, 255, shape, np.uint8)}
        if state:
            observation["state"] = spaces.Box(-np.inf, np.inf, (6,), np.float32)
        self.observation_space = spaces.Dict(observation)  # type: ignore[assignment]

    @property
    def tip_in_socket(self) -> NDArray[np.float64]:
        """(3,) m. Ground truth: the plug frame's origin in the socket frame."""
        rotation = self.data.xmat[self._socket].reshape(3, 3)
        return rotation.T @ (self.data.xpos[self._plug] - self.data.xpos[self._socket])

    @property
    def success(self) -> bool:
        """Ground truth: fully inserted."""
        tip = self.tip_in_socket
        return bool(tip[2] <= SUCCESS_DEPTH and np.hypot(tip[0], tip[1]) <= SUCCESS_LATERAL)

    @property
    def wrench(self) -> NDArray[np.float64]:
        """(6,) N and N m in the base frame: what the wrist's sensor feels of the plug on the fingers."""
        return self._grasp.wrench()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Start a trial: new socket place, grasp, light, camera, clutter and offset."""
        super().reset(seed=seed)
        options = options or {}
        scenario = _check_scenario(options.get("scenario", self.scenario))
        rng = self.np_random
        self._drawn_scenario, offset = draw_start(scenario, rng)
        if "offset" in options:
            offset = np.asarray(options["offset"], dtype=np.float64)
        mujoco.mj_resetData(self.model, self.data)
        grasp_offset, strength = self._randomizer.draw(rng)
        # The scene's socket body is the socket frame; its mouth, not its frame, is what stands at the drawn height.
        self.model.body_pos[self._socket, 2] -= self.connector.insertion_depth
        mouth = self.model.body_pos[self._socket] + (0, 0, self.connector.insertion_depth)
        # The plug is held off centre; the start is drawn for where the tip really is.
        self.controller.start(mouth + offset - grasp_offset[:3])
        self._grasp.reset(grasp_offset, strength)
        mujoco.mj_forward(self.model, self.data)
        self._step = 0
        return self._observe(), self._info(0.0, False)

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Carry out one command (0.1 s)."""
        action = np.asarray(action, dtype=np.float64)
        if action.shape != self.action_scale.shape or not np.all(np.isfinite(action)):
            raise ValueError(f"action must be finite with shape {self.action_scale.shape}, got {action}")
        command = np.clip(action, -1, 1) * self.action_scale
        motion = self.controller.move(command[:3], float(command[3]) if len(command) > 3 else 0.0)
        self._step += 1
        info = self._info(motion.force, motion.dislodged)
        success = self.ground_truth and self.success
        truncated = motion.dislodged or self._step >= HORIZON
        return self._observe(), float(success), bool(success), bool(truncated and not success), info

    def render(self) -> NDArray[np.uint8]:  # type: ignore[override]
        """The whole cell, (480, 640, 3)."""
        if self._overview is None:
            self._overview = make_renderer(self.model, 480, 640)
        self._overview.update_scene(self.data, "overview")
        return self._overview.render()

    def close(self) -> None:
        """Free the graphics contexts."""
        for renderer in (self._renderer, self._overview):
            if renderer is not None:
                renderer.close()
        self._renderer = self._overview = None

    def _observe(self) -> dict[str, NDArray[Any]]:
        observation: dict[str, NDArray[Any]] = {"image": self._image()}
        if self._state:
            centre = (np.array(self.controller.config.workspace_low) + self.controller.config.workspace_high) / 2
            force = self._grasp.wrench()[:3]
            observation["state"] = np.concatenate([self.controller.position - centre, force]).astype(np.float32)
        return observation

    def _image(self) -> NDArray[np.uint8]:
        size = self.image_size
        if not self._images:
            return np.zeros((size, len(self.cameras) * size, 3), np.uint8)
        if self._renderer is None:
            self._renderer = make_renderer(self.model, 2 * size, 2 * size)
        return np.concatenate([self._seen_by(self._renderer, camera) for camera in self.cameras], axis=1)

    def _seen_by(self, renderer: mujoco.Renderer, camera: str) -> NDArray[np.uint8]:
        renderer.update_scene(self.data, camera)
        pixels = renderer.render().astype(np.uint16)
        # Twice the resolution, averaged: an edge moves the picture by less than a pixel.
        total = pixels[0::2, 0::2] + pixels[1::2, 0::2] + pixels[0::2, 1::2] + pixels[1::2, 1::2]
        return ((total + 2) // 4).astype(np.uint8)

    def _info(self, force: float, dislodged: bool) -> dict[str, Any]:
        return {
            "connector": self.connector.name,
            "robot": self.robot,
            "scenario": self._drawn_scenario,
            "dislodged": dislodged,
            "force": force,
            "wrist_force": self._grasp.wrench()[:3].astype(np.float32),
            "tcp": self.controller.position.astype(np.float32),
            "privileged/success": self.success,
            "privileged/tip_in_socket": self.tip_in_socket.astype(np.float32),
            "privileged/force": force,
        }


def draw_start(scenario: Scenario, rng: np.random.Generator) -> tuple[str, NDArray[np.float64]]:
    """Draw where a trial starts: the scenario's name and the tip's offset (3,) m from the centre of the socket's
    mouth."""
    chosen = ("I", "II")[rng.integers(2)] if scenario == "mixed" else scenario
    if chosen == "I":
        lateral = rng.uniform(-0.01, 0.01, 2)
    else:
        angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(0.01, 0.02)
        lateral = radius * np.array([np.cos(angle), np.sin(angle)])
    return chosen, np.array([*lateral, rng.uniform(0.006, 0.012)])


def _check_scenario(scenario: str) -> Scenario:
    if scenario not in ("I", "II", "mixed"):
        raise ValueError(f"scenario must be 'I', 'II' or 'mixed', got {scenario!r}")
    return scenario  # type: ignore[return-value]
