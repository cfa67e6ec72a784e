"""`orca trigger` between a real RabbitMQ and a real Prefect server: nothing lost, nothing twice, whatever is killed."""

from __future__ import annotations

import json
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from site_of_tests import Site
from standing_broker import Broker, standing_broker
from waiting import wait_for

from orca import config, naming
from orca.cluster import deployments, server, work_pools
from orca.cluster.machine.overview import look
from orca.cluster.pools import default_path, load_pools
from orca.config import Config
from orca.events import names
from orca.events.announcements import Announcement, announce
from orca.events.broker import connect, setup
from orca.events.letters import REASON
from orca.events.message import Message, Recorded, Run
from orca.events.publisher import Publisher
from orca.events.state import read_state
from orca.telescope import INTEGRATION_S

START = datetime(2026, 1, 10, 3, 0, 2, tzinfo=UTC)
RULES: dict[str, Any] = {
    "recorded": [
        {"name": "reduce", "deployment": "reduction/reduction", "block": 4, "wait_s": 4.0, "together_s": 0.5},
    ],
    "announced": [
        {"name": "image", "after": "calibration.ready", "deployment": "imaging/imaging", "every": 2},
    ],
}
WANTED = ("reduction", "imaging")


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server.Server]:
    """A Prefect server for the module."""
    home = tmp_path_factory.mktemp("prefect")
    made, _ = server.ensure(home)
    server.wait_until_healthy(made)
    yield made
    server.stop(home)


@dataclass
class Place:
    """A user's configuration, and the triggers that run with it."""

    folder: Path
    broker: Broker
    url: str
    client: SyncPrefectClient
    prefix: str = field(default_factory=lambda: f"t{uuid.uuid4().hex[:8]}")
    rules: dict[str, Any] = field(default_factory=lambda: RULES)
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def sections(self) -> dict[str, Any]:
        return {
            **self.broker.sections(self.prefix),
            "prefect": {"api_url": self.url},
            "paths": {"data": str(self.folder / "data")},
        }

    @property
    def settings(self) -> Config:
        file = self.folder / "orca-conf.yml"
        file.write_text(yaml.safe_dump(self.sections))
        file.chmod(0o600)
        return config.load(file)

    def deploy(self) -> None:
        setup(self.settings)
        work_pools.apply(self.client, load_pools(default_path()), self.prefix)
        found = [entry for entry in deployments.read_deployments() if entry.name in WANTED]
        deployments.apply(self.client, deployments.wanted(found, self.prefix))

    def start(self, **settings: Any) -> subprocess.Popen[bytes]:
        site = Site(self.folder, {**self.sections, **settings})
        rules = self.folder / "rules.yaml"
        rules.write_text(yaml.safe_dump(self.rules))
        with (self.folder / "trigger.log").open("ab") as log:
            process = subprocess.Popen(
                site.command("trigger", "--rules", rules), env=site.environment(), stdout=log, stderr=log
            )
        self.running.append(process)
        return process

    def log(self) -> str:
        return (self.folder / "trigger.log").read_text()

    def record(self, *numbers: int, band: str = "73MHz", hour: int = 0) -> list[Path]:
        """Raw files of these integrations: empty folders, which nobody opens here."""
        made = []
        for number in numbers:
            start = START + timedelta(hours=hour, seconds=number * INTEGRATION_S)
            path = naming.raw_path(self.settings.paths.raw, naming.Observation(band, start))
            path.mkdir(parents=True, exist_ok=True)
            made.append(path)
        return made

    def tell(self, paths: list[Path], *, size: int = 1, attempt: int = 1) -> None:
        now = datetime.now(UTC)
        with Publisher(self.settings) as publisher:
            for path in paths:
                recorded = Recorded(path=str(path), size=size, time=now)
                publisher.publish(Message(attempt=attempt, recorded=recorded), "default")

    def runs(self) -> list[Any]:
        """All flow runs of this prefix."""
        from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName

        wanted = DeploymentFilter(name=DeploymentFilterName(any_=[f"{self.prefix}-{name}" for name in WANTED]))
        return self.client.read_flow_runs(deployment_filter=wanted)

    def reduced(self) -> list[list[str]]:
        """Files of each flow run, in the order of the first file."""
        found = [run.parameters["measurement_sets"] for run in self.runs()]
        return sorted([Path(path).name for path in paths] for paths in found)

    def files(self) -> list[str]:
        """Names of the files of all flow runs."""
        return sorted(name for names_of in self.reduced() for name in names_of)

    def count(self, queue: str) -> int:
        with connect(self.settings) as connection, connection.channel() as channel:
            return int(channel.queue_declare(queue, passive=True).message_count)

    def dead(self, pool: str = "default") -> list[tuple[bytes, str]]:
        """Bodies and reasons of the dead letters."""
        found = []
        with connect(self.settings) as connection, connection.channel() as channel:
            while (letter := channel.basic_get(names.dead(self.prefix, pool), no_ack=True)) is not None:
                body = letter.body.encode() if isinstance(letter.body, str) else letter.body
                found.append((body, str((letter.headers or {}).get(REASON))))
        return found

    def end(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.terminate()
                process.wait(timeout=30)


@pytest.fixture
def place(tmp_path: Path, broker: Broker, prefect: server.Server) -> Iterator[Place]:
    with temporary_settings({PREFECT_API_URL: prefect.url}), get_client(sync_client=True) as client:
        made = Place(tmp_path, broker, prefect.url, client)
        made.deploy()
        yield made
        made.end()


def reached(found: Callable[[], Any], wanted: Any) -> Callable[[], bool]:
    return lambda: bool(found() == wanted)


def test_files_become_blocks_of_their_hour_and_each_is_in_one_flow_run(place: Place) -> None:
    place.start()
    full, late = place.record(0, 1, 2, 3), place.record(5)
    other = place.record(0, 1, 2, 3, band="78MHz")
    place.tell([*full, *late, *other])
    place.tell(full)  # somebody tells them again
    names_of = sorted(path.name for path in [*full, *other])
    wait_for(reached(place.files, sorted([*names_of, late[0].name])), "all files", 60)
    assert sorted(map(len, place.reduced())) in ([1, 8], [1, 4, 4])
    wait_for(reached(lambda: place.count(names.queue(place.prefix, "default")), 0), "acknowledgements", 30)
    tags = {tag for run in place.runs() for tag in run.tags}
    assert {"73MHz", "78MHz", "2026-01-10"} <= tags
    state = read_state(place.settings)
    assert state is not None
    assert (state["doing"], state["waiting_files"]) == ("takes messages", 0)


def test_killed_at_any_moment_it_repeats_nothing_and_loses_nothing(place: Place) -> None:
    paths = place.record(*range(12))
    for number in range(4):
        process = place.start()
        place.tell(paths[3 * number : 3 * number + 3])
        wait_for(lambda: "taking messages" in place.log().rpartition("killed")[2], "the trigger", 60)
        if number % 2:
            wait_for(lambda n=number: len(place.runs()) >= (n + 1) // 2 or None, "a flow run", 60)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with (place.folder / "trigger.log").open("a") as log:
            log.write("killed\n")
    place.start()
    wait_for(reached(place.files, [path.name for path in paths]), "all files once", 90)
    wait_for(reached(lambda: place.count(names.queue(place.prefix, "default")), 0), "acknowledgements", 60)
    assert place.files() == [path.name for path in paths]
    assert place.dead() == []


def test_a_run_is_made_once_for_a_message_that_comes_twice(place: Place) -> None:
    [path] = place.record(0)
    message = Message(run=Run(flow="imaging", parameters={"measurement_sets": [str(path)], "options": {"size": 1024}}))
    with Publisher(place.settings) as publisher:
        publisher.publish(message, "imaging")
        publisher.publish(message, "imaging")
    place.start()
    wait_for(reached(lambda: len(place.runs()), 1), "the flow run", 60)
    wait_for(reached(lambda: place.count(names.queue(place.prefix, "imaging")), 0), "acknowledgements", 30)
    [run] = place.runs()
    assert (run.parameters["options"], run.state.name) == ({"size": 1024}, "Scheduled")
    assert place.dead("imaging") == []
    [waiting] = look(place.settings, load_pools(default_path()), None).waiting
    assert (waiting.pool, waiting.count) == (f"{place.prefix}-imaging", 1)
    assert waiting.why == "no flow worker of the pool is online"


def test_what_nobody_can_work_with_goes_to_the_dead_letters_with_the_reason(place: Place) -> None:
    outside = place.folder / "outside.ms"
    outside.mkdir()
    [inside] = place.record(0)
    link = inside.with_name("20260110_030102_73MHz.ms")
    link.symlink_to(outside)
    gone = inside.with_name("20260110_030203_73MHz.ms")

    def run(parameters: dict[str, Any], flow: str = "imaging") -> bytes:
        return Message(run=Run(flow=flow, parameters=parameters)).encode()

    def told(path: Path) -> bytes:
        return Message(recorded=Recorded(path=str(path), size=1, time=datetime.now(UTC))).encode()

    cases = {
        b"not json": "is no JSON",
        b'{"id": "x", "run": {"flow": "imaging"}, "more": 1}': "more",
        b"x" * 2_000_000: "is too large",
        run({}, "nothing"): "there is no deployment nothing/nothing",
        run({"measurement_sets": [str(inside)], "sizes": 3}): "the flow has no parameter sizes",
        run({"measurement_sets": "all"}): "Prefect refuses it",
        run({"measurement_sets": [str(inside)], "options": {"size": "big"}}): "Prefect refuses it",
        run({"measurement_sets": [str(outside)]}): "is not below the folders of raw data and products",
        run({"measurement_sets": [str(link)]}): "leads out of the folders",
        run({"measurement_sets": [f"{inside}/../../x"]}): "no absolute path without '..'",
        run({"measurement_sets": {"__prefect_kind": "jinja", "template": "{{ x }}"}}): "templates are not allowed",
        told(gone): "is gone",
        told(link): "leads out of the folders",
        told(inside.with_name("notes.txt")): "is no name of a recording",
    }
    with connect(place.settings, confirm=True) as connection:
        channel = connection.channel()
        for body in cases:
            message = channel.prepare_message(body, content_type="application/json", properties={"delivery_mode": 2})
            channel.basic_publish(
                message, names.exchange(place.prefix, "imaging"), names.queue(place.prefix, "imaging")
            )
    place.start()
    queue = names.dead(place.prefix, "imaging")
    wait_for(reached(lambda: place.count(queue), len(cases)), "the dead letters", 60)
    dead = dict(place.dead("imaging"))
    for body, reason in cases.items():
        assert reason in dead[body], (body[:80], dead[body])
    assert place.runs() == []
    assert place.log().count("refused a message") == len(cases)


def test_an_hour_is_imaged_when_its_calibration_is_announced(place: Place) -> None:
    place.start()
    paths = place.record(0, 1, 2, 3, 4)
    wait_for(lambda: "taking messages" in place.log(), "the trigger", 60)
    day = START.date()
    announce(place.settings, [Announcement(kind="calibration.ready", subband="73MHz", day=day, hour=3)])
    announce(place.settings, [Announcement(kind="calibration.ready", subband="73MHz", day=day, hour=9)])
    announce(place.settings, [Announcement(kind="image.ready", subband="73MHz", day=day, hour=3)])
    wait_for(reached(place.reduced, [[paths[0].name, paths[2].name, paths[4].name]]), "the imaging", 60)
    wait_for(reached(lambda: place.count(names.triggers(place.prefix)), 0), "acknowledgements", 30)
    assert "nothing is left of 73MHz 2026-01-10 09h" in place.log()


def test_what_prefect_would_refuse_is_told_beforehand(place: Place) -> None:
    wrong = {
        "typo": ({"deployment": "reduction/reductoin"}, "there is no deployment reduction/reductoin"),
        "odd": ({"deployment": "imaging/imaging", "parameters": {"sizes": 3}}, "the flow has no parameter sizes"),
        "big": (
            {"deployment": "imaging/imaging", "parameters": {"options": {"size": "big"}}},
            "parameter options.size: 'big'",
        ),
    }
    place.rules = {"recorded": [*RULES["recorded"], *({"name": name, **rule} for name, (rule, _) in wrong.items())]}
    place.start()
    wait_for(lambda: "taking messages" in place.log(), "the trigger", 60)
    site = Site(place.folder, place.sections)

    def orca(*arguments: Any) -> tuple[int, str]:
        done = subprocess.run(
            site.command(*arguments), env=site.environment(), capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, done.stderr

    status, told = orca("trigger", "--check", "--rules", place.folder / "rules.yaml")
    assert status == 2
    assert "reduce" not in told
    for name, (_, why) in wrong.items():
        assert f"rule {name}: " in told
        assert f"rule {name}: " in place.log()
        assert why in told
    assert orca("submit", "run", "imaging", "-p", "sizes=3")[0] == 2
    status, told = orca("submit", "run", "imaging", "-p", "options={'size': 1}", "-p", "measurement_sets=[1]")
    assert status == 2
    assert "imaging/imaging: parameter " in told
    assert place.count(names.queue(place.prefix, "imaging")) == 0
    assert (
        orca(
            "submit",
            "run",
            "imaging",
            "-p",
            f'measurement_sets=["{place.record(0)[0]}"]',
            "-p",
            'options={"size": 512}',
        )[0]
        == 0
    )


def test_rules_that_change_are_taken_over_and_wrong_ones_are_told(place: Place) -> None:
    place.start()
    wait_for(lambda: "taking messages" in place.log(), "the trigger", 60)
    rules = place.folder / "rules.yaml"
    rules.write_text("recorded: [{name: reduce, deployment: reduction}]\n")
    wait_for(lambda: "the rules stay as they were" in place.log(), "the warning", 60)
    rules.write_text(yaml.safe_dump({"recorded": [{**RULES["recorded"][0], "block": 2, "subbands": ["73MHz"]}]}))
    wait_for(lambda: place.log().count("taking messages") == 2, "the new rules", 60)
    paths = place.record(0, 1)
    place.tell([*paths, *place.record(0, band="78MHz")])
    wait_for(reached(place.reduced, [[path.name for path in paths]]), "the flow run", 60)
    wait_for(reached(lambda: place.count(names.queue(place.prefix, "default")), 0), "acknowledgements", 30)
    assert place.dead() == []


def test_while_prefect_is_away_everything_waits_and_nothing_is_lost(place: Place) -> None:
    paths = place.record(0, 1, 2, 3)
    place.tell(paths)
    process = place.start(prefect={"api_url": "http://127.0.0.1:9/api"})
    wait_for(lambda: "trying again" in place.log(), "the trigger to wait", 60)
    state = json.loads((place.settings.paths.data / "trigger" / place.prefix / "state.json").read_text())
    assert state["doing"] == "waits for Prefect"
    process.terminate()
    assert process.wait(timeout=30) == 0
    assert place.count(names.queue(place.prefix, "default")) == 4
    place.start()
    wait_for(reached(place.reduced, [[path.name for path in paths]]), "the flow run", 60)


def test_a_second_trigger_stands_by_and_takes_over(place: Place) -> None:
    first = place.start()
    wait_for(lambda: "taking messages" in place.log(), "the first", 60)
    place.start()
    wait_for(lambda: "stands by" in place.log(), "the second", 60)
    wait_for(reached(lambda: (read_state(place.settings) or {}).get("doing"), "takes messages"), "its state", 20)
    first.kill()
    first.wait()
    paths = place.record(0, 1, 2, 3)
    place.tell(paths)
    wait_for(reached(place.reduced, [[path.name for path in paths]]), "the second to work", 60)


def test_when_the_broker_is_killed_and_comes_back_no_message_is_lost(tmp_path: Path, prefect: server.Server) -> None:
    with standing_broker(tmp_path / "broker") as own:
        with temporary_settings({PREFECT_API_URL: prefect.url}), get_client(sync_client=True) as client:
            # RabbitMQ 3.10 never finds a quorum queue again that was made within a second before a kill -9
            place = Place(tmp_path, own, prefect.url, client, rules={**RULES, "announced": []})
            place.deploy()
            place.start()
            wait_for(lambda: "taking messages" in place.log(), "the trigger", 60)
            paths = place.record(0, 1, 2, 3, 4)
            place.tell(paths[:3])
            own.kill()
            place.tell(paths[3:])  # into the spool
            own.start()
            wait_for(lambda: place.log().count("taking messages") == 2, "the trigger to come back", 90)
            with Publisher(place.settings) as publisher:
                publisher.flush()
            wanted = [[path.name for path in paths[:4]], [paths[4].name]]
            wait_for(reached(place.reduced, wanted), "all files", 90)
            place.end()
