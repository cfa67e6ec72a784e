"""`orca metrics`: what Prometheus is told, whatever is down."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.request import urlopen

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from site_of_tests import Site
from standing_broker import Broker

from orca import config, naming
from orca.cluster.metrics.collector import Sources
from orca.cluster.metrics.sources import sources
from orca.events.broker import setup
from orca.events.message import run_message
from orca.events.publisher import Publisher
from orca.events.state import TriggerState, trigger_folder

ROOT = Path(__file__).parents[2]
RULES, DOCS = ROOT / "deployments" / "prometheus" / "orca-rules.yml", ROOT / "docs" / "metrics.md"
Told = dict[tuple[str, ...], float]


def told(*collectors: Sources) -> Told:
    """Samples by name and values of the labels, as Prometheus reads them."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return parsed(generate_latest(registry).decode())


def parsed(text: str) -> Told:
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def gauge(value: float) -> list[GaugeMetricFamily]:
    return [GaugeMetricFamily("some", "x", value=value)]


def test_a_source_that_fails_or_hangs_is_told_and_the_others_are_too() -> None:
    over = threading.Event()

    def fails() -> list[GaugeMetricFamily]:
        raise OSError("nobody is there")

    def hangs() -> list[GaugeMetricFamily]:
        over.wait(30)
        return [GaugeMetricFamily("late", "x", value=1)]

    collector = Sources({"good": lambda: gauge(3), "fails": fails, "hangs": hangs}, deadline_s=0.3)
    try:
        found = told(collector)
        assert found["some",] == 3
        assert {name: found["orca_source_up", name] for name in ("good", "fails", "hangs")} == {
            "good": 1,
            "fails": 0,
            "hangs": 0,
        }
        assert ("late",) not in found
        assert told(collector)["orca_source_up", "hangs"] == 0
    finally:
        over.set()
    end = time.monotonic() + 30
    while ("late",) not in (found := told(collector)):
        assert time.monotonic() < end
    assert found["orca_source_up", "hangs"] == 1


def test_several_who_ask_at_once_cost_one_question() -> None:
    asked = []

    def count() -> list[GaugeMetricFamily]:
        asked.append(1)
        return gauge(len(asked))

    collector = Sources({"good": count})
    assert [told(collector)["some",] for _ in range(5)] == [1] * 5


@pytest.fixture
def site(broker: Broker, tmp_path: Path) -> Site:
    """With a broker and its queues, a folder as cache, and neither server nor Dask."""
    made = Site(tmp_path / "site", broker.sections(f"m{abs(hash(tmp_path)) % 10**9}"))
    made.folder.mkdir()
    setup(settings_of(made))
    return made


def settings_of(site: Site) -> config.Config:
    return config.load(Path(site.environment()["ORCA_CONF"]))


def scrape(site: Site) -> Told:
    return told(Sources(sources(settings_of(site))))


def test_queues_trigger_and_files_are_counted(site: Site) -> None:
    settings = settings_of(site)
    now = datetime.now(UTC)
    stamps = [now - timedelta(minutes=minutes) for minutes in (20, 10)]
    for path in [naming.raw_path(settings.paths.raw, naming.Observation("73MHz", at), tar=True) for at in stamps]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with Publisher(settings) as publisher:
        assert publisher.publish(run_message("imaging"), "imaging") == "confirmed"
    trigger_folder(settings).mkdir(parents=True)
    TriggerState(trigger_folder(settings) / "state.json", received=5, refused=2, waiting_files=7).tell("takes messages")
    found = scrape(site)
    assert {name: found["orca_source_up", name] for name in sources(settings)} == dict.fromkeys(sources(settings), 1)
    assert found["orca_up", "rabbitmq", "rabbitmq"] == 1
    assert found["orca_queue_messages", "imaging", "ready"] == 1
    assert found["orca_queue_messages", "imaging", "dead"] == 0
    assert found["orca_trigger_received_total",] == 5
    assert found["orca_trigger_waiting", "files"] == 7
    assert found["orca_trigger_takes_messages",] == 1
    assert found["orca_integrations_last_hour", "raw", "73MHz"] == 2
    assert found["orca_newest_integration_timestamp_seconds", "raw", "73MHz"] == int(stamps[-1].timestamp())
    assert ("orca_integrations_last_hour", "raw", "78MHz") not in found, "nothing was ever recorded there"
    assert 0 < found["orca_disk_free_bytes", "raw"] <= found["orca_disk_size_bytes", "raw"]


def test_queues_that_are_not_there_and_a_trigger_that_is_gone_are_told(site: Site) -> None:
    site.settings["queue"] = {**site.settings["queue"], "prefix": "nobodys"}
    found = scrape(site)
    assert {name: found["orca_source_up", name] for name in ("parts", "queues", "trigger", "disks")} == {
        "parts": 1,
        "queues": 0,
        "trigger": 0,
        "disks": 1,
    }


def test_every_metric_of_the_rules_and_of_the_docs_is_there(site: Site) -> None:
    settings = settings_of(site)
    trigger_folder(settings).mkdir(parents=True)
    TriggerState(trigger_folder(settings) / "state.json").tell("takes messages")
    registry = CollectorRegistry()
    registry.register(Sources(sources(settings)))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    there = {f"{each.name}{'_total' if each.type == 'counter' else ''}" for each in families}
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert len(rules) > 5
    named = {name for rule in rules for name in re.findall(r"orca_\w+", rule["expr"])}
    assert named - there == set()
    described = set(re.findall(r"`(orca_\w+)[`{]", DOCS.read_text()))
    assert described == there


def test_it_is_served_until_it_is_told_to_end(site: Site) -> None:
    words = site.command("metrics", "--port", 0)
    with subprocess.Popen(words, env=site.environment(), stdout=subprocess.PIPE, text=True) as exporter:
        try:
            assert exporter.stdout is not None
            url = exporter.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:")
            with urlopen(url, timeout=60) as answer:
                assert parsed(answer.read().decode())["orca_source_up", "queues"] == 1
        finally:
            exporter.send_signal(signal.SIGTERM)
        assert exporter.wait(timeout=60) == 0
    printed = site.run("metrics", "--once")
    assert printed.returncode == 0
    assert parsed(printed.stdout)["orca_source_up", "queues"] == 1


def test_a_port_that_is_taken_is_an_error_with_its_remedy(site: Site) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = site.run("metrics", "--port", taken.getsockname()[1])
    assert result.returncode == 1
    assert "Give another --port" in result.stderr
