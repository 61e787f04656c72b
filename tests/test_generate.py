"""Laws of the connectors drawn at random: reproducible, sound, far from the test connectors, varied, insertable."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import test_geometry
from test_connectors import alike

from lotj import cli
from lotj.collect import CollectConfig, collect
from lotj.presets import PRESETS
from lotj.rollout import rollout
from lotj.sim import generate
from lotj.sim.baselines import StraightDown
from lotj.sim.connector import Connector
from lotj.sim.connectors import TEST_CONNECTORS, get_connector, load_catalogue, load_connector, variants_of
from lotj.sim.distance import TWIN, barred_from_training, distance, distance_to_test, protected
from lotj.sim.env import InsertionEnv
from lotj.sim.expert import Expert, ExpertConfig
from lotj.sim.generate import CLOSE, generate_connectors, generated_apart_from, templates
from lotj.sim.geometry import plug_solids, socket_solids
from lotj.sim.parts import COLOURS, Part
from lotj.sim.toml import save_connector, to_toml
from lotj.speed import Speed, estimate

CATALOGUE = load_catalogue()


@pytest.fixture(scope="module")
def drawn() -> list[Connector]:
    """A hundred connectors."""
    return generate_connectors(100, seed=0)


def contacts(connector: Connector) -> int:
    """Copies of all parts that the plug or a brick's plate carries into contact."""
    parts = [part for part in connector.parts if part.collides and part.kind in ("pin", "shell", "stud")]
    return sum(len(part.centres()) for part in parts)


# ---- distance --------------------------------------------------------------------------------------------------------


def test_distance_is_that_of_the_outlines() -> None:
    """Closed forms: pins 1 mm further apart are 1 mm away, a nose 1 mm wider half of that, a turned plug nothing."""
    plug, nose = CATALOGUE["europlug"], CATALOGUE["key-square"]
    pin, square = plug.parts[0], nose.parts[0]
    wider = replace(plug, parts=(replace(pin, pitch=(0.0196, 0.0)),))
    assert distance(plug, wider) == pytest.approx(0.001)
    assert distance(nose, replace(nose, parts=(replace(square, size=(0.007, 0.006)),))) == pytest.approx(0.0005)
    turned = replace(plug, body_size=(0.014, 0.035), parts=(replace(pin, repeat=(1, 2), pitch=(0.0, 0.0186)),))
    assert distance(plug, turned) == pytest.approx(0, abs=1e-12)
    one = replace(plug, parts=(replace(pin, repeat=(1, 1)),))
    assert distance(plug, one) == distance(one, plug) > 0.01


def test_distance_of_close_variants_is_small() -> None:
    """A connector is at 0 from itself; its variants are near, others are not; a plug without its earth pin is near."""
    for name in TEST_CONNECTORS:
        assert distance(CATALOGUE[name], CATALOGUE[name]) == 0
    near = [("nema-5-15", "nema-1-15"), ("europlug", "cee-7-17"), ("deutsch-dt-12", "deutsch-dt-12-keyed-c")]
    far = [("nema-5-15", "bs-1363"), ("europlug", "usb-a"), ("deutsch-dt-12", "deutsch-dt-8")]
    assert all(distance(CATALOGUE[a], CATALOGUE[b]) < 0.001 for a, b in near)
    assert all(distance(CATALOGUE[a], CATALOGUE[b]) > CLOSE for a, b in far)
    assert CLOSE < distance(CATALOGUE["mega-block-1x1"], CATALOGUE["lego-2x2"]) < np.inf
    assert distance(CATALOGUE["mega-block-1x1"], CATALOGUE["deutsch-dt-4"]) == np.inf


def test_the_margin_covers_the_grouping_rule() -> None:
    """Whatever the grouping rule of the catalogue calls alike is nearer than ``CLOSE``; but half of a double plug is
    not."""
    pairs = 0
    for a, b in itertools.permutations(CATALOGUE.values(), 2):
        if a.family == b.family and alike(a, b) and not contacts(a) == 1 < contacts(b):
            pairs += 1
            assert distance(a, b) < CLOSE, (a.name, b.name)
    assert pairs > 20


# ---- draws -----------------------------------------------------------------------------------------------------------


def test_a_draw_depends_on_seed_and_number_alone(drawn: list[Connector]) -> None:
    """The same seed draws the same, a longer list begins with a shorter one, another seed draws others."""
    assert generate_connectors(5, seed=0) == drawn[:5]
    others = generate_connectors(5, seed=1)
    assert all(a.parts != b.parts and a.name != b.name for a, b in zip(others, drawn))
    with pytest.raises(ValueError, match="negative"):
        generate_connectors(1, seed=-1)


def test_names_and_sources_tell_where_they_come_from(drawn: list[Connector]) -> None:
    """Seed, number and template; a group of its own; the family is the template's."""
    for number, connector in enumerate(drawn):
        assert connector.name == connector.group == f"gen-0-{number}"
        origin = connector.sources["body_size"]
        assert f"(seed 0, number {number})" in origin and origin[1:] == connector.title[1:]
        template = origin.split(" from ")[1].split(" and ")[0]
        assert connector.family == CATALOGUE[template].family
        assert {part.source for part in connector.parts} == {origin}


def test_no_template_is_a_test_connector() -> None:
    """Neither they nor their close variants are drawn from, and every family still has a template."""
    held_out = {variant for name in TEST_CONNECTORS for variant in variants_of(name)}
    assert {template.name for template in templates()} == set(CATALOGUE) - held_out
    assert {connector.name for connector in protected()} == held_out
    assert {template.family for template in templates()} == {connector.family for connector in CATALOGUE.values()}


def test_none_is_close_to_a_test_connector(drawn: list[Connector], monkeypatch: pytest.MonkeyPatch) -> None:
    """By the distance, and within a family by the catalogue's own grouping rule; without the margin some would be."""
    assert min(map(distance_to_test, drawn)) >= CLOSE
    for connector, other in itertools.product(drawn, protected()):
        if connector.family == other.family:
            assert not alike(connector, other) and not alike(other, connector), (connector.name, other.name)
    monkeypatch.setattr(generate, "CLOSE", 0.0)
    assert min(map(distance_to_test, generate_connectors(17, seed=0))) < CLOSE


def test_no_two_have_the_same_face(drawn: list[Connector]) -> None:
    """Names, sources and colours aside, each face differs from all others and from the catalogue's."""

    def face(connector: Connector) -> tuple[Part, ...]:
        return tuple(replace(part, name="part", source="none", colour="grey") for part in connector.parts)

    faces = {face(connector) for connector in drawn}
    assert len(faces) == len(drawn) and not faces & {face(connector) for connector in CATALOGUE.values()}


def test_they_are_varied(drawn: list[Connector]) -> None:
    """Every family, every colour on bodies, sockets and parts, every profile, one to four contacts, shallow and
    deep."""
    assert {connector.family for connector in drawn} == {connector.family for connector in CATALOGUE.values()}
    parts = [part for connector in drawn for part in connector.parts if part.collides and part.kind != "contact"]
    assert {connector.body_colour for connector in drawn} == set(COLOURS)
    assert {connector.socket_colour for connector in drawn} == set(COLOURS)
    assert {part.colour for part in parts} == set(COLOURS)
    assert {part.profile for part in parts} >= {"rectangle", "bevelled", "circle", "polygon", "trapezoid"}
    assert {part.kind for part in parts} == {"pin", "shell", "key", "stud"}
    assert {connector.body_shape for connector in drawn} == {"box", "cylinder"}
    assert {1, 2, 3, 4} <= set(map(contacts, drawn))
    depths = [connector.insertion_depth for connector in drawn]
    assert min(depths) < 0.005 and max(depths) > 0.018
    assert all(0.0004 <= connector.clearance <= 0.0006 for connector in drawn)


def test_they_are_as_simple_as_promised(drawn: list[Connector]) -> None:
    """Few pieces, a tip at z = 0, a body that the gripper reaches, a socket that fits the clamp."""
    for connector in drawn:
        plug, socket = plug_solids(connector), socket_solids(connector)
        assert sum(solid.collides for solid in plug) <= 20 and sum(solid.collides for solid in socket) <= 64
        low = min(solid.vertices[:, 2].min() for solid in plug if solid.vertices is not None)
        assert low == pytest.approx(0.0, abs=1e-9)
        assert connector.plug_height <= 0.045 and max(connector.socket_size) <= 0.09


@pytest.mark.parametrize("number", range(0, 100, 6))
def test_plug_and_socket_fit(drawn: list[Connector], number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalogue's laws of fit hold: at rest nothing overlaps, the play is the clearance, the lead-in catches."""
    name = drawn[number].name
    monkeypatch.setattr(test_geometry, "CATALOGUE", {name: drawn[number]})
    test_geometry.test_aligned_plug_rests_without_overlap(name)
    test_geometry.test_least_gap_is_the_clearance(name)
    test_geometry.test_shifted_plug_overlaps(name)
    test_geometry.test_lead_in_catches(name)


def test_a_funnel_in_another_cavity_is_not_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fills the slanted rim of a blade's cavity bars the nose beside it; half a millimetre further off it does
    not."""
    nose = Part("nose", "pin", "rectangle", (0.0222, 0.0154), "test", (-0.006, 0.0))
    blade = Part("blade", "pin", "trapezoid", (0.0092, 0.0028), "test", (0.0129, 0.0), narrow=0.0064)
    near = replace(CATALOGUE["iec-c13"], name="near", body_size=(0.046, 0.02), parts=(nose, blade))
    far = replace(near, name="far", parts=(nose, replace(blade, position=(0.0134, 0.0))))
    monkeypatch.setattr(test_geometry, "CATALOGUE", {"near": near, "far": far})
    for connector, clear in ((near, False), (far, True)):
        assert generate._sound(connector) == clear
        assert (test_geometry.gaps(connector.name, (0, 0, 0.0002), body=False) > connector.clearance - 2e-5) == clear


def test_the_expert_inserts_them_and_straight_down_does_not(drawn: list[Connector]) -> None:
    """Eight connectors, two trials each: the scripted expert never fails, straight down hardly ever succeeds."""
    lucky = 0
    for number in range(0, 96, 12):
        env = InsertionEnv(drawn[number], images=False, ground_truth=True)
        for seed in range(2):
            rng, scenario = np.random.default_rng(seed), {"scenario": ("I", "II")[seed]}
            expert = Expert(env, ExpertConfig(noise_probability=0.0))
            assert rollout(env, expert, rng, seed=seed, options=scenario, source="expert").terminated, number
            lucky += rollout(env, StraightDown(), rng, seed=seed + 10, source="straight-down").terminated
    assert lucky <= 2


# ---- files -----------------------------------------------------------------------------------------------------------


def test_twins_in_other_families_are_barred_from_training() -> None:
    """A banana plug of nearly the Europlug's pitch is barred with the Europlug, a far connector is not; so is every
    test connector and variant."""
    assert distance(CATALOGUE["banana-double"], CATALOGUE["europlug"]) < TWIN
    barred = barred_from_training()
    assert {"banana-double", *TEST_CONNECTORS, *(connector.name for connector in protected())} <= barred
    assert "usb-c" not in barred and len(barred) < len(CATALOGUE) / 3
    assert all(distance_to_test(CATALOGUE[name]) >= TWIN for name in CATALOGUE if name not in barred)


def test_a_file_reads_back_equal(drawn: list[Connector], tmp_path: Path) -> None:
    """Drawn ones and the catalogue's, and one whose texts need escapes; names are the files'."""
    odd = replace(drawn[0], name="odd", title='tab\t, "quotes", \\ and \x7f, \u00e9 and \U0001f50c')
    for connector in [*drawn, *CATALOGUE.values(), odd]:
        path = save_connector(connector, tmp_path / "new")
        assert path.name == f"{connector.name}.toml"
        assert load_connector(path) == connector
    assert "wall" not in to_toml(CATALOGUE["usb-c"]) and "wall" in to_toml(CATALOGUE["usb-a"])


def test_the_command_writes_files_that_a_collection_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``lotj connectors generate`` writes one file a connector and a sheet, and names the next command; presets and
    collections know the files by path."""
    folder, sheet = tmp_path / "generated", tmp_path / "sheet.png"
    cli.main(["connectors", "generate", "--count", "3", "--seed", "4", "--out", str(folder), "--picture", str(sheet)])
    told = capsys.readouterr().out
    assert f"lotj collect --run runs/generated desk --known {folder}/gen-4-*.toml" in told and sheet.exists()
    paths = tuple(str(path) for path in sorted(folder.glob("*.toml")))
    assert [get_connector(path) for path in paths] == generate_connectors(3, seed=4)
    preset = replace(PRESETS["debug"], known=paths, validation=1)
    assert preset.split().train == ("gen-4-0", "gen-4-1") and preset.split().validation == ("gen-4-2",)
    speed = Speed(10.0, 1000.0, 2600.0)
    named, all_ = (estimate(one, speed, 2).minutes["collect"] for one in (preset, PRESETS["debug"]))
    assert named < all_
    config = CollectConfig(connectors=paths[:1], trajectories=1, image_size=32)
    assert preset.collect().connectors == paths
    assert collect(config, tmp_path / "data.sqlite", workers=1).trajectories == 1


def test_generated_connectors_are_found_in_one_order() -> None:
    """Fewer are the first of more, none is none, and a search that cannot end is given up with what to do."""
    away = [CATALOGUE[name] for name in ("usb-a", "rj45", "schuko")]
    assert generated_apart_from(away, 3, 0) == generated_apart_from(away, 6, 0)[:3]
    assert generated_apart_from(away, 0, 0) == ()
    with pytest.raises(ValueError, match=r"50 connectors generated with seed 0, 0 are 3 mm away.*another generator"):
        generated_apart_from([get_connector(f"gen-0-{number}") for number in range(50)], 1, 0)


def test_one_family_is_generated_beyond_what_is_known() -> None:
    """The generator's own connectors of that family in its own order, without those that were found before."""
    away = [CATALOGUE["usb-a"]]
    before = generated_apart_from(away, 20, 0)
    more = generated_apart_from(away, 3, 0, "bricks", beyond=before)
    bricks = [connector.name for connector in generate_connectors(100, seed=0) if connector.family == "bricks"]
    known = [name for name in before if name in bricks]
    assert len(known) == 2 and [*known, *more] == bricks[:5]
    usb = generated_apart_from(away, 3, 0, "usb")
    assert all(distance(get_connector(name), away[0]) >= CLOSE and get_connector(name).family == "usb" for name in usb)
    known = [f"gen-0-{17 * number}" for number in range(60)]
    assert generated_apart_from(away, 1, 0, "bricks", beyond=known) == (f"gen-0-{17 * 60}",)
    with pytest.raises(ValueError, match=r"Preset.generated_more .* got -1"):
        replace(PRESETS["debug"], generated_more=-1)
    with pytest.raises(ValueError, match=r"no family 'lego' to generate.*bricks"):
        generated_apart_from(away, 1, 0, "lego")


def test_a_preset_knows_generated_connectors_beside_its_own() -> None:
    """They are trained on and collected, away from the validation connectors; the rest of the split stays as it was."""
    plain = PRESETS["debug"]
    preset, before = replace(plain, generated=1, generated_more=2), plain.split()
    known = preset.split()
    assert known.validation == before.validation and known.train[:-3] == before.train
    assert preset.collect().connectors == (*plain.collect().connectors, *known.train[-3:])
    away = [get_connector(name) for name in known.validation]
    assert all(distance(get_connector(name), other) >= CLOSE for name in known.train[-3:] for other in away)
    assert {get_connector(name).family for name in known.train[-2:]} == {"bricks"}


def test_who_names_the_known_connectors_knows_no_others(tmp_path: Path) -> None:
    """``desk`` makes none of its own beside named ones, among them generated, described or imported ones."""
    save_connector(replace(generate_connectors(1, seed=0)[0], name="mine", group="mine"), tmp_path)
    named = ("usb-a", "rj45", "gen-0-0", str(tmp_path / "mine.toml"))
    preset = replace(PRESETS["desk"], known=named, validation=1)
    known = preset.split()
    assert sorted((*known.train, *known.validation)) == sorted(("usb-a", "rj45", "gen-0-0", "mine"))
    assert sorted(preset.collect().connectors) == sorted(named)
    elsewhere = replace(PRESETS["desk"], connectors=0, imported=("a", "b", "c"), validation=1)
    assert sorted((*elsewhere.split().train, *elsewhere.split().validation)) == ["a", "b", "c"]
