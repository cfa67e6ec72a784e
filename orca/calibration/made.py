"""What a calibration came to: the result, and the file of numbers beside its table."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orca.quality import Verdict
from orca.telescope import datetime_of

TABLE, PDF, PICTURE, NUMBERS = "table", "qa.pdf", "qa.png", "qa.json"
"""Names in the folder of scratch."""
REPORTS = (PDF, PICTURE, NUMBERS)
_SHOWN = 3
"""Measurement Sets that were left out and are named in one warning; the file of numbers has all of them."""


@dataclass(frozen=True)
class Calibrated:
    """What was made.

    Attributes
    ----------
    passed : bool
    reasons, warnings : tuple of str
        Why not, and what somebody should know who uses the table; what is noted of single antennas is in the report.
    time_s : float
        Middle of the data, MJD seconds UTC.
    used : tuple of Path
    left_out : dict of file name to reason
    numbers : dict
        What judges it, for the manifest.
    seconds, cpu_seconds : float
    peak_memory_bytes : int
        Of the process.
    """

    passed: bool
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    time_s: float
    used: tuple[Path, ...]
    left_out: dict[str, str]
    numbers: dict[str, Any]
    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int


class Clock:
    """Time and processor time since it was made."""

    def __init__(self) -> None:
        self.began, self.began_cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self.began, time.process_time() - self.began_cpu


def finish(
    clock: Clock,
    folder: Path,
    verdict: Verdict,
    notes: Sequence[str],
    antennas: Sequence[str],
    time_s: float,
    used: Sequence[Path],
    left_out: dict[str, str],
    numbers: dict[str, Any],
) -> Calibrated:
    """Write the numbers, and put everything together.

    Parameters
    ----------
    clock : Clock
        Since it was begun.
    folder : Path
        Gets the file of numbers.
    verdict : Verdict
    notes, antennas : sequences of str
        What is to be known of the whole, and of single antennas.
    time_s : float
    used : paths
    left_out : dict of file name to reason
    numbers : dict
        Besides those of the verdict.
    """
    seconds, cpu_seconds = clock.read()
    made = Calibrated(
        passed=verdict.passed,
        reasons=tuple(verdict.reasons),
        warnings=(*verdict.warnings, *_left_out(left_out, len(used) + len(left_out)), *notes),
        time_s=time_s,
        used=tuple(used),
        left_out=left_out,
        numbers={
            **verdict.numbers,
            **numbers,
            "time_s": time_s,
            "passed": int(verdict.passed),
            "reason": "; ".join(verdict.reasons),
        },
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )
    told = {
        **verdict.plain(),
        "warnings": made.warnings,
        "numbers": {**verdict.numbers, **numbers},
        "time_utc": f"{datetime_of(time_s):%Y-%m-%dT%H:%M:%SZ}",
        "time_mjd_s": time_s,
        "used": list(map(str, used)),
        "sets_left_out": left_out,
        "antenna_notes": list(antennas),
    }
    (folder / NUMBERS).write_text(json.dumps(told, indent=2, default=str) + "\n")
    return made


def _left_out(left_out: dict[str, str], count: int) -> list[str]:
    if not left_out:
        return []
    named = [f"{name}: {reason}" for name, reason in list(left_out.items())[:_SHOWN]]
    more = [f"and {len(left_out) - _SHOWN} more"] if len(left_out) > _SHOWN else []
    return [f"{len(left_out)} of {count} Measurement Sets left out ({'; '.join([*named, *more])})"]
