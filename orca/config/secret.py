"""Addresses with a password in them, and text that may quote one: neither is ever shown in full."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic_core import core_schema

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler

MASK = "***"
# Up to the last @, since a password that was not percent-encoded may hold any character.
# <password> waits to be filled in: there is nothing to hide.
_USER_INFO = re.compile(r"(://[^\s:]*:)(?!<[\w -]+>@[^@\s]*(?:\s|$))(\S*)(?=@)")
_USER_INFO_ALONE = re.compile(r"(://[^:]*:)(?!<[\w -]+>@[^@]*$)(.*)(?=@)", re.DOTALL)
_QUERY = re.compile(r"([?&](?:password|passwd|token|secret)=)([^&\s]*)", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"<[A-Za-z][\w -]*>")


def mask(text: str) -> str:
    """Replace the password of every address in a text: ``pyamqp://user:***@host/vhost``.

    Parameters
    ----------
    text : str
        Any text: an address, a message, a traceback.

    Returns
    -------
    str
        The text with `MASK` for each password in an address.
    """
    return _QUERY.sub(rf"\1{MASK}", _USER_INFO.sub(rf"\1{MASK}", text))


class SecretUri:
    """An address that shows no password, however it is printed.

    ``str``, ``repr``, formatting and pydantic's JSON are masked; `reveal` is the one way to the whole.
    A pickle holds the whole, since a worker needs it.

    Parameters
    ----------
    uri : str
        The address.
    """

    __slots__ = ("_uri",)

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def reveal(self) -> str:
        """Return the whole address, for the library that connects to it and nothing else."""
        return self._uri

    @property
    def scheme(self) -> str:
        """The part before ``://``, in lower case."""
        return self._uri.partition("://")[0].lower()

    @property
    def placeholders(self) -> tuple[str, ...]:
        """Parts that still wait to be filled in, such as ``<username>``."""
        return tuple(_PLACEHOLDER.findall(self._uri))

    @property
    def has_password(self) -> bool:
        """True with a password that is more than a placeholder."""
        passwords = [found[2] for pattern in (_USER_INFO_ALONE, _QUERY) for found in pattern.finditer(self._uri)]
        return any(password and not _PLACEHOLDER.fullmatch(password) for password in passwords)

    def __str__(self) -> str:
        return mask(_USER_INFO_ALONE.sub(rf"\1{MASK}", self._uri))

    def __repr__(self) -> str:
        return f"SecretUri({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretUri) and self._uri == other._uri

    def __hash__(self) -> int:
        return hash(self._uri)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Take what a field's own validator made of the text; write it masked."""
        return core_schema.is_instance_schema(
            cls, serialization=core_schema.plain_serializer_function_ser_schema(str, when_used="json")
        )


def parse_uri(text: str, schemes: tuple[str, ...], example: str) -> SecretUri:
    """Make a `SecretUri` of an address that somebody could connect to.

    Parameters
    ----------
    text : str
        The address. Placeholders (``<username>``) are left for `SecretUri.placeholders` to find.
    schemes : tuple of str
        What may stand before ``://``.
    example : str
        An address as it should be, for the message.

    Returns
    -------
    SecretUri

    Raises
    ------
    ValueError
        When it is none. The message does not quote the address.
    """
    sample = _PLACEHOLDER.sub("1", text)
    try:
        parts = urlsplit(sample)
        valid = bool(parts.hostname) and parts.scheme.lower() in schemes and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number, brackets that do not close
        valid = False
    if not valid or re.search(r"\s", sample) or "@" in parts.path + parts.query + parts.fragment:
        hint = "; in a password, / @ : # ? % are written %2F %40 %3A %23 %3F %25" if "@" in text else ""
        raise ValueError(f"expected an address like {example}{hint}")
    return SecretUri(text)
