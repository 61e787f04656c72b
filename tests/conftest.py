"""One torch thread for each test process: several processes with two threads each slow one another down many times."""

import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

os.environ["OMP_NUM_THREADS"] = "1"

# Imported first: it chooses how MuJoCo draws, which counts only before mujoco is imported.
import lotj  # noqa: F401


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports a file of ``benchmarks/`` by its name, as if it were run there."""
    folder = Path(__file__).parents[1] / "benchmarks"

    def imported(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(str(folder))
        spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules.pop("practising", None)
        return module

    return imported


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished offline run of three connectors and a few steps; tests must leave it as it is."""
    from lotj import stages
    from lotj.files import to_json, write_json
    from lotj.presets import PRESETS

    debug = PRESETS["debug"]
    reward = replace(debug.reward, steps=4, model=replace(debug.reward.model, decay_steps=4))
    policy = replace(debug.policy, steps=4, model=replace(debug.policy.model, decay_steps=4))
    critic = replace(debug.critic, steps=2)
    known = ("usb-a", "rj45", "bnc")
    dagger = replace(debug.dagger, trials=0)
    preset = replace(debug, known=known, trajectories=4, dagger=dagger, reward=reward, critic=critic, policy=policy)
    root = tmp_path_factory.mktemp("tiny") / "run"
    root.mkdir()
    write_json(root / "preset.json", to_json(preset))
    stages.collect_stage(preset, root, 1, stages.silent_bars)
    stages.train_stage(preset, root, preset.split(), stages.silent_bars, ("reward", "critic", "policy"))
    return root


@pytest.fixture
def files_of() -> Callable[[Path], dict[str, int]]:
    """Every file of a run folder with the time it was changed, but for caches and what SQLite keeps for readers."""

    def listed(root: Path) -> dict[str, int]:
        paths = (path for path in root.rglob("*") if path.is_file())
        kept = (
            path for path in paths if "features" not in path.parts and path.suffix not in (".sqlite-shm", ".sqlite-wal")
        )
        return {str(path.relative_to(root)): path.stat().st_mtime_ns for path in kept}

    return listed
