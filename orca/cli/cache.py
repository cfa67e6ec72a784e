"""The spectrum cache: `orca cache stats | ls | rm | clear`, of the entries of one's own prefix."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from orca.cli import configuration
from orca.cli.changes import AsJson, print_table
from orca.cli.queues import Yes, ask
from orca.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orca.cache import Label, SpectrumCache, Spill
    from orca.cache.statistics import Statistics

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Show what is in the spectrum cache, and remove it."
)

Kinds = Annotated[
    list[str] | None, typer.Argument(metavar="[KIND]...", help="Spectra, such as cross.", show_default=False)
]
Day = Annotated[str | None, typer.Option("--date", metavar="DATE", help="Only of that day (UTC), as 2026-01-10.")]


@app.command()
def stats(as_json: AsJson = False) -> None:
    """Show what the cache takes, what of it is yours, how old that is, and what a full day needs."""
    with _opened() as (cache, spill):
        from orca.cache.statistics import statistics

        found = statistics(cache)
        waiting = len(spill.keys())
    if as_json:
        values = asdict(found) | {"entries": found.entries, "hit_rate": found.hit_rate, "spilled": waiting}
        typer.echo(json.dumps(values | {"prefix": cache.prefix}, indent=2))
        return
    _print_room(found)
    if found.kinds:
        columns = ["spectrum", "entries", "subbands", "size", "from", "to (UT)", "youngest", "oldest"]
        print_table(columns, [_row(each) for each in found.kinds])
    else:
        typer.echo(f"prefix {cache.prefix} has no entries: they are dropped when a product has them")
    if waiting:
        typer.echo(f"beside the products, in {spill.folder}: {_entries(waiting)}")
    day = found.day
    hours = f"{found.expire_s / 3600:g} h"
    typer.echo(
        f"a full day: {day.entries} entries, {_size(day.samples_bytes)} of samples, {_size(day.stored_bytes)} in all; "
        f"{_size(day.held_bytes)} at a time, as they expire after {hours}"
    )


@app.command("ls")
def list_entries(
    kinds: Kinds = None,
    day: Day = None,
    keys: Annotated[bool, typer.Option("--keys", help="Print the keys, one a line.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show your entries by spectrum and subband."""
    with _opened() as (cache, _):
        found = _chosen(cache, kinds, day)
    if keys:
        for key in found:
            typer.echo(key)
        return
    rows = _by_subband([cache.label(key) for key in found])
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    elif not rows:
        typer.echo("there are no such entries: they are dropped when a product has them")
    else:
        columns = ["spectrum", "subband", "entries", "from", "to (UT)"]
        print_table(columns, [[str(value) for value in row.values()] for row in rows])


@app.command("rm")
def remove(kinds: Kinds = None, day: Day = None, yes: Yes = False) -> None:
    """Remove entries of some spectra, or of a day: what is not in a product yet has to be computed again."""
    if not kinds and day is None:
        raise InputError("name spectra, or a day with --date", remedy="`orca cache clear` removes everything")
    with _opened() as (cache, _):
        found = _chosen(cache, kinds, day)
        ask(f"Remove {_entries(len(found))} of {cache.prefix} from {cache.store.where}?", yes)
        typer.echo(f"removed {_entries(cache.delete(found))}")


@app.command()
def clear(yes: Yes = False) -> None:
    """Remove all your entries, and what waits beside the products."""
    with _opened() as (cache, spill):
        found, waiting = cache.keys(), len(spill.keys())
        beside = f", and {waiting} in {spill.folder}" if waiting else ""
        ask(f"Remove {_entries(len(found))} of {cache.prefix} from {cache.store.where}{beside}?", yes)
        removed = cache.delete(found)
        spill.clear()
        typer.echo(f"removed {_entries(removed + waiting)}")


@contextmanager
def _opened() -> Iterator[tuple[SpectrumCache, Spill]]:
    """Cache and spill of the configuration."""
    settings = configuration()
    from orca.cache import SpectrumCache, Spill
    from orca.cluster.security import secured
    from orca.config.secret import SecretUri
    from orca.naming import spill_folder

    uri, prefix = secured(settings.cache.uri, settings.network.tls), settings.queue.prefix
    where = uri.reveal() if isinstance(uri, SecretUri) else uri
    spill = Spill(spill_folder(settings.paths.dynspec, prefix), prefix)
    with SpectrumCache.open(where, prefix, settings.cache.expire_hours * 3600, patience_s=1.0) as cache:
        yield cache, spill


def _chosen(cache: SpectrumCache, kinds: Sequence[str] | None, day: str | None) -> list[str]:
    first_s = last_s = None
    if day is not None:
        from datetime import date

        from orca.dynspec.axes import midnight_s

        try:
            first_s = midnight_s(date.fromisoformat(day))
        except ValueError:
            raise InputError(f"{day!r} is no date", remedy="Give one like 2026-01-10") from None
        last_s = first_s + 86399.999
    wanted: Sequence[str | None] = kinds or [None]
    return [key for kind in dict.fromkeys(wanted) for key in cache.keys(kind, first_s, last_s)]


def _by_subband(labels: Sequence[Label]) -> list[dict[str, str | int]]:
    from itertools import groupby

    ordered = sorted(labels, key=lambda each: (each.kind, each.subband, each.time_s))
    rows: list[dict[str, str | int]] = []
    for (kind, band), group in groupby(ordered, key=lambda each: (each.kind, each.subband)):
        times = [each.time_s for each in group]
        span = {"from": _moment(times[0]), "to": _moment(times[-1])}
        rows.append({"spectrum": kind, "subband": band, "entries": len(times), **span})
    return rows


def _print_room(found: Statistics) -> None:
    room = found.room
    limit = f" of {_size(room.limit_bytes)}; when that is full, {room.when_full}" if room.limit_bytes else ""
    used = f"{_size(room.used_bytes)} used, {_size(room.peak_bytes)} at its peak{limit}"
    typer.echo(f"{room.where} ({room.version}): {used}")
    if found.hit_rate is not None:
        broken = f", {found.broken} broken" if found.broken else ""
        typer.echo(f"of {found.asked} entries asked for, {found.found} were there ({found.hit_rate:.1%}){broken}")


def _row(each: object) -> list[str]:
    values = asdict(each)  # type: ignore[call-overload]
    ages = [_age(values["youngest_s"]), _age(values["oldest_s"])]
    span = [_moment(values["first_s"]), _moment(values["last_s"])]
    return [
        values["kind"],
        str(values["entries"]),
        str(values["subbands"]),
        _size(values["stored_bytes"]),
        *span,
        *ages,
    ]


def _entries(count: int) -> str:
    return f"{count} {'entry' if count == 1 else 'entries'}"


def _size(n_bytes: int) -> str:
    from orca.disk import readable

    return readable(float(f"{n_bytes:.3g}"))


def _age(seconds: float | None) -> str:
    from orca.cluster.machine.overview import duration

    return "" if seconds is None else duration(max(0.0, seconds))


def _moment(time_s: float) -> str:
    from orca.telescope import datetime_of

    return f"{datetime_of(time_s):%Y-%m-%d %H:%M:%S}"
