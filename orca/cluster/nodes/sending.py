"""Has a paused Dask worker send its results as fast as one that works.

Dask lets a paused worker send one result at a time, since it pauses workers that are short of memory; who asks
meanwhile is turned away, and asks again 0.15 s later. Ours are paused for other reasons, and those that are to be
replaced wait until their results are fetched.
"""

from __future__ import annotations

import asyncio
from typing import Any

from distributed import Status, Worker


def send_while_paused(worker: Worker) -> None:
    """Have a worker send as many results at once while it is paused as while it works."""
    answer = worker.handlers["get_data"]

    async def get_data(comm: Any, **asked: Any) -> Any:
        under_way = worker.transfer_outgoing_count
        if worker.status == Status.paused and under_way < worker.transfer_outgoing_count_limit:
            worker.transfer_outgoing_count = 0  # as `answer` looks at it before it first waits for anything

            def set_right() -> None:
                worker.transfer_outgoing_count += under_way

            asyncio.get_running_loop().call_soon(set_right)
        return await answer(comm, **asked)

    worker.handlers["get_data"] = get_data
