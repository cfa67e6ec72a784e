"""The calibrations that are on disk, by their names, manifests and fingerprints; no table is opened."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

from orca import naming
from orca.errors import InputError, InvalidDataError, MismatchError, MissingDataError, OrcaError, StorageError
from orca.manifest import Fingerprint, Manifest, fingerprint, read_manifest

Kind = Literal["delay", "bandpass"]
Refused = list[tuple[datetime, str]]
"""Time of a calibration, and one line about it and what is wrong with it."""


@dataclass(frozen=True)
class Candidate:
    """A calibration that passed, by its manifest."""

    table: Path
    label: str
    time_s: float
    manifest: Manifest


def days_below(folder: Path) -> list[date]:
    """The days that have a folder of their own."""
    found = []
    for name in _names(folder):
        try:
            found.append(date.fromisoformat(name))
        except ValueError:
            continue
    return sorted(found)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - names, not paths, and no look at each
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StorageError(f"cannot be read ({error.strerror})", folder, "Check its disk and permissions") from error


def bandpass_tables(root: Path, band: str, days: list[date], refused: Refused) -> Iterator[tuple[datetime, str, Path]]:
    """Yield start of the hour, label and path of every bandpass; put what did not pass into `refused`."""
    for day in days:
        midnight = datetime.combine(day, datetime.min.time(), UTC)
        for name in _names_or_refused(naming.bandpass_path(root, band, day, 0).parents[1], midnight, str(day), refused):
            if not re.fullmatch(r"[01]\d|2[0-3]", name, re.ASCII):
                continue
            when, label = midnight.replace(hour=int(name)), f"{day} {name}h"
            table = naming.bandpass_path(root, band, day, int(name))
            failed = naming.bandpass_path(root, band, day, int(name), failed=True)
            there = _names_or_refused(table.parent, when, label, refused)
            if failed.name in there:
                refused.append((when, f"{label} {_why_failed(failed)}"))
            if table.name in there or naming.manifest_path(table).name in there:
                yield when, label, table


def _names_or_refused(folder: Path, when: datetime, label: str, refused: Refused) -> list[str]:
    try:
        return _names(folder)
    except StorageError as error:
        refused.append((when, f"{label} {error.problem}"))
        return []


def read_candidate(table: Path, label: str, kind: Kind, band: str | None) -> Candidate:
    """Read the manifest of a table. Raises what is wrong with it, as a sentence about the table."""
    try:
        manifest = read_manifest(naming.manifest_path(table))
    except MissingDataError as error:
        raise MissingDataError("has no manifest") from error
    except InvalidDataError as error:
        raise InvalidDataError("has a broken manifest") from error
    quality = manifest.quality
    if manifest.kind != kind:
        raise MismatchError(f"has the manifest of a {manifest.kind}")
    if band is not None and quality.get("subband", band) != band:
        raise MismatchError(f"has the manifest of {quality['subband']}")
    if quality.get("passed") != 1:
        raise InvalidDataError(_did_not_pass(manifest))
    time_s = quality.get("time_s")
    if not isinstance(time_s, int | float) or not math.isfinite(time_s):
        raise InvalidDataError("has a manifest that tells no time")
    return Candidate(table, label, float(time_s), manifest)


def _why_failed(failed: Path) -> str:
    try:
        return _did_not_pass(read_manifest(naming.manifest_path(failed)))
    except OrcaError:
        return "did not pass"


def _did_not_pass(manifest: Manifest) -> str:
    reason = manifest.quality.get("reason")
    return f"did not pass ({reason})" if reason else "did not pass"


def check_table(candidate: Candidate) -> None:
    """Raise when the table is not the one of its manifest: half published, overwritten, or removed."""
    table = candidate.table
    recorded = [output for output in candidate.manifest.outputs if Path(output.path).name == table.name]
    try:
        now = fingerprint(table)
    except MissingDataError as error:
        raise MissingDataError("is gone, and its manifest is left") from error
    # Elsewhere than where it was published it is a copy, or seen through another mount: its inode tells nothing then.
    if not recorded or not (now == recorded[0] or (now.path != recorded[0].path and _same(now, recorded[0]))):
        raise MismatchError("is not the table of its manifest: it was changed, or half published")


def delay_of(candidate: Candidate, root: Path, use_delay: bool) -> Path | None:
    """The delay table that a bandpass was solved with. Raises when it is not there as it was."""
    inputs = [i for i in candidate.manifest.inputs if i.path.removesuffix(naming.FAILED_SUFFIX).endswith(".delay")]
    if not inputs:
        return None
    if len(inputs) > 1:
        raise MismatchError(f"was solved with {len(inputs)} delay tables")
    recorded = inputs[0]
    name = Path(recorded.path).name
    if not use_delay:
        raise MismatchError(f"was solved with the delays {name}, which are not wanted")
    if name.endswith(naming.FAILED_SUFFIX):
        raise MismatchError(f"was solved with delays that did not pass, {name}")
    for place in (Path(recorded.path), *_moved(recorded, root)):
        try:
            now = fingerprint(place)
        except MissingDataError:
            continue
        if _same(now, recorded):
            return place
        raise MismatchError(f"was solved with delays that have changed since, {name}")
    raise MissingDataError(f"was solved with delays that are gone, {name}")


def _moved(delay: Fingerprint, root: Path) -> list[Path]:
    """Where a delay table is if all calibrations were brought elsewhere together."""
    try:
        day = naming.parse(delay.path).day
    except InputError:
        return []
    return [] if day is None else [naming.delay_path(root, day)]


def _same(first: Fingerprint, second: Fingerprint) -> bool:
    return first.same_content(second.model_copy(update={"path": first.path}))
