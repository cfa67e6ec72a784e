"""What this process got from its shell: libraries and modules from elsewhere, Python, and limits."""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from orca.cluster.deployment_file import CLONE
from orca.cluster.doctor.finding import Check, Finding

SECTION = "environment"
LIBRARIES = ("libcasa", "libcfitsio", "libpython", "libhdf5", "libboost_python", "libwcs", "libaoflagger")
"""Of which our packages and programs bring their own."""
MODULES = (
    "orca", "flows", "casacore", "aoflagger", "numpy", "numba", "astropy", "prefect", "dask", "distributed", "kombu",
    "redis", "pydantic",
)  # fmt: skip
OLDEST_PYTHON = (3, 11)
FILES = 4096
"""Open files: a scheduler has some for each worker, a server for each client. Units of `orca cluster units`: 65536."""


def checks() -> list[Check]:
    """All of the section."""
    return [
        Check(SECTION, "LD_LIBRARY_PATH", lambda: libraries(os.environ)),
        Check(SECTION, "PYTHONPATH", lambda: modules(os.environ)),
        Check(SECTION, "python", _python),
        Check(SECTION, "open files", lambda: files(*resource.getrlimit(resource.RLIMIT_NOFILE))),
    ]


def libraries(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Libraries that come before those of the system, for all programs that are started."""
    wrong = False
    for folder in _folders(environment.get("LD_LIBRARY_PATH", "")):
        found = sorted({path.name.partition(".so")[0] for path in _entries(folder) if path.name.startswith(LIBRARIES)})
        if found:
            wrong = True
            seen = f"{folder} has {', '.join(found[:4])}, which wsclean and casacore load instead of their own"
            yield Finding(SECTION, "LD_LIBRARY_PATH", "warning", seen, "unset LD_LIBRARY_PATH")
    if preloaded := environment.get("LD_PRELOAD"):
        seen = f"{preloaded} is loaded into every program"
        yield Finding(SECTION, "LD_PRELOAD", "note", seen, "unset LD_PRELOAD")
    if not wrong:
        yield Finding(
            SECTION,
            "LD_LIBRARY_PATH",
            "ok",
            "holds none of our libraries" if environment.get("LD_LIBRARY_PATH") else "not set",
        )


def modules(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Modules that come before those of the virtual environment, here and in every worker."""
    wrong = False
    for folder in _folders(environment.get("PYTHONPATH", "")):
        if folder == CLONE:
            continue
        if found := [name for name in MODULES if (folder / name).is_dir() or (folder / f"{name}.py").is_file()]:
            wrong = True
            seen = f"{folder} has {', '.join(found[:4])}: Python takes these before those of {sys.prefix}"
            yield Finding(SECTION, "PYTHONPATH", "error", seen, "unset PYTHONPATH")
    if home := environment.get("PYTHONHOME"):
        yield Finding(
            SECTION, "PYTHONHOME", "warning", f"{home}: Python looks for all of itself there", "unset PYTHONHOME"
        )
    if not wrong:
        yield Finding(
            SECTION, "PYTHONPATH", "ok", "holds none of our packages" if environment.get("PYTHONPATH") else "not set"
        )


def _folders(path: str) -> list[Path]:
    """An empty entry is the current folder."""
    return [Path(each or ".").absolute() for each in path.split(":")] if path else []


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _python() -> Iterator[Finding]:
    seen = f"{platform.python_version()}, {sys.executable}"
    if sys.version_info < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        yield Finding(
            SECTION, "python", "error", f"{seen}: {oldest} is needed", "script/bootstrap with a newer python3"
        )
    elif sys.prefix == sys.base_prefix:
        seen += ": the system's own, whose packages others may change"
        yield Finding(SECTION, "python", "note", seen, "script/bootstrap; source .venv/bin/activate")
    else:
        yield Finding(SECTION, "python", "ok", seen)


def files(soft: int, hard: int) -> Iterator[Finding]:
    """The limit of open files, now and at most."""
    unlimited = resource.RLIM_INFINITY
    if soft in (unlimited, -1) or soft >= FILES:
        yield Finding(SECTION, "open files", "ok", "no limit" if soft in (unlimited, -1) else f"{soft} at once")
        return
    more = hard in (unlimited, -1) or hard >= FILES
    remedy = (
        f"ulimit -n {FILES}" if more else f"* hard nofile 65536 in /etc/security/limits.conf, then ulimit -n {FILES}"
    )
    seen = f"{soft} at once; a server or a scheduler with many workers needs {FILES}"
    yield Finding(
        SECTION, "open files", "warning" if soft < 1024 else "note", seen, f"{remedy} (systemd: LimitNOFILE=65536)"
    )
