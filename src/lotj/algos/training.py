"""The loop of offline training, exact to the bit when it is killed and resumed, and what its learners share."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar, get_args, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from lotj.nets.bottleneck import Bottleneck
from lotj.seeds import stream_seed

BatchT = TypeVar("BatchT")
BatchT_contra = TypeVar("BatchT_contra", contravariant=True)
ConfigT = TypeVar("ConfigT")
Randomness = torch.Generator | np.random.Generator


class Trainable(Protocol[BatchT_contra]):
    """Anything the loop can train."""

    def update(self, batch: BatchT_contra, /) -> dict[str, float]:
        """Take one gradient step; return metrics."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that training changes: nested dicts, lists and tuples of tensors and JSON scalars."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore ``state_dict``."""
        ...


class TrainingRun(Protocol):
    """What the loop needs of ``lotj.run.Run``, named here by shape."""

    def log(self, step: int, **metrics: float) -> None: ...
    def rewind(self, step: int) -> None: ...
    def save_checkpoint(self, state: Mapping[str, Any]) -> None: ...
    def load_checkpoint(self) -> dict[str, Any] | None: ...


def train(
    learner: Trainable[BatchT],
    batches: Callable[[], BatchT],
    steps: int,
    run: TrainingRun,
    *,
    generators: Mapping[str, Randomness],
    log_every: int = 50,
    checkpoint_every: int = 500,
    threads: int = 2,
    progress: Callable[[int, Mapping[str, float]], None] | None = None,
) -> dict[str, float]:
    """Train until ``steps`` updates have been made, continuing from the run's checkpoint if it has one.

    An interrupted and resumed training ends with the same bits as one that was not, provided that ``batches`` draws all
    its randomness from ``generators`` at the moment it is called (nothing is read ahead).

    Args:
        learner: what is trained.
        batches: draws the next batch.
        steps: updates in all, those before an interruption included.
        run: receives metrics, averaged over ``log_every`` updates, and checkpoints.
        generators: every source of randomness behind ``batches``, by name; saved and restored.
        log_every: updates between two rows of metrics.
        checkpoint_every: updates between two checkpoints; a multiple of ``log_every``.
        threads: torch threads while training.
        progress: called at each row with the updates made so far and its metrics.

    Returns:
        The last row of metrics, of an earlier call where no update was left to make.

    Raises:
        ValueError: if ``checkpoint_every`` is not a multiple of ``log_every``: an average would be torn.
    """
    if log_every < 1 or checkpoint_every < 1 or checkpoint_every % log_every:
        raise ValueError(
            f"checkpoint_every ({checkpoint_every}) must be a positive multiple of log_every ({log_every})"
        )
    done, row = _resume(learner, run, generators)
    sums: dict[str, list[float]] = {}
    with torch_threads(threads):
        while done < steps:
            for name, value in learner.update(batches()).items():
                sums.setdefault(name, []).append(value)
            done += 1
            if done % log_every == 0 or done == steps:
                row = {name: sum(values) / len(values) for name, values in sums.items()}
                sums = {}
                run.log(done, **row)
                if progress is not None:
                    progress(done, row)
            if done % checkpoint_every == 0 or done == steps:
                states = {name: _random_state(generator) for name, generator in generators.items()}
                run.save_checkpoint({"step": done, "learner": learner.state_dict(), "generators": states, "row": row})
    return row


class GradientLearner:
    """A network, its Adam and its noise: what the offline learners have in common.

    Args:
        network: what is trained.
        identity: what ``from_state`` methods need to build the network again (config, sizes); saved with the state.
        learning_rate: of Adam.
        decay_steps: the rate follows ``cosine_decay`` over so many steps; 0 keeps it constant. Domain heads keep
            theirs.
        seed: the learner's; the noise in z_specific has a stream of its own.
        device: where the network lives; the fastest there is by default.
    """

    def __init__(
        self,
        network: nn.Module,
        identity: Mapping[str, Any],
        learning_rate: float,
        seed: int,
        device: torch.device | str | None = None,
        decay_steps: int = 0,
    ) -> None:
        self.device = torch.device(device) if device is not None else default_device()
        self._module = network.to(self.device)
        self._identity = dict(identity)
        self._learning_rate, self._decay_steps = learning_rate, decay_steps
        self.optimizer = adam(self._module, learning_rate)
        self.generator = torch.Generator().manual_seed(stream_seed(seed, "noise"))
        self.step = 0

    def state_dict(self) -> dict[str, Any]:
        """Network, Adam, noise and step: see ``Trainable``."""
        return {
            **self._identity,
            "network": {name: value.clone() for name, value in self._module.state_dict().items()},
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "generator": self.generator.get_state(),
            "step": self.step,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore ``state_dict``."""
        self._module.load_state_dict(state["network"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.generator.set_state(state["generator"])
        self.step = state["step"]

    def _descend(self, loss: Tensor) -> None:
        """One step of Adam down ``loss``.

        Raises:
            FloatingPointError: if the loss is not finite.
        """
        if not math.isfinite(loss.item()):
            raise FloatingPointError(
                f"{type(self).__name__}: loss is {loss.item()} at step {self.step}. Look for non-finite "
                "values in the batch, or lower the learning rate"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self._decay_steps:
            rate = self._learning_rate * cosine_decay(self.step, self._decay_steps)
            self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()
        self.step += 1


def cosine_decay(step: int, steps: int, warmup: int = 200) -> float:
    """Factor of the learning rate at ``step``: a linear rise over ``warmup`` steps times a half cosine from 1 to 0."""
    progress = min(step / steps, 1.0)
    return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * progress))


def adam(network: nn.Module, learning_rate: float) -> torch.optim.Adam:
    """Adam over all trainable parameters; domain heads learn at their ``domain_learning_rate``."""
    groups: list[dict[str, Any]] = []
    own_rate: set[int] = set()
    for module in network.modules():
        if isinstance(module, Bottleneck) and module.domain_head is not None:
            heads = list(module.domain_head.parameters())
            own_rate |= {id(parameter) for parameter in heads}
            groups.append({"params": heads, "lr": module.config.domain_learning_rate})
    rest = [p for p in network.parameters() if p.requires_grad and id(p) not in own_rate]
    return torch.optim.Adam([{"params": rest}, *groups], lr=learning_rate, fused=True)


def default_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Initialise modules from ``seed`` inside, and leave torch's global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        yield


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Use that many torch threads inside, and the former number afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def config_from(kind: type[ConfigT], fields: Mapping[str, Any]) -> ConfigT:
    """Build a (nested) config dataclass from what ``dataclasses.asdict`` or a JSON file gave."""
    hints = get_type_hints(kind)
    values = {}
    for name, value in fields.items():
        inner: Any = next(filter(dataclasses.is_dataclass, (hints.get(name), *get_args(hints.get(name)))), None)
        if inner is not None and isinstance(value, Mapping):
            value = config_from(inner, value)
        values[name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)


def _resume(
    learner: Trainable[Any], run: TrainingRun, generators: Mapping[str, Randomness]
) -> tuple[int, dict[str, float]]:
    """The steps that are done, and the last row of metrics."""
    state = run.load_checkpoint()
    if state is None:
        run.rewind(0)
        return 0, {}
    learner.load_state_dict(state["learner"])
    for name, generator in generators.items():
        if isinstance(generator, torch.Generator):
            generator.set_state(state["generators"][name])
        else:
            generator.bit_generator.state = state["generators"][name]
    step = int(state["step"])
    run.rewind(step)
    return step, state.get("row", {})


def _random_state(generator: Randomness) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    return generator.bit_generator.state
