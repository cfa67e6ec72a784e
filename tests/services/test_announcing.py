"""What is announced at the end of real flows, to whom, and what becomes of a flow when the broker is away."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from amqp.exceptions import NotFound
from file_times import age
from flows_here import flows_here
from kombu import Connection, Consumer, Exchange, Queue
from site_of_tests import Site
from standing_broker import Broker
from waiting import wait_for

from flows.bandpass import nightly_calibration
from flows.cosmology import cosmology
from flows.imaging import imaging
from flows.reduction import reduction
from flows.spectrum import spectrum
from orca import config
from orca.calibration.options import BlockOptions
from orca.calibration.planning import transit_on
from orca.cluster import server
from orca.events import names
from orca.events.announcements import Announcement, announce
from orca.events.broker import connect, setup
from orca.events.untold import waiting
from orca.failures import FOLDER, read_failures
from orca.ms.simulate import SimulationOptions, simulate
from orca.wsclean import ImagingOptions

DAY = date(2026, 1, 10)
TRANSIT = transit_on(DAY).replace(microsecond=0)
DOCS = Path(__file__).parents[2] / "docs"
Listen = Callable[[], dict[str, Announcement]]
Configure = Callable[..., config.Config]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A subband of which three integrations are good; of another one is, and one of the hour before is nothing."""
    root = tmp_path_factory.mktemp("raw")
    for band, integrations, before_s in (("73MHz", 3, 14), ("55MHz", 1, 4)):
        start = TRANSIT - timedelta(seconds=before_s)
        options: dict[str, Any] = {"antennas": 24, "channels": 16, "subbands": (band,), "start": start}
        simulate(root, SimulationOptions(integrations=integrations, **options))
    (root / "55MHz/2026-01-10/19/20260110_190000_55MHz.ms").mkdir(parents=True)
    return age(root)


@pytest.fixture(scope="module")
def prefect(site: Site, dask: None) -> Iterator[str]:
    """The server that the tasks on the standing Dask cluster talk to."""
    made, _ = server.ensure(site.data / "prefect")
    server.wait_until_healthy(made)
    with flows_here(made.url):
        yield made.url


@pytest.fixture
def configure(site: Site, prefect: str, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """`configure(queue)`: have flows in this process find a configuration."""

    def write(queue: dict[str, Any]) -> config.Config:
        file = tmp_path / "orca-conf.yml"
        paths = {"data": str(tmp_path / "data"), "raw": str(raw)}
        limits = {"settle_s": 1.0}
        file.write_text(yaml.safe_dump({**site.settings, "queue": queue, "paths": paths, "limits": limits}))
        file.chmod(0o600)
        monkeypatch.setenv("ORCA_CONF", str(file))
        return config.load()

    return write


@pytest.fixture
def heard(broker: Broker, configure: Configure, tmp_path: Path) -> Iterator[Listen]:
    """`heard()`: all that was announced since, by routing key, as somebody hears it who listens to everything."""
    settings = configure({"prefix": tmp_path.name, "broker_uri": broker.uri()})
    setup(settings)
    found: dict[str, Announcement] = {}

    def take(body: bytes, message: Any) -> None:
        key = message.delivery_info["routing_key"]
        assert key not in found
        found[key] = Announcement.decode(bytes(message.body) if isinstance(message.body, bytes) else message.body)
        assert (message.properties["message_id"], message.content_type) == (found[key].id, "application/json")
        message.ack()

    with Connection(broker.uri()) as connection, connection.channel() as channel:
        topic = Exchange(names.events_exchange(tmp_path.name), "topic", passive=True)
        name = f"{tmp_path.name}-heard"
        queue = Queue(name, topic, routing_key="#", channel=channel)  # an exclusive one goes with its first consumer
        queue.declare()

        def listen() -> dict[str, Announcement]:
            with Consumer(channel, [queue], callbacks=[take], accept=["json"]):
                for _ in range(len(found), queue.queue_declare(passive=True).message_count):
                    connection.drain_events(timeout=20)
            return found

        yield listen
        queue.delete()


def kept() -> dict[str, list[tuple[str, ...]]]:
    """Of what failed on the day and is written down, by stage: what each would have been made of."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for each in read_failures(config.load().paths.data / FOLDER, DAY):
        found.setdefault(each.stage, []).append(each.sources)
    return found


def test_images_that_were_made_and_failures_are_announced(
    raw: Path, heard: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, nothing = raw / "73MHz/2026-01-10/20", raw / "55MHz/2026-01-10/19"
    sources = [min(good.glob("*.ms")), *nothing.glob("*.ms")]
    small = ImagingOptions(size=1024, scale_deg=0.125, extra=("-maxuv-l 120",))
    assert imaging(sources, calibration="none", options=small, return_state=True).is_failed()
    assert cosmology(sources, return_state=True).is_failed()
    assert spectrum(sources[1:], return_state=True).is_failed()
    told = heard()
    stages = ("imaging", "cosmology", "spectrum")
    assert told.keys() == {"image.ready.73MHz", *(f"{stage}.failed.55MHz" for stage in stages)}
    assert kept() == {stage: [(str(sources[1]),)] for stage in stages}
    made, failed = told["image.ready.73MHz"], told["imaging.failed.55MHz"]
    assert {Path(path).suffix for path in made.paths} == {".fits", ".png", ".log"}
    assert all(Path(path).is_file() for path in made.paths)
    assert (made.day, made.hour) == (DAY, 20)
    assert "rms_jy" in made.text
    assert (failed.paths, failed.hour) == ((str(sources[1]),), 19)
    assert "20260110_190000_55MHz: " in failed.text
    told.clear()
    imaging(sources[:1], calibration="none", options=small)
    assert heard() == {}, "it was fresh"
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__RUN_COUNT", "2")
    imaging(sources[:1], calibration="none", options=small)
    assert heard().keys() == {"image.ready.73MHz"}, "whoever made it may have died before it told"


def test_calibrations_that_are_good_and_failures_are_announced(raw: Path, heard: Listen) -> None:
    block = BlockOptions(integrations=3, min_integrations=2)
    assert nightly_calibration(DAY, block=block, return_state=True).is_failed()
    told = heard()
    assert told.keys() == {"calibration.ready", "calibration.ready.73MHz", "calibration.failed.55MHz"}
    delays, bandpass = told["calibration.ready"], told["calibration.ready.73MHz"]
    assert (delays.day, delays.hour) == (DAY, None)
    assert (bandpass.day, bandpass.hour) == (DAY, 20)
    for each in (delays, bandpass):
        assert [Path(path).exists() for path in each.paths] == [True]
        assert each.text.startswith("passed")
    assert told["calibration.failed.55MHz"].day == DAY
    assert [[Path(path).name[-8:] for path in paths] for paths in kept()["calibration"]] == [["55MHz.ms"]]


def test_the_end_of_a_night_and_failures_are_announced(
    heard: Listen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__NAME", f"{tmp_path.name}-reduction-night")
    assert reduction(day=DAY, return_state=True).is_failed()
    told = heard()
    assert told.keys() == {"night.done", "reduction.failed.55MHz"}
    night, failed = told["night.done"], told["reduction.failed.55MHz"]
    assert (night.day, night.last_day, night.numbers) == (DAY, DAY, {"done": 2, "skipped": 0, "failed": 1})
    assert night.text == "2026-01-10 19h to 2026-01-10 20h: 2 done, 0 skipped, 1 failed"
    assert [Path(path).name for path in failed.paths] == ["20260110_190000_55MHz.ms"]
    assert kept() == {"reduction": [failed.paths]}
    told.clear()
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__NAME", f"{tmp_path.name}-reduction")
    assert reduction(day=DAY, hours=[20], return_state=True).is_completed()
    assert heard() == {}


def test_a_flow_is_done_though_the_broker_is_away_or_hangs_and_what_it_announces_is_told_later(
    heard: Listen,
    broker: Broker,
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hangs:  # takes connections, and says nothing
        with socket.create_server(("127.0.0.1", 0)) as closed:
            ports = {"away": closed.getsockname()[1], "hangs": hangs.getsockname()[1]}
        for prefix, port in ports.items():
            configure({"prefix": prefix, "broker_uri": f"pyamqp://somebody:secret@127.0.0.1:{port}//"})
            monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__NAME", f"{prefix}-reduction-night")
            caplog.clear()
            with caplog.at_level(logging.WARNING, "prefect.flow_runs"):
                assert reduction(day=DAY, hours=[20], subbands=["73MHz"], return_state=True).is_completed()
            assert caplog.text.count("not announced yet: RabbitMQ") == 1
            assert "secret" not in caplog.text
    monkeypatch.delenv("PREFECT__RUNTIME__DEPLOYMENT__NAME")
    settings = configure({"prefix": tmp_path.name, "broker_uri": broker.uri()})
    first, second = waiting(settings)
    first.with_name("20260101T000000.000000.old.json").write_text(
        Announcement(kind="night.done", time=datetime.now(UTC) - timedelta(days=2)).model_dump_json()
    )
    first.write_text("{")
    assert heard() == {}
    assert reduction(day=DAY, hours=[20], subbands=["73MHz"], return_state=True).is_completed()
    assert heard()["night.done"].id == second.name.split(".")[-2]
    assert sorted((settings.paths.data / "announcements").iterdir()) == [Path(f"{first}.broken")], (
        "old ones are no news"
    )


def consumers(settings: config.Config, queue: str) -> int:
    """How many take messages from a queue that may not be there yet."""
    with connect(settings) as connection, connection.channel() as channel, suppress(NotFound):
        return int(channel.queue_declare(queue, passive=True).consumer_count)
    return 0


def test_the_consumer_in_the_docs_hears(broker: Broker, configure: Configure, tmp_path: Path) -> None:
    settings = configure({"prefix": tmp_path.name, "broker_uri": broker.uri()})
    setup(settings)
    program = (DOCS / "announcements.md").read_text().partition("```python\n")[2].partition("```")[0]
    program = program.replace("pyamqp://user:password@host:5672/vhost", broker.uri())
    program = program.replace('"default.events"', f'"{tmp_path.name}.events"').replace("my-images", tmp_path.name)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: consumers(settings, tmp_path.name), "the consumer", 30)
        told = Announcement(kind="image.ready", subband="73MHz", paths=("a.fits", "a.png"), text="fine")
        announce(settings, [Announcement(kind="night.done"), told], patience_s=30)
        assert process.stdout is not None
        assert process.stdout.readline() == "image.ready.73MHz fine a.fits a.png\n"
    finally:
        process.kill()
        process.wait()
