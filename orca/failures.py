"""What failed, on disk: a small file for each unit of work, until the unit is done.

::

    <root>/<UTC day of the data>/<stage>/<unit>.json         root is paths.data/failures

No manifest tells of a failure, and Prefect forgets. The file is written at the end of a flow and removed at the end of
one that has done the unit; of data whose names tell no day, the folder is called undated.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, date, datetime
from pathlib import Path

from orca import naming
from orca.disk import make_folder, storage_errors
from orca.errors import InputError
from orca.products import write_text

FOLDER = "failures"
"""Below paths.data."""
UNDATED = "undated"
SOURCES = 1000
"""Names that are kept of one unit at most."""
_DETAIL = 4000
"""Characters of the detail that are kept, from its end: there stands the end of a program's log."""


@dataclass(frozen=True)
class Failed:
    """A unit of work that failed.

    Attributes
    ----------
    stage : str
        Such as reduction.
    unit : str
    reason : str
        One line.
    cause : str
        Whose fault: "payload" (data, options, program) or "infrastructure".
    sources : tuple of str
        Paths of what it would have been made of, `SOURCES` at most.
    when : str
        UTC, ISO 8601.
    detail : str
        The reason with all that is known, such as the end of a program's log.
    flow_run, flow_run_name : str
        Id and name.
    """

    stage: str
    unit: str
    reason: str
    cause: str
    sources: tuple[str, ...]
    when: str
    detail: str = ""
    flow_run: str = ""
    flow_run_name: str = ""


def day_of(sources: Iterable[str | Path]) -> date | None:
    """UTC day of the first of the sources whose name tells one."""
    for source in sources:
        with suppress(InputError):  # a name of the user's own
            if (day := naming.parse(source).day) is not None:
                return day
    return None


def failure_path(root: Path, stage: str, unit: str, day: date | None) -> Path:
    """Where the failure of a unit is told; two units never share a file."""
    plain = unit.replace(" ", "_")
    name = re.sub(r"[^A-Za-z0-9_.&+-]", "_", plain)[:120].lstrip(".") or "unit"
    if name != plain:
        name += "-" + hashlib.sha256(unit.encode()).hexdigest()[:8]
    return root / (UNDATED if day is None else day.isoformat()) / re.sub(r"[^A-Za-z0-9_-]", "_", stage) / f"{name}.json"


def tell(root: Path, failed: Failed) -> Path:
    """Write a failure down, instead of an earlier one of the same unit; returns where.

    Raises
    ------
    StorageError
        It cannot be written.
    """
    path = failure_path(root, failed.stage, failed.unit, day_of(failed.sources))
    make_folder(path.parent)
    kept = {**asdict(failed), "sources": failed.sources[:SOURCES], "detail": failed.detail[-_DETAIL:]}
    write_text(path, json.dumps(kept, indent=2) + "\n")
    return path


def forget(root: Path, stage: str, unit: str, sources: Sequence[str | Path]) -> bool:
    """Remove the failure of a unit that is done; False if there is none.

    Raises
    ------
    StorageError
        It cannot be removed.
    """
    path = failure_path(root, stage, unit, day_of(sources))
    with storage_errors(path):
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True


def read_failures(root: Path, day: date) -> list[Failed]:
    """The failures of a day (UTC), in the order of stages and units; what is broken, or vanishes meanwhile, is none."""
    found = []
    for path in sorted((root / day.isoformat()).glob("*/*.json")):
        with suppress(OSError, ValueError, TypeError, AttributeError):
            told = json.loads(path.read_bytes())
            known = {field.name: told[field.name] for field in fields(Failed) if field.name in told}
            found.append(Failed(**{**known, "sources": tuple(map(str, known.get("sources", ())))}))
    return found


def now() -> str:
    """This moment as `Failed.when` has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
