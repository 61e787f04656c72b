"""`lotj insert`: the job itself."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from rich.markup import escape

from lotj import cli_cell
from lotj.console import check_film, console, say

NOT_IN = 4
"""Exit code where the plug is not in."""


def insert(
    run: Path,
    connector: str,
    practised: Path | None = None,
    offline: bool = False,
    attempts: int = 3,
    guard: Literal["off", "tug"] | None = None,
    cell: Path | None = None,
    scenario: Literal["I", "II"] | None = None,
    seed: int = 0,
    film: Path | None = None,
) -> None:
    """Insert a connector with what was learned: no exploring, and the robot's own reward says when it is in.

    Needs no ground truth. A cell of one's own is left with the plug in the socket and still held; else it goes up.
    Exit code 0: in; 4: not in; 3: stopped for a person to look. Example: ``lotj insert --run runs/desk --connector
    nema-5-15``

    Args:
        run: run folder with trained networks.
        connector: a name of the catalogue or a TOML file; in a cell of one's own the name that was practised.
        practised: folder of a finished practice of this run; by default the only one of this connector in this cell
            with the robot's own reward, or where there is none the offline policy.
        offline: the offline policy, whatever was practised.
        attempts: largest number of attempts, each from the cell's start pose.
        guard: tug at the plug where the reward says that it is in, and press it home again; by default where the
            practice had a guard.
        cell: a cell of your own; the run's own by default.
        scenario: in the simulator and cells that honour it, where attempts start.
        seed: of the starts, where the cell draws them.
        film: also write what the robot saw, and what its reward model thought of it: a file .mp4 or .webp.
    """
    import torch

    from lotj.cells.opening import action_scale, identify, open_cell
    from lotj.data.store import TrajectoryStore
    from lotj.guard import TugConfig
    from lotj.learned import Attempt, load_learned, practice_of
    from lotj.learned import insert as attempt
    from lotj.pipeline import refuse_other_scale
    from lotj.presets import load_preset
    from lotj.stages import store_path

    check_film(film)
    if offline and practised is not None:
        raise ValueError(f"--offline and --practised {practised}: say one of them")
    preset = load_preset(run)
    torch.set_num_threads(preset.threads)
    if cell is not None:
        preset = replace(preset, robot=str(cell))
    name = identify(connector, preset.robot).name
    chosen = None if offline else practised or practice_of(run, name, preset.robot)
    learned = load_learned(run, chosen)
    with TrajectoryStore(store_path(run)) as store:
        refuse_other_scale(store, action_scale(preset.robot))
    if chosen is None:
        learned = _as_asked(learned, preset, run, connector)
    say(f"{name}: the offline policy acts" if chosen is None else f"{name}: {chosen}")
    if chosen is not None:
        cli_cell.tell_other(chosen, name)
    if learned.about["diagnostic"]:
        console.print("[yellow]Diagnostic: this policy practised with ground truth as the reward.[/]")
    tug = learned.tug if guard is None else TugConfig() if guard == "tug" else None
    made: list[Attempt] = []

    def told(one: Attempt) -> None:
        made.append(one)
        say(f"  {len(one.trajectory)} steps, probability of success up to {one.probability:.2f}: {_verdict(one)}")

    if film is not None:
        film.parent.mkdir(parents=True, exist_ok=True)
    options = None if scenario is None else {"scenario": scenario}
    try:
        with open_cell(
            connector,
            preset.robot,
            scenario,
            image_size=preset.image_size,
            cameras=preset.cameras,
            purpose="practise",
            stop_file=run / "STOP",
        ) as env:
            attempt(env, learned, attempts, seed, options, tug, told)
        _conclude(made, attempts, _next(run, connector, name, cell, learned.about, preset))
    finally:
        if film is not None and made:
            _film(film, made, learned)


def _as_asked(learned: Any, preset: Any, run: Path, connector: str) -> Any:
    """The offline policy judged as the reward was found to deserve on this connector, where that was asked with the
    run's own settings and seed."""
    from lotj.demo import held_answer
    from lotj.judge import SuccessRule

    try:
        answer = held_answer(preset, run, connector, preset.practice.preflight, preset.seed, learned.offline)
    except FileNotFoundError:
        return learned
    if not answer["go"]:
        console.print(f"[yellow]Not to be trusted alone: {escape(answer['reason'])}[/]")
    return learned._replace(offline=replace(learned.offline, rule=SuccessRule(**answer["rule"])))


def _verdict(attempt: Any) -> str:
    """Whether the plug is in, why not, and what the simulator knows."""
    word = "in" if attempt.inserted else f"not in ({attempt.why})"
    truth = attempt.trajectory.privileged.get("success")
    return word if truth is None else f"{word}; ground truth: {'in' if truth[-1] else 'not in'}"


def _conclude(made: list[Any], attempts: int, after: str) -> None:
    """Say what it came to.

    Raises:
        SystemExit: the plug is not in.
    """
    from lotj.learned import has_slipped

    truth = made[-1].trajectory.privileged.get("success")
    if made[-1].inserted and (truth is None or truth[-1]):
        say(f"Inserted, attempt {len(made)} of {attempts} at most; what holds the plug is left as it is")
        return
    if made[-1].inserted:
        console.print("[yellow]The robot believes that the plug is in, and ground truth says that it is not.[/]")
    elif has_slipped(made[-1].trajectory):
        say("The plug has slipped in the fingers: grip it anew, and repeat.")
    say(f"Not inserted in {len(made)} attempt(s). {after}")
    raise SystemExit(NOT_IN)


def _next(run: Path, connector: str, name: str, cell: Path | None, about: Any, preset: Any) -> str:
    """What to do where the plug is not in."""
    from lotj import cli_guard

    if about["practised"] == name:
        seed = preset.seed + len(list((run / "practice" / name).iterdir()))
        guard = None if about["guard"] == "off" else about["guard"]
        again = cli_guard.command(run, connector, guard, about["recipe"], None, None, seed, False, cell)
        return f"Look at its practice: lotj report --run {shlex.quote(str(run))}; or practise anew: {again}"
    known = preset.split()
    if name in (*known.train, *known.validation):
        there = "" if cell is None else f" --cell {shlex.quote(str(cell))}"
        return f"Next: lotj evaluate --run {shlex.quote(str(run))} --connector {shlex.quote(connector)}{there}"
    return f"Next: {cli_guard.command(run, connector, None, None, None, None, None, False, cell)}"


def _film(path: Path, made: list[Any], learned: Any) -> None:
    from lotj.report.video import trajectory_video

    trials = [one.trajectory for one in made]
    seen = [learned.offline.reward.probability(trial.image) for trial in trials]
    trajectory_video(trials, seen, path, threshold=learned.offline.rule.threshold)
    say(f"Film: {path}")
