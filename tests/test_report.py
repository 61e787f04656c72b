"""The report of a synthetic run: its numbers, what it needs and what it says is missing; Grad-CAM; videos."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from lotj.comparison import compare
from lotj.data.store import TrajectoryStore
from lotj.evaluate import EvaluateConfig, Evaluation, TrialResult
from lotj.nets.encoder import Encoder, EncoderConfig
from lotj.report.html import Extras, headline, write_report
from lotj.report.records import load_practice, stage_records
from lotj.report.saliency import SaliencyPanel, grad_cam
from lotj.report.sections import believed_and_true
from lotj.report.video import compose, encode, trajectory_video
from lotj.types import Trajectory

THRESHOLD = 0.7
PARTS = ("config.json", "done.json", "trials.jsonl", "online.sqlite", "evaluation-before.json", "evaluation-after.json")


def draw(tip: NDArray[np.float64], size: int = 64) -> NDArray[np.uint8]:
    """A picture of a plug at ``tip`` (metres from full insertion) above a socket, seen from the front."""
    image = np.full((size, size, 3), (118, 124, 122), np.uint8)
    image[46:] = (92, 84, 76)
    image[40:58, 22:42] = (44, 48, 56)
    image[42:58, 27:37] = (14, 14, 16)
    x, y = 32 + int(tip[0] * 1000), 54 - int(tip[2] * 1000)
    image[max(y - 26, 0) : max(y - 8, 0), max(x - 8, 0) : x + 8] = (214, 142, 40)
    for pin in (-4, 2):
        image[max(y - 8, 0) : max(y, 0), x + pin : x + pin + 2] = (200, 205, 212)
    return image


def probability_of(distance: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """A reward model that is right beyond 3 mm and unsure below."""
    return np.clip(
        1 / (1 + np.exp((1000 * distance - 2.0) * 1.8)) + 0.06 * rng.standard_normal(distance.shape), 0.001, 0.999
    )


def tips(succeeds: bool, rng: np.random.Generator, steps: int = 20) -> NDArray[np.float64]:
    """A descent (steps + 1, 3) that ends inserted, or some millimetres short or beside."""
    start = np.array([rng.uniform(-0.01, 0.01), rng.uniform(-0.01, 0.01), rng.uniform(0.014, 0.02)])
    miss = rng.exponential(0.005) + 0.0012
    end = np.zeros(3) if succeeds else np.array([rng.choice([-1, 1]) * miss, 0.0, miss * 0.8])
    progress = np.minimum(np.linspace(0, 1.6, steps + 1), 1)[:, None]
    return start + progress * (end - start)


def evaluation(rates: dict[str, int], seed: int, connector: str) -> Evaluation:
    """An evaluation with exactly these numbers of true successes in 20."""
    rng = np.random.default_rng(seed)
    trials = []
    for scenario, successes in rates.items():
        for index in range(20):
            tip = tips(index < successes, rng)
            distance = np.linalg.norm(tip, axis=1)[1:]
            probability = probability_of(distance, rng)
            above = probability >= THRESHOLD
            fires = [i for i in range(1, 20) if above[i] and above[i - 1]]
            success = distance < 0.001
            true_step = int(np.argmax(success)) + 1 if success.any() else None
            trials.append(
                TrialResult(
                    scenario, index, 1000 + index, 20, bool(above.any()), bool(fires), true_step is not None,
                    fires[0] + 1 if fires else None, true_step, bool(success[fires[0]]) if fires else None,
                    float(np.round(rng.gamma(8, 0.8), 2)), False, tuple(tip[0].tolist()), tuple(probability.tolist()),
                    tuple(above.tolist()), tuple(success.tolist()), tuple(distance.tolist()),
                )
            )  # fmt: skip
    return Evaluation(EvaluateConfig(20, tuple(rates), 0, 0.0, connector), tuple(trials))


def trajectory(succeeds: bool, connector: str, seed: int) -> Trajectory:
    """A practice trial; one that succeeds is ended by the judge."""
    rng = np.random.default_rng(seed)
    tip = tips(succeeds, rng)[: 17 if succeeds else 21]
    success = np.linalg.norm(tip, axis=1) < 0.001
    return Trajectory(
        image=np.stack([draw(t) for t in tip]),
        state=np.zeros((len(tip), 0), np.float32),
        action=np.zeros((len(tip) - 1, 3), np.float32),
        reward=success[1:].astype(np.float32),
        terminated=succeeds,
        truncated=not succeeds,
        connector=connector,
        robot="sawyer-a",
        seed=seed,
        source="practice",
        privileged={"success": success, "tip_in_socket": tip},
    )


def write_practice(
    root: Path,
    name: str = "ensemble-learned-s0",
    connector: str = "nema-5-15",
    before: dict[str, int] | None = None,
    after: dict[str, int] | None = None,
    trials: int = 120,
) -> Path:
    """A practice folder as the stages write it."""
    folder = root / "practice" / connector / name
    folder.mkdir(parents=True)
    rng = np.random.default_rng([len(name), *connector.encode()])
    config = {
        "stage": "practice",
        "seed": 0,
        "config": {
            "trials": trials,
            "rule": {"threshold": THRESHOLD, "frames": 2},
            "controller": {"force_limit": 12.0},
        },
        "command": ["/somewhere/bin/lotj", "practice", "--connector", connector, "--run", "runs/demo"],
        "git": {"commit": "0123456789abcdef", "dirty": False},
        "versions": {"python": "3.11.2", "lotj": "0.1.0", "torch": "2.14.1"},
        "platform": "Linux",
        "started": "2026-11-22T19:30:00+00:00",
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "done.json").write_text(json.dumps({"stage": "practice", "seconds": 261.0, "summary": {}}))
    for phase, rates in (("before", before or {"I": 4, "II": 1}), ("after", after or {"I": 18, "II": 15})):
        result = evaluation(rates, len(name) + len(connector), connector)
        (folder / f"evaluation-{phase}.json").write_text(json.dumps(result.to_json()))
    with (folder / "trials.jsonl").open("w") as file, TrajectoryStore(folder / "online.sqlite", "a") as store:
        for number in range(1, trials + 1):
            true = bool(rng.random() < 0.15 + 0.75 * min(number / 70, 1))
            judged = bool(rng.random() < (0.95 if true else 0.25))
            row = {
                "trial": number, "steps": 14 if judged else 20, "success": judged, "true_success": true,
                "max_probability": 0.9 if judged else 0.4, "max_force": float(rng.gamma(8, 0.8)),
                "dislodged": number == 9,
                "true_at_success": true if judged else None,
                "tip_at_success": [0.0, 0.0, rng.uniform(0, 0.0009) + 0.002 * (not true)] if judged else None,
            }  # fmt: skip
            file.write(json.dumps(row) + "\n")
            if number <= 3 or number > trials - 3:
                store.append(trajectory(true and judged, connector, number))
    return folder


class DepthReward:
    """Scores a picture by how much of the socket's hole is filled."""

    def probability(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        return (image[:, 46:54, 27:37].mean((1, 2, 3)) / 110).clip(0.02, 0.98).astype(np.float32)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    def make(**options: object) -> Path:
        return write_practice(tmp_path / "demo", **options)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """The page of a complete practice, and the summary returned with it."""
    root = tmp_path_factory.mktemp("full")
    summary = write_report(root / "demo", write_practice(root / "demo"), root / "report.html", extras)
    return (root / "report.html").read_text(), summary


def extras(record: object) -> Extras:
    """What a caller with models at hand would pass."""
    images = np.stack([draw(np.array([0, 0, z])) for z in (0.016, 0.008, 0.003, 0.0)])
    heat = np.zeros((4, 64, 64), np.float32)
    heat[:, 40:58, 24:40] = np.hanning(18)[:, None] * np.hanning(16)
    panel = SaliencyPanel("Reward", "What raises the predicted probability of success.", images, heat)
    return Extras(DepthReward(), (panel, panel._replace(title="Policy")))


def test_report_holds_the_numbers(full: tuple[str, dict[str, Any]]) -> None:
    """Counts, intervals and the claim they allow are on the page, and in the returned summary."""
    page, summary = full
    for text in ("4/20", "18/20", "15/20", "20% (6–44%)", "90% (68–99%)", "12 N", "0123456789"):
        assert text in page, text
    assert "The robot learned nema-5-15 on the job (scenarios I and II)" in page
    assert "lotj practice --connector nema-5-15" in page and "/somewhere" not in page
    first = summary["practices"][0]
    assert first["scenarios"]["I"]["verdict"] == "improved" and first["scenarios"]["I"]["after"] == [18, 20]
    assert (first["recipe"], first["reward"], first["seed"]) == ("ensemble", "learned", "0")
    assert "Diagnostic, not self-rewarded" not in page and "Not available" not in page


def test_report_says_how_the_data_came_about(make_run: Callable[..., Path], tmp_path: Path) -> None:
    """The collection's command, commit and versions come from the store's own metadata."""
    folder = make_run(trials=2)
    (tmp_path / "demo" / "data").mkdir()
    with TrajectoryStore(tmp_path / "demo" / "data" / "trajectories.sqlite", "a") as store:
        store.set_metadata("collect", {"seed": 7, "connectors": ["usb-a"]})
        versions, git = {"mujoco": "4.0"}, {"commit": "fedcba9876543210"}
        store.set_metadata("provenance", {"command": ["lotj", "collect", "desk"], "git": git, "versions": versions})
    write_report(tmp_path / "demo", folder, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "lotj collect desk" in page and "fedcba9876" in page and "Settings of data" in page
    assert stage_records(tmp_path / "demo")["data"]["versions"] == {"mujoco": "4.0"}


def test_report_is_self_contained(full: tuple[str, dict[str, Any]]) -> None:
    """Every src, href and url() points into the page or is inline data; there is no script, no link and no import."""
    page, _ = full
    targets = re.findall(r"""(?:src|href|poster|data)\s*=\s*["']([^"']*)""", page) + re.findall(r"url\(([^)]*)\)", page)
    assert len(targets) > 8 and all(target.startswith(("#", "data:")) for target in targets)
    assert not re.search(r"<script|<link|@import|https?://", page)
    assert page.count("<video src='data:video/mp4;base64,") == 2


@pytest.mark.parametrize("parts", [PARTS[::2], PARTS[1::2]])
def test_report_opens_without_some_parts(make_run: Callable[..., Path], tmp_path: Path, parts: tuple[str, ...]) -> None:
    """Whatever files are missing, the page is written and names each of them and no other."""
    folder = make_run(trials=12)
    for part in parts:
        (folder / part).unlink()
    write_report(tmp_path / "demo", folder, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert {part for part in PARTS if f"Not available: {part} is not in ensemble-learned-s0" in page} == set(parts)


def test_a_page_is_whole_or_the_one_before(
    make_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report that dies while it writes leaves the page that was there."""
    folder, out = make_run(trials=2), tmp_path / "report.html"
    out.write_text("the page before")

    def die(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", die)
    with pytest.raises(OSError, match="no space"):
        write_report(tmp_path / "demo", folder, out)
    assert out.read_text() == "the page before"


def test_report_of_an_empty_practice(tmp_path: Path) -> None:
    """A folder with nothing in it gives a page that claims nothing."""
    folder = tmp_path / "practice" / "europlug" / "iql-learned-s1"
    folder.mkdir(parents=True)
    summary = write_report(tmp_path, folder, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "not evaluated yet" in page and page.count("Not available") >= len(PARTS)
    assert summary["practices"][0]["scenarios"] == {}
    with pytest.raises(FileNotFoundError, match="no practice folder"):
        load_practice(tmp_path / "nowhere")


def test_a_practice_says_itself_how_it_was_paid(tmp_path: Path) -> None:
    """By its config, also before the first trial and in a folder named after several cells; the name is read where
    there is none."""
    folder = tmp_path / "practice" / "plug" / "ensemble-ground-truth-sawyer-a+sawyer-b-s0"
    folder.mkdir(parents=True)
    recipe = {"recipe": "ensemble", "practice": {"reward": "ground-truth"}}
    (folder / "config.json").write_text(json.dumps({"config": {"recipe": recipe}}))
    record = load_practice(folder)
    assert (record.recipe, record.reward_source, record.seed, record.diagnostic) == (
        "ensemble",
        "ground-truth",
        "0",
        True,
    )


def test_headline_claims_no_more_than_the_test_allows(make_run: Callable[..., Path]) -> None:
    """11/20 to 15/20 is no significant change (p = 0.23), and 18/20 to 4/20 is called worse."""
    for before, after, words in (
        ({"I": 11}, {"I": 15}, "did not change success on nema-5-15 significantly"),
        ({"I": 18}, {"I": 4}, "made the robot worse at nema-5-15 (scenario I)"),
        ({"I": 2, "II": 18}, {"I": 19, "II": 3}, "Mixed: nema-5-15 improved in scenario I, and got worse in II"),
    ):
        record = load_practice(make_run(name=f"iql-learned-s{len(words)}", before=before, after=after, trials=2))
        assert record.before and record.after
        assert words in headline(record, compare(record.before, record.after))


def test_fooled_reward_is_called_out(make_run: Callable[..., Path]) -> None:
    """Where the rule fires in many trials without insertion, the page says so; where it does not, it is silent."""
    record = load_practice(make_run(after={"I": 2}, trials=2))
    assert record.after
    fooled = tuple(replace(trial, judged=True) for trial in record.after.trials)
    page = believed_and_true(replace(record, after=replace(record.after, trials=fooled)))
    assert "the rule fires in 18 of 20" in page
    assert "being fooled" not in believed_and_true(record)


def test_several_practices_share_a_page(make_run: Callable[..., Path], tmp_path: Path) -> None:
    """A summary table links to a section for each practice, and one paid by ground truth is marked as a diagnostic."""
    folders = [
        make_run(connector="europlug", before={"I": 11, "II": 6}, after={"I": 15, "II": 8}, trials=12),
        make_run(name="ensemble-ground-truth-s0", trials=12),
    ]
    summary = write_report(tmp_path / "demo", folders, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert (
        "0 of 1 self-rewarded practices improved" in page
        and "a diagnostic: 1 of 1" in page
        and page.count("<section") == 2
    )
    assert all(f"href='#practice-{n}'" in page and f"id='practice-{n}'" in page for n in (1, 2))
    assert [row["diagnostic"] for row in summary["practices"]] == [False, True]
    assert page.count("Diagnostic, not self-rewarded") == 1 and page.count(">diagnostic<") == 1
    assert "With a ground-truth reward, the robot learned" in page
    identifiers = re.findall(r"""\bid=["']([^"']*)""", page)
    assert len(identifiers) == len(set(identifiers))


class PatchNet(nn.Module):
    """A convolution that passes brightness on, and a score that reads one 16 x 16 patch of it alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 4, stride=4, bias=False)
        nn.init.constant_(self.conv.weight, 1 / 48)
        self.requires_grad_(False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.conv(image.float() / 255)[:, :, 8:12, 2:6].square().sum((1, 2, 3))


def test_grad_cam_peaks_where_the_net_looks() -> None:
    """A score that reads rows 32-48 and columns 8-24 of an image lit there alone has its heat there, though frozen."""
    image = np.zeros((2, 64, 64, 3), np.uint8)
    image[:, 32:48, 8:24] = 200
    image[1, :16, 40:56] = 0
    net = PatchNet()
    heat = grad_cam(net, net.conv, image)
    assert heat.shape == (2, 64, 64) and heat.dtype == np.float32 and heat.max() == 1 and heat.min() == 0
    row, column = np.unravel_index(heat[0].argmax(), (64, 64))
    assert 32 <= row < 48 and 8 <= column < 24
    assert heat[0, 32:48, 8:24].sum() > 0.8 * heat[0].sum()


def test_grad_cam_of_a_critic_depends_on_the_action() -> None:
    """For Q(s, a) = a * f(s) the map is f's for a > 0 and empty for a < 0, where nothing raises Q."""
    image = np.zeros((1, 64, 64, 3), np.uint8)
    image[:, 32:48, 8:24] = 200
    net = PatchNet()
    maps = {a: grad_cam(lambda x, a=a: a * net(x), net.conv, image) for a in (1.0, -1.0)}
    np.testing.assert_array_equal(maps[1.0], grad_cam(net, net.conv, image))
    assert maps[-1.0].max() == 0


def test_grad_cam_of_a_frozen_resnet() -> None:
    """The project's own encoder, frozen, explains itself at 8 x 8 cells, and gathers no gradients."""
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(width=4))
    encoder.eval().requires_grad_(False)
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    heat = grad_cam(lambda x: encoder(x)[:, :8].sum(1), encoder.stages[1], image)
    assert heat.shape == (2, 64, 64) and (heat.max((1, 2)) == 1).all()
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_grad_cam_looks_on_the_layers_device() -> None:
    """The images come to the network, wherever it is."""

    class Seen(Exception):
        pass

    def target(pixels: torch.Tensor) -> torch.Tensor:
        raise Seen(pixels.device.type)

    with pytest.raises(Seen, match="meta"):
        grad_cam(target, PatchNet().to("meta").conv, np.zeros((1, 64, 64, 3), np.uint8))


def test_grad_cam_refuses_what_it_cannot_explain() -> None:
    """A score of the wrong shape, or one that gradients cannot reach, is named."""
    image, net = np.zeros((2, 64, 64, 3), np.uint8), PatchNet()
    with pytest.raises(ValueError, match="one score an image"):
        grad_cam(lambda x: net(x)[:, None], net.conv, image)
    with pytest.raises(ValueError, match="no gradient reaches"):
        grad_cam(lambda x: net(x).detach(), net.conv, image)


def test_video_shows_every_step_and_the_bar(tmp_path: Path) -> None:
    """Trials play side by side, the shorter holds; the bar's length follows the probability; the file decodes."""
    short, long = trajectory(True, "a", 1), trajectory(False, "b", 2)
    rows = [np.zeros(len(short) + 1, np.float32), np.linspace(0, 1, len(long) + 1, dtype=np.float32)]
    frames = compose([short, long], rows, ["one", "two"], THRESHOLD)
    assert len(frames) > len(long) + 1 and frames.shape[1] % 2 == frames.shape[2] % 2 == 0
    bar = frames[: len(long) + 1, 264, frames.shape[2] // 2 :]
    length = (bar == (245, 158, 11)).all(-1).sum(-1)
    assert length[0] <= 1 and (np.diff(length) >= 0).all() and length[-1] > 240
    path = trajectory_video([short, long], rows, tmp_path / "trials.mp4", ["one", "two"], THRESHOLD)
    assert len(iio.imread(path, plugin="pyav")) == len(frames)
    assert encode(frames[:3], ".webp")[8:12] == b"WEBP"
    with pytest.raises(ValueError, match="captions needs an entry"):
        compose([short, long], captions=["one"])


def test_two_cameras_pictures_share_a_heat_map() -> None:
    """To a layer they are one picture, so both halves of an image show the same."""
    encoder = Encoder(EncoderConfig(width=4, cameras=2))
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 128, 3), dtype=np.uint8)
    heat = grad_cam(lambda x: encoder(x).sum(1), encoder.stages[1], image)
    assert heat.shape == (2, 64, 128) and heat.max() == 1.0
    np.testing.assert_array_equal(heat[:, :, :64], heat[:, :, 64:])
