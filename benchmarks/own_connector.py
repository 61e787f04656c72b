"""Does a connector of one's own get as far as practice, and is a wrong one told why? -> results/own_connector.json.

Connectors of the catalogue are written as a user's TOML files (as `lotj connectors new --like` does), some of them also
as STL meshes made of their solids, and go through what `lotj connectors check` does. Then descriptions that are wrong
in one way each, from units to a plug that nothing holds: which are refused, and in which words.

    python benchmarks/own_connector.py
"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import trimesh

from lotj.check import check
from lotj.files import write_json
from lotj.provenance import provenance
from lotj.sim.connector import Connector
from lotj.sim.connectors import get_connector
from lotj.sim.geometry import plug_solids, socket_solids
from lotj.sim.parts import ConnectorError
from lotj.sim.sections import corners
from lotj.sim.template import based_on, commented_toml, example

DESCRIBED = ("rj45", "usb-b", "europlug", "hdmi-a", "bnc", "deutsch-dt-12", "iec-c13", "mega-block-1x1", "blade-fuse")
"""One of a family."""
MESHED = ("blade-fuse", "powerpole-45", "rj45")
"""Of these the solids are made into STL files."""
MESHED_TOML = """
family = "mine"

[[connector]]
name = "{name}-meshed"
title = "{name}, as meshes"
group = "{name}-meshed"
insertion_depth = {depth}
body_size = [{x}, {y}]
sources = {{ insertion_depth = "drawing", body_size = "drawing" }}

[connector.mesh]
plug = "{name}-plug.stl"
socket = "{name}-socket.stl"
"""


class Wrong(NamedTuple):
    """A change to a sound file, and what the answer must contain."""

    what: str
    old: str
    new: str
    expected: str
    """A regular expression."""


NOSE = "size = [0.02, 0.008]"
RIB = "position = [0.005, 0.0044]"
CLEARANCE, LEAD_IN = "# clearance = 0.0005", "# lead_in = 0.001"
PLUG, SOCKET = 'plug = "peg-plug.stl"', 'socket = "peg-socket.stl"'
SWAPPED = 'plug = "peg-socket.stl"\nsocket = "peg-plug.stl"'
WRONG_PARTS = (
    Wrong("negative clearance", CLEARANCE, "clearance = -0.0005", "'clearance': got -0.0005"),
    Wrong("a length in mm", CLEARANCE, "clearance = 0.5", "'clearance': got 0.5.*metres"),
    Wrong("depth in mm", "insertion_depth = 0.012", "insertion_depth = 12", "'insertion_depth': got 12.*metres"),
    Wrong("deeper than the robot reaches", "insertion_depth = 0.012", "insertion_depth = 0.03", "'insertion_depth'"),
    Wrong("a part outside of the body", RIB, "position = [0.012, 0.0044]", "'rib'.*sticks out of the body"),
    Wrong("a rib on nothing", RIB, "position = [0.005, 0.0054]", "'rib'.*overlap another part"),
    Wrong("a part longer than the depth", "corner = 0.001", "corner = 0.001\nlength = 0.013", "'nose'.*'length'"),
    Wrong("merging cavities", 'kind = "key"', 'kind = "pin"', "'rib'.*overlaps part 'nose'"),
    Wrong("a misspelt field", NOSE, f"{NOSE}\nlenght = 0.01", "'lenght'.*did you mean 'length'"),
    Wrong("no source", 'clearance = "modelling choice"\n', "", "'sources.clearance': missing"),
    Wrong("neither play nor slopes", LEAD_IN, "lead_in = 0.0\nclearance = 0.0002", "0.3 mm beside the axis.*stops"),
    Wrong(
        "parts too short to be held", "corner = 0.001", "corner = 0.001\nlength = 0.001", "no part is held by a cavity"
    ),
)
WRONG_MESHES = (
    Wrong("mm read as m", PLUG, f'{PLUG}\nunits = "m"', 'likely exported in units = "mm"'),
    Wrong("mm read as inches", PLUG, f'{PLUG}\nunits = "inch"', 'likely exported in units = "mm"'),
    Wrong("tip above its plane", PLUG, f"{PLUG}\nplug_translation = [0, 0, 0.005]", "lowest point.*expected 0"),
    Wrong("plug beside the axis", PLUG, f"{PLUG}\nplug_translation = [0.006, 0, 0]", "centred at"),
    Wrong("plug upside down", PLUG, f"{PLUG}\nplug_rotation = [180, 0, 0]", "lowest point"),
    Wrong("plug on its side", PLUG, f"{PLUG}\nplug_rotation = [90, 0, 0]", "lowest point|footprint"),
    Wrong("plug turned by 12 degrees", PLUG, f"{PLUG}\nplug_rotation = [0, 0, 12]", "inside the socket's"),
    Wrong("mouth too high", PLUG, f"{PLUG}\nsocket_translation = [0, 0, 0.003]", "expected the mouth"),
    Wrong("socket elsewhere", PLUG, f"{PLUG}\nsocket_translation = [0.05, 0, 0]", "not lie around the plug's axis"),
    Wrong("socket 1 mm beside", PLUG, f"{PLUG}\nsocket_translation = [0.001, 0, 0]", "inside the socket's"),
    Wrong("wrong depth", "insertion_depth = 0.012", "insertion_depth = 0.01", "expected the mouth"),
    Wrong("plug and socket swapped", f"{PLUG}\n{SOCKET}", SWAPPED, "look swapped"),
    Wrong("a socket without its hole", SOCKET, 'socket = "block.stl"', "no cavity to enter"),
    Wrong("an open surface", PLUG, 'plug = "open.stl"', "not watertight"),
    Wrong("surfaces in place of a body", PLUG, 'plug = "peg.step"', "STEP file.*export.*STL"),
    Wrong("a hole closed by decomposition", PLUG, f"{PLUG}\ndetail = 0.2", "the meshes themselves fit"),
    Wrong("a hole too narrow", SOCKET, 'socket = "narrow.stl"', "the meshes themselves overlap"),
    Wrong("a hole without play", SOCKET, 'socket = "tight.stl"', "mm of play beside"),
    Wrong("a hole too wide", SOCKET, 'socket = "wide.stl"', "no part is held by a cavity"),
    Wrong("a plug that reaches into the hand", PLUG, 'plug = "long.stl"', "the hand begins"),
)


def tried(path: Path, trials: int) -> dict[str, Any]:
    """What `lotj connectors check` says of a file, and how long it took."""
    started = time.perf_counter()
    row: dict[str, Any] = {"name": path.stem, "accepted": False}
    try:
        connector = get_connector(str(path))
        found = check(connector, trials)
    except ConnectorError as error:
        row["refused"] = str(error).replace(f"{path.parent}/", "")
        return row
    return {
        "name": connector.name,
        "accepted": found.usable,
        **{kind.kind: [kind.successes, kind.trials] for kind in found.tried},
        "clearance": None if connector.mesh else connector.clearance,
        "least_play": min(found.fit.play.values(), default=None),
        "slides_home_from": found.fit.home_from,
        "unfit": [f"{finding.what}; {finding.remedy}" for finding in found.findings if finding.unfit],
        "remarks": [finding.what for finding in found.findings if not finding.unfit],
        "seconds": round(time.perf_counter() - started, 1),
    }


def described(name: str, folder: Path) -> Path:
    """A file as ``lotj connectors new --like`` writes it."""
    path = folder / f"own-{name}.toml"
    path.write_text(commented_toml(based_on(path.stem, get_connector(name))), encoding="utf-8")
    return path


def meshed(name: str, folder: Path) -> Path:
    """The same plug and socket as STL files in mm, and the file that names them."""
    connector: Connector = get_connector(name)
    for side, solids in (("plug", plug_solids(connector)), ("socket", socket_solids(connector))):
        hulls = [trimesh.PointCloud(1e3 * corners(solid)).convex_hull for solid in solids if solid.collides]
        trimesh.boolean.union(hulls, engine="manifold").export(folder / f"{name}-{side}.stl")
    x, y = connector.body_size
    path = folder / f"{name}-meshed.toml"
    path.write_text(MESHED_TOML.format(name=name, depth=connector.insertion_depth, x=x, y=y), encoding="utf-8")
    return path


def box(low: tuple[float, ...], high: tuple[float, ...]) -> Any:
    return trimesh.creation.box(bounds=[low, high])


def hole(half: float) -> Any:
    """mm: a block with a square hole whose floor is below the tip."""
    return box((-16, -16, -10), (16, 16, 12)).difference(box((-half, -half, -0.75), (half, half, 13)))


def peg(folder: Path) -> Path:
    """The square peg of docs/your-connector.md, and beside it the spoilt files of `WRONG_MESHES`."""
    tip = [
        (x * (5 - cut), y * (5 - cut), z) for x in (-1, 1) for y in (-1, 1) for cut, z in ((1, 0), (0, 1.2), (0, 13))
    ]
    plug = trimesh.PointCloud(tip).convex_hull.union(box((-9, -9, 12), (9, 9, 32)))
    files = {"peg-plug": plug, "peg-socket": hole(5.5), "narrow": hole(4.9), "tight": hole(5.02), "wide": hole(9)}
    files |= {"long": plug.union(box((-9, -9, 31), (9, 9, 120))), "block": hole(5.5).convex_hull, "open": plug.copy()}
    files["open"].update_faces([face > 0 for face in range(len(plug.faces))])
    for name, mesh in files.items():
        mesh.export(folder / f"{name}.stl")
    path = folder / "peg-meshed.toml"
    path.write_text(MESHED_TOML.format(name="peg", depth=0.012, x=0.018, y=0.018), encoding="utf-8")
    return path


def answers(sound: str, wrong: tuple[Wrong, ...], folder: Path) -> list[dict[str, Any]]:
    """What is said of each wrong description; ``found`` if it is refused, ``named`` if in the words expected."""
    rows = []
    for case in wrong:
        if case.old not in sound:
            raise ValueError(f"{case.what}: {case.old!r} is not in the file that was to be spoilt")
        path = folder / "wrong.toml"
        path.write_text(sound.replace(case.old, case.new, 1), encoding="utf-8")
        said = tried(path, trials=1)
        messages = [said["refused"]] if "refused" in said else said["unfit"]
        named = bool(re.search(case.expected, " ".join(messages), re.DOTALL))
        rows.append({"what": case.what, "found": not said["accepted"], "named": named, "messages": messages})
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Check all sound ones, then all wrong ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10, help="of each kind")
    parser.add_argument("--out", type=Path, default=Path("results/own_connector.json"))
    arguments = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        rows = []
        for make, names in ((described, DESCRIBED), (meshed, MESHED)):
            for like in names:
                rows.append({"like": like, "as": make.__name__, **tried(make(like, folder), arguments.trials)})
                print(rows[-1], flush=True)
        pegged = peg(folder)
        rows.append({"like": "the walk-through's peg", "as": "meshed", **tried(pegged, arguments.trials)})
        print(rows[-1], flush=True)
        wrong = answers(commented_toml(example("wrong")), WRONG_PARTS, folder)
        wrong += answers(pegged.read_text(encoding="utf-8"), WRONG_MESHES, folder)
    counts = {key: sum(row[key] for row in wrong) for key in ("found", "named")}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    result = {**provenance(), "sound": rows, "wrong": wrong, "wrong_in_all": {"cases": len(wrong), **counts}}
    write_json(arguments.out, result)
    print(result["wrong_in_all"])


if __name__ == "__main__":
    main()
