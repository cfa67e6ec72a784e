"""`orca pools`: the work pools, in the file and in Prefect."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from orca.cli import configuration
from orca.cli.changes import AsJson, DryRun, print_table, tell_changes

app = typer.Typer(no_args_is_help=True, help="Show the work pools, and bring Prefect in line with work_pools.yaml.")


@app.command()
def apply(dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Make and update Prefect's work pools as work_pools.yaml wants them. Other pools are left alone."""
    from orca.cluster.api import connected
    from orca.cluster.machine.standing import cluster_file
    from orca.cluster.pools import load_pools

    settings = configuration()
    pools = load_pools(cluster_file(settings))
    with connected(settings) as client:
        from orca.cluster import work_pools

        changes = work_pools.apply(client, pools, settings.queue.prefix, dry_run=dry_run)
    tell_changes(changes, "pool", str(pools.path), dry_run=dry_run, as_json=as_json)


@app.command("ls")
def list_pools(as_json: AsJson = False) -> None:
    """Show the pools: how much they run at once and where, and who works for them."""
    from orca.cluster.api import connected
    from orca.cluster.machine.standing import cluster_file
    from orca.cluster.pools import load_pools

    settings = configuration()
    pools = load_pools(cluster_file(settings))
    with connected(settings) as client:
        from orca.cluster import work_pools

        states = work_pools.states(client, pools, settings.queue.prefix)
    if as_json:
        typer.echo(json.dumps({"source": str(pools.path), "pools": [asdict(state) for state in states]}, indent=2))
        return
    rows = [[s.name, str(s.runs), _spread(s.slots), s.queue, s.status, ", ".join(s.workers) or "none"] for s in states]
    print_table(["pool", "flow runs", "slots", "queue", "in Prefect", "workers online"], rows)
    typer.echo(f"from {pools.path}")
    for state in states:
        if state.differs:
            typer.echo(f"{state.name}: Prefect has another {' and '.join(state.differs)} (orca pools apply)")


def _spread(slots: dict[str, int]) -> str:
    """Slots of the hosts in short: 2 on each of 11 hosts."""
    hosts: dict[int, list[str]] = {}
    for host, count in slots.items():
        hosts.setdefault(count, []).append(host)
    parts = [
        f"{count} on {', '.join(names) if len(names) <= 3 else f'each of {len(names)} hosts'}"
        for count, names in sorted(hosts.items(), reverse=True)
    ]
    return "; ".join(parts) or "none"
