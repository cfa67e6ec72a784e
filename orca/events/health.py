"""Whether the broker is well, as `orca status` asks, and how full its queues are."""

from __future__ import annotations

from collections.abc import Sequence

import amqp  # type: ignore[import-untyped]
from kombu import Connection

from orca.cluster.machine.questions import PATIENCE_S, Answer, silent
from orca.config import Config, SecretUri
from orca.errors import OrcaError
from orca.events.broker import connect
from orca.events.refusals import translated


def ask_broker(settings: Config, uri: SecretUri, queues: Sequence[str] = ()) -> Answer:
    """Log in to RabbitMQ, and ask how many messages wait in some queues.

    Parameters
    ----------
    settings : Config
    uri : SecretUri
        Of RabbitMQ: asked is this one, whatever the settings say.
    queues : sequence of str

    Returns
    -------
    Answer
        With the fact ``queues``: name -> messages that wait; None: not declared.
    """
    queue = settings.queue.model_copy(update={"broker_uri": uri})
    try:
        with connect(settings.model_copy(update={"queue": queue}), patience_s=PATIENCE_S) as connection, translated():
            found = {name: waiting(connection, name) for name in queues}
            version = str(connection.connection.server_properties.get("version", ""))
            return Answer(True, version, facts={"queues": {name: state and state[0] for name, state in found.items()}})
    except OrcaError as error:
        return silent(error.__cause__ or error)


def waiting(connection: Connection, queue: str) -> tuple[int, int] | None:
    """How many messages wait in a queue, and how many consumers it has; None where there is no such queue."""
    try:
        with connection.channel() as channel:
            told = channel.queue_declare(queue, passive=True)
            return told.message_count, told.consumer_count
    except amqp.NotFound:
        return None
