"""Checkpoints: tensors and JSON in one safetensors file, verified by a hash. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_safetensors
from torch import Tensor

from lotj.files import write_atomic

_HEADER, _HASH, _TENSOR = "lotj", "sha256", "__tensor__"


class CheckpointError(ValueError):
    """A checkpoint is damaged or is not one of ours."""


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
    write_atomic(Path(path), save_safetensors(tensors, metadata={_HEADER: header, _HASH: digest}))


def load_state(path: Path | str) -> dict[str, Any]:
    """Read what ``save_state`` wrote.

    Raises:
        CheckpointError: if the file is damaged, or was not written by ``save_state``.
    """
    skeleton = read_header(Path(path))["state"]
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


def read_header(path: Path) -> dict[str, Any]:
    """The JSON of a checkpoint: ``state`` (its skeleton) and ``seconds``.

    Raises:
        CheckpointError: if the file is damaged, or not one of ours.
    """
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
