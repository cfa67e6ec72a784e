"""What the end of a task run that failed means: whose fault it is, and whether more memory may help."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from distributed.client import FutureCancelledError, FuturesCancelledError
from distributed.scheduler import KilledWorker, NoValidWorkerError, NoWorkerError

from orca.cluster.outcomes import Cause
from orca.endings import MEMORY_REMEDY
from orca.errors import OrcaError, StoppedError


@dataclass(frozen=True)
class Failure:
    """Why a task run failed.

    Attributes
    ----------
    reason : one line
    detail : the same with all that is known, such as the end of a program's log
    cause : "payload" (data, options, program) or "infrastructure"
    lost : Dask gave the task run up, and nobody else ends its record
    nobody : no worker came that could have run it
    out_of_memory : a worker with more memory may succeed
    limit_gb : memory limit of the worker that died of it, in 1e9 bytes; None where the worker lives
    """

    reason: str
    detail: str = ""
    cause: Cause = "infrastructure"
    lost: bool = False
    nobody: bool = False
    out_of_memory: bool = False
    limit_gb: float | None = None

    @property
    def killed_by_memory(self) -> bool:
        """Whether its worker died of its memory: the same again would kill the next one."""
        return self.lost and self.out_of_memory


def nobody_offered(need: str, waited_s: float) -> str:
    """A reason, where nobody came."""
    return f"no Dask worker offered {need} within {waited_s / 60:.3g} minutes"


def failure_of(error: BaseException, need: str, memory_killed: Collection[str]) -> Failure:
    """What an error means that ended a task run.

    Parameters
    ----------
    error : exception
        What the task raised, or Dask.
    need : str
        What a worker has to offer for the task: a pool, perhaps with so much memory.
    memory_killed : addresses
        Of workers that were ended for their memory.
    """
    if isinstance(error, KilledWorker):
        worker = error.last_worker
        if worker.address in memory_killed:
            limit_gb = worker.memory_limit / 1e9
            reason = f"it took more memory than the {limit_gb:.3g} GB of its Dask worker {worker.name}"
            return Failure(reason, lost=True, out_of_memory=True, limit_gb=limit_gb)
        times = error.allowed_failures + 1
        return Failure(f"its Dask worker died {times} times while it ran, the last was {worker.name}", lost=True)
    if isinstance(error, FutureCancelledError | FuturesCancelledError):
        return Failure(f"the Dask cluster lost it ({type(error).__name__})", lost=True)
    if isinstance(error, NoValidWorkerError | NoWorkerError):
        return Failure(nobody_offered(need, error.args[-1]), lost=True, nobody=True)
    text = str(error) if isinstance(error, OrcaError) else f"{type(error).__name__}: {error}"
    reason = next(iter(text.strip().splitlines()), "")
    stopped = isinstance(error, StoppedError)  # by its worker: whoever waits for it has not cancelled it
    retryable = isinstance(error, OrcaError) and error.retryable
    cause: Cause = "infrastructure" if stopped or retryable else "payload"
    remedy = (error.remedy or "") if isinstance(error, OrcaError) else ""
    memory = isinstance(error, MemoryError) or remedy.startswith(MEMORY_REMEDY)
    return Failure(reason, text, cause, out_of_memory=memory)
