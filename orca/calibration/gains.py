"""Gains of the antennas from integrations of one subband: read, sum, solve, flag, refer to one antenna."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orca.antennas import bad_by_autocorrelation
from orca.calibration.accumulate import Sums, accumulate, empty_sums
from orca.calibration.apply import jones
from orca.calibration.options import SolveOptions
from orca.calibration.reference import choose_reference, not_connected, refer
from orca.calibration.screen import screen
from orca.calibration.stefcal import Gains, solve
from orca.calibration.tables import Solutions, make_solutions
from orca.errors import DataError, InputError, InvalidDataError, MismatchError
from orca.ms.acceptance import Acceptance
from orca.ms.archive import unpack
from orca.ms.growth import settled
from orca.ms.info import MsInfo
from orca.ms.inspect import inspect
from orca.sky import sky_model
from orca.skyoptions import SkyOptions
from orca.telescope import CORE_RADIUS_M, split_core

_ROWS = 2048


@dataclass(frozen=True)
class Summed:
    """Integrations that were added up.

    Attributes
    ----------
    sums : Sums
    used : paths
    left_out : dict of path to reason
    """

    sums: Sums
    used: tuple[Path, ...]
    left_out: dict[Path, str]


@dataclass(frozen=True)
class Solved:
    """Gains of one subband.

    Attributes
    ----------
    solutions : Solutions
        Of kind B Jones.
    bad : dict of antenna number to reason
        Antennas that were left out, or that have no solutions in a polarization, or only such as cannot be used.
    left_out : tuple of int
        Those that were left out beforehand.
    notes : tuple of str
        What a person should know.
    iterations : float
        Median number of steps.
    unconverged : float
        Share of channels and polarizations that did not converge.
    """

    solutions: Solutions
    bad: dict[int, str]
    left_out: tuple[int, ...]
    notes: tuple[str, ...]
    iterations: float
    unconverged: float


def sum_integrations(
    sources: Sequence[Path],
    folder: Path,
    *,
    sky: SkyOptions,
    uv_range_lambda: tuple[float, float],
    acceptance: Acceptance | None = None,
    minimum: int = 1,
) -> Summed:
    """Add up the integrations of a subband; those that cannot be used are left out, with the reason.

    Parameters
    ----------
    sources : paths
        Measurement Sets, or tars of them, which are unpacked one after the other. The first one that is used stays.
    folder : Path
        Where to unpack; what else is there is left alone.
    sky : SkyOptions
        The model for each of them.
    uv_range_lambda : (float, float)
    acceptance : Acceptance, optional
    minimum : int
        Fewest integrations that must be left.

    Raises
    ------
    InvalidDataError
        Fewer are left.
    InputError
        No source of the model is up in any of them.
    StorageError
        A tar cannot be unpacked.
    """
    accept = acceptance or Acceptance()
    left_out: dict[Path, str] = {}
    too_low: InputError | None = None
    while True:
        sums, used = None, []
        spoiled = False
        for source in (s for s in sources if s not in left_out):
            begun = False
            try:
                with settled(source, accept.settle_s):
                    info = _open(source, folder, accept)
                    if sums is None:
                        sums = empty_sums(info)
                    model = sky_model(float(info.time_s.mean()), info.freq_hz, sky)
                    begun = True
                    accumulate(sums, info, model, uv_range_lambda)
                used.append(source)
            except InputError as error:  # no source of the sky is up
                left_out[source], too_low = error.problem, error
            except DataError as error:
                left_out[source] = error.problem
                spoiled = begun and not isinstance(error, MismatchError)
            if not used:
                sums = None
            if used[1:] or source in left_out:
                shutil.rmtree(_unpacked(source, folder), ignore_errors=True)
            if spoiled:
                break
        if not spoiled:
            break
    if not used and too_low is not None:
        raise too_low
    if sums is None or len(used) < minimum:
        why = "; ".join(f"{path.name} {reason}" for path, reason in list(left_out.items())[:3])
        found = f"{len(used)} of {len(sources)} integrations can be used, needed are {minimum}"
        first = sources[0].parent if sources else None
        raise InvalidDataError(
            f"{found}{f' ({why})' if why else ''}", first, "Take another time, or lower the minimum."
        )
    return Summed(sums, tuple(used), left_out)


def _unpacked(source: Path, folder: Path) -> Path:
    return folder / f"{source.name}.unpacked"


def _open(source: Path, folder: Path, accept: Acceptance) -> MsInfo:
    path = source
    if source.name.endswith(".tar"):
        shutil.rmtree(_unpacked(source, folder), ignore_errors=True)  # of a first attempt
        path = unpack(source, _unpacked(source, folder), settle_s=0)
    return inspect(path, settle_s=0, min_fill_level=accept.min_fill_level, max_zero_share=accept.max_zero_share)


def solve_gains(
    sums: Sums,
    options: SolveOptions,
    *,
    bad: Sequence[int | str] = (),
    outriggers: Sequence[int] | None = None,
    delay: Path | None = None,
    threads: int | None = None,
) -> Solved:
    """Solve the sums for gains. The sums are used up: with a delay table they are changed in place.

    Parameters
    ----------
    sums : Sums
    options : SolveOptions
    bad : numbers or names
        Antennas known to be bad; those that the array does not have are ignored.
    outriggers : numbers, optional
        Else found from the positions.
    delay : Path, optional
        Table that is applied to the data first.
    threads : int, optional
        As many as there are processors if left out.

    Raises
    ------
    InputError
        An antenna of the options that the array does not have.
    InvalidDataError
        No antenna has a solution.
    """
    like = sums.like
    notes: list[str] = []
    known = _known(like, bad)
    reasons = dict.fromkeys(known, "known to be bad") | dict.fromkeys(
        like.antenna_numbers(options.flag_antennas), "left out on request"
    )
    core = split_core(like.positions_m, CORE_RADIUS_M, outriggers)
    if sums.samples.any():
        for number, why in bad_by_autocorrelation(sums.autocorrelation, core).items():
            reasons.setdefault(number, why)
    else:
        notes.append("there are no autocorrelations to see in which antennas are bad")
    left_out = tuple(sorted(reasons))
    use = np.ones((like.n_antennas, like.n_channels, 2), bool)
    use[list(left_out)] = False
    use[:, options.channels(like.n_channels)] = False
    if delay is not None:
        use &= ~_take_out_delay(sums, delay)
    found = solve(
        sums.first,
        sums.second,
        sums.vm,
        sums.mm,
        use,
        min_baselines=options.min_baselines,
        max_iterations=options.max_iterations,
        tolerance=options.tolerance,
        threads=threads or len(os.sched_getaffinity(0)),
    )
    snr = np.divide(np.abs(found.values), found.errors, out=np.zeros_like(found.errors), where=found.errors > 0)
    snr[(found.errors == 0) & (found.values != 0)] = np.float32(1e6)  # no noise at all
    flags = (found.baselines == 0) | ~found.converged[None] | (found.values == 0) | (snr < options.min_snr)
    reasons = _unsolved(found, use, flags, options) | reasons
    alive = ~np.asarray(flags.all((1, 2)))
    cut_off = not_connected(sums.first, sums.second, np.asarray((sums.mm > 0).any((1, 2))), alive)
    flags[cut_off] = True
    reasons |= {int(p): "no baseline within the range of uv connects it with the others" for p in cut_off}
    limits = {"sigma": options.template_sigma, "max_missing_share": options.max_missing_share}
    flags, dead = screen(found.values, flags, found.errors, **limits)
    reasons = dead | reasons
    tried = (found.baselines > 0).any(0)
    unconverged = float((tried & ~found.converged).sum() / max(tried.sum(), 1))
    if unconverged > 0:
        notes.append(f"{unconverged:.1%} of the channels did not converge in {options.max_iterations} steps")
    asked = options.reference_antenna
    wanted = None if asked is None else _number(like, asked)
    reference = choose_reference(flags, like.positions_m, wanted)
    if reference is None:
        remedy = "Look at the data, the sources that are up, and the range of uv."
        problem = "; ".join(["no antenna has a solution in both polarizations", *notes])
        raise InvalidDataError(problem, like.path, remedy)
    if asked is not None and reference != wanted:
        why = "is not in the array" if wanted is None else "is flagged"
        notes.append(f"reference antenna {asked} {why}: {like.antenna_names[reference]} is taken")
    values = refer(found.values, flags, reference)
    solutions = make_solutions(
        "B Jones",
        np.where(flags, 1, values),
        time_s=float(np.mean(sums.time_s)),
        antenna_names=like.antenna_names,
        frequency_hz=like.freq_hz,
        channel_width_hz=like.channel_width_hz,
        flags=flags,
        snr=np.where(flags, 0, snr),
        errors=np.where(flags, 0, found.errors),
        reference_antenna=reference,
    )
    steps = found.iterations[tried]
    return Solved(solutions, reasons, left_out, tuple(notes), float(np.median(steps)) if steps.size else 0, unconverged)


def _known(like: MsInfo, antennas: Sequence[int | str]) -> list[int]:
    """Numbers of those that the array has."""
    numbers = (_number(like, antenna) for antenna in antennas)
    return sorted({number for number in numbers if number is not None})


def _number(like: MsInfo, antenna: int | str) -> int | None:
    try:
        return like.antenna_numbers([antenna])[0]
    except InputError:
        return None


def _unsolved(found: Gains, use: np.ndarray, flags: np.ndarray, options: SolveOptions) -> dict[int, str]:
    """Why antennas have no solution in a polarization in which others have some."""
    reasons: dict[int, str] = {}
    for p, k in np.argwhere(flags.all(1) & ~flags.all((0, 1))):
        why = f"its solutions in {'XY'[k]} do not reach an SNR of {options.min_snr:g}"
        if not use[p, :, k].any():
            why = f"it has no delay in {'XY'[k]}"
        elif not found.baselines[p, :, k].any():
            why = f"it has fewer than {options.min_baselines} baselines within the range of uv in {'XY'[k]}"
        reasons.setdefault(int(p), why)
    return reasons


def _take_out_delay(sums: Sums, delay: Path) -> np.ndarray:
    """Divide the data by the gains of a delay table, of which only phases count; returns its flags."""
    like = sums.like
    found = jones([delay], like.antenna_names, like.freq_hz, like.channel_width_hz, float(np.mean(sums.time_s)))
    turn = (found.gains / np.abs(found.gains)).astype(np.complex64)
    for row in range(0, sums.first.size, _ROWS):
        rows = slice(row, row + _ROWS)
        sums.vm[rows] *= turn[sums.first[rows]].conj()
        sums.vm[rows] *= turn[sums.second[rows]]
    return found.flags
