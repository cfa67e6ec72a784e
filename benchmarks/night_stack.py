"""The cluster of a simulated night: what `orca up` starts, and Dask workers with a thread for each slot."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import yaml
from parts import Cpu, cpu_of

from orca import config
from orca.cluster.machine import questions
from orca.cluster.machine import up as bringing_up
from orca.cluster.machine.overview import PartState
from orca.cluster.machine.standing import api_url
from orca.cluster.nodes.parts import Part, scheduler_part, worker_part
from orca.cluster.pools import WorkPools, load_pools
from orca.cluster.ports import free_port
from orca.cluster.server import LOOPBACK
from orca.config import Config

ROOT = Path(__file__).parents[1]
NEVER = 1_000_000
WORKERS_S = 300.0
"""How long the Dask workers may take to come."""
FOREIGN = ("PREFECT_", "DASK_", "ORCA_")


@dataclass(frozen=True)
class Stack:
    """A cluster that is ready.

    Attributes
    ----------
    pools : WorkPools
    settings : Config
    url : str
        Of the Prefect server's API.
    scheduler : str
        Address of the Dask scheduler.
    pids : dict of int
        Of ``server`` and ``scheduler``.
    cpu : dict of callables
        CPU time of each part.
    """

    pools: WorkPools
    settings: Config
    url: str
    scheduler: str
    pids: dict[str, int]
    cpu: dict[str, Cpu]

    def begun(self) -> tuple[int, int]:
        """Tasks that the Dask workers have begun, and that run now, as of their last heartbeats."""
        workers = questions.ask_scheduler(self.scheduler).facts.get("workers", [])
        nodes = [worker["node"] for worker in workers if worker["node"]]
        return sum(node["begun"] for node in nodes), sum(len(node["running"]) for node in nodes)


@contextmanager
def night_stack(folder: Path) -> Iterator[Stack]:
    """Run a cluster with the work pools of the telescope in a folder; it is gone in the end.

    A node is one Dask worker process with a thread for each of its slots. Such a process is not replaced after 20
    tasks: while it waits for the last of its threads the others would do nothing.
    """
    port = free_port(LOOPBACK)
    address = f"tcp://127.0.0.1:{port}"
    _settle(folder, address)
    settings, pools = config.load(), load_pools()
    with ExitStack() as stack:
        [scheduler] = stack.enter_context(_running([scheduler_part(settings, port=port)], folder))
        parts = stack.enter_context(_standing(settings, pools))
        nodes = [_node(settings, pools, host, address) for host in pools.hosts]
        workers = stack.enter_context(_running(nodes, folder))
        _wait_for_workers(address, len(workers))
        pids = {"server": _pids(parts, "server")[0], "scheduler": scheduler}
        cpu = {
            "server": partial(cpu_of, pids["server"]),
            "scheduler": partial(cpu_of, scheduler),
            "Dask workers": _sum_of(workers),
            "flow workers and flows": _sum_of(_pids(parts, "flow-workers")),
            "Redis": _sum_of(_pids(parts, "redis")),
        }
        _rest(cpu)
        yield Stack(pools, settings, str(api_url(settings)), address, pids, cpu)


def _settle(folder: Path, address: str) -> None:
    """Write configuration and work pools, and make them those of this process and of all that it starts."""
    pools = yaml.safe_load((ROOT / "work_pools.yaml").read_text())
    pools["limits"] = {"load": 1000, "free_memory_gb": 0, "free_scratch_gb": 0}  # of the nodes that are not here
    pools["recycle"] = {"tasks": NEVER, "memory_gb": 8}
    (folder / "work_pools.yaml").write_text(yaml.safe_dump(pools))
    settings = {"paths": {"data": str(folder / "orca")}, "dask": {"address": address}}
    (folder / "orca-conf.yml").write_text(yaml.safe_dump(settings))
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]
    os.environ |= {
        "HOME": str(folder),
        "ORCA_CONF": str(folder / "orca-conf.yml"),
        "ORCA_POOLS": str(folder / "work_pools.yaml"),
        "PYTHONPATH": str(Path(__file__).parent),  # there the flows are
        "DO_NOT_TRACK": "1",
    }


@contextmanager
def _standing(settings: Config, pools: WorkPools) -> Iterator[list[PartState]]:
    """What `orca up` starts where the configuration names a Dask cluster; yields the parts when all are ready."""
    try:
        standing = bringing_up.up(settings, pools, ["rabbitmq"], _tell)
        bringing_up.deploy(settings, pools, standing, _tell)
        overview = bringing_up.wait_until_ready(settings, pools, standing, _tell)
        if not overview.healthy:
            raise SystemExit(f"not ready: {[part for part in overview.parts if not part.healthy]}")
        yield list(overview.parts)
    finally:
        bringing_up.down(settings, _tell)


def _node(settings: Config, pools: WorkPools, host: str, address: str) -> Part:
    """A node as one worker process: the first of its own, with all slots of the node, and as many threads."""
    slots = pools.slots(host)
    part = worker_part(settings, pools, host, 0, address)
    argv = list(part.argv)
    for option, value in (
        ("--nthreads", str(sum(slots.values()))),
        ("--resources", ",".join(f"{pool}={count}" for pool, count in slots.items())),
    ):
        argv[argv.index(option) + 1] = value
    return replace(part, argv=tuple(argv))


@contextmanager
def _running(parts: list[Part], folder: Path) -> Iterator[list[int]]:
    """Run parts with logs of their own; yields their processes."""
    processes = []
    try:
        for part in parts:
            with (folder / f"{part.name}.log").open("w") as log:
                processes.append(
                    subprocess.Popen(part.argv, env=part.full_environment(), stdout=log, stderr=log, cwd=folder)
                )
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def _wait_for_workers(address: str, count: int) -> None:
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=WORKERS_S)


def _rest(cpu: dict[str, Cpu], step_s: float = 3.0) -> None:
    """Wait until all have imported what they import at their start.

    Together they use less than a core then; some 0.6 of one they use always: eleven nodes and a server are many.
    """
    used = float("inf")
    while used > step_s:
        before = sum(each() for each in cpu.values())
        time.sleep(step_s)
        used = sum(each() for each in cpu.values()) - before


def _pids(parts: list[PartState], kind: str) -> list[int]:
    return [part.pid for part in parts if part.kind == kind and part.pid is not None]


def _sum_of(pids: list[int]) -> Callable[[], float]:
    return lambda: sum(cpu_of(pid) for pid in pids)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
