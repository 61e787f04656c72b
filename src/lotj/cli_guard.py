"""`lotj practice --audit`: a person looks at what the guard quarantined."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.prompt import Prompt

from lotj.console import console, say

FRAMES = 4
"""Last frames of a trial that are shown."""


def audit(folder: Path) -> None:
    """Show the last frames of each quarantined trial of a practice's folder, and keep the person's labels.

    Raises:
        ValueError: there is nothing to look at, or nobody to ask.
        BusyError: practice goes on there.
    """
    from lotj.files import lock

    if not folder.is_dir():
        raise ValueError(f"{folder}: nothing was practised there; `lotj practice --guard alarm` quarantines trials")
    # A label that came while practice goes on would count only once that is stopped and resumed.
    with lock(folder / "lock"):
        _audit(folder)


def _audit(folder: Path) -> None:
    from lotj.checkpoint import load_state
    from lotj.guard import Audit, read_audit, write_audit
    from lotj.trials import quarantined, read_records

    # Trials after the last checkpoint will be made again.
    last = folder / "checkpoint.safetensors"
    made = int(load_state(last)["trial"]) if last.exists() else 0
    records, held = read_records(folder / "trials.jsonl")[:made], read_audit(folder)
    waiting = quarantined(records, held)
    if not waiting:
        raise ValueError(f"{folder} has no quarantined trial; `lotj practice --guard alarm` makes them")
    pictures = _pictures(folder, waiting)
    labels = dict(held.labels)
    say(f"{len(waiting)} quarantined trials. Is the plug fully inserted in the last frame? y: yes, n: no, s: skip")
    for trial, picture in zip(waiting, pictures):
        try:
            answer = Prompt.ask(f"trial {trial}  {picture}", choices=["y", "n", "s"], console=console)
        except EOFError as error:
            raise ValueError("nobody answered: --audit needs a terminal, or y, n or s on its input") from error
        if answer != "s":
            labels[trial] = answer == "y"
        # Kept after each answer: whoever is interrupted goes on where they were.
        write_audit(folder, Audit(held.until, labels))
    write_audit(folder, Audit(records[-1].trial, labels))
    right = sum(labels[trial] for trial in waiting if trial in labels)
    say(f"Labelled {sum(trial in labels for trial in waiting)} of {len(waiting)} trials, {right} as successes.")


def command(
    run: Path,
    connector: str,
    guard: str | None,
    recipe: str | None,
    trials: int | None,
    scenario: str | None,
    seed: int | None,
    validation: bool,
    cell: Path | None = None,
    cells: Sequence[str] = (),
    ray: str | None = None,
    reward: str = "learned",
    force: bool = False,
    keep: bool = False,
) -> str:
    """The command that continues a practice."""
    options = {
        "guard": guard,
        "recipe": recipe,
        "trials": trials,
        "scenario": scenario,
        "seed": seed,
        "cell": cell,
        "ray": ray,
    }
    words = ["lotj", "practice", "--run", str(run), "--connector", connector]
    for name, value in options.items():
        words += [f"--{name}", str(value)] if value is not None else []
    words += ["--cells", *cells] if cells else []
    words += ["--reward", reward] if reward != "learned" else []
    words += [f"--{name}" for name, on in (("validation", validation), ("force", force), ("keep", keep)) if on]
    return shlex.join(words)


def _pictures(folder: Path, trials: list[int]) -> list[Path]:
    """Write the last frames of trials, side by side and enlarged, as PNG files."""
    import numpy as np
    from PIL import Image

    from lotj.data.store import TrajectoryStore

    where = folder / "quarantine"
    where.mkdir(exist_ok=True)
    paths = []
    with TrajectoryStore(folder / "online.sqlite") as store:
        for trial in trials:
            frames = store.read_trajectory_images(trial - 1)[-FRAMES:]
            picture = Image.fromarray(np.concatenate(list(frames), axis=1))
            path = where / f"trial-{trial:03d}.png"
            picture.resize((picture.width * 4, picture.height * 4), Image.Resampling.NEAREST).save(path)
            paths.append(path)
    return paths
