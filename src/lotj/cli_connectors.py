"""The subcommands about connectors: the catalogue, more of them at random, and your own."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.markup import escape
from rich.table import Table

from lotj.console import bar, check_picture, console, say

if TYPE_CHECKING:
    from lotj.sim.connector import Connector


def connectors(
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
    family: str | None = None,
    picture: Path | None = None,
) -> None:
    """List the catalogue of connectors. Also: ``lotj connectors show``, ``new``, ``check``, ``generate``.

    Example: ``lotj connectors --family usb``

    Args:
        json_output: print a list of objects with name, family, variants, dimensions and sources.
        family: only this one.
        picture: write one of them all there, .png or .jpg.
    """
    from lotj.sim.connectors import load_catalogue, to_json, variants_of

    check_picture(picture)
    if json_output and picture is not None:
        raise ValueError("--json and --picture: expected one of them, got both; ask twice")
    chosen = [c for c in load_catalogue().values() if family in (None, c.family)]
    if not chosen:
        families = ", ".join(sorted({c.family for c in load_catalogue().values()}))
        raise ValueError(f"no family {family!r}; the catalogue has {families}")
    if json_output:
        sys.stdout.write(json.dumps([to_json(connector) for connector in chosen], indent=1) + "\n")
        return
    if picture is not None:
        from lotj.sim.sheet import contact_sheet

        contact_sheet(chosen, picture)
        say(f"Picture: {picture}")
        return
    table = Table("name", "title", "family", "depth", "close variants", title=f"{len(chosen)} connectors")
    for c in chosen:
        others = ", ".join(name for name in variants_of(c.name) if name != c.name)
        table.add_row(c.name, c.title, c.family, f"{c.insertion_depth * 1e3:.1f} mm", others)
    console.print(table)
    say("Next: lotj connectors show NAME, or lotj collect")


def generate(out: Path, count: int = 300, seed: int = 0, picture: Path | None = None) -> None:
    """Draw connectors at random from the catalogue's families, none close to a test connector; a file for each.

    Example: ``lotj connectors generate --count 300 --seed 0 --out generated``

    Args:
        out: folder of the TOML files.
        count: how many; a longer list begins with a shorter one.
        seed: of all draws.
        picture: write one of them all there, .png or .jpg.
    """
    from lotj.sim.generate import generate_connectors
    from lotj.sim.toml import save_connector

    check_picture(picture)
    with bar("draw connectors") as tick:
        drawn = generate_connectors(count, seed, tick)
    for connector in drawn:
        save_connector(connector, out)
    say(f"{len(drawn)} connectors of {len({connector.family for connector in drawn})} families: {out}")
    if picture is not None:
        from lotj.sim.sheet import contact_sheet

        contact_sheet(drawn, picture)
        say(f"Picture: {picture}")
    say(f"Next: lotj collect --run runs/generated desk --known {shlex.quote(str(out))}/gen-{seed}-*.toml")


def show(connector: tyro.conf.Positional[str], picture: Path | None = None) -> None:
    """Show one connector: dimensions with units and sources, family, close variants, and a picture.

    Example: ``lotj connectors show rj45 --picture rj45.png``

    Args:
        connector: a name of the catalogue or a TOML file.
        picture: write one of plug and socket there, .png or .jpg.
    """
    from lotj.sim.connectors import get_connector, variants_of

    check_picture(picture)
    chosen = get_connector(connector)
    say(f"{chosen.name}: {chosen.title}")
    others = ", ".join(name for name in variants_of(connector) if name != chosen.name) or "none in the catalogue"
    say(f"family {chosen.family}, group {chosen.group}; close variants: {others}")
    console.print(_dimensions(chosen))
    if picture is not None:
        _draw(chosen, picture)
    say(f"Next: {_check_command(connector)}")


def new(name: tyro.conf.Positional[str], out: Path, like: str | None = None) -> None:
    """Write a commented TOML file for a connector of your own; fill it in, then check it.

    Example: ``lotj connectors new bench-plug --like rj45 --out bench-plug.toml``

    Args:
        name: of the new connector: lower case letters, digits, dashes.
        out: the file to write; one that exists is left alone.
        like: start from this connector of the catalogue, or a TOML file.
    """
    from lotj.files import write_text
    from lotj.sim.connectors import get_connector, load_catalogue
    from lotj.sim.template import based_on, commented_toml, example

    if out.suffix != ".toml":
        raise ValueError(
            f"--out: got {out}, expected a name that ends in .toml; it goes wherever a connector's name goes"
        )
    if out.exists():
        raise ValueError(f"--out: {out} exists already; choose another file, or remove that one")
    if name in load_catalogue():
        raise ValueError(f"the name {name!r} is taken by the catalogue; choose another")
    made = example(name) if like is None else based_on(name, get_connector(like))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, commented_toml(made))
    say(f"Written: {out}   (edit it: every field is explained beside it)")
    say(f"Next: {_check_command(str(out))}")


def check(connector: tyro.conf.Positional[str], trials: int = 10, seed: int = 0, picture: Path | None = None) -> None:
    """Measure a connector and let the scripted expert try it; says what is wrong and where. Exit code 1 when unfit.

    Example: ``lotj connectors check bench-plug.toml``

    Args:
        connector: a TOML file, or a name of the catalogue.
        trials: of each kind: scenario I, scenario II, near misses.
        seed: of the start states.
        picture: where it goes, .png or .jpg; <name>.png beside the file (or here) by default.
    """
    from lotj.check import check as examine
    from lotj.sim.connectors import get_connector

    if seed < 0:
        raise ValueError(f"--seed {seed}: expected 0 or more")
    check_picture(picture)
    chosen = get_connector(connector)
    beside = Path(connector).with_suffix(".png") if connector.endswith(".toml") else Path(f"{chosen.name}.png")
    _draw(chosen, picture or beside)
    with bar("the scripted expert tries") as tick:
        found = examine(chosen, trials, seed, tick)
    play = ", ".join(f"{part} {1e3 * gap:.2f} mm" for part, gap in sorted(found.fit.play.items()))
    home_from = f"Slides home from {1e3 * found.fit.home_from:g} mm off."
    say(f"Play at each side: {play or 'more than 2 mm everywhere'}. {home_from}")
    table = Table("trials", "inserted", "missing when not (median)", "peak force (median)", "dislodged")
    for done in found.tried:
        kind = "near misses (none may succeed)" if done.kind == "near misses" else f"scenario {done.kind}"
        count, missing = f"{done.successes} of {done.trials}", f"{1e3 * done.short:.1f} mm" if done.short else ""
        table.add_row(kind, count, missing, f"{done.force:.1f} N", str(done.dislodged))
    console.print(table)
    for finding in found.findings:
        mark = "[red]unfit[/]" if finding.unfit else "[yellow]remark[/]"
        console.print(f"{mark}: {escape(finding.what)}. [dim]{escape(finding.remedy)}[/]", soft_wrap=True)
    if not found.usable:
        say(f"Next: mend what is marked unfit, then: {_check_command(connector)}")
        raise SystemExit(1)
    console.print("[green]fit to be practised[/]")
    say(f"Next: {shlex.join(['lotj', 'practice', '--run', 'runs/desk', '--connector', connector])}")


def _check_command(connector: str) -> str:
    return shlex.join(["lotj", "connectors", "check", connector])


def _draw(connector: Connector, out: Path) -> None:
    from lotj.sim.picture import draw_connector

    draw_connector(connector, out)
    say(f"Picture: {out}")


def _dimensions(connector: Connector) -> Table:
    """Every length in mm with its source."""

    def mm(*metres: float) -> str:
        return " x ".join(f"{1e3 * value:g}" for value in metres) + " mm"

    table = Table("what", "dimension", "source")
    derived = "follows from the above"
    rows = [
        ("insertion depth", mm(connector.insertion_depth), connector.sources["insertion_depth"]),
    ]
    if connector.mesh is not None:
        rows.append(("body", mm(*connector.body_size), connector.sources["body_size"]))
        for side, convex in zip(("plug", "socket"), connector.pieces()):
            rows.append((f"{side}'s mesh", f"{len(convex)} convex pieces", getattr(connector.mesh, side)))
    else:
        slope = f"{mm(connector.lead_in)} over {mm(connector.lead_in_length)}"
        rows += [
            ("body", mm(*connector.body_size, connector.body_height), connector.sources["body_size"]),
            ("clearance, each side", mm(connector.clearance), connector.sources["clearance"]),
            ("lead-in", slope, connector.sources["lead_in"]),
        ]
    for part in connector.parts:
        copies = part.repeat[0] * part.repeat[1]
        count = f"{copies} x " if copies > 1 else ""
        reach = "to the tip" if part.length is None else f"{mm(part.length)} long"
        if part.length is None and part.kind == "key":
            reach = "to 2 mm above the tip"
        place = ", ".join(f"{1e3 * value:g}" for value in part.position)
        detail = f"{count}{part.profile} {mm(*part.size)}, {reach}, at ({place})"
        rows.append((f"{part.kind} '{part.name}'", detail, part.source))
    rows.append(("plug, height", mm(round(connector.plug_height, 6)), derived))
    rows.append(("socket", mm(*(round(side, 6) for side in connector.socket_size)), derived))
    for row in rows:
        table.add_row(*map(escape, row))
    return table
