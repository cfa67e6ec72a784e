"""Which calibrations failed, and were not made since: by the names of their tables, and by what flow runs came to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

from orca import naming
from orca.alarms.alarm import Alarm, Findings
from orca.errors import InputError

ALL = "nightly-calibration"
"""The flow that makes what the others make."""
_NAMED = 5


@dataclass(frozen=True)
class FailedTable:
    """A table that did not pass, and no good one since."""

    path: Path
    day: date
    what: str


@dataclass(frozen=True)
class Run:
    """A flow run of a calibration that has ended.

    Attributes
    ----------
    flow, name : str
    good : bool
    end : datetime
    day : date
        Of the data.
    text : str
        Why it failed.
    """

    flow: str
    name: str
    good: bool
    end: datetime
    day: date
    text: str = ""


def failed_tables(root: Path, since: datetime) -> list[FailedTable]:
    """Tables below the root of the calibrations that failed since a time, and of which there is no later good one."""
    days = [f"{since + timedelta(days=n):%Y-%m-%d}" for n in (-1, 0, 1, 2)]  # of the data, which may be older
    patterns = [f"{kind}/{day}{hour}" for day in days for kind, hour in (("delay", ""), ("bandpass/*", "/*"))]
    return sorted(_failed(root, patterns, since), key=lambda each: each.path)


def _failed(root: Path, patterns: Iterable[str], since: datetime) -> Iterator[FailedTable]:
    for pattern in patterns:
        for table in root.glob(f"{pattern}/*{naming.FAILED_SUFFIX}"):
            try:
                parsed = naming.parse(table)
                failed = table.stat().st_mtime
            except (InputError, FileNotFoundError):  # no table; or gone meanwhile
                continue
            if parsed.kind not in (naming.Kind.DELAY, naming.Kind.BANDPASS) or failed < since.timestamp():
                continue
            if parsed.manifest or parsed.day is None or _made(table.with_suffix("")) > failed:
                continue
            what = parsed.subband or "delay"
            yield FailedTable(table, parsed.day, what if parsed.hour is None else f"{what} {parsed.hour:02d}h")


def _made(table: Path) -> float:
    try:
        return table.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def failed_runs(runs: Iterable[Run]) -> list[Run]:
    """The latest of each flow and day that failed, unless a later one of the same, or of all, was good."""
    runs = list(runs)
    good = [run for run in runs if run.good]
    latest: dict[tuple[str, date], Run] = {}
    for run in sorted((run for run in runs if not run.good), key=lambda run: run.end):
        latest[run.flow, run.day] = run
    return [
        run
        for run in latest.values()
        if not any(other.flow in (run.flow, ALL) and other.day >= run.day and other.end > run.end for other in good)
    ]


def calibrations(tables: Iterable[FailedTable], runs: Iterable[Run]) -> Findings:
    """One alarm for each day of which a calibration failed.

    Parameters
    ----------
    tables : of `failed_tables`
    runs : of `failed_runs`
    """
    reasons: dict[date, list[str]] = {}
    paths: dict[date, list[str]] = {}
    for table in tables:
        reasons.setdefault(table.day, []).append(table.what)
        paths.setdefault(table.day, []).append(str(table.path))
    told = {day: [f"{len(of_day)} did not pass ({_some(of_day)})"] for day, of_day in reasons.items()}
    for run in runs:
        first = (run.text.strip().splitlines() or ["no reason given"])[0]
        told.setdefault(run.day, []).append(f"flow run {run.name} failed: {first[:300]}")
    alarms = [
        Alarm(
            f"calibration:{day}",
            f"the calibration of {day} failed: {'; '.join(of_day)}",
            tuple(paths.get(day, ())[:_NAMED]),
        )
        for day, of_day in sorted(told.items())
    ]
    return Findings("calibration", tuple(alarms))


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
