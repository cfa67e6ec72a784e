"""The process from which flow runs are forked: it has imported Prefect and the flows, and does nothing else.

`python -m orca.cluster.warm.server FD` is started by a warm worker and hears from it over a socket: one line of JSON a
flow run, answered by one line. It has a single thread, since a process with several cannot be forked safely. The flow
runs are its children; it writes down how each ended. When its worker is gone it stays until they have ended.
"""

from __future__ import annotations

import gc
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from orca.cluster.warm import records as warm_records
from orca.cluster.warm.quicker import end_at_once, observe_beside, share_tls_contexts
from orca.cluster.warm.records import Process, Record

MODULES = (
    "prefect.flow_engine",
    "prefect.flows",
    "prefect.deployments.steps.core",
    "prefect.events.clients",
    "prefect_dask",
    "distributed",
    "anyio._backends._asyncio",
    "rich._emoji_codes",
)
"""What every flow run needs, besides its flow; the last two are imported by others when they are first used."""
CANCEL, RELEASE = signal.SIGUSR1, signal.SIGUSR2
"""What a flow run's process is sent: end as cancelled; end and leave the state to the worker."""


@dataclass(frozen=True)
class Job:
    """A flow run to start.

    Attributes
    ----------
    flow_run_id : str
    environment : all of the new process's environment
    cwd : its working folder
    pool, worker, keeper, host, folder : see `Record`
    """

    flow_run_id: str
    environment: dict[str, str]
    cwd: str
    pool: str
    worker: str
    keeper: dict[str, Any]
    host: str
    folder: str

    def record(self, pid: int) -> Record:
        """Its record, once it has a process."""
        keeper = Process(**self.keeper)
        return Record(self.flow_run_id, self.host, Process.of(pid), self.pool, self.worker, keeper, Path(self.folder))


class Server:
    """Forks and reaps; `serve` returns in every child with its job, and at the end without one."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.children: dict[int, Record] = {}
        self.woken, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # its end is that of its worker and its children
            signal.signal(ignored, signal.SIG_IGN)

    def serve(self) -> tuple[Job, Path] | None:
        """Fork a flow run for every request, until the worker is gone and all flow runs have ended."""
        lines = b""
        sources: list[Any] = [self.channel, self.woken]
        while self.channel in sources or self.children:
            ready = select.select(sources, [], [])[0]
            if self.woken in ready:
                with suppress(BlockingIOError):
                    os.read(self.woken, 4096)
                self._reap()
            if self.channel in ready:
                received = self._receive()
                if not received:
                    sources.remove(self.channel)
                lines += received
            while b"\n" in lines:
                line, lines = lines.split(b"\n", 1)
                if started := self._start(Job(**json.loads(line))):
                    return started
        return None

    def _receive(self) -> bytes:
        try:
            return self.channel.recv(1 << 20)
        except ConnectionError:
            return b""

    def _start(self, job: Job) -> tuple[Job, Path] | None:
        """Fork; the job and its log in the child."""
        before = warm_records.read(Path(job.folder) / f"{job.flow_run_id}.json")
        if before is not None and before.process.alive():
            self._answer({"error": f"it runs already, as process {before.process.pid}"})
            return None
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            self.channel.close()
            return job, Path(job.folder) / f"{job.flow_run_id}.{os.getpid()}.log"
        self.children[pid] = job.record(pid).write()
        self._answer({"pid": pid})
        return None

    def _answer(self, message: dict[str, Any]) -> None:
        with suppress(OSError):  # the worker may be gone: the run goes on, and the next worker finds its record
            self.channel.sendall(json.dumps(message).encode() + b"\n")

    def _reap(self) -> None:
        for pid in list(self.children):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                exit_path = self.children.pop(pid).exit_path
                part = exit_path.with_suffix(".part")
                part.write_text(str(os.waitstatus_to_exitcode(status)))
                part.replace(exit_path)


def import_flows() -> None:
    """Import Prefect and all flows; one that cannot be imported fails in its own runs, and there alone."""
    import flows

    for name in (*MODULES, *(f"flows.{module.name}" for module in pkgutil.iter_modules(flows.__path__))):
        try:
            import_module(name)
        except Exception as error:  # noqa: BLE001 - whatever a module may raise
            sys.stderr.write(f"{name} cannot be imported: {error!r}\n")


def become(job: Job, log: Path) -> None:
    """Make this fork the process of a flow run: session, output, environment, signals, settings."""
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.close(output)
    settings = _settings(os.environ)
    os.environ.clear()
    os.environ.update(job.environment)
    os.chdir(job.cwd)
    sys.path.insert(0, job.cwd)
    for name in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(name, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(CANCEL, _end_by)
    signal.signal(RELEASE, _end_by)
    if "numpy" in sys.modules:  # else all runs draw the same numbers
        sys.modules["numpy"].random.seed()
    warm_records.beat(Path(job.folder) / f"{job.flow_run_id}.json")
    if settings != _settings(job.environment):
        from prefect.context import refresh_global_settings_context
        from prefect.logging.configuration import setup_logging

        refresh_global_settings_context()
        setup_logging(incremental=False)


def _settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Prefect's settings in an environment; names with two underscores tell which run it is."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith("PREFECT_") and not name.startswith("PREFECT__")
    }


def _end_by(number: int, _frame: Any) -> None:
    """End this flow run as Prefect's own runner would have it do, which tells over a socket what a signal means."""
    from prefect._internal import control_listener

    control_listener._set_intent("cancel" if number == CANCEL else "relinquish")
    os.kill(os.getpid(), signal.SIGTERM)


def run_engine(flow_run_id: str) -> None:
    """Run the flow run as `python -m prefect.engine` does; ends with SystemExit where that has an exit status."""
    if entrypoint := os.environ.get("PREFECT__FLOW_ENTRYPOINT"):
        os.environ["PREFECT__FLOW_ENTRYPOINT"] = imported(entrypoint)
    sys.argv = ["prefect.engine", flow_run_id]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*found in sys.modules", category=RuntimeWarning)
        runpy.run_module("prefect.engine", run_name="__main__")


def imported(entrypoint: str) -> str:
    """The module that was imported from the file of an entrypoint `file.py:flow`, as `module.flow`, if there is one."""
    file, colon, name = entrypoint.rpartition(":")
    if not colon:
        return entrypoint
    for module, loaded in list(sys.modules.items()):
        if module != "__main__" and getattr(loaded, "__file__", None) == file:
            return f"{module}.{name}"
    return entrypoint


def main() -> None:
    """Serve; in a child: run the flow and end as any script does, with what Prefect has to send at its end."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    gc.disable()  # what is imported stays: looking for garbage in it takes a sixth of the time
    import_flows()
    share_tls_contexts()
    observe_beside()
    end_at_once()
    gc.freeze()  # else the first collection in a fork copies all that it shares with this process
    gc.enable()
    if started := Server(channel).serve():
        job, log = started
        become(job, log)
        run_engine(job.flow_run_id)


if __name__ == "__main__":
    main()
