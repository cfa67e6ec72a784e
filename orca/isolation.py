"""Functions in a process of their own: a crash, an abort or a hang of it is an error here and no more.

casacore aborts the process that meets a full disk, and a worker must outlive that.
"""

from __future__ import annotations

import errno
import faulthandler
import fcntl
import os
import pickle
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any, TypeVar

from orca.endings import Log, failure, with_tail
from orca.errors import (
    DeadlineError,
    InfrastructureError,
    InputError,
    OrcaError,
    ProgramError,
    StoppedError,
    StorageError,
)
from orca.process import OWNER_VARIABLE, POLL_S, Stop
from orca.procfs import DEAD_S, wait_for_end

T = TypeVar("T")

# A server of its own, apart from the one that multiprocessing shares between all of a process's libraries: what it has
# imported is ours to say, and its children do not import the caller's main script again, as multiprocessing.Process
# would have them do (a second for a Dask worker; the whole script where it has no __name__ guard).
_SERVER = forkserver.ForkServer()
_ALWAYS = (__name__, "numpy.ma")  # NumPy imports the latter when np.unique is first called: 24 ms in every child
_SERVER.set_forkserver_preload(list(_ALWAYS))
_TOLD = b"told "  # a pickle, as an outcome is one, begins otherwise
_CALLER: list[connection.Connection] = []
"""In an isolated child, while its function runs: to whom it belongs."""


def _forget_server() -> None:
    vars(_SERVER).update(vars(forkserver.ForkServer()))
    _SERVER.set_forkserver_preload(list(_ALWAYS))


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
    _SERVER.set_forkserver_preload([*_ALWAYS, *modules])
    _SERVER.ensure_running()


def tell(text: str) -> None:
    """Say, in an isolated function, how far it is: `listen` of `run_isolated` hears it. Elsewhere nobody does."""
    for caller in _CALLER:
        caller.send_bytes(_TOLD + text.encode())


def run_isolated(
    function: Callable[..., T],
    *args: Any,
    deadline_s: float,
    stop: Stop | None = None,
    listen: Callable[[str], None] | None = None,
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
    listen : callable, optional
        Called with what the function says by `tell`.
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
        sink = stack.enter_context(Log(log, name))
        child = stack.enter_context(_Child(job, sink.fileno()))
        code, message = child.wait(name, deadline_s, stop, listen)
        tail = sink.tail()
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
        error = failure(name, code, tail, log, (disk,))
        if code == -signal.SIGKILL and not isinstance(error, StorageError):
            error = InfrastructureError(error.problem, name, error.remedy)
    raise with_tail(error, tail)


def _pickled_call(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    remedy = "Isolate a function at the top of a module that can be imported, with arguments that pickle"
    if getattr(function, "__module__", None) == "__main__":
        raise InputError("is part of the main script, which a child does not import", name, remedy)
    try:
        return pickle.dumps((function, args, kwargs))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise InputError(f"cannot be sent to a child ({error})", name, remedy) from error


def _ask_for_a_child(descriptors: list[int]) -> tuple[int, int]:
    """Have the server fork; it is started where it is gone.

    One that was killed a moment ago passes for running until the kernel has taken it apart, though nobody listens.
    """
    patience = time.monotonic() + DEAD_S
    while True:
        try:
            status, data = _SERVER.connect_to_new_process(descriptors)
        except ConnectionRefusedError:
            if time.monotonic() > patience:
                raise
            time.sleep(0.01)
        else:
            return status, data


class _Child:
    """The caller's side of an isolated child."""

    def __init__(self, job: bytes, log: int) -> None:
        self._pid: int | None = None
        self._exited = False
        self._outcome: bytes | None = None
        self._open = ExitStack()
        result, result_end = os.pipe()
        lifeline_end, lifeline = os.pipe()  # its writing end is the caller's alone and closes when the caller dies
        self._result = connection.Connection(result, writable=False)
        self._open.callback(self._result.close)
        self._lifeline = self._open.enter_context(os.fdopen(lifeline, "wb"))
        try:
            self._status, data = _ask_for_a_child([result_end, lifeline_end, log])
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
        if self._pid is None and connection.wait([self._status], DEAD_S):
            self._pid = self._read_status()
        if self._pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)
        self._lifeline.close()  # kills a child, too, that has no group yet, or whose server has yet to fork it
        if self._pid is not None:
            connection.wait([self._status], DEAD_S)
            wait_for_end(self._pid)

    def wait(
        self, name: str, deadline_s: float, stop: Stop | None, listen: Callable[[str], None] | None
    ) -> tuple[int | None, bytes | None]:
        """Exit code (None: the server died) and the pickled outcome (None: there is none)."""
        end = time.monotonic() + deadline_s
        code = None
        sources: list[Any] = [self._result, self._status]
        while not self._exited:
            reason = stop() if stop is not None else None
            if reason:
                raise StoppedError(reason, name)
            remaining = end - time.monotonic()
            if remaining <= 0:
                raise DeadlineError(f"took longer than {deadline_s:g} s and was ended", name, "Raise its deadline")
            for source in connection.wait(sources, min(remaining, POLL_S)):
                if source is self._result:
                    if not self._hear(listen):
                        sources.remove(source)
                elif self._pid is None:
                    self._pid = self._read_status()
                    self._exited = self._pid is None
                else:
                    code = self._read_status()
                    self._exited = code is not None
                    if code is None:  # the server died under a living child: do not leave that to itself
                        return None, None
        while self._result in sources and self._result.poll() and self._hear(listen):
            pass
        return code, self._outcome

    def _hear(self, listen: Callable[[str], None] | None) -> bool:
        """Take a message; False after the last: the outcome, or the end of the file when it dies without one."""
        try:
            message = self._result.recv_bytes()
        except EOFError:
            return False
        if not message.startswith(_TOLD):
            self._outcome = message
            return False
        if listen is not None:
            listen(message.removeprefix(_TOLD).decode())
        return True

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
        _CALLER.append(connection.Connection(result, readable=False))
        message = self._outcome()
        _CALLER.pop().send_bytes(message)
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
                message = pickle.dumps((False, with_tail(ProgramError(f"raised {error!r}"), story)))
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
