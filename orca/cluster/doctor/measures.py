"""Leap seconds and the orientation of the Earth, of casacore and of astropy, and that neither asks a network."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from orca.cluster.doctor.finding import Check, Finding
from orca.process import run

SECTION = "measures"
ANSWER_S = 10.0
LEAP_OLD_DAYS, LEAP_HOPELESS_DAYS = 400, 1100
"""Leap seconds are announced half a year ahead, and none has been for years: a table may miss one after that."""
ORIENTATION_OLD_DAYS, ORIENTATION_HOPELESS_DAYS = 180, 1100
"""Since the last prediction. UT1 - UTC drifts by up to a second in some years, which is 15 arcsec of sky."""
PACKAGE = ".venv/bin/pip install --upgrade python-casacore"
SYSTEM = "casacore-update-tai_utc (of package casacore-data-tai-utc), as root"
ASTROPY = ".venv/bin/pip install --upgrade astropy-iers-data"


def checks() -> list[Check]:
    """One, since all is asked of one child process."""
    return [Check(SECTION, "casacore and astropy", lambda: judged(ask(), datetime.now(UTC).date()))]


def ask() -> dict[str, Any]:
    """What `orca.ms.measures` reports, of a process of its own: libraries that do not fit crash that one.

    Raises
    ------
    ProgramError
        It fails, or takes too long; the end of what it said is in the message.
    """
    with tempfile.TemporaryDirectory(prefix="orca-doctor-") as folder:
        log = Path(folder) / "measures.log"
        run([sys.executable, "-m", "orca.ms.measures"], log=log, deadline_s=ANSWER_S, threads=1)
        lines = log.read_text(errors="replace").splitlines()
    report: dict[str, Any] = json.loads(next(line for line in reversed(lines) if line.startswith("{")))
    return report


def judged(report: Mapping[str, Any], today: date) -> Iterator[Finding]:
    """What a report means on a day."""
    for who, name, remedy in (("package", "casacore", PACKAGE), ("system", "casacore of wsclean", SYSTEM)):
        tables = report[who]
        if "problem" in tables:
            yield Finding(SECTION, name, "error", f"tables cannot be read: {tables['problem']}", remedy)
            continue
        yield _leap_seconds(name, tables.get("TAI_UTC"), report["folders"][who], today, remedy)
        if who == "package":
            yield _orientation(name, tables, report["folders"][who], today, remedy)
    yield from _astropy(report, today)


def _leap_seconds(name: str, table: Mapping[str, str] | None, root: str, today: date, remedy: str) -> Finding:
    name = f"{name}: leap seconds"
    if table is None:
        ours = name == "casacore: leap seconds"
        seen = (
            f"no TAI_UTC below {root}: {'every conversion of a time fails' if ours else 'wsclean may refuse to work'}"
        )
        remedy = remedy if ours else "apt install casacore-data casacore-data-tai-utc; no matter where it has its own"
        return Finding(SECTION, name, "error" if ours else "warning", seen, remedy)
    if not table["made"]:
        return Finding(SECTION, name, "note", f"{table['path']} does not say how old it is")
    age = (today - date.fromisoformat(table["made"])).days
    seen = f"of {table['made']}, {age} days old; the last one was on {table['last']}"
    if age > LEAP_HOPELESS_DAYS:
        return Finding(SECTION, name, "warning", f"{seen}: a newer one would be missing", remedy)
    if age > LEAP_OLD_DAYS:
        return Finding(SECTION, name, "note", seen, remedy)
    return Finding(SECTION, name, "ok", seen)


def _orientation(name: str, tables: Mapping[str, Any], root: str, today: date, remedy: str) -> Finding:
    name = f"{name}: orientation"
    known = [tables[each]["last"] for each in ("IERSpredict", "IERSeop97") if each in tables]
    if not known:
        return Finding(
            SECTION, name, "warning", f"no IERSpredict below {root}: positions are up to 15 arcsec off", remedy
        )
    return _until(name, max(known), today, remedy)


def _until(name: str, last: str, today: date, remedy: str) -> Finding:
    over = (today - date.fromisoformat(last)).days
    if over <= 0:
        return Finding(SECTION, name, "ok", f"predicted until {last}")
    seen = f"predictions ended on {last}, {over} days ago: UT1 - UTC is not known any more"
    if over > ORIENTATION_HOPELESS_DAYS:
        return Finding(SECTION, name, "error", f"{seen}, and positions are off by arcseconds or more", remedy)
    return Finding(SECTION, name, "warning" if over > ORIENTATION_OLD_DAYS else "note", seen, remedy)


def _astropy(report: Mapping[str, Any], today: date) -> Iterator[Finding]:
    told = report["astropy"]
    if "problem" in told:
        yield Finding(SECTION, "astropy", "error", f"tables cannot be read: {told['problem']}", ASTROPY)
        return
    yield _until("astropy: orientation", told["orientation"], today, ASTROPY)
    expires = told["leap_seconds"]
    expired = today > date.fromisoformat(expires)
    seen = f"good until {expires}"
    yield Finding(SECTION, "astropy: leap seconds", "note" if expired else "ok", seen, ASTROPY if expired else "")
    if report["offline"]:
        seen = f"a sidereal time cannot be computed without a network: {report['offline']}"
        yield Finding(SECTION, "astropy: offline", "error", seen, ASTROPY)
    else:
        yield Finding(SECTION, "astropy: offline", "ok", "a sidereal time of today needs no network")
