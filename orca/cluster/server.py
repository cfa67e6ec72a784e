"""The Prefect server of this machine: found, started when there is none, left for the next call, ended on request.

It listens on the loopback interface only, on a port that the system chose; its database is SQLite in its own folder,
unless the configuration names another. `orca up` starts the same server, supervised (`orca.cluster.machine.services`).
Nothing here imports Prefect, so that the server starts while its client is still being imported.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import shutil
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import psutil

from orca.cluster.ports import free_port
from orca.cluster.server_settings import MEMORY, SERVER_SETTINGS, vacuum
from orca.config.secret import SecretUri
from orca.disk import make_folder
from orca.errors import InfrastructureError
from orca.procfs import wait_until
from orca.products import write_text

START_S = 120.0
"""How long a server may take to answer: a new database alone takes some 15 s on a slow machine."""
DATABASE = "prefect.db"
LOOPBACK = "127.0.0.1"
FACTORY = "orca.cluster.prefect_app:create_app"
QUIET = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
"""No telemetry, ever."""
PATIENT = {"PREFECT_CLIENT_MAX_RETRIES": "8"}
"""Of what runs flows and tasks: it looks for a server that is away for eight minutes, Prefect's client for one."""


@dataclass(frozen=True)
class Server:
    """A Prefect server that runs on this machine."""

    url: str
    pid: int
    created: float
    """Creation time of the process: with the number it names the process for ever."""
    log: str

    @property
    def ui_url(self) -> str:
        """Where the web page is."""
        return self.url.removesuffix("/api")

    def alive(self) -> bool:
        """Whether the process is still there."""
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.created) < 1 and _lives(process)
        except psutil.NoSuchProcess:
            return False

    def healthy(self) -> bool:
        """Whether it answers."""
        return answers(self.url)


def answers(url: str, tls: Path | None = None) -> bool:
    """Whether the server at an address answers; `tls` is the folder of the cluster's certificates."""
    try:
        context = ssl.create_default_context(cafile=tls / "ca.pem") if tls else None
        with urllib.request.urlopen(f"{url}/health", timeout=2, context=context) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):  # the latter where something else listens
        return False


def client_environment(home: Path, url: str, tls: Path | None = None) -> dict[str, str]:
    """Environment that makes Prefect's client use the server at `url`; to be set before Prefect is imported.

    Parameters
    ----------
    home : Path
        Folder of Prefect's own files.
    url : str
    tls : Path, optional
        Folder of the cluster's certificates (`network.tls`).
    """
    trusted = {"PREFECT_API_SSL_CERT_FILE": str(tls / "ca.pem")} if tls and url.startswith("https://") else {}
    return {**QUIET, "PREFECT_HOME": str(home), "PREFECT_API_URL": url, **trusted}


def command(host: str, port: int, tls: Path | None = None) -> list[str]:
    """Command line of a server that listens there; with certificates of this folder, by HTTPS."""
    words = [sys.executable, "-m", "uvicorn", "--factory", FACTORY, "--host", host, "--port", str(port)]
    words += ["--log-level", "warning", "--timeout-keep-alive", "5"]
    return (
        words
        if tls is None
        else [*words, "--ssl-certfile", str(tls / "cert.pem"), "--ssl-keyfile", str(tls / "key.pem")]
    )


def environment(
    home: Path, url: str, database: SecretUri | None = None, keep_days: float | None = None
) -> dict[str, str]:
    """What the environment of a server has to say besides the caller's; holds the database's password.

    Parameters
    ----------
    home : Path
        Folder of its database, unless there is another.
    url : str
        Its address as clients have it.
    database : SecretUri, optional
        PostgreSQL.
    keep_days : float, optional
        For which it keeps flow runs that have ended (`retention.prefect_days`); for ever when not given.
    """
    parts = urllib.parse.urlsplit(url)
    own = {**QUIET, **SERVER_SETTINGS, **vacuum(keep_days), **MEMORY}
    own |= {"PREFECT_HOME": str(home), "PREFECT_LOGGING_SERVER_LEVEL": "WARNING"}
    own |= {"PREFECT_SERVER_API_HOST": str(parts.hostname), "PREFECT_SERVER_API_PORT": str(parts.port)}
    own["PREFECT_SERVER_UI_API_URL"] = url
    if database is not None:
        _, _, rest = database.reveal().partition("://")
        own["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = f"postgresql+asyncpg://{rest}"
    return own


def find(home: Path) -> Server | None:
    """The server that was started with this folder, when its process is still there."""
    try:
        server = Server(**json.loads(_state_file(home).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return _among_processes(home)
    return server if server.alive() else None


def _among_processes(home: Path) -> Server | None:
    """The server of this folder by its environment: where its file is gone or broken, it must not be forgotten."""
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if FACTORY in words and process.environ().get("PREFECT_HOME") == str(home):
                host, port = (words[words.index(option) + 1] for option in ("--host", "--port"))
                scheme = "https" if "--ssl-certfile" in words else "http"
                url, log = f"{scheme}://{host}:{port}/api", str(home / "server.log")
                return Server(url, process.pid, process.create_time(), log)
        except (psutil.Error, ValueError, IndexError):
            continue
    return None


def ensure(home: Path, database: SecretUri | None = None, keep_days: float | None = None) -> tuple[Server, bool]:
    """The server of this folder, started when there is none; and whether it was started now.

    It may not answer yet: `wait_until_healthy` before it is used.
    """
    make_folder(home)
    with _locked(home):
        server = find(home)
        return (server, False) if server is not None else (_start(home, database, keep_days), True)


def wait_until_healthy(server: Server) -> None:
    """Return when the server answers.

    Raises
    ------
    InfrastructureError
        It ended, or does not answer in time; the message names its log.
    """
    deadline = time.monotonic() + START_S
    while not server.healthy():
        if not server.alive():
            raise InfrastructureError("the Prefect server ended while starting", server.log, "Its log says why")
        if time.monotonic() > deadline:
            raise InfrastructureError(
                f"the Prefect server did not answer within {START_S:.0f} s", server.log, "Its log may say why"
            )
        time.sleep(0.05)


def stop(home: Path, patience_s: float = 10.0) -> Server | None:
    """End the server of this folder, if there is one, and return what was ended."""
    if not home.is_dir():
        return None
    with _locked(home):
        server = find(home)
        if server is not None:
            _end(psutil.Process(server.pid), patience_s)
        _state_file(home).unlink(missing_ok=True)
        return server


def make_template() -> Path:
    """Make an empty database once, for new folders to start with: Prefect takes 10 s for each otherwise."""
    template = _template()
    if not template.exists():
        template.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=template.parent) as home:
            settings = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
            settings |= {**QUIET, "PREFECT_HOME": home}
            upgrade = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"]
            subprocess.run(upgrade, env=settings, check=True, stdout=subprocess.DEVNULL)
            made = Path(home) / "template.db"
            with closing(sqlite3.connect(Path(home) / DATABASE)) as full, closing(sqlite3.connect(made)) as copy:
                full.backup(copy)
            made.replace(template)
    return template


def _template() -> Path:
    return Path(sys.prefix) / "share" / "orca" / f"prefect-{version('prefect')}.db"


def prepare_database(home: Path) -> None:
    """Give a new folder the empty database that was made once, if it was."""
    if not (home / DATABASE).exists() and _template().exists():
        part = home / f"{DATABASE}.part"
        shutil.copyfile(_template(), part)
        part.replace(home / DATABASE)


def _start(home: Path, database: SecretUri | None, keep_days: float | None) -> Server:
    if database is None:
        prepare_database(home)
    port = free_port(LOOPBACK)
    url, log = f"http://{LOOPBACK}:{port}/api", home / "server.log"
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    with log.open("ab") as output:
        process = subprocess.Popen(
            command(LOOPBACK, port),
            env=kept | environment(home, url, database, keep_days),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    server = Server(url, process.pid, psutil.Process(process.pid).create_time(), str(log))
    write_text(_state_file(home), json.dumps(asdict(server)))
    return server


def _end(process: psutil.Process, patience_s: float) -> None:
    family = [process, *process.children(recursive=True)]
    process.terminate()
    if wait_until(lambda: not any(map(_lives, family)), patience_s):
        return
    for straggler in filter(_lives, family):
        straggler.kill()
    wait_until(lambda: not any(map(_lives, family)), patience_s)


def _lives(process: psutil.Process) -> bool:
    """Whether a process is there, other than as a zombie whose parent does not look after it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _state_file(home: Path) -> Path:
    return home / "server.json"


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """One start or stop at a time, over all processes of this machine."""
    with (home / "server.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    make_template()
