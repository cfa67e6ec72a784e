"""CPU seconds of all processes of an `orca up`, by part, those that have ended or were replaced included.

Linux adds the CPU of a process that has ended to its parent's only where the parent waits for it. So every process is
seen several times a second, and counted is what was last seen of it; of what a parent has waited for, whatever is more
than was seen of those children, so that short-lived ones count as well.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from orca.cluster.machine.standing import MARK
from orca.cluster.machine.supervision import KIND_VARIABLE

LOOK_S = 0.2
Key = tuple[int, float]
"""Process id and the time of its start."""


@dataclass
class _Seen:
    kind: str
    parent: Key | None
    own_s: float = 0.0
    waited_s: float = 0.0
    """Of children that have ended and were waited for, with theirs."""


class Account:
    """Looks at the processes of a home's `orca up` until it is told to stop; a context manager.

    Parameters
    ----------
    folder : Path
        Of what `orca up` runs: run_folder(settings).
    """

    def __init__(self, folder: Path) -> None:
        self._mark = str(folder)
        self._seen: dict[Key, _Seen | None] = {}
        self._before: dict[str, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_often, daemon=True)

    def __enter__(self) -> Account:
        self._look()
        self._before = self._sums()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._look()

    def spent(self) -> dict[str, float]:
        """CPU seconds of each kind of part since the account began."""
        return {kind: total - self._before.get(kind, 0.0) for kind, total in self._sums().items()}

    def _look_often(self) -> None:
        while not self._ended.wait(LOOK_S):
            self._look()

    def _look(self) -> None:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                key = (process.pid, process.create_time())
                if key not in self._seen:
                    self._seen[key] = self._begun(process)
                if (seen := self._seen[key]) is not None:
                    times = process.cpu_times()
                    seen.own_s = times.user + times.system
                    seen.waited_s = times.children_user + times.children_system

    def _begun(self, process: psutil.Process) -> _Seen | None:
        """A process seen for the first time; None when it is none of ours."""
        parent = process.parent()
        above = None if parent is None else (parent.pid, parent.create_time())
        known = None if above is None else self._seen.get(above)
        environment = process.environ()
        if environment.get(MARK) == self._mark:
            return _Seen(environment.get(KIND_VARIABLE, "supervisor"), above)
        return None if known is None else _Seen(known.kind, above)

    def _sums(self) -> dict[str, float]:
        """CPU seconds by kind, of all that was seen."""
        counted: dict[Key, float] = {}
        alive = {key for key in self._seen if _is_alive(key)}
        for key, seen in self._seen.items():
            if seen is not None and seen.parent is not None and key not in alive:
                counted[seen.parent] = counted.get(seen.parent, 0.0) + seen.own_s + seen.waited_s
        sums: dict[str, float] = {}
        for key, seen in self._seen.items():
            if seen is not None:
                unseen = max(0.0, seen.waited_s - counted.get(key, 0.0))
                sums[seen.kind] = sums.get(seen.kind, 0.0) + seen.own_s + unseen
        return sums


def _is_alive(key: Key) -> bool:
    with suppress(psutil.Error):
        process = psutil.Process(key[0])
        return process.create_time() == key[1] and process.status() != psutil.STATUS_ZOMBIE
    return False
