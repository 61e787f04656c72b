"""The stages before practice, and the report after it, in a run's folder: collect, train, encode."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from lotj.collect import Collected, collect, summarise
from lotj.dagger import roll_out, train_first_policy
from lotj.data.store import TrajectoryStore
from lotj.distributed import Workers
from lotj.encoding import is_cached, offline_features
from lotj.files import write_json
from lotj.offline import Known, load_critic, load_policy, load_reward, train_critic, train_policy, train_reward
from lotj.parallel import beside
from lotj.presets import Preset, load_preset
from lotj.recipe import Offline, RecipeConfig, encoding_settings, feature_cache, make_learner
from lotj.redteam import is_red_teamed, reward_folder
from lotj.run import read_metrics
from lotj.sim.controller import ControllerConfig

if TYPE_CHECKING:
    from lotj.report.html import Extras
    from lotj.report.records import PracticeRecord
    from lotj.report.saliency import SaliencyPanel


class Ticker(Protocol):
    """A progress bar of one stage."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


Bars = Callable[[str], AbstractContextManager[Ticker]]
"""Opens a progress bar with a title."""


def store_path(run_root: Path) -> Path:
    """Where a run keeps its trajectories."""
    return run_root / "data" / "trajectories.sqlite"


def collect_stage(preset: Preset, run_root: Path, workers: Workers, bars: Bars) -> Collected:
    """Collect what the preset knows."""
    with bars("collect") as tick:
        return collect(preset.collect(), store_path(run_root), workers=workers, progress=tick)


def collected_stage(run_root: Path) -> Collected:
    """Totals of what a run has collected, roll-outs too."""
    with TrajectoryStore(store_path(run_root)) as store:
        return summarise(store)


def roll_out_stage(preset: Preset, run_root: Path, known: Known, workers: Workers, bars: Bars) -> None:
    """Train a first policy on what is collected, roll it out, and let its trials join the store (``lotj.dagger``)."""
    config, first = preset.dagger, run_root / "first-policy"
    if not config.trials:
        return
    with TrajectoryStore(store_path(run_root)) as store, bars("train a first policy") as tick:
        torch.set_num_threads(preset.threads)
        train_first_policy(config, preset.policy, store, known, first, preset.seed, _metric(tick, "action_error"))
    collected = preset.collect()
    with bars("roll it out") as tick:
        roll_out(
            config,
            load_policy(first),
            collected.connectors,
            collected.robots,
            preset.seed,
            store_path(run_root),
            workers=workers,
            progress=tick,
        )


def train_stage(preset: Preset, run_root: Path, known: Known, bars: Bars, stages: tuple[str, ...]) -> None:
    """Train the named stages of ``reward``, ``critic``, ``policy``; finished ones are reused."""
    torch.set_num_threads(preset.threads)
    with TrajectoryStore(store_path(run_root)) as store:
        if "reward" in stages:
            with bars("train reward") as tick:
                train_reward(preset.reward, store, known, run_root / "reward", preset.seed, _metric(tick, "accuracy"))
        if "critic" in stages:
            with bars("train critic") as tick:
                train_critic(preset.critic, store, known, run_root / "critic", preset.seed, _metric(tick, "q_loss"))
        if "policy" in stages:
            with bars("train policy") as tick:
                critic = load_critic(run_root / "critic")
                policy, seed = preset.policy, preset.seed
                train_policy(policy, store, known, critic, run_root / "policy", seed, _metric(tick, "action_error"))


def train_all(preset: Preset, run_root: Path, known: Known, bars: Bars) -> None:
    """Train everything on two cores, one thread each: the reward model beside the critic and the policy, which needs
    the critic. (Two threads on one network wait for each other: the least other load makes them many times slower.)"""
    with beside(_train_reward, preset, run_root, known) as reward:
        train_stage(preset, run_root, known, bars, ("critic", "policy"))
        with bars("train reward") as tick:
            while reward.is_alive():
                rows = read_metrics(run_root / "reward")
                tick(int(rows[-1]["step"]) if rows else 0, preset.reward.steps)
                reward.join(0.5)
            tick(preset.reward.steps, preset.reward.steps, "beside critic and policy")


def _train_reward(preset: Preset, run_root: Path, known: Known) -> None:
    train_stage(preset, run_root, known, silent_bars, ("reward",))


@contextmanager
def silent_bars(title: str) -> Iterator[Ticker]:
    """Bars for a process that nobody watches."""
    yield lambda done, total, note="": None


def load_offline(run_root: Path, known: Known, red_teamed: bool | None = None) -> Offline:
    """The offline phase of a run; errors name the stage that is missing.

    ``red_teamed`` asks for the one or the other reward model, for what was practised with it; None takes the present.
    """
    present = reward_folder(run_root)
    scripted, attacked = run_root / "reward", run_root / "redteam" / "reward"
    reward, rule = load_reward(present if red_teamed is None else attacked if red_teamed else scripted)
    return Offline(load_policy(run_root / "policy"), load_critic(run_root / "critic"), reward, rule, known)


def features_stage(preset: Preset, run_root: Path, known: Known, recipe: RecipeConfig, bars: Bars) -> None:
    """Encode the offline frames once, for all practices of a recipe; reused where it was done."""
    encode_offline(
        preset, load_offline(run_root, known), recipe, store_path(run_root), features_path(run_root, recipe), bars
    )


def encode_offline(
    preset: Preset, offline: Offline, recipe: RecipeConfig, store_file: Path, cache: Path, bars: Bars
) -> None:
    """Encode a store's frames with these networks into ``cache``; reused where it was done."""
    torch.set_num_threads(preset.threads)
    learner, held = make_learner(recipe, offline, preset.seed), feature_cache(cache, recipe, offline)
    with TrajectoryStore(store_file) as store:
        if is_cached(learner, recipe.frozen, store, offline.known, held):
            return
        with bars("encode offline frames") as tick:
            offline_features(learner, recipe.frozen, store, offline.known, held, tick)


def features_path(run_root: Path, recipe: RecipeConfig) -> Path:
    """Where a run keeps a recipe's frozen features; those of other settings than the run's own are kept beside them.
    Raises as ``load_preset`` does."""
    usual = replace(load_preset(run_root).practice, recipe=recipe.recipe)
    asked = encoding_settings(recipe)
    mark = "" if asked == encoding_settings(usual) else f"-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"
    return run_root / "features" / f"{recipe.recipe}{mark}.safetensors"


def report_stage(preset: Preset, run_root: Path, known: Known, folders: list[Path]) -> dict[str, Any]:
    """Write ``report.html`` and ``summary.json`` of the given practices."""
    from lotj.report.html import Extras, write_report
    from lotj.report.records import find_value

    present, limit = load_offline(run_root, known), ControllerConfig().force_limit

    def extras(record: PracticeRecord) -> Extras:
        other = record.red_teamed != is_red_teamed(run_root)
        offline = load_offline(run_root, known, record.red_teamed) if other else present
        if find_value(record.provenance, "networks") not in (None, offline.networks):
            return Extras(None, (), limit)  # those that it practised with are gone
        trials = [trajectory for _, trajectory in (*record.first[:1], *record.last[-1:])]
        images = [image for trial in trials for image in (trial.image[len(trial) // 2], trial.image[-1])]
        return Extras(offline.reward, _saliency(offline, np.stack(images)) if images else (), limit)

    summary = write_report(run_root, folders, run_root / "report.html", extras)
    write_json(run_root / "summary.json", summary)
    return summary


def _saliency(offline: Offline, images: Any) -> tuple[SaliencyPanel, ...]:
    """Where reward and policy look in images (B, H, W, 3)."""
    from lotj.report.saliency import SaliencyPanel, grad_cam

    reward, policy = offline.reward.network, offline.policy
    heat = grad_cam(lambda x: reward(x)[0], reward.encoder.stages[1], images)
    down = grad_cam(lambda x: -policy.mean_action(policy.encoder(x))[:, 2], policy.encoder.stages[1], images)
    return (
        SaliencyPanel("Reward", "what speaks for success", images, heat),
        SaliencyPanel("Policy", "what speaks for moving down", images, down),
    )


def _metric(tick: Ticker, name: str) -> Callable[[int, int, Any], None]:
    return lambda done, total, metrics: tick(done, total, f"{name} {metrics.get(name, float('nan')):.3f}")
