"""A Dask cluster on this machine, for as long as a flow takes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path

import dask
import psutil
from distributed import LocalCluster
from distributed.gc import disable_gc_diagnosis

from orca.cluster.machine.standing import dask_address
from orca.cluster.nodes.parts import DASK_SETTINGS, FORKED, MEMORY, PRELOAD, PRELOAD_NANNY
from orca.cluster.pools import POOLS, PoolName, load_pools
from orca.cluster.slots import install
from orca.config import Config
from orca.disk import make_folder

WORKER_GB = 4.0
"""Memory that a worker should have at least: WSClean takes 2.5 GB for the telescope's usual image."""


def default_workers() -> int:
    """Worker processes for this machine: one for every two cores, as far as the memory goes.

    WSClean's Fourier transforms use the second core. On two cores eight images take 1.09 times as long as bare WSClean
    with one worker (`benchmarks/imaging_flow.py`); a second one that reads and draws meanwhile makes it slower, since
    WSClean then waits for its own threads.
    """
    by_memory = int(psutil.virtual_memory().total / 1e9 / WORKER_GB)
    return max(1, min((os.cpu_count() or 1) // 2, by_memory))


def slot(settings: Config, pool: PoolName) -> tuple[int, float]:
    """Threads and memory in GB that one task may use: on a cluster those of its pool, else its share of the machine."""
    if dask_address(settings) is not None:
        known = load_pools().pools[pool]
        return known.threads, known.memory_gb
    own = settings.dask
    share = own.memory_gb or psutil.virtual_memory().total / 1e9 / (own.workers or default_workers())
    return os.cpu_count() or 1, share / own.threads


@contextmanager
def local_cluster(
    scratch: Path,
    *,
    workers: int | None = None,
    threads: int = 1,
    memory_gb: float | None = None,
    preload: Sequence[str] = (),
) -> Iterator[str]:
    """Run a scheduler and workers on the loopback interface; yields the scheduler's address.

    Parameters
    ----------
    scratch : Path
        Folder for what Dask keeps on disk.
    workers, threads : int
        Worker processes, and tasks that each runs at once.
    memory_gb : float, optional
        Memory of a worker process; its equal share of the machine when not given.
    preload : module names
        Imported by each worker before its first task.
    """
    count = workers or default_workers()
    memory = memory_gb * 1e9 if memory_gb else psutil.virtual_memory().total / count
    make_folder(scratch)
    with dask.config.set(DASK_SETTINGS | FORKED):
        with _interrupts_blocked():  # an interrupt at the terminal is the flow's; it ends the workers in its own way
            cluster = LocalCluster(
                n_workers=0,
                threads_per_worker=threads,
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                worker_dashboard_address=None,
                local_directory=str(scratch),
                memory_limit=int(memory),
                resources={**dict.fromkeys(POOLS, threads), MEMORY: memory / 1e9},
                preload=[*preload, PRELOAD],
                preload_nanny=[PRELOAD_NANNY],
            )
        with cluster:
            disable_gc_diagnosis()  # an interrupt that comes in its callback, which is in Python, would be lost
            install(cluster.scheduler)
            cluster.scale(count)  # the workers come while the caller goes on
            yield str(cluster.scheduler_address)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Threads that are started meanwhile, and the processes that they start, never get SIGINT.

    The resource tracker of multiprocessing lets SIGINT through again in the thread that starts it, so that has to be
    this one, and before.
    """
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
