"""What a message says: a deployment to be run with some parameters, or a file that was recorded.

Whoever may publish may write anything, so nothing of a message is believed before it is a `Message`: sizes, depths and
names have bounds, unknown keys are refused, and what is wrong with it is told without quoting it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from orca.errors import InputError, MessageError
from orca.events.fields import (
    LARGEST,
    MAX_DEPTH,
    MAX_VALUES,
    AbsolutePath,
    DeploymentName,
    FlowName,
    Id,
    Moment,
    Parameters,
    printable,
)

MAX_BYTES = 1_000_000
"""Of a message as it is sent."""
MAX_ATTEMPTS = 1000


def _new_id() -> str:
    """One that nobody else makes; those made later come later in the alphabet."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{secrets.token_hex(4)}"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)


def _one_of(*names: str, required: tuple[str, ...] = ()) -> ConfigDict:
    """Have the JSON Schema say that exactly one of some keys is there and is not null; and others, too."""
    there: Any = [{"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in names]
    return ConfigDict(json_schema_extra={"required": [*required], "oneOf": there})


class Run(_Part):
    """A deployment to be run."""

    model_config = _one_of("flow", "deployment")

    flow: FlowName | None = Field(None, description="imaging is short for the deployment imaging/imaging.")
    deployment: DeploymentName | None = Field(None, description="Flow and name, as the file of deployments has them.")
    parameters: Parameters = Field(
        default_factory=dict, description="Of the flow; those that are not given keep their defaults."
    )

    @model_validator(mode="after")
    def _one(self) -> Run:
        if (self.flow is None) == (self.deployment is None):
            raise ValueError("expected one of flow and deployment")
        return self

    @property
    def full_name(self) -> str:
        """The deployment, as flow/name."""
        return self.deployment or f"{self.flow}/{self.flow}"


class Recorded(_Part):
    """A file, or the folder of a Measurement Set, that was closed."""

    path: AbsolutePath = Field(description="Where it is, the same on every host.")
    size: int = Field(ge=0, le=LARGEST, description="Bytes; of a folder those of all files in it.")
    time: Moment = Field(description="When it was closed.")


class Message(_Part):
    """A message in one of ORCA's queues."""

    model_config = _one_of("run", "recorded", required=("id",))

    id: Id = Field(default_factory=_new_id)
    attempt: int = Field(1, ge=1, le=MAX_ATTEMPTS, description="Raised when a dead letter is sent again.")
    run: Run | None = None
    recorded: Recorded | None = None

    @model_validator(mode="after")
    def _one(self) -> Message:
        if (self.run is None) == (self.recorded is None):
            raise ValueError("expected one of run and recorded")
        return self

    @property
    def subject(self) -> str:
        """What it is about, in a word."""
        return self.run.full_name if self.run else self.recorded.path if self.recorded else ""

    def encode(self) -> bytes:
        """The message as it is sent.

        Raises
        ------
        InputError
            It is larger than `MAX_BYTES`.
        """
        body = self.model_dump_json(exclude_none=True).encode()
        if len(body) > MAX_BYTES:
            remedy = "Send several, each with a part of it"
            raise InputError(f"a message of {len(body)} bytes is too large: {MAX_BYTES} at most", remedy=remedy)
        return body

    @classmethod
    def decode(cls, body: bytes, max_bytes: int = MAX_BYTES) -> Message:
        """The message that was sent.

        Raises
        ------
        MessageError
            It is too large, no UTF-8, no JSON, or not what a message has to be, such as without an id. The reason is
            short, and does not quote what was sent.
        """
        if len(body) > max_bytes:
            raise MessageError(f"is too large: {len(body)} bytes, {max_bytes} at most")
        try:
            values = json.loads(body.decode(), parse_constant=_no_number, object_pairs_hook=_once)
            message = cls.model_validate(values)
        except UnicodeDecodeError:
            raise MessageError("is no UTF-8") from None
        except ValidationError as error:
            raise MessageError(_told(error)) from None
        except RecursionError:
            raise MessageError("has too many levels") from None
        except json.JSONDecodeError as error:
            raise MessageError(f"is no JSON ({error.msg} at character {error.pos})") from None
        except ValueError as error:
            raise MessageError(f"is no JSON ({printable(str(error))})") from None
        if "id" not in message.model_fields_set:  # a new one each time it is read would have it run each time
            raise MessageError("id: is missing")
        return message


def run_message(target: str, parameters: dict[str, Any] | None = None, **more: Any) -> Message:
    """A message that has something run.

    Parameters
    ----------
    target : str
        A deployment as flow/name, or a flow whose deployment has its name.
    parameters : dict, optional
        Of the flow; what JSON has.
    **more
        ``id`` and ``attempt``.

    Raises
    ------
    InputError
        These make no message.
    """
    kind = "deployment" if "/" in target else "flow"
    return _made(run={kind: target, "parameters": parameters or {}}, **more)


def recorded_message(path: str, size: int, time: datetime, **more: Any) -> Message:
    """A message that tells of a file that was recorded; see `run_message`."""
    return _made(recorded={"path": path, "size": size, "time": time}, **more)


def schema() -> dict[str, Any]:
    """The JSON Schema of a message."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Message.model_json_schema(),
        "$comment": f"At most {MAX_BYTES} bytes; parameters at most {MAX_DEPTH} levels deep with {MAX_VALUES} values. "
        "Written by: orca events schema",
    }


def schema_text() -> str:
    """The JSON Schema as docs/message.schema.json has it."""
    return json.dumps(schema(), indent=2) + "\n"


def _made(**values: Any) -> Message:
    try:
        return Message(**values)
    except ValidationError as error:
        raise InputError(f"that makes no message: {_told(error)}") from None


def _told(error: ValidationError) -> str:
    """The first few things that are wrong, without what was given."""
    faults = error.errors(include_url=False, include_input=False)
    told = [_fault(fault["loc"], fault["msg"].removeprefix("Value error, ")) for fault in faults[:3]]
    return "; ".join(told) + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")


def _fault(place: Iterable[int | str], text: str) -> str:
    where = printable(".".join(map(str, place)))
    return f"{where}: {text}" if where else text


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands there twice")
    return found
