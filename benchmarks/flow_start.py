"""From the request for a flow run to its first line: ORCA's warm worker and Prefect's stock process worker, in turn.

Both poll at the same interval, on one private server with SQLite. The imaging flow is measured to the moment where it
refuses an empty list of Measurement Sets, since it tells nobody of its first line.

.venv/bin/python benchmarks/flow_start.py [--repetitions 7] [--poll 1]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import UUID

PREFECT = Path(sys.executable).with_name("prefect")
FLOW = """
import time
from pathlib import Path
from prefect import flow

@flow
def first_line(told: str) -> None:
    Path(told).write_text(str(time.time()))
"""
KINDS = {"warm": "orca", "stock": "process"}
"""Work pool and worker type."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--poll", type=float, default=1.0, help="seconds between two questions of a worker")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orca-benchmark-") as name:
        folder = Path(name)
        for variable in [one for one in os.environ if one.startswith(("PREFECT_", "ORCA_"))]:
            del os.environ[variable]
        os.environ["HOME"] = name
        times = measure(folder, asked.repetitions, asked.poll)
    print(f"Request to first line, polling each {asked.poll:g} s (median of {asked.repetitions}, seconds)")
    for flow in ("a flow of one line", "imaging, to its refusal"):
        warm, stock = times["warm", flow], times["stock", flow]
        ratio = statistics.median(stock) / statistics.median(warm)
        for title, each in (("ORCA's warm worker", warm), ("stock process worker", stock)):
            print(f"{flow:26} {title:22} {statistics.median(each):7.2f}   {min(each):.2f} to {max(each):.2f}")
        print(f"{'':26} {'stock / warm':22} {ratio:7.1f}")


def measure(folder: Path, repetitions: int, poll_s: float) -> dict[tuple[str, str], list[float]]:
    """Seconds of each repetition, by pool and flow; a first round for each is not counted."""
    from orca.cluster import server

    own, _ = server.ensure(folder / "prefect")
    server.wait_until_healthy(own)
    os.environ.update(server.client_environment(folder / "prefect", own.url))
    os.environ["PREFECT_WORKER_QUERY_SECONDS"] = str(poll_s)
    workers = []
    times: dict[tuple[str, str], list[float]] = {}
    try:
        deployments = {pool: deploy(folder, pool, kind) for pool, kind in KINDS.items()}
        workers = [subprocess.Popen([PREFECT, "worker", "start", "--pool", pool], cwd=folder) for pool in KINDS]
        for turn in range(-1, repetitions):
            for pool, (line, imaging) in deployments.items():
                told = folder / f"{pool}{turn}"
                for flow, seconds in (
                    ("a flow of one line", first_line(line, told)),
                    ("imaging, to its refusal", refusal(imaging)),
                ):
                    if turn >= 0:
                        times.setdefault((pool, flow), []).append(seconds)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()
        server.stop(folder / "prefect")
    return times


def deploy(folder: Path, pool: str, kind: str) -> tuple[UUID, UUID]:
    """A work pool with both flows; the deployments."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.workers.base import BaseWorker

    code = folder / "code"
    code.mkdir(exist_ok=True)
    (code / "line.py").write_text(FLOW)
    worker = BaseWorker.get_worker_class_from_type(kind)
    if worker is None:
        raise SystemExit(f"there is no worker type {kind}: run script/bootstrap")
    with get_client(sync_client=True) as client:
        template = worker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=pool, type=kind, base_job_template=template))
        made = []
        for flow, entrypoint, path in (
            ("first-line", "line.py:first_line", str(code)),
            ("imaging", "flows.imaging.imaging", None),
        ):
            flow_id = client.create_flow_from_name(flow)
            made.append(
                UUID(
                    str(
                        client.create_deployment(
                            flow_id, f"{flow}-{pool}", entrypoint=entrypoint, path=path, work_pool_name=pool
                        )
                    )
                )
            )
    return made[0], made[1]


def ask(deployment: UUID, **parameters: Any) -> tuple[float, UUID]:
    """Ask for a flow run: when, and which."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        begin = time.time()
        return begin, UUID(str(client.create_flow_run_from_deployment(deployment, parameters=parameters).id))


def ended(run: UUID) -> Any:
    """The final state of a flow run."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        while (state := client.read_flow_run(run).state) is None or not state.is_final():
            time.sleep(0.1)
    return state


def first_line(deployment: UUID, told: Path) -> float:
    """Seconds from the request to the flow's first line."""
    begin, run = ask(deployment, told=str(told))
    ended(run)
    return float(told.read_text()) - begin


def refusal(deployment: UUID) -> float:
    """Seconds from the request to the end of an imaging run that is refused in its first line."""
    begin, run = ask(deployment, measurement_sets=["relative.ms"])
    state = ended(run)
    if "a deployment's run does not know" not in (state.message or ""):
        raise SystemExit(f"the imaging flow ended otherwise: {state}")
    return float(state.timestamp.timestamp()) - begin


if __name__ == "__main__":
    main()
