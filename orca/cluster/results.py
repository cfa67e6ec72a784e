"""Results of flows in Redis, where the configuration names one: JSON, for two hours, paths and numbers and no data.

What comes back from Redis is never unpickled, and never makes objects: Prefect's records name the serializer that
reads them, so a record that names another one than ours is refused.
"""

from __future__ import annotations

import json
from asyncio import to_thread
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException
from prefect.filesystems import WritableFileSystem
from prefect.results import ResultStore
from prefect.serializers import JSONSerializer
from pydantic import BaseModel
from redis import Redis, from_url
from redis.exceptions import OutOfMemoryError, RedisError

from orca.cluster.machine.standing import result_backend_uri
from orca.config import load
from orca.errors import ConfigError, DataError, InfrastructureError

EXPIRY_S = 7200
BLOCK = "orca-results"
"""Under this name Prefect's server knows the storage; it holds no address and no password."""
TIMEOUT_S = 10.0
SERIALIZER = JSONSerializer(object_encoder="orca.cluster.results.plain", object_decoder=None)


class RedisResults(WritableFileSystem):
    """Storage of results in the Redis of `queue.result_backend_uri`, of whoever reads or writes."""

    _block_type_name = "ORCA results"
    _block_type_slug = "orca-results"

    def write_path(self, path: str, content: bytes, *, _sync: bool = True) -> None:  # type: ignore[override]
        """Keep a record for two hours (`_sync` is how Prefect asks for this and not for `awrite_path`)."""
        with _redis() as redis:
            redis.set(path, content, ex=EXPIRY_S)

    def read_path(self, path: str, *, _sync: bool = True) -> bytes:  # type: ignore[override]
        """A record that was kept.

        Raises
        ------
        DataError
            There is none any more, or it is not one of ours.
        """
        with _redis() as redis:
            content: Any = redis.get(path)
        if content is None:
            remedy = f"Results are kept for {EXPIRY_S // 3600} hours; the manifests of the products stay"
            raise DataError("there is no such result in Redis", path, remedy)
        try:
            serializer = json.loads(content)["metadata"]["serializer"]
        except (ValueError, TypeError, LookupError) as error:
            raise DataError("the result in Redis is none of ours", path, "Look who else writes into it") from error
        if serializer != SERIALIZER.model_dump(mode="json"):
            raise DataError("the result in Redis is not JSON as we write it", path, "Look who else writes into it")
        return bytes(content)

    async def awrite_path(self, path: str, content: bytes) -> None:
        """`write_path` for callers that must not wait."""
        await to_thread(self.write_path, path, content)

    async def aread_path(self, path: str) -> bytes:
        """`read_path` for callers that must not wait."""
        return await to_thread(self.read_path, path)


def kept(outcomes: list[Any]) -> Any:
    """What a flow ends with: a record of its outcomes in Redis, or the outcomes themselves without Redis.

    In the process of the flow both give the same objects. The flow does not fail because Redis is away.
    """
    run = FlowRunContext.get()
    config = load()
    if result_backend_uri(config) is None or run is None or run.flow_run is None:
        return outcomes
    expires: Any = datetime.now(UTC) + timedelta(seconds=EXPIRY_S)
    try:
        store = ResultStore(result_storage=_storage(), serializer=SERIALIZER)
        record = store.create_result_record(outcomes, f"{config.queue.prefix}:result:{run.flow_run.id}", expires)
        store.persist_result_record(record)
    except (InfrastructureError, PrefectException) as error:
        get_run_logger().warning("the result is not kept: %s", error)
        return outcomes
    return record


def plain(value: Any) -> Any:
    """A value that JSON does not know, in terms of what it knows.

    Raises
    ------
    TypeError
        It is data, or else not for results.
    """
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a result holds paths and numbers, and no {type(value).__name__}")


def _storage() -> Any:
    """The storage as Prefect's server knows it, so that others find a result by its flow run."""
    try:
        found: Any = RedisResults.load(BLOCK)
    except ValueError:  # unknown there
        found = RedisResults()
        found.save(BLOCK, overwrite=True)
    return found


@contextmanager
def _redis() -> Iterator[Redis]:
    uri = result_backend_uri(load())
    if uri is None:
        raise ConfigError("no Redis is configured", None, "Set queue.result_backend_uri")
    try:
        with closing(from_url(uri.reveal(), socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)) as redis:
            yield redis
    except OutOfMemoryError as error:
        raise InfrastructureError("Redis is full", str(uri), "Raise its maxmemory, or `orca cache clear`") from error
    except (RedisError, OSError) as error:
        raise InfrastructureError(f"Redis does not answer ({error})", str(uri), "See whether it runs") from error
