"""supervisord, which keeps the parts of `orca up` alive: its configuration, its start, and what it is asked."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ProtocolError, ServerProxy, Transport

import psutil

from orca import procfs
from orca.cluster.machine.services import Service
from orca.cluster.machine.standing import KINDS, MARK, write_private
from orca.errors import InfrastructureError
from orca.procfs import marked, wait_until

START_S = 20.0
QUESTION_S = 2.0
KIND_VARIABLE = "SUPERVISOR_GROUP_NAME"
"""What supervisord puts into the environment of a part: its kind."""
_FOREIGN = ("PREFECT_", "DASK_", "SUPERVISOR_", "RABBITMQ_", "ORCA_")
"""Settings of the caller that are not the parts'."""
_SOCKET = "supervisor.sock"
_LOG = "supervisord.log"

_HEAD = """\
; Written by `orca up`.
[supervisord]
pidfile = {folder}/supervisord.pid
logfile = {folder}/{log}
logfile_maxbytes = 10MB
logfile_backups = 1
childlogdir = {folder}/logs
umask = {umask:03o}

; A path that is short whatever the folder is called: the system allows 108 characters.
[unix_http_server]
file = /proc/self/cwd/{socket}
chmod = 0600

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""
_PROGRAM = """
[program:{name}]
command = {command}
environment = {environment}
directory = {folder}
autostart = {autostart}
autorestart = true
startsecs = 2
; A part that ends at once is tried again after 1 s, 2 s, 3 s and so on.
startretries = 100
stopwaitsecs = {stop_s:.0f}
killasgroup = true
redirect_stderr = true
stdout_logfile = {folder}/logs/{name}.log
stdout_logfile_maxbytes = 10MB
stdout_logfile_backups = 2
"""
_GROUP = """
[group:{kind}]
programs = {programs}
priority = {priority}
"""


def write_configuration(folder: Path, services: Sequence[Service]) -> Path:
    """Write supervisord's file, which may hold a database's password: nobody else can read it."""
    os.umask(umask := os.umask(0o077))
    shown = _plain(str(folder))
    sections = [_HEAD.format(folder=shown, log=_LOG, socket=_SOCKET, umask=umask)]
    for service in services:
        command = _plain(shlex.join(service.part.argv))
        environment = ",".join(f"{name}={_quoted(value)}" for name, value in service.part.environment.items())
        sections.append(
            _PROGRAM.format(
                name=service.part.name,
                command=command,
                environment=environment,
                folder=shown,
                autostart=str(service.autostart).lower(),
                stop_s=service.stop_s,
            )
        )
    for priority, kind in enumerate(KINDS):
        if names := [service.part.name for service in services if service.kind == kind]:
            sections.append(_GROUP.format(kind=kind, programs=",".join(names), priority=priority))
    path = folder / "supervisord.conf"
    write_private(path, "".join(sections))
    return path


def _plain(text: str) -> str:
    """As supervisord reads it: a % begins the name of something to be filled in, and " ;" a comment."""
    if "\n" in text or " ;" in text:
        raise InfrastructureError("a command or a folder with a line's end or a semicolon cannot be supervised", text)
    return text.replace("%", "%%")


def _quoted(value: str) -> str:
    mark = "'" if '"' in value else '"'
    if mark in value:
        raise InfrastructureError("an environment variable with both kinds of quotes cannot be passed on", value)
    return f"{mark}{_plain(value)}{mark}"


def start(folder: Path, configuration: Path) -> tuple[int, float]:
    """Start supervisord, and with it all parts that start by themselves; returns its process, by number and time.

    Raises
    ------
    InfrastructureError
        It does not start.
    """
    (folder / "logs").mkdir(exist_ok=True)
    (folder / _LOG).unlink(missing_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(configuration)]
    began = subprocess.run(
        command,
        cwd=folder,
        env={**kept, MARK: str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if began.returncode:
        raise InfrastructureError(f"supervisord did not start: {began.stdout}{began.stderr}".strip(), configuration)
    if not wait_until(lambda: _pid(folder) is not None, START_S):
        raise InfrastructureError("supervisord does not answer", folder / _LOG, "Its log may say why")
    pid = _pid(folder) or 0
    return pid, psutil.Process(pid).create_time()


def _pid(folder: Path) -> int | None:
    try:
        with connected(folder) as supervisor:
            return int(str(supervisor.getPID()))
    except InfrastructureError:
        return None


@contextmanager
def connected(folder: Path, patience_s: float = QUESTION_S) -> Iterator[Any]:
    """The functions of supervisord's XML-RPC interface, https://supervisord.org/api.html.

    Raises
    ------
    InfrastructureError
        It does not answer, or refuses.
    """
    descriptor = None
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        path = f"/proc/self/fd/{descriptor}/{_SOCKET}"
        with ServerProxy("http://localhost", transport=_Transport(path, patience_s), allow_none=True) as proxy:
            yield proxy.supervisor
    except Fault as error:
        raise InfrastructureError(f"supervisord refused: {error.faultString}", folder / _LOG) from error
    except (OSError, ProtocolError) as error:
        raise InfrastructureError("supervisord does not answer", folder / _LOG, "Run `orca up`") from error
    finally:
        if descriptor is not None:
            os.close(descriptor)


class _Transport(Transport):
    def __init__(self, path: str, patience_s: float) -> None:
        super().__init__()
        self._path, self._patience_s = path, patience_s

    def make_connection(self, host: Any) -> HTTPConnection:
        return _Connection(self._path, self._patience_s)


class _Connection(HTTPConnection):
    def __init__(self, path: str, patience_s: float) -> None:
        super().__init__("localhost", timeout=patience_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def adapt(folder: Path) -> list[str]:
    """Have a running supervisord do what its file says now; returns the kinds of parts that had to be started anew.

    Flow workers are left to `start_kind`.
    """
    with connected(folder, patience_s=120.0) as supervisor:
        [[added, changed, removed]] = supervisor.reloadConfig()
        for kind in (*removed, *changed):
            supervisor.stopProcessGroup(kind)
            supervisor.removeProcessGroup(kind)
        for kind in (*changed, *added):
            supervisor.addProcessGroup(kind)
    for kind in KINDS[:-1]:
        start_kind(folder, kind)
    return [*changed, *added]


def start_kind(folder: Path, kind: str) -> None:
    """Start those parts of a kind that neither run nor wait for their next start."""
    with connected(folder) as supervisor:
        for part in supervisor.getAllProcessInfo():
            if part["group"] == kind and part["statename"] in ("STOPPED", "EXITED", "FATAL", "UNKNOWN"):
                supervisor.startProcess(f"{kind}:{part['name']}", False)


def restarts(folder: Path) -> Counter[str]:
    """How often each part was started again, by supervisord's own log."""
    try:
        text = (folder / _LOG).read_text(errors="replace")
    except OSError:
        return Counter()
    return Counter({name: n - 1 for name, n in Counter(re.findall(r"INFO spawned: '(.+?)' with pid", text)).items()})


def end_processes(
    folder: Path, kinds: Iterable[str | None], *, session: int | None = None, patience_s: float = 10.0
) -> list[int]:
    """End what supervisord left behind, kind after kind, politely first; returns the numbers of what was ended.

    Only processes of this user that carry the mark of this folder are touched.

    Parameters
    ----------
    folder : Path
    kinds : iterable of str or None
        None: all that is left, and what it started.
    session : int, optional
        Only processes of this session: flow runs have each their own.
    patience_s : float
        Before what does not end is killed.
    """
    ended: list[int] = []
    for kind in kinds:
        chosen = set(marked(MARK, str(folder)))
        if kind is not None:
            chosen &= set(marked(KIND_VARIABLE, kind))
        if session is not None:
            chosen &= {pid for pid, _, its_session in procfs.processes() if its_session == session}
        left = {pid: started for pid in chosen if (started := procfs.start_ticks(pid)) is not None}
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            wait_until(lambda: not _running(left), patience_s)  # noqa: B023 - called at once
            ended += [pid for pid in left if pid not in _running(left)]
            left = _running(left)
    return ended


def _running(processes: dict[int, int]) -> dict[int, int]:
    """Those that have not ended; a zombie has, even where nobody takes note of it."""
    return {pid: started for pid, started in processes.items() if procfs.start_ticks(pid) == started}
