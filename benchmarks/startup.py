"""From Enter to the first task of `orca run imaging`, with and without a Prefect server on this machine; `orca --help`.

.venv/bin/python benchmarks/startup.py [--repetitions 5]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from orca.ms.simulate import SimulationOptions, simulate

ORCA = Path(sys.executable).with_name("orca")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    repetitions = parser.parse_args().repetitions
    with tempfile.TemporaryDirectory(prefix="orca-benchmark-") as name:
        folder = Path(name)
        environment = {**os.environ, "HOME": name}
        environment.pop("ORCA_CONF", None)
        [ms] = simulate(folder / "raw", SimulationOptions(antennas=16, channels=8))

        def orca(*words: object) -> None:
            subprocess.run([ORCA, *map(str, words)], env=environment, cwd=name, check=True, capture_output=True)

        def first_task(turn: str) -> float:
            """Seconds from the start of the command to the start of its task, by the manifest."""
            out = folder / turn
            begin = time.time()
            orca("run", "imaging", ms, "--out", out, "--size", 256, "--scale", 0.4)
            [manifest] = out.glob("*.manifest.json")
            return datetime.fromisoformat(json.loads(manifest.read_text())["started"]).timestamp() - begin

        new = first_task("new")
        cold, warm, help_ = [], [], []
        for turn in range(repetitions):
            orca("down")
            cold.append(first_task(f"cold{turn}"))
            warm.append(first_task(f"warm{turn}"))
            begin = time.perf_counter()
            orca("--help")
            help_.append(time.perf_counter() - begin)
        orca("down")
    print(f"Enter to first task (median of {repetitions}, seconds)")
    print(f"{'first ever: a new database':44} {new:6.2f}")
    for title, times in (("no server runs", cold), ("a server runs", warm), ("orca --help (all of it)", help_)):
        print(f"{title:44} {statistics.median(times):6.2f}   {min(times):.2f} to {max(times):.2f}")


if __name__ == "__main__":
    main()
