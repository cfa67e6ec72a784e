"""The one way to run a program.

`run` starts a program from an argument list, never through a shell, in a session of its own, and always ends
all of it: after its deadline, on request, above its memory, when the caller fails, and when the caller is killed.
`orca.isolation` does the same for a function of ours.
"""

from __future__ import annotations

import os
import resource
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from orca.endings import MEMORY_REMEDY, Log, failure, with_tail
from orca.errors import (
    DeadlineError,
    InfrastructureError,
    InputError,
    OrcaError,
    ProgramError,
    ProgramMissingError,
    StoppedError,
)
from orca.procfs import DEAD_S, bytes_moved, marked, memory, processes, wait_for_end, wait_until

Stop = Callable[[], "str | None"]
"""Asked now and then: the reason why work should end, or None."""
OWNER_VARIABLE = "ORCA_OWNER"
"""Environment variable by which `end_orphans` knows the programs of a dead owner."""
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
POLL_S = 0.1
"""How often deadlines, memory and stop are looked at."""
_GRACE_S = 2.0


@dataclass(frozen=True)
class ProgramRecord:
    """What a program was asked for and what it cost; every field is plain JSON.

    `cpu_seconds` and the bytes include the program's own children as far as it waited for them.
    `peak_memory_bytes` is the resident set's high-water mark, summed over the processes that ran together, as seen
    ten times a second (a lower bound for what takes less than that).
    `read_bytes` and `written_bytes` count what passed through read and write calls (rchar and wchar of
    /proc/PID/io), whether or not the page cache served them; memory-mapped files do not show up.
    """

    argv: tuple[str, ...]
    exit_code: int
    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    read_bytes: int
    written_bytes: int
    log: str


def find_program(name_or_path: str | PathLike[str], key: str) -> Path:
    """Find a program by its name on PATH or by its path.

    Parameters
    ----------
    name_or_path : str or path
    key : str
        The configuration key that holds it, for the error, such as ``execs.wsclean``.

    Raises
    ------
    ProgramMissingError
        Nothing is there, or it cannot be executed.
    """
    return Path(_locate(os.fspath(name_or_path), None, f"Install it, or set {key} in the configuration"))


def _locate(name: str, search_path: str | None, remedy: str) -> str:
    name = str(Path(name).expanduser()) if name.startswith("~") else name
    found = shutil.which(name, path=search_path)
    if found is not None:
        return str(Path(found).absolute())
    problem = "is not an executable program" if os.sep in name and Path(name).exists() else "program not found"
    raise ProgramMissingError(problem, name, remedy)


def run(
    argv: Sequence[str | PathLike[str]],
    *,
    log: Path,
    deadline_s: float,
    threads: int,
    memory_gb: float | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stop: Stop | None = None,
    owner: str | None = None,
    disk: Path | None = None,
    stdin: Path | None = None,
) -> ProgramRecord:
    """Run a program to its end; nothing of it is left when this returns or raises.

    May be called from any thread. The program is killed by the kernel when the calling thread or process dies.

    Parameters
    ----------
    argv : sequence of str or path
        Program and arguments; never a shell's command line.
    log : path
        Gets the command on its first line, then what the program prints. An older log is replaced.
    deadline_s : float
        After this many seconds the program is ended (SIGTERM, 2 s later SIGKILL).
    threads : int
        Value of OMP_NUM_THREADS and its kin. Always set, since a Dask nanny leaves a 1 there.
    memory_gb : float, optional
        Limit in 1e9 bytes, watched ten times a second and not enforced by the kernel: memory that the
        program's processes hold for themselves. Pages of mapped files do not count; they can be given back.
    cwd : path, optional
    env : mapping, optional
        Added to the environment.
    stop : callable, optional
        Asked ten times a second; a returned text ends the program.
    owner : str, optional
        Owner token (see `orca.scratch.owner_token`) by which `end_orphans` finds what a killed caller leaves.
    disk : path, optional
        Where the program writes, to tell a full disk from a bug. Looked at beside `cwd` and the log's folder.
    stdin : path, optional
        File that the program reads as its standard input; that is empty when not given.

    Raises
    ------
    InputError
        `argv` is a string, empty, or holds something else than text and paths.
    ProgramMissingError
        There is no such program.
    ProgramError
        It failed, or took too much memory. The error's `tail` holds the last 50 lines of the log.
    DeadlineError, StoppedError
        It was ended at its deadline or because `stop` said so.
    StorageError
        The log cannot be written, or the program failed on a full disk.
    """
    words = _checked_words(argv)
    if threads < 1 or deadline_s <= 0:
        raise InputError(f"needs threads >= 1 and a deadline > 0, not {threads} and {deadline_s}", words[0])
    environment = {**os.environ, **(env or {}), **dict.fromkeys(THREAD_VARIABLES, str(threads))}
    if owner is not None:
        environment[OWNER_VARIABLE] = owner
    search_path = environment.get("PATH")
    program = _locate(words[0], search_path, "Install it, or correct its path in the configuration")
    setpriv = _locate("setpriv", None, "Install util-linux")
    with Log(log, shlex.join(words)) as sink:
        start = time.monotonic()
        group = _launch([setpriv, "--pdeathsig", "KILL", "--", program, *words[1:]], sink, cwd, environment, stdin)
        try:
            early = _watch(group, words[0], start + deadline_s, deadline_s, stop, memory_gb)
        except BaseException:
            group.end()
            group.finish()
            raise
        if early is not None:
            group.end()
        code, cpu_seconds, (read_bytes, written_bytes) = group.finish()
        tail = sink.tail()
    if early is None and code != 0:
        early = failure(words[0], code, tail, log, (cwd or Path.cwd(), log.parent, disk))
    if early is not None:
        raise with_tail(early, tail)
    seconds = time.monotonic() - start
    return ProgramRecord(
        tuple(words), code, seconds, cpu_seconds, group.peak_bytes, read_bytes, written_bytes, str(log)
    )


def _checked_words(argv: Sequence[str | PathLike[str]]) -> list[str]:
    if isinstance(argv, str | bytes):
        raise InputError("a program takes a list of arguments, not one string", None, f"Split it: {argv!r}")
    words = []
    for item in argv:
        word = os.fspath(item) if isinstance(item, str | PathLike) else None
        if not isinstance(word, str) or "\0" in word:
            raise InputError(f"argument {item!r} is not text or a path, or holds a zero byte")
        words.append(word)
    if not words or not words[0]:
        raise InputError("no program given")
    return words


def _launch(words: list[str], sink: Log, cwd: Path | None, environment: dict[str, str], stdin: Path | None) -> _Group:
    if cwd is not None and not cwd.is_dir():
        raise InputError("is not a folder to run a program in", cwd)
    try:
        with (stdin or Path(os.devnull)).open("rb") as given:
            process = subprocess.Popen(
                words,
                stdin=given,
                stdout=sink.fileno(),
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=environment,
                start_new_session=True,
            )
    except OSError as error:
        raise InfrastructureError(f"could not be started ({error.strerror})", words[4]) from error
    return _Group(process)


def _watch(
    group: _Group, program: str, end: float, deadline_s: float, stop: Stop | None, memory_gb: float | None
) -> OrcaError | None:
    """Wait for the program; return why it has to be ended, or None when it ended by itself."""
    pause = 0.001
    while not group.exited():
        reason = stop() if stop is not None else None
        if reason:
            return StoppedError(reason, program)
        if time.monotonic() >= end:
            return DeadlineError(f"took longer than {deadline_s:g} s and was ended", program, "Raise its deadline")
        used = group.sample()
        if memory_gb is not None and used > memory_gb * 1e9:
            problem = f"used {used / 1e9:.2f} GB of memory, more than its limit of {memory_gb:g} GB, and was ended"
            return ProgramError(problem, program, MEMORY_REMEDY)
        time.sleep(pause)
        pause = min(1.25 * pause, POLL_S)  # a short program is not delayed by more than a quarter
    return None


class _Group:
    """A program and its process group, whose id is the program's own until `finish` has reaped it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.id = process.pid
        self.peak_bytes = 0
        self._members = [process.pid]
        self._scan_pause = POLL_S / 2
        self._next_scan = time.monotonic() + self._scan_pause
        # What a child's ru_maxrss starts from: Linux hands the high-water mark of the forking process down.
        self._inherited_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def exited(self) -> bool:
        """Whether the program has ended; it is not reaped, so that its id stays its own."""
        return os.waitid(os.P_PID, self.id, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def sample(self) -> int:
        """Memory in bytes that the session's processes hold for themselves now; updates the peak."""
        now = time.monotonic()
        if now >= self._next_scan:  # walking /proc costs milliseconds: often at first, then every 2 s
            self._members = [pid for pid, _, session in processes() if session == self.id]
            self._scan_pause = min(2 * self._scan_pause, 2.0)
            self._next_scan = now + self._scan_pause
        sizes = [memory(pid) for pid in self._members]
        self.peak_bytes = max(self.peak_bytes, sum(high_water for high_water, _ in sizes))
        return sum(held for _, held in sizes)

    def end(self) -> None:
        """SIGTERM to the group, after 2 s SIGKILL; the wait is bounded."""
        for number, patience_s in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, DEAD_S)):
            self._signal(number)
            if wait_until(self.exited, patience_s):
                return

    def finish(self) -> tuple[int, float, tuple[int, int]]:
        """Kill what is left of the group and reap: exit code, CPU seconds, bytes (read, written)."""
        if not self.exited():  # in spite of SIGKILL: it hangs in the kernel
            return -signal.SIGKILL, 0.0, (0, 0)
        moved = bytes_moved(self.id)
        self._signal(signal.SIGKILL)  # before reaping, while the group's id cannot have passed to another
        _, status, usage = os.wait4(self.id, 0)
        self.process.returncode = code = os.waitstatus_to_exitcode(status)
        if usage.ru_maxrss * 1024 > self._inherited_peak:
            self.peak_bytes = max(self.peak_bytes, usage.ru_maxrss * 1024)
        if self._signal(0):
            wait_for_end(self.id)
        return code, usage.ru_utime + usage.ru_stime, moved

    def _signal(self, number: int) -> bool:
        with suppress(ProcessLookupError):
            os.killpg(self.id, number)
            return True
        return False


def end_orphans(owner: str) -> int:
    """Kill every process of this user that was started for `owner`, whatever became of its parents.

    `run` and `run_isolated` mark what they start with the variable ORCA_OWNER, which children inherit. The kernel
    ends the program itself when its caller dies; this ends what the program had started in turn.

    Returns
    -------
    int
        How many processes were killed.

    Raises
    ------
    InputError
        `owner` is empty, which would match what is not ours.
    """
    if not owner:
        raise InputError("no owner given whose programs to end")
    killed: set[int] = set()
    end = time.monotonic() + DEAD_S
    while (found := marked(OWNER_VARIABLE, owner)) and time.monotonic() < end:  # again: one may have forked meanwhile
        killed.update(found)
        for pid, group in found.items():
            with suppress(ProcessLookupError):
                if group in found and group != os.getpgrp():
                    os.killpg(group, signal.SIGKILL)
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    return len(killed)
