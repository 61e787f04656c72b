"""Which connectors offline training knows, which of them it keeps for validation, and what is novel to it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from lotj.cells.opening import identify
from lotj.offline import Known
from lotj.sim.connector import Connector
from lotj.sim.connectors import get_connector, load_catalogue
from lotj.sim.distance import barred_from_training

IMPORTED = "imported.toml"
"""Stands for the cell that imported trajectories came from: their connectors need no description."""


def known_connectors(count: int, validation: int) -> Known:
    """Choose connectors to know: families in turn and new groups first, whole groups on one side, no variant or twin of
    a test connector.

    Args:
        count: connectors in all.
        validation: how many groups of them to keep out of training, each from another of the large families.

    Raises:
        ValueError: more connectors are asked for than there are.
    """
    catalogue = load_catalogue()
    held_out = barred_from_training()
    queues: dict[str, list[str]] = {}
    met: set[str] = set()
    repeated: list[str] = []
    for name, connector in catalogue.items():
        if name in held_out:
            continue
        (repeated if connector.group in met else queues.setdefault(connector.family, [])).append(name)
        met.add(connector.group)
    available = len(catalogue) - len(held_out)
    if count > available:
        raise ValueError(f"{count} known connectors were asked for, the catalogue has {available} beside the test ones")
    distinct = [name for round_ in zip_longest(*queues.values()) for name in round_ if name is not None]
    chosen = [*distinct, *repeated][:count]
    # The second of each family stands aside, so that training knows its relatives: what a novel connector can hope for.
    aside: list[str] = []
    for queue in sorted(queues.values(), key=len, reverse=True):
        if len(queue) > 1 and queue[1] in chosen and len(aside) < validation:
            aside.append(queue[1])
    # A small choice has too few second members: then its last connectors stand aside.
    aside += [name for name in reversed(chosen) if name not in aside][: validation - len(aside)]
    return _split([catalogue[name] for name in chosen], {catalogue[name].group for name in aside})


def split_by_group(connectors: Sequence[Connector], validation: int) -> Known:
    """Split named connectors: the last ``validation`` groups among them stand aside, fewer where less than two would
    be left.

    Raises:
        ValueError: fewer than two connectors are left to train on.
    """
    groups = list(dict.fromkeys(connector.group for connector in connectors))
    return _split(connectors, set(groups[len(groups) - _spared(len(groups), validation) :]))


def split_by_name(names: Sequence[str], validation: int) -> Known:
    """Split connectors known by their data alone: the last ``validation`` of them stand aside, fewer where less than
    two would be left.

    Raises:
        ValueError: fewer than two connectors are left to train on.
    """
    count = len(names) - _spared(len(names), validation)
    return Known(tuple(names[:count]), tuple(names[count:]))


def refuse_known(
    connector: str, known: Known, own: Sequence[str] = (), *, robot: str = "", allow_validation: bool = False
) -> bool:
    """A connector to practise must be novel: offline training knew neither it nor a connector of its group.

    Args:
        connector: a name of the catalogue or a TOML file.
        known: the split.
        own: names and TOML files that the split was made of (``Preset.known``); the catalogue does not have the latter.
        robot: the cell; on an own cell a connector needs no description.
        allow_validation: let a connector pass that validation alone has seen: thresholds and rules were chosen on it,
            which makes it fit for choosing recipes and unfit for claims.

    Returns:
        Whether it is such a validation connector.

    Raises:
        ValueError: it is not novel; says which known connector it shares a name or a group with.
    """
    chosen = identify(connector, robot)
    described = {other.name: other for other in map(get_connector, own)}

    def alike(names: Sequence[str]) -> list[str]:
        # What is known by its data alone has no group but its name.
        others = [described.get(name) or identify(name, IMPORTED) for name in names]
        return [o.name for o in others if o.name == chosen.name or o.group == chosen.group]

    trained, validated = alike(known.train), alike(known.validation)
    if trained:
        raise ValueError(
            f"{connector!r} is not novel: offline training knew {', '.join(trained)} (group {chosen.group!r}). "
            "Practise one that it did not know, or train without these"
        )
    if validated and not allow_validation:
        raise ValueError(
            f"{connector!r} is not novel: {', '.join(validated)} (group {chosen.group!r}) served validation, on which "
            "the reward's threshold and rule were chosen. Practise another, or say --validation to practise it on "
            "purpose; every output is then marked"
        )
    return bool(validated)


def _spared(total: int, validation: int) -> int:
    """How many of all can stand aside."""
    return min(validation, max(1, total - 2))


def _split(connectors: Sequence[Connector], aside: set[str]) -> Known:
    """Groups in ``aside`` are for validation, the others for training."""
    return Known(
        tuple(connector.name for connector in connectors if connector.group not in aside),
        tuple(connector.name for connector in connectors if connector.group in aside),
    )
