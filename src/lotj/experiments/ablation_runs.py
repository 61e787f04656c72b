"""Cases of the ablation: what they need, practised, evaluated, written down."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lotj.demo import Places, practise_in
from lotj.experiments.ablation_cases import EVALUATED, AblationCase, AblationJob, Network
from lotj.experiments.ablation_nets import ablation_store, folder_of, is_trained, load_networks
from lotj.experiments.cases import evaluation, unfinished, write_result
from lotj.experiments.practised import read_practice
from lotj.presets import Preset
from lotj.recipe import RecipeConfig
from lotj.sim.connectors import get_connector
from lotj.split import refuse_known
from lotj.stages import encode_offline, silent_bars


def unfinished_cases(cases: Sequence[AblationCase], job: AblationJob) -> list[AblationCase]:
    """The cases without a result, after refusing what cannot be practised.

    Raises:
        FileNotFoundError: the donor is not a run folder.
        ValueError: a connector is not novel, or the results are of other settings.
    """
    if job.donor is not None and not (job.donor / "preset.json").exists():
        raise FileNotFoundError(f"{job.donor} is not a run folder (no preset.json); leave --run out, or name one")
    for connector in dict.fromkeys(case.connector for case in cases):
        refuse_known(connector, job.preset.split(), job.preset.known, allow_validation=job.allow_validation)
    return unfinished(cases, job.results, {"preset": job.preset})


def untrained(cases: Sequence[AblationCase], job: AblationJob, *kinds: str) -> list[Network]:
    """The networks of these kinds that the cases need and nobody has trained, each once."""
    needed = dict.fromkeys(network for case in cases for network in case.networks if network.kind in kinds)
    return [network for network in needed if not is_trained(network, job)]


def lent(cases: Sequence[AblationCase], job: AblationJob) -> list[Network]:
    """The networks of the cases that the donor has, each once."""
    needed = dict.fromkeys(network for case in cases for network in case.networks)
    return [network for network in needed if folder_of(network, job).parent == job.donor]


def unencoded(cases: Sequence[AblationCase], job: AblationJob) -> list[AblationCase]:
    """A case for each set of frozen features that is not there."""
    return list({path: case for case in cases if not (path := features_of(case, job)).exists()}.values())


def encode(case: AblationCase, job: AblationJob) -> None:
    """Encode the offline frames with the case's policy and critic; arms with the same policy share them."""
    preset, cache = replace(job.preset, threads=1), features_of(case, job)
    encode_offline(
        preset, load_networks(*case.networks, job), recipe_of(case, preset), ablation_store(job), cache, silent_bars
    )


def run_case(case: AblationCase, job: AblationJob) -> dict[str, Any]:
    """Evaluate, practise and evaluate one case, and write its result; continues or reuses what is there."""
    settings = evaluation(case.seed, case.evaluation_trials, EVALUATED, job.preset.evaluate.acting_std)
    preset = replace(job.preset, threads=1, evaluate=settings)
    recipe = recipe_of(case, preset)
    connector = get_connector(case.connector).name
    own = job.out / f"s{case.seed}" / "practice" / connector / f"{case.arm}-{case.recipe}-learned-s{case.seed}"
    places = Places(ablation_store(job), features_of(case, job), own)
    offline = load_networks(*case.networks, job)
    practise_in(places, preset, offline, case.connector, recipe, case.seed, silent_bars, job.allow_validation)
    folders = {network.kind: folder_of(network, job) for network in case.networks}
    stages = {kind: json.loads((folder / "done.json").read_text("utf-8")) for kind, folder in folders.items()}
    about = {"preset": job.preset, "folders": folders, "stages": stages}
    return write_result(case, job.results, about, read_practice(own, settings))


def features_of(case: AblationCase, job: AblationJob) -> Path:
    """Frozen features depend on policy, critic and recipe, not on the reward."""
    policy = case.networks[2]
    return job.out / f"s{case.seed}" / f"features-{policy.method}" / f"{case.recipe}.safetensors"


def recipe_of(case: AblationCase, preset: Preset) -> RecipeConfig:
    """The preset's practice with the case's recipe, trials and scenario, and the learned reward."""
    practice = replace(preset.practice.practice, trials=case.trials, scenario=case.scenario)
    return replace(preset.practice, recipe=case.recipe, practice=practice).resolved("learned")
