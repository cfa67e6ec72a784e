"""A part of the cluster as a system service: a process that reads its machine's configuration and becomes the part.

So no unit holds a password, or anything that stands in orca-conf.yml or work_pools.yaml already: after a change there
a restart of the service is enough.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NoReturn
from urllib.parse import urlsplit

from orca.cluster import server
from orca.cluster.nodes.parts import (
    NODE_VARIABLE,
    Part,
    dask_environment,
    metrics_part,
    scheduler_part,
    trigger_part,
    worker_part,
)
from orca.cluster.pools import POOLS, WorkPools, pool_name
from orca.cluster.pools import VARIABLE as POOLS_VARIABLE
from orca.cluster.ports import METRICS_PORT
from orca.config import Config
from orca.disk import make_folder
from orca.errors import ConfigError, InputError

if TYPE_CHECKING:
    from orca.cluster.nodes.workers import WorkerInfo

Service = Literal["server", "scheduler", "dask", "flows", "trigger", "metrics"]
_NEEDED = "The services of a cluster find each other by it: set it on all machines"


def part(settings: Config, pools: WorkPools, service: Service, instance: str | None, host: str) -> Part:
    """What a service of a node runs.

    Parameters
    ----------
    settings : Config
    pools : WorkPools
    service : "server", "scheduler", "dask", "flows", "trigger" or "metrics"
    instance : str, optional
        Number of a Dask worker process; work pool of a flow worker, as work_pools.yaml calls it.
    host : str
        The node, as `pools` calls it.

    Raises
    ------
    ConfigError
        The configuration does not say where the Prefect server, or the Dask scheduler, is.
    InputError
        There is no such node, or no such instance of the service on it.
    """
    single = {"server": _server, "scheduler": _scheduler, "trigger": _trigger, "metrics": _metrics}
    if service in single:
        if instance is not None:
            raise InputError(f"there is one {service}, so it has no {instance}")
        return single[service](settings)
    if instance is None:
        wanted = "the number of the process" if service == "dask" else f"one of {', '.join(POOLS)}"
        raise InputError(f"which of the node's {service} is not said", remedy=f"Add {wanted}")
    return _dask(settings, pools, instance, host) if service == "dask" else _flows(settings, pools, instance, host)


def become(settings: Config, service: Service, chosen: Part) -> NoReturn:
    """Replace this process by a part; what it needs on disk is made before."""
    if service == "server":
        make_folder(settings.prefect.home)
        if settings.prefect.database is None:
            server.prepare_database(settings.prefect.home)
    sys.stdout.flush()
    os.execve(chosen.argv[0], chosen.argv, chosen.full_environment())


def finish(settings: Config, pools: WorkPools, instance: str, host: str, tell: Callable[[str], None]) -> bool:
    """End a Dask worker process of a node when it has finished what it runs; false when there is none.

    Raises
    ------
    InfrastructureError
        The scheduler does not answer.
    """
    name = _dask(settings, pools, instance, host).name
    from orca.cluster.nodes import workers  # here: the other services start without Dask's client

    def tell_of(left: Sequence[WorkerInfo]) -> None:
        for task in (task for worker in left for task in worker.running):
            tell(f"{name} finishes {task.unit or task.task}")

    with workers.connected(settings) as client:
        chosen = [worker for worker in workers.list_workers(client, host) if worker.name == name]
        if chosen:
            workers.tell(client, "stop", chosen)
            workers.wait_for(client, "stop", chosen, tell_of)
        return bool(chosen)


def _server(settings: Config) -> Part:
    url = _api_url(settings)
    port = urlsplit(url).port
    if port is None:
        raise ConfigError(
            "prefect.api_url: has no port", settings.file, "Say where the server listens: http://HOST:4200/api"
        )
    network, prefect = settings.network, settings.prefect
    argv = server.command(network.host, port, network.tls)
    keep_days = settings.retention.prefect_days
    return Part("server", tuple(argv), server.environment(prefect.home, url, prefect.database, keep_days))


def _scheduler(settings: Config) -> Part:
    return scheduler_part(settings, port=int(_dask_address(settings).rpartition(":")[2]))


def _trigger(settings: Config) -> Part:
    if settings.queue.broker_uri is None:
        raise ConfigError("queue.broker_uri: is not set", settings.file, "Say where RabbitMQ is")
    _api_url(settings)
    return trigger_part()


def _metrics(_settings: Config) -> Part:
    return metrics_part(METRICS_PORT)


def _dask(settings: Config, pools: WorkPools, instance: str, host: str) -> Part:
    if not instance.isdecimal():
        raise InputError(f"{instance} is no number of a Dask worker process")
    chosen = worker_part(settings, pools, host, int(instance), _dask_address(settings))
    return replace(chosen, environment={**chosen.environment, **_client(settings)})


def _flows(settings: Config, pools: WorkPools, pool: str, host: str) -> Part:
    types: dict[str, str] = {name: each.worker for name, each in pools.pools.items()}
    if pool not in types:
        raise InputError(f"there is no pool {pool}", pools.path, f"There are {', '.join(types)}")
    name = pool_name(settings.queue.prefix, pool)
    argv: tuple[str, ...] = (
        sys.executable,
        "-m",
        "prefect",
        "worker",
        "start",
        "--pool",
        name,
        "--name",
        f"{host}-{name}",
    )
    argv += ("--type", types[pool])  # without it, a pool that is not there yet is made for stock workers
    node = {NODE_VARIABLE: host, POOLS_VARIABLE: str(pools.path)}
    return Part(f"flow-worker-{pool}", argv, {**dask_environment(settings), **_client(settings), **node})


def _client(settings: Config) -> dict[str, str]:
    return server.client_environment(settings.prefect.home, _api_url(settings), settings.network.tls)


def _api_url(settings: Config) -> str:
    if settings.prefect.api_url is None:
        raise ConfigError("prefect.api_url: is not set", settings.file, _NEEDED)
    return settings.prefect.api_url.reveal()


def _dask_address(settings: Config) -> str:
    if settings.dask.address is None:
        raise ConfigError("dask.address: is not set", settings.file, _NEEDED)
    return settings.dask.address
