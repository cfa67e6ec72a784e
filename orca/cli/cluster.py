"""What a cluster of machines needs: `orca cluster certs | units`, and `start | stop`, which the units call."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from orca.cli import configuration
from orca.cli.changes import AsJson, DryRun, tell_changes

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Make certificates and system services for a cluster."
)


@app.command()
def certs(
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder for them; network.tls when not given.")
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option("--host", metavar="NAME", help="A machine's name or address, in place of work_pools.yaml's."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace those that are there.")] = False,
) -> None:
    """Make the certificates with which all parts of the cluster talk TLS, and know each other.

    All machines use the same three files, for five years. Who has them can run anything on the cluster.
    """
    settings = configuration()
    from orca.cluster.pools import load_pools, this_host
    from orca.cluster.security import make_certificates
    from orca.errors import InputError

    folder = out or settings.network.tls
    if folder is None:
        raise InputError("no folder given", remedy="Name one with --out, or set network.tls")
    names = [*(host or load_pools().hosts), this_host(), settings.network.host, "localhost", "127.0.0.1"]
    files = make_certificates(folder.expanduser().absolute(), names, force=force)
    typer.echo(f"made for {', '.join(dict.fromkeys(names))}:")
    for file in files:
        typer.echo(f"  {file}")
    typer.echo(f"Copy {files[0].parent} to all machines, readable by ORCA's user alone. In each orca-conf.yml:")
    typer.echo(f"  network:\n    tls: {files[0].parent}\n  dask:\n    address: tls://SCHEDULER:8786")
    typer.echo("Then restart the scheduler, the workers and the flow workers.")


@app.command()
def units(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Gets a folder for each host.")],
    host: Annotated[
        list[str] | None, typer.Option("--host", metavar="HOST", help="Only for this host; may be repeated.")
    ] = None,
    server: Annotated[
        str | None, typer.Option(metavar="HOST", help="Runs the Prefect server. Default: that of prefect.api_url.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="HOST", help="Runs the Dask scheduler. Default: that of dask.address.")
    ] = None,
    flows: Annotated[
        list[str] | None, typer.Option(metavar="HOST", help="Starts flow runs; may be repeated. Default: the server's.")
    ] = None,
    user: Annotated[str, typer.Option(metavar="NAME", help="Runs everything.")] = "orca",
    venv: Annotated[
        Path | None, typer.Option(metavar="DIR", help="ORCA's Python environment on all hosts. Default: this one.")
    ] = None,
    conf: Annotated[
        Path | None, typer.Option(metavar="FILE", help="orca-conf.yml on all hosts. Default: the one in force.")
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Write systemd units for the hosts of work_pools.yaml, to be copied to /etc/systemd/system of each.

    On each host `systemctl enable --now orca.target` starts what belongs there. Where the configuration names no
    server or scheduler, they are on the first host. Units of an earlier call that are not wanted any more are removed.
    """
    settings = configuration()
    from orca.cluster.pools import load_pools
    from orca.cluster.systemd import units as made

    pools = load_pools()
    site = made.site(
        settings,
        pools,
        venv=(venv or Path(sys.prefix)).expanduser().absolute(),
        configuration=(conf or settings.file or Path("/etc/orca/orca-conf.yml")).expanduser().absolute(),
        user=user,
        server=server,
        scheduler=scheduler,
        flows=flows or (),
    )
    changes = made.write_units(site, out.expanduser().absolute(), host or (), dry_run=dry_run)
    tell_changes(changes, "host", str(pools.path), dry_run=dry_run, as_json=as_json)


@app.command()
def start(
    part: Annotated[
        Literal["server", "scheduler", "dask", "flows", "trigger", "metrics"], typer.Argument(help="What to run.")
    ],
    instance: Annotated[
        str | None, typer.Argument(metavar="[N|POOL]", help="Number of the Dask process; pool of the flow worker.")
    ] = None,
) -> None:
    """Run a part of the cluster in this process. System services do this; `orca up` is for people."""
    settings = configuration()
    from orca.cluster.pools import load_pools
    from orca.cluster.systemd import serving
    from orca.cluster.warm.records import this_host

    serving.become(settings, part, serving.part(settings, load_pools(), part, instance, this_host()))


@app.command()
def stop(
    part: Annotated[Literal["dask"], typer.Argument(help="What to end; systemctl ends the others.")],
    instance: Annotated[str, typer.Argument(metavar="N", help="Number of the Dask process.")],
) -> None:
    """End a Dask worker process of this machine when it has finished what it runs. Its system service does this."""
    settings = configuration()
    from orca.cluster.pools import load_pools
    from orca.cluster.systemd import serving
    from orca.cluster.warm.records import this_host

    host = this_host()
    found = serving.finish(settings, load_pools(), instance, host, lambda text: typer.echo(text, err=True))
    typer.echo(f"{'ended' if found else 'there was no'} {host}-{instance}")
