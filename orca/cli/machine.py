"""What ORCA runs on this machine: `orca status`, `orca down`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from orca.cli import configuration

Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


def status(as_json: Json = False) -> None:
    """Show the Prefect server that `orca run` left for the next call."""
    from orca.cluster import server

    found = server.find(configuration().prefect.home)
    healthy = found is not None and found.healthy()
    if as_json:
        state = None if found is None else {"url": found.ui_url, "pid": found.pid, "healthy": healthy, "log": found.log}
        typer.echo(json.dumps({"server": state}))
    elif found is None:
        typer.echo("Prefect server: none (`orca run` starts one)")
    else:
        typer.echo(
            f"Prefect server: {found.ui_url}  {'healthy' if healthy else 'does not answer'}  process {found.pid}"
        )


def down(as_json: Json = False) -> None:
    """End the Prefect server that `orca run` started."""
    from orca.cluster import server

    ended = server.stop(configuration().prefect.home)
    if as_json:
        typer.echo(json.dumps({"ended": [] if ended is None else [ended.pid]}))
    else:
        typer.echo("nothing runs" if ended is None else f"ended the Prefect server at {ended.ui_url}")
