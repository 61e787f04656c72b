"""A run folder: what was asked, with which versions, what came out, and enough to continue after a kill.

    config.json              stage, seed, config, command line, commit, versions; written once
    metrics.jsonl            one row a log: step, cumulative wall seconds, metrics
    checkpoint.safetensors   the whole state: tensors, and JSON in the file's header; content hash verified on reading
    done.json                summary and seconds; its presence says that the stage is complete
    lock                     held by the process at work

Every file is written whole and renamed into place, or appended a line at a time, so a kill at any instant leaves a
folder that can be continued. Nothing is ever unpickled.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_safetensors
from torch import Tensor

PACKAGES = ("lotj", "torch", "torchvision", "mujoco", "gymnasium", "numpy")
LOCK_SECONDS = 4.0
"""How long a run folder's lock is waited for."""
_HEADER, _HASH, _TENSOR = "lotj", "sha256", "__tensor__"


class RunMismatchError(ValueError):
    """The folder holds a run of another configuration."""


class RunBusyError(ValueError):
    """Another process works in the folder."""


class CheckpointError(ValueError):
    """A checkpoint is damaged or is not one of ours."""


class Run:
    """A stage's folder.

    Args:
        out_dir: the folder; made by ``start``.
        stage: name of the stage, for example ``reward``.
        config: frozen dataclass of the stage's settings; everything in it must have a JSON form.
        seed: seed of the stage.
        tensorboard: also write event files, at the first ``log``.
    """

    def __init__(self, out_dir: Path | str, stage: str, config: Any, seed: int, *, tensorboard: bool = False) -> None:
        self.out_dir = Path(out_dir)
        self.stage = stage
        self.seed = seed
        self._identity = {"stage": stage, "seed": seed, "config": to_json(config)}
        self._tensorboard = tensorboard
        self._writer: Any = None
        self._started: float | None = None
        self._seconds_before = 0.0
        self._lock: IO[bytes] | None = None

    def is_done(self) -> bool:
        """Whether this very stage (same stage, seed and config) is complete here, and can be reused.

        Raises:
            RunMismatchError: if the folder holds a run of another configuration.
        """
        self._check_identity()
        return self._path("done.json").exists()

    def start(self) -> Run:
        """Make the folder or continue it: write the config, repair a torn last row of metrics, resume the clock.

        Raises:
            RunMismatchError: if the folder holds a run of another configuration.
            RunBusyError: if another process is at work here.
        """
        self._check_identity()
        self.out_dir.mkdir(parents=True, exist_ok=True)
        self._lock = lock(self._path("lock"))
        if not self._path("config.json").exists():
            write_json(self._path("config.json"), self._identity | provenance())
        metrics = self._path("metrics.jsonl")
        if metrics.exists():
            whole = metrics.read_bytes()
            whole = whole[: whole.rfind(b"\n") + 1]
            _write_atomic(metrics, whole)
        rows = read_metrics(self.out_dir)
        checkpoint = self._path("checkpoint.safetensors")
        saved = _read_header(checkpoint)["seconds"] if checkpoint.exists() else 0.0
        self._seconds_before = max([saved, *(row["seconds"] for row in rows[-1:])])
        self._started = time.monotonic()
        return self

    @property
    def seconds(self) -> float:
        """Wall seconds spent on this stage, those before a kill included."""
        if self._started is None:
            raise RuntimeError(f"run {self.out_dir} is not started: call start() first")
        return self._seconds_before + time.monotonic() - self._started

    def log(self, step: int, **metrics: float) -> None:
        """Append a row to ``metrics.jsonl``."""
        row = {"step": step, "seconds": round(self.seconds, 3)} | {k: float(v) for k, v in metrics.items()}
        with self._path("metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self._tensorboard:
            if self._writer is None:
                from torch.utils.tensorboard import SummaryWriter  # imported late: it costs a second

                self._writer = SummaryWriter(str(self.out_dir / "tensorboard"), purge_step=step)  # type: ignore[no-untyped-call]
            for name, value in metrics.items():
                self._writer.add_scalar(f"{self.stage}/{name}", float(value), step)

    def rewind(self, step: int) -> None:
        """Drop metrics of later steps than ``step``: they will be computed again from the checkpoint."""
        rows = [row for row in read_metrics(self.out_dir) if row["step"] <= step]
        _write_atomic(self._path("metrics.jsonl"), "".join(json.dumps(row) + "\n" for row in rows).encode())

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint by ``state`` (see ``save_state``)."""
        save_state(self._path("checkpoint.safetensors"), state, seconds=self.seconds)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last state saved, or None.

        Raises:
            CheckpointError: if the file is damaged.
        """
        path = self._path("checkpoint.safetensors")
        return load_state(path) if path.exists() else None

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Mark the stage complete: ``done.json`` with the summary and the wall seconds."""
        if self._writer is not None:
            self._writer.close()
        done = {"stage": self.stage, "seconds": round(self.seconds, 3), "finished": _now()}
        write_json(self._path("done.json"), done | {"summary": to_json(summary)})
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _path(self, name: str) -> Path:
        return self.out_dir / name

    def _check_identity(self) -> None:
        path = self._path("config.json")
        if not path.exists():
            return
        stored = json.loads(path.read_text(encoding="utf-8"))
        differing = list(_differences({key: stored.get(key) for key in self._identity}, self._identity))
        if differing:
            shown = "; ".join(f"{name} is {old!r} there and {new!r} now" for name, old, new in differing[:5])
            more = f" (and {len(differing) - 5} more)" if len(differing) > 5 else ""
            raise RunMismatchError(
                f"{self.out_dir} holds a run with other settings: {shown}{more}. "
                "Choose another output folder, go back to the stored settings, or delete that folder to start over"
            )


def lock(path: Path) -> IO[bytes]:
    """Take a lock file for this process; the system frees it when the file is closed or the process ends, however.

    Waits ``LOCK_SECONDS`` for it: a process whose parent was killed needs a moment to notice.

    Raises:
        RunBusyError: another process has it.
    """
    file = path.open("ab")
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except OSError as error:
            if time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            file.close()
            raise RunBusyError(
                f"another process is at work in {path.parent}; wait until it is done or stop it, then repeat the "
                "command"
            ) from error


def read_metrics(out_dir: Path | str) -> list[dict[str, Any]]:
    """Rows of a run's ``metrics.jsonl``, without a torn last one; empty if there is no such file."""
    path = Path(out_dir) / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1] == "\n"]


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; not-a-number becomes null."""
    write_text(path, json.dumps(to_json(value), indent=2, allow_nan=False) + "\n")


def write_text(path: Path | str, text: str) -> None:
    """Write a file whole, or leave what was there."""
    _write_atomic(Path(path), text.encode())


def to_json(value: Any, name: str = "value") -> Any:
    """The JSON form of configs and summaries: dataclasses become objects, sequences lists, paths strings, NaN null.

    Raises:
        TypeError: if something inside has no JSON form; names it.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name), f"{name}.{f.name}") for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return to_json(value._asdict(), name)
    if isinstance(value, list | tuple | np.ndarray):
        return [to_json(item, f"{name}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, np.generic):
        return to_json(value.item(), name)
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            return None
        raise TypeError(f"{name} is {value}, which has no JSON form; look for what divided by zero or overflowed")
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}, which has no JSON form")


def save_state(path: Path | str, state: Mapping[str, Any], seconds: float = 0.0) -> None:
    """Save nested dicts, lists and tuples of tensors and JSON scalars in one safetensors file, atomically.

    Tensors are the file's tensors; all else is JSON in its header. Module, Adam and generator states fit as they are.

    Args:
        path: of the file.
        state: for example ``{"network": module.state_dict(), "optimizer": optimizer.state_dict(), "step": 7}``.
        seconds: wall seconds spent so far.
    """
    tensors, skeleton = split_state(state)
    header = json.dumps({"state": skeleton, "seconds": seconds})
    digest = _content_hash(tensors, header)
    _write_atomic(Path(path), save_safetensors(tensors, metadata={_HEADER: header, _HASH: digest}))


def load_state(path: Path | str) -> dict[str, Any]:
    """Read what ``save_state`` wrote.

    Raises:
        CheckpointError: if the file is damaged, or was not written by ``save_state``.
    """
    skeleton = _read_header(Path(path))["state"]
    with safe_open(str(path), framework="pt") as file:  # type: ignore[no-untyped-call]
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        stored = file.metadata()
    if _content_hash(tensors, stored[_HEADER]) != stored[_HASH]:
        raise CheckpointError(f"{path} is damaged: its content does not match its hash. Delete it to start over")
    state = join_state(tensors, skeleton)
    assert isinstance(state, dict)
    return state


def split_state(state: Any) -> tuple[dict[str, Tensor], Any]:
    """Split a nested state into named tensors and a JSON skeleton that says where they go.

    Memory layout (channels-last) is kept: elementwise kernels may round differently over another layout.

    Raises:
        TypeError: if something is neither a tensor, a container, nor a JSON scalar; names it.
    """
    tensors: dict[str, Tensor] = {}

    def walk(value: Any, name: str) -> Any:
        if isinstance(value, Tensor):
            channels_last = value.ndim == 4 and not value.is_contiguous()
            channels_last = channels_last and value.is_contiguous(memory_format=torch.channels_last)
            tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
            return {_TENSOR: name, "channels_last": channels_last}
        if isinstance(value, Mapping):
            return {"dict": [[key, walk(item, f"{name}/{key}")] for key, item in value.items()]}
        if isinstance(value, list | tuple):
            items = [walk(item, f"{name}/{index}") for index, item in enumerate(value)]
            return {"tuple": items} if isinstance(value, tuple) else items
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise TypeError(
            f"{name} is a {type(value).__name__}; a state holds tensors, dicts, lists, tuples and JSON scalars"
        )

    return tensors, walk(state, "state")


def join_state(tensors: Mapping[str, Tensor], skeleton: Any) -> Any:
    """The inverse of ``split_state``."""
    if isinstance(skeleton, list):
        return [join_state(tensors, item) for item in skeleton]
    if not isinstance(skeleton, dict):
        return skeleton
    if _TENSOR in skeleton:
        layout = torch.channels_last if skeleton["channels_last"] else torch.contiguous_format
        return tensors[skeleton[_TENSOR]].contiguous(memory_format=layout)
    if "tuple" in skeleton:
        return tuple(join_state(tensors, item) for item in skeleton["tuple"])
    return {key: join_state(tensors, item) for key, item in skeleton["dict"]}


def _read_header(path: Path) -> dict[str, Any]:
    try:
        with safe_open(str(path), framework="pt") as file:  # type: ignore[no-untyped-call]
            stored = file.metadata() or {}
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged: {error}. Delete it to start over") from error
    if _HEADER not in stored or _HASH not in stored:
        raise CheckpointError(f"{path} is a safetensors file but not a lotj checkpoint")
    header: dict[str, Any] = json.loads(stored[_HEADER])
    return header


def _content_hash(tensors: Mapping[str, Tensor], header: str) -> str:
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _write_atomic(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _differences(old: Any, new: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _differences(old.get(key), new.get(key), f"{name}.{key}" if name else str(key))
    elif old != new:
        yield name, old, new


def provenance() -> dict[str, Any]:
    """Command line, commit, versions, platform and time: what a result file needs beside its numbers."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    where = {"versions": versions, "platform": platform.platform()}
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return {"command": command, "git": _git(), **where, "started": _now()}


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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
