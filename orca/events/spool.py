"""Messages that wait on this machine's disk because the broker is away.

One file a message, whole or not there: ``<number>.<queue>.json`` with the message as it will be sent. The numbers are
those of the order in which they were kept. A file that holds no message gets ``.broken`` at the end of its name.
"""

from __future__ import annotations

import fcntl
import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orca.disk import make_folder, storage_errors
from orca.errors import MessageError
from orca.events.message import Message
from orca.products import write_text
from orca.scratch import sweep

_log = logging.getLogger(__name__)
_NAME = re.compile(r"(\d{20})\.([A-Za-z0-9][A-Za-z0-9._-]*)\.json")
_BROKEN = ".broken"


@dataclass(frozen=True, order=True)
class Kept:
    """A message that waits.

    Attributes
    ----------
    number : int
        Of the order.
    path : Path
    queue : str
        Where it goes, as the broker has it.
    """

    number: int
    path: Path
    queue: str

    def read(self) -> Message:
        """The message.

        Raises
        ------
        MessageError
            The file holds none.
        FileNotFoundError
            Another process has sent it.
        """
        try:
            return Message.decode(self.path.read_bytes())
        except FileNotFoundError:
            raise
        except OSError as error:
            raise MessageError(f"cannot be read ({error.strerror})", self.path) from error


class Spool:
    """A folder of messages.

    Parameters
    ----------
    folder : Path
        It is made when something has to be kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, queue: str, message: Message) -> Path:
        """Write a message behind those that wait already; it is on the disk then.

        Raises
        ------
        StorageError
            The disk is full, or the folder cannot be written.
        """
        make_folder(self.folder)
        with self._locked("order.lock"):
            last = max((each.number for each in self.waiting()), default=0)
            number = max(last + 1, time.time_ns())  # a clock that was set back must not change the order
            path = self.folder / f"{number:020d}.{queue}.json"
            write_text(path, message.encode().decode())
        return path

    def waiting(self) -> list[Kept]:
        """What waits, the first to be sent first."""
        if not self.folder.is_dir():
            return []
        with storage_errors(self.folder):
            names = [path.name for path in self.folder.iterdir()]
        found = ((match, name) for name in names if (match := _NAME.fullmatch(name)))
        return sorted(Kept(int(match[1]), self.folder / name, match[2]) for match, name in found)

    @contextmanager
    def sending(self) -> Iterator[None]:
        """One process at a time sends what waits; waits for its turn."""
        make_folder(self.folder)
        with self._locked("sending.lock"):
            sweep(self.folder)  # what died while it wrote
            yield

    def sent(self, kept: Kept) -> None:
        """Forget a message that the broker has."""
        with storage_errors(self.folder):
            kept.path.unlink(missing_ok=True)

    def set_aside(self, kept: Kept, error: MessageError) -> Path:
        """Have a file that holds no message block the others no longer; say so."""
        aside = kept.path.with_name(kept.path.name + _BROKEN)
        with storage_errors(self.folder):
            kept.path.rename(aside)
        _log.warning("%s: %s. It is set aside, and not sent", aside, error.problem)
        return aside

    def broken(self) -> list[Path]:
        """Files that were set aside."""
        return sorted(self.folder.glob(f"*{_BROKEN}"))

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with storage_errors(self.folder):
            lock = (self.folder / f".{name}").open("a")
        with lock:
            with storage_errors(self.folder):
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
