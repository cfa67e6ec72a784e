"""Servers for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from standing_redis import Redis, standing_redis


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """One for all tests that leave it well."""
    with standing_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Prefect server, which flows in the process of the tests use."""
    from flows_here import flows_here

    from orca.cluster import server

    home = tmp_path_factory.mktemp("prefect")
    made, _ = server.ensure(home)
    server.wait_until_healthy(made)
    with flows_here(made.url):
        yield made.url
    server.stop(home)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Redis]:
    """One that the test may kill."""
    with standing_redis(tmp_path) as server:
        yield server
