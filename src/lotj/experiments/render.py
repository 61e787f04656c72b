"""Tables and pictures in the documentation, made from result files: nobody types a number."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lotj.experiments.ablation_table import ablation_table
from lotj.experiments.pictures import levers_picture, practice_picture, table_iv_picture
from lotj.experiments.practice_summary import arms_table, summary_table, trials_table
from lotj.experiments.practice_table import practice_table
from lotj.experiments.redteam_table import (
    candidates_table,
    check_table,
    families_table,
    guard_table,
    redteam_table,
    senses_table,
)
from lotj.experiments.reward_curve import PICTURE as CURVE
from lotj.experiments.reward_curve import connectors_table, curve_picture
from lotj.experiments.reward_levers import levers_table
from lotj.experiments.reward_table import errors_table, paired_tests, read_results, table_iv

MARK = re.compile(r"(<!-- table (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def stale_tables(results: Path, docs: Path, write: bool) -> list[str]:
    """Tables whose text is not what the results say, as ``file: name``; with ``write`` they are written anew.

    Raises:
        ValueError: a page asks for a table that does not exist, or no page asks for any.
    """
    stale: list[str] = []
    pages = {page: page.read_text(encoding="utf-8") for page in sorted(docs.glob("*.md"))}
    if not any(map(MARK.search, pages.values())):
        raise ValueError(f"{docs} has no page with <!-- table NAME -->: expected the folder of the documentation")
    for page, text in pages.items():

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
    found = read_results(results / "reward" / "table-iv")
    return _picture("Accuracy by method, each draw, and the paper's", TABLE_IV, found) + table_iv(found)


def _table_iv_errors(results: Path) -> str:
    return errors_table(read_results(results / "reward" / "table-iv"))


def _table_iv_all(results: Path) -> str:
    return table_iv(read_results(results / "reward" / "table-iv"), "all")


def _table_iv_tests(results: Path) -> str:
    return paired_tests(read_results(results / "reward" / "table-iv"), "daib", "accuracy_half")


def _levers(results: Path) -> str:
    found = read_results(results / "reward" / "levers")
    if not found:
        return "No results yet: `lotj tables levers` writes them.\n"
    return _picture("What each change does to AUROC", LEVERS, found) + levers_table(found)


def _connectors(results: Path) -> str:
    found = read_results(results / "reward" / "connectors")
    alt = "AUROC and accuracy over the number of training connectors"
    return _picture(alt, CURVE, found) + connectors_table(found)


def _practice(results: Path) -> str:
    found = read_results(results / "practice")
    picture = _picture("True success over practice, by connector", PRACTICE, found)
    arrows = "Arrowheads in the picture: on the left the offline policy as evaluated, on the right what practice left."
    note = f"{arrows}\n\n" if found else ""
    return picture + note + practice_table(found)


NOT_YET = "Not measured yet.\n"


def _trials(results: Path) -> str:
    short, whole = (read_results(results / name) for name in ("practice_fifty", "practice"))
    return trials_table({50: short, 200: whole}) if short else NOT_YET


def _all_of(table: Callable[[Sequence[Mapping[str, Any]]], str], folder: str) -> Callable[[Path], str]:
    """A table of all results in a folder."""

    def text(results: Path) -> str:
        found = read_results(results / folder)
        return table(found) if found else NOT_YET

    return text


def _redteam(results: Path) -> str:
    found = {name: _read(results / "reward" / file) for name, file in RED_TEAMED.items()}
    return redteam_table({name: result for name, result in found.items() if result}) if any(found.values()) else NOT_YET


RED_TEAMED = {"validation connectors": "redteam.json", "drawn bricks": "redteam-drawn.json"}


def _of(table: Callable[[Mapping[str, Any]], str], *place: str) -> Callable[[Path], str]:
    """A table of a single file."""

    def text(results: Path) -> str:
        result = _read(results.joinpath(*place))
        return table(result) if result else NOT_YET

    return text


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _ablation(results: Path) -> str:
    found = read_results(results / "ablation")
    return ablation_table(found) if found else "No results yet: `lotj tables ablation` writes them.\n"


def _picture(alt: str, place: str, found: Sequence[Any]) -> str:
    return f"![{alt}]({place})\n\n" if found else ""


TABLES: Mapping[str, Callable[[Path], str]] = {
    "table-iv": _table_iv,
    "table-iv-errors": _table_iv_errors,
    "table-iv-all-frames": _table_iv_all,
    "table-iv-tests": _table_iv_tests,
    "reward-levers": _levers,
    "reward-connectors": _connectors,
    "practice": _practice,
    "unseen": _all_of(summary_table, "unseen"),
    "trials": _trials,
    "arms": _all_of(arms_table, "ensemble"),
    "redteam": _redteam,
    "redteam-candidates": _of(candidates_table, "reward", "redteam.json"),
    "redteam-families": _of(families_table, "reward", "redteam.json"),
    "guard": _of(guard_table, "guard", "bricks.json"),
    "senses": _of(senses_table, "blind_cell.json"),
    "check": _of(check_table, "looser.json"),
    "loosened": _all_of(summary_table, "looser"),
    "loosened-arms": _all_of(arms_table, "looser"),
    "iql-arms": _all_of(arms_table, "iql"),
    "ablation": _ablation,
}
TABLE_IV, LEVERS, PRACTICE = "img/table-iv.png", "img/reward-levers.png", "img/practice.png"
PICTURES: Mapping[str, Callable[[Path, Path], bool]] = {
    TABLE_IV: lambda results, path: table_iv_picture(read_results(results / "reward" / "table-iv"), path),
    LEVERS: lambda results, path: levers_picture(read_results(results / "reward" / "levers"), path),
    CURVE: lambda results, path: curve_picture(read_results(results / "reward" / "connectors"), path),
    PRACTICE: lambda results, path: practice_picture(read_results(results / "practice"), path),
}
"""Pictures of the documentation, by where they are in it: each draws itself if it must, and says whether it did."""
