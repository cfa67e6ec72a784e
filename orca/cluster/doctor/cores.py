"""Cores and memory of this machine, as far as it is a node: what tasks may take, and what is left to the recorders."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psutil

from orca.cluster.doctor.finding import Check, Finding
from orca.cluster.doctor.site import Examined
from orca.cluster.pools import WorkPools, this_host

SECTION = "cores"


def checks(site: Examined) -> list[Check]:
    """One for the nodes, one for this machine."""
    if site.pools is None:
        return []
    pools = site.pools
    return [
        Check(SECTION, "recorders", lambda: _reserved(pools)),
        Check(
            SECTION, this_host(), lambda: here(pools, this_host(), os.cpu_count() or 1, psutil.virtual_memory().total)
        ),
    ]


def _reserved(pools: WorkPools) -> Iterator[Finding]:
    if len(pools.hosts) == 1 and not pools.reserved_cores:
        yield Finding(SECTION, "recorders", "ok", "one machine, none of whose cores is reserved")
    elif not pools.reserved_cores:
        seen = f"no node of {pools.path} has cores reserved: recorders on them lose packets while tasks run"
        yield Finding(SECTION, "recorders", "warning", seen, "Set reserved_cores there for nodes that record")
    else:
        told = ", ".join(f"{host} {count}" for host, count in pools.reserved_cores.items())
        yield Finding(SECTION, "recorders", "ok", f"reserved: {told}")


def here(pools: WorkPools, host: str, cores: int, memory_bytes: int) -> Iterator[Finding]:
    """What the tasks of a node may take, beside what it has."""
    if host not in pools.hosts:
        seen = f"{host} is no node of {pools.path}: no task runs here"
        yield Finding(SECTION, host, "note", seen)
        return
    reserved, slots = pools.reserved_cores.get(host, 0), pools.slots(host)
    threads = [count * pools.pools[pool].threads for pool, count in slots.items()]  # type: ignore[index]
    memory = [count * pools.pools[pool].memory_gb for pool, count in slots.items()]  # type: ignore[index]
    most = max if pools.take_turns else sum
    wanted, wanted_gb = most(threads or [0]), most(memory or [0.0])
    seen = f"{cores} cores, {reserved} of them reserved; tasks take up to {wanted} threads and {wanted_gb:g} GB"
    level = "ok"
    remedy = ""
    if reserved >= cores:
        level, remedy = "error", f"Make reserved_cores.{host} of {pools.path} smaller than {cores}"
        seen += ": nothing is left for tasks"
    elif reserved and wanted > cores - reserved:
        level, remedy = "warning", f"Fewer slots in {pools.path}, or fewer reserved_cores.{host}"
        seen += f": more than the {cores - reserved} that are left"
    elif wanted_gb * 1e9 > memory_bytes:
        level, remedy = "warning", f"Fewer slots, or a smaller memory_gb, in {pools.path}"
        seen += f": more than the {memory_bytes / 1e9:.0f} GB that there are"
    yield Finding(SECTION, host, level, seen, remedy)  # type: ignore[arg-type]
