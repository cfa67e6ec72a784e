"""Staging (check, calibrate, flag, write, in one pass) beside a plain copy, and beside copy + CASA's applycal.

    .venv/bin/python benchmarks/staging.py [--antennas 352] [--repetitions 5]

CASA takes part when the extra `casa` is installed in this environment, or when --casa-python names a Python that has
it. It runs as a server process, so that its import is not counted. Memory is that of the process that stages.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import in_turn, report

from orca.isolation import preload, run_isolated
from orca.ms.simulate import SimulationOptions, simulate
from orca.ms.stage import Staged, stage
from orca.ms.truth import truth_paths

CASA_SERVER = """
import sys
from casatasks import applycal, casalog
casalog.filter("ERROR")
print("ready", flush=True)
for line in sys.stdin:
    ms, *tables = line.split()
    applycal(vis=ms, gaintable=tables, interp=["nearest,linearflag"] * len(tables), calwt=False, flagbackup=False)
    print("done", flush=True)
"""


class Casa:
    """CASA's applycal in a process of its own."""

    def __init__(self, python: str, folder: Path) -> None:
        site = folder / "casasite.py"
        probe = "import casadata, os; print(os.path.join(os.path.dirname(casadata.__file__), '__data__'))"
        data = subprocess.run([python, "-c", probe], capture_output=True, text=True, check=True).stdout.strip()
        site.write_text(
            f"measurespath = {data!r}\ndatapath = [{data!r}]\nmeasures_auto_update = False\ndata_auto_update = False\n"
            f"logfile = {str(folder / 'casa.log')!r}\n"
        )
        self.process = subprocess.Popen(
            [python, "-c", CASA_SERVER],
            env={**os.environ, "CASASITECONFIG": str(site), "HOME": str(folder)},
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._await("ready")

    def applycal(self, ms: Path, tables: list[Path]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, [ms, *tables])) + "\n")
        self.process.stdin.flush()
        self._await("done")

    def _await(self, word: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() == word:
                return
        raise SystemExit("CASA ended; see its output above")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--antennas", type=int, default=352)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--casa-python", default=sys.executable)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orca-benchmark-") as name:
        folder = Path(name)
        [ms] = simulate(folder, SimulationOptions(antennas=arguments.antennas))
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
        probe = "import importlib.util, sys; sys.exit(importlib.util.find_spec('casatasks') is None)"
        if subprocess.run([arguments.casa_python, "-c", probe], check=False).returncode == 0:
            casa = Casa(arguments.casa_python, folder)

            def by_casa() -> None:
                copy()
                casa.applycal(target, tables)

            contestants["copytree + CASA applycal"] = by_casa
        else:
            print("CASA is not installed: see README, extra 'casa'")
        timings = in_turn(contestants, arguments.repetitions)
        report(f"Staging of one MS of {arguments.antennas} antennas x 192 channels", timings, "copytree")
        print(f"peak memory of the child that stages: {staged[-1].peak_memory_bytes / 1e9:.2f} GB")
        if "copytree + CASA applycal" in timings:
            ratio = timings["copytree + CASA applycal"].median / timings["stage"].median
            print(f"copytree + CASA applycal takes {ratio:.1f} times as long as stage")


if __name__ == "__main__":
    main()
