"""What Linux tells of processes in /proc, see proc(5)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

DEAD_S = 5.0
"""Longest wait for a killed process: one that hangs in the kernel (a dead disk) must not hang us."""


def processes() -> Iterator[tuple[int, int, int]]:
    """Yield process id, group and session of every process that still runs; a zombie does not."""
    with os.scandir("/proc") as entries:
        names = [entry.name for entry in entries if entry.name.isdigit()]
    for name in names:
        with suppress(OSError):
            state, _, group, session = _stat(int(name))[:4]
            if state not in "ZX":
                yield int(name), int(group), int(session)


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since the machine did; None for one that is gone or a zombie."""
    try:
        fields = _stat(pid)
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on; the second, the name, may hold spaces and parentheses."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def memory(pid: int) -> tuple[int, int]:
    """High-water mark of the resident set, and what is held now without mapped files, in bytes."""
    fields = {}
    with suppress(OSError):
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    high_water, *held = (int(fields.get(key, "0").split()[0]) * 1024 for key in ("VmHWM", "RssAnon", "RssShmem"))
    return high_water, sum(held)


def bytes_moved(pid: int) -> tuple[int, int]:
    """Bytes read and written; complete once the process has exited and is not reaped yet."""
    with suppress(OSError):
        fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
        return int(fields["rchar"]), int(fields["wchar"])
    return 0, 0


def marked(name: str, value: str) -> dict[int, int]:
    """Group by process id of this user's processes, but for this one, that were started with NAME=value."""
    mark = f"{name}={value}".encode()
    found = {}
    for pid, group, _ in processes():
        folder = Path(f"/proc/{pid}")
        with suppress(OSError):
            ours = pid != os.getpid() and folder.stat().st_uid == os.getuid()
            if ours and mark in (folder / "environ").read_bytes().split(b"\0"):
                found[pid] = group
    return found


def open_files() -> set[str]:
    """Paths of all files that processes of this machine have open, as far as this user may know it."""
    found = set()
    for pid, _, _ in processes():
        with suppress(OSError):
            for descriptor in os.scandir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    found.add(os.readlink(descriptor.path))  # noqa: PTH115 - what it says, as text
    return found


def wait_until(condition: Callable[[], bool], patience_s: float) -> bool:
    """Wait for a condition; False when it did not come true in time."""
    end = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(0.01)
    return True


def wait_for_end(group: int) -> bool:
    """Wait until no process of a killed group runs any more, `DEAD_S` at most."""
    return wait_until(lambda: all(one != group for _, one, _ in processes()), DEAD_S)
