"""What `orca up` keeps running on this machine: where it is written down, and how others find its parts.

`<paths.data>/run/up.json` holds addresses with their passwords, so nobody but the owner can read it. Ports and
passwords stay from one `orca up` to the next, and a part that is started again has its old address.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from orca.config import Config
from orca.config.secret import SecretUri
from orca.disk import make_folder
from orca.errors import InfrastructureError

MARK = "ORCA_STANDING"
"""Environment variable of all that `orca up` started, and of what that started: the folder of `run_folder`."""
KINDS = ("redis", "epmd", "rabbitmq", "server", "scheduler", "workers", "trigger", "flow-workers", "metrics")
"""Kinds of parts, in the order in which they start; they end the other way round."""


@dataclass(frozen=True)
class Known:
    """A part that should run.

    Attributes
    ----------
    name : str
    kind : str
        One of `KINDS`.
    address : str
        With its password, where it has one; empty for one that nobody connects to.
    host : str
        Node that it belongs to.
    pool : str
        Prefect's work pool that it serves.
    """

    name: str
    kind: str
    address: str = field(default="", repr=False)
    host: str = ""
    pool: str = ""


@dataclass(frozen=True)
class Standing:
    """What `orca up` wrote down.

    Attributes
    ----------
    folder : Path
        Of all its files.
    ports, passwords : dict
    parts : tuple of Known
    left_out : dict
        Kind -> why it does not run.
    pools : str
        The work_pools.yaml in force.
    cluster : str
        The same where it was given to `orca up --cluster`, else empty.
    supervisor : tuple of int and float, or None
        Number and creation time of the process that keeps the parts alive.
    """

    folder: Path
    ports: dict[str, int]
    passwords: dict[str, str] = field(repr=False)
    parts: tuple[Known, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    pools: str = ""
    cluster: str = ""
    supervisor: tuple[int, float] | None = None

    def address(self, kind: str) -> str | None:
        """Where a part that there is once is found; None where it does not run."""
        return next((part.address for part in self.parts if part.kind == kind), None)

    def supervised(self) -> bool:
        """Whether the process that keeps the parts alive is there."""
        if self.supervisor is None:
            return False
        pid, created = self.supervisor
        try:
            process = psutil.Process(pid)
            return abs(process.create_time() - created) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def run_folder(settings: Config) -> Path:
    """Where everything of `orca up` is."""
    return (settings.paths.data / "run").resolve()


def read(folder: Path) -> Standing | None:
    """What is written down; None where nothing is.

    Raises
    ------
    InfrastructureError
        The file is broken.
    """
    path = folder / "up.json"
    try:
        values = json.loads(path.read_text())
        supervisor = values.pop("supervisor")
        parts = tuple(Known(**part) for part in values.pop("parts"))
        return Standing(folder=folder, parts=parts, supervisor=supervisor and (supervisor[0], supervisor[1]), **values)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        remedy = "Run `orca down`, remove it, and run `orca up` again"
        raise InfrastructureError(f"cannot be read ({type(error).__name__})", path, remedy) from error


def cluster_file(settings: Config) -> Path | None:
    """The work_pools.yaml that was given to `orca up --cluster` for what runs now."""
    found = read(run_folder(settings))
    return Path(found.cluster) if found is not None and found.supervised() and found.cluster else None


def write(standing: Standing) -> None:
    """Write it down, for the owner's eyes only."""
    values = asdict(standing)
    del values["folder"]
    write_private(standing.folder / "up.json", json.dumps(values, indent=1))


def write_private(path: Path, text: str) -> None:
    """Write a file that nobody else can read, in one step."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    part.replace(path)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One `orca up` or `orca down` of this folder at a time."""
    make_folder(folder)
    folder.chmod(0o700)
    with (folder / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def standing(settings: Config) -> Standing | None:
    """What runs on this machine because of `orca up`; None when nothing does."""
    found = read(run_folder(settings))
    return found if found is not None and found.supervised() else None


def _address(settings: Config, kind: str) -> str | None:
    found = standing(settings)
    return None if found is None else found.address(kind)


def dask_address(settings: Config) -> str | None:
    """Scheduler of the configuration, else of `orca up`; None where there is none."""
    return settings.dask.address or _address(settings, "scheduler")


def api_url(settings: Config) -> str | None:
    """Prefect server of the configuration, else of `orca up`; None where there is none."""
    if settings.prefect.api_url is not None:
        return settings.prefect.api_url.reveal()
    return _address(settings, "server")


def broker_uri(settings: Config) -> SecretUri | None:
    """RabbitMQ of the configuration, else of `orca up`; None where there is none."""
    return settings.queue.broker_uri or _secret(_address(settings, "rabbitmq"))


def management_uri(settings: Config) -> SecretUri | None:
    """Management API of RabbitMQ: of the configuration, else where that of `broker_uri` has to be; None without one.

    It carries no user unless the configuration names one: those of `broker_uri` are meant.
    """
    queue, found = settings.queue, standing(settings)
    if queue.management_uri is not None or queue.broker_uri is not None or found is None:
        return queue.management_uri or (None if queue.broker_uri is None else _beside(queue.broker_uri))
    address, port = found.address("rabbitmq"), found.ports.get("rabbitmq-management")
    return None if address is None or port is None else _beside(SecretUri(address), port)


def _beside(broker: SecretUri, port: int | None = None) -> SecretUri:
    """At RabbitMQ's usual port unless told: a password that goes to the broker by TLS goes nowhere without."""
    parts = urlsplit(broker.reveal())
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    scheme, usual = ("https", 15671) if broker.scheme == "amqps" else ("http", 15672)
    return SecretUri(f"{scheme}://{host}:{port or usual}")


def result_backend_uri(settings: Config) -> SecretUri | None:
    """Redis of the configuration, else of `orca up`; None where there is none."""
    return settings.queue.result_backend_uri or _secret(_address(settings, "redis"))


def _secret(address: str | None) -> SecretUri | None:
    return None if address is None else SecretUri(address)
