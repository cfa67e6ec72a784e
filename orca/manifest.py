"""What a product was made of: fingerprints of files, and the manifest beside each product.

A product without a manifest does not exist, and one whose manifest matches its inputs and options is not made again.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError, field_validator
from pydantic_core import to_json

from orca.errors import InvalidDataError, MissingDataError, StorageError
from orca.process import ProgramRecord

Quality = dict[str, float | int | str | None]
"""Numbers that judge a product, and what else is told of it, by name."""
_NOT_CONTENT = "table.lock"  # casacore writes it when a table is opened, also for reading


class Fingerprint(BaseModel):
    """What a file or folder looked like: cheap to take, and different once the content has changed.

    For a folder (a Measurement Set, a CASA table): the sum of sizes, the number and the newest modification time of
    all files in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    """Absolute, symbolic links resolved."""
    kind: Literal["file", "folder"]
    size: int
    """Bytes."""
    mtime_ns: int
    files: int
    inode: int
    """Tells two outputs of equal size apart that were written within one tick of the file system's clock; Lustre's
    may be a second. Not compared for inputs: a copy brought back from an archive is the same input."""

    def same_content(self, other: Fingerprint) -> bool:
        """Whether all but the inode is equal."""
        return self.model_copy(update={"inode": other.inode}) == other


def fingerprint(path: Path) -> Fingerprint:
    """Take the fingerprint of a file or folder.

    Raises
    ------
    MissingDataError
        There is nothing, or a part of it vanished meanwhile.
    StorageError
        The disk or the permissions do not allow to look.
    """
    try:
        resolved = path.resolve(strict=True)
        state = resolved.stat()
        if not resolved.is_dir():
            values = (state.st_size, state.st_mtime_ns, 1)
            return _fingerprint(resolved, "file", values, state.st_ino)
        return _fingerprint(resolved, "folder", _folder_values(resolved), state.st_ino)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingDataError("no such file or folder", error.filename or path) from error
    except OSError as error:
        raise StorageError(f"cannot be looked at ({error.strerror})", path, "Check its disk and permissions") from error


def _fingerprint(path: Path, kind: Literal["file", "folder"], values: tuple[int, int, int], inode: int) -> Fingerprint:
    size, mtime_ns, files = values
    return Fingerprint(path=str(path), kind=kind, size=size, mtime_ns=mtime_ns, files=files, inode=inode)


def _folder_values(folder: Path) -> tuple[int, int, int]:
    size = mtime_ns = files = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                more = _folder_values(Path(entry.path))
            elif entry.name != _NOT_CONTENT:
                state = entry.stat(follow_symlinks=False)
                more = (state.st_size, state.st_mtime_ns, 1)
            else:
                continue
            size, mtime_ns, files = size + more[0], max(mtime_ns, more[1]), files + more[2]
    return size, mtime_ns, files


class Manifest(BaseModel):
    """What a product was made of, by what, and at what cost. Holds no passwords: options and arguments only.

    Take the fingerprints of the inputs before reading them: what changes meanwhile then makes the product stale.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    product: str
    kind: str
    inputs: tuple[Fingerprint, ...]
    outputs: tuple[Fingerprint, ...] = ()
    """Of the files as published; `publish` fills them in."""
    options: dict[str, JsonValue]
    software: dict[str, str]
    """Version by name; ORCA's own as ``orca``."""
    programs: tuple[dict[str, JsonValue], ...] = ()
    """`orca.process.ProgramRecord` of each program run, as dict."""
    started: str
    """UTC, ISO 8601."""
    finished: str
    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    read_bytes: int
    written_bytes: int
    quality: Quality = {}
    """Numbers that judge the product; not-a-number is stored as null."""
    host: str

    @field_validator("options", "programs", mode="before")
    @classmethod
    def _plain_json(cls, value: object) -> object:
        return _as_json(value)

    def text(self) -> str:
        """As JSON, sorted and indented."""
        return json.dumps(json.loads(self.model_dump_json()), indent=2, sort_keys=True) + "\n"


def _as_json(value: object) -> Any:
    return json.loads(to_json(value))  # paths, dates, enums, tuples, models, dataclasses to plain JSON


def read_manifest(manifest_path: Path) -> Manifest:
    """Read a manifest.

    Raises
    ------
    MissingDataError, InvalidDataError
        There is none, or it is broken.
    """
    try:
        return Manifest.model_validate_json(manifest_path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingDataError("no manifest", manifest_path) from error
    except OSError as error:
        raise StorageError(f"cannot be read ({error.strerror})", manifest_path, "Check its disk") from error
    except ValidationError as error:
        raise InvalidDataError("not a manifest", manifest_path, "Remove it and make the product again") from error


def fresh(
    manifest_path: Path,
    inputs: Iterable[Path | Fingerprint],
    options: Mapping[str, Any],
    version: str | None = None,
) -> Manifest | None:
    """Return the manifest when the product need not be made again, else None.

    It is fresh when the manifest can be read, was made of the same inputs (path, size, newest modification time,
    number of files; in any order) with equal options, and every file published is still the one that the manifest
    describes. The last check is what lets publication do without locks: when two copies of a task publish at once,
    the files of both may end up mixed, but then no manifest matches them all, and the product is made again.

    Parameters
    ----------
    manifest_path : path
    inputs : iterable of path or Fingerprint
    options : mapping
        Compared as JSON, so that a tuple equals a list and a path its text.
    version : str, optional
        When given, the product must come from this version of ORCA.
    """
    try:
        manifest = read_manifest(manifest_path)
        now = {item.path: item for item in (i if isinstance(i, Fingerprint) else fingerprint(i) for i in inputs)}
        current = [fingerprint(Path(output.path)) for output in manifest.outputs]
    except (MissingDataError, InvalidDataError):
        return None
    then = {item.path: item for item in manifest.inputs}
    same_inputs = now.keys() == then.keys() and all(now[path].same_content(then[path]) for path in now)
    same_options = manifest.options == _as_json(options)
    same_version = version is None or manifest.software.get("orca") == version
    same_outputs = bool(current) and all(a == b for a, b in zip(current, manifest.outputs, strict=True))
    return manifest if same_inputs and same_options and same_version and same_outputs else None


@dataclass(frozen=True)
class Draft:
    """Inputs and options of a product, taken before it is made, and when that began."""

    product: str
    kind: str
    inputs: tuple[Fingerprint, ...]
    options: dict[str, Any]
    started: datetime
    clock: float

    def manifest(
        self,
        *,
        programs: Sequence[ProgramRecord] = (),
        software: Mapping[str, str] | None = None,
        cpu_seconds: float = 0.0,
        peak_memory_bytes: int = 0,
        quality: Mapping[str, float | int | str | None] | None = None,
    ) -> Manifest:
        """Say how the product was made, now that it is.

        Parameters
        ----------
        programs : sequence of ProgramRecord
            Of their logs only the name is kept: they are published beside the product.
        software : mapping, optional
            Versions by name, besides ORCA's own.
        cpu_seconds, peak_memory_bytes : optional
            What was used besides the programs.
        quality : mapping, optional
            Numbers that judge the product.
        """
        # Not at the top: an isolated child imports this module, too, and where it starts, a folder of the user's that
        # is called orca hides the package itself (not its modules) if that is installed with pip's --editable.
        from orca import __version__

        return Manifest(
            product=self.product,
            kind=self.kind,
            inputs=self.inputs,
            options=self.options,
            software={"orca": __version__, **(software or {})},
            programs=tuple({**asdict(program), "log": Path(program.log).name} for program in programs),
            started=self.started.isoformat(timespec="milliseconds"),
            finished=datetime.now(UTC).isoformat(timespec="milliseconds"),
            seconds=time.monotonic() - self.clock,
            cpu_seconds=cpu_seconds + sum(program.cpu_seconds for program in programs),
            peak_memory_bytes=max([peak_memory_bytes, *(program.peak_memory_bytes for program in programs)]),
            read_bytes=sum(i.size for i in self.inputs) + sum(program.read_bytes for program in programs),
            written_bytes=sum(program.written_bytes for program in programs),
            quality=dict(quality or {}),
            host=platform.node(),
        )


def draft(product: str, kind: str, inputs: Iterable[Path], options: Mapping[str, Any]) -> Draft:
    """Begin a product: take the fingerprints of its inputs before anything is read.

    Raises
    ------
    MissingDataError
        An input is not there.
    """
    prints = tuple(fingerprint(Path(path)) for path in inputs)
    return Draft(product, kind, prints, dict(options), datetime.now(UTC), time.monotonic())
