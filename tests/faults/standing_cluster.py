"""A whole cluster of `orca up` with two nodes, its flow runs, and its parts as processes that tests may end."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import psutil
from standing_flows import INPUT, OUT, PROGRAM, manifest_path

from orca.cluster.machine import supervision
from orca.cluster.machine.questions import ask_scheduler, call_api, unfinished
from orca.cluster.machine.standing import MARK
from orca.cluster.warm.records import records
from orca.errors import InfrastructureError
from orca.manifest import fresh
from orca.procfs import marked

sys.path.insert(0, str(Path(__file__).parents[1] / "services"))
from standing_stack import Stack

LOOK_S = 0.25
"""How often to look, where each look takes a process or a request."""
NODES = ("nodea", "nodeb")
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def until(condition: Callable[[], Any], what: str, patience_s: float = 60.0) -> Any:
    """What the condition returns, once that is true."""
    end = time.monotonic() + patience_s
    while not (value := condition()):
        assert time.monotonic() < end, f"{what} did not come within {patience_s} s"
        time.sleep(LOOK_S)
    return value


def programs(folder: Path) -> list[psutil.Process]:
    """Processes of the program in a folder of `standing_flows.prepare`."""
    found = subprocess.run(["pgrep", "-f", str(folder / PROGRAM)], capture_output=True, text=True)
    processes = []
    for pid in found.stdout.split():
        with suppress(psutil.NoSuchProcess):
            processes.append(psutil.Process(int(pid)))
    return processes


def started(folder: Path, count: int = 1) -> list[psutil.Process]:
    """So many of them, once they run."""
    found: list[psutil.Process] = until(
        lambda: there if len(there := programs(folder)) >= count else None, f"the start of {count} programs"
    )
    return found


def end_soon(ended: list[psutil.Process], patience_s: float = 40.0) -> None:
    """Wait for the end of programs that nobody wants any more; a zombie has ended."""
    _, left = psutil.wait_procs(ended, timeout=patience_s)
    assert [process for process in left if process.status() != psutil.STATUS_ZOMBIE] == []


def node_of(program: psutil.Process) -> str:
    return str(program.environ()["ORCA_NODE"])


def products(folder: Path, seconds: float) -> set[str]:
    """Units whose products are whole and fresh."""
    units = {path.stem for path in (folder / OUT).glob("*.json")}
    return {unit for unit in units if fresh(manifest_path(folder, unit), [folder / INPUT], {"seconds": seconds})}


@dataclass
class Cluster:
    """What `orca up` started, asked without `orca`, which takes seconds."""

    stack: Stack

    # ---- Its parts ----

    @cached_property
    def url(self) -> str:
        return self.stack.address("server")

    @cached_property
    def dask(self) -> str:
        return self.stack.address("dask-scheduler")

    def parts(self) -> dict[str, dict[str, Any]]:
        """What supervisord says of each part."""
        with supervision.connected(self.stack.run_folder) as supervisor:
            return {part["name"]: part for part in supervisor.getAllProcessInfo()}

    def tell_supervisor(self, what: str, part: str) -> None:
        """`startProcess` or `stopProcess`; of one that has just ended by itself, once it is being started again."""
        group = self.parts()[part]["group"]

        def told() -> bool:
            try:
                with supervision.connected(self.stack.run_folder, 30.0) as supervisor:
                    getattr(supervisor, what)(f"{group}:{part}", True)
            except InfrastructureError as error:
                if "NOT_RUNNING" not in str(error):
                    raise
                return False
            return True

        until(told, f"{what} of {part}")

    def send(self, part: str, number: int) -> psutil.Process:
        """Send a signal to a part, and return its process as it was."""
        process = psutil.Process(self.parts()[part]["pid"])
        process.send_signal(number)
        return process

    def whole(self) -> bool:
        """Whether all parts run, and the Dask workers are known to the scheduler."""
        if any(part["statename"] != "RUNNING" for part in self.parts().values()):
            return False
        workers = ask_scheduler(self.dask).facts.get("workers", [])
        return {worker["name"] for worker in workers} == {f"{node}-0" for node in NODES}

    def log(self, name: str) -> str:
        """What a part has printed; `supervisord` tells how parts ended."""
        folder = self.stack.run_folder
        path = folder / "supervisord.log" if name == "supervisord" else folder / "logs" / f"{name}.log"
        return path.read_text(errors="replace")

    def orphans(self) -> list[str]:
        """Processes of this cluster that descend from its supervisor no more."""
        supervisor = self.stack.known()["supervisor"][0]
        found = []
        for pid in marked(MARK, str(self.stack.run_folder.resolve())):
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                if supervisor not in (pid, *(parent.pid for parent in process.parents())):
                    found.append(" ".join(process.cmdline()))
        return found

    # ---- Flow runs ----

    def call(self, path: str, body: Any = None) -> Any:
        """Call Prefect's API, again while it says that it is too busy."""
        end = time.monotonic() + 90.0
        while True:
            try:
                return call_api(self.url, path, body, patience_s=60.0)
            except HTTPError as error:
                if error.code != 503 or time.monotonic() > end:
                    raise
            time.sleep(0.5)

    def deploy(self, user: str) -> str:
        """Deploy `standing_flows.making` for a user; returns the deployment's id."""
        pool = f"{user}-default"
        flow = self.call("flows/", {"name": "making"})["id"]
        deployment = {"name": f"{user}-making", "flow_id": flow, "entrypoint": "standing_flows.making"}
        return str(self.call("deployments/", {**deployment, "work_pool_name": pool})["id"])

    def start(self, deployment: str, folder: Path, **parameters: Any) -> str:
        """Ask for a flow run; returns its id."""
        body = {"parameters": {"folder": str(folder), **parameters}, "state": {"type": "SCHEDULED"}}
        return str(self.call(f"deployments/{deployment}/create_flow_run", body)["id"])

    def cancel(self, run: str) -> None:
        answer = self.call(f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
        assert answer["status"] == "ACCEPT", answer

    def state(self, run: str) -> dict[str, Any]:
        """The state now; empty while the server is away."""
        with suppress(OSError):
            return dict(self.call(f"flow_runs/{run}")["state"])
        return {}

    def ends(self, run: str, name: str, patience_s: float = 120.0) -> dict[str, Any]:
        """The state of a run once it has that name."""
        end = time.monotonic() + patience_s
        while (state := self.state(run)).get("name") != name:
            assert time.monotonic() < end, f"not {name} within {patience_s} s: {state}\n{self.told(run)}"
            time.sleep(LOOK_S)
        return state

    def states(self, run: str) -> list[tuple[str, str]]:
        """Names and messages of the states that a run had."""
        states = sorted(self.call(f"flow_run_states/?flow_run_id={run}"), key=lambda state: state["timestamp"])
        return [(state["name"], state["message"] or "") for state in states]

    def told(self, run: str) -> str:
        """What Prefect has of a run's log."""
        logs = self.call("logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC"})
        return "\n".join(log["message"] for log in logs)

    def process(self, run: str) -> psutil.Process:
        """Of a flow run."""
        home = self.stack.site.data / "prefect" / "runs"
        [record] = [record for record in records(home) if record.flow_run_id == run]
        return psutil.Process(record.process.pid)

    def well(self, folder: Path, *runs: str, units: int, seconds: float) -> None:
        """Assert that the work was done and that nothing is left: no program, no run that seems to run."""
        assert products(folder, seconds) == {f"unit{number}" for number in range(units)}
        self.clean(folder, *runs)

    def clean(self, folder: Path, *runs: str) -> None:
        """Assert that nothing is left of runs that have ended."""
        assert programs(folder) == []
        for run in runs:
            until(lambda run=run: set(self.task_states(run)) <= FINAL, "the end of all task runs", 90)
        assert [run["id"] for run in unfinished(self.url) if run["id"] in runs] == []

    def task_states(self, run: str) -> list[str]:
        """Types of the states of a run's task runs."""
        runs = self.call("task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
        return [
            each["state"]["type"] for each in runs if each["state"]
        ]  # what was told while the server was away may lack it
