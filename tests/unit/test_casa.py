"""Calibration tables and their application, beside CASA's applycal (skipped without the extra `casa`)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from casa import Casa, casa_python
from casacore import tables as ct

from orca.calibration.tables import read_table, write_table
from orca.ms.stage import stage
from orca.ms.truth import truth_paths


@pytest.fixture(scope="module")
def casa(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Casa]:
    python = casa_python()
    if python is None:
        pytest.skip("CASA is not installed (extra 'casa', or ORCA_CASA_PYTHON)")
    process = Casa(python, tmp_path_factory.mktemp("casa"))
    yield process
    process.close()


def test_ours_and_casa_apply_the_same_tables_alike(
    casa: Casa, make_ms: Callable[..., Path], root_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    ms = make_ms()
    truth = truth_paths(root_of(ms), "73MHz")
    [solutions] = read_table(truth.bandpass)
    solutions.flags[0, 5, 3:6, 0] = True  # X of antenna 5 in three channels
    write_table(tmp_path / "bandpass", solutions, ms)
    tables = [truth.delay, tmp_path / "bandpass"]
    copy = Path(shutil.copytree(ms, tmp_path / "casa.ms"))
    casa.applycal(copy, tables)
    stage([ms], tmp_path / "ours.ms", tables=tables)
    with ct.table(str(copy), ack=False) as theirs, ct.table(str(tmp_path / "ours.ms"), ack=False) as ours:
        corrected, found = theirs.getcol("CORRECTED_DATA"), ours.getcol("DATA")
        their_flag, our_flag = theirs.getcol("FLAG"), ours.getcol("FLAG")
    good = ~their_flag & ~our_flag
    assert np.abs(found - corrected)[good].max() < 2e-6 * np.abs(corrected[good]).max()
    assert good.mean() > 0.9
    # CASA flags all four correlations of such a sample, ours those that the flagged solution touches
    np.testing.assert_array_equal(our_flag.any(2), their_flag.any(2))
    assert their_flag[our_flag].all()
