"""The reward model over the number of training connectors: nested sets, a fixed total, Table IV's held-out ones."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_experiments import a_result

from lotj import cli_tables
from lotj.collect import CollectConfig, collect
from lotj.data.store import TrajectoryStore
from lotj.experiments import reward_runs
from lotj.experiments.render import draw_pictures, stale_tables
from lotj.experiments.reward_connectors import RewardConnectorsConfig, demand, is_generated
from lotj.experiments.reward_curve import NO_RESULTS, PICTURE, connectors_table, points
from lotj.experiments.reward_runs import RewardTableConfig, count_training, draw_connectors, drawable_connectors
from lotj.presets import PRESETS
from lotj.sim.connectors import get_connector
from lotj.sim.distance import barred_from_training, distance, distance_to_test, protected
from lotj.sim.generate import CLOSE, generate_connector
from lotj.sim.parts import ConnectorError

CONFIG = RewardConnectorsConfig(sizes=(4, 10, 25, 50, 70), generated_sizes=(10,), total=700, seeds=(0, 1))
"""Some generated connectors are needed beyond the catalogue, few of them."""


@pytest.fixture(scope="module")
def cases() -> list[reward_runs.RewardCase]:
    return CONFIG.cases()


# ---- sets ------------------------------------------------------------------------------------------------------------


def test_a_generated_name_is_the_same_connector_twice() -> None:
    """Its name is all that is needed; what is no such name is answered as before."""
    assert get_connector("gen-0-3") == get_connector("gen-0-3") == generate_connector(0, 3)
    assert get_connector("gen-7-0").name == "gen-7-0"
    for wrong in ("gen-0", "gen-0-03", "gen-0--3", "gen-a-1"):
        with pytest.raises(ConnectorError, match=f"unknown connector '{wrong}'.*gen-<seed>-<i>"):
            get_connector(wrong)


def test_a_smaller_training_set_is_the_beginning_of_a_larger(cases: list[reward_runs.RewardCase]) -> None:
    """Prefixes of one list for each draw: first all that the catalogue has left, then generated ones alone."""
    for seed in CONFIG.seeds:
        own = {case.method: case.draw.train for case in cases if case.seed == seed}
        longest = own["70"]
        for size in CONFIG.sizes:
            assert own[str(size)] == longest[:size] and len(set(own[str(size)])) == size
        left = draw_connectors(seed, None, CONFIG.validation, CONFIG.held_out).train
        assert longest[: len(left)] == left and 50 < len(left) < 70
        assert not any(map(is_generated, left)) and all(map(is_generated, longest[len(left) :]))
        assert len(own["10-generated"]) == 10 and all(map(is_generated, own["10-generated"]))
        assert own["10-generated"][: 70 - len(left)] == longest[len(left) :][:10]


def test_scored_connectors_are_those_of_table_iv(cases: list[reward_runs.RewardCase]) -> None:
    """Held-out and validation connectors are Table IV's, in its order; with its 25, so are the training connectors."""
    table = {case.seed: case.draw for case in RewardTableConfig(methods=("daib",), seeds=CONFIG.seeds).cases()}
    for case in cases:
        assert case.draw.held_out == table[case.seed].held_out
        assert case.draw.validation == table[case.seed].validation
        if case.method == "25":
            assert case.draw == table[case.seed]


def test_nothing_barred_and_no_kin_on_two_sides(cases: list[reward_runs.RewardCase]) -> None:
    """No test connector, variant or twin on any side; no group on two sides; generated faces are far from all that is
    scored or validated on, and without that rule some would not be."""
    barred = barred_from_training()
    kin = {connector.group for connector in protected()}
    for case in cases:
        sides = [case.draw.train, case.draw.validation, case.draw.held_out]
        groups = [{get_connector(name).group for name in side} for side in sides]
        assert not barred & {name for side in sides for name in side} and not kin & set().union(*groups)
        assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
        scored = [get_connector(name) for side in sides[1:] for name in side]
        for generated in map(get_connector, filter(is_generated, case.draw.train)):
            assert min(distance(generated, other) for other in scored) >= CLOSE <= distance_to_test(generated)
    first = [get_connector(f"gen-0-{number}") for number in range(10)]
    scored = [get_connector(name) for name in cases[0].draw.held_out]
    assert any(distance(generated, other) < CLOSE for generated in first for other in scored)


# ---- amounts ---------------------------------------------------------------------------------------------------------


def test_the_total_is_fixed() -> None:
    """Within 1% for every default size and control; a total that does not divide is refused with one that does."""
    config = RewardConnectorsConfig()
    for size in (*config.sizes, *config.generated_sizes):
        assert abs(size * config.trajectories(size) - config.total) <= 0.01 * config.total
    with pytest.raises(
        ValueError, match=r"1000 trajectories over 300 connectors \(sizes\) are 3 each, 900.*such as 900"
    ):
        RewardConnectorsConfig(total=1000)
    with pytest.raises(ValueError, match=r"20 connectors \(sizes\) are 0 each"):
        RewardConnectorsConfig(sizes=(20,), generated_sizes=(), total=5)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("sizes", (), "sizes is empty"),
        ("sizes", (1,), "got 1, expected at least 2"),
        ("generated_sizes", (0,), "got 0, expected at least 2"),
        ("method", "dabi", "did you mean 'daib'"),
        ("validation", 0, "validation must be at least 1"),
        ("held_out", 0, "held_out must be at least 1"),
        ("spare", -0.1, "cannot be negative, got -0.1"),
        ("generator_seed", -1, "cannot be negative"),
    ],
)
def test_what_makes_no_sense_is_refused(field: str, value: Any, message: str) -> None:
    """By the field's name, with what came."""
    with pytest.raises(ValueError, match=message):
        RewardConnectorsConfig(**{field: value})


def test_every_connector_is_collected_as_often_as_its_most_demanding_case(cases: list[reward_runs.RewardCase]) -> None:
    """The largest over sizes and draws; a spare of a tenth, and of two at least; nothing for what is only scored."""
    most = demand(cases, spare=0.0)
    assert set(most) == {name for case in cases for name in case.draw.train}
    for name, count in most.items():
        assert count == max(case.trajectories or 0 for case in cases if name in case.draw.train)
    assert {most[name] for name in cases[0].draw.train} == {175}
    spare = demand(cases, spare=0.1)
    assert spare[cases[0].draw.train[0]] == 175 + 18
    assert {spare[name] for name, count in most.items() if count == 10} == {12}


def test_too_few_stored_trajectories_are_refused(tmp_path: Path, cases: list[reward_runs.RewardCase]) -> None:
    """One in a hundred may lack; the error says which connector lacks most and how many are stored."""
    collect(CollectConfig(("usb-a", "rj45"), counts=(2, 1), image_size=32), tmp_path / "s.sqlite", workers=1)
    case = replace(cases[0], draw=replace(cases[0].draw, train=("usb-a", "rj45")), trajectories=2)
    with TrajectoryStore(tmp_path / "s.sqlite") as store:
        with pytest.raises(ValueError, match=r"3 of the 4 .*1 of 'rj45', 2 expected"):
            count_training(case, store)
        assert count_training(replace(case, trajectories=1), store) == 2
        assert count_training(replace(case, trajectories=None), store) == 3


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_trains_scores_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From nothing to the table: exact numbers of trajectories, the same held-out frames for every size, all in result
    files; repeated, nothing is trained; other settings are refused."""
    names = ["usb-a", "rj45", "bnc", "din-5", "schuko"]
    monkeypatch.setattr(reward_runs, "drawable_connectors", lambda: names)
    stage = replace(PRESETS["debug"].reward, steps=4)
    config = RewardConnectorsConfig((2, 4), (2,), 12, (0,), validation=1, held_out=1, stage=stage)
    out, results = tmp_path / "out", tmp_path / "results" / "reward" / "connectors"

    def run(config: RewardConnectorsConfig) -> dict[str, Any]:
        cli_tables.connectors(out, results, workers=1, trajectories=5, config=config)
        return {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("*.json"))}

    done = run(config)
    assert set(done) == {"2-s0", "4-s0", "2-generated-s0"}
    assert {result["trained_on"] for result in done.values()} == {12}
    assert {result["case"]["trajectories"] for result in done.values()} == {6, 3}
    scored = [[(row["name"], row["all"]["positives"], row["all"]["negatives"]) for row in result["connectors"]]
              for result in done.values()]  # fmt: skip
    assert scored[0] == scored[1] == scored[2] and scored[0][0][1] > 0
    told = capsys.readouterr().out
    assert "GB of disk" in told and "control: all generated" in told

    monkeypatch.setattr(reward_runs, "run_case", lambda *_, **__: pytest.fail("trained again"))
    assert run(config) == done
    with pytest.raises(ValueError, match=r"2-s0.json holds a result with another case.trajectories"):
        run(replace(config, total=24))


# ---- table and picture -----------------------------------------------------------------------------------------------


def results_of(hits: dict[str, int]) -> list[dict[str, Any]]:
    """Result files of two draws: label -> successes found of ten."""
    found = []
    for label, count in hits.items():
        size = int(label.split("-")[0])
        for seed in (0, 1):
            result = a_result(label, seed, count - seed)
            catalogue = 0 if label.endswith("generated") else min(size, 60 + seed)
            train = [f"c{i}" for i in range(catalogue)] + [f"gen-0-{i}" for i in range(size - catalogue)]
            result["case"] |= {"draw": {"train": train}, "trajectories": 3000 // size}
            found.append(result)
    return found


def test_the_table_says_what_is_beyond_the_paper() -> None:
    """By size, the control after the catalogue's; the range of generated ones over draws; the paper's sizes by name."""
    table = connectors_table(results_of({"300": 9, "50-generated": 7, "50": 8, "25": 6, "10": 5}))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert [row[:3] for row in rows] == [
        ["10", "0", "300"],
        ["25", "0", "120"],
        ["50", "0", "60"],
        ["50", "50", "60"],
        ["300", "239-240", "10"],
    ]
    assert rows[0][-1] == "" and "reward model had" in rows[1][-1] and "policy had" in rows[2][-1]
    assert "control: all generated, beyond" in rows[3][-1] and "AUROC +0.000" in rows[3][-1]
    assert rows[4][-1] == "beyond the paper's 25 or 50"
    assert re.match(r"0\.900 \(", rows[4][3]) and rows[4][-2] == "2"  # (.9 + .95) / 2 and (.8 + .95) / 2
    assert [point.control for point in points(results_of({"50-generated": 7, "50": 8}))] == [False, True]


def test_no_results_are_said(tmp_path: Path) -> None:
    """The page says so, there is no link to a picture, and none is drawn."""
    (tmp_path / "page.md").write_text("<!-- table reward-connectors -->\n<!-- end -->\n")
    assert stale_tables(tmp_path / "results", tmp_path, write=True) == ["page.md: reward-connectors"]
    assert draw_pictures(tmp_path / "results", tmp_path) == [] and not (tmp_path / PICTURE).exists()
    assert NO_RESULTS in (tmp_path / "page.md").read_text() and "](" not in (tmp_path / "page.md").read_text()


def test_the_picture_is_drawn_when_its_figures_change(tmp_path: Path) -> None:
    """Drawn once, kept while the results are the same, drawn anew with others; a check looks at the table alone. One
    draw has no interval and is drawn all the same."""
    folder = tmp_path / "results" / "reward" / "connectors"
    folder.mkdir(parents=True)
    (tmp_path / "page.md").write_text("<!-- table reward-connectors -->\n<!-- end -->\n")

    def write(hits: dict[str, int], draws: int) -> None:
        for result in results_of(hits):
            if result["case"]["seed"] < draws:
                name = f"{result['case']['method']}-s{result['case']['seed']}.json"
                (folder / name).write_text(json.dumps(result))

    write({"10": 5, "50": 7, "50-generated": 6}, draws=1)
    assert draw_pictures(tmp_path / "results", tmp_path) == [PICTURE]
    stale_tables(tmp_path / "results", tmp_path, write=True)
    assert f"]({PICTURE})" in (tmp_path / "page.md").read_text()
    first = (tmp_path / PICTURE).read_bytes()
    assert first[:4] == b"\x89PNG" and draw_pictures(tmp_path / "results", tmp_path) == []
    (tmp_path / PICTURE).write_bytes(first + b"other bytes")
    assert stale_tables(tmp_path / "results", tmp_path, write=False) == []
    write({"10": 9, "50": 7, "50-generated": 6}, draws=2)
    assert draw_pictures(tmp_path / "results", tmp_path) == [PICTURE]
    assert (tmp_path / PICTURE).read_bytes() != first


def test_the_pool_is_what_the_draw_leaves() -> None:
    """All that is left is no smaller than any training set that can be asked for, and begins with it."""
    left = draw_connectors(5, None, 5, 20).train
    assert draw_connectors(5, len(left), 5, 20).train == left
    with pytest.raises(ValueError, match=f"{len(drawable_connectors())} in"):
        draw_connectors(5, len(left) + 1, 5, 20)
