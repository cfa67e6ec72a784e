"""A Redis of a test's own, which may be killed, started again, and be short of memory."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from orca.cluster.ports import free_port
from orca.cluster.security import CA, CERTIFICATE, KEY

PASSWORD = "open-sesame"


class Redis:
    """A server on a free port; it keeps its port when it is started again, and nothing else.

    Parameters
    ----------
    folder : Path
    tls : Path, optional
        Folder of certificates; without them it talks plainly.
    """

    def __init__(self, folder: Path, tls: Path | None = None) -> None:
        self.folder, self.port, self.tls = folder, free_port("127.0.0.1"), tls
        self.process: subprocess.Popen[bytes] | None = None

    def uri(self, database: int = 0) -> str:
        return f"{'rediss' if self.tls else 'redis'}://:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        words = ["redis-server", "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder)]
        words += ["--port", "0", "--tls-port", str(self.port)] if self.tls else ["--port", str(self.port)]
        for option, name in (("ca-cert", CA), ("cert", CERTIFICATE), ("key", KEY)) if self.tls else ():
            words += [f"--tls-{option}-file", f"{self.tls}/{name}"]
        self.process = subprocess.Popen([*words, "--requirepass", PASSWORD], stdout=subprocess.DEVNULL)
        patient = redis.retry.Retry(redis.backoff.ConstantBackoff(0.02), 500)
        with self.client(retry=patient, retry_on_error=[redis.BusyLoadingError]) as client:
            client.ping()

    def kill(self) -> None:
        """As by kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def restart(self) -> None:
        self.kill()
        self.start()

    def client(self, database: int = 0, **options: Any) -> redis.Redis:
        for option, name in (("ca_certs", CA), ("certfile", CERTIFICATE), ("keyfile", KEY)) if self.tls else ():
            options[f"ssl_{option}"] = f"{self.tls}/{name}"
        return redis.Redis.from_url(self.uri(database), **options)


@contextmanager
def standing_redis(folder: Path, tls: Path | None = None) -> Iterator[Redis]:
    """A server that runs, and is ended afterwards."""
    server = Redis(folder, tls)
    server.start()
    try:
        yield server
    finally:
        server.kill()
