"""What a deployment and a work pool may say of the process of a flow run, and what comes out of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import FlowRun
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorkerResult
from pydantic import Field

from orca.cluster.server import PATIENT


class WarmJobConfiguration(BaseJobConfiguration):
    """What a deployment may say of the process: `env` and `working_dir`."""

    working_dir: Path | None = Field(default=None)

    def prepare_for_flow_run(self, flow_run: FlowRun, deployment: Any = None, *args: Any, **kwargs: Any) -> None:
        """Complete the environment: the worker's, Prefect's for this run, and the deployment's own."""
        super().prepare_for_flow_run(flow_run, deployment, *args, **kwargs)
        entrypoint = _entrypoint(deployment)
        found = {"PREFECT__FLOW_ENTRYPOINT": entrypoint} if entrypoint else {}
        self.env: dict[str, str | None] = {**os.environ, **PATIENT, **found, **self.env}
        if self.working_dir is None:
            self.working_dir = Path.cwd()


def _entrypoint(deployment: Any) -> str | None:
    """Where the flow is, for a deployment whose code is on this machine; None leaves that to its pull steps."""
    if deployment is None or not deployment.entrypoint or deployment.pull_steps or deployment.storage_document_id:
        return None
    file, colon, name = deployment.entrypoint.rpartition(":")
    return f"{Path(deployment.path or '.', file).resolve()}:{name}" if colon else deployment.entrypoint


class WarmVariables(BaseVariables):
    """What the work pool's page asks for."""

    working_dir: Path | None = Field(
        default=None,
        title="Working Directory",
        description="Folder of flow run processes; the worker's when not given.",
    )


class WarmResult(BaseWorkerResult):
    """That a process has ended; the flow run's state says how."""
