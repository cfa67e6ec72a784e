"""A private Prefect server with warm workers, for tests that start flow runs and kill their parts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml

LOOK_S = 0.25
"""How often to look: most looks ask the server, which takes it and us 50 ms of a core."""
PREFECT = Path(sys.executable).with_name("prefect")
FLOWS = Path(__file__).with_name("warm_flows.py")


def until(condition: Callable[[], Any], patience_s: float = 90.0, what: str = "it") -> Any:
    """What the condition returns, once that is true."""
    end = time.monotonic() + patience_s
    while not (value := condition()):
        assert time.monotonic() < end, f"{what} did not happen within {patience_s} s"
        time.sleep(LOOK_S)
    return value


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@dataclass
class WarmSite:
    """A folder with a server's database, records of runs, and one work pool for each test."""

    folder: Path
    url: str = ""
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.folder / "prefect"

    def open(self) -> WarmSite:
        """Start the server and have this process talk to it."""
        from orca.cluster import server

        own, _ = server.ensure(self.home)
        server.wait_until_healthy(own)
        self.url = own.url
        return self

    def close(self) -> None:
        """End the workers, what they started, and the server."""
        from orca.cluster import server
        from orca.cluster.warm.records import records

        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait()
        for record in records(self.home / "runs"):
            if record.process.alive():
                os.kill(record.process.pid, signal.SIGKILL)
        server.stop(self.home)

    def environment(self, **more: str) -> dict[str, str]:
        config = self.folder / "orca-conf.yml"
        config.write_text(yaml.safe_dump({"prefect": {"home": str(self.home)}, "dask": {"workers": 1}}))
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        return {
            **kept,
            "HOME": str(self.folder),
            "ORCA_CONF": str(config),
            "PREFECT_HOME": str(self.home),
            "PREFECT_API_URL": self.url,
            "PREFECT_WORKER_QUERY_SECONDS": "0.5",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PYTHONPATH": str(FLOWS.parent),
            "ORCA_REAP_S": "0.5",
            "DO_NOT_TRACK": "1",
            **more,
        }

    def client(self) -> Any:
        """A client of the server."""
        from prefect.client.orchestration import SyncPrefectClient

        return SyncPrefectClient(api=self.url)

    def pool(self, name: str, kind: str = "orca") -> str:
        """Make a work pool."""
        from prefect.client.schemas.actions import WorkPoolCreate

        from orca.cluster.warm.worker import WarmWorker

        template = {"base_job_template": WarmWorker.get_default_base_job_template()} if kind == "orca" else {}
        with self.client() as client:
            client.create_work_pool(WorkPoolCreate(name=name, type=kind, **template))
        return name

    def deploy(self, flow: str, pool: str) -> UUID:
        """Deploy a flow of `warm_flows.py`."""
        import warm_flows
        from prefect.utilities.callables import parameter_schema

        with self.client() as client:
            flow_id = client.create_flow(getattr(warm_flows, flow))
            return UUID(
                str(
                    client.create_deployment(
                        flow_id,
                        f"{flow}-{pool}",
                        entrypoint=f"{FLOWS.name}:{flow}",
                        path=str(FLOWS.parent),
                        work_pool_name=pool,
                        parameter_openapi_schema=parameter_schema(getattr(warm_flows, flow)).model_dump_for_openapi(),
                    )
                )
            )

    def work(self, pool: str, *options: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a worker; it may not be ready yet."""
        log = (self.folder / f"worker-{pool}.log").open("ab")
        command = [str(PREFECT), "worker", "start", "--pool", pool, *options]
        worker = subprocess.Popen(
            command,
            env=self.environment(**environment),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        self.workers.append(worker)
        return worker

    def run(self, deployment: UUID, **parameters: Any) -> UUID:
        """Ask for a flow run."""
        with self.client() as client:
            run = client.create_flow_run_from_deployment(deployment, parameters=parameters)
        return UUID(str(run.id))

    def state(self, run: UUID) -> Any:
        with self.client() as client:
            return client.read_flow_run(run).state

    def names(self, run: UUID) -> list[str]:
        """Names of the states that a run had."""
        with self.client() as client:
            states = sorted(client.read_flow_run_states(run), key=lambda state: state.timestamp)
        return [str(state.name) for state in states]

    def ends(self, run: UUID, name: str, patience_s: float = 90.0) -> Any:
        """The state of a run once it has that name."""
        return until(lambda: state if (state := self.state(run)).name == name else None, patience_s, f"{name} of {run}")

    def logs(self, run: UUID) -> str:
        """What Prefect has of a run's log."""
        from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

        with self.client() as client:
            found = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run])))
        return "\n".join(log.message for log in found)


def start(folder: Path, number: int = 0, patience_s: float = 90.0) -> dict[str, Any]:
    """What a flow told of its start, once it has."""
    path = folder / f"start-{number}"
    until(path.exists, patience_s, f"start {number} in {folder}")
    told: dict[str, Any] = json.loads(path.read_text())
    return told
