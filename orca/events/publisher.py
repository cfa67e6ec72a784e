"""Sending messages: each is kept by the broker before we say so, or waits on this machine's disk.

A message may arrive twice, if the connection is lost between the broker's taking it and its saying so. It has the same
id then.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum
from types import TracebackType
from typing import Any, TypeVar

import amqp  # type: ignore[import-untyped]
from amqp.exceptions import MessageNacked  # type: ignore[import-untyped]

from orca.cluster.pools import POOLS
from orca.config import Config
from orca.errors import BrokerAwayError, InfrastructureError, InputError, MessageError, OrcaError
from orca.events.broker import PATIENCE_S, connect
from orca.events.message import Message
from orca.events.names import queue
from orca.events.refusals import SETUP, translated
from orca.events.spool import Kept, Spool

Value = TypeVar("Value")

CONFIRM_S = 30.0
"""How long the broker may take to have a message on its disk."""
PAUSE_S = 5.0
"""Between two tries to reach a broker that is away."""


class Sent(StrEnum):
    """What became of a message."""

    CONFIRMED = "confirmed"
    """The broker has it on its disk."""
    SPOOLED = "spooled"
    """It waits on ours."""


class Publisher:
    """Sends messages to the pools' queues; a context manager that connects when there is something to send.

    Parameters
    ----------
    settings : Config
    patience_s : float
        For a connection.

    Attributes
    ----------
    spool : Spool
    away : str
        Why the last message was spooled; empty while the broker is there.
    refused : dict of OrcaError
        By queue, why what waits for it could not be sent at the last `flush`.
    """

    def __init__(self, settings: Config, *, patience_s: float = PATIENCE_S) -> None:
        self.settings, self.patience_s = settings, patience_s
        self.spool = Spool(settings.paths.spool)
        self.away = ""
        self.refused: dict[str, OrcaError] = {}
        self._line: _Line | None = None
        self._try_again = 0.0
        self._why_away: tuple[str, str | None] = ("", None)

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hang_up()

    def publish(self, message: Message, pool: str) -> Sent:
        """Send a message, after all that waits in the spool; keep it there while the broker is away.

        Parameters
        ----------
        message : Message
        pool : str
            One of `orca.cluster.pools.POOLS`.

        Returns
        -------
        Sent

        Raises
        ------
        InputError
            There is no such pool, or the message is too large.
        ConfigError
            There is no broker to send it to.
        RightsError, InfrastructureError
            The broker refuses it: a right is missing, the queue is, or it is full. The message was not sent, and is not
            kept.
        StorageError
            The broker is away, and the message cannot be kept.
        """
        if pool not in POOLS:
            raise InputError(f"there is no pool {pool}", remedy=f"Use {', '.join(POOLS)}")
        message.encode()  # too large: before anything else
        name = queue(self.settings.queue.prefix, pool)
        try:
            self._with_line(lambda: self._publish(name, message))
        except BrokerAwayError as error:
            self.away = str(error)
            self.spool.keep(name, message)
            return Sent.SPOOLED
        self.away = ""
        return Sent.CONFIRMED

    def flush(self) -> int:
        """Send what waits in the spool, in order; returns how many messages the broker has taken.

        A file that holds no message is set aside. What one queue refuses does not hold up the others: see `refused`.

        Raises
        ------
        BrokerAwayError
            What is left waits on.
        ConfigError, RightsError, InfrastructureError
            As `orca.events.broker.connect` has it.
        StorageError
            The spool cannot be read or written.
        """
        return self._with_line(self._flush) if self.spool.waiting() else 0

    def _publish(self, name: str, message: Message) -> None:
        if self.spool.waiting():
            self._flush()
            if name in self.refused:  # it must not overtake what was refused
                raise self.refused[name]
        self._connected().send(name, message)

    def _flush(self) -> int:
        sent, self.refused = 0, {}
        line = self._connected()
        with self.spool.sending():
            done: set[Kept] = set()
            while fresh := [kept for kept in self.spool.waiting() if kept not in done]:
                for kept in fresh:
                    done.add(kept)
                    if kept.queue in self.refused:
                        continue
                    try:
                        line.send(kept.queue, kept.read())
                    except FileNotFoundError:
                        continue
                    except MessageError as error:
                        self.spool.set_aside(kept, error)
                        continue
                    except BrokerAwayError:
                        raise
                    except OrcaError as error:
                        self.refused[kept.queue] = error
                        continue
                    self.spool.sent(kept)
                    sent += 1
        return sent

    def _with_line(self, work: Callable[[], Value]) -> Value:
        """Do something on the connection; on a new one when the old one turns out to be lost."""
        used = self._line is not None
        try:
            return work()
        except BrokerAwayError:
            self._hang_up()
            if not used:
                raise
        try:
            return work()
        except BrokerAwayError:
            self._hang_up()
            raise

    def _connected(self) -> _Line:
        if self._line is None:
            if time.monotonic() < self._try_again:
                problem, remedy = self._why_away
                raise BrokerAwayError(problem, remedy=remedy)
            try:
                self._line = _Line(self.settings, self.patience_s)
            except BrokerAwayError as error:
                self._try_again, self._why_away = time.monotonic() + PAUSE_S, (error.problem, error.remedy)
                raise
        return self._line

    def _hang_up(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()


class _Line:
    """A connection on which each message is confirmed."""

    def __init__(self, settings: Config, patience_s: float) -> None:
        self._context = connect(settings, patience_s=patience_s, confirm=True)
        self._connection = self._context.__enter__()
        self._channel: Any = None
        self._returned: list[str] = []

    def close(self) -> None:
        self._context.__exit__(None, None, None)

    def send(self, name: str, message: Message) -> None:
        """Publish to the queue of a name, and wait until it has the message."""
        self._returned.clear()
        try:
            with translated():
                self._open_channel().basic_publish(
                    amqp.Message(
                        message.encode(),
                        content_type="application/json",
                        content_encoding="utf-8",
                        delivery_mode=2,  # persistent
                        message_id=message.id,
                        timestamp=int(time.time()),
                        type="run" if message.run else "recorded",
                        app_id="orca",
                    ),
                    exchange=name,
                    routing_key=name,
                    mandatory=True,
                    confirm_timeout=CONFIRM_S,
                )
        except MessageNacked as error:
            remedy = "See why nobody takes from it (`orca status`), or raise its limit"
            raise InfrastructureError(
                f"queue {name} is full: RabbitMQ has refused the message", remedy=remedy
            ) from error
        if self._returned:
            raise InfrastructureError(f"exchange {name} of RabbitMQ leads to no queue", remedy=SETUP)

    def _open_channel(self) -> Any:
        """A refusal closes a channel."""
        if self._channel is None or not self._channel.is_open:
            self._channel = self._connection.channel()
            self._channel.events["basic_return"].add(lambda error, *_: self._returned.append(str(error)))
        return self._channel
