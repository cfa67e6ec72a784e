"""What a command changed on Prefect's server, for the terminal and for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from orca.cluster.api import Change

AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be changed.")]


def tell_changes(changes: Sequence[Change], noun: str, source: str, *, dry_run: bool, as_json: bool) -> None:
    """Print what was changed, or would be.

    Parameters
    ----------
    changes : sequence of Change
    noun : str
        What they are about, as the heading of the first column: "pool".
    source : str
        The file that says what is wanted.
    dry_run, as_json : bool
    """
    if as_json:
        rows = [{noun: change.name, **asdict(change)} for change in changes]
        for row in rows:
            del row["name"]
        typer.echo(json.dumps({"source": source, "dry_run": dry_run, "changes": rows}, indent=2))
    elif not changes:
        typer.echo(f"all is as {source} says")
    else:
        print_table([noun, "what", "now", "wanted"], [[c.name, c.what, c.now, c.wanted] for c in changes])
        count = f"{len(changes)} difference{'' if len(changes) == 1 else 's'}"
        typer.echo(f"{count} from {source}: {'nothing was changed (dry run)' if dry_run else 'changed'}")


NARROWEST = 16
"""Characters that a column keeps whose cells are broken into lines."""


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table of plain text. Where it is too wide for the terminal, its widest columns are broken into lines."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 160)
    lines = [[line for cell in column for line in cell.split("\n")] for column in zip(columns, *rows, strict=True)]
    broken = _broken([max(map(len, column)) for column in lines], console.width)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=number not in broken)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: a name may look like markup
    console.print(table)


def _broken(widths: Sequence[int], room: int) -> set[int]:
    """Numbers of the columns that have to be broken into lines: of the widest ones, as few as will do."""
    broken: set[int] = set()
    for number in sorted(range(len(widths)), key=lambda column: -widths[column]):
        whole = [width for column, width in enumerate(widths) if column not in broken]
        if sum(whole) + NARROWEST * len(broken) + 2 * (len(widths) - 1) <= room:
            break
        broken.add(number)
    return broken
