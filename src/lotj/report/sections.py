"""The sections of a report, each a function from records to HTML."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from statistics import median
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lotj.comparison import Comparison
from lotj.evaluate import COLUMNS, Evaluation
from lotj.report import plots
from lotj.report.records import PracticeRecord, film_of
from lotj.report.saliency import SaliencyPanel, overlay
from lotj.report.video import MIME, compose, encode_for_web
from lotj.stats import Interval
from lotj.types import RewardModel, Trajectory

Verdict = Literal["improved", "worse", "unchanged"]
_WORDS = {"improved": "improved", "worse": "got worse", "unchanged": "no significant change"}
_FOOLED = 0.2
"""Share of trials judged but not true from which the page warns."""


def verdict(row: Comparison, significance: float = 0.05) -> Verdict:
    """Say whether true success changed, by the comparison's exact test."""
    if row.p_value >= significance:
        return "unchanged"
    return "improved" if row.difference > 0 else "worse"


def p_text(p_value: float) -> str:
    """Return a p-value as HTML."""
    return "p &lt; 0.0001" if p_value < 1e-4 else f"p = {p_value:.2g}"


def missing_note(text: str) -> str:
    """Return the box that says which part is not there, and why."""
    return f"<div class='missing'>Not available: {escape(text)}.</div>"


def scenario_cards(rows: Sequence[Comparison]) -> str:
    """Show true success before and after, big, with intervals, p-value and paired counts."""
    cards = []
    for row in rows:
        kind = verdict(row)
        pairs = (
            "" if row.gained is None else f" Of the same start states, {row.gained} were gained and {row.lost} lost."
        )
        cards.append(
            f"<div class='card'><div class='head'><h3>Scenario {escape(row.scenario)}: true success</h3>"
            f"<span class='chip {kind}'>{_WORDS[kind]}</span></div>"
            f"<div class='big'><span class='was'>{row.before.successes}/{row.before.trials}</span>"
            f"<span class='arrow'>→</span><span class='is'>{row.after.successes}/{row.after.trials}</span></div>"
            + _interval("before", row.before.successes / row.before.trials, row.before_interval)
            + _interval("after", row.after.successes / row.after.trials, row.after_interval)
            + f"<p class='note'>{100 * row.difference:+.0f} points, {row.test}'s exact test {p_text(row.p_value)}."
            + f"{pairs}</p>"
            + "</div>"
        )
    return _grid(cards) if cards else ""


def believed_and_true(record: PracticeRecord) -> str:
    """Show *rewarded*, *judged* and *true* side by side, and warn where belief and truth part."""
    evaluations = [(phase, e) for phase, e in (("before", record.before), ("after", record.after)) if e is not None]
    if not evaluations:
        return ""
    scenarios = dict.fromkeys(name for _, e in evaluations for name in e.config.scenarios)
    names = ("true", "judged", "rewarded", "steps", "force", "dislodged")
    head = "<th>scenario</th>" + "".join(f"<th class='n'>{name}</th>" for name in names)
    lines = [
        _evaluation_line(name, phase, e) for name in scenarios for phase, e in evaluations if name in e.config.scenarios
    ]
    note = "Only <em>true</em> counts as success. Where <em>judged</em> runs ahead of it, the policy fools its reward."
    table_note = "Steps: median to true success. Force: the largest contact force of all trials."
    return (
        _title("What is true, and what the robot believes", note)
        + _exploitation(record.after)
        + _grid(
            [
                _card("Evaluation, by column", plots.success_bars(record.before, record.after)),
                _card(
                    "Evaluation, in numbers",
                    f"<div class='scroll'><table><tr>{head}</tr>{''.join(lines)}</table></div>",
                    table_note,
                ),
            ]
        )
    )


def practice_section(record: PracticeRecord, limit: float | None) -> str:
    """Show how practice went: success, where it rewarded itself, contact forces."""
    if not record.trials:
        return ""
    total, judged = len(record.trials), sum(trial.judged for trial in record.trials)
    known = [trial.true for trial in record.trials if trial.true is not None]
    text = f"The reward fired in {judged} of {total} trials"
    text += f"; the plug was inserted in {sum(known)} of {len(known)}." if known else "."
    band = " Band: exact 95% interval of the true rate in the window. Ticks: trials that truly succeeded."
    cards = [_card("Learning curve", plots.learning_curve(record.trials), text + band)]
    distances = [1000 * t.distance_when_judged for t in record.trials if t.distance_when_judged is not None]
    if distances:
        middle = (
            f"Median {median(distances):.1f} mm. Where points drift upwards, practice is finding what fools the reward."
        )
        cards.append(_card("Where practice paid itself", plots.judged_distance(record.trials), middle))
    forces = [trial.max_force for trial in record.trials if trial.max_force is not None]
    if forces:
        text = f"Median {median(forces):.1f} N, largest {max(forces):.1f} N. "
        if limit is not None:
            text += f"Above the limit of {limit:g} N in {sum(force > limit for force in forces)} trials. "
        text += f"The plug was dislodged in {sum(t.dislodged for t in record.trials)} of {total} trials."
        cards.append(_card("Contact forces", plots.contact_forces(record.trials, limit), text))
    pairs = [(trial.judged, bool(trial.true)) for trial in record.trials if trial.true is not None]
    if pairs:
        cards.append(_confusion("Predicted against true, by trial", pairs))
    truth = "Here it was paid by the truth itself." if record.diagnostic else "It did not see the truth shown here."
    note = f"Practice explores, so its rates differ from the evaluation's. {truth}"
    return _title("Practice", note) + _grid(cards)


def reward_section(record: PracticeRecord, offline: Mapping[str, Any]) -> str:
    """Show how far the reward model can be trusted on this connector: confusion, fires by distance, calibration.

    Args:
        record: the practice.
        offline: summary of the reward's training, with ``accuracy`` and ``auroc`` where known.
    """
    cards = []
    for phase, evaluation in (("before", record.before), ("after", record.after)):
        pairs = [(bool(t.judged), t.true) for t in evaluation.trials if t.judged is not None] if evaluation else []
        if pairs:
            cards.append(_confusion(f"Evaluation {phase} practice", pairs))
    frames = record.frames()
    if frames is None:
        return _title("The reward model", "") + missing_note("no evaluation was watched by a reward model")
    calibration, error = plots.reliability(frames)
    fires = "Single images. The first bar should be high, the others low: fires between 1 and 4 mm stop a plug short."
    size = (
        f"Expected calibration error {error:.3f} over {len(frames.probability)} images. A dot's area: number of images."
    )
    cards += [_card("Where it fires", plots.fire_by_distance(frames), fires), _card("Calibration", calibration, size)]
    known = ", ".join(
        f"{name} {offline[key]:.2f}" for key, name in (("accuracy", "accuracy"), ("auroc", "AUROC")) if key in offline
    )
    note = "Measured on this connector, in both evaluations."
    note += f" On validation connectors, before practice: {known}." if known else ""
    return _title("The reward model", note) + _grid(cards)


def film_section(record: PracticeRecord) -> str:
    """Show the film of the first trials before practice and after it, from beside the cell."""
    path = film_of(record.path)
    if path is None:
        return ""
    note = "The first evaluation trials of the last scenario, not chosen: the same starts above and below. "
    note += "Blue: fully inserted. The bar is the reward model's probability of success, the mark its threshold."
    seen = _embedded(path.read_bytes(), MIME[path.suffix], "the first evaluation trials, before practice and after it")
    return _title("Before practice and after it", note) + f"<div class='card'>{seen}</div>"


def videos_section(record: PracticeRecord, reward_model: RewardModel | None, threshold: float | None) -> str:
    """Show the first and the last practice trials as the robot saw them."""
    if not record.first:
        return ""
    cards = []
    for name, numbered in (("First", record.first), ("Last", record.last)):
        if numbered:
            trajectories = [trajectory for _, trajectory in numbered]
            captions = [f"trial {number}: {_outcome(trajectory)}" for number, trajectory in numbered]
            probability = None if reward_model is None else [reward_model.probability(t.image) for t in trajectories]
            cards.append(
                _card(f"{name} practice trials", _video(compose(trajectories, probability, captions, threshold)))
            )
    bars = (
        "The bar is the reward model's probability of success, the mark its threshold."
        if reward_model is not None
        else "No reward model was at hand when this page was written, so there are no bars of its probability."
    )
    note = f"{bars} A blue frame marks true success, an orange one a trial that ended on a false one."
    return _title("Trials as the robot saw them", note) + _grid(cards)


def saliency_section(panels: Sequence[SaliencyPanel]) -> str:
    """Show Grad-CAM of reward and policy."""
    if not panels:
        missing = missing_note("no Grad-CAM, because no models were at hand when this page was written")
        return _title("Where the networks look", "") + missing
    cards = []
    for panel in panels:
        images = "".join(_image(picture) for picture in overlay(panel.image, panel.heat))
        cards.append(_card(escape(panel.title), f"<div class='cams'>{images}</div>", escape(panel.caption)))
    told = "Grad-CAM: bright is what raises the network's answer."
    if any(panel.image.shape[2] > panel.image.shape[1] for panel in panels):
        told += " Both cameras' pictures share one map, since the network stacks them."
    return _title("Where the networks look", told) + _grid(cards)


def _title(title: str, note: str) -> str:
    return f"<h2>{title}</h2>" + (f"<p class='note'>{note}</p>" if note else "")


def _card(title: str, body: str, note: str = "") -> str:
    return f"<div class='card'><h3>{title}</h3>{body}" + (f"<p class='note'>{note}</p>" if note else "") + "</div>"


def _grid(cards: Iterable[str]) -> str:
    return f"<div class='grid'>{''.join(cards)}</div>"


def _interval(phase: str, rate: float, interval: Interval) -> str:
    low, high = 100 * interval.low, 100 * interval.high
    return (
        f"<div class='interval'><span>{phase}</span><span class='track {phase}'>"
        f"<i style='left:{low:.1f}%;width:{high - low:.1f}%'></i><b style='left:{100 * rate:.1f}%'></b></span>"
        f"<span>{100 * rate:.0f}% ({low:.0f}–{high:.0f}%)</span></div>"
    )


def _evaluation_line(scenario: str, phase: str, evaluation: Evaluation) -> str:
    trials = evaluation.scenario(scenario)
    counts = {column: evaluation.count(scenario, column) for column in COLUMNS}
    cells = {c: "–" if n is None else f"{n}/{len(trials)}" for c, n in counts.items()}
    steps = [t.true_step for t in trials if t.true_step is not None]
    forces = [t.max_force for t in trials if t.max_force is not None]
    values = [
        f"<b>{cells['true']}</b>",
        cells["judged"],
        cells["rewarded"],
        f"{median(steps):.0f}" if steps else "–",
        f"{max(forces):.1f} N" if forces else "–",
        str(sum(t.dislodged for t in trials)),
    ]
    return f"<tr><td>{escape(scenario)} {phase}</td>" + "".join(f"<td class='n'>{v}</td>" for v in values) + "</tr>"


def _exploitation(after: Evaluation | None) -> str:
    trials = [t for t in after.trials if t.judged is not None] if after else []
    false = sum(bool(t.judged) and not t.true for t in trials)
    if not trials or false < _FOOLED * len(trials):
        return ""
    return (
        "<div class='banner'><strong>The reward is being fooled.</strong> After practice, the rule fires in "
        f"{false} of {len(trials)} evaluation trials in which the plug is never inserted.</div>"
    )


def _confusion(title: str, pairs: Sequence[tuple[bool, bool]]) -> str:
    def cell(judged: bool, true: bool, words: str) -> str:
        n = sum(pair == (judged, true) for pair in pairs)
        kind = "ok" if judged == true else "err"
        return f"<td class='{kind}' style='--share:{n / len(pairs):.3f}'>{n}<small>{words}</small></td>"

    agree = sum(judged == true for judged, true in pairs)
    table = (
        "<table class='confusion'><tr><th></th><th>truly inserted</th><th>not inserted</th></tr>"
        f"<tr><th>judged success</th>{cell(True, True, 'found')}{cell(True, False, 'false fire')}</tr>"
        f"<tr><th>not judged</th>{cell(False, True, 'missed')}{cell(False, False, 'rejected')}</tr></table>"
    )
    return _card(title, table, f"Judgement and truth agree in {agree} of {len(pairs)} trials.")


def _outcome(trajectory: Trajectory) -> str:
    success = trajectory.privileged.get("success")
    if trajectory.terminated:
        return "judged" if success is None else "judged, true" if success[-1] else "judged, false"
    return "ran out" if success is None or not np.any(success) else "true, not judged"


def _video(frames: NDArray[np.uint8]) -> str:
    return _embedded(*encode_for_web(frames), "practice trials")


def _embedded(data: bytes, mime: str, alt: str) -> str:
    source = f"data:{mime};base64,{base64.b64encode(data).decode()}"
    if mime.startswith("video/"):
        return f"<video src='{source}' title='{alt}' autoplay loop muted playsinline controls></video>"
    return f"<img src='{source}' alt='{alt}'>"


def _image(picture: NDArray[np.uint8]) -> str:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    data = base64.b64encode(out.getvalue()).decode()
    return f"<img src='data:image/png;base64,{data}' alt='heat map over camera image'>"
