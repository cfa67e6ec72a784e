"""What RabbitMQ refuses, in words that say what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import amqp  # type: ignore[import-untyped]
from kombu.exceptions import OperationalError

from orca.config.secret import mask
from orca.errors import BrokerAwayError, InfrastructureError, OrcaError, RightsError

SETUP = "Run `orca events setup`"
_METHODS = {"declare": "configure", "delete": "configure", "publish": "write", "get": "read", "consume": "read"}
_METHODS |= {"purge": "read"}


@contextmanager
def translated() -> Iterator[None]:
    """Turn what the broker says to what is asked of it inside this context into errors that say what to do.

    Raises
    ------
    RightsError
        The user has not the right to do that; named are the right and what it is missing for.
    BrokerAwayError
        The connection is lost.
    InfrastructureError
        There is no such exchange or queue, or it differs from what is expected; or anything else that it refuses.
    """
    try:
        yield
    except (amqp.AMQPError, OperationalError, OSError) as error:
        raise explained(error) from error


def explained(error: BaseException) -> OrcaError:
    """An error of the broker's or of the connection to it as one of ours; see `translated`."""
    if isinstance(error, amqp.AccessRefused):
        return _missing_right(error)
    if isinstance(error, amqp.NotFound):
        return InfrastructureError(f"RabbitMQ has {reason(error)}", remedy=SETUP)
    if isinstance(error, amqp.PreconditionFailed):
        remedy = "`orca events setup --dry-run` says what differs"
        return InfrastructureError(f"RabbitMQ has something else there: {reason(error)}", remedy=remedy)
    if isinstance(error, amqp.ChannelError):
        return InfrastructureError(f"RabbitMQ refuses: {reason(error)}")
    return BrokerAwayError(f"the connection to RabbitMQ is lost ({reason(error)})", remedy="See that it runs")


def _missing_right(error: amqp.AccessRefused) -> RightsError:
    """RabbitMQ 3.10 says on what and for whom, not which right; that follows from what was asked for."""
    text = reason(error)
    found = re.search(r"access to (\w+) '([^']*)' in vhost '([^']*)' refused for user '([^']*)'", text)
    if found is None:
        return RightsError(f"RabbitMQ refuses: {text}")
    kind, name, host, user = found.groups()
    right = _right(str(getattr(error, "method_name", "")), kind, text)
    problem = f"user {user} of RabbitMQ has not the right to {right} {kind} {name} (vhost {host})"
    return RightsError(problem, remedy=f"Have somebody give it: the user's pattern of {right} has to match {name}")


def _right(method: str, kind: str, text: str) -> str:
    if said := re.search(r"\b(configure|write|read) access", text):
        return said[1]
    verb = method.lower().rpartition(".")[2].rpartition("_")[2]
    if verb in ("bind", "unbind"):
        return "write" if kind == "queue" else "read"
    if verb == "declare" and method.lower().startswith("queue"):  # of one whose dead letters go to an exchange
        return "configure and read" if kind == "queue" else "write"
    return _METHODS.get(verb, "use")


def reason(error: BaseException) -> str:
    """What the broker or the socket said, without codes and without passwords."""
    text = str(getattr(error, "reply_text", None) or error).strip() or type(error).__name__
    return mask(re.sub(r"^[A-Z_]+ - ", "", text.splitlines()[0]))
