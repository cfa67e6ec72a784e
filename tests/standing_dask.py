"""A Dask cluster that stands while many commands run, as on a cluster: each of them starts in half the time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from site_of_tests import Site
from waiting import wait_for

from orca import config
from orca.cluster import server
from orca.cluster.nodes.parts import dask_environment
from orca.cluster.pools import default_path


@contextmanager
def standing_dask(site: Site, folder: Path, *pools: str) -> Iterator[str]:
    """A scheduler and a worker with one slot of each pool; its address."""
    file = folder / "scheduler.json"
    dask = str(Path(sys.executable).with_name("dask"))
    home = site.data / "prefect"
    own, _ = server.ensure(home)
    environment = site.environment()
    environment |= dask_environment(config.load(Path(environment["ORCA_CONF"])))  # else they are busy while they idle
    environment |= {"DASK_DISTRIBUTED__WORKER__DAEMON": "False", "ORCA_POOLS": str(never_replaced(folder))}
    environment |= server.client_environment(home, own.url)  # else each worker starts a server of its own
    common = ["--scheduler-file", str(file), "--host", "127.0.0.1", "--no-dashboard"]
    scheduler = [dask, "scheduler", *common, "--port", "0"]
    offer = ["--resources", " ".join(f"{pool}=1" for pool in pools), "--preload", "orca.cluster.worker"]
    worker = [dask, "worker", *common, "--nthreads", "1", *offer, "--local-directory", str(folder)]
    started = []
    try:
        with (folder / "log").open("w") as log:
            for command in (scheduler, worker):
                started.append(subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log))
                wait_for(file.exists, "the start of the Dask scheduler")
        yield json.loads(file.read_text())["address"]
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(timeout=20)


def never_replaced(folder: Path) -> Path:
    """Work pools whose processes stay, however many tasks they have run."""
    path = folder / "work_pools.yaml"
    path.write_text(default_path().read_text().replace("tasks: 20", "tasks: 1000"))
    return path
