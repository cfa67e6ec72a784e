"""Things die in the middle of `orca run imaging`: nothing half-written is seen, and running again completes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest
from site_of_tests import Site, outcomes, script
from waiting import COMMAND_S, argv, family, wait_for

from orca.ms.simulate import SimulationOptions, simulate

OWN = {"workers": 1}
"""A Dask cluster of the flow's own, which is killed with it; the other runs use the one that stands."""
SMALL = ("--size", "512", "--scale", "0.2", "--extra", "-maxuv-l 100")


pytestmark = pytest.mark.usefixtures("dask")


@pytest.fixture(scope="module")
def integration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    [path] = simulate(tmp_path_factory.mktemp("raw"), SimulationOptions(antennas=24, channels=8))
    return path


@pytest.fixture
def stalling(tmp_path: Path) -> Path:
    """A WSClean that waits in a child of its own until the file `go` appears, and then images."""
    marks = f"touch {tmp_path}/started; while [ ! -e {tmp_path}/go ]; do sleep 0.1; done"
    return script(tmp_path / "stalling-wsclean", f'{marks}; exec {shutil.which("wsclean")} "$@"')


def dask_worker(command: subprocess.Popen[str]) -> psutil.Process:
    """The worker process: of what `orca` started, the one whose child is the imager."""
    for process in psutil.Process(command.pid).children(recursive=True):
        if any("stalling-wsclean" in " ".join(argv(child)) for child in process.children()):
            return process
    raise AssertionError("no process runs the imager")


def imagers(stalling: Path) -> list[int]:
    found = subprocess.run(["pgrep", "-f", str(stalling)], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


def test_a_killed_worker_costs_a_repetition(site: Site, integration: Path, stalling: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("run", "imaging", integration, *SMALL, "--out", out)
    command = site.start(*words, execs={"wsclean": str(stalling)}, dask=OWN)
    wait_for((tmp_path / "started").exists, "imaging")
    first = imagers(stalling)
    os.kill(dask_worker(command).pid, signal.SIGKILL)
    assert list(out.glob("*")) == []
    wait_for(lambda: not set(first) & set(imagers(stalling)), "the end of the dead worker's imager")
    (tmp_path / "go").touch()
    log = site.folder / "background.log"
    assert command.wait(timeout=120) == 0, log.read_text()
    assert " died: begins again" in log.read_text()
    assert {path.suffix for path in out.iterdir()} == {".fits", ".png", ".log", ".json"}
    assert imagers(stalling) == []
    again = site.run(*words, "--json", execs={"wsclean": str(stalling)})
    assert [made["status"] for made in outcomes(again).values()] == ["skipped"]
    assert [path for path in site.leftovers() if path.startswith(str(site.scratch))] == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_flow_leaves_no_program_and_no_file_and_the_next_run_completes(
    site: Site, integration: Path, stalling: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    words = ("run", "imaging", integration, *SMALL, "--out", out)
    command = site.start(*words, execs={"wsclean": str(stalling)}, dask=OWN)
    wait_for((tmp_path / "started").exists, "imaging")
    started = family(command)
    command.send_signal(number)
    assert command.wait(timeout=60) != 0
    _, alive = psutil.wait_procs(started, timeout=90)
    assert [p for p in alive if "stalling" not in " ".join(argv(p))] == []  # the shell's child, if it is slow
    assert list(out.glob("*")) == []
    if number != signal.SIGKILL:
        assert "the same command goes on from here" in (site.folder / "background.log").read_text()
        assert site.leftovers() == []
    (tmp_path / "go").touch()
    again = site.run(*words, "--json", execs={"wsclean": str(stalling)})
    assert [(made["status"], made["reason"]) for made in outcomes(again).values()] == [("done", "")]
    assert imagers(stalling) == []
    assert site.leftovers() == []


def test_a_program_on_a_cluster_that_stands_ends_soon_after_the_flow_was_killed(
    site: Site, integration: Path, tmp_path: Path
) -> None:
    stalling = script(tmp_path / "stalling-wsclean", f"touch {tmp_path}/started; sleep 300")
    words = ("run", "imaging", integration, *SMALL, "--out", tmp_path / "out")
    command = site.start(*words, execs={"wsclean": str(stalling)})
    wait_for((tmp_path / "started").exists, "imaging")
    command.send_signal(signal.SIGKILL)
    command.wait(timeout=90)
    wait_for(lambda: not imagers(stalling), "the end of the imager", patience_s=120.0)
    wait_for(lambda: not site.leftovers(), "the sweeping of scratch", patience_s=90.0)
    assert list((tmp_path / "out").glob("*.fits")) == []


def test_a_killed_server_is_started_again(site: Site, integration: Path, tmp_path: Path) -> None:
    """The last test here: the cluster that stands knows the server that is killed."""

    def server() -> Any:
        return json.loads(site.run("status", "--json").stdout)["server"]

    killed = server()["pid"]
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: server() is None, "the end of the server", every_s=COMMAND_S)
    words = ("run", "imaging", integration, *SMALL, "--out", tmp_path / "out", "--json")
    made = outcomes(site.run(*words, dask=OWN))
    assert [entry["status"] for entry in made.values()] == ["done"]
    assert server()["pid"] != killed
