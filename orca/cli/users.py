"""Users of RabbitMQ, each with a vhost of his own: `orca users add | ls | rm`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orca.cli import configuration
from orca.cli.changes import AsJson, print_table
from orca.cli.queues import Yes, ask
from orca.errors import InputError

if TYPE_CHECKING:
    from orca.config import Config, SecretUri
    from orca.events.administrators import Administrator

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Make, show and remove users of RabbitMQ.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the user.")]
AdminUri = Annotated[
    str | None,
    typer.Option(
        "--admin-uri",
        metavar="URI",
        envvar="ORCA_BROKER_ADMIN",
        help="Management API and administrator, http://ADMIN@HOST:15672; asks for the password.",
    ),
]
_EXAMPLE = "http://admin@host:15672"


@app.command()
def add(
    name: Name,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Gets his configuration. Default: orca-conf-NAME.yml.")
    ] = None,
    vhost: Annotated[str | None, typer.Option(metavar="VHOST", help="Of the user. Default: NAME.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file, and give a user that is there a new password.")
    ] = False,
    admin_uri: AdminUri = None,
    as_json: AsJson = False,
) -> None:
    """Make a user with a vhost, queues and a password of his own, and write his configuration."""
    from orca.events import users

    file = (out or Path(f"orca-conf-{users.checked_name(name)}.yml")).expanduser().absolute()
    settings = configuration()
    added = users.add(settings, _administrator(settings, admin_uri), name, file, vhost, force=force)
    if as_json:
        typer.echo(json.dumps(asdict(added), default=str))
        return
    made = f"{len(added.declared)} queues and exchanges made there"
    typer.echo(f"user {added.name}: vhost {added.vhost}, {made if added.declared else 'all queues were there'}")
    typer.echo(f"his configuration, with his password: {added.file}")


@app.command("ls")
def list_users(as_json: AsJson = False, admin_uri: AdminUri = None) -> None:
    """Show all users: where they may do what, and how many connections they have."""
    from orca.events import users

    settings = configuration()
    found = users.users(_administrator(settings, admin_uri))
    if as_json:
        typer.echo(json.dumps([asdict(user) for user in found], indent=2))
        return
    rows = [
        [
            user.name,
            ", ".join(user.tags),
            "\n".join(user.rights),
            "\n".join(user.rights.values()),
            str(user.connections),
        ]
        for user in found
    ]
    print_table(["user", "tags", "vhost", "rights", "connections"], rows)


@app.command()
def rm(name: Name, yes: Yes = False, admin_uri: AdminUri = None, as_json: AsJson = False) -> None:
    """Remove a user, his connections, and the vhosts with their queues that nobody else uses."""
    from orca.events import users

    settings = configuration()
    admin = _administrator(settings, admin_uri)
    for vhost, queues in users.belongings(admin, name).items():
        held = [f"{queue} {count}" for queue, count in queues.items() if count]
        typer.echo(f"vhost {vhost} goes, too: messages: {', '.join(held) or 'none'}", err=True)
    ask(f"Remove user {name}?", yes)
    vhosts = users.remove(admin, name)
    told = f"removed user {name}" + (f" and vhost {', '.join(vhosts)}" if vhosts else "")
    typer.echo(json.dumps({"user": name, "vhosts": vhosts}) if as_json else told)


def _administrator(settings: Config, text: str | None) -> Administrator:
    from orca.events.administrators import administrator

    return administrator(settings, None if text is None else _with_password(text))


def _with_password(text: str) -> SecretUri:
    """The address, with the password that somebody at the terminal types where it has none."""
    from urllib.parse import quote, urlsplit

    from orca.config.secret import parse_uri

    try:
        uri = parse_uri(text, ("http", "https"), _EXAMPLE)
    except ValueError as error:
        raise InputError(f"--admin-uri: {error}") from None
    parts = urlsplit(uri.reveal())
    if not parts.username:
        raise InputError("--admin-uri names no user", remedy=f"Write it like {_EXAMPLE}")
    if parts.password is not None:
        return uri
    if not sys.stdin.isatty():
        raise InputError("--admin-uri has no password, and there is nobody to ask", remedy="Put it into the address")
    password = typer.prompt(f"Password of {parts.username}", hide_input=True, err=True)
    place = parts.netloc.rpartition("@")[2]
    return parse_uri(
        parts._replace(netloc=f"{parts.username}:{quote(password, safe='')}@{place}").geturl(),
        ("http", "https"),
        _EXAMPLE,
    )
