"""Gains of the antennas from integrations of one subband: read, sum, solve, flag, refer to one antenna."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orca.calibration.accumulate import Accumulator, Sums, empty_sums
from orca.calibration.apply import jones
from orca.calibration.leaving_out import Flagged, antenna_number, by_antenna, flag_solutions, left_out_beforehand
from orca.calibration.options import SolveOptions
from orca.calibration.reference import choose_reference, refer
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
        Of kind B Jones. Their errors are those of `orca.calibration.stefcal.Gains`, without the error of the reference
        antenna's phase, which all antennas have in common; so are those in CASA's tables.
    bad : dict of antenna number to reason
        Antennas that were left out, or that have no solutions in a polarization, or only such as cannot be used.
    left_out : tuple of int
        Those that were left out beforehand, in both polarizations.
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
    DataError
        There is a single one, and this is what is wrong with it.
    StorageError
        A tar cannot be unpacked.
    """
    reading = _Reading(folder, sky, uv_range_lambda, acceptance or Acceptance())
    errors: dict[Path, DataError | InputError] = {}
    spoiled = True
    while spoiled:  # begin anew without the one that spoiled the sums
        sums, used, spoiled = _add_each([source for source in sources if source not in errors], reading, errors)
    if sums is None or len(used) < minimum:
        raise _too_few(sources, used, errors, minimum)
    return Summed(sums, tuple(used), {source: error.problem for source, error in errors.items()})


@dataclass(frozen=True)
class _Reading:
    """How integrations are read."""

    folder: Path
    sky: SkyOptions
    uv_range_lambda: tuple[float, float]
    accept: Acceptance


def _add_each(
    sources: Sequence[Path], reading: _Reading, errors: dict[Path, DataError | InputError]
) -> tuple[Sums | None, list[Path], bool]:
    """Add up sources until one of them spoils the sums, which is the last value; `errors` gets what is left out."""
    adding: Accumulator | None = None
    used: list[Path] = []
    with ExitStack() as stack:
        for source in sources:
            begun = False
            try:
                with settled(source, reading.accept.settle_s):
                    info = _open(source, reading)
                    model = sky_model(float(info.time_s.mean()), info.freq_hz, reading.sky)
                    adding = adding or stack.enter_context(Accumulator(empty_sums(info)))
                    begun = True
                    adding.add(info, model, reading.uv_range_lambda)
                used.append(source)
            except (DataError, InputError) as error:
                # A new one: this one's traceback holds the sums, and its path may be that of the unpacked tar.
                errors[source] = type(error)(error.problem, source, error.remedy)
                if begun and not isinstance(error, MismatchError):
                    shutil.rmtree(_unpacked(source, reading), ignore_errors=True)
                    return None, used, True
            if used[1:] or source in errors:
                shutil.rmtree(_unpacked(source, reading), ignore_errors=True)
    return adding.sums if adding else None, used, False


def _too_few(
    sources: Sequence[Path], used: Sequence[Path], errors: dict[Path, DataError | InputError], minimum: int
) -> DataError | InputError:
    """What to raise when fewer than `minimum` sources can be used."""
    too_low = [error for error in errors.values() if isinstance(error, InputError)]  # no source of the sky is up
    if not used and too_low:
        return too_low[-1]
    if not used and len(sources) == 1:
        return errors[sources[0]]
    why = "; ".join(f"{source.name} {error.problem}" for source, error in list(errors.items())[:3])
    found = f"{len(used)} of {len(sources)} integrations can be used, needed are {minimum}"
    first = sources[0].parent if sources else None
    told = f"{found} ({why})" if why else found
    return InvalidDataError(told, first, "Take another time, or lower --min-integrations")


def _unpacked(source: Path, reading: _Reading) -> Path:
    return reading.folder / f"{source.name}.unpacked"


def _open(source: Path, reading: _Reading) -> MsInfo:
    path, accept = source, reading.accept
    if source.name.endswith(".tar"):
        shutil.rmtree(_unpacked(source, reading), ignore_errors=True)  # of a first attempt
        path = unpack(source, _unpacked(source, reading), settle_s=0)
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
    notes = [] if sums.samples.any() else ["there are no autocorrelations to see in which antennas are bad"]
    left_out = left_out_beforehand(sums, options, bad, outriggers)
    use = np.ones((like.n_antennas, like.n_channels, 2), bool)
    for number, k in left_out:
        use[number, :, k] = False
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
        threads=threads or usable_threads(),
    )
    flagged = flag_solutions(found, use, sums, options)
    tried = (found.baselines > 0).any(0)
    unconverged = float((tried & ~found.converged).sum() / max(tried.sum(), 1))
    if unconverged > 0:
        notes.append(f"{unconverged:.1%} of the channels did not converge in {options.max_iterations} steps")
    reference = _reference_antenna(like, flagged.flags, options.reference_antenna, notes)
    steps = found.iterations[tried]
    return Solved(
        solutions=_table(sums, found, flagged, reference),
        bad=by_antenna(flagged.reasons | left_out),
        left_out=tuple(number for number, k in sorted(left_out) if k == 0 and (number, 1) in left_out),
        notes=tuple(notes),
        iterations=float(np.median(steps)) if steps.size else 0,
        unconverged=unconverged,
    )


def _reference_antenna(like: MsInfo, flags: np.ndarray, asked: str | None, notes: list[str]) -> int:
    """Number of the reference antenna; `notes` tell if it is not the one that was asked for.

    Raises
    ------
    InvalidDataError
        No antenna can be it.
    """
    wanted = None if asked is None else antenna_number(like, asked)
    reference = choose_reference(flags, like.positions_m, wanted)
    if reference is None:
        remedy = "Look at the data, the sources that are up, and the range of uv."
        problem = "; ".join(["no antenna has a solution in both polarizations", *notes])
        raise InvalidDataError(problem, like.path, remedy)
    if asked is not None and reference != wanted:
        why = "is not in the array" if wanted is None else "is flagged"
        notes.append(f"reference antenna {asked} {why}: {like.antenna_names[reference]} is taken")
    return reference


def _table(sums: Sums, found: Gains, flagged: Flagged, reference: int) -> Solutions:
    """Gains relative to the reference antenna; where they are flagged, 1 without error and SNR."""
    like, flags = sums.like, flagged.flags
    return make_solutions(
        "B Jones",
        np.where(flags, 1, refer(found.values, flags, reference)),
        time_s=float(np.mean(sums.time_s)),
        antenna_names=like.antenna_names,
        frequency_hz=like.freq_hz,
        channel_width_hz=like.channel_width_hz,
        flags=flags,
        snr=np.where(flags, 0, flagged.snr),
        errors=np.where(flags, 0, found.errors),
        reference_antenna=reference,
    )


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


def usable_threads() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))
