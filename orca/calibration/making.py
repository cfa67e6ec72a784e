"""A calibration table and all that is to be known about it, made of integrations: for a bandpass, and for delays.

They write into a folder of scratch and publish nothing. A full disk makes casacore abort the process: call them in a
child (`orca.isolation`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from orca.antennas import BadAntennas
from orca.calibration.delays import Delays, fit_delays
from orca.calibration.gains import Solved, Summed, solve_gains, sum_integrations
from orca.calibration.made import PDF, PICTURE, TABLE, Calibrated, Clock, finish
from orca.calibration.options import BlockOptions, DelayOptions, SolveOptions
from orca.calibration.reference import common_reference
from orca.calibration.report import bandpass_figures, delay_figures, write_report
from orca.calibration.tables import Solutions, make_solutions, read_table, write_table
from orca.errors import DataError, InvalidDataError
from orca.ms.acceptance import Acceptance
from orca.ms.info import MsInfo
from orca.quality import judge_bandpass, judge_delay
from orca.quality_limits import QualityLimits
from orca.skyoptions import SkyOptions


@dataclass(frozen=True)
class Knowledge:
    """What is known beforehand, and what is expected.

    Attributes
    ----------
    bad : BadAntennas
        Antennas that are known to be bad, and who says so.
    outriggers : tuple of int, or None
        None: found from the positions.
    previous : Path or None
        The last good table of the kind, to compare with.
    limits : QualityLimits
    acceptance : Acceptance
    threads : int, optional
        That may work at once; as many as there are processors if left out.
    """

    bad: BadAntennas
    outriggers: tuple[int, ...] | None = None
    previous: Path | None = None
    limits: QualityLimits = field(default_factory=QualityLimits)
    acceptance: Acceptance = field(default_factory=Acceptance)
    threads: int | None = None


def make_bandpass(
    sources: Sequence[Path],
    folder: Path,
    *,
    title: str,
    sky: SkyOptions,
    solve: SolveOptions,
    block: BlockOptions,
    knowledge: Knowledge,
    delay: Path | None = None,
) -> Calibrated:
    """Solve a block of integrations of one subband for its bandpass.

    Parameters
    ----------
    sources : paths
        Measurement Sets or tars, at most a block of them.
    folder : Path
        Gets the table, its report (PDF, PNG) and numbers (JSON), under the names of `orca.calibration.made`.
    title : str
        Of the report.
    sky, solve, block : options
    knowledge : Knowledge
    delay : Path, optional
        Delay table to apply first.

    Raises
    ------
    DataError
        Too few integrations can be used, or nothing can be solved.
    InputError
        No source of the sky is up, or an antenna does not exist.
    """
    clock = Clock()
    summed = sum_integrations(
        sources,
        folder / "unpacked",
        sky=sky,
        uv_range_lambda=solve.uv_range_lambda,
        acceptance=knowledge.acceptance,
        minimum=block.min_integrations or 1,
    )
    like = summed.sums.like
    solved = _solve(summed, solve, knowledge, delay)
    write_table(folder / TABLE, solved.solutions, like.path)
    previous = _previous(knowledge.previous, solved.solutions)
    verdict = judge_bandpass(solved.solutions, left_out=solved.left_out, previous=previous, limits=knowledge.limits)
    notes, antennas = [*_warning(knowledge), *solved.notes], _antenna_notes(like, solved)
    expected = block.integrations or len(sources)
    if len(summed.used) < expected:
        notes.append(f"only {len(summed.used)} of {expected} integrations were used")
    words = [*notes, *antennas]
    figures = bandpass_figures(solved.solutions, verdict, previous, title=title, notes=words)
    write_report(folder / PDF, folder / PICTURE, figures)
    left_out = {path.name: reason for path, reason in summed.left_out.items()}
    numbers = {
        "subband": like.subband,
        "n_integrations": len(summed.used),
        "iterations": solved.iterations,
        "unconverged_share": solved.unconverged,
        "reference_antenna": like.antenna_names[solved.solutions.reference_antenna],
    }
    return finish(
        clock, folder, verdict, notes, antennas, float(solved.solutions.time_s[0]), summed.used, left_out, numbers
    )


def make_delays(
    sources: Mapping[str, Path],
    folder: Path,
    *,
    title: str,
    sky: SkyOptions,
    solve: SolveOptions,
    options: DelayOptions,
    knowledge: Knowledge,
    missing: Sequence[str] = (),
) -> Calibrated:
    """Find the delays of all antennas from one integration of several subbands.

    Parameters
    ----------
    sources : mapping of subband to Path
        Measurement Sets or tars, of the same integration.
    folder, title, sky, solve, knowledge
        As in `make_bandpass`.
    options : DelayOptions
    missing : sequence of str
        Subbands that should be there and are not, for the report.

    Raises
    ------
    DataError
        Too few subbands can be used, or no antenna has solutions in all of them.
    InputError
        No source of the sky is up, or an antenna does not exist.
    """
    clock = Clock()
    done, left_out = _solve_subbands(sources, folder, sky, solve, knowledge)
    if len(done) < options.min_subbands:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:3])
        found = f"{len(done)} of {len(sources)} subbands can be used, needed are {options.min_subbands}"
        remedy = "Take another date, or lower --min-subbands."
        raise InvalidDataError(f"{found}{f' ({why})' if why else ''}", None, remedy)
    first, *_ = done.values()
    windows, notes = _to_one_reference(list(done.values()))
    delays = fit_delays(windows, options.min_coherence)
    solutions = _delay_table(delays, windows, first.like.channel_width_hz)
    write_table(folder / TABLE, solutions, first.like.path)
    known = set.intersection(*(set(one.solved.left_out) for one in done.values()))
    previous = _previous(knowledge.previous, solutions)
    verdict = judge_delay(solutions, left_out=sorted(known), previous=previous, limits=knowledge.limits)
    notes = [*_warning(knowledge), *notes]
    antennas = _antenna_notes(first.like, *(one.solved for one in done.values()))
    if missing:
        notes.append(f"not recorded then: {', '.join(missing)}")
    words = [*notes, *antennas]
    figures = delay_figures(solutions, verdict, previous, title=title, notes=words)
    write_report(folder / PDF, folder / PICTURE, figures)
    good = ~delays.flags
    numbers = {
        "subbands": ", ".join(done),
        "n_subbands": len(done),
        "n_integrations": 1,
        "median_error_ns": float(np.median(delays.errors_ns[good])) if good.any() else None,
        "median_coherence": float(np.median(delays.coherence[good])) if good.any() else None,
        "reference_antenna": solutions.antenna_names[solutions.reference_antenna],
    }
    used = tuple(one.source for one in done.values())
    return finish(clock, folder, verdict, notes, antennas, float(solutions.time_s[0]), used, left_out, numbers)


@dataclass(frozen=True)
class _Subband:
    """Gains of one integration of a subband; without the sums, which take 0.3 GB."""

    source: Path
    like: MsInfo
    solved: Solved


def _solve_subbands(
    sources: Mapping[str, Path], folder: Path, sky: SkyOptions, solve: SolveOptions, knowledge: Knowledge
) -> tuple[dict[str, _Subband], dict[str, str]]:
    """Gains by subband, all of one array, and why sources are left out, by file name."""
    done: dict[str, _Subband] = {}
    left_out: dict[str, str] = {}
    for subband, source in sources.items():
        try:
            done[subband] = _solve_subband(source, folder / "unpacked" / subband, sky, solve, knowledge)
        except DataError as error:
            left_out[source.name] = error.problem
    for subband, usual in _of_other_arrays(done).items():
        left_out[done.pop(subband).source.name] = f"has other antennas than {usual}"
    return done, left_out


def _of_other_arrays(done: Mapping[str, _Subband]) -> dict[str, str]:
    """Subbands that have other antennas than most, each with the first one that has what most have."""
    arrays = {subband: one.like.antenna_names for subband, one in done.items()}
    if len(set(arrays.values())) < 2:
        return {}
    most, _ = Counter(arrays.values()).most_common(1)[0]
    usual = next(subband for subband, names in arrays.items() if names == most)
    return {subband: usual for subband, names in arrays.items() if names != most}


def _solve_subband(source: Path, folder: Path, sky: SkyOptions, solve: SolveOptions, knowledge: Knowledge) -> _Subband:
    summed = sum_integrations(
        [source], folder, sky=sky, uv_range_lambda=solve.uv_range_lambda, acceptance=knowledge.acceptance
    )
    return _Subband(source, summed.sums.like, _solve(summed, solve, knowledge))


def _solve(summed: Summed, solve: SolveOptions, knowledge: Knowledge, delay: Path | None = None) -> Solved:
    return solve_gains(
        summed.sums,
        solve,
        bad=knowledge.bad.antennas,
        outriggers=knowledge.outriggers,
        delay=delay,
        threads=knowledge.threads,
    )


def _to_one_reference(subbands: Sequence[_Subband]) -> tuple[list[Solutions], list[str]]:
    """Solutions of all subbands relative to one antenna, and notes.

    Raises
    ------
    InvalidDataError
        No antenna has solutions in all of them.
    """
    windows, like = [one.solved.solutions for one in subbands], subbands[0].like
    notes = list(dict.fromkeys(note for one in subbands for note in one.solved.notes))
    if len({window.reference_antenna for window in windows}) == 1:
        return windows, notes
    found = common_reference(windows, like.positions_m, windows[0].reference_antenna)
    if found is None:
        remedy = "Look at the data of each subband, or leave subbands out."
        raise InvalidDataError("no antenna has solutions in all subbands and polarizations", None, remedy)
    common, windows = found
    return windows, [*notes, f"reference antenna of all subbands is {like.antenna_names[common]}"]


def _delay_table(delays: Delays, windows: Sequence[Solutions], channel_width_hz: float) -> Solutions:
    """One K Jones solution for all subbands, in the middle of their times."""
    return make_solutions(
        "K Jones",
        delays.values_ns[:, None, :],
        time_s=float(np.mean([window.time_s[0] for window in windows])),
        antenna_names=windows[0].antenna_names,
        frequency_hz=delays.frequency_hz,
        channel_width_hz=channel_width_hz,
        flags=delays.flags[:, None, :],
        snr=(delays.coherence * np.sqrt(delays.frequency_hz.size))[:, None, :],
        errors=delays.errors_ns[:, None, :],
        reference_antenna=windows[0].reference_antenna,
    )


def _previous(path: Path | None, solutions: Solutions) -> Solutions | None:
    """The window of an earlier table that can be compared; None if there is none, or it is of another array."""
    if path is None:
        return None
    try:
        windows = read_table(path)
    except DataError:
        return None
    same = [w for w in windows if w.antenna_names == solutions.antenna_names and w.kind == solutions.kind]
    if solutions.kind != "K Jones":
        same = [w for w in same if np.array_equal(w.frequency_hz, solutions.frequency_hz)]
    return same[0] if same else None


def _warning(knowledge: Knowledge) -> list[str]:
    return [knowledge.bad.warning] if knowledge.bad.warning else []


def _antenna_notes(like: MsInfo, *solved: Solved) -> list[str]:
    """Why antennas were left out or lost, one line each."""
    found: dict[int, str] = {}
    for one in solved:
        found = one.bad | found
    return [f"{like.antenna_names[number]} ({number}): {why}" for number, why in sorted(found.items())]
