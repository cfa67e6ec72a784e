"""Findings, and checks that make them side by side: none can harm another, and none is waited for longer than it may.

A check runs in a thread that nobody joins, since what hangs in a dead network drive cannot be ended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Literal

from orca.config.secret import mask
from orca.errors import OrcaError

Level = Literal["ok", "note", "warning", "error"]
LEVELS: tuple[Level, ...] = ("ok", "note", "warning", "error")
SECTIONS = (
    "configuration", "programs", "measures", "broker", "redis", "prefect", "flow-workers", "dask", "disks", "clock",
    "environment", "rights", "cores",
)  # fmt: skip
"""In the order in which they are shown."""
DEADLINE_S = 12.0
"""For all checks, which begin together; with reading the configuration first, all takes less than 20 s."""


@dataclass(frozen=True)
class Finding:
    """What was seen of one thing.

    Attributes
    ----------
    section : str
        One of `SECTIONS`.
    name : str
        What was looked at.
    level : "ok", "note", "warning" or "error"
        Note: nothing is wrong, but somebody may want to know. Warning: it works, but not well, or not for long.
        Error: something that ORCA is told to use does not work.
    seen : str
        What was found, without passwords.
    remedy : str
        What to do, a command where possible; empty where nothing is to be done.
    """

    section: str
    name: str
    level: Level
    seen: str
    remedy: str = ""


@dataclass(frozen=True)
class Check:
    """A look at one thing.

    Attributes
    ----------
    section, name : str
        For the finding that it did not end, or went wrong.
    look : callable
        Yields findings; may raise, and may hang.
    """

    section: str
    name: str
    look: Callable[[], Iterable[Finding]]


def examine(
    checks: Sequence[Check],
    tell: Callable[[Sequence[Check]], None] = lambda unfinished: None,
    *,
    deadline_s: float = DEADLINE_S,
) -> tuple[list[Finding], bool]:
    """Run checks side by side.

    Parameters
    ----------
    checks : sequence of Check
    tell : callable
        Called with the checks that have not ended, whenever these change.
    deadline_s : float
        What has not ended by then is left to itself; what it has found so far counts.

    Returns
    -------
    list of Finding
        In the order of the checks.
    bool
        Whether all ended. If not, threads of theirs still hang, and only `os._exit` surely ends the process.
    """
    found: dict[int, list[Finding]] = {number: [] for number in range(len(checks))}
    reports: SimpleQueue[tuple[int, Finding | None]] = SimpleQueue()
    for number, check in enumerate(checks):
        name = f"doctor-{check.section}-{check.name}"
        threading.Thread(target=_look, args=(number, check, reports), name=name, daemon=True).start()
    left = dict(enumerate(checks))
    tell(list(left.values()))
    end = time.monotonic() + deadline_s
    while left and (patience := end - time.monotonic()) > 0:
        try:
            number, finding = reports.get(timeout=patience)
        except Empty:
            break
        if finding is not None:
            found[number].append(finding)
        else:
            del left[number]
            tell(list(left.values()))
    for number, check in left.items():
        remedy = "See what hangs: a machine that does not answer, a network drive, or too much work on this machine"
        found[number].append(
            Finding(check.section, check.name, "error", f"no answer within {deadline_s:.0f} s", remedy)
        )
    return [finding for number in found for finding in found[number]], not left


def _look(number: int, check: Check, reports: SimpleQueue[tuple[int, Finding | None]]) -> None:
    """Report each finding when it comes, and None at the end."""
    try:
        for finding in check.look():
            reports.put((number, _without_secrets(finding)))
    except OrcaError as error:
        reports.put((number, _without_secrets(failure(check.section, check.name, error))))
    except Exception as error:  # noqa: BLE001 - one check that goes wrong is a finding, and no end of the others
        told = f"could not be examined: {type(error).__name__}: {first_line(error)}"
        reports.put((number, _without_secrets(Finding(check.section, check.name, "error", told))))
    finally:
        reports.put((number, None))


def failure(section: str, name: str, error: OrcaError, level: Level = "error") -> Finding:
    """An error of ours as a finding."""
    seen = error.problem if error.path is None else f"{error.path}: {error.problem}"
    return Finding(section, name, level, seen, error.remedy or "")


def first_line(error: BaseException) -> str:
    """The first line of what an error says, else its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _without_secrets(finding: Finding) -> Finding:
    return Finding(finding.section, finding.name, finding.level, mask(finding.seen), mask(finding.remedy))
