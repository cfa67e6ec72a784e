"""How the parts of a Dask cluster are started: one scheduler, and the worker processes of each node.

A part is a command line and what its environment has to say besides, so that whoever supervises it, `orca up` or
systemd, starts the same. Neither holds a secret.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orca.cluster.pools import VARIABLE as POOLS_VARIABLE
from orca.cluster.pools import WorkPools
from orca.cluster.security import tls_settings
from orca.cluster.server import PATIENT
from orca.config import Config
from orca.errors import InputError

TRIM = "MALLOC_TRIM_THRESHOLD_"
"""With it, which Dask sets for its workers, each large array is new memory: staging and WSClean take longer by that."""
DASK_SETTINGS: dict[str, Any] = {
    "distributed.admin.low-level-log-length": 20,  # else the scheduler grows by 50 kB a task
    "distributed.scheduler.no-workers-timeout": "15 minutes",  # else a flow without workers waits for ever
    "distributed.scheduler.worker-ttl": "30 minutes",  # casacore holds the interpreter's lock for long
    "distributed.scheduler.allowed-failures": 2,
    "distributed.scheduler.work-stealing": False,  # a task is where it has a slot: orca.cluster.slots
    "distributed.worker.profile.enabled": False,  # looks at all threads a hundred times a second
    "distributed.admin.tick.interval": "500ms",  # 20 ms; these three are most of what an idle process uses
    "distributed.admin.system-monitor.interval": "2s",
    "distributed.worker.memory.monitor-interval": "500ms",  # 100 ms; the nanny ends a process above its memory
    f"distributed.nanny.pre-spawn-environ.{TRIM}": None,
    "distributed.comm.timeouts.connect": "60s",
    "distributed.worker.memory.pause": False,  # orca.cluster.nodes.node pauses a worker, and Dask would have it go on
    "distributed.worker.memory.spill": False,  # results are paths
    "distributed.worker.memory.target": False,
    "distributed.deploy.lost-worker-timeout": "1000 hours",  # else one that dies again within 15 s is given up for good
}
"""Of every scheduler and worker, on one machine and on a cluster."""
FORKED = {"distributed.worker.multiprocessing-method": "forkserver"}
"""Of workers whose nannies preload `PRELOAD_NANNY`."""
PRELOAD = "orca.cluster.worker"
PRELOAD_SCHEDULER = "orca.cluster.slots"
PRELOAD_NANNY = "orca.cluster.nodes.nanny"
NODE_VARIABLE = "ORCA_NODE"
"""Name of the node that a worker process belongs to; not set where a flow has a cluster of its own."""
LEAVING_TOPIC = "orca-leaving"
"""Where a worker process says that it ends, and that Prefect's server knows all that its tasks did."""
MEMORY = "memory_gb"
"""Dask resource of a worker process: its memory limit in 1e9 bytes, for tasks that ask for much."""
SCHEDULER_PORT = 8786


@dataclass(frozen=True)
class Part:
    """A process to be started and supervised.

    Attributes
    ----------
    name : str
        Unique in the cluster: ``dask-scheduler``, or a worker's name as Dask knows it, ``<host>-<i>``.
    argv : tuple of str
    environment : dict
        What it needs besides the caller's environment.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]

    def full_environment(self) -> dict[str, str]:
        """The environment of this process with the part's own; no other settings of Dask are passed on."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DASK_")}
        return {**kept, **self.environment}


def trigger_part(environment: Mapping[str, str] = {}) -> Part:
    """The process that takes messages from RabbitMQ; which, and whose, the configuration says."""
    return Part("trigger", (str(Path(sys.executable).with_name("orca")), "trigger"), environment)


def metrics_part(port: int, environment: Mapping[str, str] = {}) -> Part:
    """The process that Prometheus asks."""
    return Part("metrics", (str(Path(sys.executable).with_name("orca")), "metrics", "--port", str(port)), environment)


def scheduler_part(
    settings: Config, *, port: int = SCHEDULER_PORT, dashboard_port: int | None = None, file: str | None = None
) -> Part:
    """The scheduler; it listens on `network.host`.

    Parameters
    ----------
    settings : Config
    port : int
        0: any free one.
    dashboard_port : int, optional
        Of its web page on the same interface (0: any free one); without it there is none. The page has no password.
    file : path, optional
        Gets the scheduler's address, as JSON, when it listens.
    """
    host = settings.network.host
    argv = (*_dask("scheduler"), "--host", host, "--port", str(port))
    argv += ("--dashboard-address", f"{host}:{dashboard_port or 0}")  # without the page something listens there, too
    argv += ("--no-dashboard",) if dashboard_port is None else ()
    argv += ("--preload", PRELOAD_SCHEDULER)
    argv += ("--scheduler-file", file) if file else ()
    return Part("dask-scheduler", argv, dask_environment(settings))


def worker_parts(
    settings: Config, pools: WorkPools, host: str, address: str, *, listen: str | None = None
) -> list[Part]:
    """The worker processes of a node.

    Parameters
    ----------
    settings : Config
    pools : WorkPools
    host : str
        The node, as `pools` calls it.
    address : str
        Of the scheduler.
    listen : str, optional
        Name or number of the node's own interface; `network.host` when not given.

    Raises
    ------
    InputError
        It is no node of this cluster.
    """
    return [worker_part(settings, pools, host, i, address, listen=listen) for i in range(len(pools.processes(host)))]


def worker_part(
    settings: Config, pools: WorkPools, host: str, index: int, address: str, *, listen: str | None = None
) -> Part:
    """One of `worker_parts`."""
    processes = pools.processes(host)
    if index >= len(processes):
        raise InputError(f"host {host} has {len(processes)} worker processes, not {index + 1}", pools.path)
    offers = processes[index]
    name = f"{host}-{index}"
    argv = (*_dask("worker"), address, "--name", name, "--nthreads", "1", "--nworkers", "1")
    interface = listen or settings.network.host
    argv += ("--host", interface, "--dashboard-address", f"{interface}:0", "--no-dashboard")
    argv += ("--preload", PRELOAD, "--preload-nanny", PRELOAD_NANNY)
    argv += ("--memory-limit", f"{pools.memory_gb(offers):g}GB")
    argv += ("--local-directory", str(settings.paths.scratch / "dask" / name))
    resources = {**offers, MEMORY: pools.memory_gb(offers)}
    argv += ("--resources", ",".join(f"{name}={amount:g}" for name, amount in resources.items()))
    own = {_variable(key): value for key, value in FORKED.items()}
    own |= {NODE_VARIABLE: host, POOLS_VARIABLE: str(pools.path), **PATIENT}
    return Part(name, argv, {**dask_environment(settings), **own})


def dask_environment(settings: Config) -> dict[str, str]:
    """Dask's settings as environment, for the scheduler, a worker or a client, and our configuration's file."""
    every = {**DASK_SETTINGS, **tls_settings(settings)}
    own = {} if settings.file is None else {"ORCA_CONF": str(settings.file)}
    return {**{_variable(key): str(value) for key, value in every.items()}, **own}


def _variable(key: str) -> str:
    """The environment variable of one of Dask's settings."""
    return "DASK_" + key.upper().replace("-", "_").replace(".", "__")


def _dask(command: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "dask", command)
