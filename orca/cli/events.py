"""`orca events`: the exchanges and queues of the broker, and what waits on this machine because it was away."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from orca.cli import complain, configuration
from orca.cli.changes import AsJson, DryRun, print_table
from orca.errors import BrokerAwayError

app = typer.Typer(no_args_is_help=True, help="Make the queues, and send messages that wait on this machine.")


@app.command()
def setup(dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Make the exchanges and queues that are missing, and say what differs.

    What is there already is never changed, since it may hold messages. The exit status is 1 if something differs.
    """
    settings = configuration()
    from orca.events import broker

    found = broker.setup(settings, dry_run=dry_run)
    where = f"RabbitMQ at {broker.place(broker.broker_uri(settings))}"
    if as_json:
        told = {"broker": where, "dry_run": dry_run, "differences": [asdict(each) for each in found]}
        typer.echo(json.dumps(told, indent=2))
    elif not found:
        typer.echo(f"all is as wanted in {where}")
    else:
        print_table(
            ["name", "kind", "now", "wanted", "state"], [[d.name, d.kind, d.now, d.wanted, d.state] for d in found]
        )
        made = sum(each.state == "made" for each in found)
        typer.echo(f"{where}: {'nothing was made (dry run)' if dry_run else f'{made} made'}")
    differing = [each for each in found if each.state == "differs"]
    for each in differing:
        complain("error", f"{each.kind} {each.name} has {each.now}, not {each.wanted}. {each.remedy}")
    if differing:
        raise typer.Exit(1)


@app.command()
def schema(
    write: Annotated[bool, typer.Option("--write", help="Write docs/message.schema.json of this clone.")] = False,
) -> None:
    """Print the JSON Schema of a message."""
    from orca.events.message import schema_text

    if not write:
        sys.stdout.write(schema_text())
        return
    from orca.cluster.deployment_file import CLONE
    from orca.products import write_text

    path = CLONE / "docs" / "message.schema.json"
    write_text(path, schema_text())
    typer.echo(f"written: {path}")


@app.command()
def flush(as_json: AsJson = False) -> None:
    """Send the messages and announcements that wait because the broker was away, in their order.

    The exit status is 1 while some wait on.
    """
    settings = configuration()
    from orca.events.publisher import Publisher
    from orca.events.untold import send_waiting

    away, sent, announced = "", 0, 0
    with Publisher(settings) as publisher:
        try:
            sent = publisher.flush()
            announced = send_waiting(settings)
        except BrokerAwayError as error:
            away = str(error)
        waiting, broken = publisher.spool.waiting(), publisher.spool.broken()
        refused = publisher.refused
    if as_json:
        why = {name: str(error) for name, error in refused.items()}
        told = {"sent": sent, "announced": announced, "waiting": len(waiting), "broken": [str(path) for path in broken]}
        typer.echo(json.dumps({**told, "away": away, "refused": why}, indent=2))
    else:
        aside = f", {len(broken)} are no messages (*.broken)" if broken else ""
        also = f", {announced} announced" if announced else ""
        typer.echo(f"{sent} sent{also}, {len(waiting)} wait{aside} in {publisher.spool.folder}")
    for problem in [*([away] if away else []), *map(str, refused.values())]:
        complain("error", problem)
    if waiting:
        raise typer.Exit(1)
