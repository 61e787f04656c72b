"""Own cells: what their file says, what the adapter maps, and that no policy gets around the safety layer."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from lotj import cli
from lotj.cells.adapter import CellEnv, cell_folder, pick, to_square
from lotj.cells.calibration import Calibration, load_calibration, save_calibration
from lotj.cells.check import check_cell
from lotj.cells.collecting import CellCollectConfig, StartAbove, calibrate, collect_on_cell
from lotj.cells.safety import CellStoppedError, JammedError, SafeCell
from lotj.cells.spec import CellSpec, CellSpecError, load_cell
from lotj.cells.template import TEMPLATE, filled
from lotj.data.store import TrajectoryStore
from lotj.presets import load_preset
from lotj.rollout import rollout

STIFFNESS = 2000.0
"""N/m of the toy's table at z = 0."""


class ToyRobot(gymnasium.Env[Any, Any]):
    """SERL's layout: a point that goes where it is told, above a table that pushes back."""

    def __init__(self, **faults: Any) -> None:
        self.action_space = spaces.Box(-1.0, 1.0, (7,), np.float32)
        self.observation_space = spaces.Dict()
        self.faults = faults
        self.start = np.array(faults.get("start", (0.0, 0.0, 0.03)))
        self.position = self.start.copy()
        self.visited: list[np.ndarray] = []
        self.info: dict[str, Any] = {}
        self.resets = 0
        self._count = 0

    def observation(self) -> dict[str, Any]:
        self._count += 0 if self.faults.get("frozen") else 1
        force = np.array([0.0, 0.0, max(0.0, -STIFFNESS * self.position[2])])
        force = np.asarray(self.faults.get("force", force), np.float64)
        state = {
            "tcp_pose": np.array([*self.position, 1, 0, 0, 0], np.float32),
            "tcp_force": force,
            "tcp_torque": np.zeros(3),
        }
        image = np.random.default_rng(self._count).integers(0, 255, (24, 32, 3), np.uint8)
        # The second camera may freeze alone.
        other = 255 - image if not self.faults.get("second frozen") else np.full((24, 32, 3), 7, np.uint8)
        return {"state": state, "images": {"wrist_1": image, "wrist_2": other}}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.resets += 1
        self.position = self.start.copy()
        return self.observation(), {}

    def step(self, action: Any) -> Any:
        assert np.abs(action).max() <= 1 + 1e-6 and action.shape == (7,)
        if not self.faults.get("jammed") or action[2] <= 0:
            self.position = self.position + 0.01 * np.asarray(action[:3], np.float64)
        self.visited.append(self.position.copy())
        return self.observation(), self.faults.get("reward", 0.0), bool(self.faults.get("done")), False, dict(self.info)


SPEC = CellSpec(
    name="toy",
    env="nowhere:Toy-v0",
    metres_per_unit=0.01,
    rate_hz=10.0,
    compliance="impedance",
    workspace_low=(-0.05, -0.05, -0.02),
    workspace_high=(0.05, 0.05, 0.08),
    force=12.0,
    torque=1.0,
)


def cell(spec: CellSpec = SPEC, **options: Any) -> tuple[SafeCell, ToyRobot]:
    faults = options.pop("faults", {})
    robot = ToyRobot(**faults)
    stop_file, ledger = options.pop("stop_file", None), options.pop("ledger", None)
    return SafeCell(CellEnv(spec, "plug", image_size=16, env=robot, **options), stop_file, ledger), robot


class Constant:
    """Always the same action."""

    def __init__(self, *action: float) -> None:
        self.action = np.array(action, np.float32)

    def reset(self) -> None:
        pass

    def act(self, observation: Any, rng: Any, explore: bool = False) -> Any:
        return self.action


# What the file says


def test_the_template_loads_and_refuses_practice_naming_all_that_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "cell.toml"
    path.write_text(TEMPLATE)
    spec = load_cell(path)
    assert (spec.success, spec.contact, spec.horizon) == ("ask", 3.0, 20)
    with pytest.raises(CellSpecError) as refused:
        spec.require_contract()
    for name in ("rate_hz", "compliance", "metres_per_unit", "workspace_low", "workspace_high", "force", "torque"):
        assert name in str(refused.value)


@pytest.mark.parametrize("missing", ["rate_hz", "compliance", "metres_per_unit", "workspace_high", "force", "torque"])
def test_practice_refuses_a_cell_that_lacks_one_declaration(missing: str) -> None:
    with pytest.raises(CellSpecError, match=missing):
        cell(replace(SPEC, **{missing: None}))


def test_the_commented_fields_of_the_template_are_real(tmp_path: Path) -> None:
    """Uncommented, every suggestion but ``info/<key>`` is a field that loads."""
    lines = [
        line.removeprefix("# ") if line.startswith("# ") and " = " in line and "<key>" not in line else line
        for line in TEMPLATE.splitlines()
    ]
    path = tmp_path / "cell.toml"
    path.write_text("\n".join(lines))
    load_cell(path).require_contract()


def test_what_an_environment_tells_about_itself_is_filled_in(tmp_path: Path) -> None:
    path = tmp_path / "cell.toml"
    cli.main(["cell", "new", "--out", str(path), "--env", "lotj:lotj/SerlInsertion-v0"])
    spec = load_cell(path)
    assert (spec.env, spec.image, spec.tcp_force) == ("lotj:lotj/SerlInsertion-v0", "images/wrist_1", "state/tcp_force")
    with pytest.raises(SystemExit):  # nothing is overwritten
        cli.main(["cell", "new", "--out", str(path)])
    text, notes = filled("lotj:lotj/Insertion-v0")
    assert 'image = "image"' in text and any("tcp_pose: not found" in note for note in notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = 'a'", "'env' is missing"),
        ("name = 'a'\nenv = 'b'\n[limts]\nforce = 1", r"unknown section \[limts\]"),
        ("name = 'a'\nenv = 'b'\n[control]\nforce = 1", r"'force' belongs to \[limits\]"),
        ("name = 'a'\nenv = 'b'\n[limits]\nforce = -1", "force must be a number above 0, got -1"),
        ("name = 'a'\nenv = 'b'\n[limits]\nforce = true", "force must be a number above 0, got True"),
        ("name = 'a'\nenv = 'b'\n[control]\ncompliance = 'stiff'", "impedance, admittance"),
        ("name = 'a'\nenv = 'b'\n[action]\ncomponents = [0, 0, 1]", "three different"),
        ("name = 'a'\nenv = 'b'\n[success]\nfrom = 'magic'", "'info/<key>'"),
        (
            "name = 'a'\nenv = 'b'\n[observation]\ntcp_force = 'none'\n[limits]\nforce = 5",
            "name the sensor, or say inf",
        ),
        ("name = 'a'\nenv = 'b'\n[limits]\nforce = inf", "unlimited although"),
        (
            "name = 'a'\nenv = 'b'\n[limits]\nworkspace_low = [0, 0, 1]\nworkspace_high = [1, 1, 0]",
            "below workspace_high",
        ),
        ("name = 'a'\nenv = 'b'\n[observation]\nimage = 3", "image must be a path, or a list"),
        ("name = 'a'\nenv = 'b'\n[observation]\nimage = ''", "image must be a path, or a list"),
        ("name = 'a'\nenv = 'b'\n[observation]\ncrop = 5", "crop must be"),
        ("name = 'a'\nenv = 'b'\n[observation]\nimage = []", "image must be a path, or a list"),
        ("name = 'a'\nenv = 'b'\n[observation]\nimage = [1]", "image must be a path, or a list"),
        ("name = 'a'\nenv = 'b'\n[observation]\ncrop = [0, 0, 8]", "crop must be"),
        ("name = 'a'\nenv = 'b'\n[observation]\ncrop = [[0, 0, 8, 0]]", "crop must be"),
        ("name = 'a'\nenv = 'b'\n[observation]\ncrop = [[0, 0, 8, 8], [0, 0, 8, 8]]", "crop has 2 entries for 1"),
        ("name = 'a'\nenv = 'b'\n[limits]\nworkspace_low = 0.1", "workspace_low must be three finite numbers"),
        ("name = 'a'\nenv = 'b'\n[action]\ncomponents = 3", "components must be three different"),
        ("name = 'a'\nenv = 'b'\n[action]\nothers = 5.0", r"others must lie in \[-1, 1\]"),
        ("name = 'a'\nenv = 'b'\n[action]\nmetres_per_unit = inf", "metres_per_unit must be finite"),
        ("name = 'a'\nenv = 'b'\n[control]\nrate_hz = inf", "rate_hz must be finite"),
        ("name = 'a'\nenv = 'b'\n[limits]\nstale_images = 1", "stale_images must be 0"),
        ("name = 'a'\nenv = 'b'\n[observation]\nstate = 'state/tcp_pose'", "state must be a list of paths"),
        ("name = ", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_told_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "cell.toml"
    path.write_text(text)
    with pytest.raises(CellSpecError, match=message):
        load_cell(path)


def test_an_environment_that_does_not_exist_is_named() -> None:
    with pytest.raises(CellSpecError, match="'nowhere:Toy-v0' cannot be imported"):
        CellEnv(SPEC, "plug", image_size=16)


# What the adapter maps


def test_several_cameras_stand_side_by_side(tmp_path: Path) -> None:
    """As many as the networks look at, in the order of the file, each cropped for itself; too few are refused."""
    path = tmp_path / "cell.toml"
    images = 'image = ["images/wrist_2", "images/wrist_1"]\ncrop = [[0, 0, 16, 16], [8, 16, 16, 16]]'
    path.write_text(f"name = 'a'\nenv = 'b'\n[observation]\n{images}\n[action]\nmetres_per_unit = 0.01")
    spec = load_cell(path)
    robot = ToyRobot()
    env = CellEnv(spec, "plug", image_size=16, cameras=2, env=robot)
    seen, _ = env.reset()
    assert env.observation_space["image"].shape == seen["image"].shape == (16, 32, 3)  # type: ignore[index]
    robot._count -= 1
    raw = robot.observation()["images"]
    np.testing.assert_array_equal(seen["image"][:, :16], raw["wrist_2"][:16, :16])
    np.testing.assert_array_equal(seen["image"][:, 16:], raw["wrist_1"][8:, 16:])
    alone = CellEnv(spec, "plug", image_size=16, env=robot).reset()[0]["image"]
    assert alone.shape == (16, 16, 3)
    with pytest.raises(CellSpecError, match=r"has 1 camera\(s\), the networks look at 2.*--cameras 1"):
        CellEnv(SPEC, "plug", image_size=16, cameras=2, env=robot)


def test_paths_find_nested_flat_and_sliced_values() -> None:
    observation = {"a": {"b": np.arange(5)}, "a/c": np.ones(2)}
    assert pick(observation, "a/b[1:3]", "env").tolist() == [1, 2]
    assert pick(observation, "a/c", "env").tolist() == [1, 1]
    with pytest.raises(CellSpecError, match=r"no 'a/d' in its observations; at 'd' there is only b"):
        pick(observation, "a/d", "env")


def test_pictures_are_cropped_and_averaged_down() -> None:
    """Blocks of 2 x 2 px become their mean; the centre square is what is left of a wide picture."""
    image = np.zeros((4, 6, 3), np.uint8)
    image[0:2, 1:3] = 100
    image[0, 1] = 200
    small = to_square(image, 2, None, "camera")
    assert small.shape == (2, 2, 3)
    assert small[0, 0].tolist() == [125, 125, 125] and small[1, 1].tolist() == [0, 0, 0]
    with pytest.raises(CellSpecError, match="channels first"):
        to_square(np.zeros((3, 8, 8), np.uint8), 2, None, "camera")
    with pytest.raises(CellSpecError, match="outside"):
        to_square(image, 2, (0, 3, 4, 4), "camera")


def test_actions_go_to_their_components_and_the_others_are_held() -> None:
    sent: list[np.ndarray] = []

    class Robot(ToyRobot):
        def step(self, action: Any) -> Any:
            sent.append(np.array(action))
            return super().step(action)

    spec = replace(SPEC, components=(2, 0, 1), others=0.25)
    env = CellEnv(spec, "plug", image_size=16, env=Robot())
    env.reset()
    env.step(np.array([0.1, 0.2, 0.3], np.float32))
    assert sent[0].tolist() == pytest.approx([0.2, 0.3, 0.1, 0.25, 0.25, 0.25, 0.25])


def test_an_end_of_the_environments_own_tells_a_learner_nothing() -> None:
    """It is a truncation without reward; only who asks for ground truth is paid and ended."""
    spec = replace(SPEC, success="reward")
    env, _ = cell(spec, faults={"done": True, "reward": 1.0})
    env.reset()
    _, reward, terminated, truncated, info = env.step(np.zeros(3))
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert not any(key.startswith("privileged/") for key in info)
    env, _ = cell(spec, faults={"done": True, "reward": 1.0}, ground_truth=True)
    env.reset()
    _, reward, terminated, truncated, info = env.step(np.zeros(3))
    assert (reward, terminated, truncated, info["privileged/success"]) == (1.0, True, False, True)


@pytest.mark.parametrize(
    "info",
    [
        {"intervene_action": np.array([0.5, -0.5, 0.25, 0, 0, 0, 0])},
        {"is_intervention": True, "teleop_action": np.array([0.5, -0.5, 0.25, 0, 0, 0, 0])},
    ],
)
def test_a_person_who_takes_over_is_recorded_as_such(info: dict[str, Any]) -> None:
    env, robot = cell(replace(SPEC, horizon=3))
    robot.info = info
    trial = rollout(env, Constant(0, 0, 0.1), np.random.default_rng(0))
    assert trial.action.tolist() == [[0.5, -0.5, 0.25]] * 3
    assert trial.privileged["intervention"].tolist() == [False, True, True, True]
    robot.info = {"is_intervention": False, "teleop_action": np.ones(7)}
    trial = rollout(env, Constant(0, 0, 0.1), np.random.default_rng(0))
    np.testing.assert_allclose(trial.action, [[0, 0, 0.1]] * 3, rtol=1e-6)
    assert "intervention" not in trial.privileged


# No policy gets around the safety layer


@settings(max_examples=40, deadline=None)
@given(
    actions=st.lists(st.tuples(*[st.floats(-1e6, 1e6, allow_nan=False)] * 3), min_size=1, max_size=60),
    step=st.sampled_from([None, 0.004]),
)
def test_whatever_is_asked_for_the_tool_stays_in_its_box_and_its_steps_short(actions: list[Any], step: Any) -> None:
    env, robot = cell(replace(SPEC, step=step, force=1e6))
    env.reset()
    for action in actions:
        env.step(np.array(action))
    path = np.array([robot.start, *robot.visited])
    low, high = np.array(SPEC.workspace_low), np.array(SPEC.workspace_high)
    assert (path >= low - 1e-7).all() and (path <= high + 1e-7).all()
    longest = np.linalg.norm(np.diff(path, axis=0), axis=1).max()
    assert longest <= (step or 0.01 * np.sqrt(3)) + 1e-7


@pytest.mark.parametrize("step", [None, 0.002])
def test_backing_off_and_pulling_out_keep_to_the_box_and_the_step(step: float | None) -> None:
    """Overloaded all the time, near the top of its box, and then led out of it: up is no further than anywhere else."""
    env, robot = cell(replace(SPEC, step=step, horizon=100))
    with env:
        env.reset()
        env.step(np.array([0, 0, 1.0]))
        robot.faults["force"] = (0.0, 0.0, 40.0)
        for _ in range(60):
            assert "force" in env.step(np.array([0, 0, 1.0]))[4]["safety"]
        robot.faults.pop("force")
        env.extract()
    path = np.array([robot.start, *robot.visited])[:, 2]
    assert path.max() <= 0.08 + 1e-7 and path[-1] == pytest.approx(0.08, abs=1e-3)
    assert np.abs(np.diff(path)).max() <= (step or 0.01) + 1e-7


def test_an_arm_that_creeps_out_of_its_box_is_led_back() -> None:
    """A controller that drifts by 1 mm a step along x, at the wall, under a policy that pushes against it."""

    class Creeping(ToyRobot):
        def step(self, action: Any) -> Any:
            result = super().step(action)
            self.position[0] += 0.001
            return self.observation(), *result[1:]

    robot = Creeping()
    env = SafeCell(CellEnv(replace(SPEC, horizon=100), "plug", image_size=16, env=robot))
    env.reset()
    for _ in range(40):
        env.step(np.array([1.0, 0, 0]))
    assert max(position[0] for position in robot.visited) <= 0.05 + 0.001 + 1e-9
    assert robot.position[0] == pytest.approx(0.051)


def test_the_recorded_action_is_the_one_that_was_carried_out() -> None:
    env, robot = cell(replace(SPEC, horizon=12))
    trial = rollout(env, Constant(1, 0, 0), np.random.default_rng(0))
    path = np.array([robot.start, *robot.visited[:12]])
    np.testing.assert_allclose(np.diff(path, axis=0), 0.01 * trial.action, atol=1e-8)
    assert trial.action[-1, 0] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("action", [(np.nan, 0, 0), (np.inf, 0, 0), (0, 0), (0, 0, 0, 0)])
def test_what_is_no_action_never_reaches_the_robot(action: tuple[float, ...]) -> None:
    env, robot = cell()
    env.reset()
    with pytest.raises(ValueError, match="three finite numbers"):
        env.step(np.array(action))
    assert robot.visited == []


def test_pressing_ends_the_trial_and_backs_off() -> None:
    """The table pushes back 20 N for each centimetre: the first reading above 12 N ends the trial."""
    env, robot = cell()
    trial = rollout(env, Constant(0, 0, -1), np.random.default_rng(0))
    assert trial.truncated and len(trial) == 4
    assert np.min(robot.visited, axis=0)[2] == pytest.approx(-0.01)
    assert robot.visited[-1][2] == pytest.approx(0.0)
    env.reset()
    for _ in range(4):
        _, _, _, truncated, info = env.step(np.array([0, 0, -1]))
    assert truncated and "a force of 20.00 N (limit 12)" in info["safety"]


@pytest.mark.parametrize("inserted", [False, True])
def test_a_person_is_asked_about_a_trial_that_was_cut_off(inserted: bool) -> None:
    """Once, and after the robot has backed off; the answer is success, and pays who asks for ground truth."""
    heights: list[float] = []

    def ask(question: str) -> bool:
        heights.append(robot.position[2])
        return inserted

    env, robot = cell(replace(SPEC, success="ask"), ground_truth=True, ask=ask)
    trial = rollout(env, Constant(0, 0, -1), np.random.default_rng(0))
    assert len(trial) == 4 and heights == [pytest.approx(0.0)]
    assert (trial.terminated, trial.truncated, trial.reward.sum()) == (inserted, not inserted, float(inserted))
    assert trial.privileged["success"].tolist() == [False] * 4 + [inserted]


def test_above_the_limit_only_the_way_up_is_open() -> None:
    env, robot = cell()
    env.reset()
    robot.faults["force"] = (0, 30.0, 0)
    env.step(np.array([1.0, 1.0, -1.0]))
    here = robot.position.copy()
    env.step(np.array([1.0, 1.0, -1.0]))
    assert robot.position[:2].tolist() == here[:2].tolist() and robot.position[2] >= here[2]


def test_contact_is_budgeted_by_trial_and_by_practice(tmp_path: Path) -> None:
    """10 N for 0.1 s a step: 1 N s. The trial's budget ends the trial, the practice's outlives the process."""
    spec = replace(SPEC, trial_impulse=2.5, practice_impulse=7.5)
    ledger = tmp_path / "contact.json"
    env, _ = cell(spec, faults={"force": (0, 0, 10.0)}, ledger=ledger)
    lengths = [len(rollout(env, Constant(0.1, 0, 0), np.random.default_rng(0))) for _ in range(2)]
    assert lengths == [3, 3]
    env.close()
    again, _ = cell(spec, faults={"force": (0, 0, 10.0)}, ledger=ledger)
    with pytest.raises(CellStoppedError, match=r"8 N s of contact in this practice, the budget is 7\.5"):
        rollout(again, Constant(0.1, 0, 0), np.random.default_rng(0))


def test_a_frozen_camera_stops_the_robot_in_a_safe_pose() -> None:
    env, robot = cell(faults={"frozen": True})
    with pytest.raises(CellStoppedError, match="5 identical pictures"):
        rollout(env, Constant(0, 0, -0.1), np.random.default_rng(0))
    assert robot.position[2] == pytest.approx(SPEC.workspace_high[2], abs=1e-3)  # type: ignore[index]


def test_either_camera_of_two_may_be_the_frozen_one() -> None:
    """Where a run looks at the second camera, a frozen one stops the robot; where it does not, nobody minds."""
    both = replace(SPEC, image=("images/wrist_1", "images/wrist_2"))
    for fault in ("frozen", "second frozen"):
        env, _ = cell(both, cameras=2, faults={fault: True})
        with pytest.raises(CellStoppedError, match="5 identical pictures"):
            rollout(env, Constant(0, 0, -0.1), np.random.default_rng(0))
    env, _ = cell(both, faults={"second frozen": True})
    assert len(rollout(env, Constant(0, 0, -0.1), np.random.default_rng(0))) > 5


def test_a_tool_that_rests_may_see_the_same_picture_for_long() -> None:
    env, _ = cell(replace(SPEC, horizon=30), faults={"frozen": True})
    trial = rollout(env, Constant(0, 0, 0), np.random.default_rng(0))
    assert len(trial) == 30


@pytest.mark.parametrize("sensor", ["force", "start"])
def test_a_sensor_that_fails_stops_the_robot(sensor: str) -> None:
    env, robot = cell()
    env.reset()
    if sensor == "force":
        robot.faults["force"] = (np.nan, 0, 0)
    else:
        robot.position = np.array([0, np.inf, 0])
    with pytest.raises(CellStoppedError, match="not finite"):
        env.step(np.zeros(3))


def test_a_robot_that_does_not_answer_is_a_stop() -> None:
    env, robot = cell()
    env.reset()

    def gone(action: Any) -> Any:
        raise ConnectionError("no route to robot")

    robot.step = gone  # type: ignore[method-assign]
    with pytest.raises(CellStoppedError, match="did not carry out a step: no route to robot"):
        env.step(np.zeros(3))
    env, robot = cell()
    robot.reset = lambda **_: gone(None)  # type: ignore[method-assign]
    with pytest.raises(CellStoppedError, match="did not reset: no route to robot"):
        env.reset()


def test_the_stop_file_stops_and_names_itself(tmp_path: Path) -> None:
    stop = tmp_path / "STOP"
    env, robot = cell(stop_file=stop)
    env.reset()
    env.step(np.array([0.5, 0, 0]))
    stop.touch()
    with pytest.raises(CellStoppedError, match="STOP exists"):
        env.step(np.array([0.5, 0, 0]))
    assert robot.position[2] == pytest.approx(0.08, abs=1e-3)
    before = len(robot.visited)
    with pytest.raises(CellStoppedError):
        env.reset()
    assert robot.resets == 1 and len(robot.visited) - before <= 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_in_a_safe_pose_and_leaves_the_handlers_as_they_were(number: int) -> None:
    held = signal.getsignal(number)
    env, robot = cell()
    with pytest.raises(KeyboardInterrupt), env:
        env.reset()
        env.step(np.array([0.5, 0, 0]))
        os.kill(os.getpid(), number)
        env.step(np.array([0.5, 0, 0]))
    assert robot.position[2] == pytest.approx(0.08, abs=1e-3)
    assert robot.position[0] == pytest.approx(0.005)
    assert signal.getsignal(number) is held


def test_ctrl_c_stops_whichever_cell_is_moving() -> None:
    """Of two cells of a process the one entered first moves when the signal comes."""
    (first, robot), (second, _) = cell(), cell()
    with pytest.raises(KeyboardInterrupt), first, second:
        first.reset()
        second.reset()
        first.step(np.array([0.5, 0, 0]))
        os.kill(os.getpid(), signal.SIGINT)
        first.step(np.array([0.5, 0, 0]))
    assert robot.position[0] == pytest.approx(0.005) and robot.position[2] == pytest.approx(0.08, abs=1e-3)
    third, _ = cell()
    with third:
        third.reset()
        third.step(np.array([0.5, 0, 0]))


def test_a_plug_that_is_in_stays_in() -> None:
    """Closing leaves the tool where it is after ``stay``: not after a further step, another trial, an error, Ctrl-C."""

    def left_at(after: Any = lambda safe: None, *, stays: bool = True) -> float:
        safe, robot = cell()
        with suppress(RuntimeError, KeyboardInterrupt), safe:
            safe.reset()
            safe.step(np.array([0.0, 0.0, -1.0]))
            assert not stays or safe.stay()
            after(safe)
        return float(robot.position[2])

    def fail(safe: SafeCell) -> None:
        raise RuntimeError("something else")

    top = SPEC.workspace_high[2]
    assert left_at() == pytest.approx(0.02)
    assert left_at(stays=False) == pytest.approx(top, abs=1e-3)
    assert left_at(lambda safe: safe.step(np.zeros(3))) == pytest.approx(top, abs=1e-3)
    assert left_at(lambda safe: safe.reset()) == pytest.approx(top, abs=1e-3)
    assert left_at(fail) == pytest.approx(top, abs=1e-3)
    assert left_at(lambda safe: os.kill(os.getpid(), signal.SIGINT)) == pytest.approx(top, abs=1e-3)


def test_staying_is_not_pressing_on_and_obeys(tmp_path: Path) -> None:
    """The last target is where the tool is, and a stop that was asked for comes first."""
    sent: list[Any] = []
    safe, robot = cell(stop_file=tmp_path / "STOP")
    step = robot.step
    robot.step = lambda action: (sent.append(np.array(action)), step(action))[1]  # type: ignore[method-assign]
    with suppress(CellStoppedError), safe:
        safe.reset()
        safe.step(np.array([0.0, 0.0, -1.0]))
        assert safe.stay() and not sent[-1][:3].any()
        (tmp_path / "STOP").touch()
        with pytest.raises(CellStoppedError, match="exists; delete it"):
            safe.stay()


def test_a_robot_that_has_backed_off_does_not_stay() -> None:
    """After a press above the limit it is no longer where the picture saw it; from the next trial on it may stay."""
    safe, robot = cell()
    with safe:
        safe.reset()
        for _ in range(4):
            *_, truncated, info = safe.step(np.array([0.0, 0.0, -1.0]))
            if truncated:
                break
        assert "force" in info["safety"] and not safe.stay()
        safe.reset()
        assert safe.stay()
    assert robot.position[2] == pytest.approx(robot.start[2])


def test_any_error_leaves_the_robot_in_a_safe_pose() -> None:
    env, robot = cell()
    with pytest.raises(ZeroDivisionError), env:
        env.reset()
        env.step(np.array([0, 0, -1.0]))
        raise ZeroDivisionError
    assert robot.position[2] == pytest.approx(0.08, abs=1e-3)


@pytest.mark.parametrize("speed", [0.3, 0.7, 1.0])
def test_a_file_that_turns_out_wrong_leaves_the_robot_in_a_safe_pose_too(speed: float) -> None:
    """What is said of the end of a trial is not said again of each step on the way up; and a first step up that only
    makes good the last one down is not taken for a robot that does not obey."""
    spec = replace(SPEC, success="info/success", horizon=5)
    env, robot = cell(spec, ground_truth=True, faults={"start": (0.0, 0.0, 0.06)})
    robot.info = {"succeed": True}
    with pytest.raises(CellSpecError, match="'info/success'"), env:
        rollout(env, Constant(0, 0, -speed), np.random.default_rng(0))
    assert robot.position[2] == pytest.approx(0.08, abs=1e-3)


class Claims:
    """A judge that sees success in every picture."""

    def reset(self) -> None:
        pass

    def observe(self, image: Any) -> Any:
        return SimpleNamespace(success=True)


def test_nothing_is_paid_for_pressing_above_the_limit() -> None:
    """The trial was cut off there; the same picture pays where nothing is above a limit."""
    env, _ = cell()
    paid = rollout(env, Constant(0, 0, -0.7), np.random.default_rng(0), judge=Claims())
    assert paid.terminated and paid.reward.tolist() == [1.0] and not env.cut_off
    env, _ = cell(faults={"start": (0.0, 0.0, 0.0)})
    cut_off = rollout(env, Constant(0, 0, -0.7), np.random.default_rng(0), judge=Claims())
    assert env.cut_off and not cut_off.terminated and cut_off.truncated and cut_off.reward.tolist() == [0.0]


def test_after_a_trial_the_plug_is_pulled_out_before_anything_else() -> None:
    env, robot = cell(replace(SPEC, horizon=2))
    rollout(env, Constant(0, 0, -1), np.random.default_rng(0))
    low = robot.position[2]
    env.reset()
    rise = [position[2] for position in robot.visited[2:]]
    assert rise[0] > low and rise[-1] == pytest.approx(low + SPEC.retract_height, abs=1e-3)
    assert robot.resets == 2


def test_a_jammed_plug_pauses_with_what_to_do() -> None:
    env, robot = cell(replace(SPEC, horizon=2), faults={"jammed": True})
    rollout(env, Constant(0, 0, -0.5), np.random.default_rng(0))
    with pytest.raises(JammedError, match="Free it by hand, then repeat the same command"):
        env.reset()
    assert robot.resets == 1


def test_a_plug_that_comes_only_above_the_limit_is_jammed() -> None:
    """However far it comes: two pulls, and a person is called; leaving the cell does not pull on."""

    class Latched(ToyRobot):
        def step(self, action: Any) -> Any:
            if action[2] > 0:
                self.faults["force"] = (0.0, 0.0, -60.0)
            return super().step(action)

    robot = Latched()
    env = SafeCell(CellEnv(SPEC, "plug", image_size=16, env=robot))
    with pytest.raises(JammedError, match=r"came only 20\.0 of 30\.0 mm \(force 60\.0 N\)"), env:
        env.reset()
        env.step(np.array([0, 0, -0.1], np.float32))
        env.extract()
    assert len(robot.visited) == 3


def test_a_robot_that_starts_outside_or_under_load_does_not_move() -> None:
    env, robot = cell(faults={"start": (0.2, 0, 0.03)})
    with pytest.raises(CellStoppedError, match="outside of its workspace"), env:
        env.reset()
    assert not robot.visited
    env, robot = cell(faults={"force": (0, 0, 20.0)})
    with pytest.raises(CellStoppedError, match="before it has moved"), env:
        env.reset()
    assert not robot.visited


def test_a_reset_that_failed_moves_nothing_afterwards() -> None:
    """Where the arm stands is not known any more: no step starts from where the last trial ended."""
    env, robot = cell(replace(SPEC, horizon=2))

    def fail(**_: Any) -> None:
        raise RuntimeError("told to stay")

    with pytest.raises(CellStoppedError, match="told to stay"), env:
        env.reset()
        env.step(np.array([0.5, 0, 0]))
        robot.reset = fail  # type: ignore[assignment]
        try:
            env.reset()
        finally:
            before = len(robot.visited)
    assert len(robot.visited) == before


# Conformance


def findings(spec: CellSpec = SPEC, **faults: Any) -> dict[str, bool | None]:
    return {f.name: f.good for f in check_cell(spec, "plug", 16, env=ToyRobot(**faults))}


def test_a_good_cell_is_fit() -> None:
    assert False not in findings().values()


def test_a_mistyped_success_is_found_before_anything_is_labelled() -> None:
    """By the conformance run, and at the end of the first trial; what tells a slip may be told when it happens only."""
    spec = replace(SPEC, success="info/success", dislodged="info/slipped")
    env, robot = cell(spec, ground_truth=True)
    robot.info = {"succeed": True}
    with pytest.raises(CellSpecError, match="'info/success', but the info at the end of a trial has only succeed"):
        rollout(env, Constant(0, 0, -0.1), np.random.default_rng(0))
    found = {f.name: f for f in check_cell(spec, "plug", 16, env=robot)}
    assert found["run"].good is False and "has only succeed" in found["run"].message
    found = {f.name: f for f in check_cell(replace(spec, horizon=100), "plug", 16, env=robot)}  # no trial ends
    assert "run" not in found and found["success"].good is None and "end of a trial" in found["success"].message
    robot.info = {"success": False}
    found = {f.name: f for f in check_cell(spec, "plug", 16, env=robot)}
    assert "run" not in found and found["dislodged"].good is None and "slipped" in found["dislodged"].message
    robot.info = {"success": False, "slipped": False}
    assert "dislodged" not in {f.name for f in check_cell(spec, "plug", 16, env=robot)}


def test_the_conformance_run_finds_what_is_wrong() -> None:
    assert findings(replace(SPEC, force=None)) == {"contract": False}
    assert findings(frozen=True)["run"] is False
    assert findings(replace(SPEC, metres_per_unit=0.002))["motion along x"] is False
    swapped = findings(replace(SPEC, components=(1, 0, 2)))
    assert swapped["motion along x"] is False and swapped["motion along z"] is True
    assert findings(replace(SPEC, rate_hz=1e6))["rate"] is False
    assert findings(replace(SPEC, image="images/wrist_3"))["run"] is False


# Calibration and collection


def test_a_calibration_is_read_back_and_judges_by_pose(tmp_path: Path) -> None:
    found = Calibration("plug", (0.1, 0.2, 0.3), 0.012)
    save_calibration(tmp_path, found)
    assert load_calibration(tmp_path, "plug") == found and load_calibration(tmp_path, "other") is None
    assert found.inserted(np.array([0.102, 0.2, 0.3009])) and not found.inserted(np.array([0.1, 0.2, 0.3015]))
    assert not found.inserted(np.array([0.1026, 0.2, 0.3]))


def test_jogging_to_full_insertion_captures_the_pose() -> None:
    env, _ = cell()
    found = calibrate(env, "plug", 0.01, [(0.004, 0, 0), (0, 0, -0.025)], lambda question: "inserted" in question)
    assert found.position == pytest.approx((0.004, 0, 0.005), abs=1e-6) and found.spread < 1e-9
    env, _ = cell()
    with pytest.raises(ValueError, match="not fully inserted"):
        calibrate(env, "plug", 0.01, [], lambda question: False)
    env, _ = cell()
    with pytest.raises(ValueError, match="outside of the workspace"):
        calibrate(env, "plug", 0.06, [(0, 0, 0.02)], lambda question: True)


LOW = CellSpec(**{**vars(SPEC), "success": "pose", "workspace_low": (-0.05, -0.05, -0.045)})


def above(calibration: Calibration, spec: CellSpec = LOW, **faults: Any) -> tuple[StartAbove, SafeCell, ToyRobot]:
    robot = ToyRobot(**{"start": (0.0, 0.0, 0.06), **faults})
    env = SafeCell(CellEnv(spec, "plug", image_size=16, env=robot, ground_truth=True, calibration=calibration))
    return StartAbove(env, calibration), env, robot


def test_a_limit_ends_the_way_to_the_start_and_the_jogging() -> None:
    """The table lies 3 cm above the calibrated mouth: one press above the limit, not one after the other."""
    start, _, robot = above(Calibration("plug", (0.0, 0.0, -0.04), 0.01))
    with pytest.raises(CellStoppedError, match=r"force of .* on the way to the start"):
        start.reset(seed=1)
    assert sum(-STIFFNESS * position[2] > SPEC.force for position in robot.visited) == 1  # type: ignore[operator]
    env, robot = cell()
    with pytest.raises(CellStoppedError, match="nothing was calibrated"):
        calibrate(env, "plug", 0.01, [(0.0, 0.0, -0.15)], lambda question: True)
    assert sum(-STIFFNESS * position[2] > SPEC.force for position in robot.visited) == 1  # type: ignore[operator]


def test_a_start_that_cannot_be_reached_is_told() -> None:
    """Beside the box's side; and such a socket is not calibrated."""
    start, _, _ = above(Calibration("plug", (0.049, 0.0, 0.0), 0.01))
    with pytest.raises(CellStoppedError, match="did not reach the start of the trial"):
        for seed in range(4):
            start.reset(seed=seed)
    env, _ = cell()
    with pytest.raises(ValueError, match=r"10 mm beside .*outside of the workspace"):
        calibrate(env, "plug", 0.01, [(0.045, 0, 0)], lambda question: True)


def test_an_environment_that_counts_the_way_to_the_start_is_told_so() -> None:
    """Its own horizon would end the trial after a step, as a failure."""

    class Impatient(ToyRobot):
        def step(self, action: Any) -> Any:
            seen, reward, done, _, info = super().step(action)
            return seen, reward, done, len(self.visited) >= 8, info

    calibration = Calibration("plug", (0.0, 0.0, 0.0), 0.01)
    robot = Impatient(start=(0.0, 0.0, 0.079))
    spec = replace(LOW, step=0.005)
    safe = SafeCell(CellEnv(spec, "plug", image_size=16, env=robot, ground_truth=True, calibration=calibration))
    start = StartAbove(safe, calibration)
    with pytest.raises(CellSpecError, match=r"ended the episode itself after \d+ steps.*\[kwargs\]"):
        rollout(start, Constant(0, 0, 0.1), np.random.default_rng(0), seed=1)


def test_an_environment_that_ends_a_trial_for_a_reason_of_its_own_is_heard() -> None:
    """Where it feels 5 N, say: a trial cut short, and the next one goes on."""

    class Careful(ToyRobot):
        def step(self, action: Any) -> Any:
            seen, reward, done, _, info = super().step(action)
            return seen, reward, done, self.position[2] < -0.001, info

    calibration = Calibration("plug", (0.0, 0.0, 0.0), 0.01)
    robot = Careful(start=(0.0, 0.0, 0.06))
    safe = SafeCell(CellEnv(LOW, "plug", image_size=16, env=robot, ground_truth=True, calibration=calibration))
    for seed, speed in ((1, 0.9), (2, 0.5), (3, 0.3)):
        trial = rollout(StartAbove(safe, calibration), Constant(0.9, 0, -speed), np.random.default_rng(0), seed=seed)
        assert trial.truncated and not trial.terminated and len(trial) < LOW.horizon


@pytest.mark.parametrize(("short", "reached"), [(0.0, True), (0.0008, True), (0.002, True), (0.006, False)])
def test_an_arm_that_sags_begins_nearby(short: float, reached: bool) -> None:
    """Each step falls short by so many metres along every axis; what is too far from a start to be one is told."""

    class Sagging(ToyRobot):
        def step(self, action: Any) -> Any:
            metres = 0.01 * np.asarray(action, np.float64)
            return super().step((np.sign(metres) * np.maximum(np.abs(metres) - short, 0) / 0.01).astype(np.float32))

    calibration = Calibration("plug", (0.0, 0.0, 0.0), 0.01)
    for seed in range(5):
        robot = Sagging(start=(0.0, 0.0, 0.06))
        safe = SafeCell(CellEnv(LOW, "plug", image_size=16, env=robot, ground_truth=True, calibration=calibration))
        if not reached:
            with pytest.raises(CellStoppedError, match="did not reach the start of the trial"):
                StartAbove(safe, calibration).reset(seed=seed)
            continue
        _, info = StartAbove(safe, calibration).reset(seed=seed)
        assert np.abs(info["tcp"][:2]).max() < 0.015 and 0.01 < info["tcp"][2] < 0.027


def test_what_always_ends_after_as_many_steps_is_a_horizon() -> None:
    """Four trials that none outlasted; where one was longer, it is something else."""
    calibration = Calibration("plug", (0.0, 0.0, 0.0), 0.01)

    class Short(ToyRobot):
        def __init__(self, *lengths: int) -> None:
            super().__init__(start=(0.0, 0.0, 0.06))
            self.lengths = lengths

        def step(self, action: Any) -> Any:
            seen, reward, done, _, info = super().step(action)
            self.steps += 1
            return seen, reward, done, self.steps >= self.lengths[min(self.resets, len(self.lengths)) - 1], info

        def reset(self, **options: Any) -> Any:
            self.steps = 0
            return super().reset(**options)

    for lengths, told in (((15,), 4), ((17, 15), None)):
        env = CellEnv(LOW, "plug", image_size=16, env=Short(*lengths), ground_truth=True, calibration=calibration)
        start = StartAbove(SafeCell(env), calibration)
        ended = None
        for seed in range(6):
            try:
                rollout(start, Constant(0, 0, 0.01), np.random.default_rng(0), seed=seed)
            except CellSpecError:
                ended = seed + 1
                break
        assert ended == told


def test_where_the_way_across_is_blocked_nothing_goes_down() -> None:
    """Beside the socket something else may stand."""

    class Walled(ToyRobot):
        def step(self, action: Any) -> Any:
            _, *rest = super().step(action)
            self.position[0] = min(self.position[0], -0.03)
            return self.observation(), *rest

    robot = Walled(start=(-0.045, 0.0, 0.06))
    calibration = Calibration("plug", (0.0, 0.0, 0.0), 0.01)
    safe = SafeCell(CellEnv(LOW, "plug", image_size=16, env=robot, ground_truth=True, calibration=calibration))
    with pytest.raises(CellStoppedError, match="did not reach the start of the trial"):
        StartAbove(safe, calibration).reset(seed=1)
    assert min(position[2] for position in robot.visited) == pytest.approx(0.06)


def test_no_trial_begins_on_an_obstacle() -> None:
    """A plug that was left in the socket, say: the arm stands on it within reach of a start, and presses."""

    class Blocked(ToyRobot):
        def observation(self) -> dict[str, Any]:
            seen = super().observation()
            seen["state"]["tcp_force"] = np.array([0.0, 0.0, max(0.0, 4000.0 * (0.02 - self.position[2]))])
            return seen

        def step(self, action: Any) -> Any:
            _, *rest = super().step(action)
            self.position[2] = max(self.position[2], 0.019)
            return self.observation(), *rest

    calibration = Calibration("plug", (0.0, 0.0, 0.0), 0.01)
    begun = refused = 0
    for seed in range(12):
        robot = Blocked(start=(0.0, 0.0, 0.06))
        safe = SafeCell(CellEnv(LOW, "plug", image_size=16, env=robot, ground_truth=True, calibration=calibration))
        try:
            StartAbove(safe, calibration).reset(seed=seed)
            assert safe.reading.force[2] <= LOW.contact
            begun += 1
        except CellStoppedError as error:
            assert "and feels" in str(error)
            refused += 1
    assert begun and refused


def test_a_person_is_asked_about_the_trial_alone() -> None:
    """At its end and once: not on the way to its start, not while the plug is pulled out, not on leaving."""
    asked: list[str] = []

    def ask(question: str) -> bool:
        asked.append(question)
        return False

    robot = ToyRobot(start=(0.0, 0.0, 0.079))
    spec, calibration = replace(SPEC, success="ask", horizon=5), Calibration("plug", (0.0, 0.0, 0.0), 0.01)
    env = SafeCell(CellEnv(spec, "plug", image_size=16, env=robot, ground_truth=True, ask=ask))
    with env:
        rollout(StartAbove(env, calibration), Constant(0, 0, -0.1), np.random.default_rng(0), seed=1)
        assert len(asked) == 1
        env.reset()
    assert len(asked) == 1 and len(robot.visited) > 10


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Our simulator in SERL's layout with its socket in one place, calibrated by driving the known way in."""
    folder = tmp_path_factory.mktemp("cell")
    text = Path("examples/rehearsal.toml").read_text()
    text = text.replace('expert = "lotj.cells.serl:expert"', "").replace('from = "info/succeed"', 'from = "pose"')
    text = text.replace("[kwargs]\nimage_size = 128", "[kwargs]\nimage_size = 32\nfixed = true\nhorizon = 1000")
    path = folder / "cell.toml"
    path.write_text(text)
    env = CellEnv(load_cell(path), "usb-a", image_size=32)
    sim = env.env.unwrapped.sim  # type: ignore[attr-defined]
    safe = SafeCell(env)

    def way() -> Iterator[tuple[float, float, float]]:
        x, y, z = -sim.tip_in_socket
        yield x, y, 0.0
        for _ in range(4):
            yield 0.0, 0.0, z / 4 - 1e-4

    found = calibrate(safe, "usb-a", sim.connector.insertion_depth, way(), lambda question: bool(sim.success))
    save_calibration(path.with_suffix(""), found)
    safe.close()
    yield path


def test_collection_by_pose_agrees_with_the_simulators_truth(fixed: Path, tmp_path: Path) -> None:
    """Success by the captured pose is success by the simulator, and most noisy trials succeed."""
    config = CellCollectConfig(("usb-a",), 10, image_size=32, slow=0.2, wrong_place=0.2)
    path = tmp_path / "data.sqlite"
    found = collect_on_cell(config, fixed, path)
    assert found.trajectories == 10 and found.successes >= 6
    with TrajectoryStore(path) as store:
        assert store.metadata["action_scale"] == [0.005] * 3
        for index in range(10):
            trial = store.read(index)
            assert trial.robot == "rehearsal" and trial.terminated == bool(trial.privileged["success"][-1])
            assert len(trial) <= 20
            start = trial.privileged["tip_in_socket"][0]
            assert np.abs(start[:2]).max() <= 0.0115
    assert collect_on_cell(config, fixed, path) == found


def test_collection_without_a_way_to_know_is_refused(fixed: Path, tmp_path: Path) -> None:
    with pytest.raises(CellSpecError, match="'hdmi-a' is not calibrated on cell 'rehearsal'"):
        collect_on_cell(CellCollectConfig(("hdmi-a",), 1, image_size=32), fixed, tmp_path / "data.sqlite")


def test_a_person_discards_trials_in_which_the_plug_slipped(fixed: Path, tmp_path: Path) -> None:
    path = tmp_path / "cell.toml"
    path.write_text(fixed.read_text().replace('dislodged = "info/dislodged"', ""))
    save_calibration(path.with_suffix(""), Calibration("usb-a", (0.6, 0.0, 0.08), 0.0118))
    asked: list[str] = []

    def ask(question: str) -> bool:
        asked.append(question)
        return True

    config = CellCollectConfig(("usb-a",), 2, image_size=32, slow=0, wrong_place=0)
    found = collect_on_cell(config, path, tmp_path / "data.sqlite", ask=ask)
    assert found.discarded == len(asked) == 2 - found.successes and found.trajectories == found.successes


@pytest.mark.parametrize(("asked", "cameras"), [([], 1), (["--cameras", "2"], None)])
def test_a_run_sees_by_the_cameras_that_its_cell_has(
    fixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: list[str], cameras: int | None
) -> None:
    """A cell with one camera where the preset takes two: the run says so and takes one; asked for two, it refuses."""
    path = tmp_path / "one.toml"
    text = fixed.read_text().replace('image = ["images/wrist_1", "images/wrist_2"]', 'image = "images/wrist_1"')
    path.write_text(text)
    assert len(load_cell(path).images) == 1
    shutil.copytree(cell_folder(fixed), cell_folder(path))
    run = tmp_path / "run"
    command = ["collect", "--run", str(run), "--cell", str(path), "--no-confirm", "--connector", "usb-a", *asked]
    if cameras is None:
        with pytest.raises(SystemExit) as ended:
            cli.main([*command, "debug", "--trajectories", "1"])
        assert ended.value.code != 0 and not run.exists()
        said = capsys.readouterr().err
        assert "--cameras 2" in said and "names 1" in said
        command[-1] = "1"  # as the message says
    cli.main([*command, "debug", "--trajectories", "1"])
    assert load_preset(run).cameras == 1 and ("sees by 1" in capsys.readouterr().out) == (not asked)
