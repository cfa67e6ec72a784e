"""The trigger under fire: 500 files while it, the broker and Prefect's server are killed; and messages of any kind."""

from __future__ import annotations

import json
import os
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from site_of_tests import Site
from standing_broker import Broker, standing_broker
from waiting import wait_for
from warm_site import WarmSite

from orca import config, naming
from orca.cluster import server
from orca.cluster.ports import free_port
from orca.config import Config
from orca.errors import MessageError
from orca.events import names
from orca.events.broker import connect, setup
from orca.events.message import Message, Recorded
from orca.events.publisher import Publisher
from orca.telescope import INTEGRATION_S

FILES = 500
RULES = {
    "recorded": [{"name": "take", "deployment": "swallow/swallow-default", "wait_s": 6.0, "together_s": 0.5}],
    "announced": [],
}
FIRST = datetime(2026, 1, 10, 3, 0, 2, tzinfo=UTC)


class Scene(WarmSite):
    """RabbitMQ, Prefect's server, a warm worker and the trigger, all of which may be killed and come back."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        super().__init__(folder)
        self.broker, self.port = broker, free_port("127.0.0.1")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def settings(self) -> Config:
        return config.load(self.folder / "trigger-conf.yml")

    def open(self) -> Scene:
        self.url = f"http://127.0.0.1:{self.port}/api"
        sections = {
            **self.broker.sections("default"),
            "prefect": {"api_url": self.url},
            "paths": {"data": str(self.folder / "data")},
        }
        (self.folder / "trigger-conf.yml").write_text(yaml.safe_dump(sections))
        (self.folder / "trigger-conf.yml").chmod(0o600)
        (self.folder / "rules.yaml").write_text(yaml.safe_dump(RULES))
        self.home.mkdir(parents=True)
        server.prepare_database(self.home)
        self.start("server")
        wait_for(lambda: server.answers(self.url), "the server", 120)
        setup(self.settings)
        self.pool("default")
        self.deploy("swallow", "default")
        self.work("default")
        self.start("trigger")
        return self

    def start(self, name: str) -> None:
        words, environment = server.command("127.0.0.1", self.port), server.environment(self.home, self.url)
        if name == "trigger":
            words = Site(self.folder).command("trigger", "--rules", self.folder / "rules.yaml")
            environment = {"ORCA_CONF": str(self.folder / "trigger-conf.yml")}
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(words, env={**kept, **environment}, stdout=log, stderr=log)

    def kill(self, name: str) -> None:
        if name == "broker":
            self.broker.kill()
            return
        self.processes[name].kill()
        self.processes[name].wait()

    def revive(self, name: str) -> None:
        if name == "broker":
            self.broker.start()
        else:
            self.start(name)

    def log(self) -> str:
        return (self.folder / "trigger.log").read_text()

    def close(self) -> None:
        super().close()
        for process in self.processes.values():
            process.kill()
            process.wait()

    def count(self, queue: str) -> int:
        with connect(self.settings) as connection, connection.channel() as channel:
            return int(channel.queue_declare(queue, passive=True).message_count)

    def taken(self) -> Counter[str]:
        """How many finished flow runs each file is in."""
        found: Counter[str] = Counter()
        with self.client() as client:
            offset = 0
            while runs := client.read_flow_runs(limit=100, offset=offset):
                offset += len(runs)
                for run in runs:
                    if run.state is not None and run.state.is_completed():
                        found.update(Path(path).name for path in run.parameters["measurement_sets"])
        return found


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("scene")
    with standing_broker(folder / "broker") as broker:
        made = Scene(folder, broker)
        try:
            yield made.open()
        finally:
            made.close()


def record(raw: Path, count: int) -> list[Path]:
    """Empty folders as two subbands record them in an hour."""
    made = []
    for number in range(count):
        start = FIRST + timedelta(seconds=number // 2 * INTEGRATION_S)
        path = naming.raw_path(raw, naming.Observation("73MHz" if number % 2 else "78MHz", start))
        path.mkdir(parents=True)
        made.append(path)
    return made


def tell(scene: Scene, paths: list[Path], failures: list[BaseException]) -> None:
    """Publish all, some of them twice, not quite in order, in some seconds."""
    chance = random.Random(7)
    twice = [*paths, *chance.sample(paths, 50)]
    order = sorted(range(len(twice)), key=lambda number: number % len(paths) + chance.uniform(0, 20))
    told = [twice[number] for number in order]
    try:
        with Publisher(scene.settings) as publisher:
            for path in told:
                recorded = Recorded(path=str(path), size=1, time=datetime.now(UTC))
                publisher.publish(Message(recorded=recorded), "default")
                time.sleep(0.03)
            wait_for(scene.broker.answers, "the broker", 120)
            time.sleep(6)  # a publisher asks a broker that was away again after five seconds
            publisher.flush()
    except BaseException as error:  # noqa: BLE001 - told by the test
        failures.append(error)


@pytest.mark.timeout(720)
def test_each_of_500_files_is_in_exactly_one_finished_flow_run_whatever_is_killed_meanwhile(scene: Scene) -> None:
    paths = record(scene.settings.paths.raw, FILES)
    failures: list[BaseException] = []
    chance = random.Random(3)
    wait_for(lambda: "taking messages" in scene.log(), "the trigger", 90)
    telling = threading.Thread(target=tell, args=(scene, paths, failures))
    telling.start()
    for name in ("trigger", "server", "trigger", "broker", "trigger"):
        time.sleep(chance.uniform(1.0, 4.0))
        scene.kill(name)
        time.sleep(chance.uniform(0.0, 1.0))
        scene.revive(name)
    telling.join(timeout=300)
    assert failures == []
    wanted = {path.name: 1 for path in paths}
    wait_for(lambda: server.answers(scene.url) and dict(scene.taken()) == wanted, "all files once", 400, every_s=2.0)
    wait_for(lambda: scene.count(names.queue("default", "default")) == 0, "acknowledgements", 60)
    assert dict(scene.taken()) == wanted
    assert scene.count(names.dead("default", "default")) == 0


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(["id", "attempt", "run", "recorded", "flow", "deployment", "parameters", "path", "size", "time"])
NEARLY = st.dictionaries(KEYS, VALUES | st.dictionaries(KEYS, VALUES, max_size=5), min_size=1, max_size=5)
BODIES = st.binary(max_size=60) | (VALUES | NEARLY).map(lambda value: json.dumps(value).encode())


@given(BODIES)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_any_body_is_a_message_or_refused_in_one_short_line(body: bytes) -> None:
    if _why_wrong(body) is None:
        message = Message.decode(body)
        assert Message.decode(message.encode()) == message
    else:
        assert 0 < len(str(_why_wrong(body))) < 400
        assert "\n" not in str(_why_wrong(body))


@given(st.lists(BODIES, min_size=100, max_size=100, unique=True))
@settings(
    max_examples=1,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_a_flood_of_what_is_no_message_is_in_the_dead_letters_and_work_goes_on(
    scene: Scene, bodies: list[bytes]
) -> None:
    wrong = [body for body in bodies if _why_wrong(body)]
    assert len(wrong) > 90
    queue, dead = names.queue("default", "bandpass"), names.dead("default", "bandpass")
    before: Any = scene.count(dead)
    with connect(scene.settings, confirm=True) as connection:
        channel = connection.channel()
        for body in wrong:
            message = channel.prepare_message(body, content_type="x", properties={"delivery_mode": 2})
            channel.basic_publish(message, names.exchange("default", "bandpass"), queue)
    wait_for(lambda: scene.count(dead) == before + len(wrong), "the dead letters", 90)
    wait_for(lambda: scene.count(queue) == 0, "acknowledgements", 30)
    assert scene.processes["trigger"].poll() is None


def _why_wrong(body: bytes) -> str | None:
    try:
        Message.decode(body)
    except MessageError as error:
        return str(error)
    return None
