"""Who is told of alarms: those who listen at a real RabbitMQ, a program, a mail server; and what if none answers."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_string
from pathlib import Path
from typing import Any

import amqp
import pytest
import yaml
from kombu import Connection, Exchange, Queue
from standing_broker import Broker
from typer.testing import CliRunner

from orca import config
from orca.cli.alarms import app
from orca.cluster.alarms import asked
from orca.cluster.alarms.look import LOG, Look, look
from orca.cluster.ports import free_port
from orca.config import Config
from orca.events import names
from orca.events.announcements import Announcement
from orca.events.broker import connect, setup
from orca.naming import Observation, raw_path

Configure = Callable[..., Config]
OFF = dict.fromkeys(("disk_share", "gone_minutes", "calibration_hours", "raw_left_h"))


@dataclass
class Mail:
    """A mail server: what it was sent, and whether it takes it."""

    port: int = 0
    takes: bool = True
    letters: list[str] = field(default_factory=list)


@pytest.fixture
def mail() -> Iterator[Mail]:
    """A server that speaks as much of SMTP (RFC 5321) as a client needs."""
    told = Mail()

    class Speak(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.say("220 ready")
            while line := self.rfile.readline().decode().strip():
                verb = line.split()[0].upper()
                if verb == "DATA":
                    self.say("354 go on")
                    told.letters.append("".join(iter(lambda: self.rfile.readline().decode(), ".\r\n")))
                if verb == "QUIT":
                    self.say("221 bye")
                    return
                self.say("550 no such user" if verb == "RCPT" and not told.takes else "250 ok")

        def say(self, text: str) -> None:
            self.wfile.write(f"{text}\r\n".encode())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Speak) as server:
        told.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield told
        server.shutdown()


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """`configure(queue={...}, command=...)`: a telescope that records nothing, as a calibration is due."""
    monkeypatch.setattr(asked, "due", lambda now: now)

    def write(queue: dict[str, Any] | None = None, **alarms: Any) -> Config:
        file = tmp_path / "orca-conf.yml"
        sections = {"paths": {"data": str(tmp_path / "data")}, "queue": queue or {}, "alarms": {**OFF, **alarms}}
        file.write_text(yaml.safe_dump(sections))
        file.chmod(0o600)
        monkeypatch.setenv("ORCA_CONF", str(file))
        (tmp_path / "data" / "raw").mkdir(parents=True, exist_ok=True)
        return config.load()

    return write


def record(settings: Config) -> None:
    """Data come."""
    raw_path(settings.paths.raw, Observation("73MHz", datetime.now(UTC))).mkdir(parents=True)


def told(found: Look) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(news.alarm.state, news.alarm.name, news.ways) for news in found.news]


def test_whoever_listens_hears_an_alarm_once_and_its_end(
    broker: Broker, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = configure({"prefix": tmp_path.name, "broker_uri": broker.uri()})
    setup(settings)
    with Connection(broker.uri()) as connection, connection.channel() as channel:
        topic = Exchange(names.events_exchange(tmp_path.name), "topic", passive=True)
        queue = Queue(f"{tmp_path.name}-heard", topic, routing_key="alarm.#", exclusive=True, channel=channel)
        queue.declare()

        def heard() -> tuple[str, Announcement]:
            message = queue.get(no_ack=True)
            assert message is not None
            return message.delivery_info["routing_key"], Announcement.decode(message.body)

        assert told(look(settings)) == [("raised", "recording", ("broker",))]
        assert told(look(settings)) == []
        key, said = heard()
        assert (key, said.kind, said.alarm) == ("alarm.raised.recording", "alarm.raised", "recording")
        assert said.text.startswith("nothing was recorded in the 30 minutes before")
        assert queue.get(no_ack=True) is None
        with connect(settings, confirm=True) as own, own.channel() as sending:
            body = json.dumps({"flow": "nonsense"})
            sending.basic_publish(
                amqp.Message(body),
                names.dead_exchange(tmp_path.name, "imaging"),
                names.queue(tmp_path.name, "imaging"),
            )
        record(settings)
        assert told(look(settings)) == [
            ("cleared", "recording", ("broker",)),
            ("raised", "dead-letters:imaging", ("broker",)),
        ]
        assert [heard()[0] for _ in range(2)] == ["alarm.cleared.recording", "alarm.raised.dead-letters"]
        assert [known.text for known in look(settings).up] == [
            "1 dead letters in the queue of pool imaging: `orca queues dead ls` says why"
        ]


def test_a_program_gets_the_alarm_on_all_ways(configure: Configure, tmp_path: Path) -> None:
    script = tmp_path / "tell"
    script.write_text(f'#!/bin/sh\ncat > {tmp_path}/$1.json\nprintf "%s\\n" "$ORCA_ALARM" "$@" > {tmp_path}/$1.txt\n')
    script.chmod(0o755)
    settings = configure(command="./tell {state} {alarm} 'ORCA: {text}'")
    assert told(look(settings)) == [("raised", "recording", ("command",))]
    given = json.loads((tmp_path / "raised.json").read_text())
    environment, *arguments = (tmp_path / "raised.txt").read_text().splitlines()
    assert json.loads(environment) == given
    assert arguments == ["raised", "recording", f"ORCA: {given['text']}"]
    assert (given["condition"], given["until"], given["cluster"]) == ("recording", None, "local")
    record(settings)
    assert told(look(settings)) == [("cleared", "recording", ("command",))]
    over = json.loads((tmp_path / "cleared.json").read_text())
    assert (over["since"], over["until"] >= over["since"]) == (given["since"], True)


def test_a_mail_is_sent_when_it_comes_up_and_when_it_is_over(configure: Configure, mail: Mail) -> None:
    email = {"to": ["a@example.org", "b@example.org"], "from": "orca@example.org", "host": "127.0.0.1"}
    settings = configure(email={**email, "port": mail.port})
    look(settings)
    record(settings)
    look(settings)
    raised, cleared = (message_from_string(letter) for letter in mail.letters)
    assert raised["Subject"] == "ORCA local: raised: recording"
    assert (raised["From"], raised["To"]) == ("orca@example.org", "a@example.org, b@example.org")
    assert "nothing was recorded" in raised.get_payload()
    assert cleared["Subject"] == "ORCA local: cleared: recording"
    assert "over: nothing was recorded" in cleared.get_payload()


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("sleep 60", "took longer than 0.5 s"),
        ("sh -c 'echo no network; exit 3'", "exit"),
        ("no-such-program", "not found"),
    ],
)
def test_what_could_not_be_told_is_told_at_the_next_look(configure: Configure, command: str, why: str) -> None:
    settings = configure(command=command, deadline_s=0.5)
    for _ in range(2):
        [news] = look(settings).news
        assert (news.again, news.ways) == (True, ())
        assert why in news.failed[0]
    result = CliRunner().invoke(app, ["check"])
    assert result.exit_code == 1
    assert "raised recording (told by nothing yet)" in result.output
    assert told(look(configure(command="true"))) == [("raised", "recording", ("command",))]
    assert told(look(configure(command=command))) == []


def test_one_way_that_works_is_enough(configure: Configure, mail: Mail) -> None:
    away = {"prefix": "nobody", "broker_uri": f"pyamqp://guest:guest@127.0.0.1:{free_port('127.0.0.1')}//"}
    mail.takes = False
    email = {"to": ["a@example.org"], "from": "orca@example.org", "host": "127.0.0.1", "port": mail.port}
    found = look(configure(away, email=email, command="true"))
    [news] = found.news
    assert news.ways == ("command",)
    assert [failed.partition(":")[0] for failed in news.failed] == ["broker", "email"]
    assert "550" in news.failed[1]
    assert found.problems[0].startswith("dead-letters: ")
    assert look(configure(away, email=email, command="true")).news == ()


def test_the_command_line_shows_what_is_up(configure: Configure) -> None:
    def orca_alarms(*words: str) -> str:
        result = CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})
        assert result.exit_code == 0, result.output
        return result.output

    configure()
    assert "nobody has looked yet" in orca_alarms("ls")
    assert f"raised recording (told by {LOG})" in orca_alarms("check")
    [row] = json.loads(orca_alarms("ls", "--json"))["alarms"]
    assert (row["name"], row["told"]) == ("recording", LOG)
    assert "looked 0 s ago" in orca_alarms("ls")
    record(config.load())
    news = json.loads(orca_alarms("check", "--json"))
    assert (news["alarms"], [each["state"] for each in news["news"]]) == ([], ["cleared"])
    assert "no alarm is up" in orca_alarms("ls")
