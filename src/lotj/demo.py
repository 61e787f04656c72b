"""Practice in a run's folder: ask, evaluate, practise, evaluate again, keep; and both rewards beside each other."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lotj.algos.policy import ImagePolicy
from lotj.cells.adapter import Ask
from lotj.cells.opening import (
    action_scale,
    cell_described,
    described,
    honours_scenarios,
    identify,
    is_own_cell,
    robot_name,
)
from lotj.data.store import TrajectoryStore
from lotj.evaluating import evaluate_in
from lotj.files import to_json, write_json
from lotj.fleet import Cells
from lotj.judge import SuccessRule
from lotj.keeping import Kept, keep
from lotj.learned import OFFLINE, about_practice
from lotj.offline import Known, rule_candidates
from lotj.parallel import beside
from lotj.pipeline import check_reward, practise, refuse_other_scale
from lotj.preflight import NotTrustedError, PreflightConfig, trusted
from lotj.presets import Preset
from lotj.provenance import provenance
from lotj.recipe import Offline, RecipeConfig
from lotj.redteam import is_red_teamed, reward_folder
from lotj.run import Run, read_metrics
from lotj.split import refuse_known
from lotj.stages import (
    Bars,
    Ticker,
    encode_offline,
    features_path,
    features_stage,
    load_offline,
    silent_bars,
    store_path,
)
from lotj.trials import RewardSource

Answered = Callable[[Mapping[str, Any]], None]
"""Told whether a reward is trusted (``Preflight.as_json``)."""


def silent_answer(answer: Mapping[str, Any]) -> None:
    """Nobody is told."""


class Places(NamedTuple):
    """Where a practice reads and writes."""

    store: Path
    """The offline trajectories."""
    features: Path
    """Their frozen features, shared by all practices of a recipe from the same networks."""
    out: Path
    """The practice's own folder."""


def practice_dir(
    run_root: Path,
    connector: str,
    recipe: str,
    reward: str,
    seed: int,
    guard: str = "off",
    robot: str = "",
    robots: tuple[str, ...] = (),
) -> Path:
    """The folder of one practice: ``<recipe>-<reward>[-redteam][-<guard>][-<own cell>|-<cell>+<cell>]-s<seed>``."""
    marks = "-redteam" if reward == "learned" and is_red_teamed(run_root) else ""
    marks += "" if guard == "off" else f"-{guard}"
    named = robots or ((robot,) if is_own_cell(robot) else ())
    marks += f"-{'+'.join(map(robot_name, named))}" if named else ""
    return run_root / "practice" / identify(connector, robot).name / f"{recipe}-{reward}{marks}-s{seed}"


def practise_both(
    preset: Preset, run_root: Path, known: Known, connector: str, bars: Bars, answered: Answered = silent_answer
) -> list[Path]:
    """Practise with the learned reward and, beside it, the diagnostic with ground truth. Returns both folders."""
    refuse_known(connector, known, preset.known, robot=preset.robot)
    features_stage(preset, run_root, known, preset.practice, bars)
    truth = practice_dir(run_root, connector, preset.practice.recipe, "ground-truth", preset.seed, robot=preset.robot)
    with beside(_practise_diagnostic, preset, run_root, known, connector) as diagnostic:
        learned = practice_stage(preset, run_root, known, connector, "learned", bars, force=True, answered=answered)
        with bars(f"practise {connector}, ground truth") as tick:
            while diagnostic.is_alive():
                rows, total = read_metrics(truth), preset.practice.practice.trials
                tick(int(rows[-1]["step"]) if rows else 0, total)
                diagnostic.join(0.5)
            tick(preset.practice.practice.trials, preset.practice.practice.trials, "beside the other")
    return [learned, truth]


def _practise_diagnostic(preset: Preset, run_root: Path, known: Known, connector: str) -> None:
    practice_stage(preset, run_root, known, connector, "ground-truth", silent_bars)


def practice_stage(
    preset: Preset,
    run_root: Path,
    known: Known,
    connector: str,
    reward: RewardSource,
    bars: Bars,
    recipe: RecipeConfig | None = None,
    seed: int | None = None,
    allow_validation: bool = False,
    force: bool = False,
    answered: Answered = silent_answer,
    ask: Ask | None = None,
    cells: Cells = Cells(),
) -> Path:
    """Ask whether the reward may be trusted, evaluate, practise, evaluate again.

    A cell that has no way to know success is not evaluated.

    Args:
        preset: of the run.
        run_root: the run's folder.
        known: the split.
        connector: to be practised.
        reward: ``learned``, or ``ground-truth`` for the diagnostic, of which nothing is asked.
        bars: of progress.
        recipe: the preset's by default.
        seed: the preset's by default.
        allow_validation: as for ``refuse_known``.
        force: practise even where the answer is no.
        answered: told the answer.
        ask: asks a person about success, where the cell's file says so.
        cells: several practise together, or in processes of their own; the preset's own robot is asked and evaluated.

    Returns:
        The practice's folder; what is finished there is reused.

    Raises:
        NotTrustedError: the answer is no, or to go behind the guard alone, and it is off.
        PracticePaused: the guard's alarm.
    """
    refuse_known(connector, known, preset.known, robot=preset.robot, allow_validation=allow_validation)
    recipe, seed = recipe or preset.practice, preset.seed if seed is None else seed
    recipe = recipe.resolved(reward)
    red_teamed = reward == "learned" and is_red_teamed(run_root)
    offline = load_offline(run_root, known, red_teamed)
    if reward == "learned" and recipe.preflight.presses and honours_scenarios(preset.robot):
        answer = preflight_stage(preset, run_root, known, connector, recipe.preflight, seed, bars)
        answered(answer)
        guarded = answer["behind_guard"] and recipe.practice.guard.mode != "off"
        if not (answer["go"] or guarded or force):
            raise NotTrustedError(answer["reason"], answer["behind_guard"])
        offline = replace(offline, rule=SuccessRule(**answer["rule"]))
    mode = recipe.practice.guard.mode
    out = practice_dir(run_root, connector, recipe.recipe, reward, seed, mode, preset.robot, cells.robots)
    places = Places(store_path(run_root), features_path(run_root, recipe), out)
    who = (allow_validation, red_teamed, ask, run_root / "STOP", cells)
    practise_in(places, preset, offline, connector, recipe, seed, bars, *who)
    return out


def practise_in(
    places: Places,
    preset: Preset,
    offline: Offline,
    connector: str,
    recipe: RecipeConfig,
    seed: int,
    bars: Bars,
    allow_validation: bool = False,
    red_teamed: bool = False,
    ask: Ask | None = None,
    stop_file: Path | None = None,
    cells: Cells = Cells(),
) -> None:
    """Evaluate, practise, evaluate again, with networks and folders of the caller's choice.

    Args:
        places: what is read, and the practice's folder, where what is finished is reused.
        preset: its ``robot``, ``evaluate``, ``image_size``, ``known`` and ``threads`` are used.
        offline: the networks.
        connector: a name of the catalogue or a TOML file.
        recipe: resolved (``RecipeConfig.resolved``).
        seed: of the practice.
        bars: progress.
        allow_validation: as in ``refuse_known``.
        red_teamed: whether the reward model had learned from attacks, for the record.
        ask: as in ``practice_stage``.
        stop_file: an own cell stops as soon as it exists.
        cells: as for ``practice_stage``.

    Raises:
        ValueError: an action means another displacement in one of the cells than in the data.
        PracticePaused: the guard's alarm.
    """
    robot = preset.robot
    with TrajectoryStore(places.store) as store:
        for each in {robot, *cells.robots}:
            refuse_other_scale(store, action_scale(each))
    torch.set_num_threads(preset.threads)  # also for the evaluation: what a trial comes to depends on it
    validation = refuse_known(connector, offline.known, preset.known, robot=robot, allow_validation=allow_validation)
    out, name = places.out, identify(connector, robot).name
    config = {"connector": connector, "robot": preset.robot, "recipe": recipe, "rule": offline.rule}
    config["validation"] = validation
    config |= described(connector)
    config["red_teamed"] = red_teamed
    if cells.robots:
        config["cells"] = cells.robots
    own = {each: cell_described(each, connector)["cell"] for each in {robot, *cells.robots} if is_own_cell(each)}
    new = {"networks": None, "own_cells": None}
    begun = _json(out / "config.json")["config"] if (out / "config.json").exists() else new
    if "networks" in begun:  # practices of before do not say whose networks they began with
        config["networks"] = offline.networks
    if own and "own_cells" in begun:  # nor what their cells were like
        config["own_cells"] = own
    run = Run(out, "practice", config, seed)
    untaught = ImagePolicy(offline.policy)
    about = {**OFFLINE, "validation": validation}
    before, after = out / "evaluation-before.json", out / "evaluation-after.json"
    evaluate_in(preset, connector, untaught, offline, before, bars, f"{name} before", about, ask, stop_file)
    encode_offline(preset, offline, recipe, places.store, places.features, bars)
    with TrajectoryStore(places.store) as store, bars(f"practise {name}, {recipe.practice.reward} reward") as tick:
        learner = practise(
            connector,
            preset.robot,
            recipe,
            offline,
            store,
            run,
            seed,
            cache=places.features,
            progress=_told(tick, recipe.practice.trials),
            own=preset.known,
            allow_validation=allow_validation,
            cells=cells,
            stop_file=stop_file,
        )
    about = about_practice(name, recipe, validation)
    evaluate_in(preset, connector, learner, offline, after, bars, f"{name} after", about, ask, stop_file)


def keep_stage(run_root: Path, practised: Path) -> tuple[Path, Kept]:
    """Put a finished practice into the run's library (``lotj.keeping``). Returns the library's store."""
    library = run_root / "library.sqlite"
    with TrajectoryStore(store_path(run_root)) as store:
        about = {**provenance(), "action_scale": store.metadata.get("action_scale")}
    kept = keep(practised, library, about)
    if about["action_scale"] is not None:
        with TrajectoryStore(library, mode="a") as store:
            store.set_metadata("action_scale", about["action_scale"])
    return library, kept


def preflight_path(preset: Preset, run_root: Path, connector: str, config: PreflightConfig, seed: int) -> Path:
    """Where the answer about a connector in the preset's cell is kept."""
    name = identify(connector, preset.robot).name
    marks = "-redteam" if is_red_teamed(run_root) else ""
    marks += f"-{robot_name(preset.robot)}" if is_own_cell(preset.robot) else ""
    return run_root / "preflight" / f"{name}{marks}-s{seed}-n{config.presses}.json"


def preflight_stage(
    preset: Preset,
    run_root: Path,
    known: Known,
    connector: str,
    config: PreflightConfig,
    seed: int,
    bars: Bars = silent_bars,
) -> dict[str, Any]:
    """Ask whether the reward may be trusted on a connector; the answer is kept in the run folder, and reused."""
    path, offline = preflight_path(preset, run_root, connector, config, seed), load_offline(run_root, known)
    if not path.exists():
        torch.set_num_threads(preset.threads)
        candidates = rule_candidates(reward_folder(run_root))
        name, std = identify(connector, preset.robot).name, preset.evaluate.acting_std
        with TrajectoryStore(store_path(run_root)) as store, bars(f"check the reward on {name}") as tick:
            answer = check_reward(
                connector, preset.robot, config, offline, candidates, store, seed, std, tick, run_root / "STOP"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {**_asked(preset, connector, config, seed, offline), **answer.as_json()})
    return held_answer(preset, run_root, connector, config, seed, offline)


def held_answer(
    preset: Preset, run_root: Path, connector: str, config: PreflightConfig, seed: int, offline: Offline
) -> dict[str, Any]:
    """The answer that is kept in the run folder.

    Raises:
        FileNotFoundError: nothing was asked.
        ValueError: it was asked otherwise, of other networks, or of the connector as it was before it was edited.
    """
    path = preflight_path(preset, run_root, connector, config, seed)
    asked = _asked(preset, connector, config, seed, offline)
    # Answers of before do not say whose they are, nor of what cell.
    held = {**{key: asked[key] for key in ("networks", "cell") if key in asked}, **_json(path)}
    if differs := [key for key in asked if held.get(key) != asked[key]]:
        raise ValueError(f"{path} was asked with another {', '.join(differs)}; delete it to ask again")
    # From the counts: answers of before knew no guard.
    go, behind_guard = trusted(config, held["chosen_fires"], held["fires"])
    return {**held, "go": go, "behind_guard": behind_guard}


def _asked(preset: Preset, connector: str, config: PreflightConfig, seed: int, offline: Offline) -> dict[str, Any]:
    asked = {"connector": identify(connector, preset.robot).name, "seed": seed, "config": to_json(config)}
    said = {**to_json(described(connector)), **cell_described(preset.robot, connector)}
    return {**asked, "networks": offline.networks, **said}


def _told(tick: Ticker, total: int) -> Callable[[Any], None]:
    """Progress of a practice, with how often its last trials were rewarded."""
    predicted: list[bool] = []

    def told(record: Any) -> None:
        predicted.append(record.success)
        recent = predicted[-20:]
        tick(record.trial, total, f"rewarded {sum(recent)}/{len(recent)} of the last trials")

    return told


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
