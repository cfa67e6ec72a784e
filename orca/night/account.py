"""What became of a day: numbers for each subband and hour, and their sums."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from orca import naming, telescope
from orca.failures import Failed, read_failures
from orca.night.calibrations import CalibrationReport, calibrations_of
from orca.night.cell import Cell, Counts, Places
from orca.night.hour import Hour
from orca.night.spectra import SpectraThere, count, has_all, spectra_of

HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Account:
    """What became of a day.

    Attributes
    ----------
    day : date
        UTC.
    now : datetime
        When it was looked at.
    cells : tuple of Cell
        All subbands and hours, by subband first.
    failures : tuple of Failed
        Of all stages, those that were not made good since.
    calibrations : tuple of CalibrationReport
    """

    day: date
    now: datetime
    cells: tuple[Cell, ...]
    failures: tuple[Failed, ...] = ()
    calibrations: tuple[CalibrationReport, ...] = ()

    @property
    def total(self) -> Counts:
        """Of all subbands and hours."""
        return sum((cell.counts for cell in self.cells), Counts())

    def of_subband(self, name: str) -> Counts:
        """The sum of its hours."""
        return sum((cell.counts for cell in self.cells if cell.subband == name), Counts())

    def of_hour(self, hour: int) -> Counts:
        """The sum of its subbands."""
        return sum((cell.counts for cell in self.cells if cell.hour == hour), Counts())

    @property
    def next_to_die(self) -> Cell | None:
        """Whose raw data without a product are deleted first."""
        at_risk = [cell for cell in self.cells if cell.at_risk_until is not None]
        return min(at_risk, key=lambda cell: cell.at_risk_until or self.now, default=None)


@dataclass
class Reasons:
    """Why the reduction of integrations failed, by name."""

    by_name: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, failures: Iterable[Failed]) -> Reasons:
        told = {naming.strip_suffix(s): f.reason for f in failures if f.stage == "reduction" for s in f.sources}
        return cls(told)

    def of_hour(self, band: str, begin: datetime) -> dict[str, str]:
        """Those of a subband and hour."""
        first, last = f"{begin:%Y%m%d_%H}", f"_{band}"
        return {name: why for name, why in self.by_name.items() if name.startswith(first) and name.endswith(last)}


def take_account(places: Places, day: date, now: datetime, subbands: Sequence[str] | None = None) -> Account:
    """Look at all that is known of a day.

    Others may write and delete meanwhile: recordings are looked at before products, so that one that is reduced and
    deleted in between counts as reduced. At most one subband and hour is in memory in full.

    Parameters
    ----------
    places : Places
    day : date
        UTC.
    now : datetime
        With a time zone.
    subbands : names, optional
        All of the telescope without.
    """
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    failures, spectra = read_failures(places.failures, day), spectra_of(places.dynspec, day)
    bands = [telescope.subband(name) for name in subbands or [band.name for band in telescope.SUBBANDS]]
    reasons = Reasons.of(failures)
    others = _others(failures, spectra)
    cells: list[Cell] = []
    standing: set[str] = set()
    for band in bands:
        for hour in range(24):
            begin = midnight + hour * HOUR
            found = Hour.read(places, band.name, begin, reasons.of_hour(band.name, begin), now)
            stages = {stage: len(names) for stage, names in _in_hour(others, band.name, begin, found).items()}
            cells.append(found.cell(count(spectra, band.index, begin), stages))
            standing.update(found.failed, found.dead, found.lost)
    alive = [each for each in failures if _stands(each, places, spectra, standing)]
    return Account(day, now, tuple(cells), tuple(alive), tuple(calibrations_of(places.calibration, day)))


def _others(failures: Iterable[Failed], spectra: Sequence[SpectraThere]) -> dict[str, set[str]]:
    """Integrations that failures of other stages name, by stage."""
    found: dict[str, set[str]] = {"imaging": set(), "spectrum": set(), "cosmology": set()}
    for each in failures:
        if each.stage in found and not (each.stage == "spectrum" and has_all(spectra, each.sources)):
            found[each.stage].update(map(naming.strip_suffix, each.sources))
    return found


def _in_hour(others: Mapping[str, set[str]], band: str, begin: datetime, found: Hour) -> dict[str, set[str]]:
    first, last = f"{begin:%Y%m%d_%H}", f"_{band}"
    made = {"imaging": found.imaged, "cosmology": found.split}
    return {
        stage: {name for name in names if name.startswith(first) and name.endswith(last)} - made.get(stage, set())
        for stage, names in others.items()
    }


def _stands(failed: Failed, places: Places, spectra: Sequence[SpectraThere], standing: set[str]) -> bool:
    """Whether a failure was not made good since by another flow run than that of its unit."""
    if failed.stage == "spectrum":
        return not has_all(spectra, failed.sources)
    if failed.stage == "reduction":
        names = set(map(naming.strip_suffix, failed.sources))
        return bool(names & standing) or not names
    return True
