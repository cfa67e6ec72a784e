"""The imaging flow of several full-size MS beside the sum of bare WSClean runs with the same arguments.

    .venv/bin/python benchmarks/imaging_flow.py [--sets 8] [--repetitions 3] [--workers 1 2]

Everything but WSClean is overhead: starting, checking, calibrating, drawing, publishing, Prefect and Dask. By default
there is one worker for every two cores; --workers N measures N of them as well.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import yaml
from measure import in_turn, report

from orca.ms.simulate import SimulationOptions, simulate
from orca.ms.truth import truth_paths

ORCA = Path(sys.executable).with_name("orca")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=8)
    parser.add_argument("--antennas", type=int, default=352)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="*", default=[])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orca-benchmark-") as name:
        folder = Path(name)
        sets = simulate(folder / "raw", SimulationOptions(antennas=arguments.antennas, integrations=arguments.sets))
        truth = truth_paths(folder / "raw", "73MHz")
        tables = ["--delay", str(truth.delay), "--bandpass", str(truth.bandpass)]
        turn = iter(range(1000))

        def flow(workers: int) -> Callable[[], None]:
            config = folder / f"{workers}.yml"
            config.write_text(yaml.safe_dump({"dask": {"workers": workers}} if workers else {}))

            def run() -> None:
                out = folder / f"out{next(turn)}"
                environment = {**os.environ, "HOME": name, "ORCA_CONF": str(config)}
                command = [ORCA, "run", "imaging", *map(str, sets), *tables, "--out", str(out)]
                subprocess.run(command, env=environment, cwd=name, check=True, capture_output=True)

            return run

        def bare() -> None:
            [manifest, *_] = folder.glob("out*/*.manifest.json")
            argv = json.loads(manifest.read_text())["programs"][0]["argv"]
            temp = folder / "temp"
            temp.mkdir(exist_ok=True)
            threads = argv[argv.index("-j") + 1]
            for ms in sets:
                own = {"-name": str(folder / "bare"), "-temp-dir": str(temp)}
                words = [own.get(before, word) for before, word in zip(["", *argv], argv, strict=False)]
                environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
                subprocess.run([*words[:-1], str(ms)], env=environment, check=True, capture_output=True)

        flow(0)()  # a manifest to take the arguments from, a database, and a server that runs
        contestants: dict[str, Callable[[], object]] = {f"sum of {arguments.sets} bare WSClean runs": bare}
        contestants["orca run imaging"] = flow(0)
        contestants |= {f"orca run imaging, {n} worker{'s' * (n > 1)}": flow(n) for n in arguments.workers}
        timings = in_turn(contestants, arguments.repetitions, warm_up=0)
        subprocess.run([ORCA, "down"], env={**os.environ, "HOME": name}, check=True)
        report(f"{arguments.sets} MS of {arguments.antennas} antennas", timings, next(iter(contestants)))


if __name__ == "__main__":
    main()
