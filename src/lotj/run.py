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

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from lotj.checkpoint import load_state, read_header, save_state
from lotj.files import lock, to_json, write_atomic, write_json
from lotj.provenance import now, provenance

TENSORBOARD = "LOTJ_TENSORBOARD"
"""Where this environment variable is set, metrics are written as event files too."""


class RunMismatchError(ValueError):
    """The folder holds a run of another configuration."""


class Run:
    """A stage's folder.

    Args:
        out_dir: the folder; made by ``start``.
        stage: name of the stage, for example ``reward``.
        config: frozen dataclass of the stage's settings; everything in it must have a JSON form.
        seed: seed of the stage.
    """

    def __init__(self, out_dir: Path | str, stage: str, config: Any, seed: int) -> None:
        self.out_dir = Path(out_dir)
        self.stage = stage
        self.seed = seed
        self._identity = {"stage": stage, "seed": seed, "config": to_json(config)}
        self._tensorboard = bool(os.environ.get(TENSORBOARD))
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
            BusyError: if another process is at work here.
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
            write_atomic(metrics, whole)
        rows = read_metrics(self.out_dir)
        checkpoint = self._path("checkpoint.safetensors")
        saved = read_header(checkpoint)["seconds"] if checkpoint.exists() else 0.0
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
                self._writer = _event_writer(self.out_dir / "tensorboard", step)
            for name, value in metrics.items():
                self._writer.add_scalar(f"{self.stage}/{name}", float(value), step)

    def rewind(self, step: int) -> None:
        """Drop metrics of later steps than ``step``: they will be computed again from the checkpoint."""
        rows = [row for row in read_metrics(self.out_dir) if row["step"] <= step]
        write_atomic(self._path("metrics.jsonl"), "".join(json.dumps(row) + "\n" for row in rows).encode())

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
        done = {"stage": self.stage, "seconds": round(self.seconds, 3), "finished": now()}
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
        differing = list(differences({key: stored.get(key) for key in self._identity}, self._identity))
        if differing:
            shown = "; ".join(f"{name} is {old!r} there and {new!r} now" for name, old, new in differing[:5])
            more = f" (and {len(differing) - 5} more)" if len(differing) > 5 else ""
            raise RunMismatchError(
                f"{self.out_dir} holds a run with other settings: {shown}{more}. "
                "Choose another output folder, go back to the stored settings, or delete that folder to start over"
            )


def _event_writer(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # imported late: it costs a second
    except ImportError as error:
        raise ValueError(
            f"{TENSORBOARD} is set, but TensorBoard is not installed: pip install -e '.[tensorboard]', or unset it"
        ) from error
    return SummaryWriter(str(folder), purge_step=step)  # type: ignore[no-untyped-call]


def read_metrics(out_dir: Path | str) -> list[dict[str, Any]]:
    """Rows of a run's ``metrics.jsonl``, without a torn last one; empty if there is no such file."""
    path = Path(out_dir) / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1] == "\n"]


def differences(old: Any, new: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(Name, old, new) of every leaf in which two JSON values differ; None for one that is not there."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from differences(old.get(key), new.get(key), f"{name}.{key}" if name else str(key))
    elif old != new:
        yield name, old, new
