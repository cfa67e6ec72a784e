"""A Dask cluster of real processes, started by the command lines that systemd and `orca up` use, on free ports."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml
from distributed import Client
from site_of_tests import ORCA
from waiting import wait_for

from orca import config
from orca.cluster.nodes.parts import Part, scheduler_part, worker_parts
from orca.cluster.nodes.workers import list_workers
from orca.cluster.pools import default_path, load_pools
from orca.cluster.security import security

TESTS = str(Path(__file__).parent)


class SomeCluster:
    """A scheduler and some nodes, all on this machine.

    Parameters
    ----------
    folder : Path
    hosts : names of the nodes
    pools : sections of work_pools.yaml instead of the packaged ones; no limits of load unless they say so
    settings : sections of orca-conf.yml
    """

    def __init__(self, folder: Path, hosts: tuple[str, ...], pools: dict[str, Any], **settings: Any) -> None:
        self.folder = folder
        self.written = {"paths": {"data": str(folder / "data")}, **settings}
        (folder / "orca-conf.yml").write_text(yaml.safe_dump(self.written))
        packaged = yaml.safe_load(default_path().read_text())
        for pool in packaged["pools"].values():
            pool["slots"] = pool["slots"] or 1
        limits = {"load": 1000, "free_memory_gb": 0, "free_scratch_gb": 0}
        text = yaml.safe_dump({**packaged, "hosts": list(hosts), "limits": limits, **pools})
        (folder / "work_pools.yaml").write_text(text)
        self.settings = config.load(folder / "orca-conf.yml")
        self.pools = load_pools(folder / "work_pools.yaml")
        self.started: dict[str, subprocess.Popen[bytes]] = {}
        self.address = ""

    def start(self, part: Part) -> None:
        with (self.folder / f"{part.name}.log").open("ab") as log:
            self.started[part.name] = subprocess.Popen(
                part.argv, env=part.full_environment() | {"PYTHONPATH": TESTS}, cwd=self.folder, stdout=log, stderr=log
            )

    def start_all(self) -> None:
        file = self.folder / "scheduler.json"
        self.start(scheduler_part(self.settings, port=0, file=str(file)))
        wait_for(lambda: file.exists() and file.read_text().strip(), "the start of the scheduler")
        self.address = json.loads(file.read_text())["address"]
        (self.folder / "orca-conf.yml").write_text(yaml.safe_dump({**self.written, "dask": {"address": self.address}}))
        for host in self.pools.hosts:
            for part in worker_parts(self.settings, self.pools, host, self.address):
                self.start(part)

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A client, when all workers have come."""
        count = sum(len(self.pools.processes(host)) for host in self.pools.hosts)
        with Client(self.address, security=security(self.settings, self.address), set_as_default=False) as client:
            client.wait_for_workers(count, timeout=60)
            wait_for(lambda: all(worker.pid for worker in list_workers(client)), "the first heartbeats")
            yield client

    def orca(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `orca` as an operator of this cluster."""
        environment = {**os.environ, "ORCA_CONF": str(self.folder / "orca-conf.yml")}
        return subprocess.run([ORCA, *words], env=environment, capture_output=True, text=True, timeout=60)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def stop(self) -> None:
        """End the workers and then the scheduler, without which a worker takes long to end."""
        scheduler = self.started.pop("dask-scheduler", None)
        for processes in (list(self.started.values()), [scheduler] if scheduler else []):
            for process in processes:
                process.terminate()
            for process in processes:
                try:
                    process.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(timeout=10)


@contextmanager
def some_cluster(
    folder: Path, hosts: tuple[str, ...] = ("node1",), pools: Any = None, **settings: Any
) -> Iterator[SomeCluster]:
    """A cluster that runs meanwhile; its folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = SomeCluster(folder, hosts, pools or {}, **settings)
    with ExitStack() as stack:
        stack.callback(cluster.stop)
        cluster.start_all()
        yield cluster
