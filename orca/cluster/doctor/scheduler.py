"""Dask: the scheduler, its workers and their slots, and the same versions everywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from orca import __version__
from orca.cluster.doctor.finding import Check, Finding
from orca.cluster.doctor.site import Examined
from orca.cluster.machine import standing
from orca.cluster.machine.questions import ask_scheduler
from orca.cluster.pools import WorkPools
from orca.cluster.security import security
from orca.config import Config
from orca.errors import InfrastructureError

SECTION = "dask"
RESTART = "orca workers restart"


def checks(site: Examined) -> list[Check]:
    """All of the section."""
    settings = site.settings
    if settings is None:
        return []
    try:
        address = standing.dask_address(settings)
    except InfrastructureError:  # the file of `orca up` is broken, which another check says
        address = None
    if address is None:
        seen = "no cluster is configured: `orca run` starts one on this machine for as long as it takes"
        return [Check(SECTION, "scheduler", lambda: [Finding(SECTION, "scheduler", "note", seen, "orca up")])]
    return [Check(SECTION, "scheduler", lambda: _scheduler(settings, address, site.pools))]


def _scheduler(settings: Config, address: str, pools: WorkPools | None) -> Iterator[Finding]:
    answer = ask_scheduler(address, security(settings, address))
    if not answer.healthy:
        where = address.rpartition("/")[2].partition(":")[0]
        remedy = "orca up" if settings.dask.address is None else f"systemctl status orca-scheduler on {where}"
        remedy += "" if settings.dask.address is None else ", or mend dask.address"
        yield Finding(SECTION, "scheduler", "error", f"{address} {answer.problem}", remedy)
        return
    workers = answer.facts["workers"]
    yield Finding(SECTION, "scheduler", "ok", f"{address}, Dask {answer.version}, {len(workers)} workers")
    idle = [worker for worker in workers if worker["status"] != "running"]
    for worker in idle:
        why = worker["node"].get("reason") or "no reason is told"
        seen = f"{worker['name']} takes no tasks ({worker['status']}): {why}"
        yield Finding(SECTION, "workers", "warning", seen, "orca workers ls; orca workers resume, if it was drained")
    if pools is not None:
        yield from slots(pools, workers)
    told = {worker["name"]: {**worker.get("packages", {}), "orca": worker["node"].get("version")} for worker in workers}
    yield from compared(_here(), answer.facts["packages"], told)


def slots(pools: WorkPools, workers: list[dict[str, Any]]) -> Iterator[Finding]:
    """Slots that are offered, beside those that work_pools.yaml says."""
    offered: dict[str, Counter[str]] = {pool: Counter() for pool in pools.pools}
    for worker in workers:
        host = str(worker["node"].get("host") or worker["name"].rpartition("-")[0])
        for pool, counts in offered.items():
            if count := int(worker["slots"].get(pool, 0)):
                counts[host] += count
    wanted = {host: pools.slots(host) for host in pools.hosts}
    there = {host for counts in offered.values() for host in counts}
    gone = [host for host in pools.hosts if wanted[host] and host not in there]
    if gone and len(gone) < len(pools.hosts):
        remedy = f"systemctl status 'orca-dask@*' on {gone[0]}; or take it out of {pools.path}"
        yield Finding(SECTION, "nodes", "error", f"no worker of {', '.join(gone)}", remedy)
    wrong = False
    for pool, counts in offered.items():
        needed = sum(
            wanted[host].get(pool, 0) for host in pools.hosts if host not in gone or len(gone) == len(pools.hosts)
        )
        have = sum(counts.values())
        if needed and not have:
            wrong = True
            seen = f"no worker offers any of the {needed} slots of {pool}: its tasks wait for ever"
            yield Finding(SECTION, "slots", "error", seen, "systemctl start orca.target on the nodes, or orca up")
        elif have < needed:
            wrong = True
            few = [h for h in pools.hosts if h not in gone and counts[h] < wanted[h].get(pool, 0)]
            seen = f"{have} of {needed} slots of {pool} are offered; too few on {', '.join(few)}"
            yield Finding(SECTION, "slots", "warning", seen, f"systemctl --failed on {few[0]}; orca workers ls")
        elif have > needed:
            wrong = True
            seen = f"{have} slots of {pool} are offered, and {pools.path} says {needed}"
            yield Finding(SECTION, "slots", "note", seen, "Restart the nodes after a change of that file")
    if not wrong:
        told = ", ".join(f"{pool} {sum(counts.values())}" for pool, counts in offered.items())
        yield Finding(SECTION, "slots", "ok", told)


def _here() -> dict[str, str | None]:
    from distributed.versions import get_versions

    return {**get_versions()["packages"], "orca": __version__}


def compared(
    here: Mapping[str, str | None],
    scheduler: Mapping[str, str | None],
    workers: Mapping[str, Mapping[str, str | None]],
) -> Iterator[Finding]:
    """Packages that are not the same in this process, the scheduler and the workers, as these told when they came."""
    everywhere = {"here": here, "the scheduler": scheduler, **workers}
    wrong = False
    for package in here:
        versions: dict[str, list[str]] = {}
        for who, packages in everywhere.items():
            if packages.get(package) is not None:
                versions.setdefault(str(packages[package]), []).append(who)
        if len(versions) > 1:
            wrong = True
            told = "; ".join(f"{found}: {_who(who)}" for found, who in sorted(versions.items()))
            level = "error" if package in ("python", "distributed", "dask", "orca", "cloudpickle") else "warning"
            remedy = f"script/bootstrap on all machines, then restart the nodes: {RESTART}"
            yield Finding(SECTION, "versions", level, f"{package} differs: {told}", remedy)  # type: ignore[arg-type]
    if not wrong:
        seen = f"the same here, in the scheduler and in {len(workers)} workers: ORCA {__version__}"
        yield Finding(SECTION, "versions", "ok", seen)


def _who(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} and {len(names) - 2} more"
