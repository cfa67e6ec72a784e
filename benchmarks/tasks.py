"""Empty tasks: ours, stock prefect-dask, and Celery with RabbitMQ and Redis, in turn on this machine.

.venv/bin/python benchmarks/tasks.py [--tasks 300] [--turns 3] [--only ours stock floor]

The floor is what Prefect and Dask cost where each does its part alone: less is not to be had with both.

Two worker processes each. Ours and stock have the same kind of Dask cluster, and a Prefect server with our settings and
with stock ones. CPU time is that of all processes that take part, the servers' until they have recorded every task run.
Celery needs an environment of its own with `celery[redis]`, ORCA_CELERY_PYTHON=/path/to/python; it is left out
otherwise.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from celery_peer import RECYCLE, celery_peer
from parts import Cpu, cpu_of, pools_file, prefect_environment, prefect_server

from orca.cluster.ports import free_port
from orca.cluster.server import LOOPBACK

WORKERS = 2
NEVER = 1_000_000
FLOW = Path(__file__).with_name("empty_tasks.py")
Contestant = tuple[dict[str, Cpu], Callable[[int], dict[str, float]]]
"""The parts whose CPU time counts, and what runs so many tasks: its seconds, and the CPU seconds of its own process."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=["ours", "stock", "floor", "celery"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orca-benchmark-") as name, ExitStack() as stack:
        contestants: dict[str, Contestant] = {}
        for title, kind, recycle in (
            ("ours", "ours", NEVER),
            (f"ours, recycled after {RECYCLE}", "ours", RECYCLE),
            ("stock prefect-dask", "stock", NEVER),
            ("floor: Prefect alone, no Dask", "prefect", NEVER),
            ("floor: Dask alone, no Prefect", "dask", NEVER),
        ):
            if (kind if kind in ("ours", "stock") else "floor") in options.only:
                home = Path(name) / f"{kind}-{recycle}"
                contestants[title] = stack.enter_context(_prefect(home, kind, recycle))
        if "celery" in options.only:
            contestants |= stack.enter_context(celery_peer(Path(name), WORKERS))
        runs: dict[str, list[dict[str, float]]] = {title: [] for title in contestants}
        for turn in range(-1, options.turns):  # the first one warms up
            for title, contestant in contestants.items():
                run = _measured(*contestant, options.tasks)
                print(f"{title}: {run}", file=sys.stderr)
                if turn >= 0:
                    runs[title].append(run)
    _report(runs, options.tasks)


@contextmanager
def _prefect(home: Path, kind: str, recycle: int) -> Iterator[Contestant]:
    """A Prefect server, a Dask cluster, and a flow on them."""
    port = free_port(LOOPBACK)
    environment = prefect_environment(home, port) | {"ORCA_POOLS": str(pools_file(home, recycle))}
    with (
        prefect_server(home, port, stock=kind == "stock") as server,
        dask_cluster(home, environment) as (address, scheduler),
    ):
        parts: dict[str, Cpu] = {
            "scheduler": partial(cpu_of, scheduler, children=False),
            "workers": lambda: cpu_of(scheduler) - cpu_of(scheduler, children=False),
            "server": partial(cpu_of, server),
        }
        yield parts, lambda tasks: run_flow(kind, address, tasks, environment)


@contextmanager
def dask_cluster(home: Path, environment: dict[str, str]) -> Iterator[tuple[str, int]]:
    """A Dask cluster: the scheduler's address, and its process, whose children are the workers."""
    words = [sys.executable, FLOW, "cluster", home / "dask", str(WORKERS)]
    with subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as cluster:
        assert cluster.stdin is not None
        assert cluster.stdout is not None
        yield cluster.stdout.readline().strip(), cluster.pid
        cluster.stdin.close()


def run_flow(kind: str, address: str, tasks: int, environment: dict[str, str]) -> dict[str, float]:
    """Run a flow of empty tasks in a process of its own: its seconds, and its CPU seconds."""
    words = [sys.executable, FLOW, kind, address, str(tasks)]
    done = subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _measured(parts: dict[str, Cpu], run: Callable[[int], dict[str, float]], tasks: int) -> dict[str, float]:
    """Run the tasks, and take the CPU time of the parts; they are at rest before and after."""
    _rest(parts)
    before = {name: cpu() for name, cpu in parts.items()}
    found = run(tasks)
    _rest(parts)
    return found | {name: cpu() - before[name] for name, cpu in parts.items()}


def _rest(parts: dict[str, Cpu], seconds: float = 3.0) -> None:
    """Wait until no part uses more than a tenth of a core."""
    while True:
        before = {name: cpu() for name, cpu in parts.items()}
        time.sleep(seconds)
        if all(cpu() - before[name] < 0.1 * seconds for name, cpu in parts.items()):
            return


def _report(runs: dict[str, list[dict[str, float]]], tasks: int) -> None:
    print(f"{tasks} empty tasks on {WORKERS} workers (medians)")
    print(f"{'':34} {'tasks/s':>8} {'CPU ms a task':>14}   of which")
    for title, found in runs.items():
        if not found:
            continue
        median = {name: statistics.median(run[name] for run in found) for name in found[0]}
        rate = tasks / median.pop("seconds")
        each = {name: 1000 * value / tasks for name, value in median.items()}
        detail = ", ".join(f"{name} {value:.1f}" for name, value in each.items())
        print(f"{title:34} {rate:8.1f} {sum(each.values()):14.1f}   {detail}")


if __name__ == "__main__":
    main()
