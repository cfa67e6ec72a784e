"""Memory of the Dask scheduler over thousands of Prefect tasks, with our settings: it should stay flat.

.venv/bin/python benchmarks/scheduler_memory.py [--tasks 5000] [--steps 10]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import psutil
from parts import pools_file, prefect_environment, prefect_server
from tasks import NEVER, dask_cluster, run_flow

from orca.cluster.ports import free_port
from orca.cluster.server import LOOPBACK


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    each, port = options.tasks // options.steps, free_port(LOOPBACK)
    with tempfile.TemporaryDirectory(prefix="orca-benchmark-") as name:
        environment = prefect_environment(Path(name), port) | {"ORCA_POOLS": str(pools_file(Path(name), NEVER))}
        with (
            prefect_server(Path(name), port) as server,
            dask_cluster(Path(name), environment) as (
                address,
                scheduler,
            ),
        ):
            print(f"{'tasks':>6} {'scheduler MB':>13} {'Prefect server MB':>18}")
            for step in range(options.steps + 1):
                if step:
                    run_flow("ours", address, each, environment)
                print(f"{step * each:6d} {_mb(scheduler):13.1f} {_mb(server):18.1f}", flush=True)


def _mb(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss) / 1e6


if __name__ == "__main__":
    main()
