"""Scratch: folders for work in progress, whose names tell the owner, so that what the dead left can be swept."""

from __future__ import annotations

import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from orca.disk import free_bytes, make_folder, readable, remove, storage_errors
from orca.errors import StorageError
from orca.process import end_orphans
from orca.procfs import start_ticks

_PART = ".orca-part-"  # a product on its way, in the folder that it goes to; the owner token follows
_SCRATCH = "orca-"


def owner_token() -> str:
    """Return a name for work of this process that nobody else has, here or on another host, before or after a reboot.

    Host, process id, the process's start in clock ticks, and a random part. The host's dashes become underscores,
    so that the token can be split.
    """
    pid = os.getpid()
    return f"{_host()}-{pid}-{start_ticks(pid)}-{secrets.token_hex(6)}"


def owner_alive(token: str) -> bool:
    """Whether the process that made an owner token still runs; True where that cannot be known (another host)."""
    match = re.fullmatch(r"([^-]+)-(\d+)-(\d+)-[0-9a-f]+", token)
    return match is None or match[1] != _host() or start_ticks(int(match[2])) == int(match[3])


def _host() -> str:
    return socket.gethostname().replace("-", "_")


@dataclass(frozen=True)
class Scratch:
    """A folder for work in progress, and the owner token that the programs working in it should carry."""

    path: Path
    owner: str


@contextmanager
def scratch_folder(root: Path, *, need_bytes: int, label: str) -> Iterator[Scratch]:
    """Make a scratch folder ``orca-<label>-<owner token>`` below `root`, and remove it at the end in any case.

    Raises
    ------
    StorageError
        `root` cannot be made or written, or has less than `need_bytes` free.
    """
    require_space(root, need_bytes, f"scratch for {label}")
    owner = owner_token()
    path = root / f"{_SCRATCH}{re.sub(r'[^A-Za-z0-9_.]', '_', label)[:80]}-{owner}"
    make_folder(root)
    make_folder(path)
    try:
        yield Scratch(path, owner)
    finally:
        remove(path)


def leftovers(folder: Path, age_s: float = 0.0) -> list[tuple[Path, str]]:
    """What processes that died left in `folder`, each with its owner token; nothing that was touched since `age_s`.

    Looks at the folder's own entries only. Owners on other hosts count as alive.
    """
    if not folder.is_dir():
        return []
    with storage_errors(folder):
        entries = sorted(folder.iterdir())
    latest, found = time.time() - age_s, []
    for path in entries:
        owner = owner_of(path.name)
        with suppress(FileNotFoundError):  # somebody else was faster
            if owner is not None and not owner_alive(owner) and (age_s <= 0 or path.lstat().st_mtime <= latest):
                found.append((path, owner))
    return found


def sweep(folder: Path, age_s: float = 0.0) -> list[Path]:
    """Remove what processes that died left in `folder`: scratch folders, products on their way; end their programs.

    Looks at the folder's own entries only. Owners on other hosts are left to sweeps over there. Several sweeps may
    run at once.

    Parameters
    ----------
    folder : Path
    age_s : float, optional
        What was touched within so many seconds stays.

    Returns
    -------
    list of path
        What was removed.
    """
    removed, ended = [], set()
    for path, owner in leftovers(folder, age_s):
        if owner not in ended:  # first, since they may write on
            end_orphans(owner)
            ended.add(owner)
        remove(path)
        if not os.path.lexists(path):
            removed.append(path)
    return removed


def part_path(final: Path, owner: str, number: int | str) -> Path:
    """Where a file that becomes `final` waits, hidden, on the same disk; `sweep` knows the name."""
    return final.with_name(f"{_PART}{owner}.{number}")


def owner_of(name: str) -> str | None:
    """Owner token in the name of a scratch folder or of a product on its way; None for any other name."""
    match = re.fullmatch(rf"(?:{re.escape(_PART)}|{_SCRATCH}[^-]+-)([^-]+-\d+-\d+-[0-9a-f]+)(?:\..*)?", name)
    return match[1] if match else None


def require_space(folder: Path, need_bytes: int, what: str) -> None:
    """Refuse work whose files will not fit; `folder` itself need not exist yet.

    Raises
    ------
    StorageError
        Less than `need_bytes` are free for this user.
    """
    free = free_bytes(folder)
    if free < need_bytes:
        raise StorageError(
            f"{what} needs {readable(need_bytes)}, and {readable(free)} are free",
            folder,
            "Free some space, or choose another disk in the configuration",
        )
