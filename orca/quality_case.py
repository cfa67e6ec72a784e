"""The judgement of a calibration while it is being made, and the verdict that comes out: numbers and words."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

import numpy as np

from orca import quality_numbers as measure
from orca.calibration.tables import Solutions
from orca.errors import InputError
from orca.quality_limits import QualityLimits

Kind = Literal["bandpass", "delay"]
Number = float | int | str | None
POLARIZATIONS = ("X", "Y")
_KINDS: dict[Kind, tuple[str, ...]] = {"bandpass": ("B Jones", "G Jones"), "delay": ("K Jones",)}
_MOSTLY = 0.5
"""Share of its solutions above which an antenna is named as flagged."""


@dataclass(frozen=True)
class Verdict:
    """What is to be said about a calibration.

    Attributes
    ----------
    kind : "bandpass" or "delay"
    passed : bool
    reasons : tuple of str
        One for each limit that is broken, with the number and the limit; the most telling first; empty if it passed.
    warnings : tuple of str
        What somebody should look at though it forbids nothing.
    numbers : dict
        Measured values; None where there was nothing to measure.
    worst : tuple of (name of the antenna, why)
        All bad antennas, the worst first; those left out beforehand are not among them.
    boards : tuple of (number of the board, why)
        Bad boards: board n has the antennas 32 n to 32 n + 31 by correlator number.
    left_out : tuple of int
        Correlator numbers of the antennas that were known to be bad beforehand.
    """

    kind: Kind
    passed: bool
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    numbers: dict[str, Number]
    worst: tuple[tuple[str, str], ...] = ()
    boards: tuple[tuple[int, str], ...] = ()
    left_out: tuple[int, ...] = ()

    @property
    def line(self) -> str:
        """Pass or fail, and why, in one line."""
        if not self.passed:
            more = f" (and {len(self.reasons) - 1} more)" if len(self.reasons) > 1 else ""
            return f"FAIL: {self.reasons[0]}{more}"
        return f"PASS with a warning: {self.warnings[0]}" if self.warnings else "PASS"

    def plain(self) -> dict[str, Any]:
        """The same for JSON."""
        return {
            "kind": self.kind,
            "passed": self.passed,
            "line": self.line,
            "reasons": list(self.reasons),
            "warnings": list(self.warnings),
            "numbers": dict(self.numbers),
            "worst": [{"antenna": name, "why": why} for name, why in self.worst],
            "boards": [{"board": board, "why": why} for board, why in self.boards],
            "left_out": list(self.left_out),
        }


class Case:
    """Collects what is found about a calibration.

    Attributes
    ----------
    values : (n_antennas, n_channels, 2)
        See `orca.quality_numbers.usable`; not a number also for the antennas left out.
    counted : (n_antennas,) bool
        False for the antennas left out.
    numbers, reasons, warnings, boards
        What the verdict will have.

    Raises
    ------
    InputError
        The solutions are of another kind, or of several times or none, or an antenna left out does not exist.
    """

    def __init__(self, kind: Kind, solutions: Solutions, left_out: Sequence[int]) -> None:
        names = solutions.antenna_names
        if solutions.kind not in _KINDS[kind]:
            raise InputError(
                f"a table of kind {solutions.kind} is not a {kind}", solutions.path, f"Give {' or '.join(_KINDS[kind])}"
            )
        if len(solutions.time_s) != 1:
            raise InputError(f"has {len(solutions.time_s)} times", solutions.path, "Judge them one by one")
        if wrong := [number for number in left_out if not 0 <= number < len(names)]:
            raise InputError(f"there is no antenna {wrong[0]} to leave out: the table has 0 to {len(names) - 1}")
        self.kind: Kind = kind
        self.solutions = solutions
        self.left_out = tuple(sorted({int(number) for number in left_out}))
        self.counted = ~np.isin(np.arange(len(names)), self.left_out)
        self.values = self.only_counted(measure.usable(solutions))
        self.numbers: dict[str, Number] = {}
        self.reasons: list[str] = []
        self.warnings: list[str] = []
        self.boards: defaultdict[int, list[str]] = defaultdict(list)
        self._blame: defaultdict[int, list[tuple[float, str]]] = defaultdict(list)

    def only_counted(self, values: np.ndarray) -> np.ndarray:
        """The values, not a number for the antennas left out."""
        return np.where(self.counted.reshape(-1, *[1] * (values.ndim - 1)), values, np.nan)

    def note(self, key: str, value: float | np.floating[Any] | np.ndarray) -> float:
        """Put a number on record, as None if there is none, and return it."""
        found = float(value)
        if isinstance(value, int):
            self.numbers[key] = value
        else:
            self.numbers[key] = float(f"{found:.6g}") if math.isfinite(found) else None
        return found

    def number(self, key: str) -> float:
        """A number on record; not a number where there is none."""
        value = self.numbers[key]
        return float(value) if isinstance(value, int | float) else math.nan

    def note_largest(self, key: str, values_ns: np.ndarray) -> None:
        """Put the largest of (n_antennas, 2) on record, with its sign, and whose it is."""
        size = np.where(np.isnan(values_ns), -1.0, np.abs(values_ns))
        antenna, polarization = np.unravel_index(int(size.argmax()), size.shape)
        found = size[antenna, polarization] >= 0
        self.note(f"{key}_ns", values_ns[antenna, polarization])
        self.numbers[f"{key}_antenna"] = self.solutions.antenna_names[antenna] if found else None

    def worse_than(self, key: str, limit: float, words: str) -> None:
        """Give a reason, if a share on record is above its limit; `words` has {} in the place of the share."""
        value = self.number(key)
        if value > limit:
            self.reasons.append(f"{words.format(percent(value))}, above {percent(limit)}")

    def count_flags(self, limits: QualityLimits) -> None:
        """Count what is flagged and what ought to be; give the reasons that follow."""
        solutions, counted = self.solutions, self.counted
        flagged = np.isnan(self.values.real)
        n = int(counted.sum())
        self.note("n_antennas", len(counted))
        self.note("n_left_out", len(self.left_out))
        reference = solutions.reference_antenna
        known = 0 <= reference < len(counted)
        self.numbers["reference_antenna"] = solutions.antenna_names[reference] if known else None
        self.note("flagged_share", flagged[counted].mean() if n else math.nan)
        gone = flagged.all(axis=1) & counted[:, None]
        for k, name in enumerate(POLARIZATIONS):
            self.note(f"antennas_flagged_{name.lower()}", int(gone[:, k].sum()))
        if self.kind == "bandpass":
            empty = flagged.all(axis=(0, 2))
            self.note("n_channels", empty.size)
            self.note("channels_flagged", int(empty.sum()))
            self.note("channels_flagged_share", float(empty.mean()))
        unfit = self.note("not_finite", measure.count_unfit(solutions))
        if unfit:
            what = "solution is" if unfit == 1 else "solutions are"
            self.reasons.append(f"{unfit:.0f} {what} zero or not finite, and not flagged")
        share = len(self.left_out) / max(len(counted), 1)
        if n and share > limits.max_left_out_share:
            limit = f"more than {percent(limits.max_left_out_share)}"
            self.reasons.append(f"{len(self.left_out)} of {len(counted)} antennas were left out beforehand, {limit}")
        elif n and share > limits.max_left_out_share / 2:
            self.warnings.append(f"{len(self.left_out)} of {len(counted)} antennas were left out beforehand")
        if n == 0:
            self.reasons.append("no antenna is left: all were left out")
        elif flagged[counted].all():
            self.reasons.append("all solutions are flagged")
        else:
            self._judge_flags(limits, flagged, gone, n)

    def _judge_flags(self, limits: QualityLimits, flagged: np.ndarray, gone: np.ndarray, n: int) -> None:
        for k, name in enumerate(POLARIZATIONS):
            alive = n - int(gone[:, k].sum())
            if alive < limits.min_antennas_share * n:
                self.reasons.append(
                    f"polarization {name}: {alive} of {n} antennas have solutions ({percent(alive / n)}), "
                    f"at least {percent(limits.min_antennas_share)} must"
                )
        self.worse_than("flagged_share", limits.max_flagged_share, "{} of the solutions are flagged")
        if self.kind == "bandpass":
            limit = limits.max_channels_flagged_share
            self.worse_than("channels_flagged_share", limit, "{} of the channels have no solution")
        reference = self.solutions.reference_antenna
        if 0 <= reference < len(self.counted) and flagged[reference].all():
            name = self.solutions.antenna_names[reference]
            self.warnings.append(f"the reference antenna {name} has no solutions itself")
        # What no antenna has, such as a dead polarization, is no single antenna's fault.
        there = np.asarray(~flagged.all(axis=0))
        missing = flagged & there
        for antenna in np.flatnonzero(self.counted).tolist():
            share = missing[antenna].sum() / there.sum()
            lost = [p for k, p in enumerate(POLARIZATIONS) if gone[antenna, k] and there[:, k].any()]
            if lost:
                self._blame[antenna].append((0.7 + 0.1 * len(lost), f"{' and '.join(lost)} flagged"))
            elif share > _MOSTLY:
                self._blame[antenna].append((0.7 * share, f"{percent(share)} flagged"))

    def blame_each(self, size: np.ndarray, limit: float, words: Callable[[int, int], str]) -> None:
        """Name the antennas of which `size` (n_antennas, 2) is above a limit; `words(antenna, polarization)` tell."""
        for antenna, polarization in np.argwhere(size > limit):
            severity = float(size[antenna, polarization]) / limit
            text = f"{POLARIZATIONS[polarization]} {words(antenna, polarization)}"
            self._blame[int(antenna)].append((severity, text))

    def find_bad_boards(self) -> None:
        """Name the boards that are full of antennas blamed until now."""
        bad = np.isin(np.arange(len(self.counted)), list(self._blame))
        for board, n, total in measure.bad_boards(bad, self.counted):
            self.boards[board].insert(0, f"{n} of {total} antennas are bad")

    def comparable(self, previous: Solutions | None) -> TypeGuard[Solutions]:
        """Whether there is a previous table of the same kind; another kind is a warning."""
        if previous is None:
            return False
        if previous.kind in _KINDS[self.kind] and len(previous.time_s) > 0:
            return True
        self.warnings.append(f"not compared with the last good one, which is a table of kind {previous.kind}")
        return False

    def verdict(self) -> Verdict:
        """What was found. The worst antennas first: those that harm an image, those that are flagged, bad boards'."""
        ranked = sorted(self._blame, key=self._rank)
        self.note("bad_antennas", len(ranked))
        self.note("bad_boards", len(self.boards))
        boards = tuple((board, "; ".join(self.boards[board])) for board in sorted(self.boards))
        return Verdict(
            kind=self.kind,
            passed=not self.reasons,
            reasons=tuple(self.reasons),
            warnings=(*self.warnings, *(f"board {board}: {why}" for board, why in boards)),
            numbers=dict(self.numbers),
            worst=tuple((self.solutions.antenna_names[k], self._why(k)) for k in ranked),
            boards=boards,
            left_out=self.left_out,
        )

    def _rank(self, antenna: int) -> tuple[bool, float, int]:
        severity = max(size for size, _ in self._blame[antenna])
        return severity < 1 and antenna // measure.BOARD_SIZE in self.boards, -severity, antenna

    def _why(self, antenna: int) -> str:
        texts = "; ".join(text for _, text in self._blame[antenna])
        return f"number {antenna}, board {antenna // measure.BOARD_SIZE}: {texts}"


def percent(share: float) -> str:
    """A share in words: 0.304 is 30.4 %."""
    return f"{100 * share:.3g} %"
