"""What a calibration came to: the result, and the file of numbers beside its table."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orca.quality import Verdict

TABLE, PDF, PICTURE, NUMBERS = "table", "qa.pdf", "qa.png", "qa.json"
"""Names in the folder of scratch."""
REPORTS = (PDF, PICTURE, NUMBERS)


@dataclass(frozen=True)
class Calibrated:
    """What was made.

    Attributes
    ----------
    passed : bool
    reasons, warnings : tuple of str
        Why not, and what is worth a look.
    notes : tuple of str
        What else was done and not done: a reference antenna that was changed, integrations that are missing.
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
    notes: tuple[str, ...]
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
    numbers = {
        **verdict.numbers,
        **numbers,
        "time_s": time_s,
        "passed": int(verdict.passed),
        "reason": "; ".join(verdict.reasons),
    }
    seconds, cpu_seconds = clock.read()
    made = Calibrated(
        passed=verdict.passed,
        reasons=tuple(verdict.reasons),
        warnings=tuple(verdict.warnings),
        notes=tuple(notes),
        time_s=time_s,
        used=tuple(used),
        left_out=left_out,
        numbers=numbers,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )
    of_this_run = ("seconds", "cpu_seconds", "peak_memory_bytes")  # they stand in the manifest: the file stays the same
    told = {key: value for key, value in asdict(made).items() if key not in of_this_run}
    told |= {"sets_left_out": told.pop("left_out"), "antenna_notes": list(antennas)}
    text = json.dumps({**verdict.plain(), **told}, indent=2, default=str)
    (folder / NUMBERS).write_text(text + "\n")
    return made
