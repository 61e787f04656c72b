"""Tables of success counts (the layout of Tables I-III) from :class:`~lotj.types.Trials` rows: markdown, CSV, LaTeX.

The tie rule: in each line of a table, the best rate is bold, and so is every entry that Barnard's exact test, two-sided
at 95% confidence, does not separate from it. A line whose best is 0 successes has nothing bold. The paper names the
same test but bolds differently: its Table I sets apart what the test, taken two-sided, does not (NEMA: 15/20 against
11/20 has p = 0.23), so its bold entries cannot be compared with ours.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

from lotj.stats import barnard, clopper_pearson
from lotj.types import Trials

TIE_RULE = (
    "Bold: the best of its line, and all that Barnard's exact test (two-sided, 95%) does not separate from it. "
    "The paper's Table I bolds differently."
)
"""Printed under every table."""

CSV_FIELDS = ("method", "phase", "connector", "scenario", "successes", "trials", "rate", "low", "high", "best")

_LATEX_SPECIAL = {c: f"\\{c}" for c in "&%$#_{}"} | {"→": r"$\rightarrow$", "±": r"$\pm$"}


def tied_with_best(row: Sequence[Trials], significance: float = 0.05) -> tuple[bool, ...]:
    """Say which entries of one line of a table are bold, by the module's tie rule.

    Args:
        row: entries to compare, all of one connector and scenario.
        significance: two-sided level of Barnard's exact test.

    Returns:
        One flag an entry; all False where nothing succeeded.
    """
    best = max(row, key=_rate, default=None)
    if best is None or best.successes == 0:
        return (False,) * len(row)
    return tuple(
        entry.trials > 0 and barnard(entry.successes, entry.trials, best.successes, best.trials) >= significance
        for entry in row
    )


def to_markdown(rows: Sequence[Trials], intervals: bool = False) -> str:
    """Return a markdown table: a line for each connector and scenario, a column for each method and phase.

    Args:
        rows: counts; of two rows for one cell of the table, the later is an error.
        intervals: add 95% Clopper-Pearson intervals, in percent.

    Raises:
        ValueError: if two rows claim the same cell.
    """
    header, lines = _grid(rows, intervals, lambda text: f"**{text}**", lambda text: text.replace("|", "\\|"))
    table = ["| " + " | ".join(line) + " |" for line in (header, ["---"] * 2 + ["---:"] * (len(header) - 2), *lines)]
    return "\n".join([*table, "", TIE_RULE, ""])


def to_latex(rows: Sequence[Trials], intervals: bool = False) -> str:
    """Return the same table as a LaTeX ``tabular`` (needs ``booktabs``), the tie rule as a comment above it.

    Args:
        rows: counts, as for :func:`to_markdown`.
        intervals: add 95% Clopper-Pearson intervals, in percent.

    Raises:
        ValueError: if two rows claim the same cell.
    """
    header, lines = _grid(rows, intervals, lambda text: rf"\textbf{{{text}}}", _escape_latex)
    body = [" & ".join(line) + r" \\" for line in lines]
    columns = "ll" + "r" * (len(header) - 2)
    head = [f"% {TIE_RULE}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", " & ".join(header) + r" \\", r"\midrule"]
    return "\n".join([*head, *body, r"\bottomrule", r"\end{tabular}", ""])


def to_csv(rows: Sequence[Trials]) -> str:
    """Return one line for each row of counts, with rate, 95% Clopper-Pearson interval and the bold flag (``best``)."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_FIELDS)
    groups = _by_line(rows)
    for row in rows:
        line = groups[(row.connector, row.scenario)]
        low, high = clopper_pearson(row.successes, row.trials)
        bold = tied_with_best(line)[line.index(row)]
        writer.writerow([*row, f"{_rate(row):.4f}", f"{low:.4f}", f"{high:.4f}", int(bold)])
    return out.getvalue()


def count(entry: Trials, intervals: bool = False) -> str:
    """Return ``"7/20"``, or ``"7/20 (15-59%)"`` with its 95% Clopper-Pearson interval."""
    text = f"{entry.successes}/{entry.trials}"
    if not intervals:
        return text
    low, high = clopper_pearson(entry.successes, entry.trials)
    return f"{text} ({100 * low:.0f}-{100 * high:.0f}%)"


def _grid(
    rows: Sequence[Trials], intervals: bool, bold: Callable[[str], str], escape: Callable[[str], str]
) -> tuple[list[str], list[list[str]]]:
    columns = list(dict.fromkeys((row.method, row.phase) for row in rows))
    header = ["connector", "scenario"] + [escape(f"{m} ({p})" if p else m) for m, p in columns]
    lines = []
    for (connector, scenario), line in _by_line(rows).items():
        cells: dict[tuple[str, str], str] = {}
        for entry, best in zip(line, tied_with_best(line)):
            key = (entry.method, entry.phase)
            if key in cells:
                raise ValueError(f"two rows for {connector}, scenario {scenario}, {key}: merge their counts first")
            text = escape(count(entry, intervals))
            cells[key] = bold(text) if best else text
        lines.append([escape(connector), escape(scenario)] + [cells.get(key, "") for key in columns])
    return header, lines


def _by_line(rows: Sequence[Trials]) -> dict[tuple[str, str], list[Trials]]:
    lines: dict[tuple[str, str], list[Trials]] = {}
    for row in rows:
        lines.setdefault((row.connector, row.scenario), []).append(row)
    return lines


def _rate(row: Trials) -> float:
    return row.successes / row.trials if row.trials else 0.0


def _escape_latex(text: str) -> str:
    return "".join(_LATEX_SPECIAL.get(c, c) for c in text)
