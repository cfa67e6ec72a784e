"""The systemd units of a cluster: what they say, that systemd takes them, and what the parts are that they start."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from site_of_tests import ORCA

from orca import config
from orca.cluster.pools import POOLS, WorkPools, load_pools
from orca.cluster.server import QUIET
from orca.cluster.server_settings import SERVER_SETTINGS
from orca.cluster.systemd import serving
from orca.cluster.systemd.units import Site, site, unit_files, write_units
from orca.config import Config
from orca.errors import ConfigError, InputError

ROOT = Path(__file__).parents[2]
TELESCOPE = ROOT / "work_pools.yaml"
KEPT = ROOT / "deployments" / "systemd"
RECORDERS = [f"lwacalim{number:02d}" for number in range(1, 9)]
SERVICES = (
    "orca-server.service",
    "orca-scheduler.service",
    "orca-flows@.service",
    "orca-trigger.service",
    "orca-dask@.service",
    "orca-metrics.service",
)
PASSWORDS = ("secret-of-broker", "secret-of-redis", "secret-of-database")
CLUSTER = {
    "prefect": {
        "api_url": "http://lwacalim10.calim.pvt:4200/api",
        "database": f"postgresql://orca:{PASSWORDS[2]}@db:5432/orca",
    },
    "dask": {"address": "tcp://lwacalim09:8786"},
    "queue": {
        "broker_uri": f"pyamqp://orca:{PASSWORDS[0]}@rabbitmq:5672/orca",
        "result_backend_uri": f"redis://:{PASSWORDS[1]}@lwacalim10:6379/0",
    },
}

Configure = Callable[..., Config]


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """`configure(prefect={...}, ...)`: a configuration of these sections."""

    def configure(**sections: object) -> Config:
        path = tmp_path / "orca-conf.yml"
        path.write_text(yaml.safe_dump({"paths": {"data": str(tmp_path / "data")}, **sections}))
        path.chmod(0o600)
        return config.load(path)

    return configure


@pytest.fixture
def telescope() -> WorkPools:
    return load_pools(TELESCOPE)


@pytest.fixture
def here(configure: Configure, telescope: WorkPools) -> Site:
    """The telescope's site with the programs of this machine."""
    return a_site(configure(), telescope)


def a_site(settings: Config, pools: WorkPools, **options: object) -> Site:
    given = {"venv": Path(sys.prefix), "configuration": Path("/etc/orca/orca-conf.yml"), "user": "root", **options}
    return site(settings, pools, **given)


def values(text: str, key: str) -> list[str]:
    """What a unit says for a key."""
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{key}=")]


def value(text: str, key: str) -> str | None:
    """The last of them, which counts."""
    return (values(text, key) or [None])[-1]


def verify(folder: Path) -> str:
    """What systemd finds wrong with the units of a host, instances of templates included."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    names = [name for unit in folder.glob("orca.*") for name in (unit.name, *values(unit.read_text(), "Wants"))]
    names.append("orca-alarms.service")  # which the timer starts
    done = subprocess.run(
        ["systemd-analyze", "verify", *names],
        env={"SYSTEMD_UNIT_PATH": f"{folder}:", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1)
    return done.stdout + done.stderr


def test_systemd_finds_nothing_wrong_with_the_units_of_any_host(here: Site, tmp_path: Path) -> None:
    write_units(here, tmp_path / "units")
    folders = sorted((tmp_path / "units").iterdir())
    assert [folder.name for folder in folders] == list(here.hosts)
    for folder in folders:
        assert verify(folder) == ""


@pytest.mark.parametrize(
    ("unit", "old", "new"),
    [
        ("orca-dask@.service", "KillMode=mixed", "KillMode=some"),
        ("orca-dask@.service", "/bin/orca ", "/bin/orka "),
        ("orca-dask@1.service.d/memory.conf", "MemoryMax", "MaxMemory"),
        ("orca.target", "orca-dask@3.service", "orca-task@3.service"),
        ("orca-alarms.timer", "OnCalendar=*:0/5", "OnCalendar=sometimes"),
        ("orca-alarms.service", "/bin/orca ", "/bin/orka "),
    ],
)
def test_a_mistake_in_a_unit_would_be_found(unit: str, old: str, new: str, here: Site, tmp_path: Path) -> None:
    write_units(here, tmp_path, ["lwacalim03"])
    path = tmp_path / "lwacalim03" / unit
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert verify(tmp_path / "lwacalim03") != ""


def test_each_host_starts_what_belongs_there(here: Site, telescope: WorkPools) -> None:
    for host in telescope.hosts:
        files = unit_files(here, host)
        wanted = [f"orca-dask@{i}.service" for i in range(len(telescope.processes(host)))]
        if host == "lwacalim00":
            first = ["orca-server.service", "orca-scheduler.service"]
            flows = [f"orca-flows@{pool}.service" for pool in POOLS]
            wanted = [*first, *flows, "orca-trigger.service", "orca-metrics.service", *wanted]
        assert values(files["orca.target"], "Wants") == [*wanted, "orca-alarms.timer"]
        templates = {f"{name.partition('@')[0]}@.service" if "@" in name else name for name in wanted}
        assert {name for name in files if name in SERVICES} == templates


def test_one_host_looks_at_all_alarms_and_the_others_at_their_disks(here: Site, telescope: WorkPools) -> None:
    commands = {host: value(unit_files(here, host)["orca-alarms.service"], "ExecStart") for host in telescope.hosts}
    at_all = [host for host, command in commands.items() if str(command).endswith("/bin/orca alarms check")]
    assert at_all == ["lwacalim10"]
    others = {command for host, command in commands.items() if host not in at_all}
    assert [str(command).rpartition("/bin/orca ")[2] for command in others] == ["alarms check --only disk"]


def test_every_part_is_started_again_for_ever_and_ends_with_the_target(here: Site) -> None:
    files = unit_files(here, "lwacalim00")
    for name in SERVICES:
        found = {key: value(files[name], key) for key in ("Restart", "StartLimitIntervalSec", "PartOf", "Slice")}
        assert found == {
            "Restart": "always", "StartLimitIntervalSec": "0", "PartOf": "orca.target", "Slice": "orca.slice",
        }  # fmt: skip


def test_the_recorders_cores_are_left_to_them(configure: Configure, telescope: WorkPools) -> None:
    chosen = a_site(configure(), telescope, server="lwacalim01", scheduler="lwacalim02", flows=["lwacalim03"])
    for host in telescope.hosts:
        files = unit_files(chosen, host)
        services = [files[name] for name in files if name in (*SERVICES, "orca-alarms.service")]
        assert len(services) > 1
        for text in services:
            first, _, last = (value(text, "CPUAffinity") or "0-8191").partition("-")
            assert (int(first), int(last)) == (8 if host in RECORDERS else 0, 8191)
        assert (value(files["orca.slice"], "CPUWeight") == "20") == (host in RECORDERS)


def test_a_flow_workers_end_leaves_its_flow_runs_alone(here: Site) -> None:
    text = unit_files(here, "lwacalim00")["orca-flows@.service"]
    assert value(text, "KillMode") == "process"
    assert value(text, "OOMPolicy") == "continue"
    assert value(text, "KillSignal") in (None, "SIGTERM")  # upon which it waits for them
    assert value(text, "TimeoutStopSec") == "1h"


def test_a_dask_process_finishes_its_task_and_a_program_that_eats_memory_does_not_end_it(here: Site) -> None:
    text = unit_files(here, "lwacalim03")["orca-dask@.service"]
    assert "orca cluster stop dask %i" in str(value(text, "ExecStop"))
    assert (value(text, "KillMode"), value(text, "OOMPolicy")) == ("mixed", "continue")
    assert int(value(text, "OOMScoreAdjust") or 0) > 0
    assert int(value(text, "Nice") or 0) > 0


def test_a_dask_process_has_memory_for_its_largest_task_and_itself(here: Site, telescope: WorkPools) -> None:
    files = unit_files(here, "lwacalim03")
    for i, offers in enumerate(telescope.processes("lwacalim03")):
        limit = value(files[f"orca-dask@{i}.service.d/memory.conf"], "MemoryMax")
        assert limit is not None
        gigabytes = int(limit.removesuffix("G")) * 2**30 / 1e9
        needed = telescope.memory_gb(offers) + telescope.recycle.memory_gb
        assert needed <= gigabytes < needed + 1.1


def test_no_unit_holds_a_password(configure: Configure, telescope: WorkPools) -> None:
    chosen = a_site(configure(**CLUSTER), telescope)
    texts = [text for host in chosen.hosts for text in unit_files(chosen, host).values()]
    assert texts
    assert not [text for text in texts for password in PASSWORDS if password in text]


def test_the_configuration_says_where_server_and_scheduler_run(configure: Configure, telescope: WorkPools) -> None:
    chosen = a_site(configure(**CLUSTER), telescope)
    assert (chosen.server, chosen.scheduler, chosen.flows) == ("lwacalim10", "lwacalim09", ("lwacalim10",))
    elsewhere = a_site(configure(), telescope, server="lwacalimhead", flows=["lwacalim00", "lwacalim09"])
    assert elsewhere.hosts == (*telescope.hosts, "lwacalimhead")
    alarms = ["orca-alarms.service", "orca-alarms.timer"]
    assert list(unit_files(elsewhere, "lwacalimhead")) == ["orca-server.service", *alarms, "orca.slice", "orca.target"]
    assert "orca-flows@.service" in unit_files(elsewhere, "lwacalim09")


def test_a_server_that_is_named_by_its_number_has_to_be_named(configure: Configure, telescope: WorkPools) -> None:
    settings = configure(prefect={"api_url": "http://10.41.0.85:4200/api"})
    with pytest.raises(InputError, match=r"no host is known by the address 10\.41\.0\.85\. Name it with --server"):
        a_site(settings, telescope)
    assert a_site(settings, telescope, server="lwacalim10").server == "lwacalim10"


@pytest.mark.parametrize(
    "option", [{"server": "../x"}, {"user": "a b"}, {"venv": Path("/opt/%h")}, {"configuration": Path('/a/"b')}]
)
def test_a_name_that_means_something_else_in_a_unit_is_refused(
    option: dict[str, object], configure: Configure, telescope: WorkPools
) -> None:
    with pytest.raises(InputError, match="cannot stand in a unit"):
        a_site(configure(), telescope, **option)


def test_the_units_in_the_repository_are_those_that_the_command_writes(tmp_path: Path) -> None:
    call = (
        (KEPT / "README.md")
        .read_text()
        .split("\n    ORCA_POOLS=work_pools.yaml orca cluster units ")[1]
        .splitlines()[0]
    )
    words = ["units" if word == "deployments/systemd" else word for word in shlex.split(call)]
    orca_units(tmp_path, *words)
    assert contents(tmp_path / "units") == {
        name: text for name, text in contents(KEPT).items() if name.startswith("lwacalim")
    }


@pytest.mark.parametrize("page", [ROOT / "docs" / "cluster.md", KEPT / "README.md"])
def test_the_commands_that_the_pages_name_exist(page: Path) -> None:
    named = set(re.findall(r"(?:`|\$ |    )orca ([a-z]+(?: [a-z]+)?)", page.read_text()))
    assert named
    for words in named:
        done = subprocess.run([ORCA, *words.split(), "--help"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"orca {words}: {done.stderr}"
        assert f"Usage: orca {words}" in done.stdout


def orca_units(folder: Path, *words: str, pools: Path = TELESCOPE, status: int = 0) -> str:
    done = subprocess.run(
        [ORCA, "cluster", "units", *words],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "ORCA_POOLS": str(pools)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_units_are_written_once_and_follow_work_pools_yaml(tmp_path: Path) -> None:
    pools, units = tmp_path / "pools.yaml", tmp_path / "units"
    pools.write_text(TELESCOPE.read_text())
    words = ("--out", "units", "--user", "me")
    assert "nothing was changed" in orca_units(tmp_path, *words, "--dry-run", pools=pools)
    assert not units.exists()
    assert "11 differences" in orca_units(tmp_path, *words, pools=pools)
    foreign = units / "lwacalim10" / "orca-local.service"
    foreign.write_text("[Unit]\n")
    before = contents(units)
    assert "all is as" in orca_units(tmp_path, *words, pools=pools)
    assert contents(units) == before

    fewer = TELESCOPE.read_text().replace("  - lwacalim10\n", "").replace("slots: 4", "slots: 3")
    pools.write_text(fewer.replace("lwacalim03: 8", "lwacalim03: 12"))
    told = orca_units(tmp_path, *words, "--dry-run", pools=pools)
    assert contents(units) == before
    told = orca_units(tmp_path, *words, pools=pools)
    after = contents(units)
    assert "CPUAffinity=8-8191" in told
    assert "CPUAffinity=12-8191" in told
    assert "CPUAffinity=12-8191" in after["lwacalim03/orca-dask@.service"]
    assert not [name for name in after if "orca-dask@7.service.d" in name]
    assert [name for name in after if name.startswith("lwacalim10/")] == ["lwacalim10/orca-local.service"]


def test_only_some_hosts_may_be_written_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    orca_units(tmp_path, "--out", "units")
    orca_units(tmp_path, "--out", "units", "--user", "me", "--host", "lwacalim03")
    users = {name: value(text, "User") for name, text in contents(tmp_path / "units").items() if "dask@.ser" in name}
    assert [name for name, user in users.items() if user == "me"] == ["lwacalim03/orca-dask@.service"]
    assert len(users) == 11
    told = orca_units(tmp_path, "--out", "units", "--host", "lwacalim33", status=2)
    assert "there is no host lwacalim33. Known are lwacalim00" in told


def test_the_server_gets_its_database_and_settings_and_no_telemetry(configure: Configure, telescope: WorkPools) -> None:
    settings = configure(**CLUSTER, network={"host": "10.41.0.85"})
    part = serving.part(settings, telescope, "server", None, "lwacalim10")
    assert part.environment.items() >= {**QUIET, **SERVER_SETTINGS}.items()
    url = part.environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"]
    assert url == f"postgresql+asyncpg://orca:{PASSWORDS[2]}@db:5432/orca"
    words = " ".join(part.argv)
    assert "--host 10.41.0.85 --port 4200" in words
    assert not [password for password in PASSWORDS if password in words]


def test_parts_are_those_of_the_node_and_know_server_and_scheduler(configure: Configure, telescope: WorkPools) -> None:
    settings = configure(**{**CLUSTER, "queue": {"prefix": "anna"}})
    scheduler = " ".join(serving.part(settings, telescope, "scheduler", None, "lwacalim09").argv)
    assert "--port 8786" in scheduler
    dask = serving.part(settings, telescope, "dask", "2", "lwacalim03")
    assert "tcp://lwacalim09:8786 --name lwacalim03-2" in " ".join(dask.argv)
    assert "default=1" in dask.argv[dask.argv.index("--resources") + 1].split(",")
    flows = serving.part(settings, telescope, "flows", "imaging", "lwacalim10")
    assert " ".join(flows.argv).endswith("--pool anna-imaging --name lwacalim10-anna-imaging --type orca")
    for part, node in ((dask, "lwacalim03"), (flows, "lwacalim10")):
        assert part.environment["PREFECT_API_URL"] == "http://lwacalim10.calim.pvt:4200/api"
        assert part.environment["ORCA_NODE"] == node
        assert part.environment["ORCA_POOLS"] == str(TELESCOPE)


@pytest.mark.parametrize(
    ("service", "instance", "told"),
    [
        ("dask", "8", "host lwacalim03 has 8 worker processes, not 9"),
        ("dask", "x", "x is no number of a Dask worker process"),
        ("dask", None, "which of the node's dask is not said"),
        ("flows", "imagin", "there is no pool imagin"),
        ("server", "1", "there is one server"),
    ],
)
def test_an_instance_that_cannot_be_is_refused(
    service: serving.Service, instance: str | None, told: str, configure: Configure, telescope: WorkPools
) -> None:
    with pytest.raises(InputError, match=told):
        serving.part(configure(**CLUSTER), telescope, service, instance, "lwacalim03")


@pytest.mark.parametrize(
    ("service", "instance", "key"), [("server", None, "prefect.api_url"), ("dask", "0", "dask.address")]
)
def test_services_need_the_addresses_of_the_cluster(
    service: serving.Service, instance: str | None, key: str, configure: Configure, telescope: WorkPools
) -> None:
    with pytest.raises(ConfigError, match=rf"orca-conf.yml: {key}: is not set\. The services"):
        serving.part(configure(), telescope, service, instance, "lwacalim03")
    with pytest.raises(ConfigError, match="has no port"):
        serving.part(configure(prefect={"api_url": "http://head/api"}), telescope, "server", None, "lwacalim03")
