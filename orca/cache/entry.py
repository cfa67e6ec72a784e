"""A spectrum as it lies in the cache: its key, and a value that says itself what it is.

Key and value are laid out in docs/cache.md. Nothing is pickled: whatever somebody else writes into the cache can only
be refused.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orca.errors import InputError, InvalidDataError
from orca.telescope import SUBBANDS, subband

MAGIC = b"ORCASPEC"
LAYOUT = 1
"""Number of the layout; a reader refuses another one."""
NAME = re.compile(r"\w[\w&+-]*", re.ASCII)
"""Of spectra: also that of a folder."""
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_KEY = re.compile(r"(?P<kind>\w[\w&+-]*):(?P<time>\d{10}\.\d{3}):(?P<subband>\d+MHz)", re.ASCII)
_TEXTS = ("kind", "subband", "correlations", "unit", "version", "made_from", "options")
_HEADER = struct.Struct("<8sHHI3dIH2s7H2x")
"""Magic, layout, offset of the samples, CRC-32 of what follows it; time, frequency and width; channels, correlations,
type of the samples; lengths of the texts behind it."""
_CHECKED_FROM = 16
_TYPE = b"f4"
_SUBBANDS = frozenset(band.name for band in SUBBANDS)


@dataclass(frozen=True, slots=True)
class Label:
    """What a key says.

    Attributes
    ----------
    kind : str
        Name of the spectrum, such as ``cross``.
    time_s : float
        Centre of the integration, MJD seconds UTC, to the millisecond.
    subband : str
    """

    kind: str
    time_s: float
    subband: str


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One spectrum of one integration and subband.

    Attributes
    ----------
    kind : str
        Name of the spectrum, such as ``cross`` or ``LWA128&LWA160``.
    subband : str
        Such as ``73MHz``.
    time_s : float
        Centre of the integration, MJD seconds UTC.
    values : (n_channels, n_correlations) float32
        NaN where nothing is left.
    first_hz, width_hz : float
        Centre of the first channel, and from one channel to the next.
    correlations : tuple of str
        What the columns are.
    unit : str
    version : str
        Of the software that made it.
    made_from : str
        Path of the Measurement Set.
    options : str
        `digest` of how it was made: spectra of other options are not mixed with it.
    """

    kind: str
    subband: str
    time_s: float
    values: NDArray[np.float32]
    first_hz: float
    width_hz: float
    correlations: tuple[str, ...] = ("XX", "XY", "YX", "YY")
    unit: str = ""
    version: str = ""
    made_from: str = ""
    options: str = ""

    @property
    def freq_hz(self) -> NDArray[np.float64]:
        """Centres of its channels, shape (n_channels,)."""
        return np.asarray(self.first_hz + self.width_hz * np.arange(len(self.values)), np.float64)


def digest(options: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that tell options apart; equal for equal JSON."""
    return hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode()).hexdigest()[:16]


def keys_begin(prefix: str, kind: str | None = None) -> str:
    """What all keys of a user begin with, or those of one kind.

    Raises
    ------
    InputError
        Prefix or kind has characters that would separate, or stand for, others.
    """
    if not _PREFIX.fullmatch(prefix):
        raise InputError(f"{prefix!r} is no prefix", remedy="Use letters, digits, dot, dash and underscore")
    if kind is not None and not NAME.fullmatch(kind):
        raise InputError(f"{kind!r} is no name of a spectrum", remedy="Use letters, digits, &, +, - and _")
    return f"{prefix}:spectrum:" + ("" if kind is None else f"{kind}:")


def key_of(prefix: str, entry: Entry | Label) -> str:
    """Where an entry is kept. Keys of one kind sort by time, then by the name of the subband."""
    if not 0 <= entry.time_s < 9e9:
        raise InputError(f"{entry.time_s!r} is no time", remedy="Give MJD seconds in UTC")
    band = entry.subband if entry.subband in _SUBBANDS else subband(entry.subband).name
    return f"{keys_begin(prefix, entry.kind)}{entry.time_s:014.3f}:{band}"


def belongs(prefix: str, key: str, entry: Entry) -> bool:
    """Whether a key is that of an entry, which may say anything."""
    return key == f"{prefix}:spectrum:{entry.kind}:{entry.time_s:014.3f}:{entry.subband}"


def label_of(prefix: str, key: str) -> Label | None:
    """What a key says; None for one that is not this user's, or none of ours."""
    begin = f"{prefix}:spectrum:"
    found = _KEY.fullmatch(key, len(begin)) if key.startswith(begin) else None
    return None if found is None else Label(found["kind"], float(found["time"]), found["subband"])


def encode(entry: Entry) -> bytes:
    """The value that is kept.

    Raises
    ------
    InputError
        The values are not (channels, correlations), numbers are not finite, or a text is too long.
    """
    values = np.ascontiguousarray(entry.values, "<f4")
    if values.ndim != 2 or not values.size or values.shape[1] != len(entry.correlations):
        wanted = f"(channels, {len(entry.correlations)})"
        raise InputError(f"the spectrum {entry.kind} has the shape {values.shape}", remedy=f"It needs to be {wanted}")
    numbers = (entry.time_s, entry.first_hz, entry.width_hz)
    if not all(map(math.isfinite, numbers)):
        raise InputError(f"time and frequencies of the spectrum {entry.kind} are not all finite")
    texts = [_text(entry, name).encode() for name in _TEXTS]
    if max(map(len, texts)) > 4096:
        raise InputError(f"a text of the spectrum {entry.kind} is longer than 4096 bytes")
    start = -(-(_HEADER.size + sum(map(len, texts))) // 8) * 8  # samples are aligned
    lengths = map(len, texts)
    head = _HEADER.pack(MAGIC, LAYOUT, start, 0, *numbers, *values.shape, _TYPE, *lengths)
    value = bytearray((head + b"".join(texts)).ljust(start, b"\0"))
    value += values.tobytes()
    struct.pack_into("<I", value, 12, zlib.crc32(memoryview(value)[_CHECKED_FROM:]))
    return bytes(value)


def decode(value: bytes) -> Entry:
    """Inverse of `encode`; `values` are read-only.

    Raises
    ------
    InvalidDataError
        It is something else, of another layout, or broken.
    """
    if len(value) < _HEADER.size or not value.startswith(MAGIC):
        raise InvalidDataError("is no spectrum of ours")
    _, layout, start, checksum, time_s, first_hz, width_hz, channels, columns, kind, *lengths = _HEADER.unpack_from(
        value
    )
    if layout != LAYOUT or kind != _TYPE:
        raise InvalidDataError(f"is a spectrum in layout {layout}, which this version does not read")
    if len(value) != start + 4 * channels * columns or _HEADER.size + sum(lengths) > start:
        raise InvalidDataError("is a spectrum that was cut off")
    if zlib.crc32(memoryview(value)[_CHECKED_FROM:]) != checksum:
        raise InvalidDataError("is a spectrum whose checksum is wrong")
    values = np.frombuffer(value, "<f4", channels * columns, start).reshape(channels, columns)
    texts, begin = [], _HEADER.size
    for length in lengths:
        texts.append(value[begin : begin + length].decode())
        begin += length
    name, band, correlations, unit, version, made_from, options = texts
    labels = tuple(correlations.split(","))
    return Entry(name, band, time_s, values, first_hz, width_hz, labels, unit, version, made_from, options)


def _text(entry: Entry, name: str) -> str:
    return ",".join(entry.correlations) if name == "correlations" else str(getattr(entry, name))
