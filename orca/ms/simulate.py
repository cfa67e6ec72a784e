"""Measurement Sets as the telescope would record them, of a sky that is known: `orca simulate`.

What is in them: the bright sources of `orca.sky` as unpolarized points, a bandpass and a delay for each antenna,
noise, and on request interference, dead antennas and dead subbands. What is true is written beside (`orca.ms.truth`).

V_pq = g_p (M + N) g_q*, with M = sum S exp(+2 pi i (u l + v m + w (n - 1)) / lambda); p is ANTENNA1, q is ANTENNA2.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from orca import naming, sky, telescope
from orca.errors import InputError, StorageError
from orca.ms import synthetic, truth
from orca.ms.layout import Recording, create_recording
from orca.ms.predict import fill_block
from orca.scratch import require_space

ROWS_PER_BLOCK = 1024
BLOCKS_AHEAD = 3
"""Blocks that are computed while one is written; each takes 2 threads and 6 MB at full size."""
_NOISE_STREAM = 4
_SAMPLE_BYTES, _ROW_BYTES, _SUBTABLE_BYTES = 33, 320, 4_000_000  # a little more than files of any size have


class SimulationOptions(BaseModel):
    """What to simulate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subbands: tuple[str, ...] = Field(default=("73MHz",), min_length=1, description="Names of subbands, such as 73MHz")
    start: datetime = Field(default=datetime(2026, 1, 10, 18, tzinfo=UTC), description="Start of the first one, UTC")
    integrations: int = Field(default=1, ge=1, description="Number of consecutive integrations of 10.031 s")
    antennas: int = Field(default=telescope.N_ANTENNAS, ge=4, le=telescope.N_ANTENNAS, description="Number of antennas")
    channels: int = Field(
        default=telescope.N_CHANNELS,
        ge=1,
        le=telescope.N_CHANNELS,
        description="Channels, from the first of the subband",
    )
    gains: bool = Field(default=True, description="Give each antenna a bandpass and a delay; without, all gains are 1")
    noise: float = Field(default=1.0, ge=0, description="Noise relative to the telescope's; 0 for none")
    rfi: int = Field(default=0, ge=0, description="Number of narrow lines of interference in each subband")
    dead_antennas: tuple[int, ...] = Field(default=(), description="Correlator numbers that hear nothing")
    dead_subbands: tuple[str, ...] = Field(default=(), description="Subbands that are recorded as zeros")
    min_elevation_deg: float = Field(default=2.0, ge=0, lt=90, description="Sources below this elevation are left out")
    seed: int = Field(default=0, ge=0, description="Seed of gains, noise and interference")
    tar: bool = Field(default=False, description="Write .ms.tar, as the recorder does since 2026")

    @field_validator("start")
    @classmethod
    def _in_utc(cls, value: datetime) -> datetime:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    @field_validator("subbands", "dead_subbands")
    @classmethod
    def _known_subbands(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(telescope.subband(name).name for name in names))

    @model_validator(mode="after")
    def _dead_antennas_exist(self) -> SimulationOptions:
        wrong = [number for number in self.dead_antennas if not 0 <= number < self.antennas]
        if wrong:
            raise ValueError(f"there is no antenna {wrong[0]}: the array has 0 to {self.antennas - 1}")
        return self


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
    """(n_antennas, n_channels, 2) complex64: what a unit of sky or noise becomes, dead antennas included."""
    alive: np.ndarray
    """(n_antennas,) float32: 0 for antennas that do not hear the sky."""
    sefd_jy: np.ndarray
    """(n_channels,) float32, of one antenna."""


def make_instrument(options: SimulationOptions, subband: telescope.Subband, array: synthetic.Antennas) -> Instrument:
    """Draw the gains of a subband."""
    frequency = subband.frequencies_hz(options.channels)
    shape = (options.antennas, options.channels, 2)
    bandpass = np.ones(shape, complex)
    delay = np.zeros((options.antennas, 2))
    if options.gains:
        bandpass = synthetic.bandpass(array.index, subband, frequency, options.seed)
        delay = synthetic.delays_ns(array.index, options.seed)
    dead = np.zeros(options.antennas, bool)
    dead[list(options.dead_antennas)] = True
    true = truth.make_truth(array.names, frequency, bandpass, delay, dead)
    voltage = true.gains.copy()
    voltage[dead] = synthetic.DEAD_NOISE * bandpass[dead]
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
        with create_recording(inner, recording, uvw) as table:
            flag = np.zeros((ROWS_PER_BLOCK, options.channels, 4), bool)
            for row, data in _visibilities(options, instrument, recording, uvw):
                n = len(data)
                table.putcol("DATA", data, row, n)
                table.putcol("FLAG", flag[:n], row, n)
                yield n
        if first:
            truth.write(root, observation.subband, instrument.truth, recording, like_ms=inner)
        sources = sky.sources_up(recording.centroid_s, options.min_elevation_deg)
        truth.write_sky(root, observation, recording, sources)
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


def _visibilities(
    options: SimulationOptions, instrument: Instrument, recording: Recording, uvw_m: np.ndarray
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
    sources = sky.sources_up(recording.centroid_s, options.min_elevation_deg)
    flux = np.array([s.flux_jy(frequency, sky.epoch_year(recording.centroid_s)) for s in sources], float)
    flux = flux.reshape(len(sources), frequency.size)
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
            data, p, q, uvw_m, frequency, cosines, flux, instrument.voltage, instrument.alive,
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
