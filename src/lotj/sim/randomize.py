"""What differs between robots, days and trials: poses, light, camera, colours, clutter."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from lotj.sim.scene import BENCH_HEIGHT, CLUTTER, SOCKET_HOME, WRIST, CameraConfig


@dataclass(frozen=True)
class Cell:
    """One robot with its camera brackets and its light."""

    cameras: tuple[CameraConfig, CameraConfig]
    """The second one, where it is used, looks from the other side: it sees what a plug hides that is displaced towards
    the first (docs/lab.md, The reward)."""
    light_azimuth: float
    """degrees, where the key light stands."""
    warmth: float
    """-1 (cold) .. 1 (warm) light."""


CELLS: dict[str, Cell] = {
    "sawyer-a": Cell(
        (CameraConfig(azimuth=20.0, elevation=38.0), CameraConfig(azimuth=200.0, elevation=38.0)),
        light_azimuth=60.0,
        warmth=0.3,
    ),
    "sawyer-b": Cell(
        (CameraConfig(azimuth=6.0, elevation=34.0), CameraConfig(azimuth=186.0, elevation=34.0)),
        light_azimuth=-50.0,
        warmth=-0.3,
    ),
}
"""The two robots of Sec. IV."""


@dataclass(frozen=True)
class Randomization:
    """Ranges of the variation from trial to trial: half-widths of uniform distributions, but for ``grasp_weakness``."""

    socket_lateral: float = 0.03
    """m: why proprioception does not tell where the socket is."""
    socket_height: float = 0.008
    """m: why it does not tell the depth either."""
    socket_yaw: float = 0.02
    """rad."""
    grasp_lateral: float = 0.0012
    """m, how far off centre the plug is held."""
    grasp_tilt: float = 0.015
    """rad."""
    grasp_weakness: float = 0.8
    """The plug is held with a share of full strength from [1 - this, 1]: some grasps slide before the robot stops."""
    camera_shift: float = 0.0015
    """m, of the bracket."""
    camera_turn: float = 0.012
    """rad."""
    light: float = 0.3
    """share of the light's strength."""
    tint: float = 0.08
    """of each colour channel of plug and socket."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0:
                raise ValueError(f"Randomization.{name} is a half-width and cannot be negative, got {value}")
        if self.grasp_weakness >= 1:
            raise ValueError(f"Randomization.grasp_weakness must be below 1, got {self.grasp_weakness}")


class Randomizer:
    """Draws a trial's variation and writes it into the compiled model. Draws depend on the generator alone."""

    def __init__(self, model: mujoco.MjModel, cell: Cell, config: Randomization) -> None:
        self._model, self._cell, self.config = model, cell, config
        there = {model.camera(i).name for i in range(model.ncam)}
        self._cameras = [model.camera(name).id for name in WRIST if name in there]
        self._position, self._quaternion = model.cam_pos.copy(), model.cam_quat.copy()
        self._rgba = model.geom_rgba.copy()
        names = [model.geom(i).name for i in range(model.ngeom)]
        self._tinted = [np.array([i for i, n in enumerate(names) if n.startswith(p)]) for p in ("plug/", "socket/")]

    def draw(self, rng: np.random.Generator) -> tuple[NDArray[np.float64], float]:
        """Vary socket, camera, light, colours and clutter.

        Returns:
            The grasp's offset (6,) in metres and radians, and its share of full strength.
        """
        model, config = self._model, self.config
        socket = model.body("socket").id
        lateral, height = config.socket_lateral, config.socket_height
        # The socket frame lies one insertion depth below the mouth; the scene's default position is kept as its centre.
        model.body_pos[socket] = SOCKET_HOME + rng.uniform((-lateral, -lateral, -height), (lateral, lateral, height))
        yaw = rng.uniform(-config.socket_yaw, config.socket_yaw)
        model.body_quat[socket] = (np.cos(yaw / 2), 0, 0, np.sin(yaw / 2))
        self._vary_bracket(rng, self._cameras[0])
        self._vary_light(rng)
        self._vary_colours(rng)
        self._vary_clutter(rng, model.body_pos[socket])
        offset = rng.uniform(-1, 1, 6) * ([config.grasp_lateral] * 3 + [config.grasp_tilt] * 3)
        strength = float(1.0 - rng.uniform(0.0, config.grasp_weakness))
        for camera in self._cameras[1:]:  # last, so that one seed is one trial however many cameras look at it
            self._vary_bracket(rng, camera)
        return offset, strength

    def _vary_bracket(self, rng: np.random.Generator, camera: int) -> None:
        model, config = self._model, self.config
        model.cam_pos[camera] = self._position[camera] + rng.uniform(-1, 1, 3) * config.camera_shift
        turn = np.zeros(4)
        mujoco.mju_axisAngle2Quat(turn, _unit(rng.normal(size=3)), rng.uniform(0, config.camera_turn))
        mujoco.mju_mulQuat(model.cam_quat[camera], self._quaternion[camera], turn)

    def _vary_light(self, rng: np.random.Generator) -> None:
        model = self._model
        warm = np.array([1 + 0.08 * self._cell.warmth, 1.0, 1 - 0.08 * self._cell.warmth])
        for name, base, strength in (
            ("key", self._cell.light_azimuth, 0.55),
            ("fill", self._cell.light_azimuth + 150, 0.3),
        ):
            light = model.light(name).id
            azimuth = np.radians(base + rng.uniform(-35, 35))
            elevation = np.radians(rng.uniform(45, 75))
            model.light_dir[light] = -np.array(
                [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
            )
            model.light_diffuse[light] = strength * warm * rng.uniform(1 - self.config.light, 1 + self.config.light)
            model.light_specular[light] = 0.15

    def _vary_colours(self, rng: np.random.Generator) -> None:
        model, tint = self._model, self.config.tint
        for geoms in self._tinted:
            shift = rng.uniform(-tint, tint, 3)
            model.geom_rgba[geoms, :3] = np.clip(self._rgba[geoms, :3] + shift, 0.02, 1)
        for name in ("bench", "wall"):
            grey = rng.uniform(0.3, 0.85)
            model.geom_rgba[model.geom(name).id, :3] = np.clip(grey + rng.uniform(-0.1, 0.1, 3), 0, 1)

    def _vary_clutter(self, rng: np.random.Generator, socket: NDArray[np.float64]) -> None:
        model = self._model
        for i in range(CLUTTER):
            body, geom = model.body(f"clutter_{i}").id, model.geom(f"clutter_{i}").id
            angle, radius, size = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.12), rng.uniform(0.005, 0.014, 3)
            model.body_pos[body] = (
                socket[0] + radius * np.cos(angle),
                socket[1] + radius * np.sin(angle),
                BENCH_HEIGHT + size[2],
            )
            model.geom_size[geom] = size
            model.geom_rgba[geom, :3] = rng.uniform(0.15, 0.75) + rng.uniform(-0.15, 0.15, 3)


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return vector / np.linalg.norm(vector)
