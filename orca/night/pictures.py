"""Pictures of a night, made small enough that a page may hold them."""

from __future__ import annotations

import base64
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from orca import naming
from orca.errors import InputError
from orca.night.account import Account
from orca.night.reading import names_in
from orca.night.spectra import files_of
from orca.night.telling import subbands_of

MOST_REPORTS, MOST_WATERFALLS = 24, 12
"""Of each kind on one page; of images there is one for each subband."""
_REPORT, _WATERFALL, _IMAGE = (1100, 110_000), (1000, 110_000), (480, 50_000)
"""Larger side in pixels, and bytes at most: all together less than 7 MB in base64."""


@dataclass(frozen=True)
class Picture:
    """A picture as a page holds it.

    Attributes
    ----------
    title : str
    path : Path
        Where it is in full.
    uri : str
        A JPEG, as data.
    """

    title: str
    path: Path
    uri: str


def of_reports(account: Account) -> dict[Path, Picture]:
    """Overviews of the calibrations by the path of their numbers, those of the failed first if there are too many."""
    ordered = sorted(account.calibrations, key=lambda each: each.passed)[:MOST_REPORTS]
    found = {each.path: _picture(each.name, each.picture, _REPORT) for each in ordered}
    return {path: made for path, made in found.items() if made is not None}


def of_images(account: Account, root: Path) -> list[Picture]:
    """The newest picture of each subband."""
    made = []
    for band in subbands_of(account):
        path = _newest(root / band / account.day.isoformat(), band)
        if path is not None and (picture := _picture(path.stem, path, _IMAGE)):
            made.append(picture)
    return made


def of_spectra(root: Path, day: date) -> list[Picture]:
    """Dynamic spectra: of each kind the first polarization, then the second of each, and so on."""
    kinds = files_of(root, day, "png")
    numbered = [
        (number, kind != "cross", kind, path) for kind, paths in kinds.items() for number, path in enumerate(paths)
    ]
    chosen = [(kind, path) for _, _, kind, path in sorted(numbered)[:MOST_WATERFALLS]]
    made = [_picture(f"{kind} {naming.parse(path).polarization}", path, _WATERFALL) for kind, path in chosen]
    return [picture for picture in made if picture is not None]


def _newest(folder: Path, band: str) -> Path | None:
    """The picture of the latest integration of a day; of several polarizations the first."""
    for hour in sorted(names_in(folder), reverse=True):
        for name in sorted(names_in(folder / hour), reverse=True):
            if name.endswith(f"_{band}.png"):
                with suppress(InputError):
                    if naming.parse(name).kind is naming.Kind.IMAGE:
                        return folder / hour / name
    return None


def _picture(title: str, path: Path, size: tuple[int, int]) -> Picture | None:
    """A small one; None if it is gone or broken."""
    from orca.plots import thumbnail

    try:
        data = thumbnail(path, *size)
    except (OSError, ValueError, SyntaxError):  # the last two are what Pillow raises for some broken files
        return None
    return Picture(title, path, f"data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}")
