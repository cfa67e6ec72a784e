"""The queues of the pools: `orca queues ls | peek | purge | delete`, `orca queues dead ls | show | replay | drop`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from orca.cli import complain, configuration
from orca.cli.changes import AsJson, print_table
from orca.errors import InputError

if TYPE_CHECKING:
    from orca.events.letters import Letter
    from orca.events.queues import QueueState

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Show the queues of the pools, and empty them.")
dead = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Look at dead letters, send them again, drop them."
)
app.add_typer(dead, name="dead")

PoolArgument = Annotated[str, typer.Argument(metavar="POOL", help="default, imaging, bandpass or cosmology.")]
PoolOption = Annotated[str | None, typer.Option("--pool", metavar="POOL", help="Only those of this pool.")]
Ids = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", help="As `orca queues dead ls` shows them.", show_default=False)
]
All = Annotated[bool, typer.Option("--all", help="All of them.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]

BODY_SHOWN = 4000
"""Bytes of a body that are shown."""


@app.command("ls")
def list_queues(as_json: AsJson = False) -> None:
    """Show what waits in each queue, what is being worked on, what is dead, and how old the oldest is."""
    settings = configuration()
    from orca.events.queues import overview

    states = overview(settings, tell=lambda text: complain("warning", text), announcements=True)
    if as_json:
        typer.echo(json.dumps([asdict(state) for state in states], indent=2))
        return
    print_table(
        ["queue", "ready", "taken", "dead", "consumers", "done a second", "oldest"], [_row(state) for state in states]
    )
    if missing := [state.name for state in states if not state.declared]:
        complain("warning", f"not there: {', '.join(missing)}. `orca events setup` makes them")
    for state in states:
        if state.declared and state.problem:
            complain("warning", f"{state.name}: {state.problem}")
        elif state.looked_s:
            seen = f"as it was seen {_duration(state.looked_s)} ago; looking more often would use up its deliveries"
            typer.echo(f"{state.name}: its oldest message is told {seen}")


@app.command()
def peek(
    pool: PoolArgument,
    count: Annotated[int, typer.Option("--count", metavar="N", help="So many, 32 at most.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Show the messages that come next; they stay where they are. Counts as one of the 20 deliveries of each."""
    settings = configuration()
    from orca.events import queues

    letters = queues.peek(settings, _known(pool), count)
    if as_json:
        typer.echo(json.dumps([_as_json(letter) for letter in letters], indent=2))
    elif not letters:
        typer.echo("nothing waits")
    for letter in [] if as_json else letters:
        _print_letter(letter)


@app.command()
def purge(pool: PoolArgument, yes: Yes = False, as_json: AsJson = False) -> None:
    """Remove all messages that wait in a queue. What runs goes on."""
    settings = configuration()
    from orca.events import queues

    [state] = queues.overview(settings, [_known(pool)])
    ask(f"Remove {counted(state.ready, 'message')} from queue {state.name}?", yes)
    removed = queues.purge(settings, pool)
    _say({"queue": state.name, "removed": removed}, f"{state.name}: removed {counted(removed, 'message')}", as_json)


@app.command()
def delete(
    pool: PoolArgument,
    yes: Yes = False,
    force: Annotated[bool, typer.Option("--force", help="Even if there are messages or consumers.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete a queue and its queue of dead letters, when both are empty and nobody uses them."""
    settings = configuration()
    from orca.events import queues

    [state] = queues.overview(settings, [_known(pool)])
    held = f"{counted(state.ready, 'message')}, {counted(state.dead, 'dead letter')}"
    ask(f"Delete queue {state.name} and its dead letters ({held}, {counted(state.consumers, 'consumer')})?", yes)
    deleted = queues.delete(settings, pool, force=force)
    told = f"deleted: {', '.join(deleted)}" if deleted else f"there is no queue {state.name}"
    _say({"deleted": deleted}, told, as_json)


@dead.command("ls")
def list_dead(
    pool: PoolOption = None,
    count: Annotated[int, typer.Option("--count", metavar="N", min=1, help="At most so many of each pool.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Show the dead letters, the oldest first, and why they are dead."""
    settings = configuration()
    from orca.events.dead import chosen

    with chosen(settings, None, _pools(pool), count=count) as found:
        letters = found.letters
    if as_json:
        typer.echo(json.dumps([_as_json(letter) for letter in letters], indent=2))
        return
    if not letters:
        typer.echo("there are no dead letters")
        return
    several = len({letter.pool for letter in letters}) > 1
    rows = [[str(a.number), a.short, _duration(a.age_s), _printable(a.what), _printable(_why(a))] for a in letters]
    columns = ["no.", "id", "age", "what", "reason"]
    if several:
        columns, rows = ["pool", *columns], [[a.pool, *row] for a, row in zip(letters, rows, strict=True)]
    print_table(columns, rows)
    if any(sum(letter.pool == each for letter in letters) == count for each in _pools(pool)):
        typer.echo(f"the first {count} of a pool are shown (--count)")


@dead.command()
def show(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="As `orca queues dead ls` shows it.")],
    pool: PoolOption = None,
    as_json: AsJson = False,
) -> None:
    """Show all of a dead letter."""
    settings = configuration()
    from orca.events.dead import chosen

    with chosen(settings, [letter_id], _pools(pool)) as found:
        letters = found.letters
    if as_json:
        typer.echo(json.dumps([_as_json(letter) for letter in letters], indent=2))
    for letter in [] if as_json else letters:
        _print_letter(letter)


@dead.command()
def replay(ids: Ids = None, every: All = False, pool: PoolOption = None, as_json: AsJson = False) -> None:
    """Send dead letters to their queues again, as a new attempt."""
    settings, wanted = configuration(), _wanted(ids, every)
    from orca.events.dead import chosen

    with chosen(settings, wanted, _pools(pool)) as found:
        sent = []
        try:
            for letter in found.replay():
                sent.append(letter)
                attempt = "as it was" if letter.attempt is None else f"attempt {letter.attempt + 1}"
                if not as_json:
                    typer.echo(f"{letter.short} {_printable(letter.what)}: {attempt}")
        finally:
            left = len(found.letters) - len(sent)
            told = f"sent {counted(len(sent), 'dead letter')} again" + (f", {left} stay" if left else "")
            _say({"sent": [letter.id for letter in sent], "stay": left}, told, as_json)


@dead.command()
def drop(
    ids: Ids = None, every: All = False, pool: PoolOption = None, yes: Yes = False, as_json: AsJson = False
) -> None:
    """Remove dead letters for good."""
    settings, wanted = configuration(), _wanted(ids, every)
    from orca.events.dead import chosen

    with chosen(settings, wanted, _pools(pool)) as found:
        if found.letters:
            ask(f"Remove {counted(len(found.letters), 'dead letter')} for good?", yes)
        found.drop()
    removed = [letter.id for letter in found.letters]
    _say({"removed": removed}, f"removed {counted(len(removed), 'dead letter')}", as_json)


def _say(values: dict[str, object], text: str, as_json: bool) -> None:
    """What was done, for machines or for people."""
    typer.echo(json.dumps(values) if as_json else text)


def _known(pool: str) -> str:
    from orca.cluster.pools import POOLS

    if pool not in POOLS:
        raise InputError(f"there is no pool {pool}", remedy=f"There are {', '.join(POOLS)}")
    return pool


def _pools(pool: str | None) -> Sequence[str]:
    from orca.cluster.pools import POOLS

    return POOLS if pool is None else [_known(pool)]


def _wanted(ids: list[str] | None, every: bool) -> list[str] | None:
    if bool(ids) == every:
        raise InputError("name dead letters by their ids, or all with --all", remedy="`orca queues dead ls` shows them")
    return None if every else ids


def ask(question: str, yes: bool) -> None:
    """Go on only when somebody says so."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise InputError("there is nobody to ask", remedy="Say --yes")
    typer.confirm(question, abort=True)


def _row(state: QueueState) -> list[str]:
    if not state.declared:
        return [state.name, "none", "", str(state.dead or ""), "", "", ""]
    taken = "-" if state.unacknowledged is None else str(state.unacknowledged)
    rate = "-" if state.rate_per_s is None else f"{state.rate_per_s:.2g}"
    return [
        state.name,
        str(state.ready),
        taken,
        str(state.dead),
        str(state.consumers),
        rate,
        _duration(state.oldest_s),
    ]


def _duration(seconds: float | None) -> str:
    from orca.cluster.machine.overview import duration

    return "" if seconds is None else duration(seconds)


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _why(letter: Letter) -> str:
    """Its reason without what stands beside it already."""
    return letter.reason.removeprefix(f"{letter.what}: ")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _print_letter(letter: Letter) -> None:
    from orca.events.letters import NOTED

    lines = {
        "id": letter.id,
        "queue": f"{letter.pool}, number {letter.number}",
        "what": letter.what,
        "attempt": "" if letter.attempt is None else str(letter.attempt),
        "sent": _ago(letter.sent),
        "reason": letter.reason,
        "died": _ago(letter.died),
        "came back": counted(letter.deliveries, "time") if letter.deliveries else "",
    }
    typer.echo("\n".join(f"{name:<10} {_printable(text)}" for name, text in lines.items() if text))
    for name, value in letter.headers.items():
        if name not in NOTED:
            typer.echo(f"{'header':<10} {_printable(f'{name}: {value}')[:500]}")
    typer.echo(f"{_body(letter)}\n")


def _ago(moment: float | None) -> str:
    import time
    from datetime import UTC, datetime

    if moment is None:
        return ""
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S} UTC, {_duration(time.time() - moment)} ago"


def _body(letter: Letter) -> str:
    """The body, indented where it is JSON, escaped where it cannot be printed, and not too much of it."""
    try:
        text = json.dumps(json.loads(letter.body), indent=2)
    except (ValueError, RecursionError):
        text = letter.body[: 2 * BODY_SHOWN].decode(errors="backslashreplace")
        text = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= BODY_SHOWN else f"{text[:BODY_SHOWN]}\n... {len(letter.body)} bytes in all"


def _as_json(letter: Letter) -> dict[str, object]:
    values = asdict(letter) | {"short": letter.short, "age_s": letter.age_s}
    values["body"] = letter.body[:BODY_SHOWN].decode(errors="backslashreplace")
    values["bytes"] = len(letter.body)
    values["headers"] = {name: str(value) for name, value in letter.headers.items()}
    return values
