"""How to calibrate: ranges of uv, channels, and what is said about wrong ones."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from orca.calibration.options import BlockOptions, DelayOptions, SolveOptions


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10-350", (10, 350)),
        (" 10 - 350 ", (10, 350)),
        ("0.5-12.25", (0.5, 12.25)),
        ("10-", (10, math.inf)),
        ("-350", (0, 350)),
        ("0-1", (0, 1)),
        ("all", (0, math.inf)),
        (" ALL ", (0, math.inf)),
    ],
)
def test_ranges_of_uv(text: str, expected: tuple[float, float]) -> None:
    options = SolveOptions(uv=text)
    assert options.uv_range_lambda == expected
    assert options.uv == text.strip()


@pytest.mark.parametrize("text", ["350-10", "10-10", "0-0", "-0"])
def test_an_empty_range_of_uv_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match=f"'{text}' is an empty range"):
        SolveOptions(uv=text)


@pytest.mark.parametrize("text", ["", "-", "10", "10-20-30", "a-b", "1e2-3e2", "--5", ">10lambda,<125lambda", "-5--1"])
def test_what_is_no_range_of_uv_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="is not a range of wavelengths like 10-350, 10-, -350 or all"):
        SolveOptions(uv=text)


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ((), []),
        (("3",), [3]),
        (("2-4", "9", "3-5"), [2, 3, 4, 5, 9]),
        ((" 0 - 1 ",), [0, 1]),
        (("14-99", "100"), [14, 15]),
        (("16", "20-30"), []),
        (("0-999999999999",), list(range(16))),  # at once
        (("5-5",), [5]),
    ],
)
def test_channels_to_leave_out(items: tuple[str, ...], expected: list[int]) -> None:
    assert SolveOptions(flag_channels=items).channels(16) == expected


@pytest.mark.parametrize("item", ["", "a", "5-3", "-3", "3-", "1.5"])
def test_what_is_no_channel_is_refused(item: str) -> None:
    with pytest.raises(ValidationError, match=rf"'{item}' is not a channel or a range of channels like 0-5"):
        SolveOptions(flag_channels=("1", item))


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (SolveOptions, {"min_baselines": 1}),
        (SolveOptions, {"min_snr": -1}),
        (SolveOptions, {"max_iterations": 1}),
        (SolveOptions, {"tolerance": 0}),
        (SolveOptions, {"tolerance": 1}),
        (SolveOptions, {"template_sigma": 0}),
        (SolveOptions, {"max_missing_share": 1.1}),
        (SolveOptions, {"uvrange": "10-350"}),
        (BlockOptions, {"integrations": 0}),
        (BlockOptions, {"min_integrations": 0}),
        (DelayOptions, {"tolerance_s": 0}),
        (DelayOptions, {"min_subbands": 0}),
        (DelayOptions, {"min_coherence": 1.5}),
        (DelayOptions, {"min_subband_mhz": -1}),
    ],
)
def test_values_out_of_their_range_and_unknown_names_are_refused(options: Any, wrong: dict[str, Any]) -> None:
    [name] = wrong
    with pytest.raises(ValidationError, match=name):
        options(**wrong)


@pytest.mark.parametrize("options", [SolveOptions, BlockOptions, DelayOptions])
def test_every_option_is_described_and_none_can_be_changed(options: Any) -> None:
    assert all(field.description for field in options.model_fields.values())
    name = next(iter(options.model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(options(), name, None)


def test_they_are_imported_without_anything_heavy() -> None:
    heavy = {"numpy", "numba", "astropy", "casacore", "prefect"}
    code = f"import sys, orca.calibration.options; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"


def test_antennas_and_channels_may_be_lists_with_commas() -> None:
    options = SolveOptions(flag_antennas=("3, LWA-005", "7"), flag_channels=("1,4-5",))
    assert options.flag_antennas == ("3", "LWA-005", "7")
    assert options.channels(192) == [1, 4, 5]
