"""Spectra of a Measurement Set: mean amplitude, single baselines, autocorrelations, Stokes towards a direction.

Everything is summed in one pass over blocks of rows, so memory does not grow with the data. casacore may abort the
process on what is broken badly enough: call these functions in a child (`orca.isolation`).
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from casacore import tables as ct

from orca.antennas import antenna_key
from orca.calibration.apply import Corrections
from orca.calibration.factors import Factors
from orca.disk import remove
from orca.errors import DataError, InputError, InvalidDataError
from orca.ms.acceptance import Acceptance
from orca.ms.blocks import blocks, cache_small_columns, open_table
from orca.ms.growth import settled
from orca.ms.info import MsInfo
from orca.ms.members import Rejected
from orca.ms.spectrum_kernels import add_amplitudes, add_stokes
from orca.ms.stage import open_source
from orca.spectrum import place_rad
from orca.spectrum_options import CORRELATIONS, STOKES, SpectrumOptions, antenna_pair
from orca.telescope import altaz_rad, lmn

ROWS = 512
"""Rows of a block; of 192 channels 3 MB of DATA."""
_RECEPTORS = {"XX": (0, 0), "XY": (0, 1), "YX": (1, 0), "YY": (1, 1)}


@dataclass(frozen=True)
class Spectra:
    """The spectra of one integration.

    Attributes
    ----------
    source : Path
    subband : str or None
    start_s, centre_s : float
        Of the integration (TIME, TIME_CENTROID), MJD seconds UTC.
    freq_hz : (n_channels,) float
    channel_width_hz : float
    values : dict of (n_channels, n_columns) float32
        By the names of `SpectrumOptions.names`; `orca.spectrum_options.polarizations` says what the columns are,
        whatever was recorded. NaN where nothing is left.
    used : dict of float
        Share of the recorded samples of each that count.
    notes : tuple of str
        What could not be had, such as the spectrum of an antenna that the array does not have.
    seconds, cpu_seconds : float
    peak_memory_bytes : int
        Of the process.
    """

    source: Path
    subband: str | None
    start_s: float
    centre_s: float
    freq_hz: np.ndarray
    channel_width_hz: float
    values: dict[str, np.ndarray]
    used: dict[str, float]
    notes: tuple[str, ...]
    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int


def spectra_of(
    sources: Sequence[Path],
    options: SpectrumOptions = SpectrumOptions(),
    *,
    tables: Sequence[Path] = (),
    bad_antennas: Sequence[int | str] = (),
    acceptance: Acceptance | None = None,
    scratch: Path,
    progress: Callable[[str], None] | None = None,
) -> list[Spectra | Rejected]:
    """The spectra of several Measurement Sets, each on its own: one that cannot be used is named, the others go on.

    Parameters are those of `spectra`, and `progress` is called with how far it is; raises InputError and nothing else.
    """
    found: list[Spectra | Rejected] = []
    factors = Factors(tables)
    for number, source in enumerate(sources):
        if progress and number % 10 == 0:
            progress(f"{number} of {len(sources)}")
        try:
            found.append(_spectra(source, options, factors, bad_antennas, acceptance or Acceptance(), scratch))
        except InputError:
            raise
        except DataError as error:
            of_source = error.path is None or Path(error.path).is_relative_to(source) or source.suffix == ".tar"
            found.append(Rejected(source, error.problem if of_source else f"{error.path}: {error.problem}"))
    return found


def spectra(
    source: Path,
    options: SpectrumOptions = SpectrumOptions(),
    *,
    tables: Sequence[Path] = (),
    bad_antennas: Sequence[int | str] = (),
    acceptance: Acceptance | None = None,
    scratch: Path,
) -> Spectra:
    """The spectra of a Measurement Set of one integration, at the resolution that it has.

    Parameters
    ----------
    source : Path
        A Measurement Set, raw or averaged, or a tar of one; it is only read.
    options : SpectrumOptions
        `calibrate` is the caller's: what counts are the tables.
    tables : paths
        CASA calibration tables to apply.
    bad_antennas : numbers or names
        Antennas to leave out; those that the array does not have are ignored.
    acceptance : Acceptance, optional
    scratch : Path
        Folder that takes what has to be unpacked; it is removed again.

    Raises
    ------
    DataError
        The source or a table is not what it should be.
    InputError
        An antenna to flag or a source of the sky that is not known.
    """
    return _spectra(source, options, Factors(tables), bad_antennas, acceptance or Acceptance(), scratch)


def _spectra(
    source: Path,
    options: SpectrumOptions,
    factors: Factors,
    bad_antennas: Sequence[int | str],
    accept: Acceptance,
    scratch: Path,
) -> Spectra:
    begin, begin_cpu = time.perf_counter(), time.process_time()
    unpacked = None
    try:
        with settled(source, accept.settle_s):  # until all is read: one that changes meanwhile is refused
            info = open_source(source, scratch, accept)
            unpacked = info.path if info.path != source else None
            if len(info.time_s) != 1:
                raise InvalidDataError(f"has {len(info.time_s)} integrations, a recorded file has one", source)
            flagged = [*info.antenna_numbers(options.flag_antennas), *info.known_numbers(bad_antennas)]
            sums = _Sums(info, options, factors.of(info, flagged))
            with open_table(info.path) as table:
                sums.add(table)
            values, used = sums.result()
    finally:
        if unpacked is not None:
            remove(unpacked)
    return Spectra(
        source=source,
        subband=info.subband,
        start_s=info.start_s,
        centre_s=float(info.time_s[0]),
        freq_hz=info.freq_hz,
        channel_width_hz=info.channel_width_hz,
        values=values,
        used=used,
        notes=tuple(sums.notes),
        seconds=time.perf_counter() - begin,
        cpu_seconds=time.process_time() - begin_cpu,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


class _Sums:
    """What is summed over the rows of one Measurement Set.

    Parameters
    ----------
    info : MsInfo
    options : SpectrumOptions
    factors : Corrections
    """

    def __init__(self, info: MsInfo, options: SpectrumOptions, factors: Corrections) -> None:
        self.notes: list[str] = []
        self._info, self._options, self._factors = info, options, factors
        self._amplitudes = np.abs(factors.left), np.abs(factors.right)
        self._pairs = [name for name in options.names if name != options.stokes_name]
        self._wanted, self._first = self._find_pairs()
        self._stored_first = self._first.copy()
        self._sums = np.zeros((len(self._pairs), 2, info.n_channels * info.n_correlations))
        self._rows = np.zeros(len(self._pairs), int)
        self._column = {tuple(pair): k for k, pair in enumerate(info.receptors.tolist())}
        self._products = np.array([self._column.get(_RECEPTORS[name], -1) for name in ("XX", "YY", "XY", "YX")])
        self._lmn = self._direction()
        self._stokes = np.zeros((2, 2, info.n_channels))

    def add(self, table: ct.table) -> None:
        """Read all rows, and add them."""
        cache_small_columns(table)
        all_first, all_second = table.getcol("ANTENNA1"), table.getcol("ANTENNA2")
        self._count(all_first, all_second)
        columns = ("DATA", "FLAG", *(("UVW",) if self._lmn is not None else ()))
        part = np.zeros(self._sums.shape, np.float32)
        for start, n, data, flag, *uvw in blocks(table, columns, rows=ROWS):
            antenna1, antenna2 = all_first[start : start + n], all_second[start : start + n]
            samples = data.reshape(n, -1), flag.reshape(n, -1)
            add_amplitudes(*samples, antenna1, antenna2, self._wanted, *self._amplitudes, part)
            self._sums += part
            part[:] = 0
            if self._lmn is not None:
                self._add_stokes(data, flag, antenna1, antenna2, uvw[0] @ self._lmn)

    def _count(self, antenna1: np.ndarray, antenna2: np.ndarray) -> None:
        """How many rows each of the sums has, and in which order their antennas are."""
        wanted = self._wanted[antenna1, antenna2]
        self._rows = np.bincount(wanted, minlength=len(self._pairs))
        self._rows[0] = np.count_nonzero(antenna1 != antenna2)
        self._stored_first[wanted] = antenna1
        self._stored_first[0] = 0

    def _add_stokes(
        self, data: np.ndarray, flag: np.ndarray, antenna1: np.ndarray, antenna2: np.ndarray, path_m: np.ndarray
    ) -> None:
        info = self._info
        shape = (info.n_antennas, info.n_channels, info.n_correlations)
        left, right = self._factors.left.reshape(shape), self._factors.right.reshape(shape)
        step_hz = float(info.freq_hz[1] - info.freq_hz[0]) if info.n_channels > 1 else 0.0
        first_hz = float(info.freq_hz[0])
        add_stokes(data, flag, antenna1, antenna2, left, right, path_m, first_hz, step_hz, self._products, self._stokes)

    def result(self) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """Values and used shares, by name."""
        info = self._info
        values: dict[str, np.ndarray] = {}
        used: dict[str, float] = {}
        for k, name in enumerate(self._pairs):
            total, number = self._sums[k].reshape(2, info.n_channels, info.n_correlations)
            found = _mean(total, number)
            turned = self._stored_first[k] != self._first[k]
            order = [_RECEPTORS[label][:: -1 if turned else 1] for label in CORRELATIONS]
            empty = np.full(info.n_channels, np.nan, np.float32)
            values[name] = np.column_stack(
                [found[:, self._column[pair]] if pair in self._column else empty for pair in order]
            )
            used[name] = float(number.sum() / max(number.size * self._rows[k], 1))
        if (stokes := self._options.stokes_name) is not None:
            values[stokes] = np.ascontiguousarray(_mean(self._stokes[:, 0], self._stokes[:, 1]).T)
            used[stokes] = float(self._stokes[:, 1].sum() / max(len(STOKES) * info.n_channels * self._rows[0], 1))
        return values, used

    def _find_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Which of the sums a baseline belongs to, in either order; and the antenna that its name begins with."""
        info = self._info
        number = {antenna_key(name): k for k, name in enumerate(info.antenna_names)}
        wanted = np.zeros((info.n_antennas, info.n_antennas), np.int32)
        first = np.zeros(len(self._pairs), int)
        for k, name in enumerate(self._pairs):
            pair = antenna_pair(name) or ()
            missing = [antenna for antenna in dict.fromkeys(pair) if antenna not in number]
            if missing:
                self.notes.append(f"{name}: the array has no antenna {' and no '.join(missing)}")
            elif pair:
                p, q = (number[antenna] for antenna in pair)
                wanted[p, q] = wanted[q, p] = k
                first[k] = p
        return wanted, first

    def _direction(self) -> np.ndarray | None:
        """l, m and n - 1 of where Stokes I and V are wanted; None if nowhere, or below the horizon."""
        options, info = self._options, self._info
        if options.stokes_name is None:
            return None
        ra_rad, dec_rad = place_rad(options)
        _, elevation_rad = altaz_rad(ra_rad, dec_rad, float(info.time_s[0]))
        if elevation_rad <= 0:
            self.notes.append(f"{options.stokes_name}: below the horizon")
            return None
        l, m, n = lmn(ra_rad, dec_rad, *info.phase_centre_rad)
        return np.array([l, m, n - 1])


def _mean(total: np.ndarray, number: np.ndarray) -> np.ndarray:
    """NaN where there is nothing."""
    return np.where(number > 0, total / np.maximum(number, 1), np.nan).astype(np.float32)
