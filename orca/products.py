"""Products on disk: scratch, atomic publication, a manifest beside each, and a trash with undo.

A product without a manifest does not exist, and one whose manifest matches its inputs and options is not made again.
Correctness hangs on nothing but this: any task may run twice, at the same time, and be killed anywhere.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import secrets
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError, field_validator
from pydantic_core import to_json

from orca.errors import InputError, InvalidDataError, MissingDataError, StorageError
from orca.process import end_orphans

_log = logging.getLogger(__name__)

_HIDDEN = ".orca-part-"  # a product on its way, in the folder that it goes to; the owner token follows
_SCRATCH = "orca-"
_SIDECAR = ".trash.json"
_NOT_CONTENT = "table.lock"  # casacore writes it when a table is opened, also for reading


# ---------------------------------------------------------------------------------------------------------------------
# Fingerprints and manifests


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
    quality: dict[str, float | int | str | None] = {}
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


# ---------------------------------------------------------------------------------------------------------------------
# Owners, scratch and space


def owner_token() -> str:
    """Return a name for work of this process that nobody else has, here or on another host, before or after a reboot.

    Host, process id, the process's start in clock ticks, and a random part. The host's dashes become underscores,
    so that the token can be split.
    """
    pid = os.getpid()
    return f"{_host()}-{pid}-{_start_ticks(pid)}-{secrets.token_hex(6)}"


def owner_alive(token: str) -> bool:
    """Whether the process that made an owner token still runs; True where that cannot be known (another host)."""
    match = re.fullmatch(r"([^-]+)-(\d+)-(\d+)-[0-9a-f]+", token)
    return match is None or match[1] != _host() or _start_ticks(int(match[2])) == int(match[3])


def _host() -> str:
    return socket.gethostname().replace("-", "_")


def _start_ticks(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat, see proc(5); None for a process that is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


@dataclass(frozen=True)
class Scratch:
    """A folder for work in progress, and the owner token that the programs working in it should carry."""

    path: Path
    owner: str


@contextmanager
def scratch(root: Path, *, need_bytes: int, label: str) -> Iterator[Scratch]:
    """Make a scratch folder ``orca-<label>-<owner token>`` below `root`, and remove it at the end in any case.

    Raises
    ------
    StorageError
        `root` cannot be made or written, or has less than `need_bytes` free.
    """
    require_space(root, need_bytes, f"scratch for {label}")
    owner = owner_token()
    path = root / f"{_SCRATCH}{re.sub(r'[^A-Za-z0-9_.]', '_', label)[:80]}-{owner}"
    _make_folder(root)
    _make_folder(path)
    try:
        yield Scratch(path, owner)
    finally:
        _remove(path)


def sweep(folder: Path) -> list[Path]:
    """Remove what processes that died left in `folder`: scratch folders, products on their way; end their programs.

    Looks at the folder's own entries only. Owners on other hosts are left to sweeps over there. Several sweeps may
    run at once.

    Returns
    -------
    list of path
        What was removed.
    """
    removed, ended = [], set()
    if not folder.is_dir():
        return []
    with _storage(folder):
        entries = sorted(folder.iterdir())
    for path in entries:
        owner = _owner_of(path.name)
        if owner is None or owner_alive(owner):
            continue
        if owner not in ended:  # first, since they may write on
            end_orphans(owner)
            ended.add(owner)
        _remove(path)
        if not os.path.lexists(path):
            removed.append(path)
    return removed


def _owner_of(name: str) -> str | None:
    """Owner token in the name of a scratch folder or of a product on its way."""
    match = re.fullmatch(rf"(?:{re.escape(_HIDDEN)}|{_SCRATCH}[^-]+-)([^-]+-\d+-\d+-[0-9a-f]+)(?:\..*)?", name)
    return match[1] if match else None


def require_space(folder: Path, need_bytes: int, what: str) -> None:
    """Refuse work whose files will not fit; `folder` itself need not exist yet.

    Raises
    ------
    StorageError
        Less than `need_bytes` are free for this user.
    """
    free = _free_bytes(folder)
    if free < need_bytes:
        raise StorageError(
            f"{what} needs {_readable(need_bytes)}, and {_readable(free)} are free",
            folder,
            "Free some space, or choose another disk in the configuration",
        )


def _free_bytes(folder: Path) -> int:
    for path in (folder.absolute(), *folder.absolute().parents):
        with suppress(FileNotFoundError, NotADirectoryError):
            state = os.statvfs(path)
            return state.f_bavail * state.f_frsize
    return 0


def _readable(n_bytes: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.4g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.4g} GB"


# ---------------------------------------------------------------------------------------------------------------------
# Publication


def publish(files: Mapping[Path, Path], manifest: Manifest, manifest_path: Path) -> Manifest:
    """Bring finished files from scratch to their final names, all of them whole, and then the manifest.

    Everything is first brought into the folder that it goes to under a hidden name (moved on the same file system,
    else copied with its times) and synced. Only then is the old manifest removed, each file renamed into place and
    the new manifest written. So a crash leaves the old product whole, or files without a manifest that matches them;
    never a half-written file under a final name. No locks: see `fresh`. What dead publishers left in the folders is
    swept.

    Parameters
    ----------
    files : mapping of path to path
        Final path by scratch path; files, or folders such as a Measurement Set. They are taken: gone from scratch
        afterwards, also when publishing failed.
    manifest : Manifest
        Its outputs are filled in here.
    manifest_path : path

    Returns
    -------
    Manifest
        As written.

    Raises
    ------
    InputError
        Nothing to publish, or two files with one final name.
    MissingDataError
        A file is not in scratch.
    StorageError
        A folder cannot be made or written, or the space does not suffice.
    """
    finals = [*files.values(), manifest_path]
    if not files or len({final.absolute() for final in finals}) < len(finals):
        raise InputError("a product needs files, each with a final name of its own", manifest_path)
    folders = sorted({final.parent for final in finals})
    for source in files:
        fingerprint(source)
    for folder in folders:
        _make_folder(folder)
        sweep(folder)
    owner = owner_token()
    staged = {final: final.parent / f"{_HIDDEN}{owner}.{index}" for index, final in enumerate(files.values())}
    try:
        for source, final in files.items():
            _bring(source, staged[final])
        outputs = tuple(_as_if_at(final, fingerprint(part)) for final, part in staged.items())
        with _storage(manifest_path.parent):
            manifest_path.unlink(missing_ok=True)
            _sync(manifest_path.parent)
        for final, part in staged.items():
            with _storage(final):
                _rename_into_place(part, final)
        for folder in folders:
            with _storage(folder):
                _sync(folder)
        published = manifest.model_copy(update={"outputs": outputs})
        write_text(manifest_path, published.text())
    finally:
        for part in staged.values():
            _remove(part)
            _remove(_aside(part))
    return published


def write_text(path: Path, text: str) -> None:
    """Write a small file so that it is either the old one or the new one, whole and on the disk.

    Raises
    ------
    StorageError
        It cannot be written.
    """
    part = path.parent / f"{_HIDDEN}{owner_token()}.text"
    content = text.encode()
    try:
        with _storage(path, len(content)):
            with part.open("wb") as sink:
                sink.write(content)
                sink.flush()
                os.fsync(sink.fileno())
            part.replace(path)
            _sync(path.parent)
    finally:
        _remove(part)


def _as_if_at(final: Path, part: Fingerprint) -> Fingerprint:
    return part.model_copy(update={"path": str(final.parent.resolve() / final.name)})


def _bring(source: Path, part: Path) -> None:
    """Move or copy to `part`, and sync all of it."""
    with _storage(part.parent):
        try:
            source.rename(part)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            need_bytes = fingerprint(source).size
            require_space(part.parent, need_bytes, source.name)
            with _storage(part.parent, need_bytes):
                if source.is_dir():
                    shutil.copytree(source, part, symlinks=True)
                else:
                    shutil.copy2(source, part)
            _remove(source)
        for folder, _, names in os.walk(part):
            for name in names:
                if not Path(folder, name).is_symlink():
                    _sync(Path(folder, name))
            _sync(Path(folder))
        if not part.is_dir():
            _sync(part)


def _rename_into_place(part: Path, final: Path) -> None:
    """Rename over what is there; a folder goes aside first, again when another publisher was quicker."""
    for _ in range(100):
        try:
            part.replace(final)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR, errno.ENOTDIR):
                raise
        _remove(_aside(part))
        with suppress(FileNotFoundError):
            final.rename(_aside(part))
    raise StorageError("others keep putting a folder there", final, "Stop what else writes it")


def _aside(part: Path) -> Path:
    return part.with_name(f"{part.name}.aside")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot sync folders
            raise
    finally:
        os.close(descriptor)


def _make_folder(folder: Path) -> None:
    with _storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError("folder cannot be written", folder, "Choose another folder, or change its permissions")


@contextmanager
def _storage(path: Path, need_bytes: int | None = None) -> Iterator[None]:
    """Turn what the operating system says about a disk into a StorageError."""
    try:
        yield
    except OSError as error:
        # copytree gathers errors as text, without a number
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error):
            sizes = "" if need_bytes is None else f": {_readable(need_bytes)} needed"
            problem = f"no space left{sizes}, {_readable(_free_bytes(path))} free"
            raise StorageError(problem, path, "Free some space and run again") from error
        problem = f"cannot be written ({error.strerror or error})"
        raise StorageError(problem, path, "Choose another folder, or change its permissions") from error


def _remove(path: Path) -> None:
    """Remove a file or a folder; others may be removing it, too. What cannot be removed is logged."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, onerror=_unless_vanished)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("%s could not be removed: %s", path, error)


def _unless_vanished(_function: Callable[..., Any], _path: str, info: tuple[Any, BaseException, Any]) -> None:
    if not isinstance(info[1], FileNotFoundError):
        raise info[1]


# ---------------------------------------------------------------------------------------------------------------------
# Trash


@dataclass(frozen=True)
class Trashed:
    """A file or folder in the trash: where it lies, where it came from, and since when (UTC, ISO 8601)."""

    path: Path
    original: Path
    since: str


def trash(path: Path, trash_root: Path) -> Path:
    """Move a file or folder to the trash, where `restore` finds it; nothing is copied.

    It keeps its name, in a folder of its own below `trash_root`, beside a small file that holds its original path.

    Returns
    -------
    path
        Where it lies now.

    Raises
    ------
    MissingDataError
        There is no such file.
    StorageError
        The trash is on another file system, or cannot be written.
    """
    path = path.absolute()
    if not os.path.lexists(path):
        raise MissingDataError("no such file or folder", path)
    _make_folder(trash_root)
    if path.lstat().st_dev != trash_root.stat().st_dev:
        raise StorageError(
            "is on another file system than the trash, to which files are moved and never copied",
            path,
            f"Set a trash folder on its file system instead of {trash_root}",
        )
    now = datetime.now(UTC)
    place = trash_root.absolute() / f"{now:%Y%m%dT%H%M%S.%f}-{secrets.token_hex(6)}"
    _make_folder(place)
    trashed = place / path.name
    sidecar = _sidecar(trashed)
    try:
        write_text(sidecar, json.dumps({"original": str(path), "since": now.isoformat(timespec="seconds")}) + "\n")
        with _storage(path):
            _sync(trash_root)
            path.rename(trashed)
    finally:
        if not os.path.lexists(trashed):
            _remove(sidecar)
            place.rmdir()
    return trashed


def restore(trashed: Path) -> Path:
    """Move a file or folder from the trash back to where it was; return that path.

    Raises
    ------
    MissingDataError, InvalidDataError
        It is not in the trash, or its original path is lost.
    InputError
        Something is there already; nothing is overwritten.
    """
    trashed = trashed.absolute()
    original = _read_sidecar(trashed).original
    if not os.path.lexists(trashed):
        raise MissingDataError("is not in the trash", trashed)
    taken = InputError("exists, and is not overwritten by what comes back from the trash", original, "Move it away")
    if os.path.lexists(original):
        raise taken
    _make_folder(original.parent)
    with _storage(original):
        if trashed.is_dir() and not trashed.is_symlink():
            trashed.rename(original)  # fails on a folder that is not empty
        else:
            try:
                os.link(trashed, original, follow_symlinks=False)  # unlike rename, fails when there is a file
            except FileExistsError as error:
                raise taken from error
            trashed.unlink()
    _sidecar(trashed).unlink(missing_ok=True)
    with suppress(OSError):
        trashed.parent.rmdir()
    return original


def list_trash(trash_root: Path) -> list[Trashed]:
    """Return what lies in the trash, oldest first. An entry whose sidecar is broken is logged and left out."""
    found = []
    for sidecar in sorted(trash_root.glob(f"*/*{_SIDECAR}")):
        path = sidecar.with_name(sidecar.name.removesuffix(_SIDECAR))
        try:
            if os.path.lexists(path):
                found.append(_read_sidecar(path))
        except (MissingDataError, InvalidDataError) as error:
            _log.warning("%s", error)
    return found


def _sidecar(trashed: Path) -> Path:
    return trashed.with_name(trashed.name + _SIDECAR)


def _read_sidecar(trashed: Path) -> Trashed:
    sidecar = _sidecar(trashed)
    try:
        content = json.loads(sidecar.read_text())
        return Trashed(trashed, Path(content["original"]), str(content["since"]))
    except FileNotFoundError as error:
        raise MissingDataError("is not in the trash", trashed) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidDataError("does not tell where the file came from", sidecar, "Move it by hand") from error
