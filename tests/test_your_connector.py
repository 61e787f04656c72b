"""Laws of the path to one's own connector: the file to fill in, and the picture's measured sections."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lotj import cli
from lotj.sim import profiles
from lotj.sim.clearance import measure
from lotj.sim.connector import Connector
from lotj.sim.connectors import get_connector, load_catalogue, load_connector
from lotj.sim.geometry import plug_solids, socket_solids
from lotj.sim.mesh import MeshPair
from lotj.sim.parts import Part
from lotj.sim.sections import cut
from lotj.sim.template import based_on, commented_toml, example


def written(connector: Connector, folder: Path) -> Connector:
    path = folder / "mine.toml"
    path.write_text(commented_toml(connector), encoding="utf-8")
    return load_connector(path)


@pytest.mark.parametrize("name", ["rj45", "europlug", "mega-block-1x1", "hdmi-a", "deutsch-dt-12"])
def test_a_template_loads_as_it_stands(name: str, tmp_path: Path) -> None:
    """The commented file of a connector like one of the catalogue reads back equal, in a group of its own, with the
    catalogue's geometry and figures that say whence they come."""
    made = based_on("my-own", load_catalogue()[name])
    assert written(made, tmp_path) == made
    assert made.group == "my-own"
    ours, theirs = plug_solids(made), plug_solids(load_catalogue()[name])
    assert all(np.array_equal(a.position, b.position) for a, b in zip(ours, theirs, strict=True))
    assert all(text.startswith(f"as {name}: ") for text in made.sources.values())


def test_every_field_is_explained(tmp_path: Path) -> None:
    """The example loads as it stands, and its file has a line with a remark for every field there is."""
    assert written(example("bench-plug"), tmp_path) == example("bench-plug")
    text = commented_toml(example("bench-plug"))
    names = {f.name for cls in (Connector, Part, MeshPair) for f in fields(cls)}
    for field in names - {"parts", "sources", "mesh", "digest"}:
        explained = [line for line in text.splitlines() if line.removeprefix("# ").startswith(f"{field} = ")]
        assert explained, field
        assert "  # " in explained[0], field


def test_new_leaves_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``new`` writes a file that ``show`` reads; asked again, or for a name that is taken, it refuses and says why."""
    out = tmp_path / "plug.toml"
    cli.main(["connectors", "new", "my-plug", "--like", "usb-a", "--out", str(out)])
    before = out.read_bytes()
    assert get_connector(str(out)).parts[0].size == load_catalogue()["usb-a"].parts[0].size
    assert f"lotj connectors check {out}" in capsys.readouterr().out.replace("\n", "")
    for arguments, complaint in (
        (["my-plug", "--out", str(out)], "exists already"),
        (["rj45", "--out", str(tmp_path / "x.toml")], "taken by the catalogue"),
        (["My Plug", "--out", str(tmp_path / "x.toml")], "lower case"),
        (["my-plug", "--out", str(tmp_path / "x.txt")], ".toml"),
        (["my-plug", "--like", "rj54", "--out", str(tmp_path / "x.toml")], "did you mean 'rj45'"),
    ):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["connectors", "new", *arguments])
        assert stopped.value.code == 2
        assert complaint in capsys.readouterr().err
    assert out.read_bytes() == before
    assert not (tmp_path / "x.toml").exists()


def test_show_tells_dimensions_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every part is listed with its dimensions in mm and its source, and the picture is a small PNG of four panels."""
    picture = tmp_path / "rj45.png"
    cli.main(["connectors", "show", "rj45", "--picture", str(picture)])
    told = capsys.readouterr().out
    for expected in ("14.5 mm", "11.7 x 6.6 mm", "IEC 60603-7", "rj45-shielded", "family modular", "pin 'nose'"):
        assert expected in told
    assert picture.stat().st_size < 150_000
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert image.size == (880, 696)
        shades = np.asarray(image.convert("L")).reshape(2, 348, 2, 440)
        assert all(np.ptp(shades[i, :, j]) > 100 for i in (0, 1) for j in (0, 1))


@pytest.mark.parametrize(
    "command",
    [
        "connectors",
        "connectors generate --count 1 --out generated",
        "connectors show rj45",
        "connectors check rj45",
        "data validate store.sqlite",
    ],
)
def test_a_picture_is_named_like_one(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture that could not be written is refused before anything else is done."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        cli.main([*command.split(), "--picture", "rj45.gif"])
    said = capsys.readouterr()
    assert exit_.value.code == 2 and "--picture rj45.gif: expected a name that ends in .png, .jpg, .jpeg" in said.err
    assert not said.out and not list(tmp_path.iterdir())


def test_a_picture_is_what_its_name_says(tmp_path: Path) -> None:
    """A name that ends in .jpg gets a JPEG."""
    cli.main(["connectors", "show", "rj45", "--picture", str(tmp_path / "rj45.jpg")])
    with Image.open(tmp_path / "rj45.jpg") as image:
        assert image.format == "JPEG"


def area(outline: np.ndarray) -> float:
    x, y = outline.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def test_sections_are_the_outlines_that_were_described() -> None:
    """Cut across halfway down, RJ45's nose is its rectangle; and within the socket's block, what the boxes leave free
    is the cavity: nose and latch, each with the clearance around."""
    connector = load_catalogue()["rj45"]
    nose = next(part for part in connector.parts if part.name == "nose")
    cuts = {found.solid.name: found.outline for found in cut(plug_solids(connector), 2, connector.insertion_depth / 2)}
    assert area(cuts["nose"]) == pytest.approx(area(nose.envelope()), rel=1e-6)
    wide = np.ptp(profiles.place(nose.envelope()), axis=0)
    assert np.ptp(cuts["nose"], axis=0) == pytest.approx(wide, abs=1e-9)
    boxes = [found.outline for found in cut(socket_solids(connector), 2, 0.003) if found.solid.collides]
    x, y, _ = connector.socket_size
    room = [profiles.offset(p.envelope(), connector.clearance) for p in connector.parts if p.has_cavity]
    placed = [profiles.place(r, p.position) for r, p in zip(room, [p for p in connector.parts if p.has_cavity])]
    shared_low = np.max([outline.min(axis=0) for outline in placed], axis=0)
    shared_high = np.min([outline.max(axis=0) for outline in placed], axis=0)
    union = sum(map(area, placed)) - float(np.prod(shared_high - shared_low))
    assert x * y - sum(map(area, boxes)) == pytest.approx(union, rel=0.02)


def test_a_plane_beside_a_solid_cuts_nothing() -> None:
    """Above the plug and below the socket there is nothing to cut."""
    connector = load_catalogue()["rj45"]
    assert cut(plug_solids(connector), 2, connector.plug_height + 1e-6) == []
    assert cut(socket_solids(connector), 2, -0.02) == []


def checked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code of ``lotj connectors check`` and what it said, in one line."""
    code = 0
    try:
        cli.main(["connectors", "check", *arguments])
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    told = capsys.readouterr()
    return code, " ".join((told.out + told.err).split())


def test_a_fit_connector_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The example, as it stands, is inserted in both scenarios and never beside the socket; the picture lies beside
    the file and the next command is told."""
    cli.main(["connectors", "new", "mine", "--out", str(tmp_path / "mine.toml")])
    code, told = checked(capsys, str(tmp_path / "mine.toml"), "--trials", "4")
    assert code == 0
    assert told.count("4 of 4") == 2
    assert told.count("0 of 4") == 1
    assert "nose 0.50 mm" in told
    assert "lotj practice --run runs/desk --connector" in told
    assert (tmp_path / "mine.png").exists()


def test_an_unfit_connector_is_told_which_part_and_how_far(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A nose of 1 mm in a connector 12 mm deep holds nothing: full depth is reached beside the socket. The check names
    the part and the millimetres and fails."""
    file = tmp_path / "mine.toml"
    cli.main(["connectors", "new", "mine", "--out", str(file)])
    text = file.read_text()
    stub = text.replace("corner = 0.001", "length = 0.001\ncorner = 0.001").replace("# length = ...", "#")
    file.write_text(stub.replace("position = [0.005, 0.0044]", "length = 0.001\nposition = [0.005, 0.0044]"))
    code, told = checked(capsys, str(file), "--trials", "3")
    assert code == 1
    assert "part 'nose' enters its cavity by only 1.0 mm" in told
    assert "the plug still reaches full depth" in told
    assert "fit to be practised" not in told


@pytest.mark.parametrize("name", ["hdmi-a", "mega-block-1x1", "nema-5-15", "deutsch-dt-12"])
def test_the_catalogue_measures_as_described(name: str) -> None:
    """Play beside every part is the clearance (within the boxes' 0.02 mm), nothing is unfit, and the lead-in catches
    from 0.8 mm."""
    connector = load_catalogue()[name]
    fit = measure(connector)
    assert min(fit.play.values()) == pytest.approx(connector.clearance, abs=2e-5)
    assert not [finding for finding in fit.findings if finding.unfit]
    assert fit.home_from == pytest.approx(0.0008)
