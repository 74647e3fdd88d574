"""Many tasks at once on dask: a process for each core of this machine, or the workers of a cluster's scheduler."""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from smellkit.errors import OptionError


@contextmanager
def workers(scheduler: str = "", *, count: int) -> Iterator[Executor]:
    """The workers of a dask `scheduler` (tcp://HOST:PORT), or `count` processes here that end with the block.

    A task whose worker dies is given to another one; ImportError where dask is absent.
    """
    import dask
    from distributed import Client, LocalCluster

    if count < 1:  # tasks would wait for ever
        raise OptionError(f"There are {count} workers", hint="1 or more")
    if scheduler:
        try:
            client = Client(scheduler, timeout=5)
        except (OSError, ValueError) as why:
            hint = "the address that `dask scheduler` prints, tcp://HOST:PORT"
            raise OptionError(f"No dask scheduler answers at {scheduler}: {why}", hint=hint) from why
        with client:
            yield client.get_executor(pure=False)
        return
    quiet = {"dashboard_address": "127.0.0.1:0", "silence_logs": "ERROR"}  # any free port: two batches may run
    # workers would hand back all memory above 64 KiB; a step of training that asks for it anew takes half as long again
    keeping = {"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None}
    with (
        dask.config.set(keeping | {"distributed.scheduler.allowed-failures": 1}),
        LocalCluster(n_workers=count, threads_per_worker=1, host="127.0.0.1", **quiet) as local,
        Client(local) as client,
    ):
        yield client.get_executor(pure=False)
