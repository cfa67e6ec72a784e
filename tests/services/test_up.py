"""`orca up`, `orca status` and `orca down` with all real parts: what stands, what is told, and that it can be used."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest
from site_of_tests import ORCA, Site, outcomes
from standing_stack import Stack
from waiting import COMMAND_S, wait_for

from orca.cluster import server
from orca.cluster.machine.broker import find_program
from orca.cluster.machine.questions import call_api
from orca.ms.simulate import SimulationOptions, simulate

SMALL = ("--size", "256", "--scale", "0.5", "--calibration", "none")
ALL = {"redis", "epmd", "rabbitmq", "server", "dask-scheduler", "flow-worker-default", "flow-worker-imaging", "metrics"}
FAKE = ("nodea", "nodeb")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """All kinds of parts, with Dask workers as if on two nodes."""
    if find_program() is None:
        pytest.skip("needs RabbitMQ")
    place = Site(tmp_path_factory.mktemp("stack"), {"limits": {"settle_s": 2.0}})
    made = Stack(place, without=("flow-worker-bandpass", "flow-worker-cosmology"), pools={"hosts": [*FAKE]})
    result = made.up()
    yield made
    made.down()
    assert result.returncode == 0, result.stdout + result.stderr
    assert made.processes() == []


def test_all_parts_answer(stack: Stack) -> None:
    status = stack.status()
    parts = {part["name"]: part for part in status["parts"]}
    assert status["healthy"]
    assert ALL | {f"{host}-0" for host in FAKE} <= set(parts)
    assert [name for name, part in parts.items() if not part["healthy"]] == []
    versions = {name: parts[name]["version"] for name in ("redis", "rabbitmq", "server", "dask-scheduler", "nodea-0")}
    assert all(version[0].isdigit() for version in versions.values()), versions
    assert status["slots"]["imaging"] == {host: {"used": 0, "offered": 1} for host in FAKE}
    assert set(status["queues"]) == {"default", "imaging", "bandpass", "cosmology"}
    assert set(status["queues"].values()) <= {0, None}, "the trigger makes them, a moment later perhaps"


def test_prometheus_gets_numbers_of_all_parts(stack: Stack) -> None:
    with urlopen(stack.part("metrics")["address"], timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    up = {line.partition('part="')[2].partition('"')[0] for line in lines if line.startswith("orca_up{")}
    assert up >= ALL


def test_the_doctor_finds_it_well_and_tells_what_is_then_changed(stack: Stack) -> None:
    def services() -> dict[str, dict[str, str]]:
        asked = ("configuration", "broker", "redis", "prefect", "flow-workers", "dask")
        told = stack.site.run("doctor", "--json", *(word for name in asked for word in ("--only", name)))
        findings = json.loads(told.stdout)["findings"]
        order = ["ok", "note", "warning", "error"]
        return {each["name"]: each for each in sorted(findings, key=lambda each: order.index(each["level"]))}

    wait_for(lambda: services()["queues"]["level"] == "ok", "the queues, which the trigger makes", every_s=COMMAND_S)
    well = services()
    assert [name for name, each in well.items() if each["level"] not in ("ok", "note")] == []
    assert {name for name, each in well.items() if each["section"] == "flow-workers" and each["level"] == "note"} == {
        "bandpass",
        "cosmology",
    }
    assert {"server", "pools", "deployments", "scheduler", "slots", "versions"} <= set(well)

    url = stack.address("server")
    call_api(url, "work_pools/imaging", {"is_paused": True}, method="PATCH")
    deployment = call_api(url, "deployments/name/cosmology/cosmology")["id"]
    call_api(url, f"deployments/{deployment}", method="DELETE")
    changed = services()
    assert (changed["pools"]["level"], changed["pools"]["remedy"]) == (
        "warning",
        "prefect work-pool resume imaging",
    )
    assert (changed["deployments"]["level"], changed["deployments"]["remedy"]) == ("error", "orca deploy")
    call_api(url, "work_pools/imaging", {"is_paused": False}, method="PATCH")
    assert stack.site.run("deploy").returncode == 0
    assert services()["deployments"]["level"] == "ok"


def test_its_broker_has_a_management_api(stack: Stack) -> None:
    users = json.loads(stack.site.run("users", "ls", "--json").stdout)
    assert [(user["name"], user["rights"]) for user in users] == [("orca", {"/": "all"})]


def test_everything_listens_on_the_loopback_interface_alone(stack: Stack) -> None:
    listening = [
        connection.laddr.ip
        for process in stack.processes()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 7
    assert set(listening) <= {"127.0.0.1", "::1"}


def test_passwords_are_for_the_owner_only(stack: Stack) -> None:
    secret = stack.known()["passwords"]["rabbitmq"]
    holders = [path for path in stack.run_folder.rglob("*") if path.is_file() and secret in path.read_text("latin-1")]
    assert stack.run_folder / "up.json" in holders
    assert {stat.S_IMODE(path.stat().st_mode) for path in holders} == {0o600}
    shown = stack.site.run("status").stdout + stack.site.run("status", "--json").stdout
    assert secret not in shown
    commands = [" ".join(process.cmdline()) for process in stack.processes()]
    assert not any(secret in command for command in commands)


def test_up_again_changes_nothing(stack: Stack) -> None:
    before = {part["name"]: part["pid"] for part in stack.status()["parts"]}
    result = stack.up()
    assert result.returncode == 0, result.stderr
    assert {part["name"]: part["pid"] for part in stack.status()["parts"]} == before


def test_a_deployment_runs_at_once_and_is_shown(stack: Stack, tmp_path: Path) -> None:
    environment = stack.site.environment() | {"PREFECT_API_URL": stack.address("server")}
    prefect = Path(sys.executable).with_name("prefect")
    missing = json.dumps([str(tmp_path / "missing.ms")])
    command = [prefect, "deployment", "run", "imaging/imaging", "-p", f"measurement_sets={missing}"]
    ran = subprocess.run(
        [*command, "--watch"], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert "no such file" in ran.stdout + (stack.run_folder / "logs" / "flow-worker-imaging.log").read_text().lower()


def test_a_run_from_the_terminal_uses_what_stands(stack: Stack, tmp_path: Path) -> None:
    [integration] = simulate(tmp_path / "raw", SimulationOptions(antennas=24, channels=8))
    os.utime(integration, (1e9, 1e9))
    result = stack.site.run("run", "imaging", integration, *SMALL, "--out", tmp_path / "out", "--json")
    assert [made["status"] for made in outcomes(result).values()] == ["done"], result.stderr
    assert list((stack.run_folder / "nodes").glob("*/scratch")), "a node works in its own scratch folder"
    assert json.loads(stack.site.run("status", "--json").stdout)["server"]["url"] in stack.address("server")
    assert not (stack.site.data / "prefect" / "server.json").exists(), "no second server was started"


def test_two_homes_do_not_disturb_each_other_and_the_server_of_a_run_is_replaced_at_its_address(
    stack: Stack, tmp_path: Path
) -> None:
    """Who uses that server goes on with the new one; two servers must not share a database."""
    other = Stack(Site(tmp_path / "other"), without=("rabbitmq", "dask", "flow-workers", "metrics"))
    other.site.folder.mkdir()
    before = {part["name"]: part["pid"] for part in stack.status()["parts"]}
    old, _ = server.ensure(other.site.data / "prefect")
    try:
        assert other.up().returncode == 0
        assert {part["name"] for part in other.status()["parts"]} == {"redis", "server"}
        assert other.address("server") == old.url
        wait_for(lambda: other.part("server")["healthy"], "the server", every_s=COMMAND_S)
        assert not old.alive()
        assert set(other.known()["ports"].values()).isdisjoint(stack.known()["ports"].values())
    finally:
        assert other.down().returncode == 0
    assert other.processes() == []
    assert json.loads(other.site.run("status", "--json").stdout) == {"server": None}
    assert {part["name"]: part["pid"] for part in stack.status()["parts"]} == before


def test_a_program_that_is_missing_is_left_out_with_a_word(tmp_path: Path) -> None:
    """With a PATH without RabbitMQ and Redis; the plan is looked at, not started."""
    script = (
        "from orca import config; from orca.cluster.pools import load_pools\n"
        "from orca.cluster.machine.services import *\n"
        "ports, words = dict.fromkeys(PORTS, 1), dict.fromkeys(PASSWORDS, 'x')\n"
        f"plan = Plan(config.load(), load_pools(), __import__('pathlib').Path({str(tmp_path)!r}), ports, words)\n"
        "print(plan.left_out, [service.known.name for service in plan.services][:2])"
    )
    environment = Site(tmp_path).environment() | {"PATH": str(tmp_path)}
    told = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert "'redis': 'redis-server is not installed here'" in told.stdout
    assert "'rabbitmq': 'rabbitmq-server is not installed here'" in told.stdout
    assert "['server', 'dask-scheduler']" in told.stdout


def test_a_wrapper_of_the_system_is_not_taken_for_rabbitmq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's starts the system's node, and itself again and again under another name."""
    wrapper = tmp_path / "rabbitmq-script-wrapper"
    wrapper.touch(mode=0o755)
    (tmp_path / "rabbitmq-env").touch()
    (tmp_path / "rabbitmq-server").symlink_to(wrapper)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin")
    assert find_program() is None or find_program().with_name("rabbitmq-defaults").exists()


def test_an_unknown_part_to_leave_out_is_refused(tmp_path: Path) -> None:
    result = Site(tmp_path).run("up", "--without", "rabbit")
    assert result.returncode == 2
    assert "rabbitmq" in result.stderr


def test_a_configured_cluster_is_asked_as_well(stack: Stack, tmp_path: Path) -> None:
    """From another home that knows the addresses only; the broker's is wrong."""
    elsewhere = Site(
        tmp_path,
        {
            "prefect": {"api_url": stack.address("server")},
            "dask": {"address": stack.address("dask-scheduler")},
            "queue": {"broker_uri": "pyamqp://nobody:wrong@127.0.0.1:9//"},
        },
    )
    result = elsewhere.run("status", "--json")
    parts = {part["kind"]: part for part in json.loads(result.stdout)["parts"]}
    assert result.returncode == 1
    assert parts["server"]["healthy"]
    assert parts["scheduler"]["healthy"]
    assert not parts["rabbitmq"]["healthy"]
    assert "wrong" not in result.stdout + result.stderr


def test_help_is_quick_to_read() -> None:
    told = subprocess.run([ORCA, "up", "--help"], capture_output=True, text=True, check=True).stdout
    assert "--without" in told
    assert "--cluster" in told
