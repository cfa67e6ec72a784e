"""The cache in Redis: every value expires by itself, and what belongs together goes over in one pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)
from redis.retry import Retry

from orca.cache.store import Kept, Room
from orca.errors import CacheAwayError, ConfigError

TIMEOUT_S = 10.0
_SCANNED = 5000
"""Keys that one step of a listing looks at: Redis answers nobody else meanwhile, for about a millisecond."""


class RedisStore:
    """A database of a Redis server.

    Parameters
    ----------
    uri : str
        ``redis://:password@host:6379/1``, or ``rediss://`` for TLS. Nothing connects before something is asked for.

    Raises
    ------
    ConfigError
        It is no such address.
    """

    def __init__(self, uri: str) -> None:
        try:
            # It is SpectrumCache that tries again: it knows what of, and how long.
            self._redis = Redis.from_url(
                uri,
                socket_timeout=TIMEOUT_S,
                socket_connect_timeout=TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),
                decode_responses=False,
            )
        except (ValueError, TypeError) as error:  # whose text may quote the address
            raise ConfigError(
                "the cache has no address of Redis", "cache.uri", "It is like redis://host:6379/1"
            ) from error
        known = self._redis.connection_pool.connection_kwargs
        self.where = f"redis://{known.get('host', 'localhost')}:{known.get('port', 6379)}/{known.get('db', 0)}"

    def put(self, items: Sequence[tuple[str, bytes]], expire_s: float) -> None:
        """See `Store`."""
        milliseconds = max(1, round(expire_s * 1000))
        with self._told(), self._redis.pipeline(transaction=False) as pipe:
            for key, value in items:
                pipe.execute_command("SET", key, value, "PX", milliseconds)
            pipe.execute()

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """See `Store`."""
        with self._told():
            return cast("list[bytes | None]", self._redis.mget(keys)) if keys else []

    def keys(self, begin: str) -> Iterator[str]:
        """See `Store`."""
        seen: set[bytes] = set()  # Redis may name one twice
        cursor: int | str = "0"
        while cursor:
            with self._told():
                answer: Any = self._redis.scan(cursor=int(cursor), match=f"{begin}*", count=_SCANNED)
            cursor, found = answer
            fresh = set(found) - seen
            seen |= fresh
            yield from (key.decode(errors="replace") for key in fresh)

    def delete(self, keys: Sequence[str]) -> int:
        """See `Store`."""
        with self._told():
            return int(self._redis.unlink(*keys)) if keys else 0

    def look(self, keys: Sequence[str]) -> list[Kept | None]:
        """See `Store`."""
        with self._told(), self._redis.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.strlen(key)
                pipe.execute_command("MEMORY", "USAGE", key)
                pipe.pttl(key)
            answers = pipe.execute(raise_on_error=False)  # STRLEN of what is no string
        triples = zip(answers[::3], answers[1::3], answers[2::3], strict=True)
        return [
            Kept(size, stored, left / 1000) if isinstance(size, int) and isinstance(stored, int) else None
            for size, stored, left in triples
        ]

    def count(self, name: str, more: Mapping[str, int], expire_s: float) -> None:
        """See `Store`."""
        with self._told(), self._redis.pipeline(transaction=False) as pipe:
            for what, number in more.items():
                pipe.hincrby(name, what, number)
            pipe.pexpire(name, max(1, round(expire_s * 1000)))
            pipe.execute()

    def counted(self, name: str) -> dict[str, int]:
        """See `Store`."""
        with self._told():
            return {
                what.decode(): int(number)
                for what, number in cast("dict[bytes, bytes]", self._redis.hgetall(name)).items()
            }

    def room(self) -> Room:
        """See `Store`."""
        with self._told():
            info = self._redis.info()
        limit, policy = int(info.get("maxmemory", 0)), str(info.get("maxmemory_policy", ""))
        full = "writes are refused" if policy == "noeviction" else f"entries are thrown away ({policy})"
        version = str(info.get("redis_version", ""))
        used, peak = int(info["used_memory"]), int(info["used_memory_peak"])
        return Room("redis", self.where, used, peak, limit or None, full if limit else "", version)

    def close(self) -> None:
        """See `Store`."""
        self._redis.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What Redis refuses, in our words; never with the address as it was given."""
        try:
            yield
        except AuthenticationError as error:
            raise CacheAwayError("refuses our user or password", self.where, "Look at cache.uri") from error
        except OutOfMemoryError as error:
            remedy = "Raise its maxmemory, or see `orca cache stats`"
            raise _again("Redis is full", self.where, remedy) from error
        except (ConnectionError, TimeoutError, BusyLoadingError, ReadOnlyError, OSError) as error:
            raise _again(f"Redis does not answer ({_kind(error)})", self.where, "See whether it runs") from error
        except ResponseError as error:
            raise CacheAwayError(f"Redis refuses: {error}", self.where, "Look what else writes into it") from error
        except RedisError as error:
            raise CacheAwayError(f"Redis failed ({_kind(error)})", self.where, "See whether it is well") from error


def _kind(error: Exception) -> str:
    return type(error).__name__


def _again(problem: str, where: str, remedy: str) -> CacheAwayError:
    error = CacheAwayError(problem, where, remedy)
    error.may_pass = True
    return error
