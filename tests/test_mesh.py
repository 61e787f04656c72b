"""Laws of meshed connectors: a peg made in the test goes where a described one goes, and a wrong mesh is told why."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lotj.check import check
from lotj.rollout import rollout
from lotj.sim.baselines import StraightDown
from lotj.sim.clearance import measure
from lotj.sim.connector import Connector
from lotj.sim.connectors import get_connector, to_json
from lotj.sim.env import InsertionEnv
from lotj.sim.geometry import plug_solids, socket_solids
from lotj.sim.mesh import CACHE, MeshFrame, meshes, pieces
from lotj.sim.parts import ConnectorError
from lotj.sim.sections import corners, cut
from lotj.sim.toml import to_toml

trimesh = pytest.importorskip("trimesh")
pytest.importorskip("coacd")
DEPTH, PLAY = 12.0, 0.5
TOML = """
family = "mine"

[[connector]]
name = "square-peg"
title = "Square peg"
group = "square-peg"
insertion_depth = 0.012
body_size = [0.018, 0.018]
sources = { insertion_depth = "drawing", body_size = "drawing" }

[connector.mesh]
plug = "plug.stl"
socket = "socket.obj"
"""


def box(low: tuple[float, ...], high: tuple[float, ...]) -> Any:
    return trimesh.creation.box(bounds=[low, high])


def peg(width: float = 10.0) -> Any:
    """mm: a square peg with a sloped tip under a square body."""
    half = width / 2
    sloped = [(x * (half - c), y * (half - c), z) for x in (-1, 1) for y in (-1, 1) for c, z in ((1, 0), (0, 1.2))]
    straight = [(x * half, y * half, DEPTH + 1) for x in (-1, 1) for y in (-1, 1)]
    return trimesh.PointCloud(sloped + straight).convex_hull.union(box((-9, -9, DEPTH), (9, 9, 32)))


def hole(width: float = 10.0 + 2 * PLAY) -> Any:
    """mm: a block with a square hole whose floor is below the tip."""
    half = width / 2
    return box((-16, -16, -10), (16, 16, DEPTH)).difference(box((-half, -half, -0.75), (half, half, DEPTH + 1)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of the good connector, decomposed once."""
    root = tmp_path_factory.mktemp("meshes")
    peg().export(root / "plug.stl")
    hole().export(root / "socket.obj")
    (root / "peg.toml").write_text(TOML)
    get_connector(str(root / "peg.toml")).pieces()
    return root


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """The good files with their cache, to be spoilt."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def load(root: Path, **changes: Any) -> Connector:
    """The connector with fields of its mesh table changed."""
    path = root / "changed.toml"
    path.write_text(TOML + "".join(f"{key} = {value}\n" for key, value in changes.items()))
    return get_connector(str(path))


def read(connector: Connector) -> tuple[Any, Any]:
    """Both meshes in their frames, not taken apart."""
    assert connector.mesh is not None
    return meshes(connector.mesh, MeshFrame(connector.insertion_depth, connector.body_size))


def test_the_expert_inserts_it_and_straight_down_does_not(folder: Path) -> None:
    """A meshed peg is used like any connector: inserted by the expert in both scenarios, at least 9 of 10, never
    beside the socket, and by no blind descent from 4 mm off and more."""
    connector = get_connector(str(folder / "peg.toml"))
    found = check(connector, trials=10)
    assert found.usable, found.findings
    assert {done.kind: done.successes >= 9 for done in found.tried} == {"I": True, "II": True, "near misses": False}
    assert found.tried[2].successes == 0
    env = InsertionEnv(connector, images=False, ground_truth=True)
    for seed, (x, y) in enumerate([(0.004, 0), (0, -0.005), (-0.006, 0.004), (0.008, 0.008)]):
        trial = rollout(env, StraightDown(), np.random.default_rng(0), seed=seed, options={"offset": (x, y, 0.008)})
        assert not trial.privileged["success"].any()
    env.close()


def test_pieces_are_the_meshes(folder: Path) -> None:
    """Cut halfway down, plug and socket are the squares that the meshes were made from (area within 1%), and their
    measured play is the play that was left."""
    connector = get_connector(str(folder / "peg.toml"))
    plug, socket = plug_solids(connector), socket_solids(connector)

    def area(solids: list[Any]) -> float:
        outlines = [found.outline.T for found in cut(solids, 2, 0.0061)]
        return sum(abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2 for x, y in outlines)

    assert area(plug) == pytest.approx(0.010**2, rel=0.01)
    assert area(socket) == pytest.approx(0.032**2 - 0.011**2, rel=0.01)
    assert np.concatenate([corners(solid) for solid in plug])[:, 2].min() == pytest.approx(0, abs=1e-6)
    fit = measure(connector)
    assert fit.play["plug"] == pytest.approx(PLAY * 1e-3, abs=3e-5)
    assert connector.plug_height == pytest.approx(0.032, abs=1e-6)
    assert connector.socket_size == pytest.approx((0.032, 0.032, 0.022), abs=1e-6)


def test_the_cache_is_used_and_gives_the_same_pieces(folder: Path, copy: Path) -> None:
    """Decomposed anew the pieces are the same bits; what is in the cache is taken from it."""
    first = get_connector(str(folder / "peg.toml")).pieces()
    shutil.rmtree(copy / CACHE)
    again = get_connector(str(copy / "peg.toml")).pieces()
    for ours, theirs in zip(first.socket + first.plug, again.socket + again.plug, strict=True):
        assert np.array_equal(ours, theirs)
    assert len(list((copy / CACHE).iterdir())) == 2
    marked = next((copy / CACHE).glob("plug-*"))
    np.savez(marked, piece_0=first.plug[0])
    pieces.cache_clear()
    assert [len(side) for side in get_connector(str(copy / "peg.toml")).pieces()] == [1, len(first.socket)]


def test_units_and_transforms_come_to_the_same(folder: Path, copy: Path) -> None:
    """A plug in inches, turned and moved, and brought back by the file's rotation and translation, is the same plug."""
    turned = peg()
    turned.apply_scale(1 / 25.4)
    turned.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, (1, 0, 0)))
    turned.apply_translation((0.2, 0, 0))
    turned.export(copy / "plug.stl")
    inches = hole()
    inches.apply_scale(1 / 25.4)
    inches.export(copy / "socket.obj")
    back = {"units": '"inch"', "plug_rotation": "[-90, 0, 0]", "plug_translation": "[-0.00508, 0, 0]"}
    for ours, theirs in zip(read(load(copy, **back)), read(get_connector(str(folder / "peg.toml")))):
        assert np.allclose(ours.bounds, theirs.bounds, atol=1e-6)
        assert ours.volume == pytest.approx(theirs.volume, rel=1e-4)
    # The tip is sloped and the body is not: upside down, the bounds alone would be the same.
    plug, _ = read(load(copy, **back))
    assert np.ptp(plug.vertices[plug.vertices[:, 2] < 0.001, 0]) == pytest.approx(0.008, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"units": '"m"'}, r"'mesh.units'.*units = \"m\".*plug.stl.*32000 mm.*likely.*units = \"mm\""),
        ({"units": '"inch"'}, r"'mesh.units'.*812.8 mm.*likely.*units = \"mm\""),
        ({"units": '"cm"'}, r"'mesh.units'.*'cm'.*one of mm, m, inch"),
        ({"plug_translation": "[0, 0, 0.005]"}, r"plug.stl.*lowest point.*5.00 mm, expected 0.*-0.00500"),
        ({"plug_translation": "[0.005, 0, 0]"}, r"plug.stl.*centred at \(5.00, 0.00\) mm.*\[-0.00500"),
        ({"plug_translation": "[0, 0, 5]"}, r"plug_translation.*got 5.*metres"),
        ({"plug_translation": "[0, 5]"}, r"plug_translation.*three numbers"),
        ({"socket_translation": "[0, 0, 0.003]"}, r"socket.obj.*top is at z = 15.00 mm.*mouth.*-0.00300"),
        ({"plug_rotation": "[180, 0, 0]"}, r"plug.stl.*lowest point.*-32.00 mm"),
        ({"detial": "0.02"}, r"'detial'.*did you mean 'detail'"),
    ],
)
def test_a_wrong_frame_is_named(folder: Path, tmp_path: Path, changes: dict[str, str], message: str) -> None:
    """Wrong units, a tip beside the origin, a mouth at another height: the message says what came, what was expected,
    and the figure that mends it."""
    for name in ("plug.stl", "socket.obj"):
        shutil.copy(folder / name, tmp_path)
    with pytest.raises(ConnectorError, match=message):
        load(tmp_path, **changes).pieces()


def test_a_tiny_mesh_was_in_metres(copy: Path) -> None:
    """0.02 mm of plug is a file in metres read as millimetres."""
    for make, name in ((peg, "plug.stl"), (hole, "socket.obj")):
        mesh = make()
        mesh.apply_scale(1e-3)
        mesh.export(copy / name)
    with pytest.raises(ConnectorError, match=r"0.032 mm long.*likely.*units = \"m\""):
        load(copy).pieces()
    assert read(load(copy, units='"m"'))[0].extents[2] == pytest.approx(0.032)


def test_wrong_files_are_named(copy: Path) -> None:
    """Swapped, missing, open, solid, unreadable and STEP files."""
    swapped = TOML.replace('plug = "plug.stl"', 'plug = "socket.obj"').replace(
        'socket = "socket.obj"\n', 'socket = "plug.stl"\n'
    )
    (copy / "swapped.toml").write_text(swapped)
    with pytest.raises(ConnectorError, match=r"socket.obj and .*plug.stl look swapped"):
        get_connector(str(copy / "swapped.toml")).pieces()
    for name, text in (("gone", "gone.stl"), ("step", "plug.STEP"), ("word", "plug.doc")):
        (copy / f"{name}.toml").write_text(TOML.replace("plug.stl", text))
    with pytest.raises(ConnectorError, match=r"'square-peg'.*'mesh.plug'.*gone.stl cannot be read \(No such file"):
        get_connector(str(copy / "gone.toml"))
    with pytest.raises(ConnectorError, match=r"STEP file.*export.*STL"):
        get_connector(str(copy / "step.toml"))
    with pytest.raises(ConnectorError, match=r"'.doc'.*expected one of .stl"):
        get_connector(str(copy / "word.toml"))
    (copy / "plug.stl").write_bytes(b"solid nothing")
    with pytest.raises(ConnectorError, match=r"plug.stl .*export it again"):
        get_connector(str(copy / "peg.toml")).pieces()
    shell = peg()
    shell.update_faces(np.arange(len(shell.faces)) > 0)
    shell.export(copy / "plug.stl")
    with pytest.raises(ConnectorError, match=r"plug.stl is not watertight \(3 edges"):
        get_connector(str(copy / "peg.toml")).pieces()
    peg().export(copy / "plug.stl")
    box((-16, -16, -10), (16, 16, DEPTH)).export(copy / "socket.obj")
    with pytest.raises(ConnectorError, match=r"socket.obj: it is convex"):
        get_connector(str(copy / "peg.toml")).pieces()


def test_bodies_that_touch_along_an_edge_are_told(copy: Path) -> None:
    """No hole is in such a file: four triangles meet at an edge, and the message counts these."""
    beside = [box((0, 0, 0), (9, 9, 32)), box((-9, -9, 0), (0, 0, 32))]
    trimesh.util.concatenate(beside).export(copy / "plug.stl")
    with pytest.raises(ConnectorError, match=r"not watertight \(0 edges .*, 1 to more than two\).*touch along an edge"):
        get_connector(str(copy / "peg.toml")).pieces()


@pytest.mark.parametrize(("above", "fits"), [(0.05, True), (0.2, False)])
def test_resting_higher_by_a_trifle_is_no_overlap(copy: Path, above: float, fits: bool) -> None:
    """A mouth that is mm above its plane lifts the plug by as much: told from 0.1 mm, while beside each other 0.02 mm
    are an overlap."""
    half = 5 + PLAY
    block = box((-16, -16, -10), (16, 16, DEPTH + above))
    block.difference(box((-half, -half, -0.75), (half, half, DEPTH + 1))).export(copy / "socket.obj")
    assert fits == (not [f for f in measure(load(copy)).findings if f.unfit])


def test_what_does_not_fit_is_measured(copy: Path) -> None:
    """A peg 0.3 mm too wide on each side: the overlap is found, and it is the meshes' own."""
    peg(11.6).export(copy / "plug.stl")
    found = [f for f in measure(load(copy)).findings if f.unfit]
    depth = re.search(r"part 'plug' is (0\.\d\d) mm inside the socket's 'socket'", found[0].what)
    assert depth is not None
    assert 0.29 < float(depth[1]) < 0.45  # across a corner, sqrt 2 times as much
    assert re.search(r"the meshes themselves overlap by about 0\.[23]\d mm", found[0].remedy)
    assert any("pressed down with 10 N on the axis" in finding.what for finding in found)


def test_a_decomposition_that_closes_the_hole_is_told_apart(copy: Path) -> None:
    """With all concavity allowed the socket is one block without its hole: the pieces overlap, the meshes do not."""
    found = [f for f in measure(load(copy, detail=0.2)).findings if f.unfit]
    assert "at full insertion" in found[0].what
    assert "the meshes themselves fit" in found[0].remedy
    assert "lower 'mesh.detail' (now 0.2)" in found[0].remedy


def test_meshes_and_parts_exclude_each_other(copy: Path) -> None:
    """A field that the meshes already say is refused rather than ignored, and a meshed connector is not written
    elsewhere, where its paths lead nowhere."""
    (copy / "both.toml").write_text(TOML.replace("body_size =", "clearance = 0.0004\nbody_size =", 1))
    with pytest.raises(ConnectorError, match=r"'clearance'.*meshes already say it"):
        get_connector(str(copy / "both.toml"))
    with pytest.raises(ConnectorError, match=r"copy its TOML file"):
        to_toml(get_connector(str(copy / "peg.toml")))


def test_a_missing_extra_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the packages a meshed connector is refused with the line that installs them."""
    connector = get_connector(str(folder / "peg.toml"))
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(ConnectorError, match=r"pip install -e '.\[mesh\]'"):
        read(connector)


def test_edited_meshes_are_another_connector(copy: Path) -> None:
    """The description holds the files' hash, so that a store notices a mesh that was edited."""
    before = get_connector(str(copy / "peg.toml"))
    assert before == get_connector(str(copy / "peg.toml"))
    told = to_json(before)["dimensions"]
    hole(11.2).export(copy / "socket.obj")
    after = get_connector(str(copy / "peg.toml"))
    assert before != after
    assert before.mesh is not None
    assert after.mesh is not None
    assert told["mesh"]["digest"] == before.mesh.digest != after.mesh.digest
    assert "clearance" not in told
