"""What is known of alarms from one look to the next: which are up, which were told, what was seen.

A small file, written whole. An alarm that was told stays told over restarts; two that look at the same time wait for
each other. A file that is broken is put aside, and what is up then is told once more: rather that than never.
"""

from __future__ import annotations

import fcntl
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from orca.alarms.alarm import Findings, State
from orca.disk import make_folder, storage_errors
from orca.errors import InfrastructureError, StorageError
from orca.procfs import wait_until
from orca.products import write_text

PATIENCE_S = 60.0
"""How long one look waits for another."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Known:
    """An alarm that is up, or that is over and its end is not told yet.

    Attributes
    ----------
    name, text : str
    paths : tuple of str
    since : float
        Unix time at which it was seen first.
    until : float or None
        When it was over.
    told : str
        By which ways people were told that it came up; empty while nobody was.
    tries : int
        How often it was tried in vain to tell it as it is.
    """

    name: str
    text: str
    paths: tuple[str, ...]
    since: float
    until: float | None = None
    told: str = ""
    tries: int = 0

    @property
    def state(self) -> State:
        """What has to be told of it."""
        return "raised" if self.until is None else "cleared"


@dataclass
class Memory:
    """What is remembered.

    Attributes
    ----------
    alarms : dict of name to Known
    seen : dict of name to Unix time
        What was there, and when last; see `orca.alarms.conditions.gone`.
    looked : float or None
        Unix time of the last look.
    """

    alarms: dict[str, Known] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)
    looked: float | None = None

    @property
    def up(self) -> dict[str, Known]:
        """The alarms that are up."""
        return {name: known for name, known in self.alarms.items() if known.until is None}

    @property
    def untold(self) -> list[Known]:
        """Alarms that came up or ended, and nobody knows it yet; first those that were not tried yet."""
        found = [known for known in self.alarms.values() if known.until is not None or not known.told]
        return sorted(found, key=lambda known: (known.tries, known.since, known.name))

    def take(self, findings: Findings, now: float) -> None:
        """Note what a look at a condition has found; nothing where it could not be said."""
        if not findings.decided:
            return
        found = {alarm.name: alarm for alarm in findings.alarms}
        for alarm in found.values():
            known = self.alarms.get(alarm.name) or Known(alarm.name, alarm.text, alarm.paths, now)
            self.alarms[alarm.name] = replace(known, text=alarm.text, paths=alarm.paths, until=None)
        for name, known in self.up.items():
            if findings.decides(name) and name not in found:
                self.alarms[name] = replace(known, until=now, tries=0)

    def told(self, known: Known, by: str) -> None:
        """Note that people were told of it as it is, and by which ways."""
        if known.until is not None:
            del self.alarms[known.name]
        else:
            self.alarms[known.name] = replace(known, told=by, tries=0)

    def missed(self, known: Known) -> None:
        """Note that nobody could be told of it."""
        self.alarms[known.name] = replace(known, tries=known.tries + 1)


_FORM = TypeAdapter(Memory)


def read(path: Path) -> Memory:
    """What is remembered; nothing where there is no file, or a broken one, which is put aside.

    Raises
    ------
    StorageError
        The file cannot be read.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return Memory()
    except OSError as error:
        raise StorageError(f"cannot be read ({error.strerror})", path, "See its permissions, and its disk") from error
    try:
        return _FORM.validate_json(text)
    except ValidationError as error:
        broken = path.with_name(f"{path.name}.broken")
        with storage_errors(path):
            path.replace(broken)
        why = error.errors(include_url=False, include_input=False)[0]["msg"]
        _log.warning("%s was broken (%s), and is %s now: what is up is told once more", path, why, broken.name)
    return Memory()


def write(path: Path, memory: Memory) -> None:
    """Write it down.

    Raises
    ------
    StorageError
        It cannot be written.
    """
    write_text(path, json.dumps(asdict(memory), indent=1) + "\n")


@contextmanager
def alone(path: Path, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Look at the alarms of this file while nobody else does.

    Raises
    ------
    InfrastructureError
        Another look has not ended within that time.
    StorageError
        The lock cannot be taken.
    """
    make_folder(path.parent)
    lock = path.with_name(f".{path.name}.lock")
    with storage_errors(lock):
        handle = lock.open("w")
    with handle:

        def taken() -> bool:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            except OSError as error:
                problem = f"cannot be locked ({error.strerror})"
                raise StorageError(problem, lock, "Mount its file system so that flock works on all hosts") from error
            return True

        if not wait_until(taken, patience_s):
            remedy = "See what hangs there: a disk or a service that does not answer"
            raise InfrastructureError(f"another look at the alarms takes longer than {patience_s:g} s", lock, remedy)
        yield


def age_s(memory: Memory, now: float | None = None) -> float | None:
    """How long ago somebody looked; None where nobody did."""
    return None if memory.looked is None else max(0.0, (now or time.time()) - memory.looked)
