"""Prefect's server as ORCA runs it: Prefect's own application, started with less work and memory."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI


def create_app() -> FastAPI:
    """Prefect's application, for uvicorn.

    What is imported lives as long as the process: looking for garbage in it takes a sixth of the time that it takes to
    start. Packages that only flows and workers need, Dask above all, are not imported.
    """
    gc.disable()
    from prefect._internal.plugins import collections
    from prefect.server.api.server import create_app as create_prefect

    from orca.cluster.sqlite_turns import take_turns

    collections._collections = {}  # "all packages that extend Prefect are loaded"
    take_turns()
    app = create_prefect()
    gc.freeze()
    gc.enable()
    return app
