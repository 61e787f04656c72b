"""`examples/ur_realsense.py` against a fake of ur-rtde and pyrealsense2: its arithmetic and its calls."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
from scipy.linalg import expm

from lotj.cells.adapter import CellEnv, make_env
from lotj.cells.safety import SafeCell
from lotj.cells.spec import load_cell

EXAMPLES = Path(__file__).parent.parent / "examples"
HOME = [0.4, 0.0, 0.25, np.pi, 0.0, 0.0]
MOBILITY = 1e-4
"""m a tick for a newton: how the fake arm yields in force mode."""


class FakeUr:
    """Both interfaces of ur-rtde, on one arm that goes where it is pushed."""

    def __init__(self) -> None:
        self.pose = np.array([0.42, 0.01, 0.2, np.pi, 0.0, 0.0])
        self.speed = [0.0] * 6
        self.calls: list[tuple[Any, ...]] = []
        self.protective = self.emergency = False
        self.connected = self.answers = True

    def getActualTCPPose(self) -> list[float]:
        return self.pose.tolist()

    def getActualTCPSpeed(self) -> list[float]:
        return self.speed

    def getActualTCPForce(self) -> list[float]:
        return [1.0, 2.0, 3.0, 0.1, 0.2, 0.3]

    def isProtectiveStopped(self) -> bool:
        return self.protective

    def isEmergencyStopped(self) -> bool:
        return self.emergency

    def isConnected(self) -> bool:
        return self.connected

    def forceMode(self, frame: Any, axes: Any, wrench: Any, kind: Any, limits: Any) -> bool:
        self.calls.append(("forceMode", frame, axes, wrench, kind, limits))
        self.pose[:3] += MOBILITY * np.array(wrench[:3])
        return self.answers

    def moveL(self, pose: list[float], speed: float, acceleration: float) -> bool:
        self.calls.append(("moveL", pose, speed, acceleration))
        self.pose = np.array(pose)
        return self.answers

    def __getattr__(self, name: str) -> Any:
        if name not in ("forceModeStop", "zeroFtSensor", "stopScript", "disconnect"):
            raise AttributeError(name)
        return lambda: self.calls.append((name,))

    def names(self) -> list[str]:
        return [call[0] for call in self.calls]

    def wrenches(self) -> list[Any]:
        return [np.array(call[3]) for call in self.calls if call[0] == "forceMode"]


class FakePipeline:
    """One picture after the other, each brighter."""

    count = 0
    stopped = 0

    def start(self, config: Any) -> None:
        pass

    def wait_for_frames(self, wait: int) -> Any:
        FakePipeline.count += 1
        picture = np.random.default_rng(FakePipeline.count).integers(0, 255, (480, 640, 3)).astype(np.uint8)
        return SimpleNamespace(get_color_frame=lambda: SimpleNamespace(get_data=lambda: picture))

    def stop(self) -> None:
        FakePipeline.stopped += 1


@pytest.fixture
def ur(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeUr]:
    """The fake in place of the libraries, a clock that only sleeping moves, and the example on the path."""
    robot = FakeUr()
    monkeypatch.setitem(sys.modules, "rtde_control", SimpleNamespace(RTDEControlInterface=lambda host: robot))
    monkeypatch.setitem(sys.modules, "rtde_receive", SimpleNamespace(RTDEReceiveInterface=lambda host: robot))
    config = SimpleNamespace(enable_device=lambda serial: None, enable_stream=lambda *stream: None)
    kinds = {"stream": SimpleNamespace(color=0), "format": SimpleNamespace(rgb8=0)}
    fake = SimpleNamespace(pipeline=FakePipeline, config=lambda: config, **kinds)
    monkeypatch.setitem(sys.modules, "pyrealsense2", fake)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import ur_realsense

    clock = SimpleNamespace(now=50.0)

    def sleep(seconds: float) -> None:
        clock.now += seconds

    monkeypatch.setattr(ur_realsense, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep))
    yield robot


def make(**settings: Any) -> Any:
    from ur_realsense import UrRealSenseEnv

    given = {"host": "robot", "reset_pose": HOME, "cameras": {"wrist_1": "realsense:1"}, **settings}
    return UrRealSenseEnv(**given)


def matrix(rotation_vector: Any) -> Any:
    """Rotation matrix by the matrix exponential: independent of scipy's rotations."""
    x, y, z = rotation_vector
    return expm(np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]))


def test_an_action_displaces_and_turns_in_the_base_frame(ur: FakeUr) -> None:
    from ur_realsense import target_pose

    pose = np.array([0.4, 0.1, 0.2, 2.0, 1.5, -0.4])
    for axis in range(3):
        action = np.zeros(7)
        action[axis], action[3 + axis] = 0.5, -1.0
        target = target_pose(pose, action, 0.004, 0.1)
        np.testing.assert_allclose(target[:3] - pose[:3], 0.002 * np.eye(3)[axis])
        turned = matrix(-0.1 * np.eye(3)[axis]) @ matrix(pose[3:])
        np.testing.assert_allclose(matrix(target[3:]), turned, atol=1e-9)
    assert np.allclose(target_pose(pose, np.full(7, 5.0), 0.004, 0.1)[:3] - pose[:3], 0.004)


def test_reset_goes_up_across_and_down_and_zeroes_the_sensor(ur: FakeUr) -> None:
    start = ur.pose.copy()
    observation, _ = make(reset_speed=0.03).reset()
    assert ur.names() == ["moveL", "moveL", "moveL", "zeroFtSensor"]
    up, across, down = (call[1] for call in ur.calls[:3])
    np.testing.assert_allclose(up, [*start[:2], 0.25, *start[3:]])
    np.testing.assert_allclose(across, HOME)
    np.testing.assert_allclose(down, HOME)
    assert all(call[2:] == (0.03, 0.5) for call in ur.calls[:3])
    state = observation["state"]
    np.testing.assert_allclose(state["tcp_pose"], [0.4, 0, 0.25, 1, 0, 0, 0], atol=1e-6)
    assert state["tcp_force"].tolist() == [1, 2, 3]
    np.testing.assert_allclose(state["tcp_torque"], [0.1, 0.2, 0.3])
    assert observation["images"]["wrist_1"].shape == (480, 640, 3)


def test_a_step_is_a_spring_in_force_mode_and_ends_in_holding(ur: FakeUr) -> None:
    """k (target - pose) - d v, base frame, not transformed; the arm arrives, and force mode ends with the step."""
    env = make(stiffness=(100.0, 5.0), damping=(10.0, 1.0))
    env.reset()
    ur.calls.clear()
    ur.speed = [0.01, 0, 0, 0, 0, 0.02]
    env.step(np.array([1, 0, -0.5, 0, 0, 1, 0], np.float32))
    name, frame, axes, wrench, kind, limits = ur.calls[0]
    assert (name, frame, axes, kind) == ("forceMode", [0.0] * 6, [1] * 6, 2)
    assert min(limits) > 0 and max(limits[:3]) <= 0.1
    np.testing.assert_allclose(wrench[:3], [100 * 0.005 - 10 * 0.01, 0, -100 * 0.0025], atol=1e-9)
    np.testing.assert_allclose(wrench[3:], [0, 0, 5 * 0.05 - 0.02], atol=1e-6)
    assert len(ur.wrenches()) == 10  # 0.1 s in ticks of 10 ms
    assert ur.names()[-1] == "forceModeStop" and ur.names().count("forceModeStop") == 1
    ur.speed = [0.0] * 6
    before = ur.pose.copy()
    for _ in range(20):
        seen, reward, terminated, truncated, _ = env.step(np.array([0, 0, 1, 0, 0, 0, 0], np.float32))
        assert (reward, terminated) == (0.0, False)
    assert truncated  # the horizon
    rise = 20 * 0.005 * (1 - (1 - 100 * MOBILITY) ** 10)
    np.testing.assert_allclose(ur.pose[:3] - before[:3], [0, 0, rise], atol=1e-9)
    np.testing.assert_allclose(seen["state"]["tcp_pose"][:3], ur.pose[:3], atol=1e-6)


def test_force_and_torque_are_cut_and_keep_their_direction(ur: FakeUr) -> None:
    env = make(stiffness=(1e5, 1e4), max_force=7.0, max_torque=0.5)
    env.reset()
    env.step(np.array([0.6, 0, -0.8, 0, 1, 0, 0], np.float32))
    first = ur.wrenches()[0]
    np.testing.assert_allclose(first[:3], [4.2, 0, -5.6], atol=1e-6)
    np.testing.assert_allclose(first[3:], [0, 0.5, 0], atol=1e-6)
    for wrench in ur.wrenches():
        assert np.linalg.norm(wrench[:3]) <= 7 + 1e-9 and np.linalg.norm(wrench[3:]) <= 0.5 + 1e-9


@pytest.mark.parametrize(
    ("fault", "value", "said"),
    [
        ("protective", True, "has stopped itself"),
        ("emergency", True, "has stopped itself"),
        ("connected", False, "no longer connected"),
        ("answers", False, "did not take a force command"),
    ],
)
def test_a_robot_that_stops_is_an_error_and_force_mode_ends(ur: FakeUr, fault: str, value: bool, said: str) -> None:
    env = make()
    env.reset()
    ur.calls.clear()
    setattr(ur, fault, value)
    with pytest.raises(RuntimeError, match=said):
        env.step(np.zeros(7, np.float32))
    assert ur.names()[-1] == "forceModeStop"
    with pytest.raises(RuntimeError, match=r"stopped itself|no longer connected|did not move"):
        env.reset()


def test_close_stops_the_arm_and_lets_everything_go(ur: FakeUr) -> None:
    env = make()
    env.close()  # nothing is open yet
    assert ur.calls == []
    env.reset()
    ur.calls.clear()
    stopped = FakePipeline.stopped
    env.close()
    assert ur.names() == ["forceModeStop", "stopScript", "disconnect", "disconnect"]
    assert FakePipeline.stopped == stopped + 1
    with pytest.raises(RuntimeError, match="step before reset"):
        env.step(np.zeros(7, np.float32))


def test_what_cannot_be_is_refused(ur: FakeUr, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="reset_pose must be six numbers"):
        make(reset_pose=[0.4, 0.0, 0.2, 1, 0, 0, 0])
    with pytest.raises(ValueError, match="camera 'wrist_1' must be"):
        make(cameras={"wrist_1": "123"})
    env = make()
    env.reset()
    ur.calls.clear()
    for action in (np.full(7, np.nan), np.zeros(3)):
        with pytest.raises(ValueError, match="seven finite numbers"):
            env.step(action)
    assert ur.calls == []

    def nobody(host: str) -> Any:
        raise RuntimeError("Connection refused")

    monkeypatch.setitem(sys.modules, "rtde_receive", SimpleNamespace(RTDEReceiveInterface=nobody))
    with pytest.raises(RuntimeError, match="no UR robot answers at robot"):
        make().reset()
    monkeypatch.setitem(sys.modules, "rtde_control", None)
    with pytest.raises(ValueError, match=r"pip install -e '.\[ur\]'"):
        make().reset()


def test_the_examples_file_makes_a_cell_behind_the_safety_layer(ur: FakeUr) -> None:
    """`examples/ur_realsense.toml` declares the whole contract and fits its environment."""
    spec = load_cell(EXAMPLES / "ur_realsense.toml")
    env = make_env(spec, "my-plug")
    assert isinstance(env, gymnasium.Env)
    with SafeCell(CellEnv(spec, "my-plug", image_size=32, env=env)) as safe:
        safe.reset(seed=0)
        start = ur.pose.copy()
        for _ in range(3):
            observation, *_ = safe.step(np.array([0, 0, -1], np.float32))
        assert observation["image"].shape == (32, 32, 3)
        assert ur.pose[2] < start[2] - 0.01
    assert ur.names()[-1] == "disconnect"
