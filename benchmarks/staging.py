"""Staging (check, calibrate, flag, write, in one pass) beside a plain copy, and beside copy + CASA's applycal.

    .venv/bin/python benchmarks/staging.py [--antennas 352] [--repetitions 5]

CASA takes part when the extra `casa` is installed in this environment, or when $ORCA_CASA_PYTHON names a Python that
has it. It runs as a server process, so that its import is not counted. Memory is that of the process that stages.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from measure import in_turn, report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from casa import Casa, casa_python

from orca.isolation import preload, run_isolated
from orca.ms.simulate import SimulationOptions, simulate
from orca.ms.stage import Staged, stage
from orca.ms.truth import truth_paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--antennas", type=int, default=352)
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orca-benchmark-") as name:
        folder = Path(name)
        ms, *others = simulate(folder, SimulationOptions(antennas=arguments.antennas, integrations=6))
        truth = truth_paths(folder, "73MHz")
        tables = [truth.delay, truth.bandpass]
        target = folder / "copy.ms"
        staged: list[Staged] = []

        def copy() -> None:
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(ms, target)

        def ours() -> None:
            shutil.rmtree(target, ignore_errors=True)
            staged.append(stage([ms], target, tables=tables, flag_antennas=(7, "LWA-012")))

        def isolated() -> None:
            shutil.rmtree(target, ignore_errors=True)
            staged.append(
                run_isolated(stage, [ms], target, tables=tables, flag_antennas=(7, "LWA-012"), deadline_s=600.0)
            )

        preload(["orca.ms.stage"])
        contestants = {"copytree": copy, "stage": ours, "stage in a child process, as the flow does": isolated}
        casa = None
        if python := casa_python():
            casa = Casa(python, folder)

            def by_casa() -> None:
                copy()
                casa.applycal(target, tables)

            contestants["copytree + CASA applycal"] = by_casa
        else:
            print("CASA is not installed: see README, extra 'casa'")
        timings = in_turn(contestants, arguments.repetitions)
        if casa is not None:
            casa.close()
        report(f"Staging of one MS of {arguments.antennas} antennas x 192 channels", timings, "copytree")
        print(f"peak memory of the child that stages one MS: {staged[-1].peak_memory_bytes / 1e9:.2f} GB")
        shutil.rmtree(target)
        together = run_isolated(stage, [ms, *others], target, tables=tables, deadline_s=600.0)
        print(f"... and 6 of them together: {together.peak_memory_bytes / 1e9:.2f} GB")
        if "copytree + CASA applycal" in timings:
            ratio = timings["copytree + CASA applycal"].median / timings["stage"].median
            print(f"copytree + CASA applycal takes {ratio:.1f} times as long as stage")


if __name__ == "__main__":
    main()
