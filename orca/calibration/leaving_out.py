"""Which antennas and solutions do not count, and why: before gains are solved, and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orca.antennas import bad_by_autocorrelation
from orca.calibration.accumulate import Sums
from orca.calibration.options import SolveOptions
from orca.calibration.reference import not_connected
from orca.calibration.screen import screen
from orca.calibration.stefcal import Gains
from orca.errors import InputError
from orca.ms.info import MsInfo
from orca.telescope import CORE_RADIUS_M, split_core

Reasons = dict[tuple[int, int], str]
"""Why not, by antenna number and polarization (0 for X, 1 for Y)."""
_NO_NOISE_SNR = 1e6


@dataclass(frozen=True)
class Flagged:
    """What is left of the gains.

    Attributes
    ----------
    flags : (n_antennas, n_channels, 2) bool
        Solutions that are not to be used.
    snr : like flags, float32
        Of all solutions.
    reasons : dict
        Why polarizations of antennas have no solution that can be used.
    """

    flags: np.ndarray
    snr: np.ndarray
    reasons: Reasons


def antenna_number(like: MsInfo, antenna: int | str) -> int | None:
    """Number of an antenna given by name or number; None if the array does not have it."""
    try:
        return like.antenna_numbers([antenna])[0]
    except InputError:
        return None


def left_out_beforehand(
    sums: Sums, options: SolveOptions, bad: Sequence[int | str], outriggers: Sequence[int] | None
) -> Reasons:
    """Polarizations of antennas that do not take part.

    These are both of an antenna that is known to be bad (those that the array does not have are ignored) or was asked
    to be left out, and each one whose own autocorrelations give it away.

    Raises
    ------
    InputError
        An antenna of the options that the array does not have.
    """
    like = sums.like
    known = {number for antenna in bad if (number := antenna_number(like, antenna)) is not None}
    reasons = dict.fromkeys(_both(like.antenna_numbers(options.flag_antennas)), "left out on request")
    reasons |= dict.fromkeys(_both(known), "known to be bad")
    if not sums.samples.any():
        return reasons
    core = split_core(like.positions_m, CORE_RADIUS_M, outriggers)
    return bad_by_autocorrelation(sums.autocorrelation, core) | reasons


def flag_solutions(found: Gains, use: np.ndarray, sums: Sums, options: SolveOptions) -> Flagged:
    """Flag what is not solved, too noisy, connected with nothing, or off what the antennas have in common.

    Parameters
    ----------
    found : Gains
        Of the sums.
    use : (n_antennas, n_channels, 2) bool
        What took part.
    sums : Sums
    options : SolveOptions
    """
    snr = np.divide(np.abs(found.values), found.errors, out=np.zeros_like(found.errors), where=found.errors > 0)
    snr[(found.errors == 0) & (found.values != 0)] = np.float32(_NO_NOISE_SNR)
    flags = (found.baselines == 0) | ~found.converged[None] | (found.values == 0) | (snr < options.min_snr)
    reasons = _unsolved(found, use, flags, options)
    for k in range(2):
        alive = ~np.asarray(flags[:, :, k].all(1))
        cut_off = not_connected(sums.first, sums.second, np.asarray((sums.mm[:, :, k] > 0).any(1)), alive)
        flags[cut_off, :, k] = True
        why = "no baseline within the range of uv connects it with the others"
        reasons |= {(int(number), k): why for number in cut_off}
    limits = {"sigma": options.template_sigma, "max_missing_share": options.max_missing_share}
    flags, dead = screen(found.values, flags, found.errors, **limits)
    return Flagged(flags, snr, dead | reasons)


def by_antenna(reasons: Reasons) -> dict[int, str]:
    """One line for each antenna; it names the polarization, unless the same holds for both."""
    texts: dict[int, dict[str, str]] = {}
    for (number, k), why in sorted(reasons.items()):
        texts.setdefault(number, {})["XY"[k]] = why
    return {number: _in_one_line(of_polarizations) for number, of_polarizations in texts.items()}


def _in_one_line(texts: dict[str, str]) -> str:
    if len(texts) == 2 and texts["X"] == texts["Y"]:
        return texts["X"]
    return "; ".join(f"{why} ({polarization})" for polarization, why in texts.items())


def _both(antennas: Sequence[int] | set[int]) -> list[tuple[int, int]]:
    return [(number, k) for number in antennas for k in range(2)]


def _unsolved(found: Gains, use: np.ndarray, flags: np.ndarray, options: SolveOptions) -> Reasons:
    """Why antennas have no solution in a polarization in which others have some."""
    reasons: Reasons = {}
    for p, k in np.argwhere(flags.all(1) & ~flags.all((0, 1))).tolist():
        if not use[p, :, k].any():
            why = "it has no delay"
        elif not found.baselines[p, :, k].any():
            why = f"it has fewer than {options.min_baselines} baselines within the range of uv"
        else:
            why = f"its solutions do not reach an SNR of {options.min_snr:g}"
        reasons[p, k] = why
    return reasons
