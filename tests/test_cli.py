"""The command line: what it refuses and how, what it prints before it starts, what other programs may read."""

import contextlib
import errno
import inspect
import json
import os
import pickle
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lotj import cli, cli_guard, demo, stages
from lotj import collect as collecting
from lotj.cells.safety import CellStoppedError
from lotj.cli_practice import print_preflight
from lotj.collect import as_recorded
from lotj.data.augment import AugmentConfig
from lotj.data.store import TrajectoryStore
from lotj.files import to_json, write_json
from lotj.parallel import WorkerKilledError
from lotj.practice import PracticePaused
from lotj.presets import PRESETS, load_preset, with_cameras
from lotj.run import Run, RunMismatchError
from lotj.sim.connectors import load_catalogue
from lotj.sim.template import commented_toml, example
from lotj.speed import Speed, estimate, measure
from lotj.types import Trajectory


def refused(arguments, capsys) -> str:
    """Run a command that must be refused with status 2; return what it says."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and "Traceback" not in message
    return message


@pytest.fixture
def run(tmp_path):
    """A run folder in which nothing has been done."""
    write_json(tmp_path / "preset.json", to_json(PRESETS["debug"]))
    return tmp_path


def begin(run):
    """Something has been collected there."""
    stages.store_path(run).parent.mkdir(exist_ok=True)
    stages.store_path(run).touch()


def test_brackets_survive_in_messages(run, capsys):
    """What looks like markup in a message is printed as it is."""
    message = refused(["practice", "--run", str(run), "--connector", "plug[red]x[/]"], capsys)
    assert "plug[red]x[/]" in message


def test_a_misspelt_connector_is_answered_with_the_nearest(run, capsys):
    """Did you mean."""
    assert "nema-5-15" in refused(["practice", "--run", str(run), "--connector", "nema-515"], capsys)


@pytest.mark.parametrize(
    ("command", "remedy"),
    [
        (["train"], "collect one"),
        (["practice", "--connector", "europlug"], "lotj train"),
        (["evaluate", "--connector", "europlug"], "lotj train"),
        (["insert", "--connector", "europlug"], "lotj train"),
        (["report"], "lotj train"),
    ],
)
def test_a_stage_too_early_names_the_one_before(run, capsys, command, remedy):
    """A stage that lacks its inputs is refused and says which command makes them."""
    assert remedy in refused([command[0], "--run", str(run), *command[1:]], capsys)


@pytest.mark.parametrize(
    "error",
    [
        FloatingPointError("loss is nan at step 3"),
        PermissionError("no"),
        sqlite3.OperationalError("database is locked"),
        RunMismatchError("other settings"),
        WorkerKilledError(print),
    ],
)
def test_what_a_user_can_mend_comes_without_a_traceback(run, monkeypatch, capsys, error):
    """Numbers that blow up, files, databases, foreign folders and killed processes give their message alone."""

    def fail(*_):
        raise error

    monkeypatch.setattr(stages, "train_all", fail)
    assert str(error) in refused(["train", "--run", str(run)], capsys)


@pytest.mark.parametrize("error", [CellStoppedError("the camera is frozen"), PracticePaused(Path("out"), [3])])
def test_what_stopped_the_work_is_told_without_a_traceback(run, monkeypatch, capsys, error):
    """A robot that was stopped, or an alarm, ends any command with a code of its own; from a worker's process too."""
    monkeypatch.setattr(stages, "train_all", lambda *_: (_ for _ in ()).throw(error))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", "--run", str(run)])
    assert stopped.value.code == 3 and str(error) in " ".join(capsys.readouterr().err.split())
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_what_would_be_ignored_is_refused(run, capsys):
    """A guard over ground truth, and a clamp's connectors where there is no cell of one's own."""
    command = ["practice", "--run", str(run), "--connector", "europlug", "--reward", "ground-truth", "--guard", "gate"]
    assert "needs no guard" in refused(command, capsys)
    assert "--known" in refused(["collect", "--run", str(run), "--connector", "rj45"], capsys)


def test_the_next_command_says_all_that_this_one_said():
    """What continues a practice is paid and forced as it was."""
    words = cli_guard.command(
        Path("run"), "rj45", "gate", None, None, None, None, False, reward="ground-truth", force=True, keep=True
    )
    assert words == "lotj practice --run run --connector rj45 --guard gate --reward ground-truth --force --keep"


def test_a_defect_of_lotj_keeps_its_traceback(run, monkeypatch):
    """A KeyError tells a user nothing."""

    def fail(*_):
        raise KeyError("reward")

    monkeypatch.setattr(stages, "train_all", fail)
    with pytest.raises(KeyError):
        cli.main(["train", "--run", str(run)])


def test_not_a_run_folder(tmp_path, capsys):
    """A folder without preset.json is no run folder."""
    assert str(tmp_path) in refused(["train", "--run", str(tmp_path)], capsys)


def test_a_folder_keeps_to_its_preset(run, capsys):
    """Settings other than those a run was begun with are refused, naming the differing ones; nothing is overwritten."""
    begin(run)
    held = (run / "preset.json").read_text()
    message = refused(["collect", "--run", str(run), "debug", "--trajectories", "9"], capsys)
    assert "trajectories was 8 and is 9 now" in message and str(run) in message
    assert (run / "preset.json").read_text() == held


def test_a_folder_in_which_nothing_was_collected_takes_other_settings(tmp_path, monkeypatch, capsys):
    """What is refused leaves no folder behind, and the corrected command is not held to the mistake."""
    monkeypatch.setattr("lotj.speed.measure", lambda preset: Speed(10.0, 1000.0, 2600.0))
    run = tmp_path / "run"
    command = ["collect", "debug", "--run", str(run), "--workers", "1"]  # options of collect on either side
    assert "did you mean 'usb-a'" in refused([*command, "--known", "usb-aa"], capsys)
    assert "--trajectories 0: expected at least 1" in refused([*command, "--trajectories", "0"], capsys)
    assert "--cameras 0: expected at least 1" in refused([*command, "--cameras", "0"], capsys)
    assert not run.exists()
    run.mkdir()
    write_json(run / "preset.json", to_json(PRESETS["desk"]))
    cli.main([*command, "--known", "usb-a", "--trajectories", "1"])
    assert load_preset(run).name == "debug" and stages.collected_stage(run).trajectories == 1


@pytest.mark.parametrize("command", [["train"], ["collect", "debug"]])
@pytest.mark.parametrize("damage", ["", "{", "{}", "[1]", '{"name": "desk"}'])
def test_a_damaged_run_folder_is_named(run, capsys, damage, command):
    """Neither a parser's words nor silent defaults."""
    begin(run)
    (run / "preset.json").write_text(damage)
    message = refused([*command, "--run", str(run)], capsys)
    assert f"{run / 'preset.json'} is damaged" in message and "begin another run" in message


def test_a_trained_run_without_its_data_keeps_to_its_preset(run, capsys):
    """Its networks are what they are."""
    (run / "policy").mkdir()
    assert "was 'debug'" in refused(["collect", "desk", "--run", str(run)], capsys)


def test_a_folder_inside_a_run_is_no_run(run, capsys):
    """Did you mean."""
    assert f"did you mean {run}?" in refused(["train", "--run", str(run / "data")], capsys)
    assert f"its store is {stages.store_path(run)}" in refused(["data", "validate", str(run)], capsys)


def test_a_mistyped_command_is_answered_with_the_nearest(capsys):
    """Of one word and of two; the group's other commands where it has any."""
    assert "'practise' (did you mean 'practice'?); lotj --help" in refused(["practise", "--run", "x"], capsys)
    assert "'cell chek' (did you mean 'cell check'?); cell new, cell check" in refused(["cell", "chek"], capsys)
    assert "did you mean 'connectors show'" in refused(["connectors", "shwo", "rj45"], capsys)
    assert "cell check" in refused(["cell", "--cell", "x", "check"], capsys)


@pytest.mark.parametrize("asked", [[], ["--help"], ["-h"], ["cell"], ["tables", "--help"]])
def test_the_list_of_commands(asked, capsys):
    """All of them, or a group, each once."""
    cli.main(asked)
    told = capsys.readouterr().out
    group = "" if not asked or asked[0].startswith("-") else asked[0]
    for name in cli.COMMANDS:
        assert (f"\n  {name}  " in f"\n{told}") == name.startswith(group)


def test_the_version(capsys):
    cli.main(["--version"])
    assert capsys.readouterr().out.startswith("lotj 0.")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_speaks_of_options_not_of_python(command, capsys):
    """How a command is typed, and nothing that is called None."""
    with pytest.raises(SystemExit) as ended:
        cli.main([*command.split(), "--help"])
    told = capsys.readouterr().out
    assert ended.value.code == 0 and f"usage: lotj {command} " in told
    own = told.split("stage options")[0]
    assert "{None}" not in own and "{None," not in own and "default: None" not in own


def test_what_is_no_practice_is_told_before_anything_moves(run, capsys):
    """A mistyped folder is not noticed after the offline policy's trials."""
    message = refused(["evaluate", "--run", str(run), "--connector", "rj45", "--practised", "nope"], capsys)
    assert "nope is not the folder of a finished practice; `lotj practice` makes one" in message
    message = refused(["practice", "--run", str(run), "--connector", "rj45", "--cells", "sawyer-c"], capsys)
    assert "--cells sawyer-c: expected sawyer-a, sawyer-b or the TOML file" in message


def test_a_folder_in_place_of_a_file(run, capsys, tmp_path):
    """Named as what it is."""
    command = ["data", "import", "x", "--into", str(tmp_path)]
    assert "is a folder, expected a store's file" in refused(command, capsys)
    assert "leave one of them out" in refused([*command, "--run", str(run)], capsys)
    assert "is a folder, expected a cell's TOML file" in refused(["cell", "check", "--cell", str(tmp_path)], capsys)
    assert "has no page with" in refused(["tables", "render", "--docs", str(tmp_path)], capsys)


def test_a_check_that_a_silent_reward_passes_is_no_plain_go(capsys):
    """A rule that finds no success is fooled by nothing."""
    answer = {"presses": 20, "reason": "0 of 20", "interval": [0.0, 0.17], "nearest": []}
    for go, behind_guard, recall, word in (
        (True, False, 0.9, "Go:"),
        (True, False, 0.1, "Go, but unsure:"),
        (True, False, None, "Go:"),
        (False, False, 0.1, "No-go:"),
        (False, True, 0.9, "Go behind the guard alone:"),
    ):
        print_preflight({**answer, "go": go, "behind_guard": behind_guard, "recall": recall, "config": {"recall": 0.5}})
        told = capsys.readouterr().out
        assert told.startswith(word) and ("never be paid" in told) == ("unsure" in word)


def test_a_run_may_practise_further_connectors(run):
    """What is practised does not change what was trained: such a preset is accepted, and the folder then says so."""
    begin(run)
    further = replace(PRESETS["debug"], practise_on=("europlug",))
    assert cli._claim(run, further) == run
    assert json.loads((run / "preset.json").read_text())["practise_on"] == ["europlug"]
    with pytest.raises(RunMismatchError, match="trajectories was 8 and is 9 now"):
        cli._claim(run, replace(further, trajectories=9))


def test_connectors_as_json(capsys):
    """Standard output is one JSON list with every connector's name, family, variants, dimensions and sources."""
    cli.main(["connectors", "--json"])
    listed = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in listed] == list(load_catalogue())
    for row in listed:
        assert (
            row["name"] in row["variants"]
            and row["sources"]
            and row["dimensions"]["insertion_depth"] > 0
            and row["family"]
        )


def test_one_family(capsys):
    """--family filters; an unknown family is refused with the known ones."""
    cli.main(["connectors", "--json", "--family", "usb"])
    assert {row["family"] for row in json.loads(capsys.readouterr().out)} == {"usb"}
    assert "usb" in refused(["connectors", "--family", "usbb"], capsys)


def test_validate_fails_on_defects(tmp_path, capsys):
    """A store with a defect ends with status 1 and names it."""
    import numpy as np

    dark = Trajectory(
        image=np.zeros((3, 8, 8, 3), np.uint8),
        state=np.zeros((3, 0), np.float32),
        action=np.zeros((2, 3), np.float32),
        reward=np.zeros(2, np.float32),
        terminated=False,
        truncated=True,
        connector="usb-a",
        robot="sawyer-a",
        seed=1,
        source="expert",
    )
    with TrajectoryStore(tmp_path / "t.sqlite", mode="a") as store:
        store.append(dark)
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", "validate", str(tmp_path / "t.sqlite")])
    assert ended.value.code == 1
    assert "black-images" in capsys.readouterr().out


def test_collect_takes_one_connector_and_counts(tmp_path, monkeypatch, capsys):
    """One named connector is enough; trajectories, frames, successes and what was dislodged are told at the end, and
    again by ``data validate``."""
    monkeypatch.setattr("lotj.speed.measure", lambda preset: Speed(10.0, 1000.0, 2600.0))
    real = collecting.rollout

    def dislodging(*arguments, seed, **settings):
        trajectory = real(*arguments, seed=seed, **settings)
        if seed == collecting.trajectory_seed(0, "usb-a", 1):
            trajectory.privileged["dislodged"][-1] = True
        return trajectory

    monkeypatch.setattr(collecting, "rollout", dislodging)
    run = tmp_path / "run"
    options = ["debug", "--known", "usb-a", "--trajectories", "4"]
    cli.main(["collect", "--run", str(run), "--workers", "1", *options])
    told = capsys.readouterr().out
    with TrajectoryStore(stages.store_path(run)) as store:
        frames, successes = int(store.index.frame_offset[-1]), int(store.index.terminated.sum())
    assert f"3 trajectories, {frames} frames, {successes} successes; dislodged and discarded: usb-a 1" in told
    with contextlib.suppress(SystemExit):
        cli.main(["data", "validate", str(stages.store_path(run))])
    row = next(line for line in capsys.readouterr().out.splitlines() if "usb-a" in line)
    assert [cell.strip() for cell in row.strip("│ ").split("│")][::3] == ["usb-a", "1"]


def test_collection_uses_all_cores():
    """Unless it is told otherwise."""
    for command in (cli.collect, cli.demo):
        assert inspect.signature(command).parameters["workers"].default == os.cpu_count()


def test_every_preset_says_what_it_will_take(capsys, monkeypatch):
    """Time, memory and disk are printed for each preset; paper has the paper's amount of data."""
    monkeypatch.setattr("lotj.speed.measure", lambda preset: Speed(10.0, 1000.0, 2600.0))
    for preset in PRESETS.values():
        cli._print_estimate(preset, 2)
        line = capsys.readouterr().out
        assert (
            preset.name in line
            and ("min" in line or "hours" in line)
            and "GB of memory" in line
            and "GB of disk" in line
        )
    paper = PRESETS["paper"]
    assert paper.policy.model.bottleneck.kl_weight == paper.reward.model.bottleneck.kl_weight == 0.01
    assert paper.connectors * paper.trajectories == 70_000
    assert estimate(PRESETS["debug"], Speed(10.0, 1000.0, 2600.0), 2).total_minutes < 1


def test_the_speed_is_measured_and_the_estimate_follows_it():
    """Rates come from running; half the speed takes twice as long."""
    speed = measure(PRESETS["debug"])
    assert 0.5 < speed.trajectories < 500 and 10 < speed.train_images < 1e6
    half = Speed(*(rate / 2 for rate in speed))
    minutes = [estimate(PRESETS["desk"], rate, 2).total_minutes for rate in (speed, half)]
    assert minutes[1] == pytest.approx(2 * minutes[0])


def test_the_estimate_comes_before_the_work(tmp_path, monkeypatch, capsys):
    """An interrupted command has told what it would take, says how to continue, and ends with the shell's status."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "collect_stage", interrupted)
    with pytest.raises(SystemExit) as ended:
        cli.main(["demo", "--out", str(tmp_path / "run"), "debug"])
    assert ended.value.code == 130
    told = capsys.readouterr()
    assert "GB of disk" in told.out and "repeat the same command" in told.err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--image-size", "128"], ("reward.model.encoder.image_size is 32", "image_size is 128")),
        (["--critic.model.encoder.cameras", "1"], ("critic.model.encoder.cameras is 1", "is 2", "--cameras")),
        (["--policy.steps", "60"], ("policy.model.decay_steps is 30", "policy.steps is 60")),
        (["--reward.model.decay-steps", "7"], ("reward.model.decay_steps is 7", "reward.steps is 30")),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path, capsys, options, named):
    """A preset whose parts do not fit is refused before anything is made, naming both settings and their values."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["collect", "--run", str(tmp_path / "run"), "debug", *options])
    assert ended.value.code == 2
    message = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert all(text in message for text in named)
    assert not (tmp_path / "run").exists()


def test_the_number_of_cameras_is_said_once(run, tmp_path, monkeypatch, capsys):
    """`--cameras` before the preset's name is for all networks and for the collection."""
    from lotj import stages
    from lotj.presets import load_preset

    class Stop(Exception):
        pass

    def collecting(preset, *_):
        assert preset.collect().cameras == 1
        raise Stop

    monkeypatch.setattr(stages, "collect_stage", collecting)
    for command in ("demo", "collect"):
        folder = tmp_path / command
        with pytest.raises(Stop):
            cli.main([command, "--out" if command == "demo" else "--run", str(folder), "--cameras", "1", "debug"])
        held = load_preset(folder)
        assert [stage.model.encoder.cameras for stage in (held.reward, held.critic, held.policy)] == [1, 1, 1]


def test_cameras_that_the_wrist_has_not_are_refused_before_a_folder_is_made(tmp_path, capsys):
    folder = tmp_path / "run"
    with pytest.raises(SystemExit):
        cli.main(["collect", "--run", str(folder), "--cameras", "3", "debug"])
    assert "the simulated wrist has 2" in capsys.readouterr().err and not folder.exists()


def test_a_folder_of_another_number_of_cameras_says_which(run, capsys):
    """And how to go on with it."""
    begin(run)
    with pytest.raises(SystemExit):
        cli.main(["collect", "--run", str(run), "--cameras", "1", "debug"])
    assert "sees by 2 camera(s): --cameras 2" in " ".join(capsys.readouterr().err.split())


def test_folders_and_stores_of_before_there_were_cameras_are_of_one(tmp_path):
    """What says nothing about cameras was made with one, and is the same as what one camera makes today."""
    one = with_cameras(PRESETS["debug"], 1)
    assert "cameras" not in json.dumps(to_json(one))
    assert json.dumps(to_json(PRESETS["debug"])).count('"cameras": 2') == 3
    write_json(tmp_path / "preset.json", to_json(one))
    assert load_preset(tmp_path) == one
    assert "cameras" not in as_recorded(one.collect()) and as_recorded(PRESETS["debug"].collect())["cameras"] == 2
    old = Run(tmp_path / "reward", "reward", one.reward, 0).start()
    assert "cameras" not in json.loads((old.out_dir / "config.json").read_text())["config"]["model"]["encoder"]
    old.finish({})
    assert Run(tmp_path / "reward", "reward", one.reward, 0).is_done()
    with pytest.raises(RunMismatchError, match=r"encoder\.cameras is None there and 2 now"):
        Run(tmp_path / "reward", "reward", PRESETS["debug"].reward, 0).is_done()


def test_settings_that_agree_are_accepted():
    """A constant rate may take any number of steps, and a preset may be made larger as a whole."""
    debug = PRESETS["debug"]
    policy = replace(debug.policy, steps=60, model=replace(debug.policy.model, decay_steps=0))
    assert replace(debug, policy=policy).policy.steps == 60


@pytest.mark.parametrize(("recipe", "share"), [("iql", 0.25), ("ensemble", 0.5)])
def test_each_recipe_has_its_own_share_of_online_data(run, monkeypatch, recipe, share):
    """The paper's recipe mixes in 25%, ours 50%, whichever the preset's is; a share that is given is kept."""
    asked = []

    class Stop(Exception):
        pass

    def practice_stage(preset, run_root, known, connector, reward, bars, config, *_):
        asked.append(config.resolved(reward))
        raise Stop

    monkeypatch.setattr(demo, "practice_stage", practice_stage)
    for preset in (PRESETS["debug"], replace(PRESETS["debug"], practice=PRESETS["paper"].practice)):
        write_json(run / "preset.json", to_json(preset))
        with pytest.raises(Stop):
            cli.main(["practice", "--run", str(run), "--connector", "europlug", "--recipe", recipe])
    assert [config.practice.online_fraction for config in asked] == [share, share]
    # Sec. V-C: the paper's recipe imitates experts and augments no online frame.
    own = (0, ("expert",)) if recipe == "iql" else (4, None)
    assert [(config.practice.online_views, config.features.sources) for config in asked] == [own, own]
    # What goes on training the policy's heads sees as that was trained; the preset's own word comes first.
    seen = [config.features.augment for config in asked]
    assert seen[1] == PRESETS["paper"].policy.augment
    assert seen[0] == (PRESETS["debug"].policy.augment if recipe == "iql" else AugmentConfig())
    given = replace(asked[0], practice=replace(asked[0].practice, online_fraction=0.4))
    assert given.resolved("learned").practice.online_fraction == 0.4


def test_where_nothing_can_be_drawn_it_says_what_to_install():
    """mujoco imported before lotj, without a screen: the error names the variable and the packages."""
    environment = {key: value for key, value in os.environ.items() if key not in ("MUJOCO_GL", "DISPLAY")}
    code = "import mujoco; from lotj.sim.env import InsertionEnv; InsertionEnv(image_size=16).reset(seed=0)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "GraphicsError" in last and "MUJOCO_GL=egl" in last and "libegl1" in last


def test_a_run_of_another_version_is_refused_by_name(tmp_path):
    """A setting that is no longer there is named, and what to do."""
    preset = to_json(PRESETS["debug"])
    preset["practice"]["ensemble"]["hindsight"] = False
    write_json(tmp_path / "preset.json", preset)
    with pytest.raises(
        ValueError, match=r"preset\.json was written by another version.*'hindsight'.*begin another run"
    ):
        load_preset(tmp_path)


@pytest.mark.parametrize(
    ("claimed", "reward", "updates", "told"),
    [
        (9, "learned", 1, "may be worse than before"),
        (2, "learned", 0, "nothing was learned from that, and the policy is what it was"),
        (10, "learned", 1, None),
        (0, "ground-truth", 1, None),
    ],
)
def test_a_reward_that_hardly_ever_pays_is_called_out(capsys, claimed, reward, updates, told):
    """Below one claimed success in twenty trials the person is told what that may mean, and whether anything was
    learned; ground truth may be silent."""
    row = {"connector": "plug", "reward": reward, "recipe": "ensemble", "guard": "off", "red_teamed": False}
    summary = {"predicted_successes": claimed, "trials": 200, "updates": updates}
    row |= {"practice": {"summary": summary}, "scenarios": {}}
    cli.print_outcome({"practices": [row]})
    said = " ".join(capsys.readouterr().out.split())
    assert (f"claimed {claimed} successes in 200 trials" in said) == (told is not None)
    assert told is None or told in said


def test_a_command_starts_without_what_it_does_not_need():
    """Torchvision and Matplotlib take as long to import as everything else; only what uses them waits for them."""
    code = "import sys, lotj.cli; sys.exit(' '.join({'torchvision', 'matplotlib'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "runs/desk/x"), True),
        (sqlite3.OperationalError("database or disk is full"), True),
        (OSError(errno.EACCES, "Permission denied", "runs/desk/x"), False),
        (sqlite3.OperationalError("database is locked"), False),
    ],
)
def test_a_full_disk_is_answered_with_what_to_do(
    error: Exception, full: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setitem(cli.COMMANDS, "connectors", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main(["connectors"])
    told = capsys.readouterr().err
    assert ended.value.code == 2 and str(error) in told and ("repeat the same command" in told) is full


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["collect", "debug", "--known", "a.toml", "b.toml"], "--known names bench-plug more than once"),
        (["collect", "debug", "--known", "rj45", "usb-a", "usb-c", "--validation", "0"], "got 3 and 0"),
        (["collect", "debug", "--practise-on"], "--practise-on names no connector"),
        (["collect", "debug", "--workers", "0"], "--workers 0: expected at least 1"),
        (["demo", "debug", "--workers", "-1"], "--workers -1: expected at least 1"),
        (["demo", "debug", "--result", "folder"], "--result folder is a folder"),
        (["data", "validate", "s.sqlite", "--horizon", "0"], "horizon: expected at least 1, got 0"),
        (["connectors", "show", "long.toml"], "insertion_depth"),
        (["connectors", "check", "rj45", "--seed", "-1"], "--seed -1: expected 0 or more"),
        (["practice", "--run", "folder", "--connector", "rj45", "--seed", "-1"], "--seed -1: expected 0 or more"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(tmp_path, monkeypatch, capsys, command, told):
    """Two files of one name, too little to split, no workers, nothing to practise on, a folder for a file, numbers that
    are none."""
    monkeypatch.chdir(tmp_path)
    plug = commented_toml(example("bench-plug"))
    for name in ("a.toml", "b.toml"):
        (tmp_path / name).write_text(plug, encoding="utf-8")
    lines = ["insertion_depth = 1" + 400 * "0" if x.startswith("insertion_depth = ") else x for x in plug.splitlines()]
    (tmp_path / "long.toml").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "folder").mkdir()
    with pytest.raises(SystemExit) as ended:
        cli.main(command)
    assert ended.value.code == 2 and told in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.rglob("*.sqlite"))
