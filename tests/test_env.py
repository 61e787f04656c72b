"""The simulated cell: Gymnasium's contract, determinism, limits, ground truth kept apart."""

import subprocess
import sys
from dataclasses import replace

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import lotj  # noqa: F401 - registers the environment
from lotj.rollout import rollout
from lotj.sim.baselines import BASELINES
from lotj.sim.controller import ControllerConfig
from lotj.sim.env import HORIZON, InsertionEnv, draw_start
from lotj.sim.expert import Expert, ExpertConfig
from lotj.sim.randomize import CELLS, Randomization
from lotj.sim.robot import JOINT_RANGE, JOINT_VELOCITY, TOOL_TO_TIP
from lotj.types import PRIVILEGED

CONNECTOR = "nema-5-15"


@pytest.fixture(scope="module")
def env():
    env = InsertionEnv(CONNECTOR)
    yield env
    env.close()


def test_gymnasium_check():
    """The environment keeps Gymnasium's API, made by name."""
    check_env(gym.make("lotj/Insertion-v0", connector=CONNECTOR, state=True).unwrapped, skip_render_check=True)


def test_two_seeded_copies_agree_step_for_step(env):
    """Same seed, same actions: same images, poses and forces, bit for bit."""
    other = InsertionEnv(CONNECTOR)
    first, second = env.reset(seed=7), other.reset(seed=7)
    actions = np.random.default_rng(0).uniform(-1, 1, (8, 3)).astype(np.float32)
    for action in actions:
        np.testing.assert_array_equal(first[0]["image"], second[0]["image"])
        np.testing.assert_array_equal(first[-1]["privileged/tip_in_socket"], second[-1]["privileged/tip_in_socket"])
        first, second = env.step(action), other.step(action)
    assert first[-1]["force"] == second[-1]["force"]
    other.close()


def test_a_trial_does_not_depend_on_those_before():
    """Reset with a seed forgets everything: the first trial of a copy equals the third of another."""
    env, other = InsertionEnv(CONNECTOR, images=False), InsertionEnv(CONNECTOR, images=False)
    rng = np.random.default_rng(3)
    for seed in (1, 2):
        env.reset(seed=seed)
        for _ in range(5):
            env.step(rng.uniform(-1, 1, 3))
    env.reset(seed=5)
    other.reset(seed=5)
    for _ in range(4):
        action = rng.uniform(-1, 1, 3)
        info, twin = env.step(action)[-1], other.step(action)[-1]
    np.testing.assert_array_equal(info["privileged/tip_in_socket"], twin["privileged/tip_in_socket"])


def test_reward_and_end_stay_silent_unless_asked():
    """Ground truth reaches reward and terminated only with ground_truth=True; otherwise only truncation ends a
    trial."""
    for ground_truth in (False, True):
        env = InsertionEnv(CONNECTOR, images=False, ground_truth=ground_truth)
        trajectory = rollout(env, Expert(env, ExpertConfig(0.0)), np.random.default_rng(0), seed=0)
        assert trajectory.privileged["success"].any()
        assert trajectory.terminated is ground_truth
        assert trajectory.reward.sum() == float(ground_truth)
        assert len(trajectory) < HORIZON if ground_truth else len(trajectory) == HORIZON


def test_observation_holds_no_ground_truth(env):
    """Every privileged quantity is under the prefix, none in the observation."""
    observation, info = env.reset(seed=0)
    assert set(observation) == {"image"}
    assert {key for key in info if "tip" in key or "success" in key} == {
        f"{PRIVILEGED}success",
        f"{PRIVILEGED}tip_in_socket",
    }


def test_state_does_not_tell_where_the_socket_is():
    """Proprioception at the start is uncorrelated with the direction to the socket."""
    env = InsertionEnv(CONNECTOR, images=False, state=True)
    rows = []
    for seed in range(200):
        observation, info = env.reset(seed=seed)
        rows.append([*observation["state"][:3], *info["privileged/tip_in_socket"]])
    correlation = np.corrcoef(np.array(rows).T)[:3, 3:]
    # The wrist's place is the sum of the socket's and the offset; only as much shows as the offset itself spreads.
    assert np.abs(np.diag(correlation)).max() < 0.5


@pytest.mark.parametrize("scenario", ["I", "II"])
def test_scenarios_start_where_they_say(scenario):
    """I: within 10 mm along each axis; II: 10 to 20 mm away. Height 6 to 12 mm."""
    rng = np.random.default_rng(0)
    for _ in range(500):
        name, (x, y, height) = draw_start(scenario, rng)
        assert name == scenario
        assert 0.006 <= height <= 0.012
        if scenario == "I":
            assert max(abs(x), abs(y)) <= 0.01
        else:
            assert 0.01 <= np.hypot(x, y) <= 0.02


def test_start_is_where_it_was_drawn(env):
    """The tip starts at the offset asked for, but for the tilt of the grasp: 45 mm times .015 rad about each axis."""
    for seed in range(10):
        offset = np.array([0.004, -0.007, 0.009])
        _, info = env.reset(seed=seed, options={"offset": offset})
        tip = info["privileged/tip_in_socket"] - (0, 0, env.connector.insertion_depth)
        assert np.abs(tip - offset).max() < 0.0013


def adversaries(rng, size):
    """Policies that try to break out: constant full-scale pushes, random corners, noise."""
    axes = [*np.vstack([np.eye(size), -np.eye(size)])]
    corners = [rng.choice([-1.0, 1.0], size) for _ in range(3)]
    return [
        *(lambda a=a: a for a in axes + corners),
        lambda: rng.choice([-1.0, 1.0], size),
        lambda: rng.uniform(-1, 1, size),
    ]


@pytest.mark.parametrize(("connector", "yaw"), [("nema-5-15", False), ("europlug", True), ("mega-block-1x1", True)])
def test_no_policy_leaves_the_limits(connector, yaw, monkeypatch):
    """Whatever a policy does, above the socket or in it: tool in the workspace, joints within ranges and speeds, and
    force and torque between plug and fingers, spring and damper, below their limits at every physics step."""
    config = ControllerConfig()
    low = np.array(config.workspace_low) + (0, 0, TOOL_TO_TIP)
    high = np.array(config.workspace_high) + (0, 0, TOOL_TO_TIP)
    rng = np.random.default_rng(1)
    env = InsertionEnv(connector, images=False, yaw=yaw)
    first = int(env.model.joint("grasp_x").dofadr[0])
    qpos = env._grasp.qpos
    stiffness, damping = env.model.jnt_stiffness[-6:], env.model.dof_damping[first : first + 6]
    peak = np.zeros(2)
    step = mujoco.mj_step

    def measured(model, data):
        step(model, data)
        load = stiffness * (data.qpos[qpos] - model.qpos_spring[qpos]) + damping * data.qvel[first : first + 6]
        peak[:] = np.maximum(peak, (np.linalg.norm(load[:3]), np.linalg.norm(load[3:])))
        assert np.all(np.abs(data.qvel[:7]) <= JOINT_VELOCITY * 1.05)

    monkeypatch.setattr(mujoco, "mj_step", measured)
    for seed, act in enumerate(adversaries(rng, env.action_space.shape[0])):
        inside = (0.0, 0.0, -0.7 * env.connector.insertion_depth)
        env.reset(seed=seed, options={"offset": inside if seed % 2 else (0.004, 0.0, 0.002)})
        done = False
        while not done:
            _, _, _, done, info = env.step(act())
            assert np.all(env.controller.position > low - 1e-3)
            assert np.all(env.controller.position < high + 1e-3)
            assert info["force"] <= peak[0] + 0.5
            q = env.data.qpos[:7]
            assert np.all(q > JOINT_RANGE[:, 0]) and np.all(q < JOINT_RANGE[:, 1])
    assert peak[0] < config.force_limit and peak[1] < config.torque_limit
    assert peak[0] > 0.5 * config.force_limit, "nothing pressed hard: the test shows nothing"


def test_force_is_given_along_the_base_frame():
    """Pressed down on the socket's face the force points up, and pushed against the hole's side it points back,
    whatever the yaw."""
    for turn in (0.0, 1.0):
        env = InsertionEnv("nema-5-15", images=False, yaw=True, state=True)
        env.reset(seed=0, options={"offset": (0.008, 0.0, 0.006)})
        for _ in range(4):
            env.step(np.array([0.0, 0.0, 0.0, turn]))
        for _ in range(3):
            observation, *_ = env.step(np.array([0.0, 0.0, -1.0, 0.0]))
        force = observation["state"][3:]
        assert force[2] > 3 and force[2] > 3 * np.abs(force[:2]).max()
        env.reset(seed=0, options={"offset": (0.0, 0.0, -0.01)})
        for _ in range(3):
            observation, *_ = env.step(np.array([1.0, 0.0, 0.0, 0.0]))
        force = observation["state"][3:]
        assert force[0] < -3 and -force[0] > 3 * abs(force[1])


def test_pressing_dislodges_a_weak_grasp_and_no_other():
    """With the default settings some grasps slide before the robot stops: pressed on the socket's face they end the
    trial, marked so; a grasp of full strength never does."""

    def press(weakness):
        env = InsertionEnv(CONNECTOR, images=False, randomization=Randomization(grasp_weakness=weakness))
        ends = []
        for seed in range(12):
            env.reset(seed=seed, options={"offset": (0.008, 0.0, 0.003)})
            truncated, steps = False, 0
            while not truncated:
                _, _, terminated, truncated, info = env.step(np.array([0.5, 0.0, -1.0]))
                steps += 1
                assert not terminated and not info["privileged/success"]
            assert (steps < HORIZON) <= info["dislodged"]
            ends.append(info["dislodged"])
        return sum(ends)

    assert 0 < press(Randomization().grasp_weakness) < 12
    assert press(0.0) == 0


def test_expert_inserts_and_the_blind_do_not():
    """The scripted expert solves both scenarios; straight down, from 15 mm away, never does."""
    for robot in CELLS:
        env = InsertionEnv(CONNECTOR, robot, images=False, ground_truth=True)
        for seed in range(5):
            options = {"scenario": ("I", "II")[seed % 2]}
            expert = rollout(
                env, Expert(env, ExpertConfig(0.0)), np.random.default_rng(seed), seed=seed, options=options
            )
            assert expert.terminated
            blind = rollout(
                env,
                BASELINES["straight-down"](),
                np.random.default_rng(seed),
                seed=seed,
                options={"offset": (0.015, 0, 0.01)},
            )
            assert not blind.terminated


def test_image_moves_with_depth():
    """The last two millimetres of depth can be seen: pixels change."""
    env = InsertionEnv(CONNECTOR)
    images = []
    for height in (0.0, 0.002):
        depth = height - env.connector.insertion_depth
        images.append(env.reset(seed=11, options={"offset": (0.0, 0.0, depth)})[0]["image"].astype(int))
    assert np.abs(images[0] - images[1]).mean() > 1.0
    env.close()


def test_bad_arguments_are_named():
    """Errors name what is wrong and what was expected."""
    with pytest.raises(ValueError, match="sawyer-a"):
        InsertionEnv(CONNECTOR, "pr2")
    with pytest.raises(ValueError, match="scenario"):
        InsertionEnv(CONNECTOR, scenario="III")  # type: ignore[arg-type]
    env = InsertionEnv(CONNECTOR, images=False)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="finite"):
        env.step(np.array([0.0, np.nan, 0.0]))


def test_one_seed_is_one_trial_however_many_cameras_look_at_it(env):
    """The first camera of two sees exactly what a single one sees, and the robot does the same."""
    two = InsertionEnv(CONNECTOR, cameras=2)
    single, double = env.reset(seed=11), two.reset(seed=11)
    for action in np.random.default_rng(0).uniform(-1, 1, (3, 3)).astype(np.float32):
        assert double[0]["image"].shape == (64, 128, 3)
        np.testing.assert_array_equal(double[0]["image"][:, :64], single[0]["image"])
        single, double = env.step(action), two.step(action)
    np.testing.assert_array_equal(single[-1]["privileged/tip_in_socket"], double[-1]["privileged/tip_in_socket"])
    two.close()


@pytest.mark.parametrize("robot", CELLS)
def test_the_second_camera_sees_what_the_first_does_not(robot):
    """They look at the tip from opposite sides. A plug that is moved along the first one's axis stays where it is in
    that picture; in the other it moves by as many pixels as its displacement across that axis has, nearly all of it."""
    first, second = CELLS[robot].cameras
    (eye, _), (other, _) = first.pose(), second.pose()
    tip = np.array([0.0, 0.0, -TOOL_TO_TIP - first.below_tip])
    along = (tip - eye) / np.linalg.norm(tip - eye)
    across = (tip - other) / np.linalg.norm(tip - other)
    np.testing.assert_allclose(along[:2], -across[:2], atol=1e-9)
    assert np.linalg.norm(np.cross(along, across)) > 0.9
    still = Randomization(**{name: 0.0 for name in vars(Randomization()) if name != "grasp_weakness"})
    two = InsertionEnv(CONNECTOR, robot, image_size=128, cameras=2, randomization=still)
    two.reset(seed=0)
    for camera, moves in (("wrist", 0.0), ("wrist_2", 0.006 * np.linalg.norm(np.cross(along, across)))):
        seen = [_projected(two, camera, tip + shift * along) for shift in (0.0, 0.006)]
        expected = moves / first.distance * 617.0 / first.crop * 128  # px, at about the distance of the tip
        assert np.linalg.norm(seen[1] - seen[0]) == pytest.approx(expected, rel=0.05, abs=0.01)
    two.close()


def _projected(env, camera, point):
    """Pixel of a point in the tool's frame, by the model's camera."""
    camera, tool = env.model.camera(camera).id, env.model.body("tool").id
    world = env.data.xpos[tool] + env.data.xmat[tool].reshape(3, 3) @ point
    seen = env.data.cam_xmat[camera].reshape(3, 3).T @ (world - env.data.cam_xpos[camera])
    focal = 64 / np.tan(np.radians(env.model.cam_fovy[camera] / 2))
    return focal * seen[:2] / -seen[2]


@pytest.mark.parametrize("cameras", [0, 3])
def test_a_wrist_has_one_camera_or_two(cameras):
    with pytest.raises(ValueError, match=f"cameras must be from 1 to 2, got {cameras}"):
        InsertionEnv(CONNECTOR, cameras=cameras)


@pytest.mark.parametrize("renderer", ["lotj's", "another"])
def test_torch_can_come_after_the_first_picture(renderer):
    """A picture drawn before torch's first optimizer, which loads Triton's LLVM beside Mesa's, crashes no process."""
    draw = {
        "lotj's": "import gymnasium; gymnasium.make('lotj/Insertion-v0', connector='bnc', image_size=32).reset(seed=0)",
        "another": "import mujoco; mujoco.Renderer(mujoco.MjModel.from_xml_string('<mujoco/>')).render()",
    }
    code = (
        f"import lotj; {draw[renderer]}\n"
        "import torch\n"
        "weight = torch.nn.Parameter(torch.zeros(1))\n"
        "weight.sum().backward()\n"
        "torch.optim.Adam([weight]).step()\n"
        "import torchvision\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_cell_can_have_cameras_of_ones_own():
    """`Cell` in place of a name: the robot does the same, and of two cameras only the one that was turned sees another
    picture."""
    cell = CELLS["sawyer-a"]
    first, second = cell.cameras
    aside = replace(cell, cameras=(first, replace(second, azimuth=first.azimuth + 90)))
    named, same, turned = (InsertionEnv(CONNECTOR, robot, cameras=2) for robot in ("sawyer-a", cell, aside))
    pictures = [env.reset(seed=11)[0]["image"] for env in (named, same, turned)]
    np.testing.assert_array_equal(pictures[1], pictures[0])
    np.testing.assert_array_equal(pictures[2][:, :64], pictures[0][:, :64])
    assert np.abs(pictures[2][:, 64:].astype(int) - pictures[0][:, 64:]).mean() > 5
    assert (named.robot, turned.robot) == ("sawyer-a", "own")
    for env in (named, same, turned):
        env.close()


@pytest.mark.parametrize("robot", CELLS)
def test_a_brick_that_rests_on_its_studs_hides_them_from_no_more_than_one_camera(robot):
    """Seated, a brick hides all studs; resting on top of them, displaced towards the first camera, it hides them from
    that one, and the other sees some (docs/lab.md, The reward)."""
    still = Randomization(**dict.fromkeys(vars(Randomization()), 0.0))
    env = InsertionEnv("gen-1-34", robot, cameras=2, randomization=still)
    renderer = mujoco.Renderer(env.model, 64, 64)
    renderer.enable_segmentation_rendering()
    studs = [i for i in range(env.model.ngeom) if "stud" in env.model.geom(i).name]

    def seen(offset):
        env.reset(seed=0, options={"offset": offset})
        counts = []
        for camera in env.cameras:
            renderer.update_scene(env.data, camera)
            counts.append(int(np.isin(renderer.render()[..., 0], studs).sum()))
        return counts

    full, height = -env.connector.insertion_depth, float(env.model.geom_size[studs, 1].max() * 2)
    assert seen((0.0, 0.0, full)) == [0, 0]
    azimuth = np.radians(CELLS[robot].cameras[0].azimuth)
    first, second = seen((0.005 * np.cos(azimuth), 0.005 * np.sin(azimuth), full + height))
    assert first < 5 and second >= 100
    renderer.close()
    env.close()
