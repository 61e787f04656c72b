"""Cases of practice from one finished offline run: checked, practised, evaluated, written down."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lotj.data.store import TrajectoryStore
from lotj.demo import Places, practise_in
from lotj.experiments.cases import evaluation, unfinished, write_result
from lotj.experiments.practice_cases import PracticeCase, PracticeJob, changed, practice_name
from lotj.experiments.practised import read_practice
from lotj.files import to_json, write_json
from lotj.judge import SuccessRule
from lotj.offline import rule_candidates
from lotj.pipeline import check_reward
from lotj.presets import Preset, load_preset
from lotj.recipe import Offline, RecipeConfig
from lotj.sim.connectors import described, get_connector
from lotj.split import refuse_known
from lotj.stages import Bars, features_path, features_stage, load_offline, silent_bars, store_path

SCENARIOS = ("I", "II")
STAGES = ("reward", "critic", "policy")


def prepare(cases: list[PracticeCase], job: PracticeJob, bars: Bars) -> list[PracticeCase]:
    """Refuse what cannot be practised before any work is done, and encode the offline frames for those who share them.

    Returns:
        The cases that have no result yet.

    Raises:
        FileNotFoundError: the run is not one, or not finished.
        ValueError: a connector is not novel, or ``out`` or ``results`` hold practices from another offline run.
    """
    preset, offline = load_preset(job.run), offline_identity(job.run)
    for connector in dict.fromkeys(case.connector for case in cases):
        refuse_known(connector, preset.split(), preset.known, allow_validation=job.allow_validation)
    for case in cases:
        if case.rule == "checked" and not changed(preset.practice, case.settings).preflight.presses:
            raise ValueError(
                f"{case.name}: its rule is the one that the check before practice answers with, but preflight.presses "
                "is 0, so nothing is asked; say --rules chosen, or --settings preflight.presses=20"
            )
    todo = unfinished(cases, job.results, offline)
    _claim(job.out, offline)
    for recipe, settings in dict.fromkeys((case.recipe, case.settings) for case in todo):
        config = changed(replace(preset.practice, recipe=recipe), settings)
        features_stage(preset, job.run, preset.split(), config, bars)
    return todo


def run_case(case: PracticeCase, job: PracticeJob) -> dict[str, Any]:
    """Evaluate, practise and evaluate one case, and write its result; continues or reuses what is there."""
    preset = load_preset(job.run)
    settings = evaluation(case.seed, case.evaluation_trials, SCENARIOS, preset.evaluate.acting_std)
    preset = replace(preset, threads=1, evaluate=settings)
    recipe = recipe_of(case, preset)
    folder = (
        job.out
        / get_connector(case.connector).name
        / f"{practice_name(case.recipe, case.reward, case.guard, case.settings, case.rule)}-s{case.seed}"
    )
    places = Places(store_path(job.run), features_path(job.run, recipe), folder)
    # Rewards that learned from attacks are another experiment (``benchmarks/redteam.py``).
    offline = load_offline(job.run, preset.split(), red_teamed=False)
    answer = asked(case, job, preset, offline, recipe, folder) if case.reward == "learned" else None
    if case.rule == "checked" and answer is not None:
        offline = replace(offline, rule=SuccessRule(**answer["rule"]))
    practise_in(places, preset, offline, case.connector, recipe, case.seed, silent_bars, job.allow_validation)
    found = read_practice(folder, preset.evaluate)
    return write_result(case, job.results, offline_identity(job.run), {**found, "preflight": answer})


def asked(
    case: PracticeCase, job: PracticeJob, preset: Preset, offline: Offline, recipe: RecipeConfig, folder: Path
) -> dict[str, Any] | None:
    """What the check before practice says of this connector. Whether it is go or no-go, it is practised, so that
    answers and practices can be compared. None where nothing is asked."""
    path, about = folder / "preflight.json", described(case.connector)
    held = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    if (held is None or held.get("described") != about.get("described")) and recipe.preflight.presses:
        torch.set_num_threads(preset.threads)
        candidates = rule_candidates(job.run / "reward")
        with TrajectoryStore(store_path(job.run)) as store:
            answer = check_reward(
                case.connector,
                preset.robot,
                recipe.preflight,
                offline,
                candidates,
                store,
                case.seed,
                preset.evaluate.acting_std,
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, {**answer.as_json(), **about})
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def recipe_of(case: PracticeCase, preset: Preset) -> RecipeConfig:
    """The preset's practice with the case's recipe, settings, reward, guard and trials, in both scenarios."""
    config = changed(replace(preset.practice, recipe=case.recipe), case.settings)
    practice = config.practice
    guard = replace(practice.guard, mode=case.guard)
    practice = replace(practice, trials=case.trials, scenario="mixed", guard=guard)
    return replace(config, practice=practice).resolved(case.reward)


def offline_identity(run_root: Path) -> dict[str, Any]:
    """Which offline phase was practised from: the preset, and what its stages came to.

    Raises:
        FileNotFoundError: a stage is not finished.
    """
    stages = {}
    for stage in STAGES:
        done = run_root / stage / "done.json"
        if not done.exists():
            raise FileNotFoundError(
                f"{run_root} is not a finished offline run (no {stage}/done.json); run `lotj train --run {run_root}`"
            )
        stages[stage] = json.loads(done.read_text(encoding="utf-8"))
    preset = to_json(load_preset(run_root))
    # A run may go on to further connectors: that does not change what was trained.
    return {"preset": {key: value for key, value in preset.items() if key != "practise_on"}, "stages": stages}


def _claim(out: Path, offline: dict[str, Any]) -> None:
    """Note whose practices ``out`` holds, or refuse another offline run's."""
    path = out / "offline.json"
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != offline:
        raise ValueError(
            f"{out} holds practices from another offline run (its {path.name} differs); name another folder with "
            "--out, or delete it"
        )
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, offline)
