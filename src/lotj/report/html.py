"""The report: one self-contained HTML page for a run, with one practice or several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from lotj.comparison import Comparison, compare
from lotj.files import write_text
from lotj.report.records import RED_TEAMED, PracticeRecord, find_value, load_practice, stage_records
from lotj.report.reproduce import reproduce_section
from lotj.report.saliency import SaliencyPanel
from lotj.report.sections import (
    believed_and_true,
    film_section,
    missing_note,
    p_text,
    practice_section,
    reward_section,
    saliency_section,
    scenario_cards,
    verdict,
    videos_section,
)
from lotj.report.style import CSS
from lotj.types import RewardModel

DIAGNOSTIC = (
    "<div class='banner'><strong>Diagnostic, not self-rewarded.</strong> This practice was paid by the simulator's "
    "ground truth (<code>--reward ground-truth</code>). It shows what the recipe could do with a perfect reward; no "
    "robot on the job has one, so it is no result of the method.</div>"
)

VALIDATION = (
    "<div class='banner'><strong>A validation connector, practised on purpose.</strong> The reward's threshold and "
    "rule were chosen on it (<code>--validation</code>). This serves to choose recipes; it is no result on a novel "
    "connector.</div>"
)

GLOSSARY = """<h2 id='words'>What the words mean</h2><div class='card'><dl>
<dt>rewarded</dt><dd>The reward model was above its threshold on at least one image of the trial.</dd>
<dt>judged</dt><dd>The success rule fired: enough such images in a row. In practice this pays the reward and ends the
trial.</dd>
<dt>true</dt><dd>The plug reached full insertion by the simulator's ground truth. A robot that rewards itself
never sees it; only this is success.</dd>
<dt>scenario I, II</dt><dd>The trial starts within ±10 mm of the socket (I), or 10–20 mm away from it (II).
Own: where the cell begins by itself.</dd>
<dt>before, after</dt><dd>The policy as it came out of offline training, which has not seen this connector, and the
same policy after practising on it. Both are evaluated over the full horizon, from the same start states, with the same
noise on the actions (<code>acting_std</code>; none in <code>paper</code>) and without learning.</dd>
<dt>interval</dt><dd>Clopper-Pearson, 95%: exact, and wider than it need be rather than narrower.</dd>
<dt>p</dt><dd>Of equal success rates, two-sided: McNemar's exact test where the same start states were tried before and
after, Barnard's where they are not known to be the same. Below 0.05 we speak of a change, above it of none.</dd>
</dl></div>"""


@dataclass(frozen=True)
class Extras:
    """What a report shows only if its caller has models at hand: a run folder does not hold them in a readable form."""

    reward_model: RewardModel | None = None
    """Scores the images of the videos."""
    saliency: tuple[SaliencyPanel, ...] = ()
    """Grad-CAM of reward and policy."""
    force_limit: float | None = None
    """Newton; else looked for in the practice's config."""


def write_report(
    run_root: Path,
    practice_dir: Path | Sequence[Path],
    out: Path,
    extras: Callable[[PracticeRecord], Extras] | None = None,
) -> dict[str, Any]:
    """Write one HTML page that needs nothing but itself.

    Args:
        run_root: the run; its offline stages are listed.
        practice_dir: ``practice/<connector>/<recipe>-<reward source>-s<seed>``, or several: then a summary table comes
            first and a section for each follows.
        out: the page, for example ``RUN/report.html``.
        extras: gives models and saliency for a practice, which may be told from its record.

    Returns:
        The headline numbers, as written in ``summary.json``: one entry a practice.

    Raises:
        FileNotFoundError: if a practice folder does not exist.
        ValueError: if there is no practice, or a file cannot be read.
    """
    folders = [practice_dir] if isinstance(practice_dir, Path) else list(practice_dir)
    if not folders:
        raise ValueError(f"no practice to report on in {run_root}: run lotj practice first")
    records = [load_practice(folder) for folder in folders]
    comparisons = [_compare(record) for record in records]
    several = len(records) > 1
    body = [f"<div class='kicker'>lotj · learning on the job · run {escape(run_root.resolve().name)}</div>"]
    if several:
        body += [_several_headline(records, comparisons), _summary_table(records, comparisons)]
    stages = stage_records(run_root)
    for number, (record, rows) in enumerate(zip(records, comparisons), start=1):
        extra = extras(record) if extras else Extras()
        offline = stages.get(RED_TEAMED if record.red_teamed else "reward", {}).get("summary", {})
        body += [
            f"<section class='practice{' diagnostic' if record.diagnostic else ''}' id='practice-{number}'>",
            *_practice(record, rows, extra, offline, "h2" if several else "h1"),
            "</section>",
        ]
    body += [GLOSSARY, reproduce_section(stages, records)]
    title = f"{len(records)} practices" if several else headline(records[0], comparisons[0])
    page = _page(f"{title} · lotj", "\n".join(body))
    write_text(out, page)
    return {"practices": [_summary(record, rows) for record, rows in zip(records, comparisons)]}


def headline(record: PracticeRecord, rows: Sequence[Comparison]) -> str:
    """Say in one line what was learned, claiming no more than the test allows."""
    name = record.connector
    if not rows:
        return f"Practice on {name}: not evaluated yet"
    verdicts = {row.scenario: verdict(row) for row in rows}
    improved = [s for s, v in verdicts.items() if v == "improved"]
    worse = [s for s, v in verdicts.items() if v == "worse"]
    plural = "s" if len(improved or worse) > 1 else ""
    where = f"scenario{plural} {' and '.join(improved or worse)}"
    if improved and worse:
        return f"Mixed: {name} improved in {where}, and got worse in {' and '.join(worse)}"
    if improved:
        start = "With a ground-truth reward, the" if record.diagnostic else "The"
        return f"{start} robot learned {name} on the job ({where})"
    if worse:
        return f"Practice made the robot worse at {name} ({where})"
    return f"Practice did not change success on {name} significantly"


def _compare(record: PracticeRecord) -> list[Comparison]:
    if record.before is None or record.after is None:
        return []
    return compare(record.before, record.after, record.connector, record.recipe)


def _practice(
    record: PracticeRecord, rows: Sequence[Comparison], extra: Extras, offline: Mapping[str, Any], level: str
) -> list[str]:
    minutes = "" if record.seconds is None else f" in {record.seconds / 60:.1f} minutes"
    threshold = find_value(record.provenance, "threshold") or offline.get("threshold")
    limit = extra.force_limit if extra.force_limit is not None else find_value(record.provenance, "force_limit")
    name = escape(record.connector)
    return [
        f"<{level}>{escape(headline(record, rows)).replace(name, f'<span class=name>{name}</span>')}</{level}>",
        f"<p class='lead'>Connector <strong>{name}</strong> · recipe <strong>{escape(record.recipe)}</strong> · "
        f"reward <strong>{escape(record.reward_source)}</strong> · seed {escape(record.seed or 'unknown')} · "
        f"{len(record.trials)} practice trials{minutes}</p>",
        DIAGNOSTIC if record.diagnostic else "",
        VALIDATION if record.validation else "",
        scenario_cards(rows),
        film_section(record),
        *(missing_note(text) for text in record.missing.values()),
        believed_and_true(record),
        practice_section(record, limit),
        videos_section(record, extra.reward_model, threshold),
        reward_section(record, offline),
        saliency_section(extra.saliency),
    ]


def _several_headline(records: Sequence[PracticeRecord], comparisons: Sequence[Sequence[Comparison]]) -> str:
    kinds = [{verdict(row) for row in rows} for rows in comparisons]
    better = ["improved" in kind and "worse" not in kind for kind in kinds]
    counts = {}
    for diagnostic in (False, True):
        group = [flag for flag, record, kind in zip(better, records, kinds) if kind and record.diagnostic is diagnostic]
        counts[diagnostic] = f"{sum(group)} of {len(group)}" if group else ""
    if counts[False]:
        title = f"{counts[False]} self-rewarded practices improved their policy significantly"
    elif not counts[True]:
        return f"<h1>{len(records)} practices, none of them evaluated before and after</h1>"
    else:
        title = f"Diagnostic only: {counts[True]} practices improved with a ground-truth reward"
    aside = f" With a ground-truth reward, a diagnostic: {counts[True]}." if counts[False] and counts[True] else ""
    return (
        f"<h1>{title}</h1><p class='lead'>Improved: true success rose in at least one scenario and fell in none "
        f"(exact test, two-sided, p &lt; 0.05, each comparison by itself).{aside}</p>"
    )


def _summary_table(records: Sequence[PracticeRecord], comparisons: Sequence[Sequence[Comparison]]) -> str:
    scenarios = list(dict.fromkeys(row.scenario for rows in comparisons for row in rows))
    head = "".join(f"<th>scenario {escape(s)}</th>" for s in scenarios)
    lines = []
    for number, (record, rows) in enumerate(zip(records, comparisons), start=1):
        cells = {row.scenario: _summary_cell(row) for row in rows}
        marks = [name for name in ("diagnostic", "validation") if getattr(record, name)]
        marks += ["red-teamed"] if record.red_teamed else []
        marks += [f"guard: {record.guard}"] if record.guard != "off" else []
        chip = "".join(f" <span class='chip unchanged'>{mark}</span>" for mark in marks)
        lines.append(
            f"<tr><td><a href='#practice-{number}'>{escape(record.connector)}</a><br><span class='note'>"
            f"{escape(record.recipe)} · {escape(record.reward_source)} · seed {escape(record.seed)}</span>{chip}</td>"
            + "".join(f"<td>{cells.get(scenario, 'not evaluated')}</td>" for scenario in scenarios)
            + "</tr>"
        )
    return f"<div class='card scroll'><table><tr><th>practice</th>{head}</tr>{''.join(lines)}</table></div>"


def _summary_cell(row: Comparison) -> str:
    kind = verdict(row)
    chip = f"<span class='chip {kind}'>{kind}</span>" if kind != "unchanged" else ""
    return (
        f"{row.before.successes}/{row.before.trials} → <b>{row.after.successes}/{row.after.trials}</b><br>"
        f"<span class='note'>{p_text(row.p_value)}</span> {chip}"
    )


def _summary(record: PracticeRecord, rows: Sequence[Comparison]) -> dict[str, Any]:
    return {
        "connector": record.connector,
        "recipe": record.recipe,
        "reward": record.reward_source,
        "diagnostic": record.diagnostic,
        "validation": record.validation,
        "red_teamed": record.red_teamed,
        "guard": record.guard,
        "seed": record.seed,
        "practice_trials": len(record.trials),
        "scenarios": {
            row.scenario: {
                "before": [row.before.successes, row.before.trials],
                "after": [row.after.successes, row.after.trials],
                "before_interval": list(row.before_interval),
                "after_interval": list(row.after_interval),
                "p_value": row.p_value,
                "verdict": verdict(row),
            }
            for row in rows
        },
    }


def _page(title: str, body: str) -> str:
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{CSS}</style></head><body><main>{body}</main></body></html>\n"
    )
