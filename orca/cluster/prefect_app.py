"""Prefect's server as ORCA runs it: Prefect's own application, with SQLite that many may use at once.

Prefect opens at most 15 connections to SQLite, and begins most of its transactions without saying that they will write.
Such a transaction fails with "database is locked" where another one has written since it began to read, and 15 that
wait for the one that writes leave it no connection for what else it needs: the server then stands still until a time is
out, half a minute or a minute later. Here a transaction waits for its turn before it takes a connection, and says that
it writes. PostgreSQL has no part in this.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from fastapi import FastAPI
from prefect.server.api.server import create_app as create_prefect
from prefect.server.database import configurations
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

CONNECTIONS = 64
CACHE_KB = 8000
"""SQLite's for each connection, where Prefect lets it grow to 80 MB."""
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
_has_turn: ContextVar[bool] = ContextVar("has_turn", default=False)


@asynccontextmanager
async def begin_in_turn(
    self: Any, session: AsyncSession, with_for_update: bool = False
) -> AsyncIterator[AsyncSessionTransaction]:
    """Begin a transaction that may write at once, when those before it have ended."""
    if _has_turn.get():  # one within another: SQLite would have it wait for itself
        async with _begin(self, session, with_for_update) as transaction:
            yield transaction
        return
    turn = _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())
    async with turn:
        token = _has_turn.set(True)
        try:
            async with _begin(self, session, with_for_update=True) as transaction:
                yield transaction
        finally:
            _has_turn.reset(token)


def set_up(self: Any, connection: Any, record: Any) -> None:
    """Set a new connection up."""
    _set_up(self, connection, record)
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA cache_size = -{CACHE_KB}")
    cursor.close()


_begin = configurations.AioSqliteConfiguration.begin_transaction
_set_up = configurations.AioSqliteConfiguration.setup_sqlite


def create_app() -> FastAPI:
    """Prefect's application, for uvicorn."""
    configurations.AioSqliteConfiguration.begin_transaction = begin_in_turn  # type: ignore[method-assign]
    configurations.AioSqliteConfiguration.setup_sqlite = set_up  # type: ignore[assignment, method-assign]
    configurations.create_async_engine = partial(
        configurations.create_async_engine, pool_size=CONNECTIONS, pool_use_lifo=True
    )
    return create_prefect()
