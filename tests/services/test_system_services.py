"""What the systemd units start and stop, really run: their own command lines, as systemd would call them."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cluster_tasks import runs, wait_for_file
from distributed import Client
from site_of_tests import ORCA
from some_cluster import TESTS
from waiting import COMMAND_S, wait_for

from orca import config
from orca.cluster import server
from orca.cluster.nodes.workers import WorkerInfo, list_workers
from orca.cluster.pools import default_path, load_pools
from orca.cluster.ports import free_port
from orca.cluster.server_settings import SERVER_SETTINGS
from orca.cluster.systemd.units import site, unit_files

NODE = "node1"
KEPT = ("PATH", "HOME", "PREFECT_HOME", "LANG")
"""What systemd gives a service, nearly."""


class Services:
    """The services of a host; each is called as its unit says, restarted when a test says so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ports = [free_port("127.0.0.1") for _ in range(2)]
        self.url, self.address = f"http://127.0.0.1:{ports[0]}/api", f"tcp://127.0.0.1:{ports[1]}"
        conf, pools = folder / "orca-conf.yml", folder / "work_pools.yaml"
        settings = {"prefect": {"api_url": self.url}, "dask": {"address": self.address}}
        conf.write_text(yaml.safe_dump({"paths": {"data": str(folder / "data")}, **settings}))
        packaged = yaml.safe_load(default_path().read_text())
        for pool in packaged["pools"].values():
            pool["slots"] = 1
        limits = {"load": 1000, "free_memory_gb": 0, "free_scratch_gb": 0}
        pools.write_text(yaml.safe_dump({**packaged, "hosts": [NODE], "limits": limits}))
        chosen = site(
            config.load(conf), load_pools(pools), venv=Path(sys.prefix), configuration=conf, user="nobody"
        )  # fmt: skip
        self.units = unit_files(chosen, NODE)
        self.started: dict[str, subprocess.Popen[bytes]] = {}

    def _of(self, name: str, key: str) -> list[str]:
        """Words of a setting of a unit, such as orca-dask@0.service."""
        head, _, rest = name.partition("@")
        text = self.units[f"{head}@.service" if rest else name]
        line = next(line for line in text.splitlines() if line.startswith(f"{key}="))
        return shlex.split(line.partition("=")[2].replace("%i", rest.removesuffix(".service")).replace("$$", "$"))

    def environment(self, name: str) -> dict[str, str]:
        given = dict(word.split("=", 1) for word in self._of(name, "Environment"))
        kept = {key: os.environ[key] for key in KEPT if key in os.environ}
        return {**kept, **given, "PYTHONPATH": TESTS}  # for the tasks of the tests

    def start(self, name: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            words = self._of(name, "ExecStart")
            self.started[name] = subprocess.Popen(
                words, env=self.environment(name), stdout=log, stderr=log, cwd="/", start_new_session=True
            )
        return self.started[name]

    def stop_command(self, name: str) -> subprocess.Popen[str]:
        """Call what the unit has for the end of the process."""
        program, *words = self._of(name, "ExecStop")
        process = self.started[name]
        main = {"MAINPID": str(process.pid)} if process.poll() is None else {}
        return subprocess.Popen(
            [program.removeprefix("-"), *words],
            env=self.environment(name) | main,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def orca(self, *words: str) -> str:
        environment = self.environment("orca-server.service")
        done = subprocess.run([ORCA, *words], env=environment, capture_output=True, text=True, timeout=100)
        return done.stdout + done.stderr

    def end(self) -> None:
        for process in self.started.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(timeout=40)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = Services(tmp_path)
    yield made
    made.end()


def the_worker(client: Client) -> WorkerInfo:
    """The only one, when it has told of itself."""

    def found() -> WorkerInfo | None:
        return next((worker for worker in list_workers(client, NODE) if worker.pid), None)

    return wait_for(found, "the start of the worker", 60)


def test_a_dask_process_that_is_stopped_finishes_its_task_and_one_that_lost_its_scheduler_ends(
    services: Services, tmp_path: Path
) -> None:
    name = "orca-dask@0.service"
    scheduler, process = services.start("orca-scheduler.service"), services.start(name)
    with Client(services.address, timeout=60, set_as_default=False) as client:
        assert the_worker(client).name == f"{NODE}-0"
        task = client.submit(wait_for_file, str(tmp_path), "task", resources={"imaging": 1})
        wait_for(lambda: runs(tmp_path, "task"), "the start of the task")
        stopping = services.stop_command(name)
        wait_for(lambda: the_worker(client).status == "paused", "the drain")
        assert process.poll() is None
        assert stopping.poll() is None
        (tmp_path / "go").touch()
        assert task.result(timeout=90) == runs(tmp_path, "task")[0]
        task.release()  # there is no other node that could keep it
        told, _ = stopping.communicate(timeout=60)
        assert f"ended {NODE}-0" in told
        assert process.wait(timeout=90) == 0
        assert len(runs(tmp_path, "task")) == 1

        again = services.start(name)  # as the same worker
        assert the_worker(client).name == f"{NODE}-0"
    scheduler.kill()
    again.wait(timeout=60)
    assert services.stop_command(name).wait(timeout=30) == 0  # systemd calls it, and it must not keep the restart

    services.start("orca-scheduler.service")
    services.start(name)
    with Client(services.address, timeout=60, set_as_default=False) as client:
        assert the_worker(client).name == f"{NODE}-0"


def test_the_server_answers_with_our_settings_and_a_flow_worker_serves_its_pool(services: Services) -> None:
    first, flows = services.start("orca-server.service"), services.start("orca-flows@imaging.service")
    wait_for(lambda: server.answers(services.url), "the start of the server", 100)
    environ = Path(f"/proc/{first.pid}/environ").read_text().split("\0")
    assert {f"{key}={value}" for key, value in {**server.QUIET, **SERVER_SETTINGS}.items()} <= set(environ)
    assert "imaging" in services.orca("pools", "apply")
    wait_for(lambda: f"{NODE}-imaging" in services.orca("pools", "ls"), "the flow worker", 60, COMMAND_S)
    flows.terminate()
    flows.wait(timeout=90)
    assert "takes no new flow runs" in services.log("orca-flows@imaging.service")
    first.terminate()
    first.wait(timeout=90)
