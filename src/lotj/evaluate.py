"""Evaluation: the policy without exploration, over its full horizon, in columns that are kept apart.

A policy that sees one image and always answers it alike can rest for ever where friction holds the plug. So whoever is
evaluated, before practice and after it, may act with a little noise (``acting_std``).

*rewarded*: the reward model was above its threshold on at least one image. *judged*: its success rule fired, so
practice would have paid and ended the trial there. *true*: the plug reached full insertion, by the simulator's ground
truth. Only *true* is success; the other two say what the robot believes. The judge watches but never ends a trial.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

from lotj.files import append_json, to_json, write_text
from lotj.judge import Judgement
from lotj.rollout import policy_rng, rollout
from lotj.stats import clopper_pearson
from lotj.types import Observation, Policy, Trajectory, noisy_action

Column = Literal["rewarded", "judged", "true"]
COLUMNS: tuple[Column, ...] = ("rewarded", "judged", "true")


@dataclass(frozen=True)
class EvaluateConfig:
    """What is evaluated; the same config gives the same start states whatever the policy."""

    trials: int = 20
    """Trials in each scenario."""
    scenarios: tuple[str, ...] = ("I", "II")
    """Names handed to ``make_env``; I starts within 10 mm of the socket, II at 10-20 mm."""
    seed: int = 0
    """With scenario, connector and index of a trial it fixes that trial's start state and the policy's generator."""
    acting_std: float = 0.2
    """Standard deviation of the noise that every evaluated policy acts with, in units of action; 0 is the paper's."""
    connector: str = ""
    """Mixed into the seeds, so that connectors do not share start states and with them their flukes."""

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ValueError(f"EvaluateConfig.trials must be at least 1, got {self.trials}")
        if not self.scenarios or len(set(self.scenarios)) != len(self.scenarios):
            raise ValueError(f"EvaluateConfig.scenarios must be distinct names, at least one, got {self.scenarios}")
        if not self.acting_std >= 0:
            raise ValueError(f"EvaluateConfig.acting_std must not be negative, got {self.acting_std}")
        if self.seed < 0:
            raise ValueError(f"EvaluateConfig.seed must not be negative, got {self.seed}")


class WatchingJudge(Protocol):
    """What evaluation needs of a judge (``lotj.judge.Judge``)."""

    def reset(self) -> None: ...

    def observe(self, image: NDArray[np.uint8]) -> Judgement: ...


@dataclass(frozen=True)
class TrialResult:
    """One trial. Steps count actions from 1; lists have one entry a step and describe the image after it."""

    scenario: str
    index: int
    seed: int
    steps: int
    rewarded: bool | None
    """None where no judge watched."""
    judged: bool | None
    true: bool
    """Full insertion was reached at some step."""
    judged_step: int | None
    true_step: int | None
    true_when_judged: bool | None
    """Ground truth on the image at which the rule fired; None where it did not fire."""
    max_force: float | None
    """Newton; None where the cell does not say."""
    dislodged: bool
    start: tuple[float, ...] | None
    """The plug's tip in the socket's frame before the first action, metres: the evidence that trials are paired."""
    probability: tuple[float, ...]
    """The reward model's probability of success; empty without a judge."""
    above: tuple[bool, ...]
    """Whether that probability reached the rule's threshold; empty without a judge."""
    success: tuple[bool, ...]
    """Ground truth."""
    distance: tuple[float, ...]
    """Distance of the tip from full insertion, metres; empty where the cell does not say."""


@dataclass(frozen=True)
class Evaluation:
    """All trials of one policy."""

    config: EvaluateConfig
    trials: tuple[TrialResult, ...]

    def scenario(self, name: str) -> tuple[TrialResult, ...]:
        """Return the trials of one scenario, in order."""
        return tuple(trial for trial in self.trials if trial.scenario == name)

    def count(self, scenario: str, column: Column) -> int | None:
        """Return how many trials of a scenario count in a column; None where no judge watched."""
        values = [getattr(trial, column) for trial in self.scenario(scenario)]
        return None if None in values else sum(values)

    def confusion(self, scenario: str) -> dict[str, int] | None:
        """Return trials by *judged* against *true*, or None where no judge watched."""
        trials = self.scenario(scenario)
        if any(trial.judged is None for trial in trials):
            return None
        return {
            f"{'judged' if judged else 'not_judged'}_{'true' if true else 'false'}": sum(
                trial.judged is judged and trial.true is true for trial in trials
            )
            for judged in (True, False)
            for true in (True, False)
        }

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a file: the config, a summary for readers, and every trial."""
        summary = {
            name: {
                "trials": len(self.scenario(name)),
                **{column: self.count(name, column) for column in COLUMNS},
                "true_interval": list(clopper_pearson(self.count(name, "true") or 0, len(self.scenario(name)))),
                "confusion": self.confusion(name),
                "dislodged": sum(trial.dislodged for trial in self.scenario(name)),
                "max_force": max((t.max_force for t in self.scenario(name) if t.max_force is not None), default=None),
            }
            for name in self.config.scenarios
        }
        return {"config": asdict(self.config), "summary": summary, "trials": [asdict(trial) for trial in self.trials]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Evaluation:
        """Rebuild an evaluation from :meth:`to_json`, also after a round trip through a file.

        Raises:
            ValueError: if a field is missing or unknown.
        """
        try:
            asked = {"acting_std": 0.0, **values["config"]}  # files of before there was noise do not name it
            config = EvaluateConfig(**{**asked, "scenarios": tuple(asked["scenarios"])})
            trials = tuple(TrialResult(**{k: _frozen(v) for k, v in trial.items()}) for trial in values["trials"])
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"not an evaluation as lotj writes it ({error}): expected config and trials; evaluate again"
            ) from error
        return cls(config, trials)


class TrialLog:
    """The trials of an evaluation that is under way, a line each: one that is stopped goes on where it was.

    Args:
        path: its file; begun anew where it is another evaluation's.
        about: what is evaluated, by which rule, as JSON.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path, head = path, json.dumps(to_json(about), sort_keys=True) + "\n"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        lines = [line for line in lines if line.endswith("\n")]  # a kill may have cut the last one
        if lines[:1] != [head]:
            lines = [head]
        write_text(path, "".join(lines))
        noted = [TrialResult(**{k: _frozen(v) for k, v in json.loads(line).items()}) for line in lines[1:]]
        first: dict[tuple[str, int], TrialResult] = {}
        for trial in noted:  # a process that outlived a stop may have noted one that was made again
            first.setdefault((trial.scenario, trial.index), trial)
        self.results = list(first.values())

    def append(self, result: TrialResult) -> None:
        """Add a trial, on the disk when this returns."""
        self.results.append(result)
        append_json(self.path, result)


def evaluate(
    config: EvaluateConfig,
    make_env: Callable[[str], gymnasium.Env[Any, Any]],
    policy: Policy,
    judge: WatchingJudge | None = None,
    progress: Callable[[TrialResult, Trajectory | None], None] | None = None,
    log: TrialLog | None = None,
) -> Evaluation:
    """Run ``config.trials`` trials in each scenario and judge them by ground truth.

    Args:
        config: trials, scenarios and seed.
        make_env: builds the cell of a scenario; it must not end trials at true success: the rule needs what follows.
        policy: acts without exploration, but for ``config.acting_std``.
        judge: watches each image after the first, as in practice; None leaves *rewarded* and *judged* empty.
        progress: called after each trial, with its trajectory for whoever keeps videos; None for one that was done.
        log: trials that are done are taken from it, others are noted.

    Returns:
        The trials, scenario by scenario.

    Raises:
        ValueError: if the cell gives no ground truth or ends trials by itself.
    """
    results = [] if log is None else list(log.results)
    done = {(result.scenario, result.index) for result in results}
    if progress is not None:
        for result in results:
            progress(result, None)
    acting = as_evaluated(policy, config)
    for scenario in config.scenarios:
        waiting = [index for index in range(config.trials) if (scenario, index) not in done]
        if not waiting:
            continue
        with make_env(scenario) as env:
            for index in waiting:
                seed = trial_seed(config, scenario, index)
                rng = policy_rng(seed)
                trajectory = rollout(env, acting, rng, seed=seed, source="evaluation")
                result = _result(trajectory, judge, scenario, index)
                results.append(result)
                if log is not None:
                    log.append(result)
                if progress is not None:
                    progress(result, trajectory)
    return Evaluation(config, tuple(results))


class Unsteady:
    """A policy that acts with noise of its own hand.

    Args:
        policy: whose actions they are.
        std: of the noise, in units of action.
    """

    def __init__(self, policy: Policy, std: float) -> None:
        self.policy, self.std = policy, std

    def reset(self) -> None:
        """Begin a trial."""
        self.policy.reset()

    def act(self, observation: Observation, rng: np.random.Generator, explore: bool = False) -> NDArray[np.float32]:
        """The policy's action (A,) with noise, in [-1, 1]."""
        return noisy_action(self.policy.act(observation, rng, explore), self.std, rng)


def as_evaluated(policy: Policy, config: EvaluateConfig) -> Policy:
    """The policy with the evaluation's noise on its actions, or itself where that is 0."""
    return Unsteady(policy, config.acting_std) if config.acting_std else policy


def trial_seed(config: EvaluateConfig, scenario: str, index: int) -> int:
    """Return the seed of a trial, a function of config.seed, connector, scenario and index alone."""
    name = f"{config.connector}/{scenario}".encode()
    return int(np.random.SeedSequence([config.seed, int.from_bytes(name), index]).generate_state(1)[0] >> 1)


def _result(trajectory: Trajectory, judge: WatchingJudge | None, scenario: str, index: int) -> TrialResult:
    if trajectory.terminated:
        raise ValueError(
            f"the cell ended trial {index} of scenario {scenario} after {len(trajectory)} steps by itself: evaluation "
            "needs the full horizon, so build the environment without its early end on success"
        )
    if "success" not in trajectory.privileged:
        raise ValueError(
            "the cell gives no ground truth: evaluation needs info['privileged/success'] (bool) at every step"
        )
    success = [bool(value) for value in trajectory.privileged["success"][1:]]
    judgements: list[Judgement] = []
    if judge is not None:
        judge.reset()
        judgements = [judge.observe(image) for image in trajectory.image[1:]]
    judged_step = _first([judgement.success for judgement in judgements])
    true_step = _first(success)
    tip = trajectory.privileged.get("tip_in_socket")
    force = trajectory.privileged.get("force")
    return TrialResult(
        scenario=scenario,
        index=index,
        seed=trajectory.seed,
        steps=len(trajectory),
        rewarded=None if judge is None else any(judgement.above for judgement in judgements),
        judged=None if judge is None else judged_step is not None,
        true=true_step is not None,
        judged_step=judged_step,
        true_step=true_step,
        true_when_judged=None if judged_step is None else success[judged_step - 1],
        max_force=None if force is None else round(float(np.max(force)), 3),
        dislodged=bool(np.any(trajectory.privileged.get("dislodged", False))),
        start=None if tip is None else tuple(round(float(value), 6) for value in tip[0]),
        probability=tuple(round(float(judgement.probability), 4) for judgement in judgements),
        above=tuple(judgement.above for judgement in judgements),
        success=tuple(success),
        distance=() if tip is None else tuple(np.linalg.norm(tip[1:], axis=1).round(6).tolist()),
    )


def _first(flags: Sequence[bool]) -> int | None:
    """The step, counted from 1, of the first true flag."""
    return next((step for step, flag in enumerate(flags, start=1) if flag), None)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
