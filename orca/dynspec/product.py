"""The FITS file of one dynamic spectrum and correlation: written subband by subband, and read the same way.

Frequency x time, each channel a row, so that a subband is one stretch of the file and nothing has to be in memory but
one of them. A table holds what the axes cannot: when each subband was seen exactly, and where nothing is.
"""

from __future__ import annotations

import json
import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Self

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning
from numpy.typing import NDArray

from orca import __version__
from orca.disk import storage_errors
from orca.dynspec.axes import Axes
from orca.errors import InvalidDataError, MissingDataError, StorageError
from orca.telescope import HEIGHT_M, INTEGRATION_S, LATITUDE_DEG, LONGITUDE_DEG, SUBBANDS, datetime_of

MISSING, GOOD, DEAD = 0, 1, 2
"""Of an integration and a subband: no spectrum, one, or one with nothing in it."""
TABLE = "TIMES"
_BLOCK = 2880
_DAY_S = 86400.0


@dataclass(frozen=True)
class Facts:
    """What a file says of itself besides its axes.

    Attributes
    ----------
    spectrum, correlation : str
    options : mapping
        How the spectra were made; as JSON in HISTORY.
    digest : str
        `orca.cache.digest` of these.
    unit : str
    versions : tuple of str
        Of the software that made the spectra.
    """

    spectrum: str
    correlation: str
    options: Mapping[str, Any]
    digest: str
    unit: str = ""
    versions: tuple[str, ...] = ()


class Writer:
    """A FITS file on its way. Give the subbands in their order, each once; then `finish`.

    Parameters
    ----------
    path : Path
        In scratch.
    axes : Axes
    facts : Facts
        Those that are known; `finish` has the rest.
    """

    def __init__(self, path: Path, axes: Axes, facts: Facts) -> None:
        self.path, self.axes, self.facts = path, axes, facts
        self.checksum = 0
        self._written = 0
        shape = (len(SUBBANDS), axes.n_times)
        self.status = np.zeros(shape, np.uint8)
        self.offset_s = np.full(shape, np.nan, np.float32)
        self._head = _header(axes, facts, self.status).tostring().encode("ascii")
        with storage_errors(path):
            self._file = path.open("wb")
            self._file.write(self._head)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, samples: NDArray[np.float32], status: NDArray[np.uint8], offset_s: NDArray[np.float32]) -> None:
        """The next subband: samples (channels, times), and status and offset (times,)."""
        rows = samples.astype(">f4").tobytes()
        band = self._written
        self.status[band], self.offset_s[band] = status, offset_s
        self.checksum = zlib.crc32(rows, self.checksum)
        with storage_errors(self.path, len(rows)):
            self._file.write(rows)
        self._written += 1

    def finish(self, unit: str, versions: tuple[str, ...]) -> None:
        """Write the header as it is now known, and the table."""
        known = Facts(**{**vars(self.facts), "unit": unit, "versions": versions})
        head = _header(self.axes, known, self.status).tostring().encode("ascii")
        if self._written != len(SUBBANDS) or len(head) != len(self._head):
            raise StorageError(
                "the dynamic spectrum is not complete", self.path, "Report this: it is a mistake of ORCA"
            )
        with storage_errors(self.path):
            self._file.write(b"\0" * (-self.axes.n_channels * self.axes.n_times * 4 % _BLOCK))
            self._file.seek(0)
            self._file.write(head)
            self._file.close()
            table = self._table()
            fits.append(self.path, table.data, table.header)

    def _table(self) -> fits.BinTableHDU:
        times_s, n = self.axes.times_s, len(SUBBANDS)
        columns = [
            fits.Column("MJD", "D", unit="d", array=times_s / _DAY_S),
            fits.Column("UT_HOURS", "D", unit="h", array=(times_s - self.axes.midnight_s) / 3600),
            fits.Column("OFFSET_S", f"{n}E", unit="s", array=self.offset_s.T),
            fits.Column("STATUS", f"{n}B", array=self.status.T),
        ]
        table = fits.BinTableHDU.from_columns(columns, name=TABLE)
        table.header["COMMENT"] = (
            "One row an integration. OFFSET_S and STATUS have one number for each subband, upwards."
        )
        table.header["COMMENT"] = "OFFSET_S: centre of what was recorded, after MJD. STATUS: 0 missing, 1 good, 2 dead."
        return table


class Product:
    """A dynamic spectrum that was written; its samples are read as they are wanted.

    Parameters
    ----------
    path : Path

    Raises
    ------
    MissingDataError
        There is no such file.
    InvalidDataError
        It is no dynamic spectrum of ours, or a part of it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with warnings.catch_warnings():  # of a file that was cut off: it is refused below
                warnings.simplefilter("ignore", AstropyUserWarning)
                whole = self._open(path)
        except FileNotFoundError as error:
            raise MissingDataError("no such file", path) from error
        except (OSError, ValueError, TypeError, LookupError) as error:
            remedy = "`orca run spectrum` makes them"
            raise InvalidDataError(f"is no dynamic spectrum ({type(error).__name__})", path, remedy) from error
        if not whole:
            raise InvalidDataError("is a dynamic spectrum of which a part is missing", path)
        self.spectrum, self.correlation = str(self.header["SPECTRUM"]), str(self.header["CORRELAT"])
        self.unit, self.digest = str(self.header["BUNIT"]), str(self.header["OPTIONS"])
        self.versions = tuple(str(self.header["VERSIONS"]).split())

    def _open(self, path: Path) -> bool:
        """Read all but the samples; False if these are not as many as they should be."""
        self._file = fits.open(path, memmap=False)  # `section` reads what it is asked for
        self.header = self._file[0].header
        table = self._file[TABLE].data
        self.axes = _axes(self.header)
        self.status = np.array(table["STATUS"], np.uint8).T
        self.offset_s = np.array(table["OFFSET_S"], np.float32).T
        shape = (len(SUBBANDS), self.axes.n_times)
        samples = (self.axes.n_channels, self.axes.n_times)
        return self._file[0].shape == samples and self.status.shape == self.offset_s.shape == shape

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def band(self, number: int) -> NDArray[np.float32]:
        """Samples of a subband, (channels, times), NaN where nothing is."""
        rows = self.axes.band_channels
        return np.asarray(self._file[0].section[number * rows : (number + 1) * rows, :], np.float32)

    def bands(self) -> Iterator[NDArray[np.float32]]:
        """Samples of one subband after the other."""
        return map(self.band, range(len(SUBBANDS)))

    def cells_there(self, axes: Axes, number: int) -> set[int]:
        """Integrations of a subband that are not missing, as other axes count them."""
        return set(axes.cells(self.axes.times_s[self.status[number] != MISSING]).tolist())

    def checksum(self) -> int:
        """CRC-32 of all samples as they are on the disk."""
        found = 0
        for samples in self.bands():
            found = zlib.crc32(samples.astype(">f4").tobytes(), found)
        return found


def _axes(header: fits.Header) -> Axes:
    """The axes that a header tells. Raises LookupError or ValueError for one that is not ours."""
    day = date.fromisoformat(str(header["DATEREF"])[:10])
    return Axes(day, float(header["FIRST_S"]), int(header["NAXIS1"]), int(header["CHANAVG"]))


def _header(axes: Axes, facts: Facts, status: NDArray[np.uint8]) -> fits.Header:
    """The header; it has as many cards whatever the facts are."""
    header = fits.Header()
    cards: list[tuple[Any, ...]] = [
        ("SIMPLE", True),
        ("BITPIX", -32),
        ("NAXIS", 2),
        ("NAXIS1", axes.n_times),
        ("NAXIS2", axes.n_channels),
        ("EXTEND", True),
        ("BUNIT", facts.unit[:60]),
        *_world(axes, "", "UT", "h", 3600.0),
        *_world(axes, "A", "UTC", "s", 1.0),
        *_dates(axes),
        *_counts(axes, status),
        ("ORIGIN", "ORCA"),
        ("TELESCOP", "OVRO-LWA"),
        ("SITELONG", LONGITUDE_DEG, "[deg] of the array's centre, east"),
        ("SITELAT", LATITUDE_DEG, "[deg]"),
        ("SITEELEV", HEIGHT_M, "[m]"),
        ("SPECTRUM", facts.spectrum[:60]),
        ("CORRELAT", facts.correlation, "correlation, or Stokes parameter"),
        ("CHANAVG", axes.average, "recorded channels in one channel"),
        ("PROGRAM", f"orca {__version__}", "what wrote this file"),
        ("VERSIONS", " ".join(facts.versions)[:60]),
        ("OPTIONS", facts.digest, "digest of how they were made, below"),
    ]
    for card in cards:
        header.append(card, end=True)
    header.add_history(json.dumps(facts.options, sort_keys=True, default=str, ensure_ascii=True))
    return header


def _world(axes: Axes, key: str, name: str, unit: str, unit_s: float) -> list[tuple[Any, ...]]:
    """One description of both axes: hours for people, seconds for programs that make times of them."""
    return [
        (f"CTYPE1{key}", name, f"time since midnight of the day, in {unit}"),
        (f"CUNIT1{key}", unit),
        (f"CRPIX1{key}", 1.0),
        (f"CRVAL1{key}", (axes.first_s - axes.midnight_s) / unit_s, "centre of the first integration"),
        (f"CDELT1{key}", INTEGRATION_S / unit_s),
        (f"CTYPE2{key}", "FREQ"),
        (f"CUNIT2{key}", "MHz"),
        (f"CRPIX2{key}", 1.0),
        (f"CRVAL2{key}", axes.first_hz / 1e6, "centre of the lowest channel"),
        (f"CDELT2{key}", axes.width_hz / 1e6),
        (f"SPECSYS{key}", "TOPOCENT"),
    ]


def _dates(axes: Axes) -> list[tuple[Any, ...]]:
    half = INTEGRATION_S / 2
    last_s = float(axes.times_s[-1])
    ends = {"BEG": axes.first_s - half, "END": last_s + half}
    return [
        ("TIMESYS", "UTC"),
        ("TIMEUNIT", "s"),
        ("DATEREF", f"{axes.day.isoformat()}T00:00:00", "where hours and seconds begin"),
        ("MJDREF", axes.midnight_s / _DAY_S),
        ("DATE-OBS", _iso(axes.first_s), "centre of the first integration"),
        ("MJD-OBS", axes.first_s / _DAY_S),
        ("FIRST_S", axes.first_s, "[s] the same, MJD seconds"),
        *((f"DATE-{name}", _iso(time_s)) for name, time_s in ends.items()),
        *((f"MJD-{name}", time_s / _DAY_S) for name, time_s in ends.items()),
        ("TIMEDEL", INTEGRATION_S, "[s] of an integration"),
    ]


def _counts(axes: Axes, status: NDArray[np.uint8]) -> list[tuple[Any, ...]]:
    """How much there is; which subbands (MHz) are missing or dead throughout."""
    good, dead = status == GOOD, status == DEAD
    nothing = [band.name[:-3] for band in SUBBANDS if not (good | dead)[band.index].any()]
    silent = [band.name[:-3] for band in SUBBANDS if dead[band.index].any() and not good[band.index].any()]
    return [
        ("NSOURCES", int((good | dead).sum()), "Measurement Sets of which spectra are here"),
        ("NMISSING", int((status == MISSING).sum()), "integrations of subbands without any"),
        ("NDEAD", int(dead.sum()), "spectra with nothing in them"),
        ("NGAPS", int((status == MISSING).all(axis=0).sum()), "integrations that no subband has"),
        ("SBMISS", ",".join(nothing)),  # a comment would not fit beside all sixteen
        ("SBDEAD", ",".join(silent)),
    ]


def _iso(time_s: float) -> str:
    return datetime_of(time_s).replace(tzinfo=None).isoformat(timespec="milliseconds")
