"""How old the tables are from which casacore and astropy take leap seconds and the orientation of the Earth.

``python -m orca.ms.measures`` prints it as JSON: a library that crashes while it is loaded then takes nobody with it.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

TABLES = ("TAI_UTC", "IERSpredict", "IERSeop97")
"""Leap seconds; measured and predicted UT1 - UTC; measured alone, with a month's delay."""
SYSTEM = (Path("/usr/share/casacore/data"), Path("/var/lib/casacore/data"), Path("/usr/local/share/casacore/data"))
"""Where programs of the system look (Debian: the second for what is updated)."""
MJD_OF_DAY_1 = -678576
"""Modified Julian Date of the day before 0001-01-01, which Python counts as 0."""


@dataclass(frozen=True)
class MeasuresTable:
    """One of `TABLES`.

    Attributes
    ----------
    path : str
    last : str
        Day of its last row, ISO 8601; for leap seconds that of the last one.
    made : str
        Day on which its contents were made; empty where it does not say.
    """

    path: str
    last: str
    made: str


def tables_of(roots: list[Path]) -> dict[str, MeasuresTable]:
    """The tables that are found first in folders like /usr/share/casacore/data, by name.

    Raises
    ------
    RuntimeError
        One is broken.
    """
    from casacore.tables import table

    found = {}
    for name in TABLES:
        path = next(
            (root / "geodetic" / name for root in roots if (root / "geodetic" / name / "table.dat").exists()), None
        )
        if path is None:
            continue
        with table(str(path), ack=False) as opened:
            last = float(opened.getcell("MJD", opened.nrows() - 1))
            made = opened.getkeyword("VS_DATE") if "VS_DATE" in opened.keywordnames() else ""
        found[name] = MeasuresTable(str(path), _day(last), _iso(made))
    return found


def package_root() -> Path:
    """Where python-casacore looks: its own data, unless the environment says otherwise."""
    import casacore

    return Path(os.environ.get("CASACORE_DATADIR") or Path(casacore.__file__).parent / "data")


def named_roots() -> Iterator[Path]:
    """Folders that the user's .casarc or .aipsrc names, in which casacore looks first."""
    for name in (".casarc", ".aipsrc"):
        file = Path("~").expanduser() / name
        if file.is_file():
            for match in re.finditer(r"^\s*measures\.directory\s*:\s*(\S+)", file.read_text(errors="replace"), re.M):
                yield Path(os.path.expandvars(match[1])).expanduser()


def astropy_tables() -> dict[str, str]:
    """Last day of astropy's tables that are installed, and what its own settings say; asks no network."""
    from astropy.utils import iers

    table = iers.IERS_A.read(iers.IERS_A_FILE)
    leaps = iers.LeapSeconds.from_iers_leap_seconds(iers.IERS_LEAP_SECOND_FILE)
    return {
        "orientation": _day(float(table["MJD"][-1].value)),
        "leap_seconds": leaps.expires.to_datetime().date().isoformat(),
        "auto_download": str(iers.conf.auto_download),
    }


def offline_works() -> str:
    """Compute a sidereal time of now without a network; why that fails, empty if it does not."""
    from orca.telescope import sidereal_time_h

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("a network was asked for")

    connect, socket.socket.connect = socket.socket.connect, refuse  # type: ignore[method-assign]
    try:
        sidereal_time_h(datetime.now().astimezone())
    except Exception as error:  # noqa: BLE001 - told
        return f"{type(error).__name__}: {error}"
    finally:
        socket.socket.connect = connect  # type: ignore[method-assign]
    return ""


def report() -> dict[str, Any]:
    """All of it, as plain JSON; what fails says so under ``problem``."""
    told: dict[str, Any] = {"folders": {"package": str(package_root()), "system": str(SYSTEM[0])}}
    named = list(named_roots())
    for who, roots in (("package", [*named, package_root()]), ("system", [*named, *SYSTEM])):
        try:
            told[who] = {name: asdict(table) for name, table in tables_of(roots).items()}
        except (RuntimeError, OSError) as error:
            told[who] = {"problem": str(error).splitlines()[0]}
    try:
        told["astropy"] = astropy_tables()
        told["offline"] = offline_works()
    except (OSError, ValueError, ImportError) as error:
        told["astropy"] = {"problem": f"{type(error).__name__}: {error}"}
    return told


def _day(mjd: float) -> str:
    return date.fromordinal(int(mjd) - MJD_OF_DAY_1).isoformat()


def _iso(made: str) -> str:
    """2026/05/30/15:15 as 2026-05-30."""
    match = re.match(r"(\d{4})/(\d{2})/(\d{2})", made)
    return "-".join(match.groups()) if match else ""


if __name__ == "__main__":
    sys.stdout.write(json.dumps(report()))
