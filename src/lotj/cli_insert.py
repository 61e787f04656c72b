"""`lotj insert`: the job itself."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lotj.console import console, say


def insert(
    run: Path,
    connector: str,
    practised: Path | None = None,
    attempts: int = 3,
    cell: Path | None = None,
    scenario: Literal["I", "II"] | None = None,
    seed: int = 0,
    film: Path | None = None,
) -> None:
    """Insert a connector with what was learned: no exploring, and the robot's own reward says when it is in.

    Needs no ground truth. A cell of one's own is left with the plug in the socket and still held; else it goes up.
    Exit code 1 where the plug is not in. Example: ``lotj insert --run runs/desk --connector europlug``

    Args:
        run: run folder with trained networks.
        connector: a name of the catalogue or a TOML file; in a cell of one's own the name that was practised.
        practised: folder of a finished practice of this run; by default the only one of this connector with the
            robot's own reward, or where there is none the offline policy.
        attempts: at most, each from the cell's start.
        cell: a cell of your own; the run's own by default.
        scenario: in the simulator and cells that honour it, where attempts start.
        seed: of the starts, where the cell draws them.
        film: also write what the robot saw, and what its reward model thought of it: a file .mp4 or .webp.
    """
    import torch

    from lotj.cells.opening import identify, open_cell
    from lotj.learned import Attempt, load_learned, practice_of
    from lotj.learned import insert as attempt
    from lotj.presets import load_preset
    from lotj.report.video import MIME

    if film is not None and film.suffix not in MIME:
        raise ValueError(f"--film {film}: expected a name that ends in {' or '.join(MIME)}")
    preset = load_preset(run)
    torch.set_num_threads(preset.threads)
    robot = preset.robot if cell is None else str(cell)
    name = identify(connector, robot).name
    chosen = practised or practice_of(run, name)
    learned = load_learned(run, chosen)
    say(f"{name}: no practice of it in {run}, the offline policy acts" if chosen is None else f"{name}: {chosen}")
    if learned.about["diagnostic"]:
        console.print("[yellow]Diagnostic: this policy practised with ground truth as the reward.[/]")

    def told(made: Attempt) -> None:
        trial = made.trajectory
        word = "in" if made.inserted else "not in"
        if trial.terminated and not made.inserted:
            word += ", too much force at the end"
        if bool(trial.privileged.get("dislodged", [False])[-1]):
            word += ", the plug slipped in the fingers"
        truth = trial.privileged.get("success")
        knows = "" if truth is None else f"; the cell itself says {'in' if truth[-1] else 'not in'}"
        say(f"  {len(trial)} steps, probability of success up to {made.probability:.2f}: {word}{knows}")

    options = None if scenario is None else {"scenario": scenario}
    with open_cell(
        connector,
        robot,
        scenario,
        image_size=preset.image_size,
        cameras=preset.cameras,
        purpose="practise",
        stop_file=run / "STOP",
    ) as env:
        made = attempt(env, learned, attempts, seed, options, told)
    if film is not None:
        from lotj.report.video import trajectory_video

        trials = [one.trajectory for one in made]
        seen = [learned.offline.reward.probability(trial.image) for trial in trials]
        trajectory_video(trials, seen, film, threshold=learned.offline.rule.threshold)
        say(f"Film: {film}")
    if made[-1].inserted:
        say(f"Inserted, attempt {len(made)} of {attempts} at most")
        return
    say(f"Not inserted in {len(made)} attempts. Next: lotj practice --run {run} --connector {connector}")
    raise SystemExit(1)
