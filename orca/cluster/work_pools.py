"""Prefect's work pools, as work_pools.yaml wants them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import WorkerStatus, WorkPool
from prefect.exceptions import ObjectNotFound
from prefect.workers.base import BaseWorker

from orca.cluster.api import Change
from orca.cluster.pools import Pool, WorkPools, pool_name
from orca.errors import ConfigError, InputError

NONE = "none"
_LABELS = {
    "type": "worker type",
    "concurrency_limit": "flow runs at once",
    "description": "description",
    "base_job_template": "job template",
}


@dataclass(frozen=True)
class PoolState:
    """A pool as the file wants it, and as Prefect has it.

    Attributes
    ----------
    name : str
        In Prefect.
    queue : str
        In RabbitMQ.
    runs : int
    slots : dict of int by host
    status : str
        Prefect's: ready, not ready, paused; "none" where it has no such pool.
    workers : tuple of str
        Names of the Prefect workers that are online.
    differs : tuple of str
        In what Prefect's pool is not as the file says.
    """

    name: str
    queue: str
    runs: int
    slots: dict[str, int]
    status: str
    workers: tuple[str, ...]
    differs: tuple[str, ...]


def apply(client: SyncPrefectClient, pools: WorkPools, prefix: str, *, dry_run: bool = False) -> list[Change]:
    """Make and update Prefect's work pools, and return what was changed. Pools of others are left alone.

    Parameters
    ----------
    client : SyncPrefectClient
    pools : WorkPools
    prefix : str
        `queue.prefix` of the configuration.
    dry_run : bool
        Only return what would be changed.

    Raises
    ------
    ConfigError
        The file names a type of worker that is not installed. Nothing is changed then.
    InputError
        A pool is there with another type, which cannot be changed. Nothing is changed then.
    """
    compared = []
    for pool in pools.pools:
        name, wanted = pool_name(prefix, pool), _wanted(pools, pool)
        there = _read(client, name)
        if there is not None and there.type != wanted["type"]:
            raise InputError(
                f"Prefect's work pool {name} is of type {there.type}, and the file wants {wanted['type']}",
                pools.path,
                f"A type cannot be changed: run `prefect work-pool delete {name}`, then this again, then orca deploy",
            )
        compared.append((name, wanted, there))
    changes = []
    for name, wanted, there in compared:
        differing = _differing(there, wanted)
        changes += [_change(name, key, there, wanted) for key in differing]
        if dry_run or not differing:
            continue
        if there is None:
            client.create_work_pool(WorkPoolCreate(name=name, **wanted))
        else:
            client.update_work_pool(name, WorkPoolUpdate(**{key: wanted[key] for key in differing}))
    return changes


def states(client: SyncPrefectClient, pools: WorkPools, prefix: str) -> list[PoolState]:
    """Return each pool as the file wants it, and what Prefect has of it.

    Raises
    ------
    ConfigError
        The file names a type of worker that is not installed.
    """
    of_hosts = {host: pools.slots(host) for host in pools.hosts}
    found = []
    for pool, settings in pools.pools.items():
        name = pool_name(prefix, pool)
        there = _read(client, name)
        workers = [] if there is None else client.read_workers_for_work_pool(name)
        found.append(
            PoolState(
                name=name,
                queue=name,
                runs=settings.runs,
                slots={host: slots[pool] for host, slots in of_hosts.items() if pool in slots},
                status=NONE if there is None or there.status is None else there.status.value.lower().replace("_", " "),
                workers=tuple(sorted(each.name for each in workers if each.status is WorkerStatus.ONLINE)),
                differs=() if there is None else tuple(_LABELS[key] for key in _differing(there, _wanted(pools, pool))),
            )
        )
    return found


def _wanted(pools: WorkPools, name: str) -> dict[str, Any]:
    pool: Pool = pools.pools[name]  # type: ignore[index]
    worker = BaseWorker.get_worker_class_from_type(pool.worker)
    if worker is None:
        known = ", ".join(sorted(BaseWorker.get_all_available_worker_types()))
        raise ConfigError(f"there is no worker of type {pool.worker}", pools.path, f"Installed are {known}")
    return {
        "type": pool.worker,
        "concurrency_limit": pool.runs,
        "description": f"ORCA's pool {name}, from {pools.path.name}",
        "base_job_template": worker.get_default_base_job_template(),
    }


def _differing(there: WorkPool | None, wanted: dict[str, Any]) -> list[str]:
    if there is None:
        return ["type", "concurrency_limit"]
    return [key for key, value in wanted.items() if getattr(there, key) != value]


def _change(name: str, key: str, there: WorkPool | None, wanted: dict[str, Any]) -> Change:
    if key == "base_job_template":
        return Change(name, _LABELS[key], "another", f"that of worker type {wanted['type']}")
    now = NONE if there is None else getattr(there, key)
    return Change(name, _LABELS[key], "any number" if now is None else str(now), str(wanted[key]))


def _read(client: SyncPrefectClient, name: str) -> WorkPool | None:
    try:
        return client.read_work_pool(name)
    except ObjectNotFound:
        return None
