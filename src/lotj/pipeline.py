"""The stages, wired: where the simulator, the data, the learners and the run folder meet.

A run folder holds one offline phase and any number of practices on connectors that it never saw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lotj.algos.learner import Learner
from lotj.algos.policy import ImagePolicy
from lotj.cells.adapter import Ask
from lotj.cells.opening import (
    OWN_STARTS,
    action_scale,
    honours_scenarios,
    identify,
    is_own_cell,
    longest_trial,
    open_cell,
)
from lotj.data.store import TrajectoryStore
from lotj.encoding import offline_features
from lotj.evaluate import EvaluateConfig, Evaluation, TrialLog, evaluate
from lotj.files import write_json
from lotj.fleet import Cells
from lotj.judge import Judge
from lotj.open_fleet import Job, open_fleet
from lotj.practice import practise_in_rounds
from lotj.preflight import Preflight, PreflightConfig, preflight
from lotj.recipe import Offline, RecipeConfig, feature_cache, make_learner, weights_digest
from lotj.run import Run
from lotj.seeds import stream_seed
from lotj.sim.connectors import get_connector
from lotj.split import refuse_known
from lotj.trials import TrialRecord


def practise(
    connector: str,
    robot: str,
    config: RecipeConfig,
    offline: Offline,
    store: TrajectoryStore,
    run: Run,
    seed: int,
    *,
    cache: Path | None = None,
    progress: Callable[[TrialRecord], None] | None = None,
    own: Sequence[str] = (),
    allow_validation: bool = False,
    cells: Cells = Cells(),
    stop_file: Path | None = None,
) -> Learner:
    """Practise one connector (Sec. V-C) in the run's folder; continues or reuses what is there. Returns the learner.

    ``cells`` practise instead of ``robot``; ``own`` and ``allow_validation`` are those of ``refuse_known``.
    """
    validation = refuse_known(connector, offline.known, own, robot=robot, allow_validation=allow_validation)
    return practise_unchecked(
        connector,
        robot,
        config,
        offline,
        store,
        run,
        seed,
        cache=cache,
        progress=progress,
        validation=validation,
        cells=cells,
        stop_file=stop_file,
    )


def practise_unchecked(
    connector: str,
    robot: str,
    config: RecipeConfig,
    offline: Offline,
    store: TrajectoryStore,
    run: Run,
    seed: int,
    *,
    cache: Path | None = None,
    progress: Callable[[TrialRecord], None] | None = None,
    validation: bool = False,
    cells: Cells = Cells(),
    stop_file: Path | None = None,
) -> Learner:
    """``practise`` of any connector, known ones too: for red-teaming and diagnosis, never for a claim."""
    name = identify(connector, robot).name
    learner = make_learner(config, offline, stream_seed(seed, name, "learner"))
    features = offline_features(
        learner, config.frozen, store, offline.known, None if cache is None else feature_cache(cache, config, offline)
    )
    if run.is_done():
        state = run.load_checkpoint()
        assert state is not None
        learner.load_state_dict(state["learner"])
        return learner
    config = config.resolved(config.practice.reward)
    settings, robots = config.practice, cells.robots or (robot,)
    settings = replace(settings, horizon=max(longest_trial(each) for each in robots))
    if not any(honours_scenarios(each) for each in robots):
        settings = replace(settings, scenario=OWN_STARTS)
    for each in robots:
        refuse_other_scale(store, action_scale(each))
    job = Job(
        connector if is_own_cell(robot) else get_connector(connector),
        store.shape.height,
        store.shape.cameras,
        settings.reward,
        offline.reward,
        offline.rule,
        settings.guard,
        stop_file,
        run.out_dir / "contact.json",
    )
    with ExitStack() as places:
        build_learner = partial(make_learner, config, offline, seed=0)
        fleet = open_fleet(job, cells._replace(robots=robots), learner, build_learner, places)
        run.start()
        # The same for all recipes and rewards, so that they meet the same start states; another for each connector.
        rng = np.random.default_rng(stream_seed(seed, name, "practice"))
        result = practise_in_rounds(settings, fleet, learner, features, run, rng, progress)
    run.finish({**result.summary(), "validation": validation})
    return learner


def check_reward(
    connector: str,
    robot: str,
    config: PreflightConfig,
    offline: Offline,
    candidates: Sequence[Mapping[str, Any]],
    store: TrajectoryStore,
    seed: int,
    acting_std: float = 0.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
    stop_file: Path | None = None,
) -> Preflight:
    """Ask whether the reward may be trusted on a connector (``lotj.preflight``).

    Args:
        connector: to be practised.
        robot: the cell.
        config: how much is asked.
        offline: the reward and its rule, and the policy that makes the attempts.
        candidates: the table that the rule was chosen from.
        store: pictures of the known connectors.
        seed: of the run.
        acting_std: of the policy's noise, in units of action (``EvaluateConfig.acting_std``).
        progress: called with (trials made, trials in all).
        stop_file: an own cell stops as soon as it exists.

    Raises:
        ValueError: an action means another displacement in this cell than in the data.
    """
    shape, scale = store.shape, action_scale(robot)
    refuse_other_scale(store, scale)
    with open_cell(
        connector,
        robot,
        "II",
        image_size=shape.height,
        cameras=shape.cameras,
        purpose="practise",
        stop_file=stop_file,
    ) as env:
        answer = preflight(
            config,
            env,
            offline.reward,
            offline.rule,
            candidates,
            stream_seed(seed, identify(connector, robot).name, "preflight"),
            _looks(offline, store) if config.presses else None,
            offline.reward.feature,
            ImagePolicy(offline.policy, acting_std) if config.attempts else None,
            scale,
            progress,
        )
    return answer


def _looks(offline: Offline, store: TrajectoryStore, images: int = 12) -> dict[str, tuple[str, NDArray[np.float32]]]:
    """Family and mean feature of first frames of every training connector."""
    described = store.metadata.get("connectors", {})
    looks = {}
    for name in offline.known.train:
        ids = np.flatnonzero(store.index.connector == name)[:images]
        first = store.read_images(ids, np.zeros(len(ids), np.int64))
        looks[name] = (described.get(name, {}).get("family", "unknown"), offline.reward.feature(first).mean(axis=0))
    return looks


def evaluate_policy(
    connector: str,
    robot: str,
    policy: Any,
    offline: Offline,
    config: EvaluateConfig,
    image_size: int,
    cameras: int,
    out: Path | None = None,
    progress: Callable[..., None] | None = None,
    about: Mapping[str, Any] | None = None,
    ask: Ask | None = None,
    stop_file: Path | None = None,
) -> Evaluation:
    """Evaluate a policy or learner on one connector by ground truth, with the reward model watching.

    It is written to ``out`` with ``about``, which says whose policy this is, under ``policy``. ``ask`` is asked where
    the cell has no other way to know success. An own cell stops as soon as ``stop_file`` exists.
    """
    name = identify(connector, robot).name
    config = replace(config, connector=name)
    rule = {"threshold": offline.rule.threshold, "frames": offline.rule.frames}
    log = None
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        weights = evaluated_weights(policy, offline)
        of = {"policy": dict(about or {}), "rule": rule, "config": config, "robot": robot, "weights": weights}
        log = TrialLog(out.with_suffix(".partial.jsonl"), of)
    result = evaluate(
        config,
        partial(
            open_cell,
            connector,
            robot,
            image_size=image_size,
            cameras=cameras,
            purpose="evaluate",
            ask=ask,
            stop_file=stop_file,
        ),
        policy,
        Judge(offline.reward, offline.rule),
        progress,
        log,
    )
    if out is not None and log is not None:
        write_json(out, {"policy": dict(about or {}), "rule": rule, "weights": weights, **result.to_json()})
        log.path.unlink()
    return result


def evaluated_weights(policy: Any, offline: Offline) -> str:
    """Tells an evaluation from those of other networks: none mixes the trials of two, or passes for the other's."""
    acting = policy.state_dict() if hasattr(policy, "state_dict") else {}
    return weights_digest(offline.policy.state_dict(), offline.reward.network.state_dict(), acting)


def refuse_other_scale(store: TrajectoryStore, now: list[float]) -> None:
    """A policy's actions mean what they meant in its data: metres for an action of 1. Raises `ValueError`."""
    wanted = store.metadata.get("action_scale")
    if wanted is not None and wanted != now:
        raise ValueError(
            f"{store.path} was collected with {wanted} m for an action of 1, this cell moves {now}: "
            "collect and train anew for this cell, or give it the scale of the data"
        )
