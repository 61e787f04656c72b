"""The sections of a report, each a function from records to HTML."""

from __future__ import annotations

import base64
import io
import json
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lotj.evaluate import COLUMNS, Comparison, Evaluation
from lotj.report import plots
from lotj.report.records import PracticeRecord
from lotj.report.saliency import SaliencyPanel, overlay
from lotj.report.video import compose, encode_for_web
from lotj.stats import Interval
from lotj.types import RewardModel, Trajectory

Verdict = Literal["improved", "worse", "unchanged"]
_WORDS = {"improved": "improved", "worse": "got worse", "unchanged": "no significant change"}


def verdict(row: Comparison, significance: float = 0.05) -> Verdict:
    """Say whether true success changed, by Barnard's exact test."""
    if row.p_value >= significance:
        return "unchanged"
    return "improved" if row.difference > 0 else "worse"


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
            f"<div class='card'><div class='head'><h3>Scenario {escape(row.scenario)}, true success</h3>"
            f"<span class='chip {kind}'>{_WORDS[kind]}</span></div>"
            f"<div class='big'><span class='was'>{row.before.successes}/{row.before.trials}</span>"
            f"<span class='arrow'>→</span><span class='is'>{row.after.successes}/{row.after.trials}</span></div>"
            + _interval("before", row.before.successes / row.before.trials, row.before_interval)
            + _interval("after", row.after.successes / row.after.trials, row.after_interval)
            + f"<p class='note'>{100 * row.difference:+.0f} points, Barnard's exact test p = {_p(row.p_value)}.{pairs}</p></div>"
        )
    return f"<div class='grid'>{''.join(cards)}</div>" if cards else ""


def believed_and_true(record: PracticeRecord) -> str:
    """Show *rewarded*, *judged* and *true* side by side, and warn where belief and truth part."""
    evaluations = [(phase, e) for phase, e in (("before", record.before), ("after", record.after)) if e is not None]
    if not evaluations:
        return ""
    lines = [_evaluation_line(name, phase, e) for phase, e in evaluations for name in e.config.scenarios]
    head = (
        "<th>scenario</th><th>policy</th><th class='n'>true</th><th class='n'>judged</th><th class='n'>rewarded</th>"
        "<th class='n'>steps to true</th><th class='n'>largest force</th><th class='n'>dislodged</th>"
    )
    return (
        "<h2>What is true, and what the robot believes</h2>"
        "<p class='note'>Only <em>true</em> counts as success. Where <em>judged</em> runs ahead of it, the policy has found what "
        "fools its reward.</p>"
        f"{_exploitation(record.after)}<div class='grid'><div class='card'>{plots.success_bars(record.before, record.after)}</div>"
        f"<div class='card scroll'><table><tr>{head}</tr>{''.join(lines)}</table></div></div>"
    )


def practice_section(record: PracticeRecord) -> str:
    """Show the learning curve over practice trials."""
    if not record.trials:
        return ""
    judged, known = sum(t.judged for t in record.trials), [t.true for t in record.trials if t.true is not None]
    text = f"The rule fired in {judged} of {len(record.trials)} practice trials"
    text += f"; the plug was truly inserted in {sum(known)} of {len(known)}." if known else "."
    return (
        "<h2>Learning over practice</h2><div class='grid'><div class='card'>"
        f"{plots.learning_curve(record.trials)}<p class='note'>{text} Band: exact 95% interval of the true rate in the window; "
        "ticks on top: trials that truly succeeded. Practice explores, so its rates differ from the evaluation's. True success is "
        "recorded for this plot only; practice did not see it.</p></div></div>"
    )


def reward_section(record: PracticeRecord) -> str:
    """Show how far the reward model can be trusted: confusion by trial, fires by distance, calibration."""
    cards = []
    known = [(trial.judged, bool(trial.true)) for trial in record.trials if trial.true is not None]
    if known:
        cards.append(_confusion("Practice trials", known))
    for phase, evaluation in (("before", record.before), ("after", record.after)):
        pairs = [(bool(t.judged), t.true) for t in evaluation.trials if t.judged is not None] if evaluation else []
        if pairs:
            cards.append(_confusion(f"Evaluation {phase} practice", pairs))
    frames = record.frames()
    if frames is not None:
        calibration, error = plots.reliability(frames)
        cards.append(
            f"<div class='card'><h3>Where it fires</h3>{plots.fire_by_distance(frames)}<p class='note'>Single images of both "
            "evaluations. The first bar should be high, all others low; fires between 1 and 4 mm are what stops a plug short.</p></div>"
            f"<div class='card'><h3>Calibration</h3>{calibration}<p class='note'>Expected calibration error {error:.3f} over "
            f"{len(frames.probability)} images. The dots' area is the number of images.</p></div>"
        )
    if not cards:
        return missing_note("no trial was watched by a reward model, so its confusion and calibration are unknown")
    distances = [1000 * t.distance_when_judged for t in record.trials if t.distance_when_judged is not None]
    depth = (
        f" At a predicted success in practice the tip was {median(distances):.1f} mm from full insertion (median)."
        if distances
        else ""
    )
    return f"<h2>The reward model</h2><p class='note'>Predicted against true.{depth}</p><div class='grid'>{''.join(cards)}</div>"


def videos_section(record: PracticeRecord, reward_model: RewardModel | None, threshold: float | None) -> str:
    """Show the first and the last practice trials as the robot saw them."""
    if not record.first:
        return ""
    cards = []
    for name, numbered in (("First", record.first), ("Last", record.last)):
        if numbered:
            numbers, trajectories = zip(*numbered)
            captions = [f"trial {n}: {_outcome(t)}" for n, t in numbered]
            probability = None if reward_model is None else [reward_model.probability(t.image) for t in trajectories]
            frames = compose(trajectories, probability, captions, threshold)
            cards.append(
                f"<div class='card'><h3>{name} practice trials ({numbers[0]}–{numbers[-1]})</h3>{_video(frames)}</div>"
            )
    bars = (
        "The bar is the reward model's probability of success, the mark its threshold."
        if reward_model is not None
        else "No reward model was at hand when this page was written, so there are no bars of its probability."
    )
    return (
        f"<h2>Trials as the robot saw them</h2><p class='note'>{bars} A blue frame marks true success, an orange one a trial "
        f"that ended on a false one. Practice explores.</p><div class='grid'>{''.join(cards)}</div>"
    )


def saliency_section(panels: Sequence[SaliencyPanel]) -> str:
    """Show Grad-CAM of reward and policy."""
    title = "<h2>Where the networks look</h2>"
    if not panels:
        return title + missing_note("no Grad-CAM, because no models were at hand when this page was written")
    cards = []
    for panel in panels:
        images = "".join(_image(picture) for picture in overlay(panel.image, panel.heat))
        cards.append(
            f"<div class='card'><h3>{escape(panel.title)}</h3><div class='cams'>{images}</div>"
            f"<p class='note'>{escape(panel.caption)}</p></div>"
        )
    note = "Grad-CAM: bright where a change in the image would raise the network's answer."
    return f"{title}<p class='note'>{note}</p><div class='grid'>{''.join(cards)}</div>"


def forces_section(record: PracticeRecord, limit: float | None) -> str:
    """Show contact forces and dislodged plugs over practice."""
    forces = [trial.max_force for trial in record.trials if trial.max_force is not None]
    if not forces:
        return missing_note("no contact forces were recorded") if record.trials else ""
    over = (
        "" if limit is None else f" The limit of {limit:g} N was exceeded in {sum(f > limit for f in forces)} trials."
    )
    return (
        "<h2>Contact forces</h2><div class='grid'><div class='card'>"
        f"{plots.contact_forces(record.trials, limit)}<p class='note'>Median {median(forces):.1f} N, largest {max(forces):.1f} N.{over} "
        f"The plug was dislodged in {sum(t.dislodged for t in record.trials)} of {len(record.trials)} trials.</p></div></div>"
    )


def commands_and_settings(stages: Mapping[str, Mapping[str, Any]], records: Sequence[PracticeRecord]) -> str:
    """Show how to get this page again: commands, stages, versions and every setting."""
    entries = {
        **stages,
        **{f"practice: {r.title}": {**r.provenance, "seconds": r.seconds} for r in records if r.provenance},
    }
    if not entries:
        return "<h2>How to reproduce</h2>" + missing_note(
            "no config.json was found, so commands and versions are unknown"
        )
    commands = list(dict.fromkeys(_command(entry["command"]) for entry in entries.values() if entry.get("command")))
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(str(entry.get('started', '')))}</td><td class='n'>{_seconds(entry)}</td>"
        f"<td><code>{escape(_commit(entry))}</code></td><td>{escape(str(entry.get('seed', '')))}</td></tr>"
        for name, entry in entries.items()
    )
    last = list(entries.values())[-1]
    versions = ", ".join(f"{name} {number}" for name, number in (last.get("versions") or {}).items())
    settings = "".join(
        f"<details><summary>Settings of {escape(name)}</summary><pre>{escape(json.dumps(entry.get('config', {}), indent=2))}</pre></details>"
        for name, entry in entries.items()
    )
    return (
        f"<h2>How to reproduce</h2><div class='card'><pre>{escape(chr(10).join(commands)) or 'no command was recorded'}</pre>"
        "<div class='scroll'><table><tr><th>stage</th><th>started</th><th class='n'>seconds</th><th>commit</th><th>seed</th></tr>"
        f"{rows}</table></div><p class='note'>{escape(versions)} · {escape(str(last.get('platform', '')))}</p>{settings}</div>"
    )


def _interval(phase: str, rate: float, interval: Interval) -> str:
    low, high = 100 * interval.low, 100 * interval.high
    return (
        f"<div class='interval'><span>{phase}</span><span class='track {phase}'><i style='left:{low:.1f}%;width:{high - low:.1f}%'>"
        f"</i><b style='left:{100 * rate:.1f}%'></b></span><span>{100 * rate:.0f}% ({low:.0f}–{high:.0f}%)</span></div>"
    )


def _evaluation_line(scenario: str, phase: str, evaluation: Evaluation) -> str:
    trials = evaluation.scenario(scenario)
    counts = {column: evaluation.count(scenario, column) for column in COLUMNS}
    cells = {c: "–" if n is None else f"{n}/{len(trials)}" for c, n in counts.items()}
    steps = [t.true_step for t in trials if t.true_step is not None]
    forces = [t.max_force for t in trials if t.max_force is not None]
    values = [
        f"<b>{cells['true']}</b>", cells["judged"], cells["rewarded"], f"{median(steps):.0f}" if steps else "–",
        f"{max(forces):.1f} N" if forces else "–", str(sum(t.dislodged for t in trials)),
    ]  # fmt: skip
    return (
        f"<tr><td>{escape(scenario)}</td><td>{phase}</td>"
        + "".join(f"<td class='n'>{v}</td>" for v in values)
        + "</tr>"
    )


def _exploitation(after: Evaluation | None) -> str:
    trials = [t for t in after.trials if t.judged is not None] if after else []
    false = sum(bool(t.judged) and not t.true for t in trials)
    if not trials or false < 0.2 * len(trials):
        return ""
    return (
        f"<div class='banner'><strong>The reward is being fooled.</strong> After practice, the rule fires in {false} of {len(trials)} "
        "evaluation trials in which the plug is never inserted.</div>"
    )


def _confusion(title: str, pairs: Sequence[tuple[bool, bool]]) -> str:
    def cell(judged: bool, true: bool, words: str) -> str:
        n = sum(pair == (judged, true) for pair in pairs)
        kind = "ok" if judged == true else "err"
        return f"<td class='{kind}' style='--share:{n / len(pairs):.3f}'>{n}<small>{words}</small></td>"

    agree = sum(judged == true for judged, true in pairs)
    return (
        f"<div class='card'><h3>{title}</h3><table class='confusion'><tr><th></th><th>truly inserted</th><th>not inserted</th></tr>"
        f"<tr><th>judged success</th>{cell(True, True, 'found')}{cell(True, False, 'false fire')}</tr>"
        f"<tr><th>not judged</th>{cell(False, True, 'missed')}{cell(False, False, 'rejected')}</tr></table>"
        f"<p class='note'>Judgement and truth agree in {agree} of {len(pairs)} trials.</p></div>"
    )


def _outcome(trajectory: Trajectory) -> str:
    success = trajectory.privileged.get("success")
    if trajectory.terminated:
        return "judged" if success is None else "judged, true" if success[-1] else "judged, false"
    return "ran out" if success is None or not np.any(success) else "true, not judged"


def _video(frames: NDArray[np.uint8]) -> str:
    data, mime = encode_for_web(frames)
    source = f"data:{mime};base64,{base64.b64encode(data).decode()}"
    if mime.startswith("video/"):
        return f"<video src='{source}' autoplay loop muted playsinline controls></video>"
    return f"<img src='{source}' alt='practice trials'>"


def _image(picture: NDArray[np.uint8]) -> str:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return f"<img src='data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}' alt='heat map over camera image'>"


def _command(argv: Sequence[str] | str) -> str:
    if isinstance(argv, str):
        return argv
    return shlex.join([Path(argv[0]).name, *argv[1:]])


def _commit(entry: Mapping[str, Any]) -> str:
    git = entry.get("git") or {}
    return str(git.get("commit", "unknown"))[:10] + (" (modified)" if git.get("dirty") else "")


def _seconds(entry: Mapping[str, Any]) -> str:
    seconds = entry.get("seconds")
    return "–" if seconds is None else f"{seconds:.0f}"


def _p(value: float) -> str:
    return "&lt; 0.0001" if value < 1e-4 else f"{value:.2g}"
