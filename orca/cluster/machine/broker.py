"""RabbitMQ of one user on one machine: a node, a port, a user and a data folder of its own.

Erlang nodes find each other through a name server, epmd. Ours is private as well: the machine's common one would be
started by whoever comes first, and would stay for ever.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import shutil
import socket
from pathlib import Path
from typing import Any

from orca.cluster.machine.standing import write_private
from orca.cluster.nodes.parts import Part
from orca.cluster.security import CA, CERTIFICATE, KEY

USER = "orca"
_LOOPBACK = "127.0.0.1"


def find_program() -> Path | None:
    """RabbitMQ's own start script; None where it is not installed.

    Debian has a wrapper of that name on PATH, which starts the system's node and wants to be root for it.
    """
    if shutil.which("epmd") is None or shutil.which("erl") is None:
        return None
    scripts = sorted(Path("/usr/lib/rabbitmq/lib").glob("*/sbin/rabbitmq-server"))
    if on_path := shutil.which("rabbitmq-server"):
        scripts.insert(0, Path(on_path).resolve())
    own = [path for path in scripts if path.name == "rabbitmq-server" and path.with_name("rabbitmq-env").exists()]
    return own[-1] if own else None


def name_server_part(port: int) -> Part:
    """The name server of our node alone."""
    epmd = shutil.which("epmd") or "epmd"
    return Part("epmd", (epmd, "-port", str(port), "-address", _LOOPBACK), {})


def broker_part(folder: Path, host: str, ports: dict[str, int], password: str, tls: Path | None = None) -> Part:
    """RabbitMQ; writes what it reads into `folder`, the password as a hash.

    Parameters
    ----------
    folder : Path
        Of its files and data.
    host : str
        It listens there.
    ports : dict of int
        ``rabbitmq``, ``rabbitmq-nodes`` and ``epmd``, the last two on the loopback interface; ``rabbitmq-management``
        for the management API, which is left out without it, or where it is not installed.
    password : str
        Of the user `USER`.
    tls : Path, optional
        Folder of the cluster's certificates: then nothing is listened to without TLS.
    """
    folder.mkdir(exist_ok=True)
    lines = ["log.console = true", "log.console.level = warning", "log.file = false"]
    lines += [f"load_definitions = {folder}/definitions.json"]
    script = find_program() or Path("rabbitmq-server")
    address = f"{host}:{ports['rabbitmq']}"
    if tls is None:
        lines += [f"listeners.tcp.1 = {address}"]
    else:
        lines += ["listeners.tcp = none", f"listeners.ssl.1 = {address}", *_certificates("ssl_options", tls)]
    managed = "rabbitmq-management" in ports and _has_management(script)
    if managed:
        lines += _management(host, ports["rabbitmq-management"], tls)
    write_private(folder / "rabbitmq.conf", "\n".join(lines) + "\n")
    write_private(folder / "enabled_plugins", "[rabbitmq_management].\n" if managed else "[].\n")
    write_private(folder / "definitions.json", _definitions(password))
    return Part("rabbitmq", (str(script), "-noinput"), _environment(folder, ports))


def _has_management(script: Path) -> bool:
    """Whether the plugin is there: with one that is missing, RabbitMQ would not start."""
    return any((script.parent.parent / "plugins").glob("rabbitmq_management-*"))


def _management(host: str, port: int, tls: Path | None) -> list[str]:
    """Where the management API listens: it takes no names."""
    kind, address = "tcp" if tls is None else "ssl", socket.getaddrinfo(host.strip("[]"), port)[0][4][0]
    lines = [f"management.{kind}.ip = {address}", f"management.{kind}.port = {port}"]
    return lines if tls is None else [*lines, *_certificates("management.ssl", tls)]


def _certificates(prefix: str, folder: Path) -> list[str]:
    """Who connects has to have a certificate of the cluster, too."""
    files = {"cacertfile": CA, "certfile": CERTIFICATE, "keyfile": KEY}
    lines = [f"{prefix}.{key} = {folder / name}" for key, name in files.items()]
    return [*lines, f"{prefix}.verify = verify_peer", f"{prefix}.fail_if_no_peer_cert = true"]


def _environment(folder: Path, ports: dict[str, int]) -> dict[str, str]:
    return {
        "HOME": str(folder),  # of the cookie by which nodes know each other
        "RABBITMQ_NODENAME": "orca@localhost",
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_CONF_ENV_FILE": os.devnull,
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_DIST_PORT": str(ports["rabbitmq-nodes"]),
        "RABBITMQ_ALLOW_INPUT": "1",  # the script becomes the node, and signals reach it
        "ERL_EPMD_PORT": str(ports["epmd"]),
        "ERL_AFLAGS": "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
        "ERL_CRASH_DUMP": str(folder / "erl_crash.dump"),
    }


def _definitions(password: str) -> str:
    """Our user and his host, taken over at each start; RabbitMQ's guest is not made then."""
    return json.dumps(user_definitions(USER, password, "/", "administrator"))


def user_definitions(name: str, password: str, vhost: str, tag: str) -> dict[str, Any]:
    """A user who may do all in a vhost, and the vhost, as RabbitMQ imports them; the password as a hash."""
    salt = secrets.token_bytes(4)
    user = {
        "name": name,
        "password_hash": base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode(),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": tag,
    }
    everything = {"user": name, "vhost": vhost, "configure": ".*", "write": ".*", "read": ".*"}
    return {"users": [user], "vhosts": [{"name": vhost}], "permissions": [everything]}
