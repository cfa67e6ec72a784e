"""The fields of a message: types, bounds, and what is wrong with a value, told without quoting it."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

MAX_DEPTH = 8
"""Of lists and objects inside each other in a parameter."""
MAX_VALUES = 20_000
"""In all parameters together."""
MAX_PARAMETERS = 100

LARGEST = 2**63 - 1
_SHOWN = 60
_NAME = r"[A-Za-z0-9_-]{1,100}"
_PARAMETER = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


def _unicode(text: str) -> str:
    """Refuse halves of characters, which JSON can hold and nothing can write."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("expected whole characters")
    return text


def _absolute(text: str) -> str:
    path = PurePosixPath(_unicode(text))
    if not text.startswith("/") or ".." in path.parts or not text.isprintable():
        raise ValueError("expected an absolute path without '..' and control characters")
    return str(path)


def _moment(value: Any) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("expected a time like 2026-01-10T20:31:53Z") from None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError("expected a time with its zone, like 2026-01-10T20:31:53Z")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("expected a time that is in the calendar") from None


def _plain(parameters: dict[str, Any]) -> dict[str, Any]:
    """Refuse what is no JSON, and what is too deep or too much of it."""
    if wrong := [name for name in parameters if not _PARAMETER.fullmatch(name)]:
        raise ValueError(f"{printable(wrong[0])!r} is no name of a parameter")
    count = 0
    pending = [(value, 1) for value in parameters.values()]
    while pending:
        value, depth = pending.pop()
        count += 1
        if count > MAX_VALUES:
            raise ValueError(f"expected at most {MAX_VALUES} values")
        inner = _inside(value)
        if inner and depth == MAX_DEPTH:
            raise ValueError(f"expected at most {MAX_DEPTH} levels")
        pending += ((item, depth + 1) for item in inner)
    return parameters


def _inside(value: Any) -> list[Any]:
    """What is in a list or an object, its keys as well; nothing for a scalar."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("expected text as keys")
        return [*value, *value.values()]
    if isinstance(value, str):
        _unicode(value)
    elif isinstance(value, int):
        if abs(value) > LARGEST:
            raise ValueError("expected whole numbers of 64 bits")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("expected finite numbers")
    elif value is not None:
        raise ValueError(f"expected what JSON has, found {type(value).__name__}")
    return []


Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$", description="Who sends it twice means it once.")]
FlowName = Annotated[str, Field(pattern=rf"^{_NAME}$")]
DeploymentName = Annotated[str, Field(pattern=rf"^{_NAME}/{_NAME}$")]
Parameters = Annotated[dict[str, Any], Field(max_length=MAX_PARAMETERS), AfterValidator(_plain)]
AbsolutePath = Annotated[str, Field(pattern="^/", max_length=4096), AfterValidator(_absolute)]
Moment = Annotated[
    datetime,
    BeforeValidator(_moment, json_schema_input_type=Annotated[str, Field(json_schema_extra={"format": "date-time"})]),
]


def printable(text: str) -> str:
    """The beginning of what somebody wrote, fit to be shown."""
    clean = "".join(character if character.isprintable() else "?" for character in text)
    return clean if len(clean) <= _SHOWN else f"{clean[:_SHOWN]}..."
