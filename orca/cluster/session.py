"""What a flow needs around it when a person runs it: a Prefect server and a Dask cluster, both got ready at once.

On a cluster the configuration names both. On one machine those of `orca up` are used; without them the server is
started when there is none, and left for the next call, and the Dask cluster lives as long as the session.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from orca.cluster import server
from orca.cluster.machine.standing import api_url, dask_address
from orca.config import Config

CONSOLE_LOG_LEVEL = "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"


@dataclass(frozen=True)
class Session:
    """A server and a cluster that get ready while the caller imports what it runs.

    Attributes
    ----------
    api_url : str
        Of the Prefect server; it is in the environment of this process and of what it starts.
    server : Server or None
        The server of this machine, if that is what is used.
    started_server : bool
        Whether it was started by this session.
    address : str
        Of the Dask scheduler; its workers may still be on their way.
    """

    api_url: str
    server: server.Server | None
    started_server: bool
    address: str

    @property
    def ui_url(self) -> str:
        """Where Prefect's web page is."""
        return self.api_url.removesuffix("/").removesuffix("/api")

    def wait(self) -> None:
        """Return when the server answers."""
        if self.server is not None:
            server.wait_until_healthy(self.server)


@contextmanager
def open_session(config: Config, *, preload: Sequence[str], quiet: bool = True) -> Iterator[Session]:
    """Start what has to be started; to be entered before Prefect is imported.

    Parameters
    ----------
    config : Config
    preload : module names
        Imported by the workers of a cluster on this machine before their first task.
    quiet : bool
        Keep Prefect's log off the terminal (its page has it anyway), and Dask's.
    """
    own: server.Server | None = None
    started = False
    if config.prefect.api_url is None and "PREFECT_API_URL" in os.environ:
        url = os.environ["PREFECT_API_URL"]
    elif (standing := api_url(config)) is not None:
        url = standing
    else:
        own, started = server.ensure(config.prefect.home, config.prefect.database, config.retention.prefect_days)
        url = own.url
    os.environ.update(server.client_environment(config.prefect.home, url, config.network.tls))
    if quiet:
        os.environ.setdefault(CONSOLE_LOG_LEVEL, "CRITICAL")
        os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "critical")  # read by distributed here and in the workers
        import distributed  # noqa: F401 - it sets levels of its own when it is imported

        for name in ("distributed", "tornado.application", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)

    with ExitStack() as stack:
        address = dask_address(config) or stack.enter_context(_own_cluster(config, preload))
        yield Session(url, own, started, address)


def _own_cluster(config: Config, preload: Sequence[str]) -> AbstractContextManager[str]:
    from orca.cluster.local import local_cluster  # here, so that the server starts before this import

    return local_cluster(
        config.paths.scratch / "dask",
        workers=config.dask.workers,
        threads=config.dask.threads,
        memory_gb=config.dask.memory_gb,
        preload=preload,
    )
