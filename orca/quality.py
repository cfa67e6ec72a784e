"""Whether a calibration may be used, and why not: bandpass and delay tables against limits.

What is measured is in `orca.quality_numbers`, the limits in `orca.quality_limits`, the words in `orca.quality_case`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from orca import quality_numbers as measure
from orca.calibration.tables import Solutions
from orca.quality_case import Case, Verdict, percent
from orca.quality_limits import QualityLimits

__all__ = ["QualityLimits", "Verdict", "judge_bandpass", "judge_delay"]

_LEAST_SPREAD = 0.05
"""Robust standard deviation of the antennas' amplitudes, relative, below which it is taken to be this."""
_LEAST_SPREAD_NS = 1.0
"""The same for delays."""
_LEAST_SCATTER = 0.05
"""Scatter from channel to channel below which no antenna is called an outlier: it does no harm."""
_BOARD_FACTOR = 1.5
"""A board's amplitudes are off together by at least this factor: coax and fibre differ by less."""


def judge_bandpass(
    solutions: Solutions,
    *,
    left_out: Sequence[int] = (),
    previous: Solutions | None = None,
    limits: QualityLimits = QualityLimits(),
) -> Verdict:
    """Judge a bandpass of one time.

    Parameters
    ----------
    solutions : Solutions
        B Jones or G Jones.
    left_out : correlator numbers
        Antennas that were known to be bad beforehand; they do not count against the calibration.
    previous : Solutions, optional
        The last good bandpass of the subband. If it cannot be compared, that is a warning.
    limits : QualityLimits

    Raises
    ------
    InputError
        It is no bandpass, has several times or none, or `left_out` names an antenna that does not exist.
    """
    case = Case("bandpass", solutions, left_out)
    case.count_flags(limits)
    gains, counted = case.values, case.counted
    snr = np.where(np.isnan(gains.real) | ~np.isfinite(solutions.snr[-1]), np.nan, solutions.snr[-1])
    median_snr = case.note("median_snr", measure.median(snr))
    if median_snr < limits.min_median_snr:
        case.reasons.append(f"the median SNR is {median_snr:.3g}, below {limits.min_median_snr:g}")

    level = measure.median(np.abs(gains), 1)
    scatter = measure.channel_scatter(gains)
    case.note("scatter_amplitude", measure.median(scatter.amplitude))
    case.worse_than("scatter_amplitude", limits.max_scatter, "amplitudes scatter by {} from channel to channel")
    degrees = case.note("scatter_phase_deg", measure.median(scatter.phase_deg))
    if degrees > limits.max_phase_scatter_deg:
        case.reasons.append(
            f"phases scatter by {degrees:.3g} deg from channel to channel, above {limits.max_phase_scatter_deg:g} deg"
        )
    away = np.log(level) - measure.median(np.log(level), 0)
    case.note("amplitude_spread", measure.spread(away))
    case.worse_than("amplitude_spread", limits.max_amplitude_spread, "the antennas' amplitudes differ by {}")
    x, y = (case.note(f"median_amplitude_{p.lower()}", measure.median(level[:, k])) for k, p in enumerate("XY"))
    if max(x / y, y / x) > limits.max_polarization_ratio:
        case.warnings.append(f"the median amplitude of X is {x:.3g} and that of Y {y:.3g}")

    sigma = max(float(measure.spread(away)), _LEAST_SPREAD)
    case.blame_each(
        np.abs(away) / sigma,
        limits.outlier_sigma,
        lambda n, p: f"amplitude {math.exp(away[n, p]):.3g} times the median",
    )
    usual = max(limits.outlier_scatter * case.number("scatter_amplitude"), _LEAST_SCATTER)
    case.blame_each(scatter.amplitude / usual, 1.0, lambda n, p: f"scatters by {percent(scatter.amplitude[n, p])}")
    for board, shift in measure.shifted_boards(away, counted, limits.outlier_sigma, math.log(_BOARD_FACTOR)):
        case.boards[board].append(f"amplitudes {math.exp(shift):.2f} times those of the other boards")
    case.find_bad_boards()
    if case.comparable(previous):
        change = case.only_counted(measure.amplitude_change(solutions, previous))
        _judge_change(case, change, limits)
    return case.verdict()


def judge_delay(
    solutions: Solutions,
    *,
    left_out: Sequence[int] = (),
    previous: Solutions | None = None,
    limits: QualityLimits = QualityLimits(),
) -> Verdict:
    """Judge a table of delays; parameters and errors as for `judge_bandpass`.

    Delays are relative to the reference antenna, which differs from table to table, so everything here is relative to
    the median of each polarization.
    """
    case = Case("delay", solutions, left_out)
    case.count_flags(limits)
    delays = case.values[:, 0]
    away = delays - measure.median(delays, 0)
    case.note("rms_ns", math.sqrt(np.nanmean(away**2)) if np.isfinite(away).any() else math.nan)
    spread_ns = case.note("spread_ns", measure.spread(away))
    if spread_ns > limits.max_delay_spread_ns:
        case.reasons.append(f"the delays spread by {spread_ns:.4g} ns, above {limits.max_delay_spread_ns:g} ns")
    case.note_largest("largest", away)
    known = solutions.errors[-1, :, 0]
    errors = np.where(np.isnan(delays) | ~np.isfinite(known) | (known <= 0), np.nan, known)
    error_ns = case.note("median_error_ns", measure.median(errors))
    case.note("largest_error_ns", np.nanmax(errors) if np.isfinite(errors).any() else math.nan)
    if error_ns > limits.max_delay_error_ns:
        case.reasons.append(
            f"the median error of the delays is {error_ns:.3g} ns, above {limits.max_delay_error_ns:g} ns"
        )
    sigma = max(spread_ns, _LEAST_SPREAD_NS)
    case.blame_each(np.abs(away) / sigma, limits.outlier_sigma, lambda n, p: f"delay {away[n, p]:+.1f} ns")
    case.find_bad_boards()
    if case.comparable(previous):
        change = case.only_counted(measure.delay_change_ns(solutions, previous))
        _judge_moves(case, change, limits)
    return case.verdict()


def _judge_change(case: Case, change: measure.Floats, limits: QualityLimits) -> None:
    each = np.fmax(change[:, 0], change[:, 1])
    case.note("compared_antennas", int(np.isfinite(each).sum()))
    overall = case.note("change_amplitude", measure.median(change))
    if math.isnan(overall):
        case.warnings.append("the last good bandpass has no solution in common with this one: not compared")
    if overall > limits.max_change:
        case.warnings.append(
            f"amplitudes changed by {percent(overall)} since the last good bandpass, more than "
            f"{percent(limits.max_change)}"
        )
    # If all changed alike, as by another attenuator, no single antenna is to blame.
    beyond = max(limits.max_change, limits.outlier_sigma * float(measure.spread(change)))
    case.blame_each(
        np.abs(change - overall), beyond, lambda n, p: f"changed by {percent(change[n, p])} since the last good one"
    )


def _judge_moves(case: Case, change: measure.Floats, limits: QualityLimits) -> None:
    compared = np.isfinite(change).any(axis=1)
    moved = (np.abs(change) > limits.alarm_ns).any(axis=1)
    n, total = int(moved.sum()), int(compared.sum())
    case.note("compared_antennas", total)
    case.note("alarm_ns", limits.alarm_ns)
    case.note("moved_antennas", n)
    case.note("moved_share", n / total if total else math.nan)
    case.note("change_rms_ns", math.sqrt(np.nanmean(change**2)) if total else math.nan)
    case.note("change_spread_ns", measure.spread(change))
    case.note_largest("largest_change", change)
    if not total:
        case.warnings.append("the last good delays have no antenna in common with these: not compared")
        return
    if n:
        numbers = case.numbers
        case.warnings.insert(
            0,
            f"ALARM: {n} of {total} antennas moved by more than {limits.alarm_ns:g} ns since the last good delays, "
            f"most {numbers['largest_change_antenna']} by {numbers['largest_change_ns']:+.4g} ns",
        )
    if n > limits.max_moved_share * total:
        case.reasons.append(
            f"{n} of {total} antennas ({percent(n / total)}) moved by more than {limits.alarm_ns:g} ns since the last "
            f"good delays, at most {percent(limits.max_moved_share)} may"
        )
    case.blame_each(np.abs(change) / limits.alarm_ns, 1.0, lambda k, p: f"moved by {change[k, p]:+.1f} ns")
    for board, shift in measure.shifted_boards(change, case.counted, limits.outlier_sigma, limits.board_shift_ns):
        case.boards[board].append(f"delays moved together by {shift:+.1f} ns since the last good ones")
