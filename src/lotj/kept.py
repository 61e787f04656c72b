"""Objects that live in workers of a Ray cluster, a process each, for what is slow to build and used again and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lotj.distributed import RETRIES, Call, ClusterError, RayCluster, as_sent, checked, connect, cpus_of, seen, take


class Kept:
    """Objects that live in workers of a cluster, a process each, and are built anew where one was killed.

    Args:
        builders: build them, there.
        names: of the objects, for errors.
        cluster: where.

    Raises:
        ClusterError: it cannot be reached, or has fewer CPUs than there are objects.
    """

    def __init__(self, builders: Sequence[Callable[[], Any]], names: Sequence[str], cluster: RayCluster) -> None:
        self._ray = connect(cluster)
        self._names = list(names)
        if (cpus := cpus_of(self._ray)) < len(builders):
            raise ClusterError(
                f"{', '.join(names)} want a CPU each, the Ray cluster has {cpus}: join more nodes, or name fewer"
            )
        remote = self._ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=RETRIES)(_Keeper)
        with seen(()) as call:
            self._call = call
        self._keepers = [remote.remote() for _ in builders]
        # Held here, not by the keepers: one that is started anew has nothing but what it is called with.
        self._builders = [self._ray.put(self._ray.cloudpickle.dumps(builder)) for builder in builders]

    def call(self, method: str, common: Any, arguments: Sequence[Any]) -> list[Any]:
        """``method(common, argument)`` of the first objects, one for each argument, at the same time.

        A call whose worker was killed is made again, so it may depend on nothing but its arguments.

        Raises:
            TaskKilledError: its worker was killed ``RETRIES`` more times.
            Exception: what the method raised, with a note of the object's name.
            OtherVersionError: a node has other code or libraries.
        """
        once = self._ray.put(common)
        called = [
            (keeper.do.remote(self._call, [builder], method, name, once, argument), f"{method} of {name}")
            for keeper, builder, name, argument in zip(self._keepers, self._builders, self._names, arguments)
        ]
        return [take(self._ray, *one) for one in called]

    def close(self) -> None:
        """End the processes."""
        for keeper in self._keepers:
            self._ray.kill(keeper)


class _Keeper:
    """Lives in a worker. The object is built at the first call, so that an error in it is that call's."""

    def __init__(self) -> None:
        self._object: Any = None

    def do(self, call: Call, builder: list[Any], method: str, name: str, common: Any, argument: Any) -> Any:
        """Call a method of the object; ``builder`` is in a list lest it be fetched at every call."""
        if self._object is None:
            checked(call)
        import ray

        try:
            if self._object is None:
                self._object = ray.cloudpickle.loads(ray.get(builder[0]))()
            return getattr(self._object, method)(common, argument)
        except Exception as error:
            raise as_sent(error, f"{method} of {name}") from error
