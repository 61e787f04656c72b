"""The end of a report: how to get it again, by what the run folder recorded."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lotj.report.records import PracticeRecord
from lotj.report.sections import missing_note


def reproduce_section(stages: Mapping[str, Mapping[str, Any]], records: Sequence[PracticeRecord]) -> str:
    """Show commands, stages, versions and settings.

    Args:
        stages: provenance of the offline stages, by name (``records.stage_records``).
        records: the practices.
    """
    practices = {f"practice: {r.title}": {**r.provenance, "seconds": r.seconds} for r in records if r.provenance}
    entries = {**stages, **practices}
    title = "<h2>How to reproduce</h2>"
    if not entries:
        return title + missing_note("no config.json was found, so commands and versions are unknown")
    commands = list(dict.fromkeys(_command(entry["command"]) for entry in entries.values() if entry.get("command")))
    head = "<tr><th>stage</th><th>started</th><th class='n'>seconds</th><th>commit</th><th class='n'>seed</th></tr>"
    rows = "".join(_row(name, entry) for name, entry in entries.items())
    last = list(entries.values())[-1]
    versions = ", ".join(f"{name} {number}" for name, number in (last.get("versions") or {}).items())
    return (
        f"{title}<div class='card'><pre>{escape(chr(10).join(commands)) or 'no command was recorded'}</pre>"
        f"<div class='scroll'><table>{head}{rows}</table></div>"
        f"<p class='note'>{escape(versions)} · {escape(str(last.get('platform', '')))}</p>"
        + "".join(_settings(name, entry) for name, entry in entries.items())
        + "</div>"
    )


def _row(name: str, entry: Mapping[str, Any]) -> str:
    git, seconds = entry.get("git") or {}, entry.get("seconds")
    commit = str(git.get("commit", "unknown"))[:10] + (" (modified)" if git.get("dirty") else "")
    cells = (
        f"<td>{escape(name)}</td>",
        f"<td>{escape(str(entry.get('started', '–'))[:16].replace('T', ' '))}</td>",
        f"<td class='n'>{'–' if seconds is None else f'{seconds:.0f}'}</td>",
        f"<td><code>{escape(commit)}</code></td>",
        f"<td class='n'>{escape(str(entry.get('seed', '–')))}</td>",
    )
    return f"<tr>{''.join(cells)}</tr>"


def _settings(name: str, entry: Mapping[str, Any]) -> str:
    config = escape(json.dumps(entry.get("config", {}), indent=2))
    return f"<details><summary>Settings of {escape(name)}</summary><pre>{config}</pre></details>"


def _command(argv: Sequence[str] | str) -> str:
    """The command without the folder its program lies in, which differs from machine to machine."""
    return argv if isinstance(argv, str) else shlex.join([Path(argv[0]).name, *argv[1:]])
