"""Who may import whom (docs/architecture.md)."""

import ast
from pathlib import Path

import lotj

ROOT = Path(lotj.__file__).parent
MAY_IMPORT = {
    "types": set(),
    "stats": set(),
    "run": set(),
    "sim": {"types"},
    "data": {"types"},
    "nets": {"types"},
    "algos": {"types", "nets"},
    "rollout": {"types"},
    "judge": {"types"},
    "tables": {"types", "stats"},
    "evaluate": {"types", "stats", "rollout", "judge"},
    "practice": {"types", "rollout", "judge", "data", "algos", "nets", "run"},
    "collect": {"types", "rollout", "data", "sim"},
    "offline": {"types", "judge", "data", "algos", "nets", "run"},
}
NOT_IN_SIM = {"torch", "torchvision", "kornia"}


def imports(path: Path) -> set[str]:
    """Absolute names imported anywhere in a file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def room(path: Path) -> str:
    """The room of a file: its folder under lotj, or its own name."""
    relative = path.relative_to(ROOT)
    return relative.parts[0].removesuffix(".py")


def test_imports_lead_downwards():
    """A room imports only what its row allows, itself included."""
    for path in ROOT.rglob("*.py"):
        name = room(path)
        if name not in MAY_IMPORT:
            continue
        used = {module.split(".")[1] for module in imports(path) if module.startswith("lotj.")}
        assert used <= MAY_IMPORT[name] | {name}, f"{path.relative_to(ROOT)} imports {used - MAY_IMPORT[name] - {name}}"


def test_nothing_imports_the_command_line():
    """cli is a leaf."""
    for path in ROOT.rglob("*.py"):
        if room(path) not in ("cli", "__main__"):
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
