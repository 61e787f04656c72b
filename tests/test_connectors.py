"""Laws of the catalogue: enough of it, every figure sourced, variants grouped, and a wrong file told what to mend."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from lotj.sim.connector import Connector
from lotj.sim.connectors import TEST_CONNECTORS, get_connector, load_catalogue, load_connector, to_json, variants_of
from lotj.sim.parts import ConnectorError, Part

GOOD = """
family = "mine"

[[connector]]
name = "two-pin"
title = "Two round pins"
group = "two-pin"
insertion_depth = 0.012
body_size = [0.030, 0.016]
sources = { insertion_depth = "sheet", body_size = "sheet", clearance = "modelling choice", lead_in = "effective" }

[[connector.part]]
name = "pin"
kind = "pin"
profile = "circle"
size = [0.004, 0.004]
repeat = [2, 1]
pitch = [0.019, 0.0]
source = "sheet"
"""


def read(tmp_path: Path, text: str) -> Connector:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return load_connector(path)


def test_catalogue_is_large_and_holds_the_test_connectors() -> None:
    """At least 56 connectors in 12 families, ten groups with two members or more, and the paper's four."""
    catalogue = load_catalogue()
    groups = [connector.group for connector in catalogue.values()]
    assert len(catalogue) >= 56
    assert len({connector.family for connector in catalogue.values()}) >= 12
    assert sum(groups.count(group) >= 2 for group in set(groups)) >= 10
    assert set(TEST_CONNECTORS) <= set(catalogue)
    assert all(len(variants_of(name)) >= 2 for name in TEST_CONNECTORS)
    assert load_catalogue() is catalogue


@pytest.mark.parametrize("name", sorted(load_catalogue()))
def test_every_figure_has_a_source_and_a_plausible_size(name: str) -> None:
    """Each dimension names its source; the plug is 15 to 25 mm (bricks and fuses 10) above a mouth 3 to 19 mm from the
    tip."""
    connector = load_catalogue()[name]
    data = to_json(connector)
    assert {"insertion_depth", "body_size", "clearance", "lead_in"} <= set(data["sources"])
    assert all(f"parts.{part.name}" in data["sources"] and part.source for part in connector.parts)
    assert 0.003 <= connector.insertion_depth <= 0.019
    assert 0.0004 <= connector.clearance <= 0.0006
    assert connector.plug_height - connector.insertion_depth == pytest.approx(connector.body_height)
    assert 0.010 <= connector.body_height <= 0.026
    assert all(0.012 < side < 0.09 for side in connector.socket_size)


def test_json_is_plain_data() -> None:
    """``to_json`` survives a round trip through JSON and lists a connector among its own variants."""
    for name in load_catalogue():
        data = to_json(get_connector(name))
        assert json.loads(json.dumps(data))["name"] == name
        assert name in data["variants"]
        assert {"title", "family", "group", "dimensions", "sources"} <= set(data)


def alike(a: Connector, b: Connector) -> bool:
    """Whether a's contacts, moved together, each find a contact of b of the same outline within 1 mm."""

    def contacts(connector: Connector) -> list[tuple[Part, np.ndarray]]:
        parts = [part for part in connector.parts if part.collides and part.kind in ("pin", "shell", "stud")]
        return [(part, np.array(centre)) for part in parts for centre in part.centres()]

    def same(first: Part, second: Part) -> bool:
        size = np.allclose(first.size, second.size, atol=0.001) and first.angle == second.angle
        return (first.kind, first.profile) == (second.kind, second.profile) and bool(size)

    ours, theirs = contacts(a), contacts(b)
    for part, centre in theirs:
        if same(ours[0][0], part):
            shift = centre - ours[0][1]
            if all(any(same(p, q) and np.all(np.abs(c + shift - d) < 0.001) for q, d in theirs) for p, c in ours):
                return True
    return False


def test_variants_share_a_group() -> None:
    """The grouping rule: within a family, a plug whose contacts match the other's within 1 mm (all, or all but an
    earth) is a variant."""
    for a, b in itertools.permutations(load_catalogue().values(), 2):
        if a.family == b.family and alike(a, b):
            assert a.group == b.group, (a.name, b.name)


def test_variants_are_symmetric() -> None:
    """A connector is its own variant, and its variants have the same variants."""
    for name in load_catalogue():
        assert name in variants_of(name)
        assert all(variants_of(other) == variants_of(name) for other in variants_of(name))


def test_unknown_names_answer_with_the_nearest() -> None:
    """A misspelt name is answered with the nearest one."""
    with pytest.raises(ConnectorError, match=r"nema-5-51.*did you mean 'nema-5-15'"):
        get_connector("nema-5-51")


def test_own_file_is_a_connector(tmp_path: Path) -> None:
    """A user's file of the same fields loads by path; its pins stand where ``repeat`` and ``pitch`` say; it is its own
    variant."""
    connector = read(tmp_path, GOOD)
    assert connector.parts[0].centres() == [(-0.0095, 0.0), (0.0095, 0.0)]
    assert get_connector(str(tmp_path / "mine.toml")) == connector
    assert variants_of(tmp_path / "mine.toml") == ("two-pin",)
    # Half along x: pin at 9.5 mm, radius 2, clearance 0.5, one pitch and 1 mm more; along y: radius, clearance, 8 mm of
    # block.
    assert connector.socket_size == pytest.approx((2 * 0.032, 2 * 0.0105, 0.012 + 0.01075))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("insertion_depth = 0.012", "insertion_depth = 12", r"'two-pin'.*'insertion_depth'.*got 12.*metres"),
        ("insertion_depth = 0.012", "insertion_depth = -0.012", r"'insertion_depth'.*got -0.012"),
        ("insertion_depth = 0.012", "insertion_depth = 0.021", r"'insertion_depth'.*got 0.021.*0.003 to 0.02 m"),
        ("insertion_depth = 0.012", 'insertion_depth = "deep"', r"'insertion_depth'.*got 'deep'.*a number"),
        ("insertion_depth = 0.012", "insertion_deph = 0.012", r"'insertion_deph'.*did you mean 'insertion_depth'"),
        ("insertion_depth = 0.012\n", "", r"'insertion_depth'.*missing"),
        ('clearance = "modelling choice", ', "", r"'sources.clearance'.*missing"),
        ('title = "Two round pins"', 'title = " "', r"'title'"),
        ('name = "two-pin"', 'name = "Two Pin"', r"'name'.*lower case"),
        ("group = ", 'body_colour = "blakc"\ngroup = ', r"'body_colour'.*'blakc'.*did you mean 'black'"),
        ("group = ", "clearance = 0.005\ngroup = ", r"'clearance'.*got 0.005"),
        ("group = ", 'like = "three-pin"\ngroup = ', r"'like'.*'three-pin'"),
        ("body_size = [0.030, 0.016]", "body_size = [0.018, 0.016]", r"part 'pin'.*'position'.*sticks out"),
        ("body_size = [0.030, 0.016]", "body_size = [0.030]", r"'body_size'.*two numbers"),
        ("pitch = [0.019, 0.0]", "pitch = [0.003, 0.0]", r"part 'pin'.*overlaps.*pitch"),
        ("pitch = [0.019, 0.0]", "pitch = [0.0046, 0.0]", r"part 'pin'.*'clearance'.*got 0.0005.*pitch"),
        ("pitch = [0.019, 0.0]", "", r"part 'pin'.*'pitch'"),
        ("size = [0.004, 0.004]", "size = [0.0, 0.004]", r"part 'pin'.*'size'.*got 0"),
        ("size = [0.004, 0.004]", "size = [0.004, 0.006]", r"part 'pin'.*'size'.*circle"),
        ('kind = "pin"', 'kind = "pim"', r"part 'pin'.*'kind'.*'pim'.*did you mean 'pin'"),
        ('kind = "pin"', 'kind = "shell"', r"part 'pin'.*'wall'"),
        ('kind = "pin"', 'kind = "stud"', r"part 'pin'.*'kind'.*open_socket|no part collides"),
        ('profile = "circle"', 'profile = "round"', r"part 'pin'.*'profile'.*'round'"),
        ('profile = "circle"', 'profile = "circle"\nlength = 0.02', r"part 'pin'.*'length'.*0.02.*insertion_depth"),
        ('source = "sheet"', "", r"part 'pin'.*'source'.*missing"),
        ('source = "sheet"', 'source = "sheet"\nwidth = 1', r"part 'pin'.*'width'.*unknown"),
        ("[[connector.part]]", "[connector.part]", r"'two-pin'.*'part'.*double the brackets"),
        ("[[connector]]", "[connector]", r"'connector'.*double the brackets"),
        ("sources = { ", 'sources = "x" # ', r"'two-pin'.*'sources'.*got 'x'.*a table"),
        ("[[connector]]", '[defaults]\nsources = "x"\n\n[[connector]]', r"'two-pin'.*'sources'.*got 'x'.*a table"),
        ("[[connector]]", '[defaults]\npart = [{ kind = "pin" }]\n\n[[connector]]', r"'part.name'.*missing"),
        ("[[connector]]", "defaults = 1\n\n[[connector]]", r"'defaults'.*got 1.*table"),
        ('name = "two-pin"', "name = []", r"connector '\[\]'.*'name'.*got \[\].*a text"),
        ('name = "two-pin"', 'name = "two-pin"\nlike = []', r"'two-pin'.*'like'.*got \[\]"),
        ('name = "pin"', "name = []", r"'part.name'.*got \[\].*a text"),
        ('family = "mine"', "", r"'family'.*missing"),
        ('family = "mine"', "family = mine", r"not valid TOML"),
    ],
)
def test_a_wrong_file_is_told_what_to_mend(tmp_path: Path, old: str, new: str, message: str) -> None:
    """Each defect is refused with the file, the connector or part, the field, the value and the remedy."""
    assert old in GOOD
    with pytest.raises(ConnectorError, match=r"(?s)mine\.toml.*" + f"(?:{message})"):
        read(tmp_path, GOOD.replace(old, new, 1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('family = "mine"\nconnector = [1]', r"'connector'.*got \[1\].*tables"),
        ('family = "mine"\n[[connector]]\nname = "a"\npart = [1]', r"'a'.*'part'.*got \[1\].*tables"),
        ('family = "mine"\n[[connector]]\nname = "a"\npart = 1', r"'a'.*'part'.*got 1.*tables"),
    ],
)
def test_what_is_no_table_is_told_so(tmp_path: Path, text: str, message: str) -> None:
    """Numbers where tables are expected are refused by name, never by a traceback."""
    with pytest.raises(ConnectorError, match=r"(?s)mine\.toml.*" + message):
        read(tmp_path, text)


def test_missing_file_and_two_connectors_are_refused(tmp_path: Path) -> None:
    """A path that is not there and a file with two connectors each say so."""
    with pytest.raises(ConnectorError, match=r"nowhere\.toml.*cannot be read"):
        get_connector("nowhere.toml")
    with pytest.raises(ConnectorError, match="exactly one"):
        read(tmp_path, GOOD + '\n[[connector]]\nname = "other"\nlike = "two-pin"\n')


def test_a_key_must_stand_on_a_flat_side(tmp_path: Path) -> None:
    """A key across a slanted side would be barred by the socket's own boxes, a key on nothing is not a key: both are
    refused."""
    key = '\n[[connector.part]]\nname = "rib"\nkind = "key"\nprofile = "rectangle"\nsource = "sheet"\n'
    with pytest.raises(ConnectorError, match=r"part 'rib'.*slanted side"):
        read(tmp_path, GOOD + key + "size = [0.002, 0.0015]\nposition = [0.0108, 0.0016]\n")
    with pytest.raises(ConnectorError, match=r"part 'rib'.*overlap"):
        read(tmp_path, GOOD + key + "size = [0.002, 0.002]\nposition = [0.0, 0.0]\n")
    # The pin's cavity is an octagon with flats of 2.07 mm; with its play a rib of 1 mm just fits there.
    read(tmp_path, GOOD + key + "size = [0.001, 0.002]\nposition = [0.0095, 0.0021]\n")
    for place in ("0.0101", "0.0089"):
        with pytest.raises(ConnectorError, match=r"part 'rib'.*slanted side"):
            read(tmp_path, GOOD + key + f"size = [0.001, 0.002]\nposition = [{place}, 0.0021]\n")


def test_a_thick_wall_must_leave_every_side_of_the_outline(tmp_path: Path) -> None:
    """Moved inwards by the wall, short sides vanish and the post inside would have no outline: refused."""
    shell = 'kind = "shell"\nprofile = "rectangle"\nsize = [0.008, 0.008]\nwall = {}\ncorner = 0.001'
    pin = 'kind = "pin"\nprofile = "circle"\nsize = [0.004, 0.004]'
    assert read(tmp_path, GOOD.replace(pin, shell.format(0.001))).parts[0].wall == 0.001
    with pytest.raises(ConnectorError, match=r"part 'pin'.*'wall'.*got 0.002.*shortest side.*'corner'"):
        read(tmp_path, GOOD.replace(pin, shell.format(0.002)))


def test_the_documented_example_loads(tmp_path: Path) -> None:
    """The example in docs/connectors.md is a valid file."""
    text = (Path(__file__).parents[1] / "docs" / "connectors.md").read_text(encoding="utf-8")
    example = text.split("```toml\n")[1].split("```")[0]
    assert [part.kind for part in read(tmp_path, example).parts] == ["pin", "key"]
