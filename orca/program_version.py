"""The version of somebody else's program, by its own words."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from orca.errors import ProgramError
from orca.process import run

_PRINTED = re.compile(
    r"^(?!.*--version).*?version\s+(\S+)|^(?!.*--version)\D*(\d+\.\d[\w.]*)", re.IGNORECASE | re.MULTILINE
)


def version_of(program: Path, *, deadline_s: float = 20.0) -> str:
    """Return the version that a program prints with --version.

    Raises
    ------
    ProgramError
        When it fails, takes longer than it may, or prints no version.
    """
    with tempfile.TemporaryDirectory(prefix="orca-check-") as folder:
        log = Path(folder) / "version.log"
        run([program, "--version"], log=log, deadline_s=deadline_s, threads=1)
        printed = log.read_text(encoding="utf-8", errors="replace")
    found = _PRINTED.search(printed)
    if found is None:
        raise ProgramError("does not tell its version", program, "Is it the right program?")
    return found[1] or found[2]
