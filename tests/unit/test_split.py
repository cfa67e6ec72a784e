"""XX and YY alone: what is kept, what is averaged, and what reading back finds."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from casacore import tables as ct

from orca.errors import DataError, DeadDataError, InputError, InvalidDataError, MismatchError, MissingDataError
from orca.ms.acceptance import Acceptance
from orca.ms.inspect import inspect
from orca.ms.split import Split, check_split, split
from orca.split_options import SplitOptions

MakeMs = Callable[..., Path]
XX_YY = [0, 3]
VISIBILITIES = ("DATA", "MODEL_DATA", "CORRECTED_DATA")
SPECTRA = ("WEIGHT_SPECTRUM", "SIGMA_SPECTRUM")


def columns_of(path: Path, *names: str) -> dict[str, np.ndarray]:
    """Columns as casacore reads them."""
    with ct.table(str(path), ack=False, lockoptions="usernoread") as table:
        return {name: np.asarray(table.getcol(name)) for name in names}


def enrich(path: Path, seed: int = 1) -> Path:
    """Add all data columns there may be, flags, weights and times that differ, and NaN."""
    rng = np.random.default_rng(seed)
    with ct.table(str(path), readonly=False, ack=False) as table:
        shape = (table.nrows(), *table.getcell("DATA", 0).shape)
        for name in (*VISIBILITIES[1:], *SPECTRA):
            kind, value = ("complex", 0j) if name in VISIBILITIES else ("float", 0.0)
            table.addcols(ct.makecoldesc(name, ct.makearrcoldesc(name, value, valuetype=kind, shape=shape[1:])["desc"]))
        table.putcolkeyword("MODEL_DATA", "ORIGIN", "a test")
        for name in VISIBILITIES[1:]:
            values = rng.normal(size=shape) + 1j * rng.normal(size=shape)
            table.putcol(name, values.astype(np.complex64))
        for name in SPECTRA:
            table.putcol(name, rng.uniform(0.5, 2, shape).astype(np.float32))
        flag = rng.random(shape) < 0.4
        flag[3, :8] = True
        flag[5, :, 3] = True
        table.putcol("FLAG", flag)
        for name in ("WEIGHT", "SIGMA"):
            table.putcol(name, rng.uniform(1, 2, (shape[0], shape[2])).astype(np.float32))
        table.putcol("FLAG_ROW", rng.random(shape[0]) < 0.1)
    return path


def with_nan(path: Path) -> Path:
    with ct.table(str(path), readonly=False, ack=False) as table:
        cell = table.getcell("DATA", 7)
        cell[2] = np.nan + 1j * np.inf
        table.putcell("DATA", 7, cell)
    return path


def test_all_columns_of_xx_and_yy_are_kept_bit_by_bit_and_all_else_as_it_is(copy_ms: MakeMs, tmp_path: Path) -> None:
    source = with_nan(enrich(copy_ms()))
    made = split(source, tmp_path / "split.ms")
    assert set(made.columns) == {*VISIBILITIES, "FLAG", *SPECTRA}
    with ct.table(str(source), ack=False) as old, ct.table(str(tmp_path / "split.ms"), ack=False) as new:
        assert new.nrows() == old.nrows() == made.n_rows
        assert new.getkeyword("FILL_LEVEL_0") == old.getkeyword("FILL_LEVEL_0")
        assert set(new.keywordnames()) == set(old.keywordnames())
        assert new.getcolkeywords("MODEL_DATA") == {"ORIGIN": "a test"}
        assert set(new.colnames()) == set(old.colnames())
        for name in set(old.colnames()) - {"FLAG_CATEGORY"}:
            before, after = old.getcol(name), new.getcol(name)
            if name in made.columns or name in ("WEIGHT", "SIGMA"):
                before = before[..., XX_YY]
            assert after.dtype == before.dtype
            assert after.tobytes() == before.tobytes(), name
        flags = new.getcol("FLAG")
    assert made.flagged_share == pytest.approx(flags.mean())
    check_split(tmp_path / "split.ms", source, made)


def test_its_subtables_say_xx_and_yy_and_the_others_are_copies(make_ms: MakeMs, tmp_path: Path) -> None:
    source, target = make_ms(), tmp_path / "split.ms"
    split(source, target)
    with ct.table(f"{target}/POLARIZATION", ack=False) as polarization:
        assert polarization.getcell("CORR_TYPE", 0).tolist() == [9, 12]
        assert polarization.getcell("CORR_PRODUCT", 0).tolist() == [[0, 0], [1, 1]]
        assert polarization.getcell("NUM_CORR", 0) == 2
    before, after = inspect(source), inspect(target, settle_s=0)
    assert (after.antenna_names, after.subband, after.start_s) == (before.antenna_names, before.subband, before.start_s)
    assert np.array_equal(after.freq_hz, before.freq_hz)
    for name in ("ANTENNA", "FIELD", "FEED", "OBSERVATION"):
        with ct.table(f"{source}/{name}", ack=False) as old, ct.table(f"{target}/{name}", ack=False) as new:
            assert new.nrows() == old.nrows() > 0
            for column in old.colnames():
                assert np.array_equal(old.getcol(column), new.getcol(column)), (name, column)


def test_which_correlations_they_are_is_read_and_not_assumed(copy_ms: MakeMs, tmp_path: Path) -> None:
    source = copy_ms()
    order = [1, 3, 2, 0]  # XY, YY, YX, XX
    with ct.table(f"{source}/POLARIZATION", readonly=False, ack=False) as polarization:
        for name in ("CORR_TYPE", "CORR_PRODUCT"):
            polarization.putcell(name, 0, polarization.getcell(name, 0)[order])
    made = split(source, tmp_path / "split.ms")
    check_split(tmp_path / "split.ms", source, made)
    expected = columns_of(source, "DATA")["DATA"][..., [3, 1]]
    assert np.array_equal(columns_of(tmp_path / "split.ms", "DATA")["DATA"], expected)
    assert inspect(tmp_path / "split.ms", settle_s=0).receptors.tolist() == [[0, 0], [1, 1]]


def test_channels_are_averaged_without_those_that_are_flagged(copy_ms: MakeMs, tmp_path: Path) -> None:
    source, target = enrich(copy_ms()), tmp_path / "split.ms"
    made = split(source, target, average=4)
    check_split(target, source, made)
    names = (*made.columns, "WEIGHT", "SIGMA")
    old = {name: values[..., XX_YY] for name, values in columns_of(source, *names).items()}
    new = columns_of(target, *names)
    rows = len(old["FLAG"])
    good = ~old["FLAG"].reshape(rows, 4, 4, 2)
    count = good.sum(2)
    assert (count == 0).any()
    assert np.array_equal(new["FLAG"], count == 0)
    used = good | (count == 0)[:, :, None]
    for name in VISIBILITIES:
        mean = np.where(used, old[name].reshape(good.shape), 0).sum(2) / used.sum(2)
        np.testing.assert_allclose(new[name], mean, rtol=2e-5, atol=1e-5 * abs(mean).max())
    weights = np.where(good, old["WEIGHT_SPECTRUM"].reshape(good.shape), 0).sum(2)
    np.testing.assert_allclose(new["WEIGHT_SPECTRUM"], weights, rtol=1e-5)
    noise = np.sqrt(np.where(used, old["SIGMA_SPECTRUM"].reshape(good.shape), 0) ** 2).astype(float)
    np.testing.assert_allclose(new["SIGMA_SPECTRUM"], np.sqrt((noise**2).sum(2)) / used.sum(2), rtol=1e-5)
    factor = count.sum(1) / np.maximum((count > 0).sum(1), 1)
    np.testing.assert_allclose(new["WEIGHT"], old["WEIGHT"] * factor, rtol=1e-5)
    assert (factor == 0).any()
    np.testing.assert_allclose(new["SIGMA"], old["SIGMA"] / np.sqrt(np.where(factor > 0, factor, 1)), rtol=1e-5)


def test_frequencies_are_those_of_the_averaged_channels_and_times_and_uvw_stay(make_ms: MakeMs, tmp_path: Path) -> None:
    source, target = make_ms(), tmp_path / "split.ms"
    made = split(source, target, average=8)
    before, after = inspect(source), inspect(target, settle_s=0)
    assert made.n_channels == after.n_channels == 2
    assert after.freq_hz == pytest.approx(before.freq_hz.reshape(2, 8).mean(1))
    assert after.channel_width_hz == pytest.approx(8 * before.channel_width_hz)
    kept = ("UVW", "TIME", "TIME_CENTROID", "ANTENNA1", "ANTENNA2", "INTERVAL", "EXPOSURE", "FLAG_ROW")
    old, new = columns_of(source, *kept), columns_of(target, *kept)
    assert [name for name in kept if not np.array_equal(old[name], new[name])] == []
    assert columns_of(target, "WEIGHT")["WEIGHT"] == pytest.approx(8)


def test_blocks_do_not_show(make_ms: MakeMs, tmp_path: Path) -> None:
    source = make_ms(antennas=48)  # 1176 rows: two blocks and a part of one
    made = split(source, tmp_path / "split.ms")
    assert made.n_rows == 1176
    assert np.array_equal(
        columns_of(tmp_path / "split.ms", "DATA")["DATA"], columns_of(source, "DATA")["DATA"][..., XX_YY]
    )


def test_a_tar_gives_the_same(make_ms: MakeMs, tmp_path: Path) -> None:
    source = make_ms()
    tar = tmp_path / f"{source.name}.tar"
    subprocess.run(["tar", "-cf", tar, "-C", source.parent, source.name], check=True)
    (tmp_path / "work").mkdir()
    plain, packed = split(source, tmp_path / "a.ms"), split(tar, tmp_path / "work" / "b.ms")
    assert packed.checksums == plain.checksums
    (tmp_path / "check").mkdir()
    check_split(packed.path, tar, packed, scratch=tmp_path / "check")
    with pytest.raises(InputError, match="no folder is given"):
        check_split(packed.path, tar, packed)


def test_columns_without_values_are_none(copy_ms: MakeMs, tmp_path: Path) -> None:
    source = copy_ms()
    with ct.table(str(source), readonly=False, ack=False) as table:
        table.addcols(ct.maketabdesc([ct.makearrcoldesc("WEIGHT_SPECTRUM", 0.0, valuetype="float", ndim=2)]))
    assert split(source, tmp_path / "split.ms").columns == ("DATA", "FLAG")
    with ct.table(str(source), readonly=False, ack=False) as table:
        table.putcell("WEIGHT_SPECTRUM", 9, np.ones((16, 4), np.float32))
    with pytest.raises(InvalidDataError, match="WEIGHT_SPECTRUM in some rows only"):
        split(source, tmp_path / "again.ms")


def test_a_column_of_channels_that_is_not_known_is_refused_and_not_copied_wrongly(
    copy_ms: MakeMs, tmp_path: Path
) -> None:
    source = copy_ms()
    with ct.table(str(source), readonly=False, ack=False) as table:
        table.addcols(ct.maketabdesc([ct.makearrcoldesc("BACKUP", 0j, valuetype="complex", shape=[16, 4])]))
        table.putcol("BACKUP", table.getcol("DATA"))
    with pytest.raises(InvalidDataError, match="BACKUP"):
        split(source, tmp_path / "split.ms")
    assert not (tmp_path / "split.ms").exists()


def test_one_that_is_split_already_is_refused_in_words_of_its_own(make_ms: MakeMs, tmp_path: Path) -> None:
    split(make_ms(), tmp_path / "split.ms")
    with pytest.raises(InputError, match="split already"):
        split(tmp_path / "split.ms", tmp_path / "again.ms", acceptance=Acceptance(settle_s=0))


def test_what_cannot_be_split_is_refused_and_nothing_is_left(make_ms: MakeMs, copy_ms: MakeMs, tmp_path: Path) -> None:
    target = tmp_path / "split.ms"
    for average in (0, 3, 5, 32):
        with pytest.raises(InputError, match="16 channels"):
            split(make_ms(), target, average=average)
    with pytest.raises(MissingDataError):
        split(tmp_path / "none.ms", target)
    with pytest.raises(DeadDataError):
        split(make_ms(dead_subbands=("73MHz",)), target)
    source = copy_ms()
    with ct.table(f"{source}/POLARIZATION", readonly=False, ack=False) as polarization:
        polarization.putcell("CORR_PRODUCT", 0, np.array([[0, 1], [1, 0], [1, 0], [1, 1]], np.int32))
    with pytest.raises(InvalidDataError, match="has no correlation XX"):
        split(source, target)
    assert not target.exists()


@pytest.mark.parametrize("average", [1, 4])
@pytest.mark.parametrize("column", ["DATA", "FLAG", "WEIGHT", "CORRECTED_DATA", "SIGMA_SPECTRUM"])
def test_one_sample_that_is_read_back_otherwise_is_found(
    copy_ms: MakeMs, tmp_path: Path, average: int, column: str
) -> None:
    source, target = enrich(copy_ms()), tmp_path / "split.ms"
    made = split(source, target, average=average)
    with ct.table(str(target), readonly=False, ack=False) as table:
        cell = table.getcell(column, 299)
        last = cell.reshape(-1).view(np.uint8)
        last[-1] ^= 1
        table.putcell(column, 299, cell)
    with pytest.raises(InvalidDataError, match=f"{column} is read back otherwise"):
        check_split(target, source, made)


@pytest.mark.parametrize("average", [1, 4])
def test_a_byte_that_flips_in_the_file_is_found(copy_ms: MakeMs, tmp_path: Path, average: int) -> None:
    source, target = copy_ms(), tmp_path / "split.ms"
    made = split(source, target, average=average)
    with ct.table(str(target), ack=False) as table:
        number = next(m["SEQNR"] for m in table.getdminfo().values() if m["COLUMNS"] == ["DATA"])
    [tiles] = target.glob(f"table.f{number}_TSM*")
    with tiles.open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)[0]
        file.seek(1000)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(InvalidDataError, match="DATA is read back otherwise"):
        check_split(target, source, made)


def test_an_original_that_is_another_one_is_found(make_ms: MakeMs, copy_ms: MakeMs, tmp_path: Path) -> None:
    source, target = copy_ms(), tmp_path / "split.ms"
    made = split(source, target)
    with ct.table(str(source), readonly=False, ack=False) as table:
        table.putcell("UVW", 0, table.getcell("UVW", 0) + 1)
    with pytest.raises(MismatchError, match="UVW"):
        check_split(target, source, made)
    with pytest.raises(MismatchError, match="DATA"):
        check_split(target, make_ms(seed=2), made)
    with pytest.raises(MismatchError, match="rows"):
        check_split(target, make_ms(antennas=12), made)
    clean = split(make_ms(), tmp_path / "clean.ms")
    history = tmp_path / "clean.ms" / "ANTENNA" / "table.f0"
    history.write_bytes(history.read_bytes() + b"\0")
    with pytest.raises(MismatchError, match="ANTENNA"):
        check_split(clean.path, make_ms(), clean)


def test_a_split_that_ends_too_early_or_has_another_shape_is_found(make_ms: MakeMs, tmp_path: Path) -> None:
    source, target = make_ms(), tmp_path / "split.ms"
    made = split(source, target)
    with pytest.raises(InvalidDataError, match="channels"):
        check_split(target, source, replace(made, n_channels=8))
    largest = max((f for f in target.iterdir() if f.is_file()), key=lambda f: f.stat().st_size)
    with largest.open("r+b") as file:
        file.truncate(largest.stat().st_size // 2)
    with pytest.raises(DataError):
        check_split(target, source, made)


def test_the_source_is_only_read(make_ms: MakeMs, tmp_path: Path) -> None:
    source = make_ms()
    before = {str(f): (f.stat().st_size, f.stat().st_mtime_ns) for f in source.rglob("*")}
    check_split(tmp_path / "split.ms", source, split(source, tmp_path / "split.ms"))
    assert {str(f): (f.stat().st_size, f.stat().st_mtime_ns) for f in source.rglob("*")} == before


def test_its_numbers_survive_a_manifest(make_ms: MakeMs, tmp_path: Path) -> None:
    made = split(make_ms(), tmp_path / "split.ms")
    again = Split.from_numbers(made.path, made.numbers())
    check_split(made.path, make_ms(), again)
    assert replace(made, seconds=0, cpu_seconds=0, peak_memory_bytes=0) == again
    with pytest.raises(InvalidDataError, match="checksums"):
        Split.from_numbers(made.path, {})


def test_options_refuse_what_cannot_be() -> None:
    assert SplitOptions().original == "keep"
    for wrong in ({"average": 0}, {"original": "delete"}, {"other": 1}):
        with pytest.raises(ValueError):
            SplitOptions(**wrong)
