"""Messages on their way to a real RabbitMQ: confirmed, refused, or kept until it is there again."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from site_of_tests import Site
from standing_broker import PASSWORD, Broker, standing_broker
from waiting import wait_for

from orca.config import Config
from orca.errors import InfrastructureError, RightsError
from orca.events.broker import connect, queue, setup
from orca.events.message import Message, run_message
from orca.events.publisher import Publisher, Sent
from orca.events.spool import Spool

DEPLOYMENTS = {
    "reduction": ("default", "reduction/reduction"),
    "delay": ("bandpass", "delay/delay"),
    "bandpass": ("bandpass", "bandpass/bandpass"),
    "calibrate": ("bandpass", "nightly-calibration/nightly-calibration"),
    "imaging": ("imaging", "imaging/imaging"),
    "cosmology": ("cosmology", "cosmology/cosmology"),
}


def message(name: str) -> Message:
    return run_message("imaging", id=name)


def take(settings: Config, pool: str = "default") -> list[Message]:
    """All messages that wait in a pool's queue, which are gone then."""
    found = []
    with connect(settings) as connection:
        channel = connection.channel()
        while (got := channel.basic_get(queue(settings.queue.prefix, pool), no_ack=True)) is not None:
            found.append(Message.decode(got.body if isinstance(got.body, bytes) else got.body.encode()))
    return found


def ids(messages: list[Message]) -> list[str]:
    return [each.id for each in messages]


def test_what_is_confirmed_is_in_the_queue_in_its_order(broker: Broker, tmp_path: Path) -> None:
    settings = broker.settings(tmp_path, "sent")
    setup(settings)
    with Publisher(settings) as publisher:
        assert [publisher.publish(message(f"m{i}"), "imaging") for i in range(5)] == [Sent.CONFIRMED] * 5
    with connect(settings) as connection:
        got = connection.channel().basic_get("sent-imaging")
    assert got.properties["content_type"] == "application/json"
    assert (got.properties["delivery_mode"], got.properties["message_id"]) == (2, "m0")
    assert got.properties["timestamp"]
    assert ids(take(settings, "imaging")) == [f"m{i}" for i in range(5)]


def test_without_queues_the_remedy_is_told_and_nothing_is_kept(broker: Broker, tmp_path: Path) -> None:
    settings = broker.settings(tmp_path, "bare")
    with Publisher(settings) as publisher:
        with pytest.raises(InfrastructureError, match=r"no exchange 'bare-imaging'.*orca events setup"):
            publisher.publish(message("a"), "imaging")
        with connect(settings) as connection:
            connection.channel().exchange_declare("bare-imaging", "direct", durable=True, auto_delete=False)
        with pytest.raises(InfrastructureError, match=r"bare-imaging of RabbitMQ leads to no queue.*orca events setup"):
            publisher.publish(message("b"), "imaging")
        setup(settings)
        assert publisher.publish(message("c"), "imaging") is Sent.CONFIRMED
    assert publisher.spool.waiting() == []
    assert ids(take(settings, "imaging")) == ["c"]


def test_a_full_queue_refuses_and_other_queues_go_on(broker: Broker, tmp_path: Path) -> None:
    settings = broker.settings(tmp_path, "short")
    setup(settings)
    taken: list[str] = []
    with Publisher(settings) as publisher:
        told = ""
        while not told:
            try:
                publisher.publish(message(f"m{len(taken)}"), "default")
                taken.append(f"m{len(taken)}")
            except InfrastructureError as error:
                told = str(error)
        assert "queue short-default is full" in told
        for pool in ("default", "imaging", "default"):
            publisher.spool.keep(queue("short", pool), message(f"late-{pool}"))
        assert publisher.flush() == 1
        assert set(publisher.refused) == {"short-default"}
        assert publisher.publish(message("new"), "imaging") is Sent.CONFIRMED
        with pytest.raises(InfrastructureError, match="is full"):
            publisher.publish(message("overtaking"), "default")
        assert ids(take(settings)) == taken
        assert publisher.flush() == 2
    assert ids(take(settings)) == ["late-default", "late-default"]
    assert ids(take(settings, "imaging")) == ["late-imaging", "new"]


def test_who_may_not_publish_is_told_and_nothing_is_kept(broker: Broker, tmp_path: Path) -> None:
    setup(broker.settings(tmp_path, "closed"))
    with Publisher(broker.settings(tmp_path, "closed", "reader")) as publisher:
        with pytest.raises(RightsError, match="reader of RabbitMQ has not the right to write exchange closed-imaging"):
            publisher.publish(message("a"), "imaging")
    assert publisher.spool.waiting() == []
    with Publisher(broker.settings(tmp_path, "closed", "publisher")) as publisher:
        assert publisher.publish(message("a"), "imaging") is Sent.CONFIRMED


def test_a_broken_file_in_the_spool_does_not_hold_up_the_others(broker: Broker, tmp_path: Path) -> None:
    settings = broker.settings(tmp_path, "broken")
    setup(settings)
    spool = Spool(settings.paths.spool)
    paths = [spool.keep("broken-default", message(f"m{number}")) for number in range(3)]
    paths[1].write_bytes(b"{\xff")
    with Publisher(settings) as publisher:
        assert publisher.publish(message("new"), "default") is Sent.CONFIRMED
    assert ids(take(settings)) == ["m0", "m2", "new"]
    assert [path.name for path in spool.broken()] == [f"{paths[1].name}.broken"]
    assert spool.waiting() == []


def _flush(settings: Config) -> None:
    with Publisher(settings) as publisher:
        publisher.flush()


def test_two_publishers_that_flush_at_once_send_nothing_twice(broker: Broker, tmp_path: Path) -> None:
    settings = broker.settings(tmp_path, "twice")
    setup(settings)
    spool = Spool(settings.paths.spool)
    for number in range(200):
        spool.keep("twice-default", message(f"m{number:03d}"))
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_flush, args=(settings,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert ids(take(settings)) == [f"m{number:03d}" for number in range(200)]


def test_a_publisher_that_was_killed_while_it_flushed_loses_nothing(broker: Broker, tmp_path: Path) -> None:
    settings = broker.settings(tmp_path, "killed")
    setup(settings)
    spool = Spool(settings.paths.spool)
    for number in range(300):
        spool.keep("killed-default", message(f"m{number:03d}"))
    process = multiprocessing.get_context("spawn").Process(target=_flush, args=(settings,))
    process.start()
    wait_for(lambda: len(spool.waiting()) < 280, "the flushing")
    os.kill(int(process.pid or 0), signal.SIGKILL)
    process.join(30)
    _flush(settings)
    found = ids(take(settings))
    assert list(dict.fromkeys(found)) == [f"m{number:03d}" for number in range(300)]
    assert len(found) <= 301, "at most the one that was on its way comes twice"


def test_no_message_is_lost_when_the_broker_is_killed_among_them(tmp_path: Path) -> None:
    names = [f"m{number:03d}" for number in range(200)]
    with standing_broker(tmp_path / "broker") as own:
        settings = own.settings(tmp_path, "lost")
        setup(settings)
        with Publisher(settings) as publisher:
            sent = {}
            for name in names:
                if name == "m080":
                    own.kill()
                sent[name] = publisher.publish(message(name), "default")
            assert [sent[name] for name in names] == [Sent.CONFIRMED] * 80 + [Sent.SPOOLED] * 120
            assert [kept.read().id for kept in publisher.spool.waiting()] == names[80:]
            own.start()
            publisher._try_again = 0.0
            assert wait_for(lambda: publisher.publish(message("m200"), "default"), "a publish") is Sent.CONFIRMED
            assert publisher.spool.waiting() == []
            # a broker that was restarted while nothing was to be sent
            own.kill()
            own.start()
            assert publisher.publish(message("m201"), "default") is Sent.CONFIRMED
        assert ids(take(settings)) == [*names, "m200", "m201"]


@pytest.fixture(scope="module")
def site(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A home whose messages go to queues of its own, and an empty raw Measurement Set in it."""
    folder = tmp_path_factory.mktemp("submit")
    setup(broker.settings(folder, "cli"))
    made = folder / "20260110_203143_73MHz.ms"
    made.mkdir()
    (made / "table.dat").write_text("table")
    return Site(folder, broker.sections("cli"))


@pytest.mark.parametrize(
    ("words", "parameters"),
    [
        (["imaging", "20260110_203143_73MHz.ms", "--size", 1024, "--out", "images"], {"options": {"size": 1024}}),
        (["cosmology", "20260110_203143_73MHz.ms"], {}),
        (["reduction", "--date", "2026-01-10", "--hour", 3], {"day": "2026-01-10", "hours": [3]}),
        (["calibrate", "--date", "2026-01-10", "--subband", "73MHz"], {"day": "2026-01-10", "subbands": ["73MHz"]}),
        (
            ["bandpass", "--integrations", 3, "--min-integrations", 2],
            {"block": {"integrations": 3, "min_integrations": 2}},
        ),
        (["delay"], {}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_stage_is_asked_for_as_it_is_run(
    site: Site, broker: Broker, tmp_path: Path, words: list[object], parameters: dict[str, object]
) -> None:
    result = site.run("submit", *words, "--json")
    assert result.returncode == 0, result.stderr
    (told,) = json.loads(result.stdout)
    pool, deployment = DEPLOYMENTS[str(words[0])]
    (found,) = take(broker.settings(tmp_path, "cli"), pool)
    assert found.run is not None
    assert (found.id, found.run.full_name) == (told["id"], deployment)
    assert (told["queue"], told["sent"]) == (f"cli-{pool}", "confirmed")
    assert parameters.items() <= found.run.parameters.items()
    if words[0] == "imaging":
        assert found.run.parameters["measurement_sets"] == [str(site.folder / "20260110_203143_73MHz.ms")]
        assert found.run.parameters["out"] == str(site.folder / "images")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["imaging", "missing.ms"], "there is no such Measurement Set"),
        (["imaging", "20260110_203143_73MHz.ms", "--size", "-5"], "--size"),
        (["reduction", "20260110_203143_73MHz.ms", "--date", "2026-01-10"], "Give either"),
        (["run", "reductio"], "Did you mean reduction?"),
        (["run", "imaging", "-p", "size"], "is not KEY=VALUE"),
        (["run", "imaging", "-p", "a-b=1"], "is no name of a parameter"),
        (["recorded", "missing.ms"], "there is nothing to tell of"),
        (["recorded", "."], "is no name of a recording"),
    ],
)
def test_a_wrong_request_is_refused_before_it_is_sent(site: Site, words: list[str], told: str) -> None:
    result = site.run("submit", *words)
    assert (result.returncode, told in result.stderr) == (2, True), result.stderr


def test_any_deployment_can_be_asked_for(site: Site, broker: Broker, tmp_path: Path) -> None:
    result = site.run(
        "submit", "run", "reduction-hour", "-p", "last_hours=2", "-p", "raw=/data/raw", "-p", "hours=[1, 2]"
    )
    assert "submitted reduction/reduction-hour as" in result.stdout, result.stderr
    (found,) = take(broker.settings(tmp_path, "cli"))
    assert found.run is not None
    assert found.run.parameters == {"last_hours": 2, "raw": "/data/raw", "hours": [1, 2]}


def test_what_was_recorded_is_told_of(site: Site, broker: Broker, tmp_path: Path) -> None:
    words = ("recorded", "20260110_203143_73MHz.ms", "missing.ms", "--time", "2026-01-10T20:31:53")
    result = site.run("submit", *words)
    assert (result.returncode, "missing.ms: there is no such file" in result.stderr) == (1, True)
    (found,) = take(broker.settings(tmp_path, "cli"))
    assert found.recorded is not None
    assert found.recorded.path == str(site.folder / "20260110_203143_73MHz.ms")
    assert (found.recorded.size, found.recorded.time.isoformat()) == (5, "2026-01-10T20:31:53+00:00")


def test_while_the_broker_is_away_a_request_waits_and_is_sent_later(broker: Broker, tmp_path: Path) -> None:
    setup(broker.settings(tmp_path, "later"))
    away = {"queue": {"prefix": "later", "broker_uri": f"pyamqp://orca:{PASSWORD}@127.0.0.1:9//"}}
    site = Site(tmp_path / "home", broker.sections("later"))
    site.folder.mkdir()
    for deployment in ("imaging", "delay"):
        kept = site.run("submit", "run", deployment, **away)
        assert kept.returncode == 0
        assert "in the spool, for queue later-" in kept.stdout
        assert "does not answer" in kept.stderr
        assert PASSWORD not in kept.stdout + kept.stderr
    still = site.run("events", "flush", **away)
    assert (still.returncode, "0 sent, 2 wait" in still.stdout) == (1, True)
    assert json.loads(site.run("events", "flush", "--json").stdout)["sent"] == 2
    assert len(take(broker.settings(tmp_path, "later"), "imaging")) == 1
    assert len(take(broker.settings(tmp_path, "later"), "bandpass")) == 1


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_a_recorder_is_watched_until_it_is_told_to_end(broker: Broker, tmp_path: Path, end: signal.Signals) -> None:
    prefix = f"watch{int(end)}"
    settings = broker.settings(tmp_path, prefix)
    setup(settings)
    site = Site(tmp_path / "home", broker.sections(prefix))
    site.folder.mkdir()
    folder = tmp_path / "raw" / "73MHz" / "2026-01-10" / "20"
    watcher = site.start("watch", tmp_path / "raw", "--poll", 0.5)
    try:
        for number in range(3):
            path = folder / f"20260110_2000{number}0_73MHz.ms"
            path.mkdir(parents=True)
            (path / "table.dat").write_text("table")
            time.sleep(0.1)
        found: list[Message] = []
        wait_for(lambda: found.extend(take(settings)) or len(found) == 3, "three messages")
        watcher.send_signal(end)
        assert watcher.wait(timeout=30) == 0
    finally:
        watcher.kill()
        watcher.wait()
    assert sorted(each.subject for each in found) == sorted(map(str, folder.iterdir()))
    shutil.copytree(path, path.with_name("20260110_200100_73MHz.ms"))
    again = site.run("watch", tmp_path / "raw", "--once")
    assert again.returncode == 0, again.stderr
    assert [Path(each.subject).name for each in take(settings)] == ["20260110_200100_73MHz.ms"]
