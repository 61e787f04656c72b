"""What a user meets first: which command was meant, the list of all of them, options without Python's words."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.markup import escape
from rich.table import Table

from lotj.console import console, say
from lotj.sim.parts import did_you_mean

HELP = ("-h", "--help")
ONE_SIDED: Any = tyro.conf.FlagCreatePairsOff
EITHER_SIDE: Any = tyro.conf.CascadeSubcommandArgs
METAVAR: Mapping[Any, str] = {Path: "PATH", int: "INT", float: "FLOAT", str: "STR"}


def understood(given: list[str], commands: Iterable[str]) -> tuple[str, list[str]]:
    """The command that was typed, one word or two, and the rest; an empty one where only a list of them is wanted.

    Raises:
        ValueError: there is none; names the nearest.
    """
    known, words = list(commands), given[:2]
    first, pair = " ".join(words[:1]), " ".join(words)
    if len(words) == 2 and pair in known:
        return pair, given[2:]
    group = [name for name in known if name.startswith(f"{first} ")]
    alone = len(words) < 2 or words[1].startswith("-")
    if first in known and (alone or not group):
        return first, given[1:]
    if not words or first in HELP or (group and (len(words) < 2 or words[1] in HELP)):
        return "", [first] if group else []
    typed = pair if group else first
    instead = ", ".join(group) or "lotj --help lists all"
    raise ValueError(f"unknown command {typed!r}{did_you_mean(typed, known)}; {instead}")


def overview(commands: Mapping[str, Callable[..., Any]], description: str, group: str = "") -> None:
    """List the commands, or those that begin with a word, each with the first paragraph of its help."""
    if not group:
        say(description + "\n")
    table, previous = Table.grid(padding=(0, 2)), ""
    for name, function in commands.items():
        word = name.split(" ", maxsplit=1)[0]
        if group not in ("", word):
            continue
        heading = word if any(other.startswith(f"{word} ") for other in commands) else ""
        if heading != previous and table.row_count:
            table.add_row()
        previous = heading
        first = " ".join((inspect.getdoc(function) or "").split("\n\n", maxsplit=1)[0].split())
        table.add_row(f"  [bold]{name}[/]", escape(first))
    console.print(table)
    say("\nOptions, with an example: lotj COMMAND --help")


@cache
def dressed(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with options that may be left out shown as what they take, flags that are off without their
    opposite, and options beside a preset accepted before it or after it, once. Annotations are changed in place, those
    of a dataclass among the parameters too."""
    hints, bare = typing.get_type_hints(function, include_extras=True), typing.get_type_hints(function)
    parameters = inspect.signature(function).parameters
    beside = "preset" in parameters and bare["preset"] is not str
    for name, parameter in parameters.items():
        if parameter.default is None:
            hints[name] = _left_out(hints[name], bare[name])
        elif parameter.default is False:
            hints[name] = ONE_SIDED[hints[name]]
        elif name != "preset" and is_dataclass(bare[name]):
            kind: Any = bare[name]
            own, plain = typing.get_type_hints(kind, include_extras=True), typing.get_type_hints(kind)
            held = {one.name for one in fields(kind) if one.default is None}
            kind.__annotations__ = {key: _left_out(own[key], plain[key]) if key in held else own[key] for key in own}
        if beside and name != "preset":
            hints[name] = EITHER_SIDE[hints[name]]
    function.__annotations__ = hints
    return function


def _left_out(hint: Any, bare: Any) -> Any:
    """The hint of an option whose default is None, shown as what it takes."""
    (what,) = (kind for kind in typing.get_args(bare) if kind is not type(None))
    metavar = METAVAR.get(what) or f"{{{','.join(typing.get_args(what))}}}"
    return Annotated[hint, tyro.conf.arg(metavar=metavar, help_behavior_hint="")]
