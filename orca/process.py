"""The one way to run a program, or a function that may take its process with it.

`run` starts a program from an argument list, never through a shell, in a session of its own, and always ends
all of it: after its deadline, on request, above its memory, when the caller fails, and when the caller is killed.
`run_isolated` does the same for a function of ours: casacore aborts the process that meets a full disk, and a
worker must outlive that.
"""

from __future__ import annotations

import errno
import faulthandler
import fcntl
import os
import pickle
import resource
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing import connection, forkserver
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from orca.errors import (
    DeadlineError,
    InfrastructureError,
    InputError,
    OrcaError,
    ProgramError,
    ProgramMissingError,
    StoppedError,
    StorageError,
)

T = TypeVar("T")
Stop = Callable[[], "str | None"]

OWNER_VARIABLE = "ORCA_OWNER"
"""Environment variable by which `end_orphans` knows the programs of a dead owner."""
TAIL_LINES = 50
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
_POLL_S = 0.1
_GRACE_S = 2.0
_DEAD_S = 5.0  # longest wait for a killed process: one that hangs in the kernel (a dead disk) must not hang us
_NEARLY_FULL_BYTES = 1 << 20
_MEMORY_REMEDY = "Allow it more memory (memory_gb), make the job smaller, or run fewer at once"


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


# ---------------------------------------------------------------------------------------------------------------------
# Programs


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
        Owner token (see `orca.products.owner_token`) by which `end_orphans` finds what a killed caller leaves.
    disk : path, optional
        Where the program writes, to tell a full disk from a bug. Looked at beside `cwd` and the log's folder.

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
    with _open_log(log, shlex.join(words)) as sink:
        start = time.monotonic()
        group = _launch([setpriv, "--pdeathsig", "KILL", "--", program, *words[1:]], sink, cwd, environment)
        try:
            early = _watch(group, words[0], start + deadline_s, deadline_s, stop, memory_gb)
        except BaseException:
            group.end()
            group.finish()
            raise
        if early is not None:
            group.end()
        code, cpu_seconds, (read_bytes, written_bytes) = group.finish()
        tail = _tail(sink)
    if early is None and code != 0:
        early = _failure(words[0], code, tail, log, (cwd or Path.cwd(), log.parent, disk))
    if early is not None:
        raise _with_tail(early, tail)
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


def _open_log(log: Path, first_line: str) -> BinaryIO:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        sink = os.fdopen(os.open(log, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666), "rb+", buffering=0)
    except OSError as error:
        raise StorageError(f"log cannot be written ({error.strerror})", log, "Choose another folder") from error
    try:
        sink.write(first_line.encode(errors="surrogateescape") + b"\n")
    except OSError as error:
        sink.close()
        raise StorageError(f"log cannot be written ({error.strerror})", log, "Free some space") from error
    return sink


def _launch(words: list[str], sink: BinaryIO, cwd: Path | None, environment: dict[str, str]) -> _Group:
    if cwd is not None and not cwd.is_dir():
        raise InputError("is not a folder to run a program in", cwd)
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=sink,
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
            return ProgramError(problem, program, _MEMORY_REMEDY)
        time.sleep(pause)
        pause = min(1.25 * pause, _POLL_S)  # a short program is not delayed by more than a quarter
    return None


class _Group:
    """A program and its process group, whose id is the program's own until `finish` has reaped it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.id = process.pid
        self.peak_bytes = 0
        self._members = [process.pid]
        self._scan_pause = _POLL_S / 2
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
            self._members = [pid for pid, _, session in _processes() if session == self.id]
            self._scan_pause = min(2 * self._scan_pause, 2.0)
            self._next_scan = now + self._scan_pause
        sizes = [_memory(pid) for pid in self._members]
        self.peak_bytes = max(self.peak_bytes, sum(high_water for high_water, _ in sizes))
        return sum(held for _, held in sizes)

    def end(self) -> None:
        """SIGTERM to the group, after 2 s SIGKILL; the wait is bounded."""
        for number, patience_s in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, _DEAD_S)):
            self._signal(number)
            if _until(self.exited, patience_s):
                return

    def finish(self) -> tuple[int, float, tuple[int, int]]:
        """Kill what is left of the group and reap: exit code, CPU seconds, bytes (read, written)."""
        if not self.exited():  # in spite of SIGKILL: it hangs in the kernel
            return -signal.SIGKILL, 0.0, (0, 0)
        moved = _bytes_moved(self.id)
        self._signal(signal.SIGKILL)  # before reaping, while the group's id cannot have passed to another
        _, status, usage = os.wait4(self.id, 0)
        self.process.returncode = code = os.waitstatus_to_exitcode(status)
        if usage.ru_maxrss * 1024 > self._inherited_peak:
            self.peak_bytes = max(self.peak_bytes, usage.ru_maxrss * 1024)
        if self._signal(0):
            _until(lambda: not _group_runs(self.id), _DEAD_S)
        return code, usage.ru_utime + usage.ru_stime, moved

    def _signal(self, number: int) -> bool:
        with suppress(ProcessLookupError):
            os.killpg(self.id, number)
            return True
        return False


def _until(condition: Callable[[], bool], patience_s: float) -> bool:
    end = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(0.01)
    return True


def _failure(name: str, code: int, tail: str, log: Path | None, disks: Iterable[Path | None]) -> OrcaError:
    """Why a program or an isolated child ended with this exit code (negative: the signal that ended it)."""
    full = next((disk for disk in disks if disk is not None and _nearly_full(disk)), None)
    if full is not None or "No space left" in tail or "Disk quota exceeded" in tail:
        where = f"the disk of {full} is full" if full is not None else "a disk is full"
        return StorageError(f"failed since {where}", name, "Free some space and run again")
    number = -code if code < 0 else code - 128  # a shell reports its child's signal as 128 + number
    what = f"ended with exit code {code}"
    with suppress(ValueError):
        signal_name = signal.Signals(number).name
        what = f"was ended by signal {signal_name}" if code < 0 else f"{what} (a child of it got {signal_name})"
    remedy = f"The end of its log{f' {log}' if log else ''}:\n{tail}" if tail else "It printed nothing"
    if number == signal.SIGKILL:
        what += ", not sent by ORCA: most likely the machine ran out of memory"
        remedy = f"{_MEMORY_REMEDY}. {remedy}"
    return ProgramError(what, name, remedy)


def _with_tail(error: OrcaError, tail: str) -> OrcaError:
    vars(error)["tail"] = tail  # an attribute pickles with the exception
    return error


def _tail(log: BinaryIO) -> str:
    size = os.fstat(log.fileno()).st_size
    text = os.pread(log.fileno(), 1 << 16, max(0, size - (1 << 16))).decode(errors="replace")
    return "\n".join(text.splitlines()[-TAIL_LINES:])


def _nearly_full(folder: Path) -> bool:
    with suppress(OSError):
        state = os.statvfs(folder)
        return state.f_bavail * state.f_frsize < _NEARLY_FULL_BYTES
    return False


# ---------------------------------------------------------------------------------------------------------------------
# /proc


def _processes() -> Iterable[tuple[int, int, int]]:
    """Process id, group and session of every process that still runs."""
    with os.scandir("/proc") as entries:
        names = [entry.name for entry in entries if entry.name.isdigit()]
    for name in names:
        with suppress(OSError):
            state, _, group, session = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()[:4]
            if state not in "ZX":
                yield int(name), int(group), int(session)


def _group_runs(group: int | None) -> bool:
    return any(one == group for _, one, _ in _processes())


def _memory(pid: int) -> tuple[int, int]:
    """High-water mark of the resident set, and what is held now without mapped files, in bytes."""
    fields = {}
    with suppress(OSError):
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    high_water, *held = (int(fields.get(key, "0").split()[0]) * 1024 for key in ("VmHWM", "RssAnon", "RssShmem"))
    return high_water, sum(held)


def _bytes_moved(pid: int) -> tuple[int, int]:
    """Bytes read and written; complete once the process has exited and is not reaped yet."""
    with suppress(OSError):
        fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
        return int(fields["rchar"]), int(fields["wchar"])
    return 0, 0


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
    mark = f"{OWNER_VARIABLE}={owner}".encode()
    killed: set[int] = set()
    end = time.monotonic() + _DEAD_S
    while (marked := _marked(mark)) and time.monotonic() < end:  # again: one may have forked meanwhile
        killed.update(marked)
        for pid, group in marked.items():
            with suppress(ProcessLookupError):
                if group in marked and group != os.getpgrp():
                    os.killpg(group, signal.SIGKILL)
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    return len(killed)


def _marked(mark: bytes) -> dict[int, int]:
    """Group by process id of this user's running processes, but for this one, with `mark` in their environment."""
    found = {}
    for pid, group, _ in _processes():
        folder = Path(f"/proc/{pid}")
        with suppress(OSError):
            ours = pid != os.getpid() and folder.stat().st_uid == os.getuid()
            if ours and mark in (folder / "environ").read_bytes().split(b"\0"):
                found[pid] = group
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Functions in a process of their own

# A server of its own, apart from the one that multiprocessing shares between all of a process's libraries: what it has
# imported is ours to say, and its children do not import the caller's main script again, as multiprocessing.Process
# would have them do (a second for a Dask worker; the whole script where it has no __name__ guard).
_SERVER = forkserver.ForkServer()
_SERVER.set_forkserver_preload([__name__])


def _forget_server() -> None:
    vars(_SERVER).update(vars(forkserver.ForkServer()))
    _SERVER.set_forkserver_preload([__name__])


os.register_at_fork(after_in_child=_forget_server)  # the server is the child of the process that forked


def preload(modules: Sequence[str]) -> None:
    """Start the server from which isolated children are forked, and have it import `modules` once for all of them.

    Returns at once; the first `run_isolated` waits for what is still being imported. Call it before that: a server
    that runs already is left as it is. Modules must import without starting threads and must not raise.

    Parameters
    ----------
    modules : sequence of str
        Such as ``["orca.ms.stage"]``.
    """
    _SERVER.set_forkserver_preload([__name__, *modules])
    _SERVER.ensure_running()


def run_isolated(
    function: Callable[..., T],
    *args: Any,
    deadline_s: float,
    stop: Stop | None = None,
    owner: str | None = None,
    disk: Path | None = None,
    log: Path | None = None,
    **kwargs: Any,
) -> T:
    """Call a function in a child process, so that a crash, an abort or a hang of it is an error here and no more.

    The child is forked from a server with the modules of `preload` (some 10 ms), does not import the caller's main
    script, has the environment that the server was started with, and the caller's working folder and module path. It
    dies at once when the caller dies, even inside a C function that holds the interpreter's lock. May be called from
    any thread.

    Parameters
    ----------
    function : callable
        Defined at the top of a module that can be imported (not of the main script). Arguments and result must
        pickle; pass paths, not data.
    deadline_s : float
        After this many seconds the child is killed.
    stop : callable, optional
        Asked ten times a second; a returned text kills the child.
    owner : str, optional
        Owner token that programs which the function starts are marked with.
    disk : path, optional
        Where the function writes, to tell a full disk from a bug.
    log : path, optional
        Gets what the function prints; an older one is replaced.

    Raises
    ------
    InputError
        The function or its arguments cannot be sent to a child.
    DeadlineError, StoppedError
        The child was killed at its deadline or because `stop` said so.
    StorageError
        The child died on a full disk.
    InfrastructureError
        The child was killed from outside, or could not be started.
    ProgramError
        The child died of something else. The error's `tail` holds the end of what it printed.
    Exception
        Whatever the function raised, as it is, with the child's traceback as a note.
    """
    name = f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', function)}"
    job = pickle.dumps(_Job(_pickled_call(name, function, args, kwargs), owner))
    with ExitStack() as stack:
        opened = tempfile.TemporaryFile(buffering=0) if log is None else _open_log(log, name)  # noqa: SIM115
        sink = stack.enter_context(opened)
        child = stack.enter_context(_Child(job, sink.fileno()))
        code, message = child.wait(name, deadline_s, stop)
        tail = _tail(sink)
    outcome: Any = None
    if message is not None:
        succeeded, outcome = pickle.loads(message)
        if not succeeded:
            raise outcome
        if code == 0:  # else it crashed while it ended, and may not have written everything
            return outcome
    error: OrcaError
    if code is None:
        error = InfrastructureError("the server of isolated children went away", name, "Run it again")
    elif code == 0:
        error = ProgramError("ended its process without a result", name)
    else:
        error = _failure(name, code, tail, log, (disk,))
        if code == -signal.SIGKILL and not isinstance(error, StorageError):
            error = InfrastructureError(error.problem, name, error.remedy)
    raise _with_tail(error, tail)


def _pickled_call(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    remedy = "Isolate a function at the top of a module that can be imported, with arguments that pickle"
    if getattr(function, "__module__", None) == "__main__":
        raise InputError("is part of the main script, which a child does not import", name, remedy)
    try:
        return pickle.dumps((function, args, kwargs))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise InputError(f"cannot be sent to a child ({error})", name, remedy) from error


class _Child:
    """The caller's side of an isolated child."""

    def __init__(self, job: bytes, log: int) -> None:
        self._pid: int | None = None
        self._exited = False
        self._open = ExitStack()
        result, result_end = os.pipe()
        lifeline_end, lifeline = os.pipe()  # its writing end is the caller's alone and closes when the caller dies
        self._result = connection.Connection(result, writable=False)
        self._open.callback(self._result.close)
        self._lifeline = self._open.enter_context(os.fdopen(lifeline, "wb"))
        try:
            self._status, data = _SERVER.connect_to_new_process([result_end, lifeline_end, log])
            self._open.callback(os.close, self._status)
            with os.fdopen(data, "wb") as sink:
                sink.write(pickle.dumps({"sys_path": sys.path, "dir": str(Path.cwd())}) + job)
        except (OSError, EOFError) as error:
            self._open.close()
            problem = f"an isolated child could not be started ({error})"
            raise InfrastructureError(problem, None, "See whether memory or processes ran out") from error
        finally:
            os.close(result_end)
            os.close(lifeline_end)

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if not self._exited:
                self._kill()
        finally:
            self._open.close()

    def _kill(self) -> None:
        if self._pid is None and connection.wait([self._status], _DEAD_S):
            self._pid = self._read_status()
        if self._pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)
        self._lifeline.close()  # kills a child, too, that has no group yet, or whose server has yet to fork it
        if self._pid is not None:
            connection.wait([self._status], _DEAD_S)
            _until(lambda: not _group_runs(self._pid), _DEAD_S)

    def wait(self, name: str, deadline_s: float, stop: Stop | None) -> tuple[int | None, bytes | None]:
        """Exit code (None: the server died) and the pickled outcome (None: there is none)."""
        end = time.monotonic() + deadline_s
        message, code = None, None
        sources: list[Any] = [self._result, self._status]
        while not self._exited:
            reason = stop() if stop is not None else None
            if reason:
                raise StoppedError(reason, name)
            remaining = end - time.monotonic()
            if remaining <= 0:
                raise DeadlineError(f"took longer than {deadline_s:g} s and was ended", name, "Raise its deadline")
            for source in connection.wait(sources, min(remaining, _POLL_S)):
                if source is self._result:
                    sources.remove(source)  # one message; end of file when it dies without one
                    with suppress(EOFError):
                        message = self._result.recv_bytes()
                elif self._pid is None:
                    self._pid = self._read_status()
                    self._exited = self._pid is None
                else:
                    code = self._read_status()
                    self._exited = code is not None
                    if code is None:  # the server died under a living child: do not leave that to itself
                        return None, None
        if message is None and self._result in sources and self._result.poll():
            with suppress(EOFError):
                message = self._result.recv_bytes()
        return code, message

    def _read_status(self) -> int | None:
        try:
            return forkserver.read_signed(self._status)
        except (EOFError, OSError):
            return None


@dataclass(frozen=True)
class _Job:
    """The child's side. The server's child unpickles it and calls `_bootstrap`, as multiprocessing names it."""

    call: bytes
    owner: str | None

    def _bootstrap(self, _sentinel: int) -> int:
        result, lifeline, log = forkserver._forkserver.get_inherited_fds() or (-1, -1, -1)
        for descriptor in (result, lifeline, log):
            os.set_inheritable(descriptor, False)
        os.setsid()
        _die_with(lifeline)
        for output in (1, 2):
            os.dup2(log, output)
        faulthandler.enable(2)  # an abort in C tells in the log which Python called it
        if self.owner is not None:
            os.environ[OWNER_VARIABLE] = self.owner
        message = self._outcome()
        connection.Connection(result, readable=False).send_bytes(message)
        sys.stdout.flush()
        sys.stderr.flush()
        return 0

    def _outcome(self) -> bytes:
        try:
            function, args, kwargs = pickle.loads(self.call)
            return pickle.dumps((True, function(*args, **kwargs)))
        except Exception as error:  # noqa: BLE001 - raised again in the caller
            story = traceback.format_exc()
            error.add_note(f"In the isolated child:\n{story}")
            try:
                message = pickle.dumps((False, error.with_traceback(None)))
                pickle.loads(message)
            except Exception:  # noqa: BLE001 - an exception that does not pickle goes as text
                message = pickle.dumps((False, ProgramError(f"raised {error!r}", None, story)))
            return message


def _die_with(lifeline: int) -> None:
    """Have the kernel kill this process as soon as nobody holds the other end of a pipe any more.

    A signal, not a thread that waits: casacore and AOFlagger keep the interpreter's lock for minutes. Nor a
    parent-death signal: the parent is the server.
    """
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()
    poll.register(lifeline)
    if poll.poll(0):  # it closed before we asked
        os._exit(errno.EPIPE)
