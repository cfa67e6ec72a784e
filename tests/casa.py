"""CASA in a process of its own, offline: for comparisons in tests and benchmarks.

It is there when the extra `casa` is installed in this environment, or when ORCA_CASA_PYTHON names a Python that has it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SERVER = """
import json, resource, sys, time
import casatasks
casatasks.casalog.filter("ERROR")
print("ready", flush=True)
for line in sys.stdin:
    request = json.loads(line)
    began = time.process_time()
    if request["task"] == "point_sources":
        from casatools import componentlist
        components = componentlist()
        for ra_rad, dec_rad, flux, index, freq_hz in request["sources"]:
            components.addcomponent(dir=["J2000", f"{ra_rad}rad", f"{dec_rad}rad"], flux=flux, fluxunit="Jy",
                shape="point", freq=["TOPO", f"{freq_hz}Hz"], spectrumtype="spectral index", index=index)
        components.rename(request["name"])
        components.close()
    else:
        getattr(casatasks, request["task"])(**request["arguments"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"cpu_seconds": time.process_time() - began, "peak_memory_bytes": peak}), flush=True)
"""
DATA = "import casadata, os; print(os.path.join(os.path.dirname(casadata.__file__), '__data__'))"
PROBE = "import importlib.util, sys; sys.exit(importlib.util.find_spec('casatasks') is None)"


def casa_python() -> str | None:
    """A Python that has casatasks, or None."""
    python = os.environ.get("ORCA_CASA_PYTHON", sys.executable)
    return python if subprocess.run([python, "-c", PROBE], check=False).returncode == 0 else None


class Casa:
    """CASA's tasks; the import of CASA happens once, when this is made.

    Attributes
    ----------
    cpu_seconds : float
        What all calls took.
    peak_memory_bytes : int
    """

    def __init__(self, python: str, folder: Path) -> None:
        data = subprocess.run([python, "-c", DATA], capture_output=True, text=True, check=True).stdout.strip()
        site = folder / "casasite.py"
        site.write_text(
            f"measurespath = {data!r}\ndatapath = [{data!r}]\nmeasures_auto_update = False\ndata_auto_update = False\n"
            f"logfile = {str(folder / 'casa.log')!r}\n"
        )
        self._process = subprocess.Popen(
            [python, "-c", SERVER],
            env={**os.environ, "CASASITECONFIG": str(site), "HOME": str(folder)},
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.cpu_seconds, self.peak_memory_bytes = 0.0, 0
        self._answer("ready")

    def applycal(self, ms: Path, tables: list[Path]) -> None:
        """Apply tables to DATA; the result is in CORRECTED_DATA and FLAG."""
        interpolation = ["nearest,linearflag"] * len(tables)
        self.call("applycal", vis=ms, gaintable=tables, interp=interpolation, calwt=False, flagbackup=False)

    def call(self, task: str, **arguments: Any) -> None:
        """Call one of casatasks by its name."""
        self._request({"task": task, "arguments": arguments})

    def point_sources(self, name: Path, sources: list[tuple[float, float, float, float, float]]) -> None:
        """Make a list of components: right ascension and declination in rad, Jy, spectral index, frequency in Hz."""
        self._request({"task": "point_sources", "name": str(name), "sources": sources})

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

    def _request(self, request: dict[str, Any]) -> None:
        self._process.stdin.write(json.dumps(request, default=str) + "\n")  # type: ignore[union-attr]
        self._process.stdin.flush()  # type: ignore[union-attr]
        used = json.loads(self._answer("{"))
        self.cpu_seconds += used["cpu_seconds"]
        self.peak_memory_bytes = used["peak_memory_bytes"]

    def _answer(self, beginning: str) -> str:
        for line in self._process.stdout:  # type: ignore[union-attr]
            if line.startswith(beginning):
                return line
        raise RuntimeError("CASA ended; its output is above")
