"""`orca deploy`: what Prefect may start, and when."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orca.cli import configuration
from orca.cli.changes import AsJson, DryRun, tell_changes


def deploy(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Deployments, such as imaging. Default: all.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file. Default: deployments/prefect.yaml of this clone.")
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Tell Prefect of the flows in deployments/prefect.yaml, their parameters and schedules.

    Other deployments are left alone, and a schedule that was paused stays paused.
    """
    from orca.cluster.api import connected

    settings = configuration()
    with connected(settings) as client:
        from orca.cluster import deployments

        source = file or deployments.PACKAGED
        chosen = deployments.choose(deployments.read_deployments(source), names or [])
        wanted = deployments.wanted(chosen, settings.queue.prefix)
        changes = deployments.apply(client, wanted, dry_run=dry_run)
    tell_changes(changes, "deployment", str(source), dry_run=dry_run, as_json=as_json)
