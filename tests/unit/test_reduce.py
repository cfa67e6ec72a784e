"""The pass over a block: what it writes, beside a computation of its own, and what it leaves out."""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from casacore import tables as ct

from orca.errors import DataError, DeadDataError, InputError, InvalidDataError, TruncatedDataError
from orca.ms.acceptance import Acceptance
from orca.ms.averaged import check_reduced
from orca.ms.flagmeta import read_flagmeta
from orca.ms.inspect import inspect
from orca.ms.reduce import ReducedBlock, reduce_block
from orca.ms.stage import stage
from orca.ms.truth import truth_paths
from orca.reduction_options import ReductionOptions

Simulations = Callable[..., list[Path]]
QUIET = Acceptance(settle_s=0)


def column(ms: Path, name: str) -> np.ndarray:
    with ct.table(str(ms), ack=False) as table:
        return np.asarray(table.getcol(name))


def reduced(sources: list[Path], folder: Path, **options: Any) -> ReducedBlock:
    folder.mkdir(exist_ok=True)
    return reduce_block(sources, folder, ReductionOptions(**options), acceptance=QUIET)


def copies(sources: list[Path], folder: Path) -> list[Path]:
    return [Path(shutil.copytree(source, folder / source.name)) for source in sources]


def test_averaged_files_are_the_means_of_what_is_not_flagged(simulations: Simulations, tmp_path: Path) -> None:
    sources = simulations(integrations=3, rfi=2)
    name = inspect(sources[0]).antenna_names[7]
    block = reduced(sources, tmp_path / "out", flag_antennas=f"3,{name}", flag_channels="0-1,9")
    assert [member.source for member in block.members] == sources
    for member in block.members:
        data = column(member.source, "DATA")
        flags = read_flagmeta(member.flagmeta, *data.shape)
        antennas = column(member.source, "ANTENNA1"), column(member.source, "ANTENNA2")
        bad = np.isin(antennas[0], [3, 7]) | np.isin(antennas[1], [3, 7])
        assert flags[bad].all()
        assert flags[:, [0, 1, 9]].all()
        assert not flags[~bad].all()
        good = ~flags.reshape(len(data), 4, 4, 4)
        parts, count = data.reshape(good.shape), good.sum(2)
        mean = np.where(count > 0, (parts * good).sum(2) / np.maximum(count, 1), parts.mean(2))
        np.testing.assert_allclose(column(member.averaged, "DATA"), mean, rtol=1e-5, atol=1e-5 * np.abs(mean).max())
        np.testing.assert_array_equal(column(member.averaged, "FLAG"), count == 0)
        weight = column(member.source, "WEIGHT") * count.sum(1) / np.maximum((count > 0).sum(1), 1)
        np.testing.assert_allclose(column(member.averaged, "WEIGHT"), weight, rtol=1e-6)
        assert member.flagged_share == pytest.approx(flags.mean())
        for name in ("TIME", "TIME_CENTROID", "UVW", "ANTENNA1", "INTERVAL"):
            np.testing.assert_array_equal(column(member.averaged, name), column(member.source, name))
        raw, new = inspect(member.source), inspect(member.averaged)
        np.testing.assert_allclose(new.freq_hz, raw.freq_hz.reshape(-1, 4).mean(1))
        assert new.channel_width_hz == pytest.approx(4 * raw.channel_width_hz)
        check_reduced(member.checksums, member.averaged, member.flagmeta, tmp_path)


def test_blocks_of_rows_do_not_show(simulations: Simulations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orca.ms import reduce

    sources = simulations(integrations=3, rfi=2)
    whole = reduced(sources, tmp_path / "whole")
    monkeypatch.setattr(reduce, "ROWS", 64)
    parts = reduced(sources, tmp_path / "parts")
    assert [member.checksums for member in parts.members] == [member.checksums for member in whole.members]


def test_a_tar_in_and_a_tar_out_are_the_same(simulations: Simulations, tmp_path: Path) -> None:
    plain = reduced(simulations(integrations=2), tmp_path / "plain")
    packed = reduced(simulations(integrations=2, tar=True), tmp_path / "packed", tar=True)
    for one, other in zip(plain.members, packed.members, strict=True):
        assert other.averaged.name == f"{one.averaged.name}.tar"
        assert other.checksums == one.checksums
        check_reduced(one.checksums, other.averaged, other.flagmeta, tmp_path)
    assert sorted(path.name for path in (tmp_path / "packed").glob("*.ms")) == []


def test_calibration_comes_before_flagging_where_it_is_asked_for(
    simulations: Simulations, root_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    [source] = simulations()
    truth = truth_paths(root_of(source), "73MHz")
    tables = [truth.delay, truth.bandpass]
    block = reduce_block([source], tmp_path, ReductionOptions(average=1), tables=tables, acceptance=QUIET)
    stage([source], tmp_path / "staged.ms", tables=tables)
    [member] = block.members
    np.testing.assert_allclose(column(member.averaged, "DATA"), column(tmp_path / "staged.ms", "DATA"), rtol=1e-5)


def test_autocorrelations_are_looked_at_only_on_request(simulations: Simulations, tmp_path: Path) -> None:
    sources = simulations(integrations=3, rfi=3)
    shares = {}
    for asked in (False, True):
        block = reduced(sources, tmp_path / str(asked), flag_autocorrelations=asked)
        [*_, member] = block.members
        shape = column(member.source, "DATA").shape
        auto = column(member.source, "ANTENNA1") == column(member.source, "ANTENNA2")
        shares[asked] = read_flagmeta(member.flagmeta, *shape)[auto].mean()
    assert shares[False] == 0
    assert shares[True] > 0


def test_known_bad_antennas_that_the_array_lacks_do_no_harm(make_ms: Callable[..., Path], tmp_path: Path) -> None:
    block = reduce_block([make_ms()], tmp_path, bad_antennas=[2, "LWA-999", 4000], acceptance=QUIET)
    [member] = block.members
    second = column(member.averaged, "ANTENNA2") == 2
    assert column(member.averaged, "FLAG")[second].all()


def _truncate(ms: Path) -> None:
    data = max(ms.glob("table.f*"), key=lambda path: path.stat().st_size)
    os.truncate(data, data.stat().st_size // 2)


def _double(ms: Path) -> None:
    with ct.table(str(ms), readonly=False, ack=False) as table:
        table.putcol("DATA", 20 * table.getcol("DATA"))


def _zero(ms: Path) -> None:
    with ct.table(str(ms), readonly=False, ack=False) as table:
        table.putcol("DATA", 0 * table.getcol("DATA"))


def _empty(ms: Path) -> None:
    with ct.table(str(ms), readonly=False, ack=False) as table:
        table.putkeyword("FILL_LEVEL_0", 0.1)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (_truncate, "rows need|cannot be read to its end"),
        (_double, "times the median level of its block"),
        (_zero, "visibilities are zero"),
        (_empty, "packets arrived"),
        (shutil.rmtree, "no such file"),
    ],
)
def test_a_bad_integration_is_named_and_the_others_are_as_without_it(
    simulations: Simulations, tmp_path: Path, harm: Callable[[Path], None], reason: str
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    sources = copies(simulations(integrations=4, rfi=1), raw)
    alone = reduced([sources[0], *sources[2:]], tmp_path / "alone")
    harm(sources[1])
    options, folder = ReductionOptions(), tmp_path / "all"
    folder.mkdir()
    accept = Acceptance(settle_s=0, min_fill_level=0.5, max_zero_share=0.9)
    block = reduce_block(sources, folder, options, acceptance=accept)
    [left_out] = block.rejected
    assert left_out.source == sources[1]
    assert re.search(reason, left_out.reason), left_out.reason
    assert [m.checksums for m in block.members] == [m.checksums for m in alone.members]
    assert len(list(folder.glob("*_averaged.ms"))) == len(list(folder.glob("*_flagmeta.bin"))) == 3


def test_one_that_grows_is_left_out(simulations: Simulations, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    sources = copies(simulations(integrations=3), raw)
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(0.02):
            os.utime(sources[1] / "table.f0", ns=(time.time_ns(), time.time_ns()))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        block = reduce_block(sources, tmp_path, acceptance=Acceptance(settle_s=2.0))
    finally:
        stop.set()
        writer.join()
    assert [(each.source, each.reason) for each in block.rejected] == [(sources[1], "is still being written")]
    assert len(block.members) == 2


def test_those_of_other_channels_and_those_that_are_there_twice_are_left_out(
    simulations: Simulations, tmp_path: Path
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    sources = copies(simulations(integrations=3), raw)
    [other] = simulations(channels=8)
    wide = Path(shutil.copytree(other, raw / "20260110_180040_73MHz.ms"))
    again = Path(shutil.copytree(sources[0], raw / "20260110_180001_73MHz.ms"))
    block = reduced([*sources, wide, again], tmp_path / "out")
    assert {each.source.name: each.reason for each in block.rejected} == {
        wide.name: "has other channels than most of its block",
        again.name: f"is of the same integration as {sources[0].name}",
    }


def test_where_none_can_be_used_the_first_reason_is_told(copy_ms: Callable[..., Path], tmp_path: Path) -> None:
    ms = copy_ms()
    _zero(ms)
    with pytest.raises(DeadDataError, match=f"none of 1 integrations can be used: {ms.name} all visibilities are zero"):
        reduced([ms], tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_is_asked_for_must_be_there(make_ms: Callable[..., Path], tmp_path: Path) -> None:
    for options, words in (
        ({"average": 5}, "16 channels cannot be averaged by 5"),
        ({"flag_channels": "16"}, "none with the number 16"),
        ({"flag_antennas": "99"}, "has no antenna 99"),
    ):
        with pytest.raises(InputError, match=words):
            reduced([make_ms()], tmp_path / "out", **options)
    with pytest.raises(ValueError, match="neither a channel nor a range"):
        ReductionOptions(flag_channels="9-3")


@pytest.mark.parametrize("part", ["FLAG", "DATA", "flagmeta"])
def test_what_is_read_back_otherwise_is_found(make_ms: Callable[..., Path], tmp_path: Path, part: str) -> None:
    [member] = reduced([make_ms()], tmp_path / "out").members
    if part == "flagmeta":
        content = bytearray(member.flagmeta.read_bytes())
        content[100] ^= 4
        member.flagmeta.write_bytes(content)
    else:
        with ct.table(str(member.averaged), readonly=False, ack=False) as table:
            cell = table.getcell(part, 7)
            cell[2, 1] = ~cell[2, 1] if part == "FLAG" else cell[2, 1] * 1.0000002 + 1e-3
            table.putcell(part, 7, cell)
    with pytest.raises(InvalidDataError, match=f"{part} differ"):
        check_reduced(member.checksums, member.averaged, member.flagmeta, tmp_path)


def test_flags_of_another_shape_are_refused(make_ms: Callable[..., Path], tmp_path: Path) -> None:
    [member] = reduced([make_ms()], tmp_path / "out").members
    with pytest.raises(TruncatedDataError, match="flags of 300 rows x 17 channels"):
        read_flagmeta(member.flagmeta, 300, 17, 4)
    with pytest.raises(DataError, match="no such file"):
        read_flagmeta(tmp_path / "none.bin", 1, 1, 1)


def test_sources_are_only_read(simulations: Simulations, tmp_path: Path) -> None:
    """The fixture looks whether an original changed; here that a folder without write permission is enough."""
    raw = tmp_path / "raw"
    raw.mkdir()
    [source] = copies(simulations(), raw)
    before = {path: path.stat().st_mtime_ns for path in source.rglob("*") if path.name != "table.lock"}
    reduced([source], tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in source.rglob("*") if path.name != "table.lock"} == before
