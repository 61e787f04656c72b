"""Where a result comes from: what is written beside every number."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("lotj", "torch", "torchvision", "mujoco", "gymnasium", "numpy")


def provenance() -> dict[str, Any]:
    """Command line, commit, versions, platform and time: what a result file needs beside its numbers."""
    where = {"versions": versions(), "platform": platform.platform()}
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return {"command": command, "git": _git(), **where, "started": now()}


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that a result depends on; None where one is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def _git() -> dict[str, Any] | None:
    """Commit and dirty flag of the checkout this package is tracked in; None where it is installed without one."""

    def git(*arguments: str) -> str:
        here = Path(__file__).resolve()
        done = subprocess.run(
            ["git", *arguments], cwd=here.parent, capture_output=True, text=True, check=True, timeout=10
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
