"""The Dask workers of a cluster as an operator sees them: which there are, what they do, and what they are told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from distributed import Client

from orca.cluster.machine import standing
from orca.cluster.nodes.load import Load
from orca.cluster.nodes.node import Order, obey
from orca.cluster.nodes.parts import MEMORY
from orca.cluster.security import security
from orca.cluster.worker import NODE_PLUGIN
from orca.config import Config
from orca.errors import InfrastructureError, InputError

CONNECT_S = 10.0
POLL_S = 0.3
GONE_S = 60.0
"""How long a replaced worker may take to be there again."""


@dataclass(frozen=True)
class Running:
    """A task that runs.

    Attributes
    ----------
    task : str
        Its key in Dask: the name of the Prefect task and the id of the task run.
    since : float
        Unix time.
    unit, step : str
        What it works on and what it does with it, if it said so.
    """

    task: str
    since: float
    unit: str = ""
    step: str = ""


@dataclass(frozen=True)
class WorkerInfo:
    """A worker process, as it told with its last heartbeat.

    Attributes
    ----------
    name : str
        ``<host>-<i>`` for a process of a node.
    host : str
        Node that it belongs to.
    address : str
    pid : int or None
        None for one that is none of ours.
    version : str
        Of ORCA.
    pools : tuple of str
        It takes tasks of these.
    status : str
        ``running`` (takes tasks), ``paused`` (does not, see `reason`), ``closing_gracefully``, ``closing``.
    reason : str
        Why it takes nothing new.
    begun : int
        Tasks that this process has begun.
    running : tuple of Running
    memory_gb : float
        Resident memory of the process, without the programs that it runs.
    load : Load or None
        Of its node; None where no limits are watched.
    heard_s : float
        Seconds since its last heartbeat.
    """

    name: str
    host: str
    address: str
    pid: int | None
    version: str
    pools: tuple[str, ...]
    status: str
    reason: str
    begun: int
    running: tuple[Running, ...]
    memory_gb: float
    load: Load | None
    heard_s: float


def scheduler_address(settings: Config) -> str:
    """Address of the scheduler of the configuration, else of the one that `orca up` started on this machine.

    Raises
    ------
    InfrastructureError
        There is none.
    """
    address = standing.dask_address(settings)
    if address is None:
        raise InfrastructureError("no Dask cluster is known", remedy="Start it with `orca up`, or set dask.address")
    return address


@contextmanager
def connected(settings: Config) -> Iterator[Client]:
    """A client of the cluster's scheduler.

    Raises
    ------
    InfrastructureError
        None is known, or it does not answer.
    """
    address = scheduler_address(settings)
    secure = security(settings, address)
    try:
        client = Client(address, security=secure, timeout=CONNECT_S, set_as_default=False, name="orca-workers")
    except (OSError, ValueError) as error:
        problem = f"the Dask scheduler does not answer ({str(error).splitlines()[0]})"
        raise InfrastructureError(problem, address, "See whether it runs: orca status") from error
    try:
        yield client
    finally:
        client.close()


def list_workers(client: Client, host: str | None = None, pool: str | None = None) -> list[WorkerInfo]:
    """The workers of a node and a pool, of all where not given, by name."""
    found = [_info(address, entry) for address, entry in client.scheduler_info(n_workers=-1)["workers"].items()]
    chosen = [each for each in found if host in (None, each.host) and (pool is None or pool in each.pools)]
    return sorted(chosen, key=lambda each: (each.host, len(each.name), each.name))


def select(client: Client, host: str | None = None, pool: str | None = None) -> list[WorkerInfo]:
    """The same, of which there has to be one.

    Raises
    ------
    InputError
        There is no such worker.
    """
    if chosen := list_workers(client, host, pool):
        return chosen
    hosts = sorted({each.host for each in list_workers(client)})
    wanted = " ".join(text for text in (f"on {host}" if host else "", f"for {pool}" if pool else "") if text)
    raise InputError(
        f"there is no worker {wanted}".rstrip(), remedy=f"There are some on {', '.join(hosts) or 'no host'}"
    )


def _info(address: str, entry: dict[str, Any]) -> WorkerInfo:
    metrics = entry["metrics"]
    own = metrics.get(NODE_PLUGIN) or {}
    load = own.get("load")
    return WorkerInfo(
        name=str(entry["name"]),
        host=own.get("host") or str(entry["host"]),
        address=address,
        pid=own.get("pid"),
        version=own.get("version", ""),
        pools=tuple(name for name in entry["resources"] if name != MEMORY),
        status=entry["status"],
        reason=own.get("reason", "") if entry["status"] != "running" else "",
        begun=own.get("begun", 0),
        running=tuple(Running(*each) for each in own.get("running", ())),
        memory_gb=metrics.get("memory", 0) / 1e9,
        load=Load(**load) if load else None,
        heard_s=max(0.0, time.time() - entry["last_seen"]),
    )


def ping(client: Client, workers: Sequence[WorkerInfo], patience_s: float = 5.0) -> dict[str, float | None]:
    """Seconds until each worker answered by way of the scheduler; None for one that did not in time.

    A process that reads or writes a Measurement Set holds the interpreter's lock and may take long to answer.
    """

    async def one(address: str) -> float | None:
        began = time.monotonic()
        question = client.scheduler.broadcast(msg={"op": "identity"}, workers=[address], on_error="ignore")
        try:
            answers = await asyncio.wait_for(question, patience_s)
        except (TimeoutError, OSError):
            return None
        return time.monotonic() - began if answers else None

    async def all_at_once() -> list[float | None]:
        return await asyncio.gather(*(one(worker.address) for worker in workers))

    answered: list[float | None] = client.sync(all_at_once)
    return dict(zip((worker.name for worker in workers), answered, strict=True))


def tell(client: Client, order: Order, workers: Sequence[WorkerInfo], *, now: bool = False) -> None:
    """Tell workers what to do; returns when they know, see `wait_for`.

    Parameters
    ----------
    client : Client
    order : "work", "drain", "restart" or "stop"
        Take tasks again; finish what runs and take nothing new; then be replaced; then end.
    workers : sequence of WorkerInfo
    now : bool
        Without waiting for what runs: that begins again elsewhere.

    Raises
    ------
    InputError
        One of them is no worker of ORCA's.
    """
    answers = client.run(obey, order, now, workers=[worker.address for worker in workers])
    for worker in workers:
        if not answers.get(worker.address, False):
            raise InputError("is no worker of ORCA's", worker.name, "End it where it was started")


def wait_for(
    client: Client,
    order: Order,
    workers: Sequence[WorkerInfo],
    notify: Callable[[list[WorkerInfo]], None] | None = None,
) -> None:
    """Return when workers have done what they were told, however long their tasks take.

    Parameters
    ----------
    client : Client
    order : "work", "drain", "restart" or "stop"
    workers : sequence of WorkerInfo
        As they were when they were told.
    notify : callable, optional
        Called with the workers that are waited for whenever these change.

    Raises
    ------
    InfrastructureError
        A worker ended, and no other came in its place.
    """
    before = {worker.name: worker.pid for worker in workers}
    told: list[str] | None = None
    gone_since = time.monotonic()
    while True:
        there = {worker.name: worker for worker in list_workers(client) if worker.name in before}
        busy = {address for address, tasks in client.processing().items() if tasks}  # newer than what workers told
        left = [w for w in there.values() if not _done(order, w, before[w.name], busy=w.address in busy)]
        missing = sorted(set(before) - set(there)) if order == "restart" else []
        if not left and not missing:
            return
        if not missing:
            gone_since = time.monotonic()
        elif time.monotonic() - gone_since > GONE_S:
            raise InfrastructureError(f"{', '.join(missing)} ended and did not come back", remedy="See its node's log")
        if notify is not None and told != (names := [worker.name for worker in left]):
            told = names
            notify(left)
        time.sleep(POLL_S)


def _done(order: Order, worker: WorkerInfo, pid_before: int | None, *, busy: bool) -> bool:
    if order == "work":
        return worker.status == "running" or worker.reason != "drained by the operator"
    if order == "drain":
        return worker.status == "paused" and not busy
    return order == "restart" and worker.pid is not None and worker.pid != pid_before
