"""The trash: `orca trash ls | restore | empty`. What ORCA removes is there first, and comes back whole."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orca.cli import complain, configuration
from orca.cli.changes import AsJson, print_table
from orca.cli.queues import Yes, ask
from orca.errors import MissingDataError, OrcaError

if TYPE_CHECKING:
    from orca.trash import Trashed

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Show what was removed, and bring it back.")

Below = Annotated[
    Path | None, typer.Option("--below", metavar="DIR", help="Only what was in this folder, or in one below it.")
]
OlderThan = Annotated[
    float | None, typer.Option("--older-than", min=0, metavar="DAYS", help="Only what is there for longer.")
]


@app.command("ls")
def list_trashed(below: Below = None, older_than: OlderThan = None, as_json: AsJson = False) -> None:
    """Show what is in the trash, the oldest first."""
    found = _chosen(below, older_than)
    if as_json:
        rows = [{"original": str(e.original), "since": e.since, "trashed": str(e.path)} for e in found]
        typer.echo(json.dumps(rows, indent=2))
    elif not found:
        typer.echo(f"there is nothing{' of that' if below or older_than else ''} in {_places()}")
    else:
        columns = ["since (UT)", "in the trash as", "original"]
        print_table(columns, [[_moment(e), f"{e.path.parent.name}/{e.path.name}", str(e.original)] for e in found])


@app.command()
def restore(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...", help="Where it was, or what `orca trash ls` says that it is in the trash as."
        ),
    ],
) -> None:
    """Move files and folders back to where they were; nothing is overwritten.

    Of several that were at one place, that which was removed last comes back. A folder of the trash stands for all
    that is in it.
    """
    from orca.trash import restore as bring_back

    known = _chosen()
    failed = False
    for path in paths:
        try:
            for entry in _named(path, known):
                typer.echo(bring_back(entry.path))
                known.remove(entry)
        except OrcaError as error:
            complain("error", str(error))
            failed = True
    if failed:
        raise typer.Exit(1)


@app.command()
def empty(below: Below = None, older_than: OlderThan = None, yes: Yes = False) -> None:
    """Remove for good what is in the trash, or a part of it."""
    from orca.trash import discard, sweep

    found = _chosen(below, older_than)
    if not found:
        typer.echo(f"there is nothing to remove in {_places()}")
    else:
        ask(f"Remove {_count(len(found))} from {_places()} for good?", yes)
    removed = sum(discard(entry.path) for entry in found)
    for folder in _folders():
        sweep(folder)
    if found:
        typer.echo(f"removed {_count(removed)}")
    if removed < len(found):
        complain("error", f"{_count(len(found) - removed)} could not be removed: see the rights of these folders")
        raise typer.Exit(1)


def _folders() -> list[Path]:
    from orca.trash import trash_folders

    paths = configuration().paths
    return trash_folders(paths.trash, paths.calibration)


def _places() -> str:
    first, *more = _folders()
    return " or ".join(str(folder) for folder in [first, *(other for other in more if other.is_dir())])


def _chosen(below: Path | None = None, older_than_days: float | None = None) -> list[Trashed]:
    from orca.trash import list_trash

    found = [entry for folder in _folders() for entry in list_trash(folder)]
    if below is not None:
        found = [entry for entry in found if entry.original.is_relative_to(below.expanduser().absolute())]
    if older_than_days is not None:
        latest = datetime.now(UTC) - timedelta(days=older_than_days)
        found = [entry for entry in found if datetime.fromisoformat(entry.since) < latest]
    return sorted(found, key=lambda entry: (entry.since, entry.path))


def _named(path: Path, known: list[Trashed]) -> list[Trashed]:
    """What somebody means.

    Raises
    ------
    MissingDataError
        Nothing.
    """
    absolute = path.expanduser().absolute()
    places = {absolute, *(folder / path for folder in _folders())}
    if found := [entry for entry in known if entry.path in places or entry.path.parent in places]:
        return found
    if found := [entry for entry in known if entry.original == absolute]:
        return found[-1:]
    raise MissingDataError("is not in the trash", path, "See `orca trash ls`")


def _moment(entry: Trashed) -> str:
    return f"{datetime.fromisoformat(entry.since):%Y-%m-%d %H:%M}"


def _count(number: int) -> str:
    return f"{number} {'entry' if number == 1 else 'entries'}"
