"""What ORCA tells others: a calibration or an image is ready, a night is done, something failed, there is an alarm.

Announcements go to the topic exchange ``<prefix>.events``; their routing key is the kind, and the subband after it:
``calibration.ready.73MHz``, or the condition of an alarm: ``alarm.raised.disk``. Whoever wants to hear of them binds a
queue to it, with a pattern such as ``calibration.ready.#``.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import amqp  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orca.alarms.alarm import condition_of
from orca.config import Config
from orca.errors import BrokerAwayError, InputError, MessageError, MissingDataError
from orca.events import names
from orca.events.broker import connect
from orca.events.journal import Request
from orca.events.refusals import translated
from orca.events.rules import AnnouncedRule
from orca.events.runs import run_key
from orca.recordings import recordings

PATIENCE_S = 3.0
"""A flow that is done does not wait longer for the broker."""


class Announcement(BaseModel):
    """Something that happened."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(
        default_factory=lambda: secrets.token_hex(12),
        pattern=r"^[A-Za-z0-9._:-]{1,64}$",
        description="Of this announcement alone.",
    )
    kind: str = Field(
        pattern=r"^([a-z_]+\.(ready|done|failed)|alarm\.(raised|cleared))$",
        description="calibration.ready, image.ready, night.done, a stage and .failed, alarm.raised, or alarm.cleared.",
    )
    time: datetime = Field(default_factory=lambda: datetime.now(UTC), description="When it was announced.")
    subband: str | None = Field(None, pattern=r"^\d{2}MHz$", description="If it is about one.")
    day: date | None = Field(None, description="Of the data, UTC; of a night the first.")
    last_day: date | None = Field(None, description="Of a night.")
    hour: int | None = Field(None, ge=0, le=23, description="Of the data, UTC; if they are of one.")
    paths: tuple[str, ...] = Field((), description="Products; of a failure, what they would have been made of.")
    text: str = Field("", max_length=10_000, description="For people: how good it is, or why it failed.")
    numbers: dict[str, int] = Field({}, description="Of a night: how many blocks were done, skipped and failed.")
    alarm: str | None = Field(
        None,
        pattern=r"^[a-z-]+(:.{1,400})?$",
        description="Which alarm; the same when it ends. It begins with its condition, such as disk:/fast.",
    )

    @property
    def routing_key(self) -> str:
        """The kind, and the condition of an alarm, or the subband if it is about one."""
        more = self.subband if self.alarm is None else condition_of(self.alarm)
        return self.kind if more is None else f"{self.kind}.{more}"

    @classmethod
    def decode(cls, body: bytes) -> Announcement:
        """One that was sent; raises MessageError for what is none."""
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            detail = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in detail["loc"])
            raise MessageError(f"is no announcement ({where + ': ' if where else ''}{detail['msg']})") from None


def schema() -> dict[str, Any]:
    """The JSON Schema of an announcement."""
    required = {"required": ["id", "kind", "time"]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Announcement.model_json_schema(), **required}


def schema_text() -> str:
    """The JSON Schema as docs/announcement.schema.json has it."""
    return json.dumps(schema(), indent=2) + "\n"


def announce(settings: Config, announcements: Sequence[Announcement], patience_s: float = PATIENCE_S) -> None:
    """Tell all who listen, all or nothing; it is no error if nobody does.

    Parameters
    ----------
    settings : Config
    announcements : sequence of Announcement
    patience_s : float
        After that the caller goes on, whatever the broker does.

    Raises
    ------
    InfrastructureError, RightsError, ConfigError
        The broker does not answer in time or refuses, or there is none.
    """
    taken: Future[None] = Future()

    def send() -> None:
        try:
            _send(settings, announcements, patience_s)
            taken.set_result(None)
        except BaseException as error:  # noqa: BLE001 - handed over to who waits
            taken.set_exception(error)

    # A name server, or a broker that takes the connection and then hangs, can hold up longer than any time-out of ours.
    Thread(target=send, daemon=True, name="announcing").start()
    try:
        taken.result(patience_s)
    except TimeoutError:
        remedy = "See that it runs (`orca status`)"
        raise BrokerAwayError(f"RabbitMQ has not answered within {patience_s:g} s", remedy=remedy) from None


def _send(settings: Config, announcements: Sequence[Announcement], patience_s: float) -> None:
    topic = names.events_exchange(settings.queue.prefix)
    with connect(settings, patience_s=patience_s) as connection, translated():
        channel = connection.channel()
        channel.tx_select()  # one answer for all, where confirms would be one each
        for each in announcements:
            message = amqp.Message(
                each.model_dump_json().encode(),
                content_type="application/json",
                delivery_mode=2,
                message_id=each.id,
                timestamp=int(each.time.timestamp()),
                type=each.kind,
                app_id="orca",
            )
            channel.basic_publish(message, topic, each.routing_key)
        channel.tx_commit()


def hour_request(rule: AnnouncedRule, told: Announcement, raw: Path) -> Request:
    """The flow run that an announcement about an hour asks for, with the recordings of that hour.

    Raises
    ------
    InputError
        The announcement does not name an hour.
    MissingDataError
        Nothing was recorded then, or it is gone.
    """
    if told.subband is None or told.day is None or told.hour is None:
        raise InputError(f"{told.kind} does not say of which subband and hour it is", remedy="See docs/events.md")
    start = datetime(told.day.year, told.day.month, told.day.day, told.hour, tzinfo=UTC)
    found = recordings(raw, told.subband, start, start + timedelta(seconds=3599))
    if not found:
        raise MissingDataError(f"nothing is left of {told.subband} {start:%Y-%m-%d %Hh}", raw, "Its raw data are gone")
    parameters = {**rule.parameters, rule.files: [str(each.path) for each in found[:: rule.every]]}
    key = run_key(rule.deployment, {"rule": rule.name, "announcement": told.id})
    return Request(key, rule.deployment, json.loads(json.dumps(parameters)), (told.subband, f"{start:%Y-%m-%d}"))


__all__ = ["Announcement", "announce", "hour_request", "schema", "schema_text"]
