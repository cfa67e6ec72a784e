"""`orca doctor` beside real services: well, badly set up, silent, and away."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from kombu import Exchange, Queue
from site_of_tests import Site
from standing_broker import Broker
from standing_redis import Redis

from orca.cluster.ports import free_port
from orca.config import Config
from orca.events import broker as events_broker
from orca.events import names

LONGEST_S = 60.0
"""Three times what is promised, as a test machine is busy: without deadlines it would be for ever."""


def examined(site: Site, *sections: str, **settings: Any) -> tuple[int, list[dict[str, str]]]:
    """Exit status and findings."""
    words = [word for each in sections for word in ("--only", each)]
    done = site.run("doctor", "--json", *words, **settings)
    assert "Traceback" not in done.stderr, done.stderr
    assert "sekret" not in done.stdout + done.stderr
    return done.returncode, json.loads(done.stdout)["findings"]


def of(findings: list[dict[str, str]], name: str) -> dict[str, str]:
    [found] = [each for each in findings if each["name"] == name]
    return found


# ---- Redis ----


@pytest.fixture
def redis_site(own_redis: Redis, tmp_path: Path) -> Site:
    return Site(tmp_path, {"queue": {"result_backend_uri": own_redis.uri()}, "cache": {"uri": own_redis.uri(1)}})


def test_a_redis_with_room_that_throws_nothing_away_is_well(redis_site: Site, own_redis: Redis) -> None:
    with own_redis.client() as client:
        client.config_set("maxmemory", "4gb")
        client.config_set("maxmemory-policy", "volatile-ttl")
    status, findings = examined(redis_site, "redis", "clock")
    assert status == 0
    assert {each["level"] for each in findings if each["section"] == "redis"} == {"ok"}
    assert of(findings, f"redis 127.0.0.1:{own_redis.port}")["level"] == "ok"
    assert "10 h of spectra need 1.268 GB" in of(findings, "memory")["seen"]


def test_a_redis_that_throws_away_or_is_too_small_is_an_error(redis_site: Site, own_redis: Redis) -> None:
    with own_redis.client() as client:
        client.config_set("maxmemory", "500mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("appendonly", "yes")
    status, findings = examined(redis_site, "redis")
    assert status == 1
    policy = of(findings, "eviction policy")
    assert policy["level"] == "error"
    assert policy["remedy"].startswith(f"redis-cli -h 127.0.0.1 -p {own_redis.port} --askpass CONFIG SET")
    assert of(findings, "memory")["level"] == "error"
    assert "CONFIG SET maxmemory 2gb" in of(findings, "memory")["remedy"]
    assert of(findings, "persistence")["level"] == "note"


def test_a_redis_that_refuses_the_password_or_writes_says_so(own_redis: Redis, tmp_path: Path) -> None:
    wrong = Site(tmp_path, {"queue": {"result_backend_uri": f"redis://:sekret@127.0.0.1:{own_redis.port}/0"}})
    status, findings = examined(wrong, "redis")
    assert status == 1
    assert "refuses the login" in of(findings, f"127.0.0.1:{own_redis.port}")["seen"]
    replica = Site(tmp_path, {"queue": {"result_backend_uri": own_redis.uri()}})
    with own_redis.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", free_port("127.0.0.1"))
    assert of(examined(replica, "redis")[1], "role")["level"] == "error"


# ---- RabbitMQ ----


def test_queues_that_are_missing_are_an_error_until_they_are_made(broker: Broker, tmp_path: Path) -> None:
    site = Site(tmp_path, broker.sections("doctor"))
    status, findings = examined(site, "broker")
    assert status == 1
    assert of(findings, "rabbitmq")["level"] == "ok"
    assert (of(findings, "queues")["level"], of(findings, "queues")["remedy"]) == ("error", "orca events setup")
    settings = broker.settings(tmp_path, "doctor")
    events_broker.setup(settings)
    status, findings = examined(site, "broker")
    assert (status, of(findings, "queues")["level"]) == (0, "ok")
    send(settings, names.dead("doctor", "imaging"))
    send(settings, names.queue("doctor", "default"))
    status, findings = examined(site, "broker")
    assert status == 0
    assert "1 message in doctor-imaging.dead" in of(findings, "dead letters")["seen"]
    warned = [each for each in findings if each["name"] == "queues" and each["level"] == "warning"]
    assert [each["seen"] for each in warned] == ["1 message in doctor-default, and nobody takes them"]


def send(settings: Config, queue: str) -> None:
    with events_broker.connect(settings, confirm=True) as connection:
        connection.default_channel.basic_publish_confirm(_message(), "", queue)


def _message() -> Any:
    import amqp

    return amqp.Message("{}")


def test_a_queue_of_another_kind_is_an_error(broker: Broker, tmp_path: Path) -> None:
    settings = broker.settings(tmp_path, "doctor-other")
    with events_broker.connect(settings) as connection:
        Queue(names.queue("doctor-other", "default"), Exchange(""), durable=True).bind(connection).queue_declare()
    status, findings = examined(Site(tmp_path, broker.sections("doctor-other")), "broker")
    assert status == 1
    assert any("doctor-other-default has" in each["seen"] for each in findings)


def test_a_wrong_login_and_a_vhost_of_others_are_told_apart(broker: Broker, tmp_path: Path) -> None:
    for uri, told in (
        (broker.uri(password="sekret"), "refuses the login of user orca"),
        (broker.uri(user="stranger"), "access to vhost"),
        (broker.uri() + "nowhere", "vhost"),
    ):
        status, findings = examined(Site(tmp_path, {"queue": {"broker_uri": uri}}), "broker")
        found = of(findings, "rabbitmq")
        assert (status, found["level"]) == (1, "error")
        assert told in found["seen"]
        assert "queue.broker_uri" in found["remedy"]


def test_messages_that_wait_on_this_machine_are_warned_of(tmp_path: Path) -> None:
    spool = tmp_path / "orca" / "spool"
    spool.mkdir(parents=True)
    (spool / f"{1:020d}.imaging.json").write_text("{}")
    status, findings = examined(Site(tmp_path), "broker")
    assert (status, of(findings, "spool")["level"], of(findings, "spool")["remedy"]) == (
        0,
        "warning",
        "orca events flush",
    )


# ---- silence ----


@pytest.fixture
def silent() -> Iterator[list[int]]:
    """Ports that take connections and never say a word."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(5)]
        yield [each.getsockname()[1] for each in sockets]


@pytest.fixture
def swallowing() -> Iterator[list[int]]:
    """Ports whose backlog is full: as a host that drops packets, they answer no attempt to connect."""
    with ExitStack() as stack:
        ports = []
        for _ in range(5):
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
            ports.append(server.getsockname()[1])
            for _ in range(3):
                client = stack.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(server.getsockname())
        yield ports


def everywhere(ports: list[int]) -> dict[str, Any]:
    broker, management, redis, prefect, dask = (f"127.0.0.1:{port}" for port in ports)
    return {
        "queue": {
            "broker_uri": f"pyamqp://u:sekret@{broker}//",
            "management_uri": f"http://{management}",
            "result_backend_uri": f"redis://:sekret@{redis}/0",
        },
        "cache": {"uri": f"redis://:sekret@{redis}/1"},
        "prefect": {"api_url": f"http://{prefect}/api"},
        "dask": {"address": f"tcp://{dask}"},
    }


@pytest.mark.parametrize("how", ["silent", "swallowing", "away"])
def test_services_that_do_not_answer_are_errors_and_hold_up_nothing(
    how: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    ports = [free_port("127.0.0.1") for _ in range(5)] if how == "away" else request.getfixturevalue(how)
    began = time.monotonic()
    status, findings = examined(Site(tmp_path, everywhere(ports)))
    assert time.monotonic() - began < LONGEST_S
    assert status == 1
    for name in ("rabbitmq", f"127.0.0.1:{ports[2]}", "server", "scheduler"):
        found = of(findings, name)
        assert (found["level"], "does not answer" in found["seen"], bool(found["remedy"])) == ("error", True, True)
    assert of(findings, "management")["level"] == "warning"
    assert of(findings, "execs.wsclean")["level"] == "ok"
    assert of(findings, "paths.data")["level"] == "ok"


def test_a_name_of_no_machine_is_an_error_like_others(tmp_path: Path) -> None:
    site = Site(tmp_path, {"dask": {"address": "tcp://no-such-host.invalid:8786"}})
    status, findings = examined(site, "dask")
    assert (status, of(findings, "scheduler")["level"]) == (1, "error")
