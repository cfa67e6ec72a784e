"""A simulated Measurement Set has the layout that TELESCOPE describes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from casacore import tables as ct

from orca.ms import synthetic
from orca.ms.layout import Recording


@pytest.fixture(scope="module")
def ms(make_ms: Callable[..., Path]) -> Path:
    return make_ms()


@pytest.fixture
def table(ms: Path) -> ct.table:
    with ct.table(str(ms), ack=False, lockoptions="usernoread") as opened:
        yield opened


def test_all_columns_are_in_one_standard_manager_and_the_data_are_not_tiled(table: ct.table) -> None:
    managers = table.getdminfo()
    assert [m["TYPE"] for m in managers.values()] == ["StandardStMan"]
    assert {"DATA", "FLAG", "UVW", "WEIGHT", "SIGMA"} <= set(managers["*1"]["COLUMNS"])


def test_the_columns_are_those_of_the_recorder(table: ct.table) -> None:
    names = set(table.colnames())
    assert {"DATA", "FLAG", "FLAG_CATEGORY", "TIME_CENTROID", "UVW", "WEIGHT", "SIGMA"} <= names
    assert not names & {"MODEL_DATA", "CORRECTED_DATA", "WEIGHT_SPECTRUM", "SIGMA_SPECTRUM"}


def test_data_and_flags_are_channels_by_correlations(table: ct.table) -> None:
    data, flag = table.getcell("DATA", 0), table.getcell("FLAG", 5)
    assert (data.shape, data.dtype) == ((16, 4), np.complex64)
    assert (flag.shape, flag.dtype) == ((16, 4), np.bool_)
    assert not table.getcol("FLAG").any()


def test_weights_and_sigmas_are_the_recorders_constants(table: ct.table) -> None:
    assert (table.getcol("WEIGHT") == 1).all()
    assert (table.getcol("SIGMA") == 9999).all()


def test_rows_are_all_baselines_with_autocorrelations_first_antenna_slowest(table: ct.table) -> None:
    expected = [(i, j) for i in range(24) for j in range(i, 24)]
    assert list(zip(table.getcol("ANTENNA1"), table.getcol("ANTENNA2"), strict=True)) == expected


def test_the_full_array_has_62128_rows() -> None:
    array = synthetic.antennas(352)
    recording = Recording(array.names, array.itrf_m, np.array([73e6]), 1.0, 0.0, 1.0, (0.0, 0.0))
    first, second = recording.baselines
    assert len(first) == 62128
    assert np.count_nonzero(first != second) == 61776


def test_uvw_is_the_second_antenna_minus_the_first(table: ct.table, ms: Path) -> None:
    with ct.table(f"{ms}/ANTENNA", ack=False) as antennas:
        position = antennas.getcol("POSITION")
    p, q, uvw = table.getcol("ANTENNA1"), table.getcol("ANTENNA2"), table.getcol("UVW")
    length = np.linalg.norm(position[q] - position[p], axis=1)
    assert np.linalg.norm(uvw, axis=1) == pytest.approx(length, abs=1e-6)
    longitude, latitude = np.radians([-118.2816667, 37.23977727])
    east = np.array([-np.sin(longitude), np.cos(longitude), 0])
    north = np.array([-np.sin(latitude) * np.cos(longitude), -np.sin(latitude) * np.sin(longitude), np.cos(latitude)])
    ahead = position[q] - position[p]  # towards the zenith, u is to the east and v to the north, but for precession
    assert uvw[:, 0] == pytest.approx(ahead @ east, abs=0.006 * length.max())
    assert uvw[:, 1] == pytest.approx(ahead @ north, abs=0.006 * length.max())


def test_keywords_tell_the_fill_level_and_the_version(table: ct.table) -> None:
    keywords = table.getkeywords()
    assert keywords["FILL_LEVEL_0"] == 1
    assert keywords["MS_VERSION"] == 2
    assert table.info()["type"] == "Measurement Set"


def test_subtables_say_what_the_telescope_is(ms: Path) -> None:
    def read(name: str, column: str) -> object:
        with ct.table(f"{ms}/{name}", ack=False) as table:
            return table.getcol(column)

    assert read("OBSERVATION", "TELESCOPE_NAME") == ["OVRO_MMA"]
    assert read("POLARIZATION", "CORR_TYPE").tolist() == [[9, 10, 11, 12]]
    assert all(name.startswith("LWA") and "-" not in name and len(name) == 6 for name in read("ANTENNA", "NAME"))
    frequency = read("SPECTRAL_WINDOW", "CHAN_FREQ")[0]
    assert frequency[0] == 13_398_437.5 + 13 * 192 * 196e6 / 8192
    assert np.diff(frequency) == pytest.approx(196e6 / 8192, abs=1e-6)
    assert read("FEED", "POLARIZATION_TYPE")["array"][:2] == ["X", "Y"]


def test_casacore_knows_the_place(ms: Path) -> None:
    from casacore.measures import measures

    with ct.table(f"{ms}/OBSERVATION", ack=False) as table:
        place = measures().observatory(table.getcell("TELESCOPE_NAME", 0))
    assert np.degrees(place["m1"]["value"]) == pytest.approx(37.24, abs=0.05)
