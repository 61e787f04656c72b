"""Tables: counts, the tie rule against Barnard's test, and well-formed output."""

from __future__ import annotations

import csv
import io

import pytest

from lotj.tables import TIE_RULE, tied_with_best, to_csv, to_latex, to_markdown
from lotj.types import Trials

NEMA = [
    Trials("straight down", "", "nema-5-15", "I", 1, 20),
    Trials("LOTJ", "offline", "nema-5-15", "I", 11, 20),
    Trials("LOTJ", "online", "nema-5-15", "I", 15, 20),
]


def test_tie_rule_on_the_papers_nema_line() -> None:
    """15/20 is best; 11/20 is not separated from it (p = 0.23) and 1/20 is."""
    assert tied_with_best(NEMA) == (False, True, True)
    assert tied_with_best(NEMA, significance=0.3) == (False, False, True)


def test_nothing_is_bold_where_nothing_succeeded() -> None:
    """A best of 0 successes is no best."""
    assert tied_with_best([NEMA[0]._replace(successes=0)] * 2) == (False, False)
    assert tied_with_best([]) == ()


def test_markdown_has_counts_columns_and_rule() -> None:
    """Every count appears in its column, bold where tied, and a cell without data is empty."""
    other = Trials("LOTJ", "online", "europlug", "II", 0, 20)
    lines = to_markdown([*NEMA, other]).splitlines()
    assert lines[0] == "| connector | scenario | straight down | LOTJ (offline) | LOTJ (online) |"
    assert lines[2] == "| nema-5-15 | I | 1/20 | **11/20** | **15/20** |"
    assert lines[3] == "| europlug | II |  |  | 0/20 |"
    assert lines[-1] == TIE_RULE
    assert "**15/20 (51-91%)**" in to_markdown(NEMA, intervals=True)


def test_csv_round_trips() -> None:
    """Reading the CSV back gives the counts, the flag and an interval around the rate."""
    read = list(csv.DictReader(io.StringIO(to_csv(NEMA))))
    assert [int(row["successes"]) for row in read] == [1, 11, 15]
    assert [row["best"] for row in read] == ["0", "1", "1"]
    assert all(float(row["low"]) < float(row["rate"]) < float(row["high"]) for row in read)


def test_latex_escapes_and_bolds() -> None:
    """LaTeX's special characters are escaped and the environment is closed."""
    text = to_latex([row._replace(connector="a_b & 5%") for row in NEMA], intervals=True)
    assert r"a\_b \& 5\%" in text and r"\textbf{15/20 (51-91\%)}" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1


def test_two_rows_for_one_cell_are_refused() -> None:
    """A table that would silently drop a count raises instead."""
    with pytest.raises(ValueError, match="two rows for nema-5-15, scenario I"):
        to_markdown([NEMA[0], NEMA[0]])
