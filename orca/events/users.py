"""Users of RabbitMQ who share a broker and nothing else: each has a vhost, a password and a configuration."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import yaml

from orca import config
from orca.cluster.machine import standing
from orca.cluster.machine.broker import user_definitions
from orca.cluster.machine.standing import write_private
from orca.config import Config
from orca.config.secret import SecretUri
from orca.disk import make_folder, storage_errors
from orca.errors import ConfigError, InputError
from orca.events.administrators import Administrator
from orca.events.broker import setup

TAG = "management"
"""What a user needs besides permissions to ask the management API; it shows him his own vhost alone."""
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")
_TAKEN = ("guest", "default")
_EVERYTHING = ".*"


@dataclass(frozen=True)
class User:
    """A user of the broker.

    Attributes
    ----------
    name : str
    tags : tuple of str
    rights : dict
        Vhost -> what he may do there, in words.
    connections : int
    """

    name: str
    tags: tuple[str, ...]
    rights: dict[str, str]
    connections: int


@dataclass(frozen=True)
class Added:
    """What `add` made.

    Attributes
    ----------
    name, vhost : str
    file : Path
        His configuration.
    declared : tuple of str
        Exchanges and queues that were not there.
    """

    name: str
    vhost: str
    file: Path
    declared: tuple[str, ...]


def add(
    settings: Config, admin: Administrator, name: str, file: Path, vhost: str | None = None, *, force: bool = False
) -> Added:
    """Make a user, a vhost that he may do all in, the queues there, and a configuration with his new password.

    What was interrupted may be called again: the password is written down first, in a hidden file beside `file`.

    Parameters
    ----------
    settings : Config
        Of the administrator: address of the broker, and what its users share.
    admin : Administrator
    name : str
        Also the `queue.prefix`.
    file : Path
        Gets the configuration, for its owner's eyes only.
    vhost : str, optional
        Called like the user, unless given.
    force : bool
        Replace a file that is there, and give a user that is there a new password.

    Raises
    ------
    InputError
        A name that is none, or is taken; the file is there.
    StorageError
        The file cannot be written.
    RightsError, BrokerAwayError, InfrastructureError, ProgramError
        Of the broker.
    """
    place = checked_name(name) if vhost is None else _checked_vhost(vhost)
    if file.exists() and not force:
        raise InputError("there is such a file already", file, "Choose another --out, or replace it with --force")
    part = file.with_name(f".{file.name}.part")
    begun = _begun(part, checked_name(name))
    known = admin.definitions()
    _refuse_taken(known, admin, name, begun=begun is not None, force=force)
    if vhost is None and (others := _others(known, name, place)):
        remedy = f"Choose another name, or say --vhost {place} to share it"
        raise InputError(f"vhost {place} is used by {', '.join(others)}", remedy=remedy)
    password = begun or secrets.token_urlsafe(24)
    make_folder(file.absolute().parent)
    with storage_errors(file):
        write_private(part, _configuration(settings, admin, name, password, place))
    admin.define(user_definitions(name, password, place, TAG))
    made = setup(config.load(part))
    with storage_errors(file):
        part.replace(file)
    return Added(name, place, file, tuple(each.name for each in made))


def checked_name(name: str) -> str:
    """A name that RabbitMQ, files and command lines take.

    Raises
    ------
    InputError
        It is none.
    """
    if not _NAME.fullmatch(name):
        problem = f"{name!r} is no name for a user"
        raise InputError(problem, remedy="A letter, then letters, digits, - and _, all small, at most 31 in all")
    if name in _TAKEN:
        raise InputError(f"no user may be called {name}", remedy="Choose another name")
    return name


def _checked_vhost(name: str) -> str:
    if name != "/" and not _NAME.fullmatch(name):
        raise InputError(f"{name!r} is no name for a vhost", remedy="Choose one as for a user, or /")
    return name


def _begun(part: Path, name: str) -> str | None:
    """The password that an `add` of this user wrote down before it was interrupted."""
    if not part.exists():
        return None
    try:
        uri = config.load(part).queue.broker_uri
    except ConfigError:
        return None
    parts = urlsplit("" if uri is None else uri.reveal())
    return unquote(parts.password or "") or None if parts.username == name else None


def _refuse_taken(known: dict[str, Any], admin: Administrator, name: str, *, begun: bool, force: bool) -> None:
    user = next((each for each in known.get("users", ()) if each["name"] == name), None)
    if user is None:
        return
    if name == admin.user or "administrator" in _tags(user):
        raise InputError(f"{name} is an administrator of RabbitMQ", remedy="Choose another name")
    if not begun and not force:
        remedy = "--force gives him a new password, and his configuration of now no longer works"
        raise InputError(f"there is a user {name} already", remedy=remedy)


def _others(known: dict[str, Any], name: str, vhost: str) -> list[str]:
    """Users with rights in a vhost, besides one and administrators."""
    administrators = {each["name"] for each in known.get("users", ()) if "administrator" in _tags(each)}
    users = {each["user"] for each in known.get("permissions", ()) if each["vhost"] == vhost}
    return sorted(users - administrators - {name})


def _tags(user: dict[str, Any]) -> tuple[str, ...]:
    """A list in RabbitMQ 3.9 and later, text before."""
    tags = user.get("tags") or ()
    return tuple(tags.split(",")) if isinstance(tags, str) else tuple(tags)


def _configuration(settings: Config, admin: Administrator, name: str, password: str, vhost: str) -> str:
    values: dict[str, dict[str, str]] = {
        "queue": {"prefix": name, "broker_uri": _broker_uri(settings, admin, name, password, vhost)}
    }
    if admin.uri is not None:
        values["queue"]["management_uri"] = admin.uri.reveal()
    if settings.network.tls is not None:
        values["network"] = {"tls": str(settings.network.tls)}
    shared = {"prefect": ("api_url", settings.prefect.api_url), "dask": ("address", settings.dask.address)}
    for section, (key, value) in shared.items():
        text = value.reveal() if isinstance(value, SecretUri) and not value.has_password else value
        if isinstance(text, str):
            values[section] = {key: text}
    head = f"# Configuration of ORCA for {name}. It holds a password: keep it to yourself.\n"
    head += "# What it leaves out has its default; `orca config show` prints all that is in force.\n"
    return head + yaml.safe_dump(values, sort_keys=False)


def _broker_uri(settings: Config, admin: Administrator, name: str, password: str, vhost: str) -> str:
    known = standing.broker_uri(settings)
    default = f"{'amqps' if settings.network.tls else 'pyamqp'}://{admin.host}"
    parts = urlsplit(default if known is None else known.reveal())
    place = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{quote(name, safe='')}:{quote(password, safe='')}@{place}/{quote(vhost, safe='')}"


def users(admin: Administrator) -> list[User]:
    """All users of the broker, by name.

    Raises
    ------
    RightsError, BrokerAwayError, InfrastructureError, ProgramError
        Of the broker.
    """
    known, connections = admin.definitions(), admin.connections()
    rights: dict[str, dict[str, str]] = {}
    for each in known.get("permissions", ()):
        rights.setdefault(each["user"], {})[each["vhost"]] = _rights(each)
    found = (User(u["name"], _tags(u), rights.get(u["name"], {}), connections[u["name"]]) for u in known["users"])
    return sorted(found, key=lambda user: user.name)


def _rights(permission: dict[str, str]) -> str:
    patterns = {right: permission.get(right, "") for right in ("configure", "write", "read")}
    if set(patterns.values()) == {_EVERYTHING}:
        return "all"
    return ", ".join(f"{right} {pattern}" for right, pattern in patterns.items() if pattern not in ("", "^$")) or "none"


def belongings(admin: Administrator, name: str) -> dict[str, dict[str, int]]:
    """Vhosts that nobody else uses, which go with the user: vhost -> queue -> messages in it.

    Raises
    ------
    InputError
        There is no such user, or he is an administrator.
    RightsError, BrokerAwayError, InfrastructureError, ProgramError
        Of the broker.
    """
    known = admin.definitions()
    user = next((each for each in known.get("users", ()) if each["name"] == name), None)
    if user is None:
        raise InputError(f"there is no user {name}", remedy="`orca users ls` shows all")
    if name == admin.user or "administrator" in _tags(user):
        raise InputError(f"{name} is an administrator of RabbitMQ", remedy="Remove him with rabbitmqctl")
    vhosts = {each["vhost"] for each in known.get("permissions", ()) if each["user"] == name} - {"/"}
    return {vhost: admin.waiting(vhost) for vhost in sorted(vhosts) if not _others(known, name, vhost)}


def remove(admin: Administrator, name: str) -> list[str]:
    """Remove a user, close his connections, and remove the vhosts that nobody else uses; returns these.

    Raises
    ------
    As `belongings` does.
    """
    vhosts = list(belongings(admin, name))
    admin.remove_user(name)
    for vhost in vhosts:
        admin.remove_vhost(vhost)
    return vhosts
