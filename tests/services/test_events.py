"""Exchanges and queues at a real RabbitMQ: how they are made, what differs, which right is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import amqp
import pytest
import yaml
from site_of_tests import Site
from standing_broker import PASSWORD, Broker, standing_broker
from waiting import wait_for

from orca import config
from orca.cluster.pools import POOLS
from orca.cluster.security import make_certificates
from orca.config import Config
from orca.errors import BrokerAwayError, ConfigError, InfrastructureError, RightsError
from orca.events.broker import arguments, connect, dead, exchange, queue, setup, translated
from orca.events.health import waiting
from orca.events.message import run_message
from orca.events.names import DELIVERY_LIMIT
from orca.events.publisher import Publisher, Sent


def count(settings: Config, name: str) -> int:
    """Messages that wait in a queue."""
    with connect(settings) as connection:
        found = waiting(connection, name)
        assert found is not None
        return found[0]


def test_everything_is_made_once(broker: Broker, tmp_path: Path) -> None:
    settings = broker.settings(tmp_path, "made")
    planned = setup(settings, dry_run=True)
    assert {each.state for each in planned} == {"missing"}
    assert setup(settings, dry_run=True) == planned, "a dry run makes nothing"
    made = setup(settings)
    names = {(each.kind, each.name) for each in made}
    assert {("queue", f"made-{pool}{end}") for pool in POOLS for end in ("", ".dead")} <= names
    assert {("exchange", f"made-{pool}{end}") for pool in POOLS for end in ("", ".dead")} <= names
    assert ("exchange", "made.events") in names
    assert {each.state for each in made} == {"made"}
    assert setup(settings) == []


def test_the_default_prefix_has_the_plain_names() -> None:
    assert (queue("default", "imaging"), exchange("default", "imaging"), dead("default", "imaging")) == (
        "imaging",
        "imaging",
        "imaging.dead",
    )


@pytest.mark.parametrize(
    ("other", "durable", "now", "wanted"),
    [
        ({"x-queue-type": "quorum", "x-delivery-limit": 7}, True, "x-delivery-limit 7", "x-delivery-limit 20"),
        ({}, False, "durable false", "durable true"),
        ({"x-queue-type": "classic"}, True, "none", "mine-default.dead"),
    ],
    ids=["another limit", "not durable", "classic"],
)
def test_a_queue_that_differs_is_told_and_left_alone(
    broker: Broker, tmp_path: Path, other: dict[str, Any], durable: bool, now: str, wanted: str
) -> None:
    prefix = f"mine{len(now)}"
    settings = broker.settings(tmp_path, prefix)
    name = queue(prefix, "default")
    same = arguments(prefix, "default") if "x-delivery-limit" in other else {}
    with connect(settings, confirm=True) as connection:
        channel = connection.channel()
        channel.queue_declare(name, durable=durable, auto_delete=False, arguments={**same, **other})
        channel.basic_publish(amqp.Message("mine"), routing_key=name)
    for dry_run in (True, False):
        (found,) = [each for each in setup(settings, dry_run=dry_run) if each.state == "differs"]
        assert (found.name, found.kind) == (name, "queue")
        assert now in found.now
        assert wanted.replace("mine", prefix) in found.wanted
        assert "orca events setup" in found.remedy
    assert count(settings, name) == 1


def test_the_command_says_what_differs(broker: Broker, tmp_path: Path) -> None:
    site = Site(tmp_path, broker.sections("told"))
    with connect(broker.settings(tmp_path, "told")) as connection:
        connection.channel().exchange_declare("told-imaging", "fanout", durable=True, auto_delete=False)
    dry = site.run("events", "setup", "--dry-run", "--json")
    assert {each["state"] for each in json.loads(dry.stdout)["differences"]} == {"missing", "differs"}
    result = site.run("events", "setup")
    assert result.returncode == 1
    assert "exchange told-imaging has type fanout, not type direct" in result.stderr
    assert PASSWORD not in result.stdout + result.stderr
    good = Site(tmp_path, broker.sections("good"))
    assert good.run("events", "setup").returncode == 0
    again = good.run("events", "setup")
    assert (again.returncode, "all is as wanted" in again.stdout) == (0, True)


@pytest.mark.parametrize(
    ("user", "what", "told"),
    [
        ("publisher", "declare", "configure and read queue new"),
        ("publisher", "get", "read queue rights-default"),
        ("publisher", "purge", "read queue rights-default"),
        ("publisher", "delete", "configure queue rights-default"),
        ("publisher", "bind", "read exchange rights-default"),
        ("reader", "bind", "write queue rights-default"),
        ("reader", "publish", "write exchange rights-default"),
        ("nobody", "consume", "read queue rights-default"),
    ],
)
def test_the_right_that_is_missing_is_named(broker: Broker, tmp_path: Path, user: str, what: str, told: str) -> None:
    setup(broker.settings(tmp_path, "rights"), pools=["default"])
    name = "rights-default"
    asks = {
        "declare": lambda channel: channel.queue_declare("new"),
        "get": lambda channel: channel.basic_get(name),
        "purge": lambda channel: channel.queue_purge(name),
        "delete": lambda channel: channel.queue_delete(name),
        "bind": lambda channel: channel.queue_bind(name, name, "key"),
        "publish": lambda channel: channel.basic_publish(amqp.Message("x"), name, name),
        "consume": lambda channel: channel.basic_consume(name, callback=print),
    }
    with connect(broker.settings(tmp_path, "rights", user), confirm=True) as connection:
        channel = connection.channel()
        with pytest.raises(RightsError) as caught, translated():
            asks[what](channel)
    assert f"user {user} of RabbitMQ has not the right to {told}" in str(caught.value)


def test_who_may_not_make_queues_is_told_so(broker: Broker, tmp_path: Path) -> None:
    with pytest.raises(RightsError, match=r"reader of RabbitMQ has not the right to configure exchange none\.events"):
        setup(broker.settings(tmp_path, "none", "reader"))


def test_who_has_all_rights_for_a_prefix_can_do_all_with_it(broker: Broker, tmp_path: Path) -> None:
    settings = broker.settings(tmp_path, "own", "own")
    assert {each.state for each in setup(settings)} == {"made"}
    with Publisher(settings) as publisher:
        assert publisher.publish(run_message("imaging"), "imaging") is Sent.CONFIRMED
    assert count(settings, "own-imaging") == 1
    with pytest.raises(
        RightsError, match=r"user own of RabbitMQ has not the right to configure exchange other\.events"
    ):
        setup(broker.settings(tmp_path, "other", "own"))


def _at(tmp_path: Path, uri: str | None) -> Config:
    file = tmp_path / "conf.yml"
    file.write_text(yaml.safe_dump({"queue": {"broker_uri": uri}, "paths": {"data": str(tmp_path)}}))
    file.chmod(0o600)
    return config.load(file)


def test_why_there_is_no_connection_is_told_without_the_password(broker: Broker, tmp_path: Path) -> None:
    port = broker.ports["rabbitmq"]
    for uri, kind, told in (
        (broker.uri(password="wrong-pass"), InfrastructureError, "refuses the login of user orca"),
        (broker.uri()[:-1] + "elsewhere", InfrastructureError, "vhost elsewhere not found"),
        (broker.uri("stranger"), InfrastructureError, "access to vhost '/' refused for user 'stranger'"),
        ("pyamqp://orca:wrong-pass@127.0.0.1:9//", BrokerAwayError, "does not answer"),
        (f"amqps://orca:wrong-pass@127.0.0.1:{port}//", BrokerAwayError, "does not answer"),
        (None, ConfigError, "start one on this machine with `orca up`"),
    ):
        with pytest.raises(kind) as caught, connect(_at(tmp_path, uri)):
            pass
        assert told in str(caught.value)
        assert "wrong-pass" not in str(caught.value)
        assert PASSWORD not in str(caught.value)


def test_a_queue_that_is_not_there_is_told_with_the_remedy(broker: Broker, tmp_path: Path) -> None:
    with connect(broker.settings(tmp_path, "nothing")) as connection:
        channel = connection.channel()
        with pytest.raises(InfrastructureError, match=r"no queue 'nothing-default'.*orca events setup"), translated():
            channel.basic_get("nothing-default")


def test_a_message_that_is_put_back_too_often_becomes_a_dead_letter(broker: Broker, tmp_path: Path) -> None:
    settings = broker.settings(tmp_path, "poison")
    setup(settings, pools=["default"])
    with Publisher(settings) as publisher:
        publisher.publish(run_message("imaging", id="a"), "default")
    deliveries = 0
    with connect(settings) as connection:
        channel = connection.channel()
        while not count(settings, "poison-default.dead"):
            found = channel.basic_get("poison-default")
            if found is not None:
                deliveries += 1
                channel.basic_reject(found.delivery_tag, requeue=True)
            assert deliveries <= DELIVERY_LIMIT + 1
    assert deliveries == DELIVERY_LIMIT + 1
    assert count(settings, "poison-default") == 0


def test_a_dead_letter_may_be_looked_at_any_number_of_times(broker: Broker, tmp_path: Path) -> None:
    settings = broker.settings(tmp_path, "looked")
    setup(settings, pools=["default"])
    with Publisher(settings) as publisher:
        publisher.publish(run_message("imaging", id="a"), "default")
    with connect(settings) as connection:
        channel = connection.channel()
        channel.basic_reject(channel.basic_get("looked-default").delivery_tag, requeue=False)
        wait_for(lambda: count(settings, "looked-default.dead"), "the dead letter")
        for _ in range(50):
            found = channel.basic_get("looked-default.dead")
            channel.basic_reject(found.delivery_tag, requeue=True)
        assert found.headers["x-first-death-reason"] == "rejected"
    assert count(settings, "looked-default.dead") == 1


def test_a_dead_letter_stays_where_it_is_until_it_can_be_kept(broker: Broker, tmp_path: Path) -> None:
    settings = broker.settings(tmp_path, "kept")
    setup(settings, pools=["default"])
    with Publisher(settings) as publisher:
        publisher.publish(run_message("imaging", id="a"), "default")
    with connect(settings) as connection:
        channel = connection.channel()
        channel.queue_delete("kept-default.dead")
        channel.basic_reject(channel.basic_get("kept-default").delivery_tag, requeue=False)
        assert channel.basic_get("kept-default") is None, "nobody gets it twice"
    (made,) = setup(settings, pools=["default"])
    assert made.name == "kept-default.dead"
    wait_for(lambda: count(settings, "kept-default.dead"), "the dead letter")


def test_over_tls_only_who_has_a_certificate_gets_in(tmp_path: Path) -> None:
    tls = tmp_path / "tls"
    make_certificates(tls, ["127.0.0.1", "localhost"])
    with standing_broker(tmp_path / "broker", tls) as own:
        settings = own.settings(tmp_path, "default")
        assert setup(settings, pools=["default"])
        without = settings.network.model_copy(update={"tls": None})
        with pytest.raises(BrokerAwayError), connect(settings.model_copy(update={"network": without})):
            pass
