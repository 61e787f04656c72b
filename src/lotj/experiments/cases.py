"""Cases with a result file each: what experiments share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from lotj.evaluate import EvaluateConfig
from lotj.files import to_json, write_json
from lotj.provenance import provenance
from lotj.seeds import stream_seed
from lotj.sim.connectors import TEST_CONNECTORS, described
from lotj.sim.parts import did_you_mean


class Case(Protocol):
    """A frozen dataclass that says all that makes a run."""

    @property
    def name(self) -> str:
        """Of its result file."""
        ...


CaseT = TypeVar("CaseT", bound=Case)


def unfinished(cases: Sequence[CaseT], results: Path, offline: Mapping[str, Any] | None = None) -> list[CaseT]:
    """The cases that have no result yet.

    Args:
        cases: all that are wanted.
        results: folder of the result files.
        offline: what a result's ``offline`` must say of the offline phase, so that no two are mixed in one table;
            nothing where a case is its own.

    Raises:
        ValueError: a result file holds another case, is of a connector as it was before its file was edited, or comes
        from another offline phase; or two cases share a name.
    """
    require_choice("names of cases", [case.name for case in cases])
    todo = []
    for case in cases:
        path = results / f"{case.name}.json"
        if not path.exists():
            todo.append(case)
            continue
        held = json.loads(path.read_text(encoding="utf-8"))
        wanted = {"case": to_json(case), "offline": to_json(offline or {})}
        if "described" in held:
            wanted |= _described(case)
        differs = [
            f"{part}.{key}"
            for part, values in wanted.items()
            for key, value in values.items()
            if held.get(part, {}).get(key) != value
        ]
        if differs:
            raise ValueError(
                f"{path} holds a result with another {', '.join(differs)}; name another folder with --results, "
                "go back to the settings it was made with, or delete it"
            )
    return todo


def write_result(case: Case, results: Path, offline: Mapping[str, Any], practised: Mapping[str, Any]) -> dict[str, Any]:
    """Write a case's result file: the case, where it comes from, the offline phase, and what practice came to."""
    outcome = {"case": to_json(case), **_described(case), **provenance(), "offline": to_json(offline), **practised}
    results.mkdir(parents=True, exist_ok=True)
    write_json(results / f"{case.name}.json", outcome)
    return outcome


def _described(case: Case) -> dict[str, Any]:
    """What the TOML file of a case's connector says, where it has one: another time it may say something else."""
    return described(getattr(case, "connector", ""))


def evaluation(seed: int, trials: int, scenarios: tuple[str, ...], acting_std: float) -> EvaluateConfig:
    """Evaluation of a case: another seed has other start states, before and after practice have the same."""
    return EvaluateConfig(trials, scenarios, stream_seed(seed, "evaluation"), acting_std)


def require_choice(name: str, values: Sequence[Any], known: Iterable[str] | None = None) -> None:
    """At least one value, none twice, all of them known.

    Raises:
        ValueError: names the field, what was expected and what came.
    """
    if not values or len(set(values)) != len(values):
        raise ValueError(f"{name} must be distinct values, at least one, got {values}")
    expected = None if known is None else list(known)
    for value in values:
        if expected is not None and value not in expected:
            hint = did_you_mean(value, expected)
            raise ValueError(f"{name}: unknown {value!r}{hint}; expected some of {', '.join(expected)}")


def require_counts(name: str, seeds: Sequence[int], **counts: int) -> None:
    """Seeds are distinct and not negative, counts positive.

    Raises:
        ValueError: names the field, what was expected and what came.
    """
    require_choice(f"{name}.seeds", seeds)
    if min(seeds) < 0:
        raise ValueError(f"{name}.seeds must not be negative, got {tuple(seeds)}")
    for field, value in counts.items():
        if value < 1:
            raise ValueError(f"{name}.{field} must be at least 1, got {value}")


def in_order(connectors: Iterable[str]) -> list[str]:
    """Each connector once: the paper's four test connectors first, then by name."""
    place = {name: number for number, name in enumerate(TEST_CONNECTORS)}
    return sorted(set(connectors), key=lambda name: (place.get(name, len(place)), name))
