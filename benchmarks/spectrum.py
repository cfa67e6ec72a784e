"""Spectra of a Measurement Set beside casacore's reading of DATA, and beside straightforward NumPy.

    .venv/bin/python benchmarks/spectrum.py [--antennas 352] [--repetitions 7]

All times are CPU seconds, and ratios are medians of those of each turn: the machine may be busy. NumPy reads DATA and
FLAG, divides by the gains, takes amplitudes, and means them with `numpy.ma`. Memory is that of the child process which
makes spectra, as the flow does.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from casacore import tables as ct

from orca.calibration.apply import jones
from orca.calibration.factors import Factors
from orca.isolation import preload, run_isolated
from orca.ms import spectrum
from orca.ms.acceptance import Acceptance
from orca.ms.blocks import blocks, open_table
from orca.ms.inspect import inspect
from orca.ms.simulate import SimulationOptions, simulate
from orca.ms.spectrum import Spectra, spectra, spectra_of
from orca.ms.spectrum_kernels import add_amplitudes
from orca.ms.truth import truth_paths
from orca.spectrum_options import SpectrumOptions

SETS_A_DAY = 137_812
QUIET = Acceptance(settle_s=0)
READING = "casacore reads DATA, in the same blocks"
PASS = "spectra: checked, read, calibrated, summed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--antennas", type=int, default=352)
    parser.add_argument("--repetitions", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orca-benchmark-") as name:
        folder = Path(name)
        sets = simulate(folder, SimulationOptions(antennas=arguments.antennas, integrations=3, rfi=3))
        truth = truth_paths(folder, "73MHz")
        tables = (truth.delay, truth.bandpass)
        make = partial(spectra, sets[0], tables=tables, acceptance=QUIET, scratch=folder)
        stokes = partial(make, SpectrumOptions(towards="Cyg A"))
        turns = _in_turn(
            {
                READING: partial(_read, sets[0], ("DATA",)),
                "... and FLAG": partial(_read, sets[0], ("DATA", "FLAG")),
                "the kernel alone, of blocks just read": partial(_kernel, sets[0], tables),
                "reading and summing, without checks and tables": partial(_sum, sets[0], tables),
                PASS: make,
                "... each of three in a batch, as the flow does": partial(_batch, sets, tables, folder),
                "... with Stokes I and V towards Cyg A": stokes,
                "NumPy, straightforward": partial(_by_numpy, sets[0], tables),
            },
            arguments.repetitions,
        )
        _report(turns, arguments)
        _compare(make(), _by_numpy(sets[0], tables))
        preload(["orca.ms.spectrum"])
        for options in (SpectrumOptions(), SpectrumOptions(towards="Cyg A")):
            last = run_isolated(
                spectra_of, sets, options, tables=tables, acceptance=QUIET, scratch=folder, deadline_s=600.0
            )[-1]
            more = " with Stokes I and V" if options.towards else ""
            print(f"peak memory of a child that makes spectra{more}: {last.peak_memory_bytes / 1e9:.2f} GB")


def _in_turn(contestants: dict[str, Callable[[], object]], repetitions: int) -> dict[str, list[float]]:
    """CPU seconds of each in turn, after one turn that does not count; what returns seconds has measured itself."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(repetitions + 1):
        for name, run in contestants.items():
            begin = time.process_time()
            made = run()
            if turn:
                times[name].append(made if isinstance(made, float) else time.process_time() - begin)
    return times


def _report(times: dict[str, list[float]], arguments: argparse.Namespace) -> None:
    def ratio(over: str, under: str) -> float:
        return statistics.median(a / b for a, b in zip(times[over], times[under], strict=True))

    print(f"one MS of {arguments.antennas} antennas x 192 channels, median of {arguments.repetitions} turns:")
    print(f"{'':52} {'CPU s':>7} {'min':>7} {'max':>7} {'x reading':>10} {'NumPy / it':>11}")
    for name, values in times.items():
        print(
            f"{name:52} {statistics.median(values):7.3f} {min(values):7.3f} {max(values):7.3f} "
            f"{ratio(name, READING):10.2f} {ratio('NumPy, straightforward', name):11.1f}"
        )
    print(f"a day of the telescope: {statistics.median(times[PASS]) * SETS_A_DAY / 3600:.1f} core-hours")


def _read(ms: Path, columns: tuple[str, ...]) -> None:
    with open_table(ms) as table:
        for _ in blocks(table, columns, rows=spectrum.ROWS):
            pass


def _kernel(ms: Path, tables: tuple[Path, ...]) -> float:
    """CPU seconds in the kernel."""
    info = inspect(ms, settle_s=0)
    factors = Factors(tables).of(info, [])
    left, right = np.abs(factors.left), np.abs(factors.right)
    wanted = np.zeros((info.n_antennas, info.n_antennas), np.int32)
    sums = np.zeros((1, 2, info.n_channels * info.n_correlations), np.float32)
    seconds = 0.0
    with open_table(ms) as table:
        for _, n, data, flag, first, second in blocks(
            table, ("DATA", "FLAG", "ANTENNA1", "ANTENNA2"), rows=spectrum.ROWS
        ):
            begin = time.process_time()
            add_amplitudes(data.reshape(n, -1), flag.reshape(n, -1), first, second, wanted, left, right, sums)
            seconds += time.process_time() - begin
    return seconds


def _sum(ms: Path, tables: tuple[Path, ...]) -> float:
    """CPU seconds of the pass over the rows."""
    info = inspect(ms, settle_s=0)
    factors = Factors(tables).of(info, [])
    begin = time.process_time()
    sums = spectrum._Sums(info, SpectrumOptions(), factors)
    with open_table(ms) as table:
        sums.add(table)
    sums.result()
    return time.process_time() - begin


def _batch(sets: list[Path], tables: tuple[Path, ...], folder: Path) -> float:
    """CPU seconds for each."""
    begin = time.process_time()
    spectra_of(sets, tables=tables, acceptance=QUIET, scratch=folder)
    return (time.process_time() - begin) / len(sets)


def _by_numpy(ms: Path, tables: tuple[Path, ...]) -> np.ndarray:
    info = inspect(ms, settle_s=0)
    solved = jones(tables, info.antenna_names, info.freq_hz, info.channel_width_hz, float(info.time_s[0]))
    with ct.table(str(ms), ack=False) as table:
        first, second = table.getcol("ANTENNA1"), table.getcol("ANTENNA2")
        data, flag = table.getcol("DATA"), table.getcol("FLAG")
    p, q = info.receptors.T
    data /= solved.gains[first][:, :, p] * solved.gains[second][:, :, q].conj()
    flag |= solved.flags[first][:, :, p] | solved.flags[second][:, :, q] | (data == 0)
    amplitude = np.ma.masked_array(np.abs(data), flag)
    return np.asarray(amplitude[first != second].mean(axis=0))


def _compare(ours: Spectra, theirs: np.ndarray) -> None:
    print(f"largest relative difference to NumPy's mean: {np.nanmax(np.abs(ours.values['cross'] / theirs - 1)):.1e}")


if __name__ == "__main__":
    main()
