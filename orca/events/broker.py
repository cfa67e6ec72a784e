"""The broker: how it is reached, what its refusals mean, and that it has our exchanges and queues (`names`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import amqp  # type: ignore[import-untyped]
from kombu import Connection
from kombu.exceptions import OperationalError

from orca.cluster.machine import standing
from orca.cluster.pools import POOLS
from orca.cluster.security import CA, CERTIFICATE, KEY
from orca.config import Config
from orca.config.secret import SecretUri
from orca.errors import BrokerAwayError, ConfigError, InfrastructureError
from orca.events.names import (
    arguments,
    dead,
    dead_arguments,
    dead_exchange,
    events_exchange,
    exchange,
    queue,
    triggers,
    triggers_arguments,
)
from orca.events.refusals import explained, reason, translated

__all__ = [
    "Difference",
    "arguments",
    "broker_uri",
    "connect",
    "dead",
    "dead_exchange",
    "events_exchange",
    "exchange",
    "explained",
    "place",
    "queue",
    "setup",
    "translated",
    "vhost",
]

PATIENCE_S = 5.0
"""For a connection."""
ANSWER_S = 30.0
"""For each answer on it: a broker that hangs must not hang us, not even while we take our leave."""

_NOT_THERE = "none"


def broker_uri(settings: Config) -> SecretUri:
    """RabbitMQ of the configuration, else of `orca up`.

    Raises
    ------
    ConfigError
        There is none.
    """
    found = standing.broker_uri(settings)
    if found is None:
        remedy = "Set queue.broker_uri, or start one on this machine with `orca up`"
        raise ConfigError("there is no RabbitMQ to talk to", settings.file, remedy)
    return found


def vhost(uri: SecretUri) -> str:
    """Virtual host that an address names."""
    return unquote(urlsplit(uri.reveal()).path[1:]) or "/"


@contextmanager
def connect(
    settings: Config, *, patience_s: float = PATIENCE_S, confirm: bool = False, heartbeat_s: float = 0
) -> Iterator[Connection]:
    """A connection to the broker, closed at the end. What happens on it later is for `translated`.

    Parameters
    ----------
    settings : Config
    patience_s : float
        For the connection to be there.
    confirm : bool
        Whether each publish waits until the broker has taken the message, or has refused it, which raises
        `amqp.exceptions.MessageNacked`.
    heartbeat_s : float
        For one that waits long; who asks for it has to call `heartbeat_check`.

    Raises
    ------
    BrokerAwayError
        It does not answer.
    InfrastructureError
        It refuses the login, or has no such vhost, or none for this user.
    ConfigError
        There is no broker, or no certificates for it.
    """
    uri = broker_uri(settings)
    connection = _connection(settings, uri, patience_s, confirm, heartbeat_s)
    try:
        _open(connection, uri, settings)
        yield connection
    finally:
        try:
            connection.release()
        except (amqp.AMQPError, OSError):  # it was lost, which its user has been told
            connection.collect()


def _connection(settings: Config, uri: SecretUri, patience_s: float, confirm: bool, heartbeat_s: float) -> Connection:
    parts = urlsplit(uri.reveal())
    secure = parts.scheme.lower() == "amqps"
    return Connection(
        transport="pyamqp",
        hostname=parts.hostname,
        port=parts.port or (5671 if secure else 5672),
        userid=unquote(parts.username or "guest"),
        password=unquote(parts.password or "guest"),
        virtual_host=vhost(uri),
        ssl=_tls(settings, str(parts.hostname)) if secure else False,
        connect_timeout=patience_s,
        heartbeat=heartbeat_s,
        transport_options={"confirm_publish": confirm},
    )


def _tls(settings: Config, host: str) -> dict[str, Any]:
    """The certificates of the cluster where there are some, else those that the machine trusts."""
    folder = settings.network.tls
    if folder is None:
        return {"server_hostname": host}
    files = {"ca_certs": folder / CA, "certfile": folder / CERTIFICATE, "keyfile": folder / KEY}
    for path in files.values():
        if not path.is_file():
            raise ConfigError("there is no such certificate", path, "Make them with `orca cluster certs`")
    return {key: str(path) for key, path in files.items()}


def _open(connection: Connection, uri: SecretUri, settings: Config) -> None:
    where = f"RabbitMQ at {place(uri)}"
    key = "queue.broker_uri" if settings.queue.broker_uri else "the broker of `orca up`"
    try:
        connection.ensure_connection(max_retries=0)
        connection.connection.sock.settimeout(ANSWER_S)
    except amqp.AccessRefused as error:
        user = unquote(urlsplit(uri.reveal()).username or "guest")
        remedy = f"Check user and password in {key}"
        raise InfrastructureError(f"{where} refuses the login of user {user}", remedy=remedy) from error
    except amqp.NotAllowed as error:
        remedy = f"Check the vhost at the end of {key}, or have somebody allow you to use it"
        raise InfrastructureError(f"{where}: {reason(error)}", remedy=remedy) from error
    except (OperationalError, amqp.AMQPError, OSError) as error:
        remedy = f"See that it runs (`orca status`), and check host and port in {key}"
        remedy += ", and its certificates in network.tls" if uri.scheme == "amqps" else ""
        raise BrokerAwayError(f"{where} does not answer ({reason(error)})", remedy=remedy) from error


def place(uri: SecretUri) -> str:
    """Host and port of a broker."""
    parts = urlsplit(uri.reveal())
    return f"{parts.hostname}:{parts.port or (5671 if parts.scheme.lower() == 'amqps' else 5672)}"


@dataclass(frozen=True)
class Difference:
    """What is not at the broker as ORCA wants it.

    Attributes
    ----------
    name : str
    kind : str
        ``exchange`` or ``queue``.
    now, wanted : str
        What is there, and what should be.
    state : str
        ``made``, ``missing`` (in a dry run) or ``differs`` (it is left as it is).
    remedy : str
        What somebody has to do about it; empty where nothing.
    """

    name: str
    kind: Literal["exchange", "queue"]
    now: str
    wanted: str
    state: Literal["made", "missing", "differs"]
    remedy: str = ""


def setup(settings: Config, pools: Sequence[str] = POOLS, *, dry_run: bool = False) -> list[Difference]:
    """Declare all exchanges, queues and bindings, and return what was not there or differs.

    What differs is not touched: it may hold messages. Bindings are made again without looking, since the broker does
    not tell them; so a dry run says nothing about them.

    Parameters
    ----------
    settings : Config
    pools : sequence of str
    dry_run : bool
        Only look.

    Raises
    ------
    RightsError, BrokerAwayError, InfrastructureError, ConfigError
        As `connect` and `translated` do.
    """
    prefix = settings.queue.prefix
    with connect(settings) as connection, translated():
        site = _Site(connection, dry_run)
        site.exchange(events_exchange(prefix), "topic")
        for pool in pools:
            name = queue(prefix, pool)
            for where, waiting, wanted in (
                # dead letters first, so that there is no moment at which they would have nowhere to go
                (dead_exchange(prefix, pool), dead(prefix, pool), dead_arguments()),
                (exchange(prefix, pool), name, arguments(prefix, pool)),
            ):
                site.exchange(where, "direct")
                site.queue(waiting, wanted)
                site.bind(waiting, where, name)
        if "default" in pools:  # whose dead letters are theirs as well; what it hears, the trigger's rules say
            site.queue(triggers(prefix), triggers_arguments(prefix))
        return site.found


class _Site:
    """What is there, compared with what is wanted. A refusal closes its channel, so each question has its own."""

    def __init__(self, connection: Connection, dry_run: bool) -> None:
        self.connection, self.dry_run = connection, dry_run
        self.found: list[Difference] = []

    def exchange(self, name: str, kind: str) -> None:
        def declare(channel: Any, passive: bool) -> None:
            channel.exchange_declare(name, kind, passive=passive, durable=True, auto_delete=False)

        self._compare(name, "exchange", f"{kind}, durable", declare)

    def queue(self, name: str, wanted: dict[str, Any]) -> None:
        def declare(channel: Any, passive: bool) -> None:
            channel.queue_declare(
                name, passive=passive, durable=True, exclusive=False, auto_delete=False, arguments=wanted
            )

        self._compare(name, "queue", f"{wanted['x-queue-type']}, durable", declare)

    def bind(self, queue: str, exchange: str, key: str) -> None:
        missing = {each.name for each in self.found if each.state == "missing"}
        if not self.dry_run and not {queue, exchange} & missing:
            with self.connection.channel() as channel:
                channel.queue_bind(queue, exchange, key)

    def _compare(
        self, name: str, kind: Literal["exchange", "queue"], wanted: str, declare: Callable[[Any, bool], None]
    ) -> None:
        try:
            with self.connection.channel() as channel:
                declare(channel, True)
        except amqp.NotFound:
            if not self.dry_run:
                with self.connection.channel() as channel:
                    declare(channel, False)
            state: Literal["made", "missing"] = "missing" if self.dry_run else "made"
            self.found.append(Difference(name, kind, _NOT_THERE, wanted, state))
            return
        try:  # what is there already is not changed by this
            with self.connection.channel() as channel:
                declare(channel, False)
        except amqp.PreconditionFailed as error:
            what, now, should = _inequivalent(reason(error))
            remedy = "Empty it, delete it, and run `orca events setup` again: RabbitMQ cannot change it"
            found = Difference(name, kind, f"{what} {now}".strip(), f"{what} {should}".strip(), "differs", remedy)
            self.found.append(found)


def _inequivalent(reason: str) -> tuple[str, str, str]:
    """Which argument differs, what is there, and what was asked for, by the broker's own words."""
    what = re.search(r"inequivalent arg '([^']+)'", reason)
    asked = re.search(r"received (?:the value )?'?(.*?)'?(?: of type '\w+')? but current is", reason)
    there = re.search(r"but current is (?:the value )?'?(.*?)'?(?: of type '\w+')?$", reason)
    if not (what and asked and there):
        return "", reason, "something else"
    return what[1], there[1], asked[1]
