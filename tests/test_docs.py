"""What the documents tell people to type works: every ``lotj`` command parses, and those on ``debug`` run, in order."""

import functools
import json
import re
import shlex
import shutil
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from lotj import cli
from lotj.cells.mock_server import mock_robot
from lotj.cells.spec import ALIASES, SECTIONS
from lotj.data.store import TrajectoryStore

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
QUICK = ("lotj connectors", "lotj --help")
"""Commands that need no run; others are quick where they say ``debug``."""


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL)


def commands(document: Path) -> list[list[str]]:
    """The arguments of every ``lotj`` command of a document."""
    lines = "".join(blocks(document, "sh")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("lotj")]


def is_quick(arguments: list[str]) -> bool:
    line = shlex.join(["lotj", *arguments])
    return line.startswith(QUICK) or "debug" in line


EVERY_COMMAND = [(document.name, arguments) for document in DOCUMENTS for arguments in commands(document)]


@pytest.mark.parametrize(("document", "arguments"), EVERY_COMMAND)
def test_every_command_parses(document, arguments, monkeypatch):
    """Subcommand and options of every documented command exist, and their values have the right type."""
    called = []

    def stub(function):
        return functools.wraps(function)(lambda *_, **__: called.append(function))

    for name, function in cli.COMMANDS.items():
        monkeypatch.setitem(cli.COMMANDS, name, stub(function))
    cli.main(arguments)
    assert len(called) == 1


def test_every_subcommand_is_documented():
    """The documents use each subcommand at least once."""
    spelt = [(" ".join(arguments[:2]), arguments[0]) for _, arguments in EVERY_COMMAND]
    used = {two if two in cli.COMMANDS else one for two, one in spelt}
    assert used == set(cli.COMMANDS)


def test_every_field_of_a_cells_file_is_explained():
    """`lotj cell new` sends people to docs/cells.md for them."""
    spelt = {field: name for (_, name), field in ALIASES.items()}
    fields = {spelt.get(field, field) for section in SECTIONS.values() for field in section}
    lines = (ROOT / "docs" / "cells.md").read_text(encoding="utf-8").splitlines()
    rows = "".join(line.split("|")[1] for line in lines if line.startswith("| ") and line.count("|") > 2)
    assert fields <= set(re.findall(r"`(\w+)`", rows))


def test_quick_commands_run(tmp_path, monkeypatch):
    """The README's commands on the ``debug`` preset run one after the other, and its Python works on what they left."""
    readme = DOCUMENTS[0]
    monkeypatch.chdir(tmp_path)
    for arguments in filter(is_quick, commands(readme)):
        cli.main([{"2": "1"}.get(value, value) if arguments[0] == "collect" else value for value in arguments])
    assert (tmp_path / "runs/debug/report.html").exists()
    assert (tmp_path / "gallery.png").exists()
    for arguments in filter(is_quick, commands(ROOT / "docs/your-data.md")):
        cli.main(arguments)
    for page in (readme, ROOT / "docs/cells.md"):
        for block in blocks(page, "python"):
            exec(compile(block, str(page), "exec"), {})
    monkeypatch.chdir(tmp_path / "runs/debug/data")
    for block in blocks(ROOT / "docs/data.md", "python"):
        exec(compile(block, "docs/data.md", "exec"), {})


def test_the_rehearsal_on_an_own_cell_runs(tmp_path, monkeypatch, capsys):
    """``docs/cells.md``: the commands on the rehearsal, from a cell's file to a library with one more connector, and to
    the job, which networks of this size rarely do."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for arguments in commands(ROOT / "docs/cells.md"):
        if "rehearsal" in shlex.join(arguments):
            with suppress(SystemExit) if arguments[0] == "insert" else nullcontext():
                cli.main(arguments)
    out = capsys.readouterr().out
    assert "hdmi-a: runs/rehearsal/practice/hdmi-a/ensemble-learned-rehearsal-s0" in out
    assert "Not inserted in" in out or "Inserted, attempt" in out
    practised = tmp_path / "runs/rehearsal/practice/hdmi-a/ensemble-learned-rehearsal-s0"
    assert (practised / "done.json").exists()
    with TrajectoryStore(tmp_path / "runs/rehearsal/library.sqlite") as library:
        assert set(library.index.connector.tolist()) == {"hdmi-a"}
        assert not library.privileged("success").astype(bool)[library.index.frame_offset[:-1]].any()


def test_the_rehearsal_over_http_runs(tmp_path, monkeypatch):
    """``docs/your-cell-http.md``: collection, training and practice through HTTP, from and with the mock server."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").mkdir()
    with mock_robot("usb-a") as server:
        text = (ROOT / "examples/serl_http.toml").read_text()
        (tmp_path / "examples/serl_http.toml").write_text(text.replace("http://127.0.0.1:5000", server.url))
        for arguments in commands(ROOT / "docs/your-cell-http.md"):
            if "runs/http" in arguments:
                cli.main(arguments)
    practised = tmp_path / "runs/http/practice/hdmi-a/ensemble-learned-gate-serl-http-s0"
    assert (practised / "done.json").exists()
    assert len((practised / "trials.jsonl").read_text().splitlines()) == 3
    evaluation = json.loads((practised / "evaluation-after.json").read_text())
    assert {row["trials"] for row in evaluation["summary"].values()} == {2}


def test_the_path_to_a_connector_of_ones_own_runs(tmp_path, monkeypatch, capsys):
    """Every ``lotj connectors`` command of the walk-through works in its order, on the meshes that its Python writes
    and the file that it shows."""
    pytest.importorskip("coacd")
    page = ROOT / "docs/your-connector.md"
    monkeypatch.chdir(tmp_path)
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), {})
    (tmp_path / "peg.toml").write_text("".join(blocks(page, "toml")))
    ran = [cli.main(arguments) for arguments in commands(page) if is_quick(arguments)]
    assert len(ran) == 4
    assert capsys.readouterr().out.count("fit to be practised") == 2
    assert {path.name for path in tmp_path.glob("*.png")} == {"bench-plug.png", "peg.png"}


def test_links_lead_somewhere():
    """Every relative link and picture of a document exists, and every anchor has its heading."""
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
            path, _, anchor = target.partition("#")
            if "://" in path:
                continue
            linked = (document.parent / path) if path else document
            assert linked.exists(), f"{document.name} links to {target}"
            if anchor:
                headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
                slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
                assert anchor in slugs, f"{document.name} links to {target}"


def test_no_registry_and_no_machine_in_any_file():
    """No committed text names a package registry's host or an absolute path of somebody's machine."""
    hosts = ("pypi" + ".org", "download.pytorch" + ".org", "/home" + "/", "/work" + "/")
    for path in [
        *DOCUMENTS,
        ROOT / "Makefile",
        ROOT / "pyproject.toml",
        ROOT / ".ci/run",
        *(ROOT / "src").rglob("*.py"),
    ]:
        text = path.read_text()
        assert not [host for host in hosts if host in text], path
