"""The bandpass of a block of full-size MS beside reading its files, and beside CASA's ft + concat + bandpass.

    .venv/bin/python benchmarks/calibration.py [--antennas 352] [--sets 24] [--repetitions 3] [--casa-sets 4]

CASA takes part when the extra `casa` is installed in this environment, or when $ORCA_CASA_PYTHON names a Python that
has it; it takes a quarter of an hour for four sets. Ours runs in a child process, as the flow does it. Errors are
against the simulated truth. Delays are those of one integration of ten subbands.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from casacore import tables as ct
from measure import in_turn, report
from solving import Solved, solve_only

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from casa import Casa, casa_python

from orca.antennas import BadAntennas
from orca.calibration.gains import solve_gains, sum_integrations
from orca.calibration.made import TABLE, Calibrated
from orca.calibration.making import Knowledge, make_bandpass, make_delays
from orca.calibration.options import BlockOptions, DelayOptions, SolveOptions
from orca.calibration.tables import Solutions, read_table, write_table
from orca.isolation import preload, run_isolated
from orca.ms.blocks import blocks, open_table
from orca.ms.inspect import inspect
from orca.ms.simulate import SimulationOptions, simulate
from orca.ms.truth import read_truth
from orca.sky import sky_model
from orca.skyoptions import SkyOptions
from orca.telescope import SUBBANDS, lmn

BAND = "73MHz"
START = datetime(2026, 1, 10, 20, 30, tzinfo=UTC)
TRANSIT = datetime(2026, 1, 10, 20, 31, 53, tzinfo=UTC)
KNOWLEDGE = Knowledge(bad=BadAntennas((), "nobody"))
EVERYTHING = SolveOptions(uv="all", reference_antenna="LWA-114")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--antennas", type=int, default=352)
    parser.add_argument("--sets", type=int, default=24)
    parser.add_argument("--casa-sets", type=int, default=4)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    preload(["orca.calibration.making", "orca.warm"])
    with tempfile.TemporaryDirectory(prefix="orca-benchmark-") as name:
        folder = Path(name)
        options = SimulationOptions(antennas=arguments.antennas, integrations=arguments.sets, start=START)
        sets = simulate(folder / "raw", options)
        of_bandpass(sets, folder, arguments.repetitions)
        if python := casa_python():
            beside_casa(sets[: arguments.casa_sets], folder, python)
        else:
            print("CASA is not installed: see README, extra 'casa'")
        shutil.rmtree(folder / "raw")
        of_delays(folder, arguments.antennas)


def of_bandpass(sets: Sequence[Path], folder: Path, repetitions: int) -> None:
    """A block of integrations: time beside reading, processor time and memory."""
    made: list[Calibrated] = []
    solved: list[Solved] = []

    def read() -> None:
        for ms in sets:
            with open_table(ms) as table:
                for _ in blocks(table, ("DATA", "FLAG")):
                    pass

    def solve() -> None:
        solved.append(run_isolated(solve_only, list(sets), folder / "solved", deadline_s=3600.0))

    def all_of_it() -> None:
        work = folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        made.append(
            run_isolated(
                make_bandpass,
                sets,
                work,
                title="benchmark",
                sky=SkyOptions(),
                solve=SolveOptions(reference_antenna="LWA-114"),
                block=BlockOptions(integrations=len(sets)),
                knowledge=KNOWLEDGE,
                deadline_s=3600.0,
            )
        )

    contestants = {"reading DATA and FLAG": read, "reading, solving, writing": solve, "... and the report": all_of_it}
    timings = in_turn(contestants, repetitions)
    report(f"Bandpass of {len(sets)} MS, times of the block", timings, "reading DATA and FLAG")
    for what, results in (("solving", solved), ("with the report", made)):
        cpu = float(np.median([one.cpu_seconds for one in results])) / len(sets)
        peak = max(one.peak_memory_bytes for one in results) / 1e9
        print(f"{what}: {cpu:.2f} CPU s an MS, peak memory {peak:.2f} GB")
    print_errors("ours, uv 10 to 350 wavelengths", read_table(folder / "work" / TABLE)[0], folder / "raw")


def beside_casa(sets: Sequence[Path], folder: Path, python: str) -> None:
    """The same integrations and all baselines, by ours and by CASA."""
    began, began_cpu = time.perf_counter(), time.process_time()
    summed = sum_integrations(sets, folder, sky=SkyOptions(), uv_range_lambda=EVERYTHING.uv_range_lambda)
    ours = solve_gains(summed.sums, EVERYTHING).solutions
    write_table(folder / "ours", ours, sets[0])
    our_seconds, our_cpu = time.perf_counter() - began, time.process_time() - began_cpu
    del summed

    casa = Casa(python, folder)
    steps: dict[str, tuple[float, float]] = {}

    def timed(step: str, task: str, **arguments: object) -> None:
        start, start_cpu = time.perf_counter(), casa.cpu_seconds
        casa.call(task, **arguments)
        seconds, cpu = steps.get(step, (0.0, 0.0))
        steps[step] = seconds + time.perf_counter() - start, cpu + casa.cpu_seconds - start_cpu

    copies = []
    for ms in sets:
        copies.append(Path(shutil.copytree(ms, folder / ms.name)))
        info = inspect(ms, settle_s=0)
        sky = sky_model(float(info.time_s[0]), info.freq_hz)
        middle = info.n_channels // 2
        points = [
            (float(ra), float(dec), float(flux[middle].mean()), -0.7, float(info.freq_hz[middle]))
            for ra, dec, flux in zip(sky.ra_rad, sky.dec_rad, sky.flux_jy, strict=True)
        ]
        casa.point_sources(folder / f"{ms.stem}.cl", points)
        timed("ft", "ft", vis=copies[-1], complist=folder / f"{ms.stem}.cl", usescratch=True)
        write_model(copies[-1])  # ours in its place, since a component of CASA's has no curved spectrum
    timed("concat", "concat", vis=copies, concatvis=folder / "all.ms")
    solve = {"refant": "LWA114", "solint": "inf", "combine": "obs,scan,field", "minblperant": 4, "minsnr": 3}
    timed("bandpass", "bandpass", vis=folder / "all.ms", caltable=folder / "theirs", **solve)
    peak = casa.peak_memory_bytes
    casa.close()
    print(f"\n{len(sets)} MS, all baselines: seconds, CPU seconds")
    print(f"  ours          {our_seconds:9.2f} {our_cpu:9.2f}")
    for step, (seconds, cpu) in steps.items():
        print(f"  CASA {step:8} {seconds:9.2f} {cpu:9.2f}   {cpu / our_cpu:7.0f} times the CPU time of all of ours")
    total = sum(cpu for _, cpu in steps.values())
    wall = sum(seconds for seconds, _ in steps.values())
    print(f"  CASA together {wall:9.2f} {total:9.2f}   {total / our_cpu:7.0f} times; {wall / our_seconds:.0f} in time;")
    print(f"  its peak memory {peak / 1e9:.1f} GB")
    [theirs] = read_table(folder / "theirs")
    good = ~ours.flags[0] & ~theirs.flags[0]
    difference = np.median(np.abs(ours.values[0] - theirs.values[0])[good])
    print(f"  ours and CASA's: median difference {difference:.1e}, in {good.mean():.1%} of the solutions")
    print_errors("ours, all baselines", ours, folder / "raw")
    print_errors("CASA, all baselines", theirs, folder / "raw")
    for path in [*copies, folder / "all.ms"]:
        shutil.rmtree(path)


def write_model(ms: Path) -> None:
    """The model that ours solves with into MODEL_DATA, by an explicit sum over the sources."""
    info = inspect(ms, settle_s=0)
    sky = sky_model(float(info.time_s[0]), info.freq_hz)
    l, m, n = lmn(sky.ra_rad, sky.dec_rad, *info.phase_centre_rad)
    with ct.table(str(ms), readonly=False, ack=False) as table:
        for row in range(0, info.n_rows, 4096):
            count = min(4096, info.n_rows - row)
            metres = table.getcol("UVW", row, count) @ np.stack([l, m, n - 1])
            model = np.zeros((count, info.n_channels, 4), np.complex64)
            for s in range(len(sky.names)):
                phase = np.exp(2j * np.pi * metres[:, s, None] * info.freq_hz / 299792458.0)
                model[:, :, 0] += phase * sky.flux_jy[s, :, 0]
                model[:, :, 3] += phase * sky.flux_jy[s, :, 1]
            table.putcol("MODEL_DATA", model, row, count)


def print_errors(what: str, found: Solutions, raw: Path) -> None:
    """Median difference to the simulated gains, referred to the same antenna."""
    true = read_truth(raw, BAND).gains
    true = true * np.exp(-1j * np.angle(true[found.reference_antenna]))
    good = ~found.flags[0]
    error = float(np.median(np.abs(found.values[0] - true)[good]))
    print(f"  error of {what}: median {error:.5f}, {1 - good.mean():.1%} flagged")


def of_delays(folder: Path, antennas: int) -> None:
    """Delays from one integration of the subbands from 41 MHz on, against the truth."""
    bands = tuple(band.name for band in SUBBANDS if band.first_channel_hz > 40.5e6)
    raw = folder / "delays"
    sets = simulate(raw, SimulationOptions(antennas=antennas, subbands=bands, start=TRANSIT))
    work = folder / "delay-work"
    work.mkdir()
    began = time.perf_counter()
    made = run_isolated(
        make_delays,
        dict(zip(bands, sets, strict=True)),
        work,
        title="benchmark",
        sky=SkyOptions(),
        solve=SolveOptions(reference_antenna="LWA-114"),
        options=DelayOptions(),
        knowledge=KNOWLEDGE,
        deadline_s=3600.0,
    )
    seconds = time.perf_counter() - began
    [found] = read_table(work / TABLE)
    true = read_truth(raw, bands[-1]).delays_ns
    error = (found.values[0, :, 0] - (true - true[found.reference_antenna]))[~found.flags[0, :, 0]]
    print(f"\ndelays from {len(bands)} subbands: {seconds:.1f} s, {made.cpu_seconds:.1f} CPU s")
    print(f"  error rms {np.sqrt(np.mean(error**2)):.3f} ns, largest {np.abs(error).max():.3f} ns; {error.size} delays")


if __name__ == "__main__":
    main()
