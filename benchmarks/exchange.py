"""What does data lose on its way out and in, and what is found in data that is wrong? -> results/exchange.json.

A small store is collected in the simulator. It goes out to LeRobot and Minari and in again; the same trials, written as
others record them (`foreign_layouts.py`), come in from LeRobot (images, video), Minari, robomimic and SERL. Each field
is held against the store's. Then these data sets are damaged in one way each, and `lotj data validate` reads them.

    python benchmarks/exchange.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import foreign_layouts as layouts
import numpy as np
import pyarrow.parquet
from foreign_layouts import Trial, as_trial

from lotj.collect import CollectConfig, collect
from lotj.data.export import Target, export
from lotj.data.foreign import ReadConfig
from lotj.data.foreign_check import validate_foreign
from lotj.data.importing import import_into
from lotj.data.sources import open_source
from lotj.data.store import TrajectoryStore
from lotj.data.validate import JUDGED_SOURCES
from lotj.files import write_json
from lotj.provenance import provenance
from lotj.types import Trajectory

CONNECTORS = ("usb-a", "rj45")
FIELDS = ("image", "state", "action", "reward", "terminated", "truncated", "connector", "robot", "source", "seed")
LAYOUTS: dict[str, tuple[str, Callable[[Path, list[Trial]], None]]] = {
    "lerobot images": ("", layouts.lerobot),
    "lerobot video": ("", partial(layouts.lerobot, video=True)),
    "minari": ("", layouts.minari),
    "robomimic": (".hdf5", layouts.robomimic),
    "serl": (".pkl", layouts.serl),
}
"""As others record: the ending of the path, and what writes there."""


def read(path: Path) -> list[Trajectory]:
    with TrajectoryStore(path) as store:
        return [store.read(number) for number in range(len(store))]


def write(path: Path, trajectories: list[Trajectory]) -> Path:
    with TrajectoryStore(path, "a") as store:
        store.extend(trajectories)
    return path


def options(name: str, connector: str | None) -> ReadConfig:
    """How a layout is read: LeRobot's last image is in no row, and the image before it stands for it."""
    return ReadConfig(connector=connector, final="repeat" if name.startswith("lerobot") else "drop")


# --- what is kept


def kept(wanted: list[Trajectory], got: list[Trajectory], recorded: int | None = None) -> dict[str, Any]:
    """Of each field ``exact``, how far it is off, or ``not kept``.

    ``recorded`` leaves out that many images at the end, which the format has no place for.
    """
    if len(wanted) != len(got):
        return {"trajectories": f"{len(got)} of {len(wanted)}"}

    def pair(field: str, a: Trajectory, b: Trajectory) -> tuple[Any, Any]:
        one, two = getattr(a, field), getattr(b, field)
        return (one[:-recorded], two[:-recorded]) if recorded and field in ("image", "state") else (one, two)

    found: dict[str, Any] = {field: compared([pair(field, a, b) for a, b in zip(wanted, got)]) for field in FIELDS}
    truth = {key for t in wanted for key in t.privileged}
    for key in sorted(truth):
        found[f"privileged.{key}"] = compared([(a.privileged[key], b.privileged.get(key)) for a, b in zip(wanted, got)])
    return found


def compared(pairs: list[tuple[Any, Any]]) -> Any:
    """Bits, dtypes and shapes."""
    if all(np.array_equal(a, b) and np.asarray(a).dtype.kind == np.asarray(b).dtype.kind for a, b in pairs):
        return "exact"
    if any(b is None or isinstance(b, str | int) or np.shape(a) != np.shape(b) for a, b in pairs):
        return "not kept"
    off = np.concatenate([np.abs(np.subtract(a, b, dtype=np.float64)).ravel() for a, b in pairs])
    return {"largest_deviation": float(off.max()), "mean_deviation": round(float(off.mean()), 4)}


def size(path: Path) -> int:
    """Bytes of a file, or of all in a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def out_and_in(store: Path, to: Target, folder: Path) -> dict[str, Any]:
    """lotj's own export, and its import."""
    wanted, out, again = read(store), folder / f"ours-{to}", folder / f"ours-{to}.sqlite"
    started = time.perf_counter()
    export(store, to, out)
    between = time.perf_counter()
    import_into(open_source(out, ReadConfig()), again, ReadConfig())
    row: dict[str, Any] = {"format": to, "written_by": "lotj", "fields": kept(wanted, read(again))}
    if to == "lerobot":
        row["fields"]["reward_source"] = reward_source(out, wanted)
    row |= {"out_per_second": round(len(wanted) / (between - started), 1)}
    row |= {"in_per_second": round(len(wanted) / (time.perf_counter() - between), 1)}
    return row | {"bytes_of_the_stores": round(size(out) / size(store), 3)}


def reward_source(folder: Path, wanted: list[Trajectory]) -> str:
    """Whether each row says who paid its reward, read without lotj."""
    files = sorted((folder / "data").rglob("*.parquet"))
    rows = [value for file in files for value in pyarrow.parquet.read_table(file)["reward_source"].to_pylist()]
    names = ["reward-model" if t.source in JUDGED_SOURCES[:1] else "ground-truth" for t in wanted for _ in t.image]
    return "exact" if rows == names else "not kept"


def from_others(name: str, wanted: list[Trajectory], store: Path, folder: Path) -> dict[str, Any]:
    """What others wrote, a data set for each connector, since not every layout has a place for its name."""
    ending, write_layout = LAYOUTS[name]
    again, seconds, written = folder / f"{name}.sqlite", 0.0, 0
    for connector in CONNECTORS:
        path, config = folder / f"{name}-{connector}{ending}", options(name, connector)
        write_layout(path, [as_trial(t) for t in wanted if t.connector == connector])
        written += size(path)
        started = time.perf_counter()
        import_into(open_source(path, config, allow_pickle=True), again, config)
        seconds += time.perf_counter() - started
    got = read(again)
    row: dict[str, Any] = {"format": name, "written_by": "others' layout"}
    if config.final == "repeat":
        row["last_images"] = "not recorded: the image before stands for each"
    row["fields"] = kept(wanted, got, recorded=1 if config.final == "repeat" else None)
    row["in_per_second"] = round(len(wanted) / seconds, 1)
    return row | {"bytes_of_the_stores": round(written / size(store), 3)}


# --- what is found


class Damage(NamedTuple):
    """A way in which a data set is wrong."""

    what: str
    kinds: tuple[str, ...]
    """What `lotj data validate` should name: one of these or all, and nothing else."""
    spoil: Callable[[Trial], Trial]
    everywhere: bool = False
    """In all trials, not in one alone."""


def changed(at: int, **values: Any) -> Callable[[Trial], Trial]:
    """A trial with other values in one row."""
    return lambda trial: [row | (values if number == at else {}) for number, row in enumerate(trial)]


def each_row(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Trial], Trial]:
    return lambda trial: [row | change(row) for row in trial]


def swapped(trial: Trial) -> Trial:
    """The second and the third row exchanged, as they are."""
    return [trial[0], trial[2], trial[1], *trial[3:]]


def before(trial: Trial) -> Trial:
    """``reward[t]`` describes the observation before the action, of a trial that goes on for a step after success."""
    after = trial[-1] | {"image": trial[-1]["next_image"], "state": trial[-1]["next_state"], "frame": len(trial)}
    longer = [row | {"last": False, "terminated": row["terminated"]} for row in trial] + [after | {"terminated": False}]
    return [row | {"reward": reward} for row, reward in zip(longer, [0.0, *(row["reward"] for row in trial)])]


def before_and_out(trial: Trial) -> Trial:
    """The same of a trial that ends at its success: the reward of that observation is in no row."""
    return [row | {"reward": reward} for row, reward in zip(trial, [0.0, *(row["reward"] for row in trial)])]


def failed(row: dict[str, Any]) -> dict[str, Any]:
    return {"reward": 0.0, "success": False, "terminated": False}


NAN = np.full(3, np.nan, np.float32)
DAMAGES = (
    Damage("no connector is named", ("no-name",), each_row(lambda row: {"connector": ""}), everywhere=True),
    Damage("no trial succeeds", ("one-class",), each_row(failed), everywhere=True),
    Damage("rows out of order", ("frame-order",), swapped),
    Damage("reward on s, trial goes on", ("reward-shift",), before),
    Damage("reward on s, trial ends at success", ("reward-shift",), before_and_out),
    Damage("reward on s, all end at success", ("reward-shift", "one-class"), before_and_out, everywhere=True),
    Damage("an action is missing", ("wrong-shape",), changed(1, action=None)),
    Damage("an action is NaN", ("not-finite",), changed(1, action=NAN)),
    Damage("a reward is NaN", ("not-finite",), changed(1, reward=float("nan"))),
    Damage("actions in mm", ("out-of-range",), each_row(lambda row: {"action": 1e3 * row["action"]})),
    Damage("the camera stands still", ("frozen-images",), lambda trial: each_row(
        lambda row: {"image": trial[0]["image"], "next_image": trial[0]["image"]})(trial)),
)  # fmt: skip


def validated(name: str, damage: Damage | None, trials: list[Trial], folder: Path) -> dict[str, Any]:
    """The defects that are named in a data set with this damage, or with none."""
    ending, write_layout = LAYOUTS[name]
    path = folder / f"{name}-{damage.what if damage else 'sound'}{ending}"
    unnamed = damage is not None and damage.kinds == ("no-name",)
    if damage:
        trials = [damage.spoil(t) if damage.everywhere or number == 0 else t for number, t in enumerate(trials)]
    write_layout(path, trials)
    config = options(name, None if unnamed else CONNECTORS[0])
    report = validate_foreign(open_source(path, config, allow_pickle=True), config)
    messages = [f"{defect.kind}: {defect.message}; {defect.remedy}" for defect in report.defects]
    kinds = [defect.kind for defect in report.defects]
    found = bool(kinds) and set(kinds) <= set(damage.kinds) if damage else not kinds
    return {"format": name, "damage": damage.what if damage else "none", "found": found, "messages": messages}


def main() -> None:
    """Collect, bring out and in, damage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trajectories", type=int, default=6, help="of each of two connectors")
    parser.add_argument("--image-size", type=int, default=64, help="px")
    parser.add_argument("--out", type=Path, default=Path("results/exchange.json"))
    arguments = parser.parse_args()
    config = CollectConfig(CONNECTORS, arguments.trajectories, wrong_place=0.3, image_size=arguments.image_size)
    with TemporaryDirectory() as name:
        folder = Path(name)
        collect(config, folder / "collected.sqlite", workers=1)
        collected = sorted(read(folder / "collected.sqlite"), key=lambda t: CONNECTORS.index(t.connector))
        # Two as if from practice, paid by the reward model.
        judged = [replace(t, source="practice", seed=-t.seed - 1) for t in collected[:2]]
        store = write(folder / "store.sqlite", [*collected, *judged])
        rows = [out_and_in(store, to, folder) for to in ("lerobot", "minari")]
        rows += [from_others(name, collected, folder / "collected.sqlite", folder) for name in LAYOUTS]
        for row in rows:
            print(row, flush=True)
        # A success first, which the damages of one trial spoil.
        trials = sorted(
            (t for t in collected if t.connector == CONNECTORS[0] and len(t) > 3), key=lambda t: not t.terminated
        )
        sets = [as_trial(t) for t in trials]
        found = [validated(name, damage, sets, folder) for name in LAYOUTS for damage in (None, *DAMAGES)]
    for row in found:
        print(row, flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    counts = {"cases": len(found), "found": sum(row["found"] for row in found)}
    write_json(arguments.out, {**provenance(), "kept": rows, "damaged": found, "damaged_in_all": counts})
    print(counts)


if __name__ == "__main__":
    main()
