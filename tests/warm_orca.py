"""`orca` in a process that is forked from one that has imported it: the same command, with two CPU seconds less to do.

Prefect and Dask read the environment when they are imported: it is read again as soon as a session has set it.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

IMPORTED = (
    *("orca.cli.run", "orca.cli.progress", "orca.cluster.session", "orca.cluster.local", "orca.cluster.gather"),
    *("flows.bandpass", "flows.cosmology", "flows.imaging", "flows.reduction", "prefect.flow_engine"),
    *("prefect.task_engine", "prefect_dask", "rich.table", "rich.markup"),
)


@dataclass
class WarmOrca:
    """The process from which commands are forked, started with the first of them; it ends with this one."""

    parent: subprocess.Popen[str] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, words: list[str], environment: dict[str, str], cwd: Path, out: Path, err: Path, wait_s: float) -> int:
        """Exit status of `orca WORDS`, whose output goes to two files; one command at a time.

        Raises
        ------
        subprocess.TimeoutExpired
            It took longer than `wait_s`, and was killed.
        """
        request = {"words": words, "environment": environment, "cwd": str(cwd), "out": str(out), "err": str(err)}
        with self.lock:
            if self.parent is None:
                command = [sys.executable, __file__]
                self.parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert self.parent.stdin is not None
            assert self.parent.stdout is not None
            self.parent.stdin.write(json.dumps([wait_s, request]) + "\n")
            self.parent.stdin.flush()
            status, late = json.loads(self.parent.stdout.readline())
        if late:
            raise subprocess.TimeoutExpired(["orca", *words], wait_s)
        return int(status)

    def end(self) -> None:
        """End the process; a later command starts another."""
        if self.parent is not None:
            self.parent.communicate()
        self.parent = None


def serve() -> None:
    """Import; then read a request a line, fork, and tell how the child ended and whether it had to be killed."""
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()
    for line in sys.stdin:
        wait_s, request = json.loads(line)
        if (child := os.fork()) == 0:
            become(**request)
        late = not select.select([ending := os.pidfd_open(child)], [], [], wait_s)[0]
        os.close(ending)
        if late:
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(json.dumps([status, late]) + "\n")
        sys.stdout.flush()


def become(words: list[str], environment: dict[str, str], cwd: str, out: str, err: str) -> NoReturn:
    """Be the process of `orca WORDS`."""
    for number, name in enumerate((os.devnull, out, err)):
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv[:] = ["orca", *words]
    from orca.cli import main
    from orca.cluster.session import Session

    wait = Session.wait

    def wait_and_read(session: Session) -> None:
        read_environment()
        wait(session)

    Session.wait = wait_and_read  # type: ignore[method-assign]
    status = 1
    try:
        main()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(status)


def read_environment() -> None:
    """What importing Dask and Prefect does with it."""
    import dask
    from prefect.context import refresh_global_settings_context
    from prefect.logging.configuration import setup_logging

    dask.config.refresh()
    refresh_global_settings_context()
    setup_logging(incremental=False)


if __name__ == "__main__":
    serve()
