"""The worker's side of the fork server: starts it, asks it for flow runs, starts another when it is gone."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict

from prefect.settings import get_current_settings

from orca.cluster.server import PATIENT
from orca.cluster.warm.server import Job
from orca.errors import InfrastructureError

ANSWER_S = 120.0
"""How long the server may take to answer: its first answer comes when all flows are imported."""

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""Else NumPy starts threads when it is imported, and a process with threads cannot be forked safely."""


class Launcher:
    """Starts flow runs from one fork server."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Start the server unless it runs; its imports go on behind the caller's back."""
        if self._server is not None and self._server.poll() is None:
            return
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "orca.cluster.warm.server", str(theirs.fileno())]
            settings = get_current_settings().to_environment_variables(exclude_unset=True)  # as flow runs have them
            self._server = subprocess.Popen(
                command,
                env={**os.environ, **settings, **PATIENT, **ONE_THREAD},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._reader, self._writer = await asyncio.open_connection(sock=ours)

    async def start(self, job: Job) -> int:
        """Start a flow run and return the number of its process.

        Raises
        ------
        InfrastructureError
            It runs already, or the server does not answer, even a new one.
        """
        async with self._turn:
            for last in (False, True):
                await self.open()
                try:
                    answer = await asyncio.wait_for(self._ask(job), ANSWER_S)
                except (OSError, EOFError, TimeoutError) as error:
                    self._abandon()
                    if last:
                        raise InfrastructureError(
                            f"the process that starts flow runs does not answer: {error!r}"
                        ) from None
                    continue
                if "error" in answer:
                    raise InfrastructureError(f"flow run {job.flow_run_id} was not started: {answer['error']}")
                return int(answer["pid"])
        raise AssertionError("the loop returns or raises")

    async def _ask(self, job: Job) -> dict[str, str]:
        self._writer.write(json.dumps(asdict(job)).encode() + b"\n")
        await self._writer.drain()
        line = await self._reader.readline()
        if not line:
            raise EOFError("it ended")
        answer: dict[str, str] = json.loads(line)
        return answer

    def _abandon(self) -> None:
        """Let go of a server that does not answer; it ends with its last flow run."""
        self.close()
        self._server = None

    def close(self) -> None:
        """Let the server go: it ends when its flow runs have."""
        if self._server is not None:
            with suppress(OSError, RuntimeError):
                self._writer.close()
