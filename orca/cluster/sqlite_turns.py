"""Prefect's server on SQLite, so that many may use it at once: each transaction waits for its turn.

Seen with Prefect 3.8.8 as it is, when several flow runs write at once: the server stands still for half a minute or a
minute and says "QueuePool limit", "database is locked" and time-outs. Prefect opens at most 15 connections to SQLite,
and begins most of its transactions without saying that they will write. Here a transaction waits for its turn before it
takes a connection, and says that it writes; there are 64 connections. Both were changed together, so which of them
mends it is not known. PostgreSQL has no part in this.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

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


def take_turns() -> None:
    """Have the server of this process do so; to be called before it opens its database."""
    configurations.AioSqliteConfiguration.begin_transaction = begin_in_turn  # type: ignore[method-assign]
    configurations.AioSqliteConfiguration.setup_sqlite = set_up  # type: ignore[assignment, method-assign]
    configurations.create_async_engine = partial(
        configurations.create_async_engine, pool_size=CONNECTIONS, pool_use_lifo=True
    )
