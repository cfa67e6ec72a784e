"""What is known on disk of the flow runs that have a process: one record each, in a folder for each host.

A record outlives the worker that started the run, so that the next one sees the run through, and the process itself,
so that its end can be told to Prefect by whoever looks next. The folder is `<prefect.home>/runs/<host>`; where hosts
share it, they see each other's runs, too. Nothing here imports Prefect.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from orca.disk import make_folder
from orca.procfs import start_ticks
from orca.products import write_text

BEAT_S = float(os.environ.get("ORCA_BEAT_S", "15"))
"""How often a flow's process touches its record; the same on all hosts."""
HOST_VARIABLE = "ORCA_NODE"
"""Environment variable with the name of this node, where that is not the machine's."""


def this_host() -> str:
    """Short name of this node."""
    return os.environ.get(HOST_VARIABLE) or socket.gethostname().split(".")[0]


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True)
class Process:
    """A process for ever: its number is used again, its number with its start is not.

    Attributes
    ----------
    pid : int
    ticks : start in clock ticks since the machine's, 0 for one that had ended when it was looked at
    boot : which start of the machine
    """

    pid: int
    ticks: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Process:
        """The process that has this number now."""
        return cls(pid, start_ticks(pid) or 0, _boot())

    def alive(self) -> bool:
        """Whether it runs; to be asked on its own host."""
        return self.ticks > 0 and self.this_boot() and start_ticks(self.pid) == self.ticks

    def this_boot(self) -> bool:
        """Whether the machine has not started anew since."""
        return self.boot == _boot()


@dataclass(frozen=True)
class Record:
    """A flow run that has, or had, a process.

    Attributes
    ----------
    flow_run_id : str
    host : str
    process : Process
        Of the flow run; for a worker's run it leads a session of its own.
    pool : str or None
        Prefect's work pool; None for a run that a person started.
    worker : str
        Name of the Prefect worker that looks after it.
    keeper : Process or None
        Of that worker.
    folder : Path
        In which the record is.
    """

    flow_run_id: str
    host: str
    process: Process
    pool: str | None
    worker: str
    keeper: Process | None
    folder: Path

    @property
    def path(self) -> Path:
        """The record's file."""
        return self.folder / f"{self.flow_run_id}.json"

    @property
    def log(self) -> Path:
        """What the process printed (a worker's run)."""
        return self.folder / f"{self.flow_run_id}.{self.process.pid}.log"

    @property
    def exit_path(self) -> Path:
        """How the process ended (a worker's run)."""
        return self.folder / f"{self.flow_run_id}.{self.process.pid}.exit"

    def write(self) -> Record:
        """Put it on disk."""
        make_folder(self.folder)
        write_text(self.path, json.dumps({**asdict(self), "folder": str(self.folder)}))
        return self

    def kept_by(self, worker: str) -> Record:
        """The same, looked after by a worker that is this process."""
        return replace(self, worker=worker, keeper=Process.of(os.getpid())).write()

    def exit_code(self) -> int | None:
        """Exit status, minus the signal that ended the process; None when nobody has seen it end."""
        try:
            return int(self.exit_path.read_text())
        except (FileNotFoundError, ValueError):
            return None

    def forget(self) -> None:
        """Remove it, and what belongs to it."""
        for path in (self.path, self.log, self.exit_path):
            path.unlink(missing_ok=True)


def read(path: Path) -> Record | None:
    """A record; None when it is gone or no record."""
    try:
        values = json.loads(path.read_text())
        for name in ("process", "keeper"):
            values[name] = Process(**values[name]) if values[name] else None
        return Record(**{**values, "folder": path.parent})
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def records(runs: Path, host: str | None = None) -> list[Record]:
    """All records of a host, or of all hosts that share the folder `runs`."""
    found = (read(path) for path in sorted(runs.glob(f"{host or '*'}/*.json")))
    return [record for record in found if record is not None]


@contextmanager
def locked(record: Record) -> Iterator[bool]:
    """Whether the caller alone may end the record now; false when another does, or has done so."""
    try:
        handle = os.open(record.path, os.O_RDWR)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        now = read(record.path)
        yield now is not None and now.process == record.process
    except BlockingIOError:
        yield False
    finally:
        os.close(handle)


def beat(path: Path) -> None:
    """Touch a record from now on, every `BEAT_S`, as a sign that this process lives."""

    def touch() -> None:
        while not stop.wait(BEAT_S):
            with suppress(OSError):  # a disk that is away for a while must not end the flow
                os.utime(path)

    stop = threading.Event()
    threading.Thread(target=touch, name="orca-beat", daemon=True).start()


def register(runs: Path, flow_run_id: str) -> Record:
    """Make this process known as that of a flow run that a person started; the record goes when the process ends well.

    Called once the flow run has begun. Killed, the process leaves its record, and a reaper marks the run.

    Parameters
    ----------
    runs : Path
        The folder of all records, `<prefect.home>/runs`.
    """
    host = this_host()
    record = Record(flow_run_id, host, Process.of(os.getpid()), None, "", None, runs / host).write()
    atexit.register(_forget_own, record)
    beat(record.path)
    return record


def _forget_own(record: Record) -> None:
    if os.getpid() == record.process.pid:  # a fork of the process is not the process
        record.forget()
