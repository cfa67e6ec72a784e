"""`orca queues` with a real RabbitMQ: what is shown is true, and looking does no harm."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import amqp
import pytest
import yaml
from site_of_tests import Site
from standing_broker import Broker
from waiting import wait_for

from orca import config
from orca.config import Config
from orca.errors import InfrastructureError, InputError, RightsError
from orca.events import names
from orca.events.announcements import Announcement
from orca.events.broker import connect, setup
from orca.events.dead import chosen
from orca.events.heads import LOOKS
from orca.events.health import ask_broker
from orca.events.letters import REASON, REFUSED, Letter
from orca.events.management import find
from orca.events.message import Message, run_message
from orca.events.queues import QueueState, delete, overview, peek, purge

FOREIGN = b"\x00\xff\x1b[31mred"
SENT = 1_768_075_903


@dataclass
class Line:
    """A connection of somebody who sends and takes messages."""

    channel: Any
    prefix: str

    def send(self, body: bytes | Message, pool: str = "imaging", sent: int = SENT, **headers: str) -> None:
        """Publish to a pool's queue, or with headers to its dead letters as the trigger does."""
        raw = body.encode() if isinstance(body, Message) else body
        exchange = (names.dead_exchange if headers else names.exchange)(self.prefix, pool)
        self.channel.basic_publish(
            amqp.Message(raw, application_headers=headers, timestamp=sent, delivery_mode=2),
            exchange,
            names.queue(self.prefix, pool),
            mandatory=True,
        )

    def refuse(self, body: bytes | Message, reason: str = "no such flow", pool: str = "imaging") -> None:
        self.send(body, pool, **{REASON: reason, REFUSED: datetime.now(UTC).isoformat()})

    def take(self, pool: str = "imaging") -> Any:
        return self.channel.basic_get(names.queue(self.prefix, pool))

    def drain(self, pool: str = "imaging") -> list[bytes]:
        """All bodies that wait, acknowledged."""
        found = []
        while (message := self.take(pool)) is not None:
            self.channel.basic_ack(message.delivery_tag)
            found.append(raw(message))
        return found


def raw(message: Any) -> bytes:
    """Its body; amqp makes text of what says that it is some."""
    return message.body.encode() if isinstance(message.body, str) else bytes(message.body)


@contextmanager
def line(settings: Config) -> Iterator[Line]:
    with connect(settings, confirm=True) as connection:
        yield Line(connection.channel(), settings.queue.prefix)


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """Of the queues of one test."""
    return f"q{abs(hash(request.node.name)) % 10**9}"


@pytest.fixture
def settings(broker: Broker, tmp_path: Path, prefix: str) -> Config:
    """Queues that nobody else uses, without the management API."""
    made = broker.settings(tmp_path, prefix)
    setup(made)
    return made


@pytest.fixture
def managed(broker: Broker, settings: Config, tmp_path: Path) -> Config:
    """The same queues, with the management API."""
    return _with_management(broker, settings, tmp_path / "managed.yml")


def _with_management(broker: Broker, settings: Config, file: Path) -> Config:
    sections = broker.sections(settings.queue.prefix)
    sections["queue"]["management_uri"] = f"http://127.0.0.1:{broker.ports['rabbitmq-management']}"
    file.write_text(yaml.safe_dump({**sections, "paths": {"data": str(settings.paths.data)}}))
    file.chmod(0o600)
    return config.load(file)


def state(settings: Config, pool: str = "imaging") -> QueueState:
    [found] = overview(settings, [pool])
    return found


def wait_for_counts(settings: Config, ready: int, dead: int) -> None:
    """What was settled a moment ago is counted once RabbitMQ has written it to its disk."""
    wait_for(lambda: (state(settings).ready, state(settings).dead) == (ready, dead), f"{ready} ready and {dead} dead")


def letters(settings: Config) -> list[Letter]:
    with chosen(settings, None) as found:
        return found.letters


def replay(settings: Config, *ids: str) -> list[str]:
    with chosen(settings, ids or None) as found:
        return [letter.id for letter in found.replay()]


@pytest.fixture(params=["amqp", "management"])
def either(request: pytest.FixtureRequest) -> Config:
    """Settings of both kinds."""
    chosen_one: Config = request.getfixturevalue("managed" if request.param == "management" else "settings")
    return chosen_one


def test_the_overview_counts_what_is_there(either: Config) -> None:
    with line(either) as publisher, line(either) as consumer:
        for number in range(3):
            publisher.send(run_message("imaging", {"number": number}), sent=SENT + number)
        publisher.refuse(run_message("nothing"))
        consumer.channel.basic_qos(0, 1, False)
        consumer.channel.basic_consume(names.queue(either.queue.prefix, "imaging"), callback=lambda message: None)
        wait_for(lambda: state(either).ready == 2, "the consumer's taking one")
        found = state(either)
        assert (found.declared, found.ready, found.consumers, found.dead) == (True, 2, 1, 1)
        assert found.oldest_s is not None
        assert abs(found.oldest_s - (datetime.now(UTC).timestamp() - SENT - 1)) < 60
        if either.queue.management_uri is None:
            assert (found.unacknowledged, found.rate_per_s) == (None, None)
        else:
            wait_for(lambda: state(either).unacknowledged == 1, "that RabbitMQ tells of the message in hand")
            assert state(either).rate_per_s == 0


def test_a_queue_that_is_missing_is_told_as_such(broker: Broker, tmp_path: Path, prefix: str) -> None:
    found = state(broker.settings(tmp_path, prefix))
    assert not found.declared
    assert "orca events setup" in found.problem


def test_a_management_api_that_is_named_and_does_not_answer_is_complained_of(broker: Broker, settings: Config) -> None:
    heard: list[str] = []
    overview(settings, ["imaging"], heard.append)
    assert heard == []
    closed = settings.queue.model_copy(update={"management_uri": config.SecretUri("http://127.0.0.1:9")})
    [found] = overview(settings.model_copy(update={"queue": closed}), ["imaging"], heard.append)
    assert found.declared
    assert "does not answer" in heard[0]


def test_a_message_is_looked_at_a_few_times_and_then_remembered(settings: Config) -> None:
    with line(settings) as place:
        place.send(run_message("imaging", {"number": 1}))
        ages = [wait_for(lambda: state(settings).oldest_s, "an age") for _ in range(3 * names.DELIVERY_LIMIT)]
        assert state(settings).looked_s
        head = place.take()
        assert head.headers["x-delivery-count"] == LOOKS
        place.channel.basic_ack(head.delivery_tag)
        wait_for(lambda: state(settings).oldest_s is None, "an empty queue")
        place.send(run_message("imaging", {"number": 2}), sent=SENT + 1000)
        assert wait_for(lambda: state(settings).oldest_s, "the age of another") < ages[0]
        assert state(settings).dead == 0


def test_nothing_is_looked_at_that_could_not_be_remembered(settings: Config) -> None:
    settings.paths.data.mkdir(parents=True, exist_ok=True)
    (settings.paths.data / "run").write_text("no folder")
    with line(settings) as place:
        place.send(run_message("imaging"))
        assert (state(settings).ready, state(settings).oldest_s) == (1, None)
        assert place.take().headers["x-delivery-count"] == 0


def test_peeking_kills_nothing_however_often(settings: Config) -> None:
    with line(settings) as place:
        place.send(run_message("imaging", id="only"))
        for _ in range(names.DELIVERY_LIMIT + 5):
            assert [letter.id for letter in peek(settings, "imaging", 3)] == ["only"]
        wait_for_counts(settings, 1, 0)
        assert [Message.decode(body).id for body in place.drain()] == ["only"]


def test_looking_leaves_the_order(settings: Config) -> None:
    with line(settings) as place:
        for number in range(10):
            place.send(run_message("imaging", id=f"number-{number}"))
        for count in (3, 1, 5, 2, 1):
            peeked = [letter.id for letter in peek(settings, "imaging", count)]
            assert peeked == [f"number-{number}" for number in range(count)]
            state(settings)
        assert [Message.decode(body).id for body in place.drain()] == [f"number-{number}" for number in range(10)]


def test_more_than_can_be_put_back_in_order_is_refused(settings: Config) -> None:
    with pytest.raises(InputError, match="32"):
        peek(settings, "imaging", 33)


def test_a_consumer_gets_all_while_somebody_looks(settings: Config) -> None:
    total, got = 300, set[str]()

    def consume() -> None:
        with line(settings) as consumer:
            consumer.channel.basic_qos(0, 5, False)

            def take(message: Any) -> None:
                got.add(Message.decode(raw(message)).id)
                consumer.channel.basic_ack(message.delivery_tag)

            consumer.channel.basic_consume(names.queue(settings.queue.prefix, "imaging"), callback=take)
            while len(got) < total:
                consumer.channel.connection.drain_events(timeout=60)

    with line(settings) as place:
        for number in range(total):
            place.send(run_message("imaging", id=f"m{number}"))
        worker = threading.Thread(target=consume)
        worker.start()
        while worker.is_alive():
            overview(settings, ["imaging"])
            peek(settings, "imaging", 4)
        worker.join()
    assert len(got) == total
    wait_for_counts(settings, 0, 0)


def test_dead_letters_are_shown_with_their_reasons(settings: Config) -> None:
    with line(settings) as place:
        place.refuse(run_message("nothing", id="first"), "there is no flow nothing")
        place.refuse(FOREIGN, "is no JSON", "bandpass")
        place.send(run_message("imaging", id="poison"), "cosmology")
        for _ in range(names.DELIVERY_LIMIT + 1):
            message = wait_for(lambda: place.take("cosmology"), "the message's coming back")
            place.channel.basic_reject(message.delivery_tag, requeue=True)
        wait_for(lambda: state(settings, "cosmology").dead == 1, "the death of a message")
    found = letters(settings)
    assert [(a.pool, a.attempt, a.what.partition(":")[0]) for a in found] == [
        ("imaging", 1, "nothing/nothing"),
        ("bandpass", None, "foreign"),
        ("cosmology", 1, "imaging/imaging"),
    ]
    assert [a.reason for a in found] == ["there is no flow nothing", "is no JSON", "taken and put back too often"]
    now = datetime.now(UTC).timestamp()
    assert all(letter.died is not None and abs(now - letter.died) < 600 for letter in found)


def test_dead_letters_may_be_looked_at_for_ever(settings: Config) -> None:
    with line(settings) as place:
        for number in range(40):
            place.refuse(run_message("nothing", id=f"dead-{number}"))
    seen = [[letter.id for letter in letters(settings)] for _ in range(names.DELIVERY_LIMIT + 5)]
    assert all(ids == [f"dead-{number}" for number in range(40)] for ids in seen)


def test_what_is_replayed_is_a_new_attempt_in_its_queue(settings: Config) -> None:
    with line(settings) as place:
        for name in ("one", "two", "three"):
            place.refuse(run_message("imaging", {"name": name}, id=name))
        assert replay(settings, "two") == ["two"]
        message = place.take()
        assert Message.decode(raw(message)) == run_message("imaging", {"name": "two"}, id="two", attempt=2)
        assert not {REASON, REFUSED, "x-death"} & set(message.headers)
        assert message.properties["timestamp"] == SENT
    assert [letter.id for letter in letters(settings)] == ["one", "three"]
    assert replay(settings) == ["one", "three"]
    assert letters(settings) == []


def test_what_is_foreign_is_replayed_as_it_is_and_an_announcement_to_its_own_queue(settings: Config) -> None:
    told = Announcement(kind="calibration.ready", subband="73MHz")
    with line(settings) as place:
        place.refuse(FOREIGN, pool="bandpass")
        assert len(replay(settings)) == 1
        assert place.drain("bandpass") == [FOREIGN]
        place.channel.queue_declare(
            names.triggers(place.prefix),
            durable=True,
            auto_delete=False,
            arguments=names.triggers_arguments(place.prefix),
        )
        place.refuse(told.model_dump_json().encode(), pool="default")
        assert [letter.what for letter in letters(settings)] == ["announcement calibration.ready.73MHz"]
        assert replay(settings) == [told.id]
        message = place.channel.basic_get(names.triggers(place.prefix), no_ack=True)
        assert Announcement.decode(raw(message)) == told
        assert place.drain("default") == []


def test_a_letter_that_cannot_be_sent_again_stays(settings: Config) -> None:
    with line(settings) as place:
        place.refuse(run_message("imaging", id="kept"))
        place.channel.queue_delete(names.queue(place.prefix, "imaging"))
    with pytest.raises(InfrastructureError):
        replay(settings)
    assert [letter.id for letter in letters(settings)] == ["kept"]


def test_ids_that_fit_none_or_several_have_nothing_done(settings: Config) -> None:
    with line(settings) as place:
        for name in ("a-12345678", "b-12345678", "c-87654321"):
            place.refuse(run_message("imaging", id=name))
    with pytest.raises(InputError, match="several"):
        replay(settings, "c-87654321", "12345678")
    with pytest.raises(InputError, match="no dead letter zzzz"):
        replay(settings, "c-87654321", "zzzz")
    assert len(letters(settings)) == 3
    assert replay(settings, "87654321", "a-12345678") == ["a-12345678", "c-87654321"]


def test_a_queue_is_emptied_and_deleted_only_when_that_loses_nothing(settings: Config) -> None:
    with line(settings) as place:
        place.send(run_message("imaging"))
        with pytest.raises(InputError, match="1 messages"):
            delete(settings, "imaging")
        assert purge(settings, "imaging") == 1
        place.refuse(run_message("imaging"))
        with pytest.raises(InputError, match=r"\.dead has 1 messages"):
            delete(settings, "imaging")
        assert state(settings).declared
        queue = names.queue(place.prefix, "imaging")
        assert delete(settings, "imaging", force=True) == [queue, f"{queue}.dead"]
        assert not state(settings).declared
        assert delete(settings, "imaging") == []


@pytest.mark.parametrize(
    ("user", "act", "right"),
    [
        ("publisher", lambda settings: peek(settings, "imaging", 1), "read"),
        ("publisher", lambda settings: purge(settings, "imaging"), "read"),
        ("reader", lambda settings: delete(settings, "imaging", force=True), "configure"),
        ("reader", replay, "write"),
    ],
)
def test_the_right_that_is_missing_is_named(
    broker: Broker, settings: Config, tmp_path: Path, user: str, act: Callable[[Config], Any], right: str
) -> None:
    with line(settings) as place:
        place.refuse(run_message("imaging"))
    few = broker.settings(tmp_path, settings.queue.prefix, user)
    with pytest.raises(RightsError, match=f"user {user} .* right to {right}"):
        act(few)
    assert len(letters(settings)) == 1


def test_who_may_not_read_sees_numbers_and_is_told_why_not_the_age(
    broker: Broker, settings: Config, tmp_path: Path
) -> None:
    with line(settings) as place:
        place.send(run_message("imaging"))
    found = state(broker.settings(tmp_path, settings.queue.prefix, "publisher"))
    assert (found.ready, found.oldest_s) == (1, None)
    assert "right to read" in found.problem


def test_status_hears_of_queues(broker: Broker, settings: Config) -> None:
    queue = names.queue(settings.queue.prefix, "imaging")
    answer = ask_broker(settings, config.SecretUri(broker.uri()), [queue, "nowhere"])
    assert answer.healthy
    assert answer.version.startswith("3.")
    assert answer.facts["queues"] == {queue: 0, "nowhere": None}
    refused = ask_broker(settings, config.SecretUri(broker.uri(password="wrong")))
    assert not refused.healthy
    assert "wrong" not in refused.problem


def test_the_command_line_asks_before_it_removes(broker: Broker, settings: Config, tmp_path: Path) -> None:
    site = Site(tmp_path / "home", broker.sections(settings.queue.prefix))
    site.folder.mkdir()
    with line(settings) as place:
        place.refuse(FOREIGN, "is no JSON \x1b[2J")
        place.send(run_message("imaging"))
    [letter] = letters(settings)
    shown = site.run("queues", "dead", "show", letter.short)
    assert "\\xff\\x1b[31mred" in shown.stdout
    assert "\x1b" not in shown.stdout + site.run("queues", "dead", "ls").stdout
    for words in (["dead", "drop", letter.short], ["purge", "imaging"], ["delete", "imaging", "--force"]):
        refused = site.run("queues", *words)
        assert (refused.returncode, "--yes" in refused.stderr) == (2, True)
    wait_for_counts(settings, 1, 1)
    assert site.run("queues", "dead", "drop", letter.short, "--yes").returncode == 0
    assert "removed 1 message\n" in site.run("queues", "purge", "imaging", "--yes").stdout
    told = {each["pool"]: each for each in json.loads(site.run("queues", "ls", "--json").stdout)}
    assert (told["imaging"]["ready"], told["imaging"]["dead"]) == (0, 0)
    assert site.run("queues", "dead", "drop").returncode == 2
    assert site.run("queues", "peek", "nowhere").returncode == 2


def test_the_management_api_of_the_broker_is_asked_as_its_user(broker: Broker, managed: Config) -> None:
    api = find(managed)
    assert api is not None
    assert api.call("whoami")["name"] == "orca"
    assert api.call("queues/nowhere") is None
