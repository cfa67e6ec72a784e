"""Alarms: `orca alarms ls | check`."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orca.alarms.alarm import CONDITIONS, Condition
from orca.cli import complain, configuration
from orca.cli.changes import AsJson, print_table

if TYPE_CHECKING:
    from orca.alarms.memory import Known

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Show what is wrong, and tell who should know.")


@app.command("ls")
def list_alarms(as_json: AsJson = False) -> None:
    """Show the alarms that are up, as they were at the last look."""
    from orca.cluster.alarms.look import remembered
    from orca.cluster.machine.overview import duration

    up, age_s = remembered(configuration())
    if as_json:
        typer.echo(json.dumps({"looked_s_ago": age_s, "alarms": [_values(known) for known in up]}, indent=2))
        return
    if age_s is None:
        typer.echo("nobody has looked yet: `orca alarms check` does, and the deployment alarms every five minutes")
        return
    _print(up)
    typer.echo(f"looked {duration(age_s)} ago")


@app.command()
def check(
    only: Annotated[
        list[Condition] | None, typer.Option("--only", help="Look at this alone; may be repeated. Else at everything.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look at everything now, and tell who should know what has come up or is over; the same as the flow alarms.

    For cron or a timer where no flow may run, since Prefect's server is away. What was told is not told again, whoever
    looks. The exit status is 1 when something new could not be told.
    """
    from orca.cluster.alarms.look import LOG, look

    found = look(configuration(), only or CONDITIONS)
    for problem in found.problems:
        complain("warning", f"nothing can be said of {problem}")
    for news in found.news:
        for failed in news.failed:
            complain("warning", f"{news.alarm.name}: not told by {failed}")
    if as_json:
        news_rows = [
            {**_values(news.alarm), "state": news.alarm.state, "by": news.ways, "failed": news.failed}
            for news in found.news
        ]
        told = {"alarms": [_values(known) for known in found.up], "news": news_rows, "problems": found.problems}
        typer.echo(json.dumps(told, indent=2))
    else:
        for news in found.news:
            by = ", ".join(news.ways) or ("nothing yet" if news.again else LOG)
            typer.echo(f"{news.alarm.state} {news.alarm.name} (told by {by})")
        _print(found.up)
    if any(news.again for news in found.news):
        raise typer.Exit(1)


def _print(up: tuple[Known, ...]) -> None:
    if not up:
        typer.echo("no alarm is up")
        return
    rows = [[known.name, _moment(known.since), known.told or "nothing yet", known.text] for known in up]
    print_table(["alarm", "since (UT)", "told by", "what"], rows)


def _values(known: Known) -> dict[str, Any]:
    return {**asdict(known), "since": _moment(known.since), "until": known.until and _moment(known.until)}


def _moment(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}"
