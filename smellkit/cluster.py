"""Many tasks at once on dask: a process for each core of this machine, or the workers of a cluster's scheduler.

Where there is nothing to share, or no dask, tasks run here, one after another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from smellkit.errors import OptionError, SmellkitError


class Lost(SmellkitError):
    """A task whose workers died, called `name`."""

    def __init__(self, name: str):
        super().__init__(f"{name}: every worker that had it died", hint="more memory, or fewer workers")
        self.name = name


class Here:
    """This process: one task after another, in the order in which they were submitted."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[str, Callable, dict]] = deque()

    def submit(self, name: str, function: Callable, /, **given: Any) -> None:
        """Ask for `function(**given)`; `next` gives its result under `name`."""
        self._waiting.append((name, function, given))

    def next(self) -> tuple[str, Any]:
        """Name and result of the next task that ends."""
        name, function, given = self._waiting.popleft()
        return name, function(**given)


class There:
    """The workers of a dask `client`, used as `Here` is. A task whose worker dies is given to another one."""

    def __init__(self, client: Any):
        from distributed import as_completed

        self._client, self._done = client, as_completed([])
        self._names: dict[Any, str] = {}

    def submit(self, name: str, function: Callable, /, **given: Any) -> None:
        """As `Here` does; `function` and what is given go to another process."""
        future = self._client.submit(_call, function, given, pure=False)
        self._names[future] = name
        self._done.add(future)

    def next(self) -> tuple[str, Any]:
        """As `Here` does; `Lost` when no worker survives the task."""
        from distributed import KilledWorker

        future = next(self._done)
        name = self._names.pop(future)
        try:
            return name, future.result()
        except KilledWorker as why:
            raise Lost(name) from why


def _call(function: Callable, given: dict[str, Any]) -> Any:
    return function(**given)


@contextmanager
def workers(scheduler: str = "", *, count: int) -> Iterator[There]:
    """The workers of a dask `scheduler` (tcp://HOST:PORT), or `count` processes here that end with the block."""
    import dask
    from distributed import Client, LocalCluster

    if scheduler:
        try:
            client = Client(scheduler, timeout=5)
        except (OSError, ValueError) as why:
            hint = "the address that `dask scheduler` prints, tcp://HOST:PORT"
            raise OptionError(f"No dask scheduler answers at {scheduler}: {why}", hint=hint) from why
        with client:
            yield There(client)
        return
    quiet = {"dashboard_address": "127.0.0.1:0", "silence_logs": "ERROR"}  # any free port: two batches may run
    # workers would hand back all memory above 64 KiB; a step of training that asks for it anew takes half as long again
    keeping = {"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None}
    with (
        dask.config.set(keeping | {"distributed.scheduler.allowed-failures": 1}),
        LocalCluster(n_workers=count, threads_per_worker=1, host="127.0.0.1", **quiet) as local,
        Client(local) as client,
    ):
        yield There(client)
