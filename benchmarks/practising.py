"""What the benchmarks that practise connectors from a run have in common: a command line, and a row for each task."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lotj.parallel import in_processes
from lotj.sim.connectors import TEST_CONNECTORS


def parser_for(text: str | None, trials: int, out: str) -> argparse.ArgumentParser:
    """A command line with the run, its connectors, seeds, trials, workers and the file to write."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("run", type=Path, help="run folder with trained networks and encoded frames")
    parser.add_argument("--connectors", nargs="+", required=True, help="validation connectors, or drawn ones")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--trials", type=int, default=trials)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(out))
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments; test connectors are refused."""
    arguments = parser.parse_args()
    if reserved := sorted(set(arguments.connectors) & set(TEST_CONNECTORS)):
        parser.error(f"{', '.join(reserved)} serve for final numbers alone: name others, drawn at random, say")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    return arguments


def rows_of(measure: Callable[[Any], dict[str, Any]], tasks: Sequence[Any], workers: int) -> list[dict[str, Any]]:
    """What each task came to, in their order, told as they are done."""
    rows = []
    for row in in_processes(measure, tasks, workers):
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows
