"""Robots behind SERL's HTTP verbs: the client, and the mock of their server."""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from scipy.spatial.transform import Rotation

from lotj import cli
from lotj.cells import serl_http
from lotj.cells.adapter import CellEnv
from lotj.cells.check import check_cell
from lotj.cells.collecting import CellCollectConfig, collect_on_cell
from lotj.cells.mock_expert import HttpExpert
from lotj.cells.mock_server import MockServer, mock_robot
from lotj.cells.safety import CellStoppedError, SafeCell
from lotj.cells.serl import SerlInsertionEnv
from lotj.cells.serl_client import CellConnectionError, NotFollowingError, RobotServer
from lotj.cells.serl_http import SerlHttpEnv, moved
from lotj.cells.spec import load_cell
from lotj.data.store import TrajectoryStore
from lotj.sim.env import InsertionEnv
from lotj.sim.robot import TOOL_TO_TIP

EXAMPLE = Path(__file__).parent.parent / "examples/serl_http.toml"
FAST: dict[str, Any] = {"rate_hz": float("inf"), "image_shape": (64, 64), "timeout_s": 5.0}
ABOVE = [0.6, 0.0, 0.12, 1.0, 0.0, 0.0, 0.0]


@pytest.fixture(scope="module")
def served() -> Iterator[MockServer]:
    with mock_robot("usb-a", image_size=64) as server:
        yield server


@pytest.fixture
def server(served: MockServer) -> Iterator[MockServer]:
    """The same server for all tests, well again after each."""
    yield served
    post(served, "mock/fault", {"fault": None})
    post(served, "update_param")
    post(served, "mock/reset", {"seed": 0, "connector": "usb-a"})


def post(server: MockServer, verb: str, body: Any = None) -> Any:
    """A plain POST, independent of the client."""
    content = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{server.url}/{verb}", content), timeout=20) as answer:
        text = answer.read().decode()
    return json.loads(text) if answer.headers["Content-Type"] == "application/json" else text


def rehearse(server: MockServer, **settings: Any) -> SerlHttpEnv:
    return SerlHttpEnv(server.url, rehearsal=True, **(FAST | settings))


def act(x: float = 0.0, y: float = 0.0, z: float = 0.0, *rest: float) -> Any:
    return np.array([x, y, z, *rest, *[0.0] * (4 - len(rest))], np.float32)


# The mock server


def test_the_servers_state_is_the_simulators(server: MockServer) -> None:
    """The same poses in a simulator of our own give the same state; jacobian and velocity by finite differences."""
    post(server, "mock/reset", {"seed": 3, "offset": [0.0, 0.0, 0.004]})
    sim = InsertionEnv("usb-a", yaw=True, images=False)
    sim.reset(seed=3, options={"offset": (0.0, 0.0, 0.004)})
    for action in np.random.default_rng(0).uniform(-1, 1, (6, 4)) * (1, 1, 0.5, 1) - (0, 0, 0.5, 0):
        state = post(server, "getstate")
        turn = Rotation.from_euler("z", 0.05 * action[3]) * Rotation.from_quat(state["pose"][3:])
        arr = [*(np.array(state["pose"][:3]) + 0.005 * action[:3]), *turn.as_quat()]
        assert post(server, "pose", {"arr": arr}) == "Moved"
        sim.step(action.astype(np.float32))
    state = post(server, "getstate")
    assert set(state) == {"pose", "vel", "force", "torque", "q", "dq", "jacobian", "gripper_pos"}
    np.testing.assert_allclose(state["pose"][:3], sim.controller.position - (0, 0, TOOL_TO_TIP), atol=1e-5)
    np.testing.assert_allclose(state["q"], sim.data.qpos[:7], atol=1e-5)
    np.testing.assert_allclose(state["dq"], sim.data.qvel[:7], atol=1e-3)
    tool = Rotation.from_quat(state["pose"][3:])
    down, turned = tool.apply([0, 0, 1]), tool.apply([1, 0, 0])
    assert down[2] < -0.999  # SERL's tool looks down along its z
    site = sim.data.site("tool").xmat.reshape(3, 3)
    np.testing.assert_allclose(turned, -site[:, 0], atol=1e-5)
    force = np.linalg.norm(state["force"])
    assert force > 0.5  # the way down was not free
    np.testing.assert_allclose(tool.apply(state["force"]), sim.wrench[:3], atol=0.02 * force)
    np.testing.assert_allclose(tool.apply(state["torque"]), sim.wrench[3:], atol=0.01)
    for joint in range(7):
        places = []
        for sign in (-1, 1):
            copy = mujoco.MjData(sim.model)
            copy.qpos[:] = sim.data.qpos
            copy.qpos[joint] += sign * 1e-5
            mujoco.mj_kinematics(sim.model, copy)
            places.append(copy.site("tool").xpos.copy())
        slope = (places[1] - places[0]) / 2e-5
        np.testing.assert_allclose(
            np.array(state["jacobian"])[:3, joint], slope, atol=1e-3
        )  # poses are a physics step old
    np.testing.assert_allclose(state["vel"], np.array(state["jacobian"]) @ state["dq"], atol=1e-12)
    for verb, name in (("getpos", "pose"), ("getforce", "force"), ("getq", "q"), ("getjacobian", "jacobian")):
        assert post(server, verb) == {name: state[name]}


@pytest.mark.parametrize(
    ("verb", "body", "status", "said"),
    [
        ("pose", b"{not json", 400, "not JSON"),
        ("pose", b"\xff\xfe", 400, "not JSON"),
        ("pose", [1, 2], 400, "must be a JSON object, got list"),
        ("pose", {}, 400, "'arr': 7 finite numbers; it holds nothing"),
        ("pose", {"arr": [0.6, 0, 0.1]}, 400, "'arr' must be 7 finite numbers, got 3 items"),
        ("pose", {"arr": [0.6, 0, "0.1", 1, 0, 0, 0]}, 400, "'arr' must be 7 finite numbers"),
        ("pose", b'{"arr": [0.6, 0, NaN, 1, 0, 0, 0]}', 400, "'arr' must be 7 finite numbers"),
        ("pose", {"arr": [0.6, 0, 0.1, 0, 0, 0, 0]}, 400, "unit quaternion"),
        ("move_gripper", {"gripper_pos": [1]}, 400, "'gripper_pos' must be a finite number"),
        ("mock/reset", {"scenario": "III"}, 400, "'scenario' must be one of I, II, mixed"),
        ("mock/reset", {"seed": -1}, 400, "'seed' must be a whole number of at least 0"),
        ("mock/reset", {"connector": "usb-z"}, 400, "usb-z"),
        ("mock/reset", {"sed": 1}, 400, "got ['sed']"),
        ("mock/fault", {"fault": "tired"}, 400, "freeze_camera"),
        ("mock/fault", {"fault": "force"}, 400, "'value': 3 finite numbers"),
        ("image/elbow", {}, 400, "no camera 'elbow'; there are wrist_1, wrist_2, overview"),
        ("getstat", {}, 404, "no /getstat; there are"),
    ],
)
def test_requests_that_make_no_sense_are_refused_and_move_nothing(
    server: MockServer, verb: str, body: Any, status: int, said: str
) -> None:
    before = post(server, "getq")
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(server, verb, body)
    assert refused.value.code == status
    assert said in refused.value.read().decode()
    assert post(server, "getq") == before


def test_a_verb_wants_post(server: MockServer) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{server.url}/getstate", timeout=5)
    assert refused.value.code == 405


def test_gripper_and_impedance(server: MockServer) -> None:
    """0..255 closes, as the Robotiq does; without the impedance controller a pose moves nothing."""
    for verb, body, opening in (
        ("open_gripper", None, 1.0),
        ("close_gripper", None, 0.0),
        ("move_gripper", {"gripper_pos": 51}, 0.8),
        ("move_gripper", {"gripper_pos": 300}, 0.0),
    ):
        post(server, verb, body)
        assert post(server, "get_gripper") == {"gripper": pytest.approx(opening)}
        assert post(server, "getstate")["gripper_pos"] == pytest.approx(opening)
    pose = post(server, "getpos")["pose"]
    up = [pose[0], pose[1], pose[2] + 0.005, *pose[3:]]
    post(server, "stopimp")
    post(server, "pose", {"arr": up})
    assert post(server, "getpos")["pose"][2] == pytest.approx(pose[2], abs=3e-4)
    post(server, "startimp")
    post(server, "pose", {"arr": up})
    assert post(server, "getpos")["pose"][2] == pytest.approx(pose[2] + 0.005, abs=1e-3)


# The environment


def test_the_environment_passes_gymnasiums_check(server: MockServer) -> None:
    """Spaces, seeds and determinism, over HTTP."""
    env = gymnasium.make("lotj/SerlHttp-v0", url=server.url, rehearsal=True, **FAST)
    check_env(env.unwrapped, skip_render_check=True)
    env.close()


def test_it_shows_what_the_simulator_in_this_process_shows(server: MockServer) -> None:
    """State, pictures and truth of the same trial, without HTTP in between."""
    env, direct = rehearse(server), SerlInsertionEnv("usb-a", image_size=64)
    seen, expected = env.reset(seed=5)[0], direct.reset(seed=5)[0]
    actions = np.random.default_rng(1).uniform(-1, 1, (8, 7)).astype(np.float32)
    actions[:, 2] -= 0.5
    actions[:, 3:] = 0
    for action in [*np.clip(actions, -1, 1), None]:
        for name in ("tcp_pose", "tcp_force", "tcp_torque"):
            where = slice(0, 3)
            assert seen["state"][name].dtype == np.float32
            np.testing.assert_allclose(seen["state"][name][where], expected["state"][name][where], atol=2e-3)
        assert np.abs(seen["images"]["wrist_1"].astype(int) - expected["images"]["wrist_1"]).max() <= 2
        if action is not None:
            seen, _, _, truncated, info = env.step(action)
            expected, _, _, _, told = direct.step(action)
            assert (info["succeed"], info["dislodged"], truncated) == (told["succeed"], told["dislodged"], False)
    direct.close()


@pytest.mark.parametrize("scenario", ["I", "II"])
def test_an_expert_inserts_over_http(server: MockServer, scenario: str) -> None:
    """Known answer: the scripted expert without noise succeeds, in another connector too."""
    env = rehearse(server, connector="din-5")
    expert, rng = HttpExpert(env), np.random.default_rng(0)
    inserted = 0
    for seed in range(4):
        env.reset(seed=seed, options={"scenario": scenario})
        expert.reset()
        truncated, info = False, {"succeed": False}
        while not truncated and not info["succeed"]:
            _, _, terminated, truncated, info = env.step(act(*expert.act({}, rng)))
            assert not terminated
        inserted += info["succeed"]
    truth = post(server, "mock/truth")
    assert truth["connector"] == "din-5"
    assert inserted == 4 and truth["success"] and abs(truth["tip_in_socket"][2]) < 0.001


def test_trials_end_at_the_horizon(server: MockServer) -> None:
    env = rehearse(server, horizon=3)
    env.reset(seed=0)
    assert [env.step(act(z=0.2))[3] for _ in range(3)] == [False, False, True]


def test_targets_come_from_the_measured_pose() -> None:
    """Displacement and turn are along the base frame's axes, by quaternion arithmetic by hand; beyond 1 counts as 1."""
    target = moved(np.array([0.5, 0.1, 0.2, 1, 0, 0, 0]), act(1, -0.5, -3, 0, 0, 1), 0.004, 0.1)
    np.testing.assert_allclose(target[:3], [0.504, 0.098, 0.196])
    # (z sin 0.05 + cos 0.05) (x) = y sin 0.05 + x cos 0.05
    np.testing.assert_allclose(target[3:], [np.cos(0.05), np.sin(0.05), 0, 0], atol=1e-12)


def test_the_gripper_moves_only_where_it_may(server: MockServer) -> None:
    for allowed, opening in ((False, 0.0), (True, 1.0)):
        env = rehearse(server, gripper=allowed)
        env.reset(seed=0)
        seen = env.step(act(0, 0, 0.1, 0, 0, 0, 1.0))[0]
        assert seen["state"]["gripper_pose"] == pytest.approx(opening)
    assert env.step(act(0, 0, 0.1, 0, 0, 0, -1.0))[0]["state"]["gripper_pose"] == 0


def test_reset_goes_up_across_and_down_in_small_steps(server: MockServer, monkeypatch: pytest.MonkeyPatch) -> None:
    post(server, "mock/reset", {"seed": 1})
    goal = [*ABOVE[:2], 0.1, *ABOVE[3:]]
    env = SerlHttpEnv(server.url, reset_pose=goal, joint_reset_every=2, compliance={"stiffness": 2000}, **FAST)
    asked: list[tuple[str, Any]] = []
    call = env.server.call
    monkeypatch.setattr(env.server, "call", lambda v, b=None, **k: (asked.append((v, b)), call(v, b, **k))[1])
    start = np.array(post(server, "getpos")["pose"])
    observation, info = env.reset()
    assert [verb for verb, _ in asked[:3]] == ["clearerr", "update_param", "getstate"]
    assert asked[1][1] == {"stiffness": 2000} and "succeed" not in info
    path = np.array([start[:3]] + [body["arr"][:3] for verb, body in asked if verb == "pose"])
    steps = np.diff(path, axis=0)
    assert np.linalg.norm(steps, axis=1).max() <= 0.005 + 1e-9
    rising = int(np.argmax(path[:, 2] >= 0.1 - 1e-9))
    assert rising >= 3 and np.abs(steps[:rising, :2]).max() < 1e-9  # straight up before anything else
    assert path[rising:, 2].min() > 0.1 - 1e-3
    np.testing.assert_allclose(observation["state"]["tcp_pose"][:3], goal[:3], atol=0.005)
    assert "jointreset" not in [verb for verb, _ in asked]
    asked.clear()
    env.reset()
    verbs = [verb for verb, _ in asked]
    assert verbs.count("jointreset") == 1 and "pose" in verbs[: verbs.index("jointreset")]


def test_reset_from_above_goes_across_before_it_goes_down(server: MockServer) -> None:
    """What stands higher than the reset pose does not cut the corner."""
    post(server, "jointreset")
    high = post(server, "getpos")["pose"]
    np.testing.assert_allclose(high[:3], [0.6, 0.0, 0.15], atol=2e-3)  # where a joint reset leads
    goal = [0.62, 0.02, 0.12, *ABOVE[3:]]
    env = SerlHttpEnv(server.url, reset_pose=goal, **FAST)
    heights, places = [], []
    send = env._send
    env._send = lambda pose: (heights.append(pose[2]), places.append(pose[:2]), send(pose))[2]  # type: ignore[method-assign]
    env.reset()
    down = int(np.argmax(np.array(heights) < high[2] - 0.003))
    assert down > 0 and np.abs(np.array(places[down:]) - goal[:2]).max() < 0.003


def test_a_plug_that_slipped_is_told_until_the_next_trial(server: MockServer) -> None:
    """Seed 5 has a weak grasp: pressed beside the hole, the plug slides in the fingers, as in the simulator itself."""
    env = rehearse(server)
    env.reset(seed=5, options={"offset": (0.012, 0.0, 0.002)})
    told = [env.step(act(0.3, 0, -1))[4]["dislodged"] for _ in range(8)]
    assert told == [False] * 3 + [True] * 5
    assert env.step(act(z=0.2))[4]["dislodged"]
    assert not env.reset(seed=5)[1]["dislodged"]


def test_the_control_rate_is_kept(server: MockServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps begin a period apart while the policy thinks for less than half of it; one that thinks longer is late."""
    clock = SimpleNamespace(now=100.0)

    def sleep(seconds: float) -> None:
        assert seconds >= 0
        clock.now += seconds

    monkeypatch.setattr(serl_http, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep))
    env = rehearse(server, rate_hz=10.0)
    env.reset(seed=0)
    ended, late = [], []
    for thought in (0.0, 0.03, 0.0, 0.35, 0.0):
        clock.now += thought
        late.append(env.step(act(z=0.1))[4]["late_s"])
        ended.append(clock.now - 100.0)
    np.testing.assert_allclose(ended, [0.1, 0.2, 0.3, 0.7, 0.8])
    np.testing.assert_allclose(late, [0, 0, 0, 0.3, 0], atol=1e-9)


# What goes wrong


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("hang", "did not answer within 0.3 s; is the robot server alive"),
        ("drop", "closed the connection without an answer"),
        ("garbage", "not JSON; is this a robot server"),
        ("nan", "'pose' is [nan"),
    ],
)
def test_a_server_that_fails_is_an_error_in_time(server: MockServer, fault: str, said: str) -> None:
    env = rehearse(server, timeout_s=0.3)
    env.reset(seed=0)
    post(server, "mock/fault", {"fault": fault})
    start = time.monotonic()
    with pytest.raises(CellConnectionError) as failed:
        env.step(act(z=0.1))
    assert time.monotonic() - start < 2
    assert said in str(failed.value) and server.url in str(failed.value)
    post(server, "mock/fault", {"fault": None})
    env.step(act(z=0.1))


def test_an_arm_that_stays_where_it_is_is_an_error(server: MockServer) -> None:
    """Within a trial after five commands in free space, on the way to the reset pose at once."""
    env = rehearse(server)
    env.reset(seed=0)
    env.step(act(z=1))
    post(server, "mock/fault", {"fault": "refuse_motion"})
    for _ in range(4):
        env.step(act(z=1))
    with pytest.raises(NotFollowingError, match="5 commands, and nothing holds it"):
        env.step(act(z=1))
    real = SerlHttpEnv(server.url, reset_pose=ABOVE, **FAST)
    with pytest.raises(NotFollowingError, match=r"did not reach \[.*mm and .* rad away"):
        real.reset()


def test_a_press_on_the_face_is_not_taken_for_a_stall(server: MockServer) -> None:
    env = rehearse(server, horizon=30)
    env.reset(seed=0, options={"offset": (0.012, 0.0, 0.002)})
    for _ in range(12):
        seen = env.step(act(z=-1))[0]
    assert np.linalg.norm(seen["state"]["tcp_force"]) > 3


def test_a_force_arrives_in_the_base_frame_and_stops_the_way_back(server: MockServer) -> None:
    """What pushes along the downward tool's z pushes down in the base frame; ``base`` takes it as it is."""
    env, base = rehearse(server), rehearse(server, wrench_frame="base")
    for each in (env, base):
        each.reset(seed=0)
    calm = env.reset(seed=0)[0]["state"]["tcp_force"]
    post(server, "mock/fault", {"fault": "force", "value": [0.0, 3.0, 30.0]})
    np.testing.assert_allclose(env.reset(seed=0)[0]["state"]["tcp_force"] - calm, [0, -3, -30], atol=0.1)
    raw = base.reset(seed=0)[0]["state"]["tcp_force"] - calm * (1, -1, -1)
    np.testing.assert_allclose(raw, [0, 3, 30], atol=0.1)
    real = SerlHttpEnv(server.url, reset_pose=ABOVE, reset_force=20.0, **FAST)
    real._state = real.server.state()  # of an earlier trial
    with pytest.raises(NotFollowingError, match=r"30\.\d N on the way to the reset pose \(limit 20\)"):
        real.reset()
    with pytest.raises(RuntimeError, match="step before reset"):  # from where it stood then
        real.step(np.zeros(7, np.float32))


def test_refused_requests_pass_on_what_the_server_said(server: MockServer) -> None:
    with pytest.raises(CellConnectionError, match=r"HTTP 400: .*'arr' must be 7 finite numbers, got 2 items"):
        RobotServer(server.url, 5.0).call("pose", {"arr": [1, 2]})


def test_nobody_there() -> None:
    with mock_robot("usb-a", image_size=64) as gone:
        url = gone.url
    with pytest.raises(CellConnectionError, match=r"cannot be reached .*start the robot server"):
        RobotServer(url, 1.0).state()


def test_the_command_line_says_that_nobody_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A robot that is off is a finding of the check, which says what to do."""
    with mock_robot("usb-a", image_size=64) as gone:
        text = EXAMPLE.read_text().replace("http://127.0.0.1:5000", gone.url)
    (tmp_path / "cell.toml").write_text(text)
    with pytest.raises(SystemExit) as left:
        cli.main(["cell", "check", "--cell", str(tmp_path / "cell.toml")])
    assert left.value.code == 1
    assert "start the robot server, or correct url" in capsys.readouterr().out.replace("\n", " ")


def test_a_proxy_of_the_environment_is_not_asked(server: MockServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    assert RobotServer(server.url, 5.0).state().pose.shape == (7,)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"pose": [0] * 7}, "told no 'vel', only pose"),
        ({"pose": [0] * 6}, "'pose' has 6 numbers, expected 7"),
        ({"pose": "high"}, "'pose' is 'high', not numbers"),
        ({"force": [0.0, 0.0, 1e999]}, "'force' is [0.0, 0.0, inf], not finite"),
        ({"pose": [0.5, 0, 0.2, 1, 1, 0, 0]}, "unit quaternion x, y, z, w"),
    ],
)
def test_a_state_that_no_robot_has_is_refused(monkeypatch: pytest.MonkeyPatch, told: Any, said: str) -> None:
    robot = RobotServer("http://127.0.0.1:9", 1.0)
    good = {"pose": ABOVE, "vel": [0] * 6, "force": [0] * 3, "torque": [0] * 3, "gripper_pos": 0.5}
    answer = told if said.startswith("told no") else good | told
    monkeypatch.setattr(robot, "call", lambda *_, **__: json.dumps(answer).encode())
    with pytest.raises(CellConnectionError) as refused:
        robot.state()
    assert said in str(refused.value)


@pytest.mark.parametrize("action", [np.full(7, np.nan), np.zeros(3), np.array([0, 0, np.inf, 0, 0, 0, 0])])
def test_actions_that_are_no_actions_move_nothing(server: MockServer, action: Any) -> None:
    env = rehearse(server)
    env.reset(seed=0)
    before = post(server, "getq")
    with pytest.raises(ValueError, match="seven finite numbers"):
        env.step(action)
    assert post(server, "getq") == before


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"url": "10.0.0.1:5000"}, "url must be"),
        ({"timeout_s": 0}, "timeout_s must be"),
        ({"rate_hz": 0}, "rate_hz must be above 0"),
        ({"metres_per_unit": float("nan")}, "metres_per_unit must be above 0"),
        ({"reset_pose": None}, "reset_pose is missing"),
        ({"reset_pose": [0.5, 0, 0.2, 0, 0, 0]}, "reset_pose must be x, y, z in m and a unit quaternion"),
        ({"cameras": {"wrist_1": "usb"}}, "camera 'wrist_1' must be '/path' on the robot server"),
        ({"wrench_frame": "world"}, "wrench_frame must be 'tool' or 'base'"),
        ({"connector": "usb-a"}, "say rehearsal = true"),
        ({"image_shape": (64,)}, "image_shape must be"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as refused:
        SerlHttpEnv(**{"url": "http://127.0.0.1:9", "reset_pose": ABOVE, **settings})
    assert said in str(refused.value)
    with pytest.raises(RuntimeError, match="step before reset"):
        SerlHttpEnv("http://127.0.0.1:9", reset_pose=ABOVE).step(act())


# Cameras


def test_a_picture_of_another_size_says_which(server: MockServer) -> None:
    env = rehearse(server, image_shape=(48, 64))
    with pytest.raises(CellConnectionError, match=r"gives 64 x 64 px.*image_shape = \[64, 64\]"):
        env.reset(seed=0)
    lost = rehearse(server, cameras={"wrist_1": "/getstate"})
    with pytest.raises(CellConnectionError, match="HTTP 405"):
        lost.reset(seed=0)


def test_the_overview_is_a_camera_too(server: MockServer) -> None:
    env = rehearse(server, cameras={"side": "/image/overview"}, image_shape=(480, 640))
    seen = env.reset(seed=0)[0]["images"]
    assert set(seen) == {"side"} and seen["side"].std() > 5


def test_devices_give_rgb_of_now(server: MockServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV's BGR is turned, and the picture that waited is dropped; RealSense is asked for what we want."""
    opened: list[Any] = []

    class Capture:
        def __init__(self, device: int) -> None:
            self.device, self.count, self.released = device, 0, False
            opened.append(self)

        def isOpened(self) -> bool:
            return self.device == 2

        def set(self, prop: str, value: float) -> None:
            setattr(self, prop, value)

        def grab(self) -> None:
            self.count += 1

        def read(self) -> Any:
            self.count += 1
            return self.device == 2, np.full((64, 64, 3), (1, 2, self.count), np.uint8)

        def release(self) -> None:
            self.released = True

    names = ("CAP_PROP_FRAME_HEIGHT", "CAP_PROP_FRAME_WIDTH", "CAP_PROP_BUFFERSIZE")
    fake = SimpleNamespace(VideoCapture=Capture, **{name: name for name in names})
    monkeypatch.setitem(sys.modules, "cv2", fake)
    log: list[Any] = []

    class Pipeline:
        def start(self, config: Any) -> None:
            log.append("start")

        def wait_for_frames(self, wait: int) -> Any:
            log.append(wait)
            if log.count(wait) > 1:
                raise RuntimeError("Frame didn't arrive")
            frame = SimpleNamespace(get_data=lambda: np.full((64, 64, 3), 9, np.uint8))
            return SimpleNamespace(get_color_frame=lambda: frame)

        def stop(self) -> None:
            log.append("stop")

    class Config:
        def enable_device(self, serial: str) -> None:
            log.append(serial)

        def enable_stream(self, *stream: Any) -> None:
            log.append(stream)

    kinds = {"stream": SimpleNamespace(color="color"), "format": SimpleNamespace(rgb8="rgb8")}
    monkeypatch.setitem(sys.modules, "pyrealsense2", SimpleNamespace(pipeline=Pipeline, config=Config, **kinds))
    env = rehearse(server, cameras={"usb": "opencv:2", "depth": "realsense:8412"}, timeout_s=1.5)
    seen = env.reset(seed=0)[0]["images"]
    assert seen["usb"][0, 0].tolist() == [2, 2, 1] and seen["depth"][0, 0].tolist() == [9, 9, 9]
    (capture,) = opened
    assert (capture.CAP_PROP_FRAME_HEIGHT, capture.CAP_PROP_FRAME_WIDTH, capture.CAP_PROP_BUFFERSIZE) == (64, 64, 1)
    assert log == ["8412", ("color", 64, 64, "rgb8", 30), "start", 1500]
    with pytest.raises(CellConnectionError, match="RealSense 8412 gives no picture"):
        env.step(act(z=0.1))
    env.close()
    assert capture.released and log[-1] == "stop"
    with pytest.raises(CellConnectionError, match="cannot open device 3"):
        rehearse(server, cameras={"usb": "opencv:3"}).reset(seed=0)


@pytest.mark.parametrize(("module", "source"), [("cv2", "opencv:0"), ("pyrealsense2", "realsense:1")])
def test_a_missing_library_names_the_extra(
    server: MockServer, monkeypatch: pytest.MonkeyPatch, module: str, source: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=r"pip install -e '.\[cameras\]'"):
        rehearse(server, cameras={"wrist_1": source}).reset(seed=0)


# As a cell of lotj


def example(server: MockServer) -> Any:
    """The example's file, pointed at the test's server."""
    spec = load_cell(EXAMPLE)
    return replace(spec, kwargs={**spec.kwargs, "url": server.url, "image_shape": [64, 64]})


def test_the_example_is_a_fit_cell(server: MockServer) -> None:
    """``lotj cell check`` finds nothing bad in the mock, and names what is bad in one with a frozen camera."""
    findings = check_cell(example(server), "usb-a", 32, steps=12)
    assert [f for f in findings if f.good is False] == [] and len(findings) > 8
    post(server, "mock/fault", {"fault": "freeze_camera"})
    frozen = check_cell(example(server), "usb-a", 32, steps=12)
    assert any(f.good is False and "frozen" in f.message for f in frozen)


def test_the_safety_layer_sees_faults_through_http(server: MockServer) -> None:
    with SafeCell(CellEnv(example(server), "usb-a", image_size=32)) as safe:
        safe.reset(seed=0)
        post(server, "mock/fault", {"fault": "force", "value": [0.0, 0.0, 40.0]})
        _, _, _, truncated, info = safe.step(act(z=0.1)[:3])
        assert truncated and "(limit 16)" in info["safety"]
        post(server, "mock/fault", {"fault": "drop"})
        with pytest.raises(CellStoppedError, match="closed the connection"):
            safe.step(act(z=0.1)[:3])
        post(server, "mock/fault", {"fault": None})


def test_data_is_collected_over_http(server: MockServer, tmp_path: Path) -> None:
    """The example's scripted expert fills a store, two connectors one after the other in the mock's clamp."""
    path = tmp_path / "cell.toml"
    text = EXAMPLE.read_text().replace("http://127.0.0.1:5000", server.url).replace("[128, 128]", "[64, 64]")
    path.write_text(text)
    config = CellCollectConfig(("usb-a", "din-5"), 3, image_size=32)
    found = collect_on_cell(config, path, tmp_path / "store.sqlite")
    assert found.trajectories == 6 and found.successes >= 2
    with TrajectoryStore(tmp_path / "store.sqlite") as store:
        assert set(store.index.connector.tolist()) == {"usb-a", "din-5"}


def test_the_command_serves_until_it_is_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It prints where it answers, answers there, and frees the port at the end."""
    asked: dict[str, Any] = {}

    def interrupted(server: MockServer) -> None:
        asked["truth"], asked["url"] = post(server, "mock/truth"), server.url
        raise KeyboardInterrupt

    monkeypatch.setattr(MockServer, "wait", interrupted)
    cli.main(["cell", "mock-server", "--connector", "rj45", "--port", "0", "--image-size", "64"])
    assert asked["truth"]["connector"] == "rj45"
    said = capsys.readouterr().out
    assert asked["url"] in said and "Stopped" in said
    with pytest.raises(CellConnectionError, match="cannot be reached"):
        RobotServer(asked["url"], 1.0).state()
