"""`orca pools` and `orca deploy` with a real Prefect server: what they make, change, and leave alone."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleUpdate, DeploymentUpdate, WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import FlowRunFilter
from prefect.exceptions import PrefectHTTPStatusError
from site_of_tests import Site

from orca.cluster import deployments, server, work_pools
from orca.cluster.api import Change
from orca.cluster.pools import WorkPools, default_path, load_pools
from orca.errors import ConfigError, InputError

PREFECT = Path(sys.executable).with_name("prefect")
ROOT = Path(__file__).parents[2]
NIGHTLY = "nightly-calibration/nightly-calibration"
ALL = [
    "alarms/alarms",
    "bandpass/bandpass",
    "catch-up/catch-up",
    "cosmology/cosmology",
    "delay/delay",
    "imaging/imaging",
    "nightly-calibration/nightly-calibration",
    "reduction/reduction",
    "reduction/reduction-hour",
    "reduction/reduction-night",
    "retention/retention",
    "spectrum/spectrum",
]


@dataclass
class Running:
    """A site with a Prefect server, and a client of it."""

    site: Site
    url: str
    client: SyncPrefectClient

    def changes(self, *words: Any) -> list[dict[str, str]]:
        """What `orca ... --json` says that it changed."""
        done = self.site.run(*words, "--json")
        assert done.returncode == 0, done.stderr
        found: list[dict[str, str]] = json.loads(done.stdout)["changes"]
        return found

    def pools(self) -> dict[str, tuple[str, int | None]]:
        return {pool.name: (pool.type, pool.concurrency_limit) for pool in self.client.read_work_pools()}

    def deploy(self, *names: str, prefix: str = "default", dry_run: bool = False) -> list[Change]:
        chosen = deployments.choose(deployments.read_deployments(), names)
        return deployments.apply(self.client, deployments.wanted(chosen, prefix), dry_run=dry_run)

    def prefect(self, *words: str) -> None:
        environment = {**self.site.environment(), "PREFECT_API_URL": self.url, "NO_COLOR": "1"}
        done = subprocess.run(
            [PREFECT, "--no-prompt", *words], env=environment, cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def running(site: Site) -> Iterator[Running]:
    found, _ = server.ensure(site.data / "prefect")
    server.wait_until_healthy(found)
    with SyncPrefectClient(found.url) as client:
        yield Running(site, found.url, client)
    server.stop(site.data / "prefect", patience_s=2)


@pytest.fixture(scope="module")
def with_pools(running: Running) -> Running:
    """With the pools of the packaged file, as the command makes them beside somebody else's."""
    running.client.create_work_pool(WorkPoolCreate(name="somebodys", type="process"))
    assert len(running.changes("pools", "apply")) == 8
    return running


@pytest.fixture(scope="module")
def deployed(with_pools: Running) -> Running:
    """With the pools and, made by the command, all deployments."""
    changes = with_pools.changes("deploy")
    assert sorted(change["deployment"] for change in changes) == ALL
    assert {change["now"] for change in changes} == {"none"}
    return with_pools


@pytest.fixture
def pools(tmp_path: Path) -> WorkPools:
    """The packaged file with another number of runs of the pool bandpass."""
    path = tmp_path / "work_pools.yaml"
    path.write_text(default_path().read_text().replace("runs: 1", "runs: 3", 1))
    return load_pools(path)


@pytest.mark.parametrize("words", [["pools", "apply"], ["pools", "ls"], ["deploy"]])
def test_without_a_server_the_error_says_how_to_start_one(words: list[str], tmp_path: Path) -> None:
    done = Site(tmp_path).run(*words)
    assert done.returncode == 1
    assert "no Prefect server runs on this machine. Start it with `orca up`" in done.stderr


def test_a_server_that_does_not_answer_is_told(tmp_path: Path) -> None:
    done = Site(tmp_path).run("pools", "ls", prefect={"api_url": "http://127.0.0.1:9/api"})
    assert done.returncode == 1
    assert "http://127.0.0.1:9/api: the Prefect server does not answer" in done.stderr


def test_a_wrong_file_is_told_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(default_path().read_text().replace("threads: 1", "thread: 1", 1))
    monkeypatch.setenv("ORCA_POOLS", str(path))
    done = Site(tmp_path).run("pools", "ls")
    assert done.returncode == 2
    assert f"{path}:12: pools.default.thread: unknown key; did you mean threads?" in done.stderr


def test_apply_makes_the_pools_and_leaves_others_alone(with_pools: Running) -> None:
    ours = {"default": ("orca", 2), "imaging": ("orca", 2), "bandpass": ("orca", 1), "cosmology": ("orca", 1)}
    found = with_pools.pools()
    assert {name: found[name] for name in ours} == ours
    assert found["somebodys"] == ("process", None)
    assert work_pools.apply(with_pools.client, load_pools(default_path()), "default") == []


def test_apply_tells_and_makes_the_difference_but_not_in_a_dry_run(with_pools: Running, pools: WorkPools) -> None:
    expected = [Change("bandpass", "flow runs at once", "1", "3")]
    for dry_run, runs in ((True, 1), (False, 3)):
        assert work_pools.apply(with_pools.client, pools, "default", dry_run=dry_run) == expected
        assert with_pools.pools()["bandpass"] == ("orca", runs)
    assert work_pools.apply(with_pools.client, load_pools(default_path()), "default") == [
        Change("bandpass", "flow runs at once", "3", "1")
    ]


def test_ls_shows_slots_state_workers_and_what_differs(with_pools: Running, pools: WorkPools) -> None:
    with_pools.client.request("POST", "/work_pools/imaging/workers/heartbeat", json={"name": "flow-worker-1"})
    shown = with_pools.site.run("pools", "ls").stdout
    row = next(line for line in shown.splitlines() if line.startswith("imaging"))
    assert [word for word in ("1 on ", " ready ", "flow-worker-1") if word not in row] == []
    states = {state.name: state for state in work_pools.states(with_pools.client, pools, "default")}
    assert states["bandpass"].differs == ("flow runs at once",)
    assert states["imaging"].workers == ("flow-worker-1",)
    assert states["imaging"].slots == {host: pools.slots(host)["imaging"] for host in pools.hosts}
    anna = work_pools.states(with_pools.client, pools, "anna")
    assert [(state.name, state.queue, state.status) for state in anna][1] == ("anna-imaging", "anna-imaging", "none")


def test_a_pool_of_another_type_is_an_error_and_nothing_is_changed(running: Running, pools: WorkPools) -> None:
    running.client.create_work_pool(WorkPoolCreate(name="bert-cosmology", type="process"))
    with pytest.raises(InputError, match="bert-cosmology is of type process, and the file wants orca") as caught:
        work_pools.apply(running.client, pools, "bert")
    assert "prefect work-pool delete bert-cosmology" in str(caught.value)
    assert "bert-default" not in running.pools()


def test_a_type_of_worker_that_is_not_installed_is_told(running: Running, tmp_path: Path) -> None:
    path = tmp_path / "pools.yaml"
    path.write_text(default_path().read_text().replace("worker: orca", "worker: orka"))
    with pytest.raises(ConfigError, match=r"there is no worker of type orka\. Installed are orca, process"):
        work_pools.apply(running.client, load_pools(path), "carl")


def test_without_its_work_pool_nothing_is_deployed(running: Running) -> None:
    with pytest.raises(InputError, match=r"no work pool nobody-imaging\. Run `orca pools apply` first"):
        running.deploy("imaging", prefix="nobody")
    with pytest.raises(InputError, match=r"no deployment imagin\. Did you mean imaging\?"):
        running.deploy("imagin")


def test_two_users_have_pools_and_deployments_of_their_own(deployed: Running, pools: WorkPools) -> None:
    made = {change.name for change in work_pools.apply(deployed.client, pools, "anna")}
    assert made == {"anna-default", "anna-imaging", "anna-bandpass", "anna-cosmology"}
    assert [change.name for change in deployed.deploy("imaging", prefix="anna")] == ["imaging/anna-imaging"]
    read = deployed.client.read_deployment_by_name
    assert read("imaging/anna-imaging").work_pool_name == "anna-imaging"
    assert read("imaging/imaging").work_pool_name == "imaging"


def test_deploying_again_changes_only_what_differs(deployed: Running) -> None:
    assert deployed.deploy() == []
    nightly = deployed.client.read_deployment_by_name(NIGHTLY)
    assert nightly.concurrency_options is not None
    assert nightly.concurrency_options.collision_strategy.value == "ENQUEUE"
    deployed.client.update_deployment(nightly.id, DeploymentUpdate(tags=["mine"], concurrency_limit=4))
    expected = [
        Change(NIGHTLY, "tags", "mine", "calibration, nightly, orca"),
        Change(NIGHTLY, "flow runs at once", "4", "1"),
    ]
    assert deployed.deploy(dry_run=True) == expected
    assert deployed.deploy() == expected
    again = deployed.client.read_deployment_by_name(NIGHTLY)
    assert (again.id, sorted(again.tags)) == (nightly.id, ["calibration", "nightly", "orca"])
    assert again.global_concurrency_limit is not None
    assert again.global_concurrency_limit.limit == 1


def test_a_paused_schedule_stays_paused(deployed: Running) -> None:
    nightly = deployed.client.read_deployment_by_name(NIGHTLY)
    (schedule,) = nightly.schedules
    update = DeploymentScheduleUpdate(active=False).model_dump(exclude_unset=True, mode="json")
    where = f"/deployments/{nightly.id}/schedules/{schedule.id}"
    deployed.client.request("PATCH", where, json=update)
    assert deployed.deploy(dry_run=True) == []
    deployed.client.update_deployment(nightly.id, DeploymentUpdate(tags=["mine"]))
    deployed.deploy()
    again = deployed.client.read_deployment_by_name(NIGHTLY)
    assert [(each.slug, each.active) for each in again.schedules] == [("transit-of-cyg-a", False)]
    update["active"] = True
    deployed.client.request("PATCH", f"/deployments/{nightly.id}/schedules/{again.schedules[0].id}", json=update)


def test_prefects_own_command_deploys_the_same(deployed: Running) -> None:
    deployed.prefect("deploy", "--all", "--prefect-file", "deployments/prefect.yaml")
    assert deployed.deploy(dry_run=True) == []


@pytest.mark.parametrize("name", ALL)
def test_every_parameter_has_a_type_and_help(name: str, deployed: Running) -> None:
    schema = deployed.client.read_deployment_by_name(name).parameter_openapi_schema or {}
    assert schema["properties"]
    for parameter, told in schema["properties"].items():
        model = schema["definitions"][told["$ref"].rpartition("/")[2]] if "$ref" in told else {}
        assert told.get("description") or model.get("description"), parameter  # one alone where both say the same
        assert told.keys() & {"type", "anyOf", "$ref"}, parameter
        assert [key for key, field in model.get("properties", {}).items() if not field.get("description")] == []


GOOD: dict[str, Any] = {"measurement_sets": ["/a/x.ms", "/a/y.ms"], "options": {"size": 1024, "pol": "IV"}}


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({**GOOD, "options": {"size": "big"}}, "'options.size'"),
        ({**GOOD, "options": {"sise": 7}}, "'sise' was unexpected"),
        ({**GOOD, "measurement_sets": "/a/x.ms"}, "is not of type 'array'"),
        ({**GOOD, "calibration": "maybe"}, "'maybe' is not one of"),
        ({}, "'measurement_sets' is a required property"),
    ],
)
def test_wrong_parameters_are_refused_before_there_is_a_run(
    parameters: dict[str, Any], told: str, deployed: Running
) -> None:
    imaging = deployed.client.read_deployment_by_name("imaging/imaging")
    with pytest.raises(PrefectHTTPStatusError) as caught:
        deployed.client.create_flow_run_from_deployment(imaging.id, parameters=parameters)
    assert told in caught.value.response.json()["detail"]


def test_prefects_own_command_makes_a_run(deployed: Running) -> None:
    words = [f"{name}={json.dumps(value)}" for name, value in GOOD.items()]
    deployed.prefect("deployment", "run", "imaging/imaging", "-p", words[0], "-p", words[1])
    assert [run.parameters for run in _runs(deployed, "imaging/imaging")] == [GOOD]


@pytest.mark.skipif(
    sqlalchemy.__version__.startswith("2.1"), reason="Prefect 3.8.8 makes no scheduled runs with SQLAlchemy 2.1"
)
def test_the_server_schedules_the_nights_by_the_stars(deployed: Running) -> None:
    from orca.sky import CYG_A
    from orca.telescope import next_transit

    deadline = time.monotonic() + 60
    while len(runs := _runs(deployed, NIGHTLY)) < 3 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert len(runs) >= 3
    for run in runs:
        assert run.expected_start_time is not None
        transit = next_transit(CYG_A.ra_rad, CYG_A.dec_rad, run.expected_start_time - timedelta(hours=1))
        assert abs((run.expected_start_time - transit).total_seconds() - 600) < 30


def _runs(running: Running, deployment: str) -> list[Any]:
    found = running.client.read_deployment_by_name(deployment)
    return running.client.read_flow_runs(flow_run_filter=FlowRunFilter(deployment_id={"any_": [found.id]}))


def test_a_wrong_file_of_deployments_is_told_with_its_line(tmp_path: Path) -> None:
    right = deployments.PACKAGED.read_text()
    path = tmp_path / "prefect.yaml"
    for old, new, told in (
        ("work_pool:", "work_pol:", "deployments.0.work_pol: unknown key; did you mean work_pool?"),
        ("name: bandpass", "name: bandpas", "did you mean bandpass?"),
        (
            "ENQUEUE",
            "ENQUE",
            "deployments.1.concurrency_limit.collision_strategy: unknown value; did you mean ENQUEUE?",
        ),
        ("interval: 86164.0905", "cron: '0 3 * * *'\n        interval: 9", "expected one of interval and cron"),
        ("- name: delay", "- name: imaging", "there are two deployments imaging"),
        ("pull: []", "pull: [clone]", "pull: expected an empty list"),
    ):
        path.write_text(right.replace(old, new, 1))
        with pytest.raises(ConfigError) as caught:
            deployments.read_deployments(path)
        assert told in str(caught.value)
        assert str(caught.value).startswith(f"{path}:")
    path.write_text(right.replace("flows.imaging.imaging", "flows.imaging.nothing"))
    with pytest.raises(ConfigError, match=r"deployment imaging: flows\.imaging\.nothing is no flow"):
        deployments.wanted(deployments.read_deployments(path), "default")


def test_the_doctor_tells_of_pools_that_are_missing_or_have_no_flow_worker(running: Running) -> None:
    prefix, wanted = "examined", load_pools(default_path())
    settings = {"queue": {"prefix": prefix}, "prefect": {"api_url": running.url}}

    def found() -> tuple[int, dict[str, list[dict[str, str]]]]:
        words = ("--json", "--only", "prefect", "--only", "flow-workers")
        done = running.site.run("doctor", *words, **settings)
        wrong = [each for each in json.loads(done.stdout)["findings"] if each["level"] in ("warning", "error")]
        names = {each["name"] for each in wrong}
        return done.returncode, {name: [each for each in wrong if each["name"] == name] for name in names}

    status, wrong = found()
    assert status == 1
    assert [each["remedy"] for each in wrong["pools"]] == ["orca pools apply"] * 4
    assert [each["remedy"] for each in wrong["deployments"]] == ["orca deploy"] * len(ALL)
    work_pools.apply(running.client, wanted, prefix)
    running.deploy(prefix=prefix)
    status, wrong = found()
    assert (status, set(wrong)) == (1, {f"{prefix}-{pool}" for pool in wanted.pools})
    assert wrong[f"{prefix}-imaging"][0]["seen"] == "none is online: no flow run of this pool begins"
    running.client.update_work_pool(f"{prefix}-imaging", WorkPoolUpdate(concurrency_limit=99))
    running.client.update_deployment(
        running.client.read_deployment_by_name(f"imaging/{prefix}-imaging").id, DeploymentUpdate(entrypoint="x.y")
    )
    _, wrong = found()
    assert (
        wrong["pools"][0]["seen"] == f"work pool {prefix}-imaging runs 99 at once, not {wanted.pools['imaging'].runs}"
    )
    assert "another entrypoint" in wrong["deployments"][0]["seen"]
