"""Tables and pictures in the documentation, made from result files: nobody types a number."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from lotj.experiments.ablation_table import ablation_table
from lotj.experiments.practice_table import practice_table
from lotj.experiments.reward_curve import PICTURE, connectors_table, curve_picture
from lotj.experiments.reward_levers import levers_table
from lotj.experiments.reward_table import paired_tests, read_results, table_iv

MARK = re.compile(r"(<!-- table (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def stale_tables(results: Path, docs: Path, write: bool) -> list[str]:
    """Tables whose text is not what the results say, as ``file: name``; with ``write`` they are written anew.

    Raises:
        ValueError: a page asks for a table that does not exist.
    """
    stale: list[str] = []
    for page in sorted(docs.glob("*.md")):
        text = page.read_text(encoding="utf-8")

        def fresh(match: re.Match[str], page: Path = page) -> str:
            name = match["name"]
            if name not in TABLES:
                raise ValueError(f"{page}: no table {name!r}; there are {', '.join(sorted(TABLES))}")
            wanted = match[1] + TABLES[name](results) + match[3]
            if wanted != match[0]:
                stale.append(f"{page.name}: {name}")
            return wanted

        new = MARK.sub(fresh, text)
        if write and new != text:
            page.write_text(new, encoding="utf-8")
    return stale


def draw_pictures(results: Path, docs: Path) -> list[str]:
    """Draw the pictures whose figures have changed; returns their files.

    A check compares tables alone: the bytes of a picture depend on the versions of what draws it.
    """
    return [place for place, draw in PICTURES.items() if draw(results, docs / place)]


def _table_iv(results: Path) -> str:
    return table_iv(read_results(results / "reward" / "table-iv"))


def _table_iv_all(results: Path) -> str:
    return table_iv(read_results(results / "reward" / "table-iv"), "all")


def _table_iv_tests(results: Path) -> str:
    return paired_tests(read_results(results / "reward" / "table-iv"), "daib", "accuracy_half")


def _levers(results: Path) -> str:
    return levers_table(read_results(results / "reward" / "levers"))


def _connectors(results: Path) -> str:
    found = read_results(results / "reward" / "connectors")
    picture = f"![AUROC and accuracy over the number of training connectors]({PICTURE})\n\n"
    return picture + connectors_table(found) if found else connectors_table(found)


def _connectors_curve(results: Path, path: Path) -> bool:
    return curve_picture(read_results(results / "reward" / "connectors"), path)


def _practice(results: Path) -> str:
    return practice_table(read_results(results / "practice"))


def _ablation(results: Path) -> str:
    return ablation_table(read_results(results / "ablation"))


TABLES: Mapping[str, Callable[[Path], str]] = {
    "table-iv": _table_iv,
    "table-iv-all-frames": _table_iv_all,
    "table-iv-tests": _table_iv_tests,
    "reward-levers": _levers,
    "reward-connectors": _connectors,
    "practice": _practice,
    "ablation": _ablation,
}
PICTURES: Mapping[str, Callable[[Path, Path], bool]] = {PICTURE: _connectors_curve}
"""Pictures of the documentation, by where they are in it: each draws itself if it must, and says whether it did."""
