"""Which integrations are in the dynamic spectra of a day: by the tables of the files, one polarization of each kind."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orca import naming, telescope
from orca.errors import OrcaError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class SpectraThere:
    """Of one kind of spectrum.

    Attributes
    ----------
    kind : str
    times_s : array (integrations,)
        Centres, MJD seconds.
    there : array of bool (subbands, integrations)
    """

    kind: str
    times_s: NDArray[Any]
    there: NDArray[Any]


def files_of(root: Path, day: date, ending: str = "fits") -> dict[str, list[Path]]:
    """The dynamic spectra of a day, or their pictures, by kind."""
    found: dict[str, list[Path]] = {}
    for path in sorted(root.glob(f"*/{day.isoformat()}-*.{ending}")):
        with suppress(OrcaError):
            if (name := naming.parse(path)).kind is naming.Kind.DYNSPEC and name.spectrum:
                found.setdefault(name.spectrum, []).append(path)
    return found


def spectra_of(root: Path, day: date) -> list[SpectraThere]:
    """What is in the dynamic spectra of a day; files that are broken or vanish are left out."""
    files = files_of(root, day)
    if not files:
        return []
    from orca.dynspec.product import MISSING, Product

    found = []
    for kind, paths in files.items():
        with suppress(OrcaError, OSError), Product(paths[0]) as product:
            found.append(SpectraThere(kind, product.axes.times_s.copy(), product.status != MISSING))
    return found


def count(spectra: Iterable[SpectraThere], band: int, begin: datetime) -> int:
    """How many integrations of a subband that start in an hour are in at least one kind of spectrum."""
    first_s = telescope.time_s_of(begin) + telescope.INTEGRATION_S / 2
    cells: set[int] = set()
    for each in spectra:
        inside = each.there[band] & (each.times_s >= first_s - 1) & (each.times_s < first_s + 3599)
        cells |= {round((time_s - first_s) / telescope.INTEGRATION_S) for time_s in each.times_s[inside]}
    return len(cells)


def has_all(spectra: Iterable[SpectraThere], sources: Iterable[str]) -> bool:
    """Whether each kind of spectrum has all of some Measurement Sets; False where there is no spectrum at all."""
    spectra = list(spectra)
    wanted = []
    for source in sources:
        try:
            seen = naming.parse(source).observation
        except OrcaError:
            return False
        centre_s = telescope.time_s_of(seen.start) + telescope.INTEGRATION_S / 2
        wanted.append((telescope.subband(seen.subband).index, centre_s))
    half_s = telescope.INTEGRATION_S / 2
    return bool(spectra and wanted) and all(
        (each.there[band] & (abs(each.times_s - centre_s) < half_s)).any()
        for each in spectra
        for band, centre_s in wanted
    )
