"""`orca night`: what became of a day, as a table, as JSON or as a page; and asking for what is missing."""

from __future__ import annotations

import json
import shutil
import textwrap
from datetime import UTC, datetime
from datetime import date as date_type
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orca.cli import complain, configuration
from orca.cli.changes import AsJson, print_table

if TYPE_CHECKING:
    from orca.config import Config
    from orca.events.again import Asked
    from orca.night import Account, Cell, Counts, Places

_COLUMNS = (
    ("expected", "expect"),
    ("recorded", "record"),
    ("reduced", "reduced"),
    ("dead", "dead"),
    ("failed", "failed"),
    ("waiting", "waits"),
    ("overdue", "overdue"),
    ("missing", "missing"),
    ("imaged", "imaged"),
    ("spectrum", "spectra"),
    ("split", "split"),
)
_LINES = 60
"""Lines about what is wrong."""
_NAMED = 20
"""Failures that are told."""


class Which(StrEnum):
    """What is asked for again."""

    missing = "missing"
    failed = "failed"


def night(
    date: Annotated[
        datetime | None,
        typer.Argument(formats=["%Y-%m-%d"], metavar="DATE", help="Date in UTC, such as 2026-01-10; today without."),
    ] = None,
    as_json: AsJson = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", dir_okay=False, help="Write the report as one page.")
    ] = None,
    hours: Annotated[bool, typer.Option("--hours", help="Show each hour of each subband.")] = False,
    resubmit: Annotated[
        Which | None,
        typer.Option(
            "--resubmit",
            help="Ask again for what was recorded and has no product (missing), or for what failed (failed).",
        ),
    ] = None,
) -> None:
    """Show what became of a day: expected, recorded, reduced, failed and missing, by subband and hour.

    All of it is known by names and manifests. The exit status is 0 also where something is missing.
    """
    settings = configuration()
    from orca.night import take_account

    places, now = places_of(settings), datetime.now(UTC)
    day = (date or now).date()
    if resubmit is not None:
        if html is not None:
            raise typer.BadParameter("asks for runs; make the page by another call", param_hint="'--resubmit'")
        _resubmit(settings, places, day, now, resubmit, as_json)
        return
    account = take_account(places, day, now)
    if html is not None:
        from orca.disk import make_folder
        from orca.night.page import page
        from orca.products import write_text

        make_folder(html.absolute().parent)
        write_text(html.absolute(), page(account, places))
    if as_json:
        from orca.night.telling import as_json as plain

        typer.echo(json.dumps(plain(account, places.lifetime_h), indent=2))
        return
    if html is not None:
        typer.echo(f"wrote {html}")
    else:
        _show(account, hours)


def places_of(settings: Config) -> Places:
    """Where everything is, by the configuration."""
    from orca.failures import FOLDER
    from orca.night import Places

    paths, limits = settings.paths, settings.limits
    return Places(
        raw=paths.raw,
        averaged=paths.averaged,
        cosmology=paths.cosmology,
        images=paths.images,
        calibration=paths.calibration,
        dynspec=paths.dynspec,
        failures=paths.data / FOLDER,
        lifetime_h=limits.raw_lifetime_h,
        settle_s=limits.settle_s,
    )


def _show(account: Account, hours: bool) -> None:
    from orca.night.telling import dies_next, grouped, problems, shortened, subbands_of

    rows = []
    for name in subbands_of(account):
        rows.append(_row(name, account.of_subband(name)))
        if hours:
            rows += [_row(f"  {cell.hour:02d}h", cell.counts) for cell in account.cells if _of(cell, name)]
    rows.append(_row("all", account.total))
    typer.echo(f"{account.day}, integrations of 10 s as of {account.now:%Y-%m-%d %H:%M} UT")
    _print_numbers(["", "done", *(heading for _, heading in _COLUMNS)], rows)
    found = problems(account)
    for where, what in found[:_LINES]:
        _say(f"{where}: {what}")
    if len(found) > _LINES:
        typer.echo(f"and {len(found) - _LINES} more (--json has all)")
    for each in account.calibrations:
        if not each.passed:
            _say(f"calibration {each.name} did not pass: {shortened('; '.join(each.reasons))}")
    failed = grouped(each for each in account.failures if each.stage != "reduction")
    for (stage, reason), those in list(failed.items())[:_NAMED]:
        more = f" and {len(those) - 1} more" if len(those) > 1 else ""
        _say(f"{stage} failed: {those[0].unit}{more}: {shortened(reason)}")
    if len(failed) > _NAMED:
        _say(f"and {len(failed) - _NAMED} more reasons (--json has all)")
    _say(dies_next(account))


def _say(text: str) -> None:
    """A line, broken where the terminal ends."""
    width = shutil.get_terminal_size((100, 24)).columns
    printable = "".join(c if c.isprintable() else "?" for c in text)
    typer.echo(textwrap.fill(printable, max(width, 40), subsequent_indent="    ", break_on_hyphens=False))


def _of(cell: Cell, name: str) -> bool:
    return cell.subband == name and bool(cell.counts.expected or cell.counts.recorded)


def _row(name: str, counts: Counts) -> list[str]:
    done = "" if counts.done is None else _percent(counts.done)
    return [name, done, *(str(getattr(counts, field) or "·") for field, _ in _COLUMNS)]


def _percent(share: float) -> str:
    """Rounded down, so that 100 % means all."""
    return f"{int(share * 100)}%"


def _print_numbers(columns: list[str], rows: list[list[str]]) -> None:
    """Aligned right, which tables of words are not; where the terminal is too narrow, without empty columns."""
    table = list(zip(columns, *rows, strict=True))
    if sum(max(map(len, column)) + 2 for column in table) - 2 > shutil.get_terminal_size((100, 24)).columns:
        table = [column for column in table if set(column[1:]) != {"·"}]
    widths = [max(map(len, column)) for column in table]
    for row in zip(*table, strict=True):
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        typer.echo("  ".join([row[0].ljust(widths[0]), *cells[1:]]).rstrip())


def _resubmit(settings: Config, places: Places, day: date_type, now: datetime, which: Which, as_json: bool) -> None:
    from orca.events.again import ask_again

    asked: list[Asked] = ask_again(settings, places, day, now, failed=which is Which.failed)
    if as_json:
        typer.echo(json.dumps([each.plain() for each in asked], indent=2))
    elif not asked:
        typer.echo(f"nothing of {day} is {'failed' if which is Which.failed else 'without a product'}")
    else:
        print_table(["what", "integrations", "deployment", "flow run"], [each.row() for each in asked])
        count = sum(bool(each.flow_run) for each in asked)
        typer.echo(f"{count} of {len(asked)} asked for")
    if any(each.refused for each in asked):
        complain("error", "some could not be asked for")
        raise typer.Exit(1)
