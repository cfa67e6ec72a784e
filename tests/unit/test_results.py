"""What a result may hold, and what the end of a task means."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from distributed.client import FutureCancelledError
from distributed.core import Status
from distributed.scheduler import KilledWorker, NoValidWorkerError, WorkerState
from pydantic import BaseModel

from orca.cluster.failures import failure_of
from orca.cluster.outcomes import Outcome
from orca.cluster.results import SERIALIZER
from orca.endings import MEMORY_REMEDY
from orca.errors import DataError, InfrastructureError, ProgramError


class Made(BaseModel):
    """As tasks return it."""

    manifest: Path
    quality: dict[str, float]


@dataclass(frozen=True)
class Holder:
    """Of something."""

    data: object


def test_outcomes_become_json_and_come_back_as_plain_values() -> None:
    outcomes = [Outcome("one", "done", Made(manifest=Path("/a/b.json"), quality={"rms": 0.5}))]
    [found] = SERIALIZER.loads(SERIALIZER.dumps(outcomes))
    assert found["unit"] == "one"
    assert found["result"] == {"manifest": "/a/b.json", "quality": {"rms": 0.5}}


def test_data_are_no_result() -> None:
    with pytest.raises(TypeError, match="paths and numbers, and no ndarray"):
        SERIALIZER.dumps([Outcome("one", "done", Holder(np.zeros(3)))])


def test_text_that_names_a_class_makes_no_object() -> None:
    text = json.dumps({"__class__": "pathlib.Path", "data": "/etc"}).encode()
    assert SERIALIZER.loads(text) == {"__class__": "pathlib.Path", "data": "/etc"}


def _worker(address: str) -> WorkerState:
    return WorkerState(
        address=address, status=Status.running, pid=1, name="node-0", nthreads=1, memory_limit=2_000_000_000,
        local_directory="", services={}, nanny="", extra={}, server_id="",
    )  # fmt: skip


def test_a_worker_that_died_of_its_memory_is_told_from_one_that_just_died() -> None:
    error = KilledWorker("key", _worker("tcp://a:1"), 2)
    memory = failure_of(error, "imaging", {"tcp://a:1"})
    assert memory.killed_by_memory
    assert memory.limit_gb == 2.0
    assert memory.reason == "it took more memory than the 2 GB of its Dask worker node-0"
    other = failure_of(error, "imaging", {"tcp://b:1"})
    assert other.lost
    assert not other.out_of_memory
    assert other.reason == "its Dask worker died 3 times while it ran, the last was node-0"


@pytest.mark.parametrize(
    ("error", "cause", "lost", "nobody", "out_of_memory"),
    [
        (FutureCancelledError("key", "gone"), "infrastructure", True, False, False),
        (NoValidWorkerError("key", set(), set(), {"imaging": 1}, 900.0), "infrastructure", True, True, False),
        (InfrastructureError("went away"), "infrastructure", False, False, False),
        (InfrastructureError("killed", "wsclean", MEMORY_REMEDY), "infrastructure", False, False, True),
        (ProgramError("used 9 GB", "wsclean", MEMORY_REMEDY), "payload", False, False, True),
        (MemoryError(), "payload", False, False, True),
        (DataError("is empty", "a.ms"), "payload", False, False, False),
        (ZeroDivisionError("oops"), "payload", False, False, False),
    ],
)
def test_whose_fault_it_is(error: Exception, cause: str, lost: bool, nobody: bool, out_of_memory: bool) -> None:
    failure = failure_of(error, "imaging", ())
    assert (failure.cause, failure.lost, failure.nobody, failure.out_of_memory) == (cause, lost, nobody, out_of_memory)
    assert failure.reason
