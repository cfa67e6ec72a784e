"""New Measurement Sets like another one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from casacore import tables as ct

from orca.errors import InputError, InvalidDataError
from orca.ms.blocks import open_table
from orca.ms.create import create_like
from orca.ms.inspect import inspect

MakeMs = Callable[..., Path]


def fill(table: ct.table, source: Path) -> None:
    """Copy DATA and FLAG, and close."""
    with open_table(source) as old:
        for name in ("DATA", "FLAG"):
            table.putcol(name, old.getcol(name))
    table.close()


def test_it_has_the_values_of_the_source_and_tiles_of_64_rows(make_ms: MakeMs, tmp_path: Path) -> None:
    source = make_ms(rfi=1)
    table = create_like(source, tmp_path / "new.ms")
    managers = {column: m for m in table.getdminfo().values() for column in m["COLUMNS"]}
    fill(table, source)
    with open_table(source) as old, open_table(tmp_path / "new.ms") as new:
        assert new.nrows() == old.nrows()
        for name in set(old.colnames()) - {"FLAG_CATEGORY"}:
            assert np.array_equal(old.getcol(name), new.getcol(name)), name
            assert old.getcolkeywords(name) == new.getcolkeywords(name)
        assert new.getkeyword("FILL_LEVEL_0") == old.getkeyword("FILL_LEVEL_0")
        assert new.info() == old.info()
        assert "FLAG_CATEGORY" in new.colnames()
    for name in ("DATA", "FLAG"):
        assert managers[name]["TYPE"] == "TiledColumnStMan"
        assert managers[name]["SPEC"]["HYPERCUBES"]["*1"]["TileShape"].tolist() == [4, 16, 64]


def test_it_passes_the_check_and_so_do_its_subtables_elsewhere(make_ms: MakeMs, tmp_path: Path) -> None:
    source = make_ms()
    fill(create_like(source, tmp_path / "new.ms"), source)
    (tmp_path / "new.ms").rename(tmp_path / "moved.ms")
    before, after = inspect(source), inspect(tmp_path / "moved.ms", settle_s=0)
    assert after.antenna_names == before.antenna_names
    assert np.array_equal(after.freq_hz, before.freq_hz)
    assert after.phase_centre_rad == before.phase_centre_rad
    with ct.table(str(tmp_path / "moved.ms"), ack=False) as table:
        assert table.getkeyword("ANTENNA") == f"Table: {tmp_path / 'moved.ms' / 'ANTENNA'}"


def test_one_made_of_a_tiled_one_is_the_same_again(make_ms: MakeMs, tmp_path: Path) -> None:
    source = make_ms()
    fill(create_like(source, tmp_path / "a.ms"), source)
    fill(create_like(tmp_path / "a.ms", tmp_path / "b.ms"), source)
    with open_table(source) as old, open_table(tmp_path / "b.ms") as new:
        for name in set(old.colnames()) - {"FLAG_CATEGORY"}:
            assert np.array_equal(old.getcol(name), new.getcol(name)), name


def test_columns_that_change_from_row_to_row_are_kept(copy_ms: MakeMs, tmp_path: Path) -> None:
    source = copy_ms()
    with ct.table(str(source), readonly=False, ack=False) as table:
        table.putcol("WEIGHT", np.arange(1200, dtype=np.float32).reshape(300, 4))
        table.putcol("SCAN_NUMBER", np.arange(300, dtype=np.int32))
        table.putcol("FLAG_ROW", np.arange(300) % 3 == 0)
    create_like(source, tmp_path / "new.ms").close()
    with open_table(tmp_path / "new.ms") as new:
        assert np.array_equal(new.getcol("WEIGHT").ravel(), np.arange(1200))
        assert np.array_equal(new.getcol("SCAN_NUMBER"), np.arange(300))
        assert np.array_equal(new.getcol("FLAG_ROW"), np.arange(300) % 3 == 0)


def test_fewer_channels_average_the_spectral_window(make_ms: MakeMs, tmp_path: Path) -> None:
    source = make_ms()
    table = create_like(source, tmp_path / "new.ms", n_channels=4)
    table.putcol("DATA", np.ones((300, 4, 4), np.complex64))
    table.putcol("FLAG", np.zeros((300, 4, 4), bool))
    table.close()
    old, new = inspect(source), inspect(tmp_path / "new.ms", settle_s=0)
    assert new.n_channels == 4
    assert new.freq_hz == pytest.approx(old.freq_hz.reshape(4, 4).mean(1), abs=1e-6)
    assert new.channel_width_hz == pytest.approx(4 * old.channel_width_hz)
    with open_table(tmp_path / "new.ms" / "SPECTRAL_WINDOW") as window:
        assert window.getcell("TOTAL_BANDWIDTH", 0) == pytest.approx(16 * old.channel_width_hz)


def test_two_correlations_are_xx_and_yy(make_ms: MakeMs, tmp_path: Path) -> None:
    table = create_like(make_ms(), tmp_path / "new.ms", correlations=(0, 3))
    table.putcol("DATA", np.ones((300, 16, 2), np.complex64))
    table.putcol("FLAG", np.zeros((300, 16, 2), bool))
    table.close()
    info = inspect(tmp_path / "new.ms", settle_s=0)
    assert info.receptors.tolist() == [[0, 0], [1, 1]]
    with open_table(tmp_path / "new.ms" / "POLARIZATION") as polarization:
        assert polarization.getcell("CORR_TYPE", 0).tolist() == [9, 12]
    with open_table(tmp_path / "new.ms") as new:
        assert new.getcol("WEIGHT").shape == (300, 2)


def test_more_rows_have_the_constants_and_leave_the_rest_to_the_caller(make_ms: MakeMs, tmp_path: Path) -> None:
    table = create_like(make_ms(), tmp_path / "new.ms", n_rows=600)
    assert table.nrows() == 600
    assert (table.getcol("SIGMA") == 9999).all()
    assert (table.getcol("INTERVAL") == table.getcell("INTERVAL", 0)).all()
    time = np.repeat([1.0, 2.0], 300)
    table.putcol("TIME", time)
    table.close()
    with open_table(tmp_path / "new.ms") as new:
        assert np.array_equal(new.getcol("TIME"), time)


def test_other_data_columns_can_be_made(make_ms: MakeMs, tmp_path: Path) -> None:
    table = create_like(make_ms(), tmp_path / "new.ms", columns=("DATA", "FLAG", "MODEL_DATA"))
    table.putcol("MODEL_DATA", np.full((300, 16, 4), 2 - 3j, np.complex64))
    table.close()
    with ct.table(str(tmp_path / "new.ms"), ack=False) as again:
        assert (again.getcol("MODEL_DATA") == 2 - 3j).all()


def test_the_source_is_only_read(make_ms: MakeMs, tmp_path: Path) -> None:
    source = make_ms()
    before = {str(f): (f.stat().st_size, f.stat().st_mtime_ns) for f in source.rglob("*")}
    create_like(source, tmp_path / "new.ms").close()
    assert {str(f): (f.stat().st_size, f.stat().st_mtime_ns) for f in source.rglob("*")} == before


@pytest.mark.parametrize(
    "wrong", [{"n_channels": 5}, {"n_channels": 0}, {"correlations": (0, 4)}, {"correlations": ()}]
)
def test_what_cannot_be_is_refused_and_leaves_nothing(make_ms: MakeMs, tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(InputError):
        create_like(make_ms(), tmp_path / "new.ms", **wrong)
    assert not (tmp_path / "new.ms").exists()


def test_an_existing_destination_is_refused(make_ms: MakeMs, tmp_path: Path) -> None:
    (tmp_path / "new.ms").mkdir()
    with pytest.raises(InputError, match="exists already"):
        create_like(make_ms(), tmp_path / "new.ms")


def test_a_source_without_a_subtable_leaves_nothing(copy_ms: MakeMs, tmp_path: Path) -> None:
    source = copy_ms()
    shutil.rmtree(source / "FEED")
    with pytest.raises(InvalidDataError, match="lacks the subtable FEED"):
        create_like(source, tmp_path / "new.ms")
    assert not (tmp_path / "new.ms").exists()


def test_wsclean_takes_it(make_ms: MakeMs, tmp_path: Path) -> None:
    source = make_ms(noise=0.0, gains=False)
    fill(create_like(source, tmp_path / "new.ms"), source)
    argv = ["wsclean", "-no-reorder", "-size", "64", "64", "-scale", "1deg", "-j", "1", "-name", "sky", "new.ms"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert list(tmp_path.glob("sky*-image.fits"))
