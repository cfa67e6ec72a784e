"""CASA in a process of its own, offline: for comparisons in tests and benchmarks.

It is there when the extra `casa` is installed in this environment, or when ORCA_CASA_PYTHON names a Python that has it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SERVER = """
import sys
from casatasks import applycal, casalog
casalog.filter("ERROR")
print("ready", flush=True)
for line in sys.stdin:
    ms, *tables = line.split()
    applycal(vis=ms, gaintable=tables, interp=["nearest,linearflag"] * len(tables), calwt=False, flagbackup=False)
    print("done", flush=True)
"""
DATA = "import casadata, os; print(os.path.join(os.path.dirname(casadata.__file__), '__data__'))"
PROBE = "import importlib.util, sys; sys.exit(importlib.util.find_spec('casatasks') is None)"


def casa_python() -> str | None:
    """A Python that has casatasks, or None."""
    python = os.environ.get("ORCA_CASA_PYTHON", sys.executable)
    return python if subprocess.run([python, "-c", PROBE], check=False).returncode == 0 else None


class Casa:
    """CASA's applycal; the import of CASA happens once, when this is made."""

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
        self._await("ready")

    def applycal(self, ms: Path, tables: list[Path]) -> None:
        """Apply tables to DATA; the result is in CORRECTED_DATA and FLAG."""
        self._process.stdin.write(" ".join(map(str, [ms, *tables])) + "\n")  # type: ignore[union-attr]
        self._process.stdin.flush()  # type: ignore[union-attr]
        self._await("done")

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

    def _await(self, word: str) -> None:
        for line in self._process.stdout:  # type: ignore[union-attr]
            if line.strip() == word:
                return
        raise RuntimeError("CASA ended; its output is above")
