"""Reduction of a block beside today's chain, on one process and on two; the cosmology split beside a plain copy.

    .venv/bin/python benchmarks/reduction.py [--sets 24] [--antennas 352] [--repetitions 3]

Today's chain is copytree + the AOFlagger program (generic-default, what it takes for a telescope that it does not know)
+ CASA's mstransform, one Measurement Set at a time. CASA takes part when the extra `casa` is installed here, or when
$ORCA_CASA_PYTHON names a Python that has it; the chain goes without mstransform otherwise. Everything is full size, so
this takes ten minutes and 20 GB of disk.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import aoflagger
import numpy as np
from casacore import tables as ct

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from casa import Casa, casa_python

from orca.flagging import Flagger, default_strategy
from orca.isolation import preload, run_isolated
from orca.ms.create import create_like
from orca.ms.reduce import ReducedBlock, reduce_block
from orca.ms.simulate import SimulationOptions, simulate
from orca.ms.split import split
from orca.reduction_options import ReductionOptions
from orca.rfi_score import background

SETS_A_DAY = 137_812
IMAGES = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=24)
    parser.add_argument("--antennas", type=int, default=352)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orca-benchmark-") as name:
        folder = Path(name)
        start = datetime(2026, 1, 10, 18, tzinfo=UTC)
        sets = simulate(
            folder, SimulationOptions(antennas=options.antennas, start=start, integrations=options.sets, rfi=3)
        )
        preload(["orca.ms.reduce", "orca.ms.split"])
        ours = _block(sets, folder, options.repetitions)
        _flagging()
        _two_processes(sets, folder, options.repetitions)
        today = _today(sets[0], folder)
        print(f"\ntoday's chain takes {today / ours:.1f} times the CPU time")
        print(f"a day of the telescope: {_core_days(ours):.1f} core-days, today's chain {_core_days(today):.0f}")
        _split(sets[0], folder, options.repetitions)


def _core_days(cpu_s: float) -> float:
    return cpu_s * SETS_A_DAY / 86400


def _reduced(sets: list[Path], target: Path) -> ReducedBlock:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    return run_isolated(reduce_block, sets, target, ReductionOptions(), deadline_s=3600.0)


def _block(sets: list[Path], folder: Path, repetitions: int) -> float:
    """CPU seconds a set, that of the child process, its start included."""
    cpu, wall, flagging, peak = [], [], [], 0
    for _ in range(repetitions):
        begin = time.perf_counter()
        made = _reduced(sets, folder / "reduced")
        wall.append((time.perf_counter() - begin) / len(sets))
        cpu.append(made.cpu_seconds / len(sets))
        flagging.append(made.flagging_cpu_seconds / len(sets))
        peak = max(peak, made.peak_memory_bytes)
    print(f"block of {len(sets)} (median of {repetitions}), for each Measurement Set:")
    print(
        f"  {statistics.median(cpu):.2f} CPU s ({min(cpu):.2f} to {max(cpu):.2f}), of which flagging "
        f"{statistics.median(flagging):.2f}; {statistics.median(wall):.2f} s; {peak / 1e9:.2f} GB in all"
    )
    return statistics.median(cpu)


def _flagging() -> None:
    """Our flagging beside AOFlagger's own time for the same images, in turn."""
    data = background(np.random.default_rng(0), IMAGES, 24)
    flagger = Flagger(default_strategy(), 24, data.shape[2], 4)
    program = aoflagger.AOFlagger()
    strategy = program.load_strategy_file(str(default_strategy()))
    images = program.make_image_set(24, data.shape[2], 8)
    parts = np.ascontiguousarray(np.moveaxis(data.view(np.float32).reshape(*data.shape, 2), 0, -1), float)
    times: dict[str, list[float]] = {"ours": [], "AOFlagger": []}
    for _ in range(5):
        flags = np.zeros(data.shape, bool)
        begin = time.process_time()
        flagger.flag(data, flags, list(range(IMAGES)))
        times["ours"].append(time.process_time() - begin)
        begin = time.process_time()
        for row in range(IMAGES):
            for number in range(8):
                images.set_image_buffer(number, parts[row, :, number // 2, number % 2])
            strategy.run(images).get_buffer()
        times["AOFlagger"].append(time.process_time() - begin)
    ours, theirs = (statistics.median(values) / IMAGES * 1e3 for values in times.values())
    print(f"flagging an image: {ours:.2f} ms, AOFlagger alone {theirs:.2f} ms: {ours / theirs:.2f} times")


def _two_processes(sets: list[Path], folder: Path, repetitions: int) -> None:
    """Two halves of the block one after the other, and side by side."""
    half = len(sets) // 2
    parts = [(sets[:half], folder / "first"), (sets[half : 2 * half], folder / "second")]
    alone, both = [], []
    for _ in range(repetitions):
        begin = time.perf_counter()
        for part in parts:
            _reduced(*part)
        alone.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda part: _reduced(*part), parts))
        both.append(time.perf_counter() - begin)
    gain = statistics.median(alone) / statistics.median(both)
    print(f"two processes: {gain:.2f} times the throughput of one")
    for _, target in parts:
        shutil.rmtree(target)


def _today(ms: Path, folder: Path) -> float:
    """CPU seconds of today's chain for one Measurement Set."""
    shipped = Path(aoflagger.AOFlagger().find_strategy_file(aoflagger.TelescopeId.Generic))
    target = folder / "today.ms"
    shutil.rmtree(target, ignore_errors=True)
    before = _children_cpu()
    subprocess.run(["cp", "-r", ms, target], check=True)
    copied = _children_cpu() - before
    subprocess.run(["aoflagger", "-strategy", shipped, target], check=True, capture_output=True)
    flagged = _children_cpu() - before - copied
    transformed = 0.0
    if python := casa_python():
        casa = Casa(python, folder)
        average = {"chanaverage": True, "chanbin": 4, "datacolumn": "DATA"}
        casa.call("mstransform", vis=target, outputvis=folder / "averaged.ms", **average)
        transformed = casa.cpu_seconds
        casa.close()
    else:
        print("CASA is not installed: see README, extra 'casa'")
    total = copied + flagged + transformed
    print(
        f"today's chain: {total:.1f} CPU s (copy {copied:.1f}, AOFlagger {flagged:.1f}, mstransform {transformed:.1f})"
    )
    return total


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _split(ms: Path, folder: Path, repetitions: int) -> None:
    """The split beside a plain copy into a new table of what it keeps, in turn: no checks, checksums or averaging."""
    ours, copies = [], []
    for turn in range(max(repetitions, 3) + 1):
        for name in ("split.ms", "plain.ms"):
            shutil.rmtree(folder / name, ignore_errors=True)
        begin = time.perf_counter()
        split(ms, folder / "split.ms")
        middle = time.perf_counter()
        with ct.table(str(ms), ack=False) as source, create_like(ms, folder / "plain.ms", correlations=(0, 3)) as to:
            for first in range(0, source.nrows(), 512):
                n = min(512, source.nrows() - first)
                for column in ("DATA", "FLAG"):
                    to.putcol(column, np.ascontiguousarray(source.getcol(column, first, n)[:, :, ::3]), first, n)
        end = time.perf_counter()
        if turn:
            ours.append(middle - begin)
            copies.append(end - middle)
    mine, theirs = statistics.median(ours), statistics.median(copies)
    print(f"split: {mine:.2f} s, a plain copy of what it keeps {theirs:.2f} s: {mine / theirs:.2f} times")


if __name__ == "__main__":
    main()
