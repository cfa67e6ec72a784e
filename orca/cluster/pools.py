"""work_pools.yaml: the work pools, and what the nodes of the cluster have for them.

It is the only source of Prefect's work pools, of what Dask workers offer, and of RabbitMQ's queues. Nothing here
imports Prefect or Dask.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import psutil
from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from orca import config
from orca.cluster import checked_yaml
from orca.config.model import Name, Section
from orca.errors import ConfigError, InputError

FILE_NAME = "work_pools.yaml"
VARIABLE = "ORCA_POOLS"
PoolName = Literal["default", "imaging", "bandpass", "cosmology"]
POOLS: tuple[str, ...] = get_args(PoolName)
"""The four pools."""

Number = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Hosts = Annotated[
    tuple[Name, ...],
    BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
    Field(min_length=1),
]


class Pool(Section):
    """One work pool."""

    runs: Count
    """Flow runs at once."""
    slots: Annotated[int, Field(ge=0)] | None
    """Tasks at once on a node; None: as many as the cores and the memory of this machine allow, at least one."""
    threads: Count
    """Of a task."""
    memory_gb: Positive
    """Of a task."""
    scratch_gb: Number
    """Of a task, on the node's scratch disk."""
    hosts: Hosts | None = None
    """Nodes that run its tasks; None: all."""
    worker: Name = "orca"
    """Type of the Prefect worker that starts its flow runs."""


class Limits(Section):
    """A node over one of these starts nothing new."""

    load: Positive
    """Load average of one minute for each core that is not reserved."""
    free_memory_gb: Number
    free_scratch_gb: Number


class Recycle(Section):
    """When a worker process is replaced, at the end of a task."""

    tasks: Count
    """After so many."""
    memory_gb: Positive
    """Above this."""


class WorkPools(Section):
    """All pools, and the nodes."""

    hosts: Hosts
    """Short names of the nodes; this machine's where the file names none."""
    pools: dict[PoolName, Pool]
    """All four, in their order."""
    limits: Limits
    reserved_cores: dict[Name, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    """Cores of a node that are left to other programs, the recorders for example."""
    recycle: Recycle
    take_turns: bool = False
    """Whether pools share the worker processes of a node, which then runs no more tasks than its largest pool may."""

    _path: Path = PrivateAttr(default=Path())

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        """Name this machine where no hosts are given, and put the pools in their order."""
        if not isinstance(values, dict):
            return values
        pools = values.get("pools")
        if isinstance(pools, dict):
            pools = {name: pools[name] for name in POOLS if name in pools} | pools
            values = {**values, "pools": pools}
        return values if values.get("hosts") is not None else {**values, "hosts": (this_host(),)}

    def slots(self, host: str) -> dict[str, int]:
        """Tasks of each pool that a node runs at once; pools that it does not serve are left out.

        Raises
        ------
        InputError
            It is no node of this cluster.
        """
        if host not in self.hosts:
            raise InputError(f"there is no host {host}", self.path, f"Known are {', '.join(self.hosts)}")
        counts = {name: _slots(pool) for name, pool in self.pools.items() if host in (pool.hosts or self.hosts)}
        return {name: count for name, count in counts.items() if count}

    def processes(self, host: str) -> list[dict[str, int]]:
        """What each Dask worker process of a node offers, ``{pool: 1}`` for some of the pools.

        A process runs one task at a time, since casacore holds the interpreter's lock. It is a slot of one pool, or,
        where pools take turns, of all pools that have more slots than its number.

        Raises
        ------
        InputError
            It is no node of this cluster.
        """
        slots = self.slots(host)
        if not self.take_turns:
            return [{name: 1} for name, n in slots.items() for _ in range(n)]
        return [{name: 1 for name, n in slots.items() if n > i} for i in range(max(slots.values(), default=0))]

    def memory_gb(self, process: Mapping[str, int]) -> float:
        """Memory that a worker process needs which serves these pools: that of the largest task."""
        return max(self.pools[name].memory_gb for name in POOLS if name in process)  # type: ignore[index]


def this_host() -> str:
    """Short name of this machine."""
    return socket.gethostname().partition(".")[0]


def pool_name(prefix: str, pool: str) -> str:
    """Name of a pool in Prefect, and of its queue in RabbitMQ, for the user with this `queue.prefix`."""
    return pool if prefix == "default" else f"{prefix}-{pool}"


def default_path() -> Path:
    """The packaged file, for one machine."""
    return Path(str(resources.files("orca") / "data" / FILE_NAME))


def find_pools() -> Path:
    """The file in force: `$ORCA_POOLS`, else work_pools.yaml beside the configuration, else the packaged one.

    Without a configuration of one's own it is looked for in the home, where that would be.

    Raises
    ------
    ConfigError
        `$ORCA_POOLS` or `$ORCA_CONF` names a file that does not exist.
    """
    if named := os.environ.get(VARIABLE):
        path = Path(named).expanduser()
        if not path.exists():
            raise ConfigError(f"${VARIABLE} names a file that does not exist", path)
        return path
    conf = config.find()
    path = (conf.parent if conf else Path.home()) / FILE_NAME
    return path if path.exists() else default_path()


def load_pools(path: Path | None = None) -> WorkPools:
    """Read and check the work pools.

    Parameters
    ----------
    path : Path, optional
        The file; without it, the one that `find_pools` finds.

    Returns
    -------
    WorkPools

    Raises
    ------
    ConfigError
        The file is missing, is no YAML, or holds unknown, duplicate or missing keys or values out of type or bounds:
        one line a problem, with file, line, key and what was expected.
    """
    file = (find_pools() if path is None else path.expanduser()).absolute()
    pools = checked_yaml.load(file, WorkPools, _contradictions)
    pools._path = file
    return pools


def _slots(pool: Pool) -> int:
    if pool.slots is not None:
        return pool.slots
    by_memory = int(psutil.virtual_memory().total / 1e9 / pool.memory_gb)
    return max(1, min((os.cpu_count() or 1) // pool.threads, by_memory))


def _contradictions(pools: WorkPools) -> Iterator[tuple[str, str]]:
    """Key and text of what is wrong where each value alone is right."""
    known = ", ".join(pools.hosts)
    for name in POOLS:
        if name not in pools.pools:
            yield "pools", f"{name} is missing; needed are {', '.join(POOLS)}"
    for name, pool in pools.pools.items():
        for host in pool.hosts or ():
            if host not in pools.hosts:
                yield f"pools.{name}.hosts", f"{host} is not among the hosts ({known})"
        if pool.slots is None and pools.hosts != (this_host(),):
            yield f"pools.{name}.slots", "expected a number: what other hosts have room for cannot be seen from here"
    for host in pools.reserved_cores:
        if host not in pools.hosts:
            yield f"reserved_cores.{host}", f"is not among the hosts ({known})"
