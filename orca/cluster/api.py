"""The Prefect server that is there, for commands that tell it what it should have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orca.cluster import server
from orca.cluster.machine import standing
from orca.config import Config
from orca.errors import InfrastructureError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


@dataclass(frozen=True)
class Change:
    """What differs between a file and Prefect's server.

    Attributes
    ----------
    name : str
        Of the pool or the deployment.
    what : str
    now, wanted : str
        What the server has, and what the file says.
    """

    name: str
    what: str
    now: str
    wanted: str


def api_url(settings: Config) -> str:
    """Address of the server: the configuration's, that of $PREFECT_API_URL, or that of this machine.

    Raises
    ------
    InfrastructureError
        None is named, and none runs here; or it does not answer.
    """
    if url := os.environ.get("PREFECT_API_URL") if settings.prefect.api_url is None else None:
        return url
    if url := standing.api_url(settings):
        return url
    own = server.find(settings.prefect.home)
    if own is None:
        raise InfrastructureError(
            "no Prefect server runs on this machine",
            remedy="Start it with `orca up`, or name one in the configuration (prefect.api_url)",
        )
    server.wait_until_healthy(own)
    return own.url


@contextmanager
def connected(settings: Config) -> Iterator[SyncPrefectClient]:
    """A client of that server; to be entered before Prefect is imported.

    Raises
    ------
    InfrastructureError
        There is no server, it does not answer, or it refuses what it is asked.
    """
    url = api_url(settings)
    os.environ.update(server.client_environment(settings.prefect.home, url, settings.network.tls))
    from httpx import HTTPError, HTTPStatusError
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True) as client:
            yield client
    except HTTPStatusError as error:
        problem = f"the Prefect server refused: {error.response.status_code} {error.response.text.strip()[:300]}"
        raise InfrastructureError(problem, url) from error
    except HTTPError as error:
        raise InfrastructureError(
            f"the Prefect server does not answer ({type(error).__name__})", url, "See whether it runs"
        ) from error
