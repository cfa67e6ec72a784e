"""What was asked of a calibration is checked before any work."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orca.antennas import BadAntennas
from orca.calibration.options import BlockOptions, SolveOptions
from orca.calibration.request import check_antennas, checked_sky, complete_block, unknown_antennas
from orca.errors import InputError
from orca.skyoptions import SkyOptions

NONE = BadAntennas((), "no list")


def test_a_block_gets_the_configurations_numbers_where_none_are_asked_for() -> None:
    given = [BlockOptions(), BlockOptions(integrations=6), BlockOptions(integrations=6, min_integrations=2)]
    found = [complete_block(block, 24, 12) for block in given]
    assert [(block.integrations, block.min_integrations) for block in found] == [(24, 12), (6, 6), (6, 2)]
    with pytest.raises(InputError, match=r"6 integrations cannot have at least 7. Lower --min-integrations"):
        complete_block(BlockOptions(integrations=6, min_integrations=7), 24, 12)


def test_the_files_of_the_sky_get_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sky.yml").write_text("- {name: X, ra: 1, dec: 1, reference_mhz: 74, flux_jy: 730, spectral_index: -0.8}\n")
    assert checked_sky(SkyOptions(sky_file=Path("sky.yml"), sources=("x",))).sky_file == tmp_path / "sky.yml"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"sources": ("Cyg B",)}, "there is no source 'Cyg B'"),
        ({"sky_file": Path("none.yml")}, "cannot be read"),
        ({"sky_file": Path("broken")}, "is no list of sources"),
        ({"beam_file": Path("none.h5")}, "cannot be read"),
        ({"beam_file": Path("broken")}, "is no HDF5 file"),
    ],
)
def test_a_sky_that_cannot_be_is_wrong_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict, problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken").write_text("something else\n")
    with pytest.raises(InputError, match=problem) as caught:
        checked_sky(SkyOptions(**options))
    assert caught.value.remedy


@pytest.mark.parametrize("tar", [False, True])
def test_an_antenna_that_the_user_names_and_the_array_lacks_is_wrong_input(
    make_ms: Callable[..., Path], tmp_path: Path, tar: bool
) -> None:
    source = make_ms(tar=tar)
    assert source.name.endswith(".ms.tar") == tar
    assert check_antennas(SolveOptions(reference_antenna="lwa114", flag_antennas=("0", "23")), NONE, [source]) == NONE
    for wrong in ({"reference_antenna": "LWA-999"}, {"reference_antenna": "24"}, {"flag_antennas": ("3", "24")}):
        with pytest.raises(InputError, match=r"--(refant|flag-antenna): the array has no antenna (LWA-999|24)\. Give"):
            check_antennas(SolveOptions(**wrong), NONE, [tmp_path / "broken.ms", source])


def test_an_unknown_antenna_of_a_list_is_a_warning_with_its_place(make_ms: Callable[..., Path]) -> None:
    places = {"LWA-998": "bad.yml:7", 24: "bad.yml:8"}
    bad = BadAntennas((3, "LWA-998", 24), "bad.yml, list of 2026-01-10", None, places)
    told = check_antennas(SolveOptions(), bad, [make_ms()])
    assert told.antennas == bad.antennas
    words = "the array has no antenna"
    assert told.warning == f"bad antennas: bad.yml:7: {words} LWA-998; bad.yml:8: {words} 24"
    many = BadAntennas(tuple(range(30, 40)), "a list", "the file is gone")
    assert str(check_antennas(SolveOptions(), many, [make_ms()]).warning).startswith("the file is gone; bad antennas: ")
    assert str(check_antennas(SolveOptions(), many, [make_ms()]).warning).endswith("no antenna 32; and 7 more")
    assert check_antennas(SolveOptions(), BadAntennas((3, "lwa-114"), "a list"), [make_ms()]).warning is None


def test_where_no_recording_can_be_read_nothing_is_said_of_antennas(
    make_ms: Callable[..., Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.ms"
    shutil.copytree(make_ms(), broken)
    (broken / "ANTENNA" / "table.dat").write_bytes(b"x")
    (tmp_path / "broken.ms.tar").write_bytes(b"x" * 4096)
    sources = [broken, tmp_path / "broken.ms.tar", tmp_path / "none.ms"]
    assert check_antennas(SolveOptions(reference_antenna="LWA-999"), NONE, sources) == NONE


def test_antennas_are_known_by_number_and_by_name_however_it_is_written() -> None:
    names = ("LWA-001", "LWA002")
    assert unknown_antennas(["lwa001", "LWA-002", " LWA-001 ", "01", 1, "0"], names) == []
    assert unknown_antennas([2, "2", "LWA-003"], names) == [2, "2", "LWA-003"]


@pytest.mark.parametrize("tar", [False, True])
def test_a_channel_that_the_data_lack_is_wrong_input(make_ms: Callable[..., Path], tar: bool) -> None:
    source = make_ms(tar=tar, channels=16)
    assert check_antennas(SolveOptions(flag_channels=("3", "10-15")), NONE, [source]) == NONE
    with pytest.raises(InputError, match=r"--flag-channel: there is no channel 12-16. They are 0 to 15"):
        check_antennas(SolveOptions(flag_channels=("3", "12-16")), NONE, [source])
