"""`orca up` under fire: parts that are killed come back where they were, and `orca down` leaves nothing."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from site_of_tests import Site, script

from orca.ms.simulate import SimulationOptions, simulate

sys.path.insert(0, str(Path(__file__).parents[1] / "services"))
from standing_stack import Stack
from waiting import COMMAND_S, wait_for


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    waits = (
        f"while [ -e {folder}/hold ]; do sleep 0.1; done; test -e {folder}/stall && touch {folder}/stalls && sleep 300"
    )
    imager = script(folder / "imager", f'{waits}; exec wsclean "$@"')
    unused = ("flow-worker-default", "flow-worker-bandpass", "flow-worker-cosmology")
    made = Stack(Site(folder, {"execs": {"wsclean": str(imager)}, "limits": {"settle_s": 0.0}}), without=unused)
    result = made.up()
    yield made
    made.down()
    assert result.returncode == 0, result.stdout + result.stderr


def kill(pid: int) -> None:
    psutil.Process(pid).send_signal(signal.SIGKILL)


def test_killed_parts_come_back_at_their_addresses(stack: Stack) -> None:
    before = {part["name"]: part for part in stack.status()["parts"]}
    for part in before.values():
        kill(part["pid"])
    down = stack.site.run("status")
    assert down.returncode == 1, "half of it was down"
    wait_for(lambda: stack.status()["healthy"], "all parts again", 180, COMMAND_S)
    after = {part["name"]: part for part in stack.status()["parts"]}
    assert {name: part["address"] for name, part in after.items()} == {n: p["address"] for n, p in before.items()}
    assert all(after[name]["pid"] != part["pid"] for name, part in before.items())
    assert all(part["restarts"] >= 1 for part in after.values())


def test_after_the_supervisor_was_killed_up_starts_anew_at_the_same_addresses(stack: Stack) -> None:
    before = {part["name"]: part["address"] for part in stack.status()["parts"]}
    old = stack.processes()
    kill(stack.known()["supervisor"][0])
    told = stack.site.run("status")
    assert told.returncode == 1
    assert "was killed" in told.stderr
    assert stack.up().returncode == 0
    assert {part["name"]: part["address"] for part in stack.status()["parts"]} == before
    assert not [process for process in old if process.is_running()]


def start_imaging(stack: Stack, tmp_path: Path) -> None:
    [integration] = simulate(tmp_path / "raw", SimulationOptions(antennas=24, channels=8))
    given = {
        "measurement_sets": [str(integration)],
        "out": str(tmp_path / "out"),
        "options": {"size": 512, "scale_deg": 0.2, "extra": ["-maxuv-l", "100"]},
    }
    words = [word for name, value in given.items() for word in ("-p", f"{name}={json.dumps(value)}")]
    environment = stack.site.environment() | {"PREFECT_API_URL": stack.address("server")}
    prefect = Path(sys.executable).with_name("prefect")
    subprocess.run([prefect, "deployment", "run", "imaging/imaging", *words], env=environment, check=True)


def states(stack: Stack) -> list[str]:
    """Types of the states of all flow runs of the imaging flow, the latest first; the server need not run."""
    question = "select state_type from flow_run where work_queue_id is not null and start_time is not null"
    with closing(sqlite3.connect(stack.site.data / "prefect" / "prefect.db")) as database:
        return [row[0] for row in database.execute(f"{question} order by start_time desc")]


def test_drain_waits_for_the_flow_runs(stack: Stack, tmp_path: Path) -> None:
    hold = stack.site.folder / "hold"
    hold.touch()
    start_imaging(stack, tmp_path)
    wait_for(lambda: stack.status()["flow_runs"], "the flow run", every_s=COMMAND_S)
    command, log = stack.site.start("down", "--drain"), stack.site.folder / "background.log"
    wait_for(lambda: "waiting for flow runs: imaging" in log.read_text(), "the word that it waits")
    hold.unlink()
    assert command.wait(timeout=120) == 0, log.read_text()
    assert states(stack) == ["COMPLETED"]
    assert stack.processes() == []


def test_down_leaves_no_flow_run_in_running_and_no_program(stack: Stack, tmp_path: Path) -> None:
    (stack.site.folder / "stall").touch()
    assert replace(stack, without=(*stack.without, "rabbitmq")).up().returncode == 0
    start_imaging(stack, tmp_path)
    wait_for((stack.site.folder / "stalls").exists, "the imager")
    assert stack.status()["flow_runs"][0]["state"] == "Running"
    assert stack.down().returncode == 0
    assert stack.processes() == []
    assert states(stack)[0] == "SCHEDULED", "it is run again by the next orca up"


def test_down_ends_all_when_the_supervisor_was_killed(stack: Stack) -> None:
    small = replace(stack, without=("flow-workers",))
    assert small.up().returncode == 0
    assert len(small.processes()) > 6
    kill(small.known()["supervisor"][0])
    assert small.down().returncode == 0
    assert small.processes() == []
    assert "nothing runs" in small.down().stdout
