"""What ORCA runs on this machine: `orca up`, `orca status`, `orca down`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orca.cli import complain, configuration

if TYPE_CHECKING:
    from orca.cluster.machine.overview import Overview
    from orca.cluster.machine.standing import Standing
    from orca.config import Config

Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


def up(
    cluster: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A work_pools.yaml: each of its hosts gets Dask workers on this machine."),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="PART", help="Leave out redis, rabbitmq, dask, trigger, flow-workers or metrics."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Start all parts of a cluster on this machine, keep them alive, and wait until they answer.

    What runs already is left alone. `orca down` ends all of it.
    """
    from orca.cluster.machine.services import OPTIONAL
    from orca.cluster.machine.standing import cluster_file
    from orca.cluster.pools import load_pools
    from orca.errors import InputError

    if unknown := sorted(set(without or ()) - set(OPTIONAL)):
        raise InputError(f"there is no part {unknown[0]} to leave out", remedy=f"There are {', '.join(OPTIONAL)}")
    settings = configuration()
    file = cluster or cluster_file(settings)
    if file is not None and cluster is None:
        _tell(f"the nodes are those of {file}, as they run; `orca down` first for others")
    pools = load_pools(file)
    from orca.cluster.machine import up as bringing_up

    standing = bringing_up.up(settings, pools, without or (), _tell, cluster=file is not None)
    bringing_up.deploy(settings, pools, standing, _tell)
    overview = bringing_up.wait_until_ready(settings, pools, standing, _tell)
    if as_json:
        typer.echo(json.dumps(_as_json(overview, settings), indent=2))
    else:
        _print_parts(overview)
        _print_how_to_go_on(settings, standing)
    _complain_of(overview)


def status(as_json: Json = False) -> None:
    """Show what runs on this machine, or on the cluster of the configuration: parts, queues, slots, tasks.

    The exit status is 1 when something that should run does not.
    """
    from orca.cluster.machine.standing import read, run_folder

    settings = configuration()
    standing = read(run_folder(settings))
    if standing is not None and standing.supervisor is None:
        standing = None
    configured = (settings.prefect.api_url, settings.dask.address, *settings.queue.model_dump().values())
    if standing is None and not any(configured[:2]) and not settings.queue.broker_uri:
        _server_of_runs(settings, as_json=as_json)
        return
    from orca.cluster.machine.overview import look
    from orca.cluster.pools import load_pools

    overview = look(settings, load_pools(Path(standing.pools) if standing else None), standing)
    if as_json:
        typer.echo(json.dumps(_as_json(overview, settings), indent=2))
    else:
        _print_parts(overview)
        _print_work(overview)
    if standing is not None and not standing.supervised():
        complain("error", "what keeps the parts alive was killed. Run `orca up`, or `orca down` to end them")
        raise typer.Exit(1)
    _complain_of(overview)


def down(
    drain: Annotated[
        bool, typer.Option("--drain", help="Wait for the flow runs that run; those that wait stay for the next time.")
    ] = False,
    as_json: Json = False,
) -> None:
    """End all that `orca up` started on this machine, and the Prefect server that `orca run` left."""
    from orca.cluster import server
    from orca.cluster.machine import up as bringing_up

    settings = configuration()
    ended = bringing_up.down(settings, _tell, drain=drain)
    server_of_runs = server.stop(settings.prefect.home)
    if as_json:
        typer.echo(json.dumps({"ended": [*ended, *([server_of_runs.pid] if server_of_runs else [])]}))
        return
    if ended:
        typer.echo(f"ended {len(ended)} processes")
    if server_of_runs:
        typer.echo(f"ended the Prefect server at {server_of_runs.ui_url}")
    elif not ended:
        typer.echo("nothing runs")


def _tell(text: str) -> None:
    typer.echo(text, err=True)


def _server_of_runs(settings: Config, *, as_json: bool) -> None:
    """Show the Prefect server that `orca run` left for the next call."""
    from orca.cluster import server

    found = server.find(settings.prefect.home)
    healthy = found is not None and found.healthy()
    if as_json:
        state = None if found is None else {"url": found.ui_url, "pid": found.pid, "healthy": healthy, "log": found.log}
        typer.echo(json.dumps({"server": state}))
    elif found is None:
        typer.echo("Prefect server: none (`orca run` starts one, `orca up` a whole cluster)")
    else:
        typer.echo(
            f"Prefect server: {found.ui_url}  {'healthy' if healthy else 'does not answer'}  process {found.pid}"
        )


def _as_json(overview: Overview, settings: Config) -> dict[str, object]:
    """The overview, with the server also where it is when only `orca run` has started one."""
    from orca.cluster import server as server_of_runs

    server = next((part for part in overview.parts if part.kind == "server"), None)
    own = server_of_runs.find(settings.prefect.home)
    state = server and {
        "url": server.address.removesuffix("/api"),
        "pid": server.pid or (own and own.pid),
        "healthy": server.healthy,
        "log": server.log,
    }
    slots = {
        pool: {host: {"used": used, "offered": offered} for host, (used, offered) in nodes.items()}
        for pool, nodes in overview.slots.items()
    }
    return {"server": state, "healthy": overview.healthy, **asdict(overview), "slots": slots}


def _print_parts(overview: Overview) -> None:
    from orca.cli.changes import print_table
    from orca.cluster.machine.overview import age

    rows = [
        [part.name, part.state, part.address, part.version, age(part.since), str(part.restarts or "")]
        for part in overview.parts
    ]
    print_table(["part", "state", "address", "version", "since", "restarts"], rows)
    for kind, why in overview.left_out.items():
        typer.echo(f"left out: {kind}, {why}")


def _print_work(overview: Overview) -> None:
    from orca.cli.changes import print_table
    from orca.cluster.machine.overview import age

    if overview.queues:
        depths = [f"{name} {n}" for name, n in overview.queues.items() if n is not None]
        typer.echo(f"messages that wait: {', '.join(depths) or 'there are no queues yet'}")
    if overview.slots:
        rows = [
            [pool, host, str(used), str(offered)]
            for pool, nodes in overview.slots.items()
            for host, (used, offered) in sorted(nodes.items())
        ]
        print_table(["pool", "node", "slots used", "of"], rows)
    if overview.tasks:
        tasks = [[t.unit or t.task, t.step, ", ".join(t.pools), t.worker, age(t.since)] for t in overview.tasks]
        print_table(["task", "step", "pool", "worker", "since"], tasks)
    if overview.flow_runs:
        runs = [[run.name, run.state, run.pool, age(run.since)] for run in overview.flow_runs]
        print_table(["flow run", "state", "pool", "since"], runs)
    for each in overview.waiting:
        runs_wait = "1 flow run waits" if each.count == 1 else f"{each.count} flow runs wait"
        why = f": {each.why}" if each.why else ""
        typer.echo(f"{each.pool}: {runs_wait}, for up to {age(each.since)}{why}")


def _print_how_to_go_on(settings: Config, standing: Standing) -> None:
    from orca.cluster.machine.standing import api_url

    url = api_url(settings) or ""
    typer.echo(f"\nPrefect's page: {url.removesuffix('/api')}")
    if "dashboard" in standing.ports and standing.address("scheduler"):
        typer.echo(f"Dask's page:    http://{settings.network.host}:{standing.ports['dashboard']}/status")
    typer.echo(f"Files and logs: {standing.folder}")
    trusting = f" PREFECT_API_SSL_CERT_FILE={settings.network.tls / 'ca.pem'}" if settings.network.tls else ""
    typer.echo(f"For prefect's own commands: export PREFECT_API_URL={url}{trusting}")
    typer.echo("To start a flow run:        prefect deployment run 'imaging/imaging' -p measurement_sets='[...]'")
    typer.echo("To look, and to end:        orca status, orca down")


def _complain_of(overview: Overview) -> None:
    """Name on standard error what does not run, and exit with 1 if anything does not."""
    for part in overview.parts:
        if not part.healthy:
            complain("error", f"{part.name} {part.state}{f'. Its log: {part.log}' if part.log else ''}")
    if not overview.healthy:
        sys.exit(1)
