"""How a program ended: what it printed, and what its exit code means."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from orca.errors import OrcaError, ProgramError, StorageError

TAIL_LINES = 50
"""Of a log, kept in the error."""
MEMORY_REMEDY = "Allow it more memory (memory_gb), make the job smaller, or run fewer at once"
_TAIL_BYTES = 1 << 16
_NEARLY_FULL_BYTES = 1 << 20
_LINE_LENGTH = 300
"""Characters of a program's last line in a message of one line."""


class Log:
    """What a program prints, in a file that begins with its command; without a path, in one without a name.

    Raises
    ------
    StorageError
        The file cannot be written.
    """

    def __init__(self, path: Path | None, command: str) -> None:
        self.path = path
        self._file: BinaryIO
        if path is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed with the log
            self._begin = 0
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
        except OSError as error:
            raise StorageError(f"log cannot be written ({error.strerror})", path, "Choose another folder") from error
        self._file = os.fdopen(descriptor, "rb+", buffering=0)
        first_line = command.encode(errors="surrogateescape") + b"\n"
        self._begin = len(first_line)
        try:
            self._file.write(first_line)
        except OSError as error:
            self._file.close()
            raise StorageError(f"log cannot be written ({error.strerror})", path, "Free some space") from error

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def fileno(self) -> int:
        """File descriptor, for the program's output."""
        return self._file.fileno()

    def tail(self) -> str:
        """The last lines that the program printed, 50 at most."""
        end = os.fstat(self.fileno()).st_size
        begin = max(self._begin, end - _TAIL_BYTES)
        text = os.pread(self.fileno(), max(0, end - begin), begin).decode(errors="replace")
        return "\n".join(text.splitlines()[-TAIL_LINES:])


def with_tail(error: OrcaError, tail: str) -> OrcaError:
    """Return the error with the end of the program's log in it."""
    error.tail = tail
    return error


def failure(name: str, code: int, tail: str, log: Path | None, disks: Iterable[Path | None]) -> OrcaError:
    """Why a program or an isolated child ended with this exit code (negative: the signal that ended it).

    Parameters
    ----------
    name : str
        Of the program, as the user knows it.
    tail : str
        Its last lines; the very last one becomes a part of the message, and the caller adds all (`with_tail`).
    log : path, optional
        Where the user finds the rest.
    disks : paths
        Where it wrote: on a full one nothing else is to blame.
    """
    full = next((disk for disk in disks if disk is not None and _nearly_full(disk)), None)
    if full is not None or "No space left" in tail or "Disk quota exceeded" in tail:
        where = f"the disk of {full} is full" if full is not None else "a disk is full"
        return StorageError(f"failed since {where}", name, "Free some space and run again")
    number = -code if code < 0 else code - 128  # a shell reports its child's signal as 128 + number
    what = f"ended with exit code {code}"
    with suppress(ValueError):
        signal_name = signal.Signals(number).name
        what = f"was ended by signal {signal_name}" if code < 0 else f"{what} (a child of it got {signal_name})"
    remedies = [f"See its log {log}"] if log else []
    if number == signal.SIGKILL:
        what += ", not sent by ORCA; most likely the machine ran out of memory"
        remedies.insert(0, MEMORY_REMEDY)
    last = _last_line(tail)
    said = f"{what}: {last.rstrip('.')}" if last else f"{what}, and printed nothing"
    return ProgramError(said, name, ". ".join(remedies) or None)


def _last_line(tail: str) -> str:
    """The last line that is not empty, shortened; when Python crashed, of what came before its own report."""
    printed, _, report = tail.partition("Fatal Python error: ")
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    if not lines:
        lines = [line.strip() for line in report.splitlines() if line.startswith("  File ")][:1]
    return lines[-1][:_LINE_LENGTH] if lines else ""


def _nearly_full(folder: Path) -> bool:
    with suppress(OSError):
        state = os.statvfs(folder)
        return state.f_bavail * state.f_frsize < _NEARLY_FULL_BYTES
    return False
