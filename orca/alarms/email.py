"""Who gets alarms by mail."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

_ADDRESS = r"^[^\s@<>,]+@[^\s@<>,]+$"


class Email(BaseModel):
    """Addresses, and the server that takes mail for them without a password."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, populate_by_name=True, serialize_by_alias=True
    )

    to: tuple[str, ...] = Field(min_length=1, description="Who gets it")
    sender: str = Field(alias="from", pattern=_ADDRESS, description="Whom it is from")
    host: str = Field(default="localhost", min_length=1, description="Mail server")
    port: int = Field(default=25, ge=1, le=65535, description="Its port")

    WANTED: ClassVar[dict[str, str]] = {
        "to": "a list of addresses such as observer@example.org",
        "from": "an address such as orca@example.org",
        "host": "the name of a mail server",
        "port": "a port from 1 to 65535",
    }

    @field_validator("to")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(len(each.split("@")) == 2 and not set(each) & set(" \t\r\n<>,") for each in value):
            raise ValueError("not all are addresses")
        return value
