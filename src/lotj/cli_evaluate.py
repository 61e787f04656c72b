"""`lotj evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from lotj import cli_cell
from lotj.console import bar, check_film, console, say
from lotj.presets import Preset, load_preset
from lotj.stats import show_p


def evaluate(
    run: Path,
    connector: str,
    trials: int = 20,
    seed: int = 1,
    practised: Path | None = None,
    cell: Path | None = None,
    film: Path | None = None,
) -> None:
    """Evaluate the offline policy, or a practised one against it on the same start states, by ground truth.

    Example: ``lotj evaluate --run runs/desk --connector rj45``

    Args:
        run: run folder with trained networks.
        connector: a name of the catalogue or a TOML file.
        trials: in each scenario, I and II.
        seed: of the start states.
        practised: folder of a finished practice of this run, to evaluate what it learned.
        cell: a cell of your own; the run's own by default.
        film: also write the first trials of scenario II as somebody beside the simulated cell sees them, the practised
            policy below the offline one: a file .mp4 or .webp.
    """
    from lotj.cells.opening import identify, is_own_cell
    from lotj.comparison import compare
    from lotj.evaluate import Evaluation
    from lotj.evaluating import evaluate_stage
    from lotj.film import caption
    from lotj.learned import practice_settings

    preset = load_preset(run)
    if cell is not None:
        preset = replace(preset, robot=str(cell))
    asked, known = replace(preset, evaluate=replace(preset.evaluate, trials=trials, seed=seed)), preset.split()
    name = identify(connector, preset.robot).name
    check_film(film)
    if film is not None and is_own_cell(preset.robot):
        raise ValueError(f"--film {film}: only the simulated cell can be seen from beside, not {preset.robot}")
    if name in (*known.train, *known.validation):
        say(f"{name} is {'trained on' if name in known.train else 'a validation connector'} in {run}: not a novel one")
    if practised is not None:
        practice_settings(run, practised)
        cli_cell.tell_other(practised, name)
    before = evaluate_stage(asked, run, known, connector, None, bar, cli_cell.ask)
    print_evaluation(before, f"{escape(connector)}, offline policy, {trials} trials each")
    who: dict[str, Path | None] = {"offline policy": None}
    if practised is not None:
        after = evaluate_stage(asked, run, known, connector, practised, bar, cli_cell.ask)
        mark = marks(after["policy"])
        print_evaluation(after, f"{escape(f'{connector}, {practised.name}{mark}')}, {trials} trials each")
        table = Table(
            "scenario", "before", "95% interval", "after", "95% interval", "p", "test", title=f"True success{mark}"
        )
        for row in compare(Evaluation.from_json(before), Evaluation.from_json(after)):
            cells: list[str] = []
            for side, interval in ((row.before, row.before_interval), (row.after, row.after_interval)):
                cells += [f"{side.successes}/{side.trials}", f"{interval.low:.0%} - {interval.high:.0%}"]
            table.add_row(row.scenario, *cells, show_p(row.p_value), row.test)
        console.print(table)
        if after["policy"]["diagnostic"]:
            console.print("[yellow]Diagnostic: this policy practised with ground truth as the reward.[/]")
        who = {"before practice": None, caption(after["policy"]): practised}
    if film is not None:
        _film(film, preset, run, connector, who, Evaluation.from_json(before).config)


def _film(path: Path, preset: Preset, run: Path, connector: str, who: Mapping[str, Path | None], config: Any) -> None:
    from lotj.film import film, first_trials
    from lotj.learned import load_learned

    acting = {name: load_learned(run, practised, preset.split()) for name, practised in who.items()}
    with bar("film") as tick:
        film(connector, preset.robot, acting, first_trials(config), preset.image_size, preset.cameras, path, tick)
    say(f"Film: {path}")


def print_evaluation(evaluation: dict[str, Any], title: str) -> None:
    """Successes of each kind, a line for each scenario."""
    table = Table("scenario", "rewarded", "judged", "true", "95% interval of true", title=title)
    for name, row in evaluation["summary"].items():
        low, high = row["true_interval"]
        cells = [f"{row[column]}/{row['trials']}" for column in ("rewarded", "judged", "true")]
        table.add_row(name, *cells, f"{low:.0%} - {high:.0%}")
    console.print(table)


def marks(row: Mapping[str, Any], *kinds: str) -> str:
    """What must be said wherever a practice is named."""
    return "".join(f" ({kind})" for kind in kinds or ("diagnostic", "validation") if row.get(kind))
