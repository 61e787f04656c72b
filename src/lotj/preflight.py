"""Before practice: may this reward be trusted on this connector? Asked without any ground truth of it.

Blind presses are failures: the plug is pushed down 10-20 mm beside the socket, every other time after 30-40 mm in some
direction (around the socket's housing is where practice goes when it is not believed nearer by), and dragged over
whatever is there by less than 4 mm, which cannot reach the hole. Whatever success the judge claims then is false, and
its rate can be counted on the very connector that is to be learned. A stricter rule is taken from the table that was
measured on validation connectors where that helps. But a reward that liked more than a few of the presses is guessing,
and practice finds what a stricter rule likes as well (docs/reward.md): then the answer is to go behind the guard alone
(`lotj.guard`), and where no rule helps enough, it is no. It says nothing about a plug that is in the hole and short of
full depth.

Attempts of the offline policy are the other half: nobody says how they ended, but they fall into two kinds by what the
reward makes of them, and the presses show what failures look like. Where the two are told apart, and the rule would
leave many of the better kind unclaimed, its threshold is too high for this connector, and practice would go unpaid for
what it does right: a looser one is taken, if it likes no press more. And a stricter one is not taken where it would
leave many of them, nor, unless the reward is guessing, where the kinds are not told apart. Both are asked before
practice begins: scores that a policy has learned to please tell nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from lotj.judge import THRESHOLDS, SuccessRule, best_held
from lotj.rollout import policy_rng, rollout
from lotj.stats import Interval, clopper_pearson
from lotj.types import Observation, Policy, RewardModel, StoppedError, later

FEWEST = 3
"""So many attempts must look like successes before a rule is made looser for their sake; where some do, but fewer, as
many more are made."""
LOOSER = (0.02, 0.05, *THRESHOLDS)
"""Thresholds that a looser rule may have."""
STRIDE = 0.005
"""m that a blind press goes at a time."""
DESCENT, DRAGGED, DRAG, PRESS = 5, 15, 0.05, 0.6
"""Strides straight down, strides of dragging after that, and how much of one goes sideways and down then."""
LOGIT = 7.0
"""Scores nearer to 0 or 1 than this are alike: how sure a reward is of what it is sure of says nothing."""


@dataclass(frozen=True)
class PreflightConfig:
    """How much is asked before practice begins."""

    presses: int = 20
    """Blind presses; 0 asks nothing. A robot makes one in ten seconds or so."""
    limit: float = 0.05
    """Largest share of them that may be taken for a success."""
    recall: float = 0.5
    """A stricter rule must have found at least this share of the successes on validation connectors."""
    attempts: int = later(0)
    """Attempts of the offline policy, of which nobody says how they ended, and as many again where some look like
    successes, but fewer than ``FEWEST``; 0 makes none, and the rule no looser."""
    claimed: float = later(0.9)
    """Share of the attempts that look like successes that a looser rule is to claim, and that a stricter one must leave
    of those that the chosen rule claims."""
    apart: float = later(0.85)
    """Share of the variance of all trials' logits that must lie between the two kinds, or they are not told apart."""

    def __post_init__(self) -> None:
        if self.presses < 0:
            raise ValueError(f"PreflightConfig.presses must not be negative, got {self.presses}")
        if not 0 <= self.limit < 1:
            raise ValueError(f"PreflightConfig.limit must lie in [0, 1), got {self.limit}")
        for name in ("recall", "claimed", "apart"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"PreflightConfig.{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.attempts < 0:
            raise ValueError(f"PreflightConfig.attempts must not be negative, got {self.attempts}")
        if self.attempts and not self.presses:
            raise ValueError(
                f"PreflightConfig.attempts is {self.attempts}, presses 0: attempts are told from presses, which show "
                "what failures look like; ask for both, or for no attempts"
            )


class Neighbour(NamedTuple):
    """A known connector, as the reward model's encoder sees it."""

    connector: str
    family: str
    distance: float
    """1 - cosine of the mean features of first frames; 0 is the same picture."""


class Preflight(NamedTuple):
    """The answer."""

    go: bool
    """The rule that validation chose may be practised with, or a stricter one."""
    behind_guard: bool
    """It guesses, but a stricter rule hardly does on these presses: go with that one, each claim checked by a tug."""
    reason: str
    rule: SuccessRule
    """The rule to practise with: the chosen one, or a stricter one."""
    chosen: SuccessRule
    """The rule that validation chose."""
    presses: int
    fires: int
    """Presses that ``rule`` takes for a success."""
    chosen_fires: int
    """Presses that ``chosen`` takes for a success."""
    interval: Interval
    """95% for the rate at which ``rule`` fires on such states; the same presses chose it among the candidates, so a
    stricter rule looks a little better here than it is."""
    recall: float | None
    """Of ``rule`` on validation connectors; None where it is not in the table."""
    nearest: tuple[Neighbour, ...] = ()
    """Known connectors that look most like this one, nearest first."""
    attempts: int = 0
    """Attempts of the offline policy."""
    likely: int = 0
    """Attempts that look like successes (``likely_successes``)."""
    claimed: int = 0
    """Of these, how many ``rule`` claims."""
    chosen_claimed: int = 0
    """Of these, how many ``chosen`` claims."""

    def as_json(self) -> dict[str, Any]:
        """Plain values, for a run folder."""
        rules = {"rule": self.rule, "chosen": self.chosen}
        plain = {k: {"threshold": r.threshold, "frames": r.frames} for k, r in rules.items()}
        nearest = [neighbour._asdict() for neighbour in self.nearest]
        return self._asdict() | plain | {"interval": list(self.interval), "nearest": nearest}


class NotTrustedError(StoppedError):
    """The answer before practice was no.

    Args:
        reason: why.
        behind_guard: it would be yes with the guard on.
    """

    def __init__(self, reason: str, behind_guard: bool = False) -> None:
        super().__init__(reason)
        self.behind_guard = behind_guard


class BlindPress:
    """Goes down, then drags the plug over what is there in a direction drawn for each trial; sees nothing.

    In strides of 5 mm, of as many steps as they take: 5 down; then .25 mm sideways and 3 mm down in each, 15 of them,
    and down alone after that.

    Args:
        far: first 6 to 8 strides in another direction, past the socket if it lies there.
        action_scale: (3,) m along x, y, z that an action of 1 asks for.
    """

    def __init__(self, far: bool = False, action_scale: Sequence[float] = (STRIDE,) * 3) -> None:
        self._far = far
        self._steps = max(1, math.ceil(STRIDE / min(action_scale) - 1e-9))
        self._stride = STRIDE / np.asarray(action_scale, np.float64) / self._steps
        self.reset()

    def reset(self) -> None:
        """Begin a trial."""
        self._time = self._travel = 0
        self._direction = self._away = np.zeros(2)

    def act(self, observation: Observation, rng: np.random.Generator, explore: bool = False) -> NDArray[np.float32]:
        """(3,) the next action."""
        if self._time == 0:
            self._direction = _direction(rng)
            if self._far:
                self._away, self._travel = _direction(rng), int(rng.integers(6, 9))
        stride = self._time // self._steps - self._travel
        self._time += 1
        if stride < 0:
            way = np.array([*self._away, 0])
        elif stride < DESCENT:
            way = np.array([0, 0, -1.0])
        else:
            drag = DRAG if stride < DESCENT + DRAGGED else 0.0
            way = np.array([*(drag * self._direction), -PRESS])
        return np.asarray(way * self._stride, np.float32)


def _direction(rng: np.random.Generator) -> NDArray[np.float64]:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


def preflight(
    config: PreflightConfig,
    env: gymnasium.Env[Any, Any],
    reward_model: RewardModel,
    chosen: SuccessRule,
    candidates: Sequence[Mapping[str, Any]],
    seed: int,
    known: Mapping[str, tuple[str, NDArray[np.float32]]] | None = None,
    embed: Callable[[NDArray[np.uint8]], NDArray[np.float32]] | None = None,
    policy: Policy | None = None,
    action_scale: Sequence[float] = (STRIDE,) * 3,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Preflight:
    """Press blindly, attempt, look what the judge would have claimed, and answer.

    Args:
        config: how much is asked.
        env: the connector to be practised; trials start 10-20 mm beside the socket (scenario II), attempts every other
            time nearer by (I).
        reward_model: scores the images.
        chosen: the rule that validation chose.
        candidates: the table it was chosen from (``RuleChoice.as_json()["candidates"]``).
        seed: of presses and attempts.
        known: connector -> family and mean feature (F,) of its first frames, for ``nearest``.
        embed: images (B, H, W, 3) -> features (B, F).
        policy: makes the attempts, exploring; None makes none.
        action_scale: (3,) m along x, y, z that an action of 1 asks for.
        progress: called with (trials made, trials in all).
    """
    attempts = config.attempts if policy is not None else 0
    done, total = 0, config.presses + attempts

    def score(trier: Policy, scenario: str, *numbers: int) -> tuple[NDArray[np.floating[Any]], NDArray[np.uint8]]:
        """What the reward makes of a trial's images, and the first of them."""
        nonlocal done
        trial = int(np.random.SeedSequence([seed, *numbers]).generate_state(1, np.uint32)[0])
        trajectory = rollout(
            env,
            trier,
            policy_rng(trial),
            explore=True,
            seed=trial,
            options={"scenario": scenario},
            source="preflight",
        )
        done += 1
        progress(done, total)
        return reward_model.probability(trajectory.image[1:]), trajectory.image[0]

    pressed = [score(BlindPress(index % 2 == 1, action_scale), "II", index) for index in range(config.presses)]
    presses, first = [probability for probability, _ in pressed], [image for _, image in pressed]

    def fires(rule: SuccessRule) -> int:
        return _claimed(rule, presses)

    attempted: list[NDArray[np.floating[Any]]] = []
    likely: list[NDArray[np.floating[Any]]] = []
    while policy is not None and len(attempted) < 2 * attempts and (not attempted or 0 < len(likely) < FEWEST):
        total = config.presses + len(attempted) + attempts
        more = range(len(attempted), len(attempted) + attempts)
        attempted += [score(policy, ("I", "II")[index % 2], index, 1)[0] for index in more]
        likely = likely_successes(attempted, presses, chosen.frames, config.limit, config.apart)
    table = {SuccessRule(row["threshold"], row["frames"]): row for row in candidates}
    # Where attempts do not tell what a stricter rule would leave, only guessing is reason enough for one.
    told = bool(likely) or not attempted or fires(chosen) > config.limit * config.presses
    stricter = [
        rule
        for rule, row in table.items()
        if told
        and row["recall"] >= config.recall
        and chosen in table
        and row["false_fires"] <= table[chosen]["false_fires"]
        and rule != chosen
        and _claimed(rule, likely) >= config.claimed * _claimed(chosen, likely)
    ]
    # The chosen rule as long as none is better; among equally good ones the highest recall, then the fewest frames.
    order = [chosen, *sorted(stricter, key=lambda rule: (-table[rule]["recall"], rule.frames, rule.threshold))]
    used = min(order, key=fires)
    if used == chosen:
        used = _loosened(config, chosen, likely, presses)
    count, before = fires(used), fires(chosen)
    go, behind_guard = trusted(config, before, count)
    answer = Preflight(
        go=go,
        behind_guard=behind_guard,
        reason="",
        rule=used,
        chosen=chosen,
        presses=config.presses,
        fires=count,
        chosen_fires=before,
        interval=clopper_pearson(count, config.presses),
        recall=table[used]["recall"] if used in table else None,
        nearest=_nearest(embed(np.stack(first)).mean(axis=0), known) if known and embed and first else (),
        attempts=len(attempted),
        likely=len(likely),
        claimed=_claimed(used, likely),
        chosen_claimed=_claimed(chosen, likely),
    )
    return answer._replace(reason=_reason(config, answer))


def likely_successes(
    attempts: Sequence[NDArray[np.floating[Any]]],
    presses: Sequence[NDArray[np.floating[Any]]],
    frames: int,
    limit: float,
    apart: float,
) -> list[NDArray[np.floating[Any]]]:
    """The attempts that look like successes: the better of the two kinds that attempts and presses fall into.

    A trial counts as what it holds for so many frames. The kinds are those with the least variance of logits within
    them (Otsu 1979). They are not told apart, and no attempt looks like a success, where too little of the variance
    lies between them, or too many presses are of the better kind.

    Args:
        attempts: (N,) each, the probability of success on the images of each trial.
        presses: the same of trials that failed for certain.
        frames: of the rule.
        limit: share of the presses that may be of the better kind.
        apart: share of the variance that must lie between the kinds.
    """
    sure = 1 / (1 + np.exp(-LOGIT))
    held = np.array([best_held(probability, frames) for probability in (*attempts, *presses)], np.float64)
    held = held.clip(1 - sure, sure)
    logit = np.log(held / (1 - held))
    order = np.sort(logit)
    cuts = [cut for cut in range(1, len(order)) if order[cut - 1] < order[cut]]
    if not cuts:
        return []
    within = [cut * order[:cut].var() + (len(order) - cut) * order[cut:].var() for cut in cuts]
    better = logit >= order[cuts[int(np.argmin(within))]]
    if min(within) > (1 - apart) * len(order) * order.var() or better[len(attempts) :].sum() > limit * len(presses):
        return []
    return [probability for probability, is_better in zip(attempts, better) if is_better]


def _loosened(
    config: PreflightConfig,
    chosen: SuccessRule,
    likely: Sequence[NDArray[np.floating[Any]]],
    presses: Sequence[NDArray[np.floating[Any]]],
) -> SuccessRule:
    """The strictest rule of as many frames, no stricter than ``chosen``, that claims enough of the likely successes and
    no press more; ``chosen`` where there is none."""
    if len(likely) < FEWEST:
        return chosen
    looser = sorted((threshold for threshold in LOOSER if threshold < chosen.threshold), reverse=True)
    for rule in (chosen, *(SuccessRule(threshold, chosen.frames) for threshold in looser)):
        if _claimed(rule, presses) <= _claimed(chosen, presses) and (
            _claimed(rule, likely) >= config.claimed * len(likely)
        ):
            return rule
    return chosen


def _claimed(rule: SuccessRule, probabilities: Sequence[NDArray[np.floating[Any]]]) -> int:
    """Trials that a rule ends as successes."""
    return sum(best_held(probability, rule.frames) >= rule.threshold for probability in probabilities)


def trusted(config: PreflightConfig, chosen_fires: int, fires: int) -> tuple[bool, bool]:
    """Whether to go, and whether to go behind the guard alone: ``chosen_fires`` of the presses were taken for a success
    by the rule that validation chose, ``fires`` by the one to practise with."""
    limit = config.limit * config.presses
    return chosen_fires <= limit, fires <= limit < chosen_fires


def _nearest(
    feature: NDArray[np.float32], known: Mapping[str, tuple[str, NDArray[np.float32]]], count: int = 3
) -> tuple[Neighbour, ...]:
    """The known connectors whose mean feature (F,) points most nearly the same way."""
    rows = [
        Neighbour(name, family, float(1 - feature @ other / (np.linalg.norm(feature) * np.linalg.norm(other))))
        for name, (family, other) in known.items()
    ]
    return tuple(sorted(rows, key=lambda row: row.distance)[:count])


def _reason(config: PreflightConfig, answer: Preflight) -> str:
    used, chosen = answer.rule, answer.chosen
    seen = f"{answer.chosen_fires} of {config.presses} blind presses were taken for a success"
    instead = f"{used.frames} frames above {used.threshold:g} instead of {chosen.frames} above {chosen.threshold:g}"
    looser = used.looser_than(chosen)
    if used != chosen and not looser:
        seen += f"; the rule is made stricter, {instead}: {answer.fires} of {config.presses}"
    if answer.likely:
        seen += (
            f"; {answer.likely} of {answer.attempts} attempts look like successes, "
            f"of which the rule would claim {answer.chosen_claimed}"
        )
    elif answer.attempts:
        seen += f"; {answer.attempts} attempts do not tell what a success looks like to it here"
    if looser:
        seen += f"; it is made looser, {instead}: {answer.claimed}"
    go, behind_guard = trusted(config, answer.chosen_fires, answer.fires)
    if go:
        return seen
    if behind_guard:
        return f"the reward is guessing here: {seen}, but practice finds what a stricter rule likes as well"
    return f"the reward is not trusted here: {seen}, and no rule that still finds successes does better"
