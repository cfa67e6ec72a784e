"""Who may make users of RabbitMQ: an administrator by the management API, or root by rabbitmqctl on its machine.

Both take and give users, vhosts and permissions in the same form, RabbitMQ's definitions.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections import Counter
from typing import Any, Protocol
from urllib.parse import urlsplit

import psutil

from orca.cluster.machine import standing
from orca.config import Config
from orca.config.secret import SecretUri, mask
from orca.errors import BrokerAwayError, InfrastructureError, OrcaError, ProgramError, RightsError
from orca.events import management
from orca.events.management import Management, quoted

_DEADLINE_S = 60.0
_REMEDY = (
    "Name one with --admin-uri http://ADMIN@HOST:15672 or in $ORCA_BROKER_ADMIN, "
    "or run this as root on RabbitMQ's machine, where rabbitmqctl is taken"
)


class Administrator(Protocol):
    """Who may do all at a broker."""

    user: str
    """Empty for one who is no user of the broker."""
    host: str
    """Of the broker."""
    uri: SecretUri | None
    """Of the management API, without its user; None where it is not known."""

    def definitions(self) -> dict[str, Any]:
        """Users, vhosts, permissions and more."""

    def define(self, definitions: dict[str, Any]) -> None:
        """Make what is not there, and overwrite what is."""

    def connections(self) -> Counter[str]:
        """Connections of each user."""

    def waiting(self, vhost: str) -> dict[str, int]:
        """Messages in each queue of a vhost, as of some seconds ago."""

    def remove_user(self, name: str) -> None:
        """Remove a user, and close his connections."""

    def remove_vhost(self, name: str) -> None:
        """Remove a vhost with all that is in it."""


class ByApi:
    """By the management API; what it raises is said at `Management.call`."""

    def __init__(self, api: Management) -> None:
        self.api, self.user, self.host = api, api.user, api.host
        self.uri: SecretUri | None = api.address

    def definitions(self) -> dict[str, Any]:
        found: dict[str, Any] = self.api.call("definitions") or {}
        return found

    def define(self, definitions: dict[str, Any]) -> None:
        self.api.call("definitions", method="POST", body=definitions)

    def connections(self) -> Counter[str]:
        return Counter(each.get("user", "") for each in self.api.call("connections?columns=user") or [])

    def waiting(self, vhost: str) -> dict[str, int]:
        found = self.api.call(f"queues/{quoted(vhost)}?columns=name,messages") or []
        return {each["name"]: each.get("messages", 0) for each in found}

    def remove_user(self, name: str) -> None:
        self.api.call(f"users/{quoted(name)}", method="DELETE")
        self.api.call(f"connections/username/{quoted(name)}", method="DELETE")

    def remove_vhost(self, name: str) -> None:
        self.api.call(f"vhosts/{quoted(name)}", method="DELETE")


class ByProgram:
    """By rabbitmqctl, for root on the broker's machine.

    Each may raise a ProgramError: it fails, with what it said.
    """

    def __init__(self, host: str) -> None:
        self.user, self.host = "", host
        self.uri: SecretUri | None = None

    def definitions(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(_rabbitmqctl("export_definitions", "-", "--format", "json"))
        return found

    def define(self, definitions: dict[str, Any]) -> None:
        _rabbitmqctl("import_definitions", given=json.dumps(definitions))

    def connections(self) -> Counter[str]:
        found = json.loads(_rabbitmqctl("list_connections", "user", "--formatter", "json"))
        return Counter(each["user"] for each in found)

    def waiting(self, vhost: str) -> dict[str, int]:
        found = json.loads(_rabbitmqctl("list_queues", "-p", vhost, "name", "messages", "--formatter", "json"))
        return {each["name"]: each["messages"] for each in found}

    def remove_user(self, name: str) -> None:
        _rabbitmqctl("delete_user", name)
        _rabbitmqctl("close_all_user_connections", name, "removed")

    def remove_vhost(self, name: str) -> None:
        _rabbitmqctl("delete_vhost", name)


def _rabbitmqctl(*words: str, given: str = "") -> str:
    """Run it and return what it printed; secrets go through its input, since everybody sees command lines."""
    try:
        done = subprocess.run(
            ["rabbitmqctl", "-q", *words], input=given, capture_output=True, text=True, timeout=_DEADLINE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ProgramError(f"does not run ({type(error).__name__})", "rabbitmqctl", "See that RabbitMQ runs") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        lines = [line for line in said if line.strip() and line != "Error:"]
        raise ProgramError(f"{words[0]} failed: {mask(lines[0]) if lines else done.returncode}", "rabbitmqctl")
    return done.stdout


def administrator(settings: Config, uri: SecretUri | None) -> Administrator:
    """Who makes the users.

    Parameters
    ----------
    settings : Config
    uri : SecretUri or None
        Management API of an administrator; None: that of the configuration, if its user is one, else rabbitmqctl.

    Raises
    ------
    RightsError
        Login refused, or the user is no administrator.
    BrokerAwayError
        There is no management API, and rabbitmqctl is not for us.
    """
    if uri is not None:
        return _checked(Management(uri, settings.network.tls, answer_s=management.CHANGE_S))
    api = management.find(settings, answer_s=management.CHANGE_S)
    refused: OrcaError = BrokerAwayError("there is no administrator of RabbitMQ", remedy=_REMEDY)
    if api is not None:
        try:
            return _checked(api)
        except (RightsError, BrokerAwayError) as error:
            refused = type(error)(error.problem, remedy=_REMEDY)
            refused.__cause__ = error
    host = _own_broker(settings)
    if host is None or os.geteuid() != 0 or shutil.which("rabbitmqctl") is None:
        raise refused
    try:
        _rabbitmqctl("ping")
    except ProgramError as error:
        raise refused from error
    return ByProgram(host)


def _checked(api: Management) -> ByApi:
    told = api.call("whoami")
    if not isinstance(told, dict):
        raise InfrastructureError(f"{api.name} is none: it does not know who asks")
    if "administrator" not in told.get("tags", ()):
        raise RightsError(f"user {api.user} of RabbitMQ is no administrator", remedy=_REMEDY)
    return ByApi(api)


def _own_broker(settings: Config) -> str | None:
    """Host of the broker if it is this machine; None when it is another one, or a private one of `orca up`."""
    if settings.queue.broker_uri is None:
        return socket.getfqdn() if standing.standing(settings) is None else None
    host = urlsplit(settings.queue.broker_uri.reveal()).hostname or ""
    own = {address.address for each in psutil.net_if_addrs().values() for address in each}
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return None
    return host if found & own else None
