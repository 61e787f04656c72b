"""The networks of the ablation: every reward model, critic and policy that its arms need, each trained once.

Q and V do not depend on the policy's bottleneck, so a seed has one critic. All seeds share one collection. What a
finished run of the same settings has (``donor``) is used where it lies, and nothing is written there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lotj.collect import as_recorded, summarise
from lotj.dagger import SOURCE as ROLL_OUT
from lotj.data.store import TrajectoryStore
from lotj.experiments.ablation_cases import AblationJob, Network
from lotj.experiments.reward_runs import with_method
from lotj.offline import load_critic, load_policy, load_reward, stage_run, train_critic, train_policy, train_reward
from lotj.presets import Preset
from lotj.recipe import Offline
from lotj.run import RunMismatchError
from lotj.stages import store_path


def stage_of(network: Network, preset: Preset) -> Any:
    """The settings that a network is trained with: the preset's, with the bottleneck of its method.

    ``erm`` on the policy is, as on the reward, the same latent size without adversary and without divergence.
    """
    if network.kind == "critic":
        return preset.critic
    if network.kind == "reward":
        return with_method(preset.reward, network.method)
    return with_method(preset.policy, network.method)


def ablation_store(job: AblationJob) -> Path:
    """The collection: the donor's if it is the same and complete, else the ablation's own."""
    own = store_path(job.out)
    if job.donor is None or own.exists():
        return own
    lent = store_path(job.donor)
    return lent if lent.exists() and _is_complete(lent, job.preset) else own


def folder_of(network: Network, job: AblationJob) -> Path:
    """Where a network is: the donor's folder if it was finished there with the same settings, data and seed, else the
    ablation's own. A policy comes from a donor only together with the critic that it was extracted from."""
    own = job.out / f"s{network.seed}" / network.name
    if job.donor is None or (own / "config.json").exists() or ablation_store(job) != store_path(job.donor):
        return own
    critic = Network("critic", "", network.seed)
    if network.kind == "policy" and folder_of(critic, job) != job.donor / critic.kind:
        return own
    lent = job.donor / network.kind
    return lent if _is_done(network, job, lent) else own


def is_trained(network: Network, job: AblationJob) -> bool:
    """Whether a network is finished; False too before anything is collected.

    Raises:
        RunMismatchError: the ablation's own folder holds a network of other settings.
    """
    return ablation_store(job).exists() and _done(network, job, folder_of(network, job))


def train_network(network: Network, job: AblationJob) -> None:
    """Train a network, or continue it; a policy needs its critic finished."""
    folder, seed, known = folder_of(network, job), network.seed, job.preset.split()
    stage = stage_of(network, job.preset)
    torch.set_num_threads(1)
    with TrajectoryStore(ablation_store(job)) as store:
        if network.kind == "reward":
            train_reward(stage, store, known, folder, seed)
        elif network.kind == "critic":
            train_critic(stage, store, known, folder, seed)
        else:
            critic = load_critic(folder_of(Network("critic", "", seed), job))
            train_policy(stage, store, known, critic, folder, seed)


def load_networks(reward: Network, critic: Network, policy: Network, job: AblationJob) -> Offline:
    """What practice starts from."""
    model, rule = load_reward(folder_of(reward, job))
    return Offline(
        load_policy(folder_of(policy, job)), load_critic(folder_of(critic, job)), model, rule, job.preset.split()
    )


def _done(network: Network, job: AblationJob, folder: Path) -> bool:
    with TrajectoryStore(ablation_store(job)) as store:
        stage = stage_of(network, job.preset)
        return stage_run(network.kind, stage, job.preset.split(), store, folder, network.seed).is_done()


def _is_done(network: Network, job: AblationJob, folder: Path) -> bool:
    try:
        return _done(network, job, folder)
    except RunMismatchError:
        return False


def _is_complete(path: Path, preset: Preset) -> bool:
    """Whether a store holds what the preset collects: scripted trajectories and roll-outs."""
    config = preset.collect()
    with TrajectoryStore(path) as store:
        rolled_out = int((store.index.source == ROLL_OUT).sum())
        scripted = len(store) - rolled_out + sum(summarise(store).dislodged.values())
        return (
            store.metadata.get("collect") == as_recorded(config)
            and scripted >= len(config.connectors) * config.trajectories
            and rolled_out == len(config.connectors) * preset.dagger.trials
        )
