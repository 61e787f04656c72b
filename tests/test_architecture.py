"""Who may import whom (docs/architecture.md)."""

import ast
from pathlib import Path

import lotj

ROOT = Path(lotj.__file__).parent
RUN = {"files", "provenance", "checkpoint", "run"}
# From the ground up: a row allows only rooms of rows above it.
MAY_IMPORT = {
    "types": set(),
    "stats": set(),
    "files": {"types"},
    "provenance": set(),
    "checkpoint": {"files"},
    "run": {"files", "provenance", "checkpoint"},
    "seeds": set(),
    "parallel": set(),
    "distributed": {"parallel", "provenance"},
    "kept": {"distributed"},
    "sim": {"types", "files"},
    "data": {"types", "files"},
    "nets": {"types"},
    "algos": {"types", "nets", "seeds"},
    "rollout": {"types"},
    "judge": {"types"},
    "guard": {"types", "files"},
    "preflight": {"types", "stats", "rollout", "judge"},
    "trials": {"types", "files", "judge", "guard"},
    "keeping": {"types", "guard", "trials", "data"},
    "tables": {"types", "stats"},
    "evaluate": {"types", "stats", "files", "rollout", "judge"},
    "comparison": {"types", "stats", "evaluate"},
    "relabel": set(),
    "online": {"types", "data", "algos"},
    "fleet": {"types", "distributed", "kept", "rollout", "judge", "guard", "trials", "algos", "online"},
    "practice": {"types", "judge", "guard", "trials", "data", "algos", "nets", "online", "fleet"} | RUN,
    "collect": {"types", "files", "provenance", "distributed", "rollout", "data", "sim"},
    "cells": {"types", "seeds", "files", "rollout", "data", "sim"},
    "open_fleet": {"types", "cells", "sim", "algos", "judge", "guard", "trials", "fleet"},
    "check": {"types", "rollout", "sim"},
    "reward_validation": {"types", "judge", "algos", "data"},
    "offline": {"types", "seeds", "judge", "data", "algos", "nets", "relabel", "reward_validation"} | RUN,
    "dagger": {"types", "sim", "data", "algos", "rollout", "collect", "distributed", "relabel", "offline"},
    "encoding": {"types", "data", "algos", "offline"} | RUN,
    "report": {"types", "stats", "nets", "data", "evaluate", "comparison"} | RUN,
    "split": {"cells", "sim", "offline"},
    "recipe": {"data", "algos", "guard", "judge", "practice", "preflight", "trials", "offline", "encoding"} | RUN,
    "pipeline": {
        "split",
        "types",
        "seeds",
        "sim",
        "cells",
        "fleet",
        "open_fleet",
        "data",
        "algos",
        "judge",
        "evaluate",
        "practice",
        "trials",
        "preflight",
        "offline",
        "encoding",
        "recipe",
    }
    | RUN,
    "presets": {
        "split",
        "types",
        "sim",
        "nets",
        "data",
        "algos",
        "evaluate",
        "practice",
        "collect",
        "dagger",
        "offline",
        "encoding",
        "recipe",
        "preflight",
    },
    "redteam": {
        "types",
        "stats",
        "seeds",
        "sim",
        "data",
        "guard",
        "trials",
        "parallel",
        "offline",
        "pipeline",
        "recipe",
        "presets",
    }
    | RUN,
    "stages": {"sim", "data", "collect", "dagger", "distributed", "encoding", "offline", "parallel", "report"}
    | RUN
    | {"recipe", "presets", "redteam"},
    "learned": {
        "types",
        "rollout",
        "guard",
        "cells",
        "algos",
        "judge",
        "offline",
        "recipe",
        "presets",
        "redteam",
        "stages",
    }
    | RUN,
    "film": {"types", "files", "cells", "presets", "stages", "sim", "rollout", "evaluate", "learned", "report"},
    "evaluating": {"cells", "data", "offline", "learned", "pipeline", "recipe", "presets", "stages"} | RUN,
    "demo": {"split", "types", "cells", "data", "algos", "trials", "preflight", "judge", "offline", "evaluating"}
    | {"learned"}
    | RUN
    | {"fleet", "pipeline", "recipe", "presets", "parallel", "redteam", "keeping", "stages"},
    "outcome": {"types", "stats", "evaluate", "comparison", "presets", "report"} | RUN,
    "speed": {"types", "sim", "data", "nets", "algos", "rollout", "presets"},
    "experiments": {
        "redteam",
        "split",
        "types",
        "stats",
        "seeds",
        "sim",
        "data",
        "nets",
        "algos",
        "tables",
        "evaluate",
        "practice",
        "collect",
        "dagger",
        "judge",
        "reward_validation",
        "offline",
        "pipeline",
        "recipe",
        "presets",
        "demo",
        "stages",
        "outcome",
    }
    | RUN,
}
LEAVES = {"__init__", "console"} | {path.stem for path in ROOT.glob("cli*.py")}
"""May import anything; only the command line imports them."""
NOT_IN_SIM = {"torch", "torchvision", "kornia"}


def imports(path: Path) -> set[str]:
    """Absolute names imported anywhere in a file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            if node.module == "lotj":
                names |= {f"lotj.{alias.name}" for alias in node.names}
    return names


def room(path: Path) -> str:
    """The room of a file: its folder under lotj, or its own name."""
    relative = path.relative_to(ROOT)
    return relative.parts[0].removesuffix(".py")


def test_every_room_has_a_row():
    """No room escapes the rule, and no row outlives its room."""
    assert {room(path) for path in ROOT.rglob("*.py")} - LEAVES == set(MAY_IMPORT)


def test_the_rows_lead_downwards():
    """The table itself has no cycle: a row names only rooms of rows above it."""
    above = set()
    for name, allowed in MAY_IMPORT.items():
        assert allowed <= above, f"{name} may import {allowed - above}, which stand at or below it"
        above.add(name)


def test_imports_lead_downwards():
    """A room imports only what its row allows, itself included."""
    for path in ROOT.rglob("*.py"):
        name = room(path)
        if name in LEAVES:
            continue
        used = {module.split(".")[1] for module in imports(path) if module.startswith("lotj.")}
        assert used <= MAY_IMPORT[name] | {name}, f"{path.relative_to(ROOT)} imports {used - MAY_IMPORT[name] - {name}}"


def test_nothing_imports_the_command_line():
    """cli is a leaf."""
    for path in ROOT.rglob("*.py"):
        if room(path) != "cli":
            assert "lotj.cli" not in imports(path), path


def test_the_simulator_never_imports_torch():
    """sim runs where torch is not installed."""
    for path in (ROOT / "sim").rglob("*.py"):
        assert not {module.split(".")[0] for module in imports(path)} & NOT_IN_SIM, path


def test_only_the_command_line_prints():
    """Library code returns values; cli prints."""
    for path in ROOT.rglob("*.py"):
        if room(path) == "cli":
            continue
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"], path
