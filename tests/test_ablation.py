"""Table III: what the arms are, that networks are trained once and shared, and what a finished run lends."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lotj import cli, pipeline
from lotj.experiments import ablation_nets
from lotj.experiments.ablation_cases import ARMS, AblationConfig, AblationJob, Network
from lotj.experiments.ablation_nets import folder_of, stage_of
from lotj.experiments.ablation_runs import features_of, recipe_of, untrained
from lotj.experiments.ablation_table import ablation_rows, ablation_table, pooled_rows
from lotj.offline import load_policy
from lotj.presets import PRESETS, load_preset
from lotj.types import Trials

CONNECTOR = "europlug"


def test_the_arms_differ_in_exactly_the_stated_bottlenecks() -> None:
    """full is the preset itself; reward takes the policy's adversary and divergence away, none the reward's too. Steps,
    network, latent size, augmentation and the critic are the same."""
    preset = PRESETS["desk"]
    cases = {case.arm: case for case in AblationConfig((CONNECTOR,), seeds=(0,)).cases()}
    stages = {arm: [stage_of(network, preset) for network in case.networks] for arm, case in cases.items()}
    assert list(stages) == list(ARMS) == ["none", "reward", "full"]
    assert stages["full"] == [preset.reward, preset.critic, preset.policy]
    assert stages["reward"][:2] == stages["full"][:2]
    assert stages["none"][1:] == stages["reward"][1:]
    for plain, own in ((stages["none"][0], preset.reward), (stages["none"][2], preset.policy)):
        bottleneck, full = plain.model.bottleneck, own.model.bottleneck
        assert bottleneck.adversarial_weight == bottleneck.kl_weight == bottleneck.specific_dim == 0
        assert bottleneck.dim == full.dim and full.adversarial_weight > 0 and full.kl_weight > 0
        assert replace(plain, model=replace(plain.model, bottleneck=full)) == own
    assert len({recipe_of(case, preset) for case in cases.values()}) == 1


def test_a_seed_has_one_critic_two_rewards_two_policies() -> None:
    """Whatever connectors and recipes: 5 networks and, for each recipe, 2 sets of features a seed."""
    job = AblationJob(PRESETS["debug"], Path("nowhere"), Path("results"))
    cases = AblationConfig(recipes=("ensemble", "iql"), seeds=(0, 1)).cases()
    assert len({case.name for case in cases}) == len(cases) == 2 * 4 * 2 * 3
    assert [network.name for network in untrained(cases, job, "critic")] == ["critic"] * 2
    names = [network.name for network in untrained(cases, job, "reward", "policy") if network.seed == 1]
    assert sorted(names) == ["policy-daib", "policy-erm", "reward-daib", "reward-erm"]
    assert len({features_of(case, job) for case in cases}) == 2 * 2 * 2


def a_result(arm: str, seed: int, before: int, after: int, recipe: str = "ensemble") -> dict[str, Any]:
    """A result file of one connector, 20 trials."""
    return {
        "case": {"arm": arm, "recipe": recipe, "seed": seed},
        "connector": CONNECTOR,
        "validation": False,
        "scenarios": {"II": {"offline_true": [before, 20], "online_true": [after, 20]}},
    }


def test_counts_are_pooled_over_seeds() -> None:
    """A line a connector, columns in the order of the arms, offline beside online; the best and its ties are bold."""
    results = [a_result(arm, seed, 1, after) for arm, after in (("full", 18), ("none", 3)) for seed in range(3)]
    assert pooled_rows(results) == [
        Trials("no DAIB", "offline", CONNECTOR, "II", 3, 60),
        Trials("no DAIB", "online", CONNECTOR, "II", 9, 60),
        Trials("DAIB on both", "offline", CONNECTOR, "II", 3, 60),
        Trials("DAIB on both", "online", CONNECTOR, "II", 54, 60),
    ]
    table = ablation_table([*results, a_result("full", 0, 2, 7, "iql")])
    assert f"| {CONNECTOR} | II | 3/60 | 9/60 | 3/60 | **54/60** |" in table and "3 offline trainings" in table
    assert table.index("`ensemble`") < table.index("`iql`") and "**7/20**" in table
    assert ablation_table([]) == ""
    mixed = ablation_rows([*results, a_result("full", 0, 2, 7, "iql")])
    assert mixed[-1] == Trials("iql, DAIB on both", "online", CONNECTOR, "II", 7, 20) and len(mixed) == 6


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The folders of the networks that were trained, in order."""
    folders: list[str] = []

    def recording(original: Callable[..., Any]) -> Callable[..., Any]:
        def record(*arguments: Any) -> Any:
            folder = next(one for one in arguments if isinstance(one, Path))
            folders.append(f"{folder.parent.name}/{folder.name}")
            return original(*arguments)

        return record

    for name in ("train_reward", "train_critic", "train_policy"):
        monkeypatch.setattr(ablation_nets, name, recording(getattr(ablation_nets, name)))
    yield folders


def command(tmp_path: Path, *options: str) -> None:
    """A small ``lotj tables ablation`` in this process."""
    small = ["--trials", "2", "--evaluation-trials", "1", "--workers", "1", "--connectors", CONNECTOR]
    where = ["--out", str(tmp_path / "out"), "--results", str(tmp_path / "results"), "--preset", "debug"]
    cli.main(["tables", "ablation", *where, *small, *options])


def test_networks_are_lent_trained_once_and_shared(
    tiny_run: Path,
    tmp_path: Path,
    trained: list[str],
    files_of: Callable[[Path], dict[str, int]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Seed 0 takes data, critic and both DAIB networks from a run of the same preset and trains the two without DAIB;
    the run stays as it was. Repeated, nothing is trained or practised."""
    monkeypatch.setitem(PRESETS, "debug", load_preset(tiny_run))
    before = files_of(tiny_run)
    command(tmp_path, "--run", str(tiny_run), "--seeds", "0")
    assert trained == ["s0/reward-erm", "s0/policy-erm"]
    assert files_of(tiny_run) == before and not (tmp_path / "out" / "data").exists()
    told = capsys.readouterr().out
    assert "critic (seed 0), reward-daib (seed 0), policy-daib (seed 0)" in told and "| DAIB on both (online) |" in told
    results = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "results").glob("*.json")}
    assert set(results) == {f"{CONNECTOR}-{arm}-ensemble-s0" for arm in ARMS}
    folders = {arm: results[f"{CONNECTOR}-{arm}-ensemble-s0"]["offline"]["folders"] for arm in ARMS}
    assert {row["critic"] for row in folders.values()} == {str(tiny_run / "critic")}
    assert folders["full"]["policy"] == str(tiny_run / "policy") and folders["none"]["policy"].endswith("policy-erm")
    for result in results.values():
        assert list(result["scenarios"]) == ["II"] and len(result["curve"]) == 2
        assert {row["scenario"] for row in result["curve"]} == {"II"} and result["diagnostic"] is False
    offline = [results[f"{CONNECTOR}-{arm}-ensemble-s0"]["scenarios"]["II"]["offline_true"] for arm in ARMS]
    assert offline[0] == offline[1]

    monkeypatch.setattr(pipeline, "practise_in_rounds", None)
    command(tmp_path, "--run", str(tiny_run), "--seeds", "0")
    assert len(trained) == 2


def test_a_run_lends_only_what_is_the_same(tiny_run: Path, tmp_path: Path) -> None:
    """Another seed, method, critic or collection is trained anew in the ablation's own folder; a policy is not taken
    without the critic that it was extracted from."""
    preset = load_preset(tiny_run)
    job = AblationJob(preset, tmp_path, tmp_path, tiny_run)
    critic, policy = Network("critic", "", 0), Network("policy", "daib", 0)
    assert folder_of(critic, job) == tiny_run / "critic" and folder_of(policy, job) == tiny_run / "policy"
    assert folder_of(Network("policy", "erm", 0), job) == tmp_path / "s0" / "policy-erm"
    assert folder_of(critic._replace(seed=1), job) == tmp_path / "s1" / "critic"
    other = job._replace(preset=replace(preset, critic=replace(preset.critic, steps=3)))
    assert folder_of(critic, other) == tmp_path / "s0" / "critic"
    assert folder_of(policy, other) == tmp_path / "s0" / "policy-daib"
    assert folder_of(Network("reward", "daib", 0), other) == tiny_run / "reward"
    elsewhere = job._replace(preset=replace(preset, trajectories=5))
    assert folder_of(Network("reward", "daib", 0), elsewhere) == tmp_path / "s0" / "reward-daib"
    rolled = job._replace(preset=replace(preset, dagger=replace(preset.dagger, trials=1)))
    assert folder_of(Network("reward", "daib", 0), rolled) == tmp_path / "s0" / "reward-daib"
    assert load_policy(tiny_run / "policy").config == preset.policy.model


def test_a_seed_of_its_own_trains_five_networks(
    tiny_run: Path, tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One critic before two policies, two reward models; the data are the donor's."""
    monkeypatch.setitem(PRESETS, "debug", load_preset(tiny_run))
    command(tmp_path, "--run", str(tiny_run), "--seeds", "1", "--arms", "none", "full")
    assert sorted(trained) == [
        f"s1/{name}" for name in ("critic", "policy-daib", "policy-erm", "reward-daib", "reward-erm")
    ]
    assert trained.index("s1/critic") < min(trained.index(f"s1/policy-{method}") for method in ("erm", "daib"))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--connectors", "usb-a"], "'usb-a' is not novel"),
        (["--connectors", "bnc"], "--validation"),
        (["--arms", "ful"], "did you mean 'full'"),
        (["--run", "nowhere"], "nowhere is not a run folder"),
    ],
)
def test_bad_input_is_refused_before_any_work(
    tiny_run: Path,
    tmp_path: Path,
    options: list[str],
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Known and validation connectors, unknown arms, a donor that is no run."""
    monkeypatch.setitem(PRESETS, "debug", load_preset(tiny_run))
    with pytest.raises(SystemExit) as ended:
        command(tmp_path, *options)
    assert ended.value.code == 2
    assert named in capsys.readouterr().err.replace("\n", " ") and not (tmp_path / "out").exists()
