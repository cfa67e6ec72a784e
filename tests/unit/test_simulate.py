"""The simulator: what the telescope writes, with values that independent formulas confirm."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import AltAz, EarthLocation, SkyCoord
from astropy.io import fits
from astropy.time import Time
from astropy.wcs import WCS
from casacore import tables as ct
from pydantic import ValidationError

from orca import naming, sky, telescope
from orca.calibration.tables import read_table
from orca.errors import InputError, InvalidDataError, StorageError
from orca.ms import synthetic
from orca.ms.predict import fill_block
from orca.ms.simulate import SimulationOptions, make_instrument, simulate
from orca.ms.truth import read_truth, sky_path, truth_paths

START = datetime(2026, 1, 10, 18, tzinfo=UTC)
MakeMs = Callable[..., Path]
CLEAN = {"noise": 0.0, "gains": False, "rfi": 0}


def column(ms: Path, name: str, subtable: str = "") -> np.ndarray:
    with ct.table(str(ms / subtable), ack=False, lockoptions="usernoread") as table:
        return np.asarray(table.getcol(name))


def centroid(ms: Path) -> Time:
    return Time(column(ms, "TIME_CENTROID")[0] / 86400, format="mjd", scale="utc")


def sources_of(ms: Path) -> list[sky.SourceUp]:
    return sky.sources_up(column(ms, "TIME_CENTROID")[0], 2.0)


def seen_by(ms: Path, source: sky.Source, frequency: np.ndarray | float) -> np.ndarray:
    """Flux density as the dipoles receive it: the elevation by astropy, the pattern by its formula."""
    place = EarthLocation.from_geodetic(-118.2816667, 37.23977727, 1183.48)
    altaz = SkyCoord(source.ra_rad, source.dec_rad, unit="rad").transform_to(
        AltAz(obstime=centroid(ms), location=place)
    )
    return source.flux_jy(frequency, centroid(ms).jyear) * np.sin(altaz.alt.rad) ** 1.6


def test_files_are_where_the_recorder_puts_them(simulations: Callable[..., list[Path]]) -> None:
    paths = simulations(integrations=3, subbands=("18MHz", "73MHz"), antennas=8, channels=4)
    root = paths[0].parents[3]
    assert [str(path.relative_to(root)) for path in paths] == [
        f"{band}/2026-01-10/18/20260110_1800{second}_{band}.ms"
        for band in ("18MHz", "73MHz")
        for second in ("00", "10", "20")
    ]
    assert sorted(p.name for p in root.iterdir()) == ["18MHz", "73MHz", "truth"]
    assert [naming.parse(path).start for path in paths[:3]] == [START + timedelta(seconds=s) for s in (0, 10, 20)]


def test_time_is_the_start_and_the_centroid_the_middle(simulations: Callable[..., list[Path]]) -> None:
    for i, ms in enumerate(simulations(integrations=3, subbands=("18MHz", "73MHz"), antennas=8, channels=4)[:3]):
        start = START.timestamp() + 40587 * 86400 + i * 240000 * 8192 / 196e6  # MJD of 1970 is 40587
        assert column(ms, "TIME") == pytest.approx(start, abs=1e-5, rel=0)
        assert column(ms, "TIME_CENTROID") == pytest.approx(start + 5.015510204, abs=1e-5, rel=0)
        assert column(ms, "INTERVAL") == pytest.approx(10.031020408, abs=1e-9)


def test_the_phase_centre_is_the_zenith_at_the_middle_of_each_integration(
    simulations: Callable[..., list[Path]],
) -> None:
    place = EarthLocation.from_geodetic(-118.2816667, 37.23977727, 1183.48)
    for ms in simulations(integrations=3, subbands=("18MHz", "73MHz"), antennas=8, channels=4)[:3]:
        ra, dec = column(ms, "PHASE_DIR", "FIELD")[0, 0]
        seen = SkyCoord(ra, dec, unit="rad").transform_to(AltAz(obstime=centroid(ms), location=place))
        assert seen.alt.deg == pytest.approx(90, abs=1e-4)


def test_visibilities_are_the_sum_of_point_sources(make_ms: MakeMs) -> None:
    """Every sample, by the defining formula in double precision with l, m, n from astropy."""
    ms = make_ms(**CLEAN)
    centre = SkyCoord(*column(ms, "PHASE_DIR", "FIELD")[0, 0], unit="rad")
    frequency, uvw = column(ms, "CHAN_FREQ", "SPECTRAL_WINDOW")[0], column(ms, "UVW")
    sources = sources_of(ms)
    assert {s.name for s in sources} >= {"Cyg A", "Cas A"}
    expected = np.zeros((len(uvw), len(frequency)), complex)
    for source in sources:
        offset = SkyCoord(source.ra_rad, source.dec_rad, unit="rad").transform_to(centre.skyoffset_frame())
        n, l, m = offset.cartesian.xyz.value
        delay_s = uvw @ np.array([l, m, n - 1]) / 299792458.0
        expected += seen_by(ms, source, frequency) * np.exp(2j * np.pi * delay_s[:, None] * frequency)
    data = column(ms, "DATA")
    assert np.abs(data[:, :, 0] - expected).max() < 3e-6 * np.abs(expected).max()
    assert np.array_equal(data[:, :, 3], data[:, :, 0])
    assert not data[:, :, 1:3].any()


def test_fringes_turn_the_right_way_for_a_source_that_rises_in_the_east(make_ms: MakeMs) -> None:
    """Without UVW: the wave reaches the antenna that is nearer to the source first."""
    ms = make_ms(**CLEAN)
    place = EarthLocation.from_geocentric(*column(ms, "POSITION", "ANTENNA").T, unit="m")
    middle = EarthLocation.from_geodetic(-118.2816667, 37.23977727, 1183.48)
    frame = AltAz(obstime=centroid(ms), location=middle)
    centre = SkyCoord(*column(ms, "PHASE_DIR", "FIELD")[0, 0], unit="rad").transform_to(frame).cartesian.xyz.value
    xyz = np.array([place.x.value, place.y.value, place.z.value]).T - [middle.x.value, middle.y.value, middle.z.value]
    lon, lat = np.radians([-118.2816667, 37.23977727])
    north = np.array([-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)])
    up = np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    nen = xyz @ np.array([north, [-np.sin(lon), np.cos(lon), 0], up]).T  # north, east, up, as AltAz's cartesian axes
    frequency = column(ms, "CHAN_FREQ", "SPECTRAL_WINDOW")[0, 0]
    p, q = column(ms, "ANTENNA1"), column(ms, "ANTENNA2")
    baseline = nen[q] - nen[p]
    expected = np.zeros(len(p), complex)
    for source in sources_of(ms):
        towards = SkyCoord(source.ra_rad, source.dec_rad, unit="rad").transform_to(frame).cartesian.xyz.value
        ahead_s = baseline @ (towards - centre) / 299792458.0
        expected += seen_by(ms, source, frequency) * np.exp(2j * np.pi * ahead_s * frequency)
    short = np.linalg.norm(baseline, axis=1) < 150  # differential aberration turns long ones by some degrees
    assert short.sum() > 100
    error = np.abs(column(ms, "DATA")[short, 0, 0] - expected[short])
    assert error.max() < 0.01 * np.abs(expected).max()


def test_wsclean_finds_cyg_a_at_its_place_and_not_mirrored(copy_ms: MakeMs, tmp_path: Path) -> None:
    ms = copy_ms(**CLEAN, antennas=48)
    argv = shlex.split("wsclean -no-update-model-required -no-reorder -pol I -size 1024 1024 -scale 0.1deg -niter 0")
    argv += ["-weight", "briggs", "0", "-maxuv-l", "150", "-j", "2", "-name", "sky", str(ms)]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    with fits.open(tmp_path / "sky-dirty.fits") as file:
        image, wcs = file[0].data[0, 0], WCS(file[0].header).celestial
    for source in [s for s in sources_of(ms) if s.name in ("Cyg A", "Cas A")]:
        x, y = (float(v) for v in wcs.world_to_pixel(SkyCoord(source.ra_rad, source.dec_rad, unit="rad")))
        corner_y, corner_x = int(y) - 5, int(x) - 5
        near = image[corner_y : corner_y + 11, corner_x : corner_x + 11]
        peak_y, peak_x = np.unravel_index(near.argmax(), near.shape)
        assert np.hypot(corner_x + peak_x - x, corner_y + peak_y - y) < 1
        flux = seen_by(ms, source, column(ms, "CHAN_FREQ", "SPECTRAL_WINDOW")[0].mean())
        assert near.max() == pytest.approx(flux, rel=0.2)
        for mirrored in (image[round(y), 1024 - round(x)], image[1024 - round(y), round(x)]):
            assert mirrored < 0.5 * flux


def test_without_the_beam_sources_have_their_full_flux(make_ms: MakeMs) -> None:
    ms = make_ms(**CLEAN, beam=False)
    p, q = column(ms, "ANTENNA1"), column(ms, "ANTENNA2")
    frequency = column(ms, "CHAN_FREQ", "SPECTRAL_WINDOW")[0]
    full = sum(s.flux_jy(frequency, centroid(ms).jyear) for s in sources_of(ms))
    power = column(ms, "DATA")[p == q]
    np.testing.assert_allclose(power[:, :, 0], np.tile(full, (24, 1)), rtol=1e-6)


def test_x_and_y_see_what_their_own_patterns_leave() -> None:
    """The kernel beside the sum that it stands for, with other fluxes in X than in Y and one deaf polarization."""
    rng = np.random.default_rng(4)
    n_antennas, n_channels, n_sources = 5, 7, 3
    p, q = (i.astype(np.int32) for i in np.triu_indices(n_antennas))
    uvw, frequency = rng.normal(0, 300, (n_antennas, 3)), 60e6 + 24e3 * np.arange(n_channels)
    cosines = rng.normal(0, 0.4, (n_sources, 3))
    flux = rng.uniform(100, 9000, (n_sources, n_channels, 2))
    voltage = (rng.normal(size=(n_antennas, n_channels, 2)) + 1j).astype(np.complex64)
    alive = np.ones((n_antennas, 2), np.float32)
    alive[2, 1] = 0
    data = np.zeros((p.size, n_channels, 4), np.complex64)
    nothing = np.zeros(n_channels, np.float32)
    fill_block(
        data, p, q, uvw, frequency, cosines, flux, voltage, alive, nothing, nothing,
        np.full(n_channels, -1, np.int32), np.zeros((0, n_antennas, 2), np.complex64),
    )  # fmt: skip
    path = (uvw[q] - uvw[p]) @ cosines.T
    phase = np.exp(2j * np.pi * path[:, :, None] * frequency / 299792458.0)
    for k, pol in ((0, 0), (3, 1)):
        model = (phase * flux[None, :, :, pol]).sum(1) * (alive[p] * alive[q])[:, pol, None]
        expected = voltage[p, :, pol] * model * voltage[q, :, pol].conj()
        np.testing.assert_allclose(data[:, :, k], expected, atol=1e-5 * np.abs(expected).max())
    assert not data[:, :, 1:3].any()


def test_a_delay_can_be_fitted_over_all_subbands() -> None:
    """A straight line through the unwrapped phases of the truth, as it is in the gains and in the two tables."""
    options = SimulationOptions(antennas=6, channels=8)
    array = synthetic.antennas(6)
    truths = [make_instrument(options, band, array).truth for band in telescope.SUBBANDS]
    for truth in truths:
        turns = truth.delays_ns[:, None, :] * 1e-9 * (truth.frequency_hz - truth.delay_reference_hz)[None, :, None]
        np.testing.assert_allclose(truth.gains, truth.bandpass * np.exp(2j * np.pi * turns), atol=1e-6)
        assert truth.delay_reference_hz == pytest.approx(truth.frequency_hz.mean())
    high = [truth for truth in truths if truth.frequency_hz[0] > 40e6]
    assert len(high) == 10
    frequency = np.concatenate([truth.frequency_hz for truth in high])
    true_s = truths[0].delays_ns * 1e-9
    # unwrapped from channel to channel, the gaps between subbands with the delay that is already known
    gains = np.concatenate([truth.gains for truth in high], axis=1)
    expected = 2 * np.pi * true_s[:, None, :] * (frequency - frequency[0])[None, :, None]
    left = np.unwrap(np.angle(gains * np.exp(-1j * expected)), axis=1)
    lines = np.polynomial.polynomial.polyfit(frequency - 64e6, (left + expected).transpose(1, 0, 2).reshape(80, 12), 1)
    found_ns = lines[1].reshape(6, 2) / (2 * np.pi) * 1e9
    assert np.std(found_ns - truths[0].delays_ns) < 0.05
    assert np.ptp(left, axis=1).max() < 2.5  # no jump by a turn was unwrapped
    bend = left - left.mean(axis=1, keepdims=True)
    assert 0.08 < bend.std() < 0.25


def test_the_phase_of_an_antenna_goes_on_smoothly_from_subband_to_subband() -> None:
    """With all channels the next subband begins where a straight line from the last one arrives."""
    options = SimulationOptions(antennas=4)
    array = synthetic.antennas(4)
    gains = np.concatenate([make_instrument(options, band, array).truth.gains for band in telescope.SUBBANDS], axis=1)
    step = np.angle(gains[:, 1:] * gains[:, :-1].conj())
    assert gains.shape[1] == 3072
    assert np.abs(np.diff(step, axis=1)).max() < 1e-4


def test_gains_are_those_of_the_truth(make_ms: MakeMs, root_of: Callable[[Path], Path]) -> None:
    """V = g_p M g_q*, with g = exp(+2 pi i tau (nu - nu0)) B."""
    bare, ms = make_ms(**CLEAN), make_ms(noise=0.0)
    truth = read_truth(root_of(ms), "73MHz")
    g, p, q = truth.gains, column(ms, "ANTENNA1"), column(ms, "ANTENNA2")
    data, model = column(ms, "DATA"), column(bare, "DATA")
    for k, (i, j) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        expected = g[p, :, i] * model[:, :, k] * g[q, :, j].conj()
        assert np.abs(data[:, :, k] - expected).max() <= 1e-6 * np.abs(model).max()
    offset = truth.frequency_hz - truth.frequency_hz.mean()
    turns = np.exp(2j * np.pi * truth.delays_ns[:, None, :] * 1e-9 * offset[None, :, None])
    assert np.abs(turns * truth.bandpass - truth.gains).max() < 1e-6
    assert truth.delays_ns.std() == pytest.approx(15, rel=0.3)
    assert np.abs(truth.bandpass).std() > 0.1


def test_casa_tables_hold_the_truth(make_ms: MakeMs, root_of: Callable[[Path], Path]) -> None:
    ms = make_ms(noise=0.0, dead_antennas=(3,))
    truth, paths = read_truth(root_of(ms), "73MHz"), truth_paths(root_of(ms), "73MHz")
    (delay,), (bandpass,) = read_table(paths.delay), read_table(paths.bandpass)
    assert delay.antenna_names == bandpass.antenna_names == truth.antenna_names
    offset = truth.frequency_hz - delay.frequency_hz[0]
    turns = np.exp(2j * np.pi * delay.values[0].astype(float) * 1e-9 * offset[None, :, None])
    alive = ~truth.dead
    assert np.abs((turns * bandpass.values[0] - truth.gains)[alive]).max() < 1e-5
    assert delay.flags[0].all((1, 2)).tolist() == bandpass.flags[0].all((1, 2)).tolist() == truth.dead.tolist()


def test_an_antenna_has_the_same_place_and_gain_in_every_array_and_delay_in_every_subband(
    make_ms: MakeMs, root_of: Callable[[Path], Path], simulations: Callable[..., list[Path]]
) -> None:
    large = read_truth(root_of(make_ms(noise=0.0)), "73MHz")
    paths = simulations(antennas=12, channels=16, subbands=("18MHz", "73MHz"), noise=0.0)
    small, other = (read_truth(root_of(paths[0]), band) for band in ("73MHz", "18MHz"))
    where = [large.antenna_names.index(name) for name in small.antenna_names]
    assert np.array_equal(large.gains[where], small.gains)
    assert np.array_equal(other.delays_ns, small.delays_ns)
    assert not np.allclose(other.bandpass, small.bandpass)


def test_noise_is_that_of_the_telescope(make_ms: MakeMs) -> None:
    """TELESCOPE: the array's SEFD is 5070 Jy at 55 MHz; a baseline's noise is SEFD / sqrt(2 bandwidth time) a part."""
    quiet, ms = make_ms(**CLEAN, subbands=("55MHz",)), make_ms(gains=False, subbands=("55MHz",))
    p, q = column(ms, "ANTENNA1"), column(ms, "ANTENNA2")
    noise = (column(ms, "DATA") - column(quiet, "DATA"))[p != q]
    frequency = column(ms, "CHAN_FREQ", "SPECTRAL_WINDOW")[0, 0]
    sefd = 352 * 5070 * (frequency / 55e6) ** -2.55
    sigma = sefd / np.sqrt(2 * 23925.78125 * 10.031020408)
    assert noise.real.std() == pytest.approx(sigma, rel=0.03)
    assert noise.imag.std() == pytest.approx(sigma, rel=0.03)
    assert abs(noise.mean()) < 5 * sigma / np.sqrt(noise.size)
    autos = column(ms, "DATA")[p == q]
    flux = sum(seen_by(ms, s, frequency) for s in sources_of(ms))
    assert autos[:, :, [0, 3]].real.mean() == pytest.approx(sefd + flux, rel=0.01)
    assert not autos[:, :, [0, 3]].imag.any()
    assert np.array_equal(autos[:, :, 1], autos[:, :, 2].conj())


def test_equal_options_give_equal_files_and_a_seed_changes_them(make_ms: MakeMs, tmp_path: Path) -> None:
    options = {"antennas": 24, "channels": 16}
    again = simulate(tmp_path / "a", SimulationOptions(**options))[0]
    other = simulate(tmp_path / "b", SimulationOptions(**options, seed=1))[0]
    assert np.array_equal(column(again, "DATA"), column(make_ms(), "DATA"))
    assert not np.allclose(column(other, "DATA"), column(again, "DATA"))


def test_interference_is_in_as_many_channels_as_asked_for(make_ms: MakeMs) -> None:
    difference = np.abs(column(make_ms(rfi=3, noise=0.0), "DATA") - column(make_ms(noise=0.0), "DATA"))
    assert np.count_nonzero(difference.max((0, 2)) > 1000) == 3


def test_dead_antennas_hear_nothing_but_themselves(make_ms: MakeMs) -> None:
    ms, alive = make_ms(dead_antennas=(3, 7), dead_polarizations=("7X",)), make_ms()
    p, q = column(ms, "ANTENNA1"), column(ms, "ANTENNA2")
    dead = np.isin(p, (3, 7)) | np.isin(q, (3, 7))
    data = column(ms, "DATA")
    assert np.array_equal(data[~dead], column(alive, "DATA")[~dead])
    cross = dead & (p != q)
    assert 0 < np.abs(data[cross]).mean() < 0.1 * np.abs(data[~dead & (p != q)]).mean()
    assert not column(make_ms(dead_antennas=(3, 7), noise=0.0), "DATA")[dead].any()


def test_a_dead_polarization_leaves_the_other_one(make_ms: MakeMs, root_of: Callable[[Path], Path]) -> None:
    ms, alive = make_ms(dead_polarizations=("5x", "6Y")), make_ms()
    p, q = column(ms, "ANTENNA1"), column(ms, "ANTENNA2")
    data, good = column(ms, "DATA"), column(alive, "DATA")
    dead = {(5, 0), (6, 1)}
    for k, (i, j) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        touched = np.array([(a, i) in dead or (b, j) in dead for a, b in zip(p, q, strict=True)])
        assert np.array_equal(data[~touched, :, k], good[~touched, :, k])
        assert np.abs(data[touched & (p != q), :, k]).mean() < 0.1 * np.abs(good[touched & (p != q), :, k]).mean()
    quiet = make_ms(dead_polarizations=("5x", "6Y"), noise=0.0)
    assert not column(quiet, "DATA")[(p == 5) & (q != 5), :, 0].any()
    truth, paths = read_truth(root_of(ms), "73MHz"), truth_paths(root_of(ms), "73MHz")
    assert {(int(a), int(i)) for a, i in np.argwhere(truth.dead_polarizations)} == dead
    assert not truth.dead.any()
    assert not truth.gains[5, :, 0].any()
    assert truth.gains[5, :, 1].all()
    for table in (paths.bandpass, paths.delay):
        [solutions] = read_table(table)
        assert {(int(a), int(i)) for a, i in np.argwhere(solutions.flags[0].all(1))} == dead


def test_a_dead_subband_is_a_normal_file_full_of_zeros(make_ms: MakeMs) -> None:
    ms = make_ms(dead_subbands=("73MHz",))
    assert not column(ms, "DATA").any()
    with ct.table(str(ms), ack=False) as table:
        assert table.getkeyword("FILL_LEVEL_0") == 0
    with ct.table(str(make_ms()), ack=False) as table:
        assert table.getkeyword("FILL_LEVEL_0") == 1


def test_a_tar_holds_the_measurement_set_and_nothing_else_is_left(make_ms: MakeMs) -> None:
    path = make_ms(tar=True)
    assert path.name == "20260110_180000_73MHz.ms.tar"
    with tarfile.open(path, "r:") as archive:
        names = archive.getnames()
    assert {name.split("/")[0] for name in names} == {"20260110_180000_73MHz.ms"}
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_sky_of_each_integration_is_told(make_ms: MakeMs, root_of: Callable[[Path], Path]) -> None:
    ms = make_ms(**CLEAN)
    told = json.loads(sky_path(root_of(ms), naming.Observation("73MHz", START)).read_text())
    cyg = next(entry for entry in told["sources"] if entry["name"] == "Cyg A")
    offset = SkyCoord(cyg["ra_rad"], cyg["dec_rad"], unit="rad").transform_to(
        SkyCoord(*told["phase_centre_rad"], unit="rad").skyoffset_frame()
    )
    assert [cyg["n"], cyg["l"], cyg["m"]] == pytest.approx(list(offset.cartesian.xyz.value))
    assert cyg["elevation_deg"] == pytest.approx(np.degrees(np.arcsin(cyg["n"])), abs=0.01)
    assert cyg["flux_jy"] == pytest.approx(sky.CYG_A.flux_jy(told["frequency_hz"], 2026.03), rel=1e-4)
    assert cyg["apparent_jy"] == pytest.approx(seen_by(ms, sky.CYG_A, told["frequency_hz"]), rel=1e-4)
    assert cyg["apparent_jy"] < 0.99 * cyg["flux_jy"]


def test_it_refuses_to_overwrite_or_to_contradict_an_earlier_truth(tmp_path: Path) -> None:
    small = {"antennas": 8, "channels": 4}
    (path,) = simulate(tmp_path, SimulationOptions(**small))
    before = column(path, "DATA")
    with pytest.raises(InputError, match=r"20260110_180000_73MHz\.ms: exists already.*--force"):
        simulate(tmp_path, SimulationOptions(**small, seed=1))
    with pytest.raises(InputError, match="truth of another simulation"):
        simulate(tmp_path, SimulationOptions(**small, seed=1, start=START + timedelta(hours=1)))
    assert np.array_equal(column(path, "DATA"), before)
    simulate(tmp_path, SimulationOptions(**small, start=START + timedelta(hours=1)))
    simulate(tmp_path, SimulationOptions(**small, seed=1), force=True)
    assert not np.array_equal(column(path, "DATA"), before)


def test_the_truth_of_another_version_of_the_simulator_counts_as_another_simulation(tmp_path: Path) -> None:
    small = SimulationOptions(antennas=8, channels=4)
    simulate(tmp_path, small)
    file = truth_paths(tmp_path, "73MHz").arrays
    with np.load(file) as arrays:
        np.savez(file, **{name: value for name, value in arrays.items() if name != "dead_polarizations"})
    with pytest.raises(InvalidDataError, match="another version of the simulator"):
        read_truth(tmp_path, "73MHz")
    later = small.model_copy(update={"start": START + timedelta(hours=1)})
    with pytest.raises(InputError, match="truth of another simulation"):
        simulate(tmp_path, later)
    simulate(tmp_path, later, force=True)
    assert not read_truth(tmp_path, "73MHz").dead.any()


def test_when_it_is_interrupted_nothing_is_visible(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path, SimulationOptions(antennas=8, channels=4), interrupt)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_progress_counts_up_to_all_rows(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    simulate(tmp_path, SimulationOptions(antennas=8, channels=4, integrations=2), lambda d, t: told.append((d, t)))
    assert told[-1] == (72, 72)


def test_too_little_space_is_refused_before_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    huge = SimulationOptions(integrations=1_000_000)
    with pytest.raises(StorageError, match="the simulation needs"):
        simulate(tmp_path, huge)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"antennas": 3},
        {"antennas": 353},
        {"channels": 0},
        {"dead_antennas": (24,), "antennas": 24},
        {"dead_polarizations": ("24X",), "antennas": 24},
        {"dead_polarizations": ("X12",)},
        {"dead_polarizations": ("12Z",)},
    ],
)
def test_impossible_options_are_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        SimulationOptions(**wrong)


def test_an_unknown_subband_is_refused() -> None:
    with pytest.raises(InputError, match="73MHz"):
        SimulationOptions(subbands=("74MHz",))


def test_the_full_array_has_the_telescopes_figures() -> None:
    array = synthetic.antennas(352)
    i, j = np.triu_indices(352, 1)
    length = np.linalg.norm(array.itrf_m[i] - array.itrf_m[j], axis=1)
    assert length.min() == pytest.approx(4.9, abs=0.02)
    assert length.max() == pytest.approx(2366, abs=2)
    assert np.median(length) == pytest.approx(243, rel=0.03)
    assert telescope.split_core(array.itrf_m).sum() == 243
    assert len(set(array.names)) == 352
    assert (array.names[202], array.names[283]) == ("LWA114", "LWA253")


def test_a_small_array_has_core_and_outriggers_and_long_baselines() -> None:
    array = synthetic.antennas(24)
    i, j = np.triu_indices(24, 1)
    assert np.linalg.norm(array.itrf_m[i] - array.itrf_m[j], axis=1).max() > 2000
    assert telescope.split_core(array.itrf_m).sum() == 17
    assert {"LWA114", "LWA253"} <= set(array.names)
    full = synthetic.antennas(352)
    assert [name for name in full.names if name in array.names] == list(array.names)


def orca(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("orca")
    return subprocess.run([str(command), "simulate", *arguments], capture_output=True, text=True)


def test_the_command_writes_and_says_where(tmp_path: Path) -> None:
    small = ["--antennas", "8", "--channels", "4", "--start", "2026-01-10T18:00:00", "--tar"]
    done = orca(str(tmp_path), "--subband", "73MHz", "--subband", "18", "--integrations", "2", "--json", *small)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert len(told["measurement_sets"]) == 4
    assert all(Path(path).is_file() for path in told["measurement_sets"])
    assert all(Path(path).is_dir() for band in ("73MHz", "18MHz") for path in told["truth"][band].values())
    again = orca(str(tmp_path), *small)
    assert again.returncode == 2
    assert len(again.stderr.splitlines()) == 1
    assert "exists already" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--subband", "74MHz"], "no subband"),
        (["--dead-antenna", "9", "--antennas", "8"], "there is no antenna 9"),
        (["--dead-polarization", "9X", "--antennas", "8"], "there is no antenna 9"),
        (["--dead-polarization", "9"], "such as 12X"),
    ],
)
def test_the_command_refuses_what_cannot_be_in_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = orca(str(tmp_path), *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
