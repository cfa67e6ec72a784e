"""Measurement Sets as the telescope would record them, of a sky that is known: `orca simulate`.

What is in them: the bright sources of `orca.sky` as unpolarized points, weakened by the pattern of the dipoles; a gain
with a delay for each antenna; noise; and on request interference, dead antennas, polarizations and subbands. What is
true is written beside (`orca.ms.truth`).

V_pq = g_p (M + N) g_q*, with M = sum A S exp(+2 pi i (u l + v m + w (n - 1)) / lambda), where A is the power of the
dipoles (`orca.beam`); p is ANTENNA1, q is ANTENNA2.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np

from orca import naming, sky, telescope
from orca.beam import ANALYTIC
from orca.errors import InputError, StorageError
from orca.ms import synthetic, truth
from orca.ms.layout import Recording, create_recording
from orca.ms.predict import fill_block
from orca.ms.simulation_options import SimulationOptions
from orca.scratch import require_space

ROWS_PER_BLOCK = 1024
BLOCKS_AHEAD = 3
"""Blocks that are computed while one is written; each takes 2 threads and 6 MB at full size."""
_NOISE_STREAM = 4
_SAMPLE_BYTES, _ROW_BYTES, _SUBTABLE_BYTES = 33, 320, 4_000_000  # a little more than files of any size have

Progress = Callable[[int, int], None]
"""Called with the rows done and the rows in all."""


def simulate(
    root: Path, options: SimulationOptions, progress: Progress | None = None, *, force: bool = False
) -> list[Path]:
    """Write Measurement Sets below `root` as the recorder does, and the truth into `root`/truth.

    Parameters
    ----------
    root : Path
        Root of the raw data; made if it is not there.
    options : SimulationOptions
    progress : callable, optional
        Told after each block of rows how many rows are done, and how many there are.
    force : bool
        Replace what is there.

    Returns
    -------
    list of Path
        The Measurement Sets (or their tars), subband by subband, in the order of time.

    Raises
    ------
    InputError
        One of the files is there already (and `force` is not given).
    StorageError
        The folder cannot be written, or has too little space.
    """
    n_rows = options.antennas * (options.antennas + 1) // 2
    each = n_rows * (options.channels * _SAMPLE_BYTES + _ROW_BYTES) + _SUBTABLE_BYTES
    require_space(root, each * (len(options.subbands) * options.integrations + options.tar), "the simulation")
    subbands = [telescope.subband(name) for name in options.subbands]
    starts = [options.start + timedelta(seconds=i * telescope.INTEGRATION_S) for i in range(options.integrations)]
    paths = {
        (band.name, start): naming.raw_path(root, naming.Observation(band.name, start), tar=options.tar)
        for band in subbands
        for start in starts
    }
    there = [path for path in paths.values() if path.exists()]
    if there and not force:
        raise InputError("exists already", there[0], "Choose another folder or start, or replace it with --force.")
    array = synthetic.antennas(options.antennas)
    instruments = [make_instrument(options, band, array) for band in subbands]
    for instrument in instruments:
        other = truth.contradicts(root, instrument.subband.name, instrument.truth)
        if other and not force:
            raise InputError("holds the truth of another simulation", other, "Choose another folder, or use --force.")
    done, total = 0, len(paths) * n_rows
    for instrument in instruments:
        for i, start in enumerate(starts):
            path = paths[instrument.subband.name, start]
            for n in _write_recording(path, options, instrument, start, first=i == 0, root=root):
                done += n
                if progress:
                    progress(done, total)
    return list(paths.values())


@dataclass(frozen=True)
class Instrument:
    """What stays the same over the integrations of a subband; see `truth.Truth` for the gains."""

    subband: telescope.Subband
    array: synthetic.Antennas
    truth: truth.Truth
    voltage: np.ndarray
    """(n_antennas, n_channels, 2) complex64: what a unit of sky or noise becomes, what is dead included."""
    alive: np.ndarray
    """(n_antennas, 2) float32: 0 for X and Y that do not hear the sky."""
    sefd_jy: np.ndarray
    """(n_channels,) float32, of one antenna."""


def make_instrument(options: SimulationOptions, subband: telescope.Subband, array: synthetic.Antennas) -> Instrument:
    """Draw the gains of a subband."""
    frequency = subband.frequencies_hz(options.channels)
    gains = np.ones((options.antennas, options.channels, 2), complex)
    delay = np.zeros((options.antennas, 2))
    if options.gains:
        gains = synthetic.gains(array.index, subband, frequency, options.seed)
        delay = synthetic.delays_ns(array.index, options.seed)
    dead = np.zeros((options.antennas, 2), bool)
    dead[list(options.dead_antennas)] = True
    for antenna, polarization in options.dead_feeds:
        dead[antenna, polarization] = True
    true = truth.make_truth(array.names, frequency, gains, delay, dead)
    voltage = np.where(dead[:, None, :], synthetic.DEAD_NOISE * gains, true.gains).astype(np.complex64)
    sefd = options.noise * synthetic.antenna_sefd_jy(frequency)
    return Instrument(subband, array, true, voltage, (~dead).astype(np.float32), sefd.astype(np.float32))


def _write_recording(
    path: Path, options: SimulationOptions, instrument: Instrument, start: datetime, *, first: bool, root: Path
) -> Iterator[int]:
    """Write one Measurement Set under a hidden name, then rename it; yields numbers of rows."""
    observation = naming.Observation(instrument.subband.name, start)
    scratch = path.with_name(f".{path.name}.part")
    inner = scratch / naming.raw_path(root, observation).name
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        recording, uvw = _record(options, instrument, start)
        sources = sky.sources_up(recording.centroid_s, options.min_elevation_deg)
        flux = _apparent_jy(options, recording, sources)
        with create_recording(inner, recording, uvw) as table:
            flag = np.zeros((ROWS_PER_BLOCK, options.channels, 4), bool)
            for row, data in _visibilities(options, instrument, recording, uvw, sources, flux):
                n = len(data)
                table.putcol("DATA", data, row, n)
                table.putcol("FLAG", flag[:n], row, n)
                yield n
        if first:
            truth.write(root, observation.subband, instrument.truth, recording, like_ms=inner)
        truth.write_sky(root, observation, recording, sources, flux)
        _finish(_pack(inner, scratch / path.name) if options.tar else inner, path)
    except OSError as error:
        raise StorageError(
            f"cannot be written ({error.strerror or error})", path, "Choose another folder, or free some space."
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _pack(ms: Path, tar: Path) -> Path:
    with tarfile.open(tar, "w") as archive:
        archive.add(ms, ms.name)
    return tar


def _finish(whole: Path, path: Path) -> None:
    """Rename what is complete to its name; what had the name is removed first."""
    if path.is_dir():
        shutil.rmtree(path)
    whole.replace(path)


def _record(options: SimulationOptions, instrument: Instrument, start: datetime) -> tuple[Recording, np.ndarray]:
    """The integration that starts at `start`, and the UVW of its antennas; phase centre is the zenith at its middle."""
    start_s = telescope.time_s_of(start)
    centroid_s = start_s + telescope.INTEGRATION_S / 2
    centre = telescope.zenith_rad(centroid_s)
    recording = Recording(
        antenna_names=instrument.array.names,
        positions_m=instrument.array.itrf_m,
        frequency_hz=instrument.truth.frequency_hz,
        channel_width_hz=telescope.CHANNEL_WIDTH_HZ,
        start_s=start_s,
        integration_s=telescope.INTEGRATION_S,
        phase_centre_rad=(float(centre[0]), float(centre[1])),
        fill_level=0.0 if instrument.subband.name in options.dead_subbands else 1.0,
    )
    return recording, telescope.uvw_m(recording.positions_m, *recording.phase_centre_rad, centroid_s)


def _apparent_jy(options: SimulationOptions, recording: Recording, sources: list[sky.SourceUp]) -> np.ndarray:
    """What X and Y see of each source, (n_sources, n_channels, 2)."""
    frequency, year = recording.frequency_hz, sky.epoch_year(recording.centroid_s)
    flux = np.array([s.flux_jy(frequency, year) for s in sources], float).reshape(len(sources), frequency.size, 1)
    if not options.beam:
        return np.repeat(flux, 2, axis=2)
    azimuth, elevation = (np.radians([s.azimuth_deg for s in sources]), np.radians([s.elevation_deg for s in sources]))
    return flux * ANALYTIC.power(azimuth, elevation, frequency)


def _visibilities(
    options: SimulationOptions,
    instrument: Instrument,
    recording: Recording,
    uvw_m: np.ndarray,
    sources: list[sky.SourceUp],
    flux_jy: np.ndarray,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first row, DATA) block after block, computed a few blocks ahead on two threads.

    Each block has a random generator of its own, so the numbers do not depend on what else is simulated.
    """
    first, second = recording.baselines
    blocks = range(0, first.size, ROWS_PER_BLOCK)
    if instrument.subband.name in options.dead_subbands:
        for row in blocks:
            yield row, np.zeros((min(ROWS_PER_BLOCK, first.size - row), options.channels, 4), np.complex64)
        return
    frequency = recording.frequency_hz
    centre = recording.phase_centre_rad
    cosines = np.array([telescope.lmn(s.ra_rad, s.dec_rad, *centre) for s in sources], float).reshape(-1, 3) - (0, 0, 1)
    rfi = synthetic.interference(
        options.rfi, options.antennas, options.channels, instrument.subband.index, recording.start_s, options.seed
    )

    def compute(row: int) -> np.ndarray:
        rows = slice(row, row + ROWS_PER_BLOCK)
        p, q = first[rows], second[rows]
        rng = np.random.Generator(
            np.random.SFC64([options.seed, _NOISE_STREAM, instrument.subband.index, round(recording.start_s), row])
        )
        shape = (p.size, options.channels, 8)
        noise = rng.standard_normal(shape, np.float32) if options.noise else np.zeros(shape, np.float32)
        data = noise.view(np.complex64)
        fill_block(
            data, p, q, uvw_m, frequency, cosines, flux_jy, instrument.voltage, instrument.alive,
            instrument.sefd_jy, synthetic.noise_jy(instrument.sefd_jy), rfi.line, rfi.voltage,
        )  # fmt: skip
        return data

    with ThreadPoolExecutor(2) as pool:
        waiting = {}
        for row in blocks:
            for ahead in blocks[row // ROWS_PER_BLOCK :][: BLOCKS_AHEAD + 1]:
                if ahead not in waiting:
                    waiting[ahead] = pool.submit(partial(compute, ahead))
            yield row, waiting.pop(row).result()
