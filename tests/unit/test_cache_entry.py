"""Spectra as bytes: nothing is lost, and nothing is taken for a spectrum that is none."""

from __future__ import annotations

import pickle
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orca.cache.entry import Entry, decode, digest, encode, key_of, label_of
from orca.errors import InputError, InvalidDataError

VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)


def an_entry(**changes) -> Entry:
    made = Entry(
        "LWA128&LWA160", "73MHz", 5274799200.0154, VALUES, 73.1e6, 23925.78125, unit="Jy", version="0.1.0",
        made_from="/data/Ä.ms", options=digest({"calibrate": "none"}),
    )  # fmt: skip
    return replace(made, **changes)


def same(one: Entry, other: Entry) -> bool:
    texts = all(getattr(one, name) == getattr(other, name) for name in Entry.__dataclass_fields__ if name != "values")
    return texts and np.array_equal(one.values, other.values, equal_nan=True)


@given(
    st.integers(1, 192),
    st.lists(st.sampled_from(["XX", "XY", "YX", "YY", "I", "V"]), min_size=1, max_size=4).map(tuple),
    st.floats(0, 8e9),
    st.text(st.characters(codec="utf-8"), max_size=60),
)
def test_a_spectrum_comes_back_as_it_was(
    channels: int, correlations: tuple[str, ...], time_s: float, text: str
) -> None:
    values = np.linspace(-1, 1, channels * len(correlations), dtype=np.float32).reshape(channels, -1)
    values[0, 0] = np.nan
    entry = an_entry(values=values, correlations=correlations, time_s=time_s, unit=text, made_from=text, options=text)
    found = decode(encode(entry))
    assert same(found, entry)
    assert found.values.dtype == np.float32
    assert found.freq_hz[-1] == pytest.approx(73.1e6 + (channels - 1) * 23925.78125)


def test_every_broken_byte_is_seen() -> None:
    value = encode(an_entry())
    for place in range(len(value)):
        broken = bytearray(value)
        broken[place] ^= 0x40
        with pytest.raises(InvalidDataError):
            decode(bytes(broken))
    for length in range(len(value)):
        with pytest.raises(InvalidDataError):
            decode(value[:length])


@pytest.mark.parametrize("value", [b"", b"ORCASPEC", b"x" * 500, pickle.dumps(VALUES), b"ORCASPEC" + b"\xff" * 500])
def test_what_others_wrote_is_no_spectrum(value: bytes) -> None:
    with pytest.raises(InvalidDataError):
        decode(value)


def test_another_layout_is_refused_and_named() -> None:
    value = bytearray(encode(an_entry()))
    struct.pack_into("<H", value, 8, 7)
    with pytest.raises(InvalidDataError, match="layout 7"):
        decode(bytes(value))


def test_a_full_spectrum_fits_into_what_redis_sets_aside_for_its_samples() -> None:
    values = np.ones((192, 4), np.float32)
    path = "/lustre/pipeline/slow/73MHz/2026-01-10/18/20260110_180000_73MHz.ms"
    assert len(encode(an_entry(values=values, made_from=path))) < 3584 - 64


def test_keys_begin_with_user_and_kind_and_sort_by_time() -> None:
    times = [999.5, 5274799200.0154, 5274799210.0465]
    keys = [key_of("anna", an_entry(time_s=time_s)) for time_s in times]
    assert keys == sorted(keys)
    assert keys[1] == "anna:spectrum:LWA128&LWA160:5274799200.015:73MHz"
    label = label_of("anna", keys[1])
    assert label is not None
    assert (label.kind, label.time_s, label.subband) == ("LWA128&LWA160", 5274799200.015, "73MHz")


@pytest.mark.parametrize(
    "key", ["anna2:spectrum:cross:5274799200.015:73MHz", "anna:spectrum:cross:x:73MHz", "anna", ""]
)
def test_a_key_of_somebody_else_says_nothing(key: str) -> None:
    assert label_of("anna", key) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "a:b"},
        {"kind": "a*"},
        {"kind": ""},
        {"subband": "74MHz"},
        {"time_s": -1.0},
        {"time_s": 1e11},
        {"values": VALUES[:, :3]},
        {"values": VALUES[:0]},
        {"first_hz": float("nan")},
        {"made_from": "x" * 5000},
    ],
)
def test_what_cannot_be_kept_is_refused(changes: dict) -> None:
    def keep(entry: Entry) -> tuple[str, bytes]:
        return key_of("anna", entry), encode(entry)

    with pytest.raises(InputError):
        keep(an_entry(**changes))


@pytest.mark.parametrize("prefix", ["", "a:b", "a*", "[a]", "-a"])
def test_a_prefix_that_would_stand_for_others_is_refused(prefix: str) -> None:
    with pytest.raises(InputError):
        key_of(prefix, an_entry())


def test_options_are_told_apart_and_their_order_does_not_count() -> None:
    assert digest({"a": 1, "b": (1, 2)}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
