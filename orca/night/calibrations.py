"""What the reports of a day's calibrations say, also of those that failed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from orca import naming
from orca.errors import OrcaError

KEY_NUMBERS = (
    "reference_antenna",
    "n_antennas",
    "n_integrations",
    "flagged_share",
    "median_snr",
    "scatter_amplitude",
    "scatter_phase_deg",
    "rms_ns",
    "largest_ns",
    "largest_antenna",
    "moved_antennas",
    "bad_antennas",
    "bad_boards",
)
"""Numbers of a report that are shown, of those that it has."""


@dataclass(frozen=True)
class CalibrationReport:
    """The numbers of a calibration's report.

    Attributes
    ----------
    kind : "delay" or "bandpass"
    subband : str or None
    hour : int or None
        UTC, of a bandpass.
    passed : bool
    reasons, warnings : tuple of str
    numbers : mapping
        `KEY_NUMBERS`.
    path : Path
        Of the file of numbers.
    """

    kind: str
    subband: str | None
    hour: int | None
    passed: bool
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    numbers: Mapping[str, float | int | str | None]
    path: Path

    @property
    def name(self) -> str:
        """Such as bandpass 73MHz 20h."""
        return self.kind if self.subband is None else f"{self.kind} {self.subband} {self.hour:02d}h"

    @property
    def picture(self) -> Path:
        """The overview beside it."""
        return self.path.with_name(self.path.name.replace("_QA.json", "_QA.png"))


def calibrations_of(root: Path, day: date) -> list[CalibrationReport]:
    """The reports of a day (UTC): delays first, then bandpasses by frequency and hour; broken ones are left out."""
    found = []
    for pattern in (f"delay/{day.isoformat()}/*_QA.json*", f"bandpass/*/{day.isoformat()}/*/*_QA.json*"):
        for path in root.glob(pattern):
            with suppress(OrcaError, OSError, ValueError, TypeError, LookupError, AttributeError):
                found.append(_read(path))
    return sorted(found, key=lambda each: (each.kind != "delay", _mhz(each.subband), each.hour or 0, each.passed))


def _read(path: Path) -> CalibrationReport:
    name = naming.parse(path)
    told = json.loads(path.read_bytes())
    numbers = {key: told["numbers"][key] for key in KEY_NUMBERS if key in told["numbers"]}
    return CalibrationReport(
        kind="delay" if name.kind is naming.Kind.DELAY_QA else "bandpass",
        subband=name.subband,
        hour=name.hour,
        passed=bool(told["passed"]) and not name.failed,
        reasons=tuple(map(str, told.get("reasons", ()))),
        warnings=tuple(map(str, told.get("warnings", ()))),
        numbers=numbers,
        path=path,
    )


def _mhz(subband: str | None) -> int:
    return int((subband or "0MHz").removesuffix("MHz"))
