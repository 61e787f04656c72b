"""`lotj practice`, `lotj redteam`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from rich.markup import escape
from rich.table import Table

from lotj import cli_cell
from lotj.cli_evaluate import marks
from lotj.console import bar, console, say
from lotj.distributed import RayCluster
from lotj.presets import load_preset
from lotj.stats import show_p

CORES = os.cpu_count() or 1


def practice(
    run: Path,
    connector: str,
    reward: Literal["learned", "ground-truth"] = "learned",
    recipe: Literal["ensemble", "iql"] | None = None,
    trials: int | None = None,
    scenario: Literal["I", "II", "mixed"] | None = None,
    seed: int | None = None,
    validation: bool = False,
    guard: Literal["off", "alarm", "gate"] | None = None,
    audit: bool = False,
    force: bool = False,
    cell: Path | None = None,
    keep: bool = False,
    cells: tuple[str, ...] = (),
    ray: str | None = None,
) -> None:
    """Practise a connector that offline training never saw.

    Example: ``lotj practice --run runs/desk --connector europlug --guard alarm``

    Args:
        run: run folder with trained networks.
        connector: a name of the catalogue or a TOML file.
        reward: learned (the robot rewards itself), or ground-truth: a diagnostic, marked so in every output.
        recipe: iql is the paper's, ensemble is ours; the preset's by default.
        trials: number of trials; the preset's by default.
        scenario: where trials start: I within 10 mm along x and y, II 10-20 mm away, mixed either; the preset's by
            default.
        seed: random seed of the practice; the preset's by default.
        validation: practise a validation connector on purpose, for choosing recipes; marked in every output.
        guard: after each success that the robot claims, tug at the plug. alarm quarantines what the tug refutes and
            pauses when it becomes much; gate does not pay it and goes on; off is the paper's method.
        audit: label the trials that a paused practice quarantined: shows their frames, takes y or n.
        force: practise although the reward took blind presses beside the socket for successes.
        cell: practise on this cell of your own (``lotj cell new``); the run's own by default.
        cells: robots that practise together, for example sawyer-a sawyer-b, or files of own cells: a trial of each with
            the same policy, then it learns from all of them; the run's own alone by default.
        ray: each cell in a process on Ray: local, auto or the address of a cluster (docs/ray.md). The same trials.
        keep: put the trials with the robot's own labels into the run's library, for the next offline training.
    """
    from lotj import cli_guard, demo, stages
    from lotj.cells.opening import is_own_cell
    from lotj.cells.safety import CellStoppedError
    from lotj.fleet import Cells
    from lotj.outcome import result as outcome_of
    from lotj.practice import PracticePaused
    from lotj.preflight import NotTrustedError
    from lotj.sim.randomize import CELLS

    if reward == "ground-truth" and guard not in (None, "off"):
        raise ValueError(
            f"--guard {guard} with --reward ground-truth: ground truth needs no guard; leave one of them out"
        )
    if seed is not None and seed < 0:
        raise ValueError(f"--seed {seed}: expected 0 or more")
    preset = load_preset(run)
    if cell is not None:
        preset = replace(preset, robot=str(cell))
    elif cells and is_own_cell(cells[0]):
        preset = replace(preset, robot=cells[0])
    known = preset.split()
    config = preset.practice
    changes = {k: v for k, v in {"trials": trials, "scenario": scenario}.items() if v is not None}
    inner = replace(config.practice, **changes)  # type: ignore[arg-type]
    if guard is not None:
        inner = replace(inner, guard=replace(inner.guard, mode=guard))
    config = replace(config, practice=inner, recipe=recipe or config.recipe)

    def command(with_guard: str | None = guard) -> str:
        return cli_guard.command(
            run,
            connector,
            with_guard,
            recipe,
            trials,
            scenario,
            seed,
            validation,
            cell,
            cells,
            ray,
            reward,
            force,
            keep,
        )

    again = command()
    chosen_seed = preset.seed if seed is None else seed
    if audit:
        mode = inner.guard.mode
        cli_guard.audit(
            demo.practice_dir(run, connector, config.recipe, reward, chosen_seed, mode, preset.robot, cells)
        )
        say(f"Next: {again}")
        return
    if reward == "ground-truth":
        console.print("[yellow]Diagnostic: practising with ground truth as the reward.[/]")
    for robot in cells:
        if not is_own_cell(robot) and robot not in CELLS:
            raise ValueError(f"--cells {robot}: expected {', '.join(CELLS)} or the TOML file of a cell of your own")
    rolled_by = Cells(cells, None if ray is None else RayCluster(ray, max(1, len(cells))))
    try:
        out = demo.practice_stage(
            preset,
            run,
            known,
            connector,
            reward,
            bar,
            config,
            seed,
            validation,
            force,
            print_preflight,
            cli_cell.ask,
            rolled_by,
        )
    except CellStoppedError as stopped:
        console.print(f"[yellow]Stopped: {escape(str(stopped))}[/]", soft_wrap=True)
        say(f"Next: {again}")
        raise SystemExit(3) from stopped
    except NotTrustedError as refused:
        if refused.behind_guard:
            say(f"Next: {command('gate')}   (needs a wrist that feels force), or --force")
        else:
            say(f"Next: {again} --force   (better with --guard alarm), or train on connectors that look more like it")
        raise SystemExit(3) from refused
    except PracticePaused as paused:
        console.print(f"[yellow]{escape(str(paused))}[/]", soft_wrap=True)
        say(f"Next: {again} --audit")
        raise SystemExit(3) from paused
    outcome = outcome_of(preset, run, [out], {})
    print_outcome(outcome)
    if keep:
        library, kept = demo.keep_stage(run, out)
        say(f"Kept {kept.trials} trials, {kept.successes} successes by their own labels: {library}")
        say(
            "  The robot gave these labels, but for those of an audit: what fooled its reward here is taught to "
            "the next one as success. Look at the report's trials first, or practise behind --guard"
        )
        if kept.left_out:
            say(f"{kept.left_out} refuted trials wait for a label: --audit, then --keep again")
        own, kept_in = (shlex.quote(str(path)) for path in (stages.store_path(run), library))
        say(f"Next: lotj data import {own} --run runs/next   and   lotj data import {kept_in} --run runs/next")
        return
    job = ["lotj", "insert", "--run", str(run), "--connector", connector, "--practised", str(out)]
    job += ["--cell", preset.robot] if is_own_cell(preset.robot) else []
    say(f"Next: lotj report --run {shlex.quote(str(run))}   or   {shlex.join(job)}")


def redteam(
    run: Path, trials: int = 40, seed: int = 0, rounds: int = 2, bound: float = 0.05, workers: int = CORES
) -> None:
    """Attack the reward on training connectors, train it anew on what that found, and choose by practising.

    Rewards of two halves of the training connectors are each practised against on the other half. The validation
    connectors are practised against the reward of before and the new one, and the run practises from then on with what
    pays more successes less failures. A round takes longer than the rest of the run.

    Example: ``lotj redteam --run runs/desk``

    Args:
        run: run folder with trained networks.
        trials: of each training connector.
        seed: of the halves and the attacks.
        rounds: at most; the next begins where more of the chosen reward's claims than ``bound`` may be false.
        bound: largest share of claims that may be false, at the upper end of its 95% interval.
        workers: processes.
    """
    from contextlib import ExitStack

    from lotj import stages
    from lotj.redteam import RedTeamConfig, red_team

    preset = load_preset(run)
    known = preset.split()
    stages.features_stage(preset, run, known, preset.practice, bar)
    config = RedTeamConfig(trials, seed, rounds, bound)
    with ExitStack() as bars:
        open_bars: dict[str, Any] = {}

        def told(stage: str, done: int, total: int) -> None:
            if stage not in open_bars:  # one bar at a time
                bars.close()
                open_bars.clear()
                open_bars[stage] = bars.enter_context(bar(stage))
            open_bars[stage](done, total)

        found = red_team(config, preset, run, known, stages.store_path(run), workers, told)
    claimed, false = (sum(getattr(a, side) for a in found.attacks) for side in ("claimed", "claimed_falsely"))
    fooled = len({attack.connector for attack in found.attacks if attack.claimed_falsely})
    say(f"{len(found.attacks)} attacks: {claimed} successes claimed, {false} of them false, on {fooled} connectors.")
    table = Table("reward", "trials", "true", "claimed", "false", title="Practised against on validation connectors")
    for one in found.candidates:
        chosen = ", chosen" * (one == found.chosen)
        table.add_row(one.name + chosen, *map(str, (one.trials, one.true, one.claimed, one.claimed_falsely)))
    console.print(table)
    if not found.chosen.claimed:
        say("It claimed no success at all, so nothing is known of it: practice on it will never be paid")
    elif not found.bounded:
        say(
            f"Up to {found.chosen.may_be_false:.0%} of its claims may be false (95%), more than --bound {bound:g}: "
            "practise with --guard gate or alarm, or let training know more such connectors"
        )
    say(f"Next: lotj practice --run {shlex.quote(str(run))} --connector {shlex.quote(str(preset.practise_on[0]))}")


SILENT = 0.05
"""Of all trials: a reward that claims fewer successes has hardly been a teacher."""


def print_preflight(answer: Mapping[str, Any]) -> None:
    """Go or no-go, why, and what the connector looks like."""
    if not answer["presses"]:
        return
    low, high = answer["interval"]
    silent = answer["go"] and answer["recall"] is not None and answer["recall"] < answer["config"]["recall"]
    if not answer["go"]:
        colour, word = "yellow", "Go behind the guard alone" if answer["behind_guard"] else "No-go"
    else:
        colour, word = ("yellow", "Go, but unsure") if silent else ("green", "Go")
    console.print(f"[{colour}]{word}:[/] {escape(answer['reason'])}", soft_wrap=True)
    recall = f", recall on validation connectors {answer['recall']:.0%}" if answer["recall"] is not None else ""
    say(f"  false successes on such states: {low:.0%} - {high:.0%} (95%){recall}")
    if silent:
        say("  a rule that finds so few successes hardly ever fires: this says little, and practice may never be paid")
    alike = ", ".join(f"{row['connector']} ({row['family']}, {row['distance']:.4f})" for row in answer["nearest"])
    say(f"  looks most like: {alike}")


def print_outcome(outcome: dict[str, Any]) -> None:
    table = Table(
        "connector", "recipe", "reward", "scenario", "before", "after", "p", "judged after", title="True success"
    )
    for row in outcome["practices"]:
        marked, name = row["reward"] + marks(row, "diagnostic"), row["connector"] + marks(row, "validation")
        marked += ", red-teamed" if row["red_teamed"] else ""
        marked += f", guard {row['guard']}" if row["guard"] != "off" else ""
        for scenario, counts in row["scenarios"].items():
            before, after = ("{}/{}".format(*counts[side]) for side in ("offline_true", "online_true"))
            judged = f"{counts['online_judged']}/{counts['online_true'][1]}"
            p_value = show_p(counts["p_value"])
            table.add_row(name, row["recipe"], marked, scenario, before, after, p_value, judged)
    console.print(table)
    for row in outcome["practices"]:
        done = row["practice"]["summary"]
        claimed, trials = done["predicted_successes"], done["trials"]
        if row["reward"] == "learned" and claimed < SILENT * trials:
            came = (
                "then practice has taught nothing, and the policy may be worse than before. Look at the last trials in "
                "the report before you use it"
                if done["updates"]
                else "nothing was learned from that, and the policy is what it was"
            )
            say(
                f"{row['connector']}: the robot claimed {claimed} successes in {trials} trials. Either it never got "
                f"the plug in, or its reward does not know success when it sees it; {came}"
            )
