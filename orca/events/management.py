"""RabbitMQ's management API: what AMQP does not tell, and what only administrators may."""

from __future__ import annotations

import base64
import json
import ssl
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from orca.cluster.machine import standing
from orca.cluster.security import CA, CERTIFICATE, KEY
from orca.config import Config
from orca.config.secret import SecretUri, mask
from orca.errors import BrokerAwayError, InfrastructureError, RightsError

CONNECT_S = 2.0
"""For a connection: often there is no management API."""
ANSWER_S = 10.0
"""For the answer to a question, which is asked beside other things."""
CHANGE_S = 60.0
"""For a change, which nobody should have to guess about: a vhost is made in seconds where the disk is busy."""
_AVERAGE_S = 60
_REFUSALS = {
    "Login failed": ("refuses the login of user {user}", "Check user and password in its address"),
    "Not management user": (
        "is not for user {user}",
        "Have somebody give it one of RabbitMQ's tags, such as management",
    ),
    "Not administrator user": (
        "does that for administrators only, and user {user} is none",
        "Name one in --admin-uri or $ORCA_BROKER_ADMIN, or have somebody give this user the tag administrator",
    ),
    "User not authorised to access virtual host": (
        "does not show user {user} this vhost",
        "Have somebody give it permissions there",
    ),
}


class Management:
    """The management API at an address, for one user.

    Parameters
    ----------
    uri : SecretUri
        ``http://user:password@host:15672``.
    tls : Path, optional
        Folder of the cluster's certificates, for https.
    answer_s : float
        How long an answer to a question may take; to a change always `CHANGE_S`.
    """

    def __init__(self, uri: SecretUri, tls: Path | None = None, *, answer_s: float = ANSWER_S) -> None:
        parts = urlsplit(uri.reveal())
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if uri.scheme == "https" else 80)
        self.user = unquote(parts.username or "guest")
        self.address = SecretUri(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())
        """Without its user."""
        self.name = f"RabbitMQ's management API at {self.host}:{self.port}"
        self._password = unquote(parts.password or "guest")
        self._root = f"{parts.path.rstrip('/')}/api"
        self._context = _context(tls) if uri.scheme == "https" else None
        self._answer_s = answer_s

    def call(self, path: str, *, method: str = "GET", body: Any = None) -> Any:
        """Ask for something, or have something done.

        Parameters
        ----------
        path : str
            Behind ``/api/``, with names in it that `quoted` made.
        method : str
        body : optional
            Anything that JSON can hold.

        Returns
        -------
        The answer's JSON; None for an answer without content, and where there is no such thing.

        Raises
        ------
        BrokerAwayError
            It does not answer, or is something else.
        RightsError
            The user may not do that.
        InfrastructureError
            It refuses for another reason.
        """
        status, text = self._ask(path, method, body)
        if status == 404:
            return None
        try:
            answer = json.loads(text) if text else None
        except ValueError as error:
            raise BrokerAwayError(f"{self.name} does not speak JSON", remedy="Something else listens there") from error
        if status < 300:
            return answer
        reason = str(answer.get("reason", status)) if isinstance(answer, dict) else str(status)
        if status in (401, 403):
            problem, remedy = _REFUSALS.get(reason, (f"refuses user {{user}}: {mask(reason)}", None))
            raise RightsError(f"{self.name} {problem.format(user=self.user)}", remedy=remedy)
        raise InfrastructureError(f"{self.name} refuses: {mask(reason)}")

    def _ask(self, path: str, method: str, body: Any) -> tuple[int, bytes]:
        login = base64.b64encode(f"{self.user}:{self._password}".encode()).decode()
        headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
        # not urllib, which asks proxies, and carries the password along to wherever it is redirected
        if self._context is None:
            connection = HTTPConnection(self.host, self.port, timeout=CONNECT_S)
        else:
            connection = HTTPSConnection(self.host, self.port, timeout=CONNECT_S, context=self._context)
        try:
            connection.connect()
            connection.sock.settimeout(self._answer_s if method == "GET" else CHANGE_S)
            connection.request(method, f"{self._root}/{path}", None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, HTTPException) as error:
            remedy = "See that RabbitMQ runs there, with its plugin rabbitmq_management"
            raise BrokerAwayError(f"{self.name} does not answer ({error})", remedy=remedy) from error
        finally:
            connection.close()


def _context(tls: Path | None) -> ssl.SSLContext:
    """The certificates of the cluster where there are some, else those that the machine trusts."""
    if tls is None:
        return ssl.create_default_context()
    context = ssl.create_default_context(cafile=tls / CA)
    context.load_cert_chain(tls / CERTIFICATE, tls / KEY)
    return context


def quoted(name: str) -> str:
    """A name as a part of a path: the vhost ``/`` is ``%2F``."""
    return quote(name, safe="")


def find(settings: Config, *, answer_s: float = ANSWER_S) -> Management | None:
    """The management API that belongs to the broker, whether or not it answers; None where none can be.

    Without a user in `queue.management_uri` it is asked as the broker's; `answer_s` is that of `Management`.
    """
    uri, broker = standing.management_uri(settings), standing.broker_uri(settings)
    if uri is None:
        return None
    return Management(with_user(uri, broker), settings.network.tls, answer_s=answer_s)


def with_user(uri: SecretUri, other: SecretUri | None) -> SecretUri:
    """An address with the user and the password of another one, unless it has a user itself."""
    parts, login = urlsplit(uri.reveal()), urlsplit("" if other is None else other.reveal()).netloc.rpartition("@")[0]
    if parts.username is not None or not login:
        return uri
    return SecretUri(parts._replace(netloc=f"{login}@{parts.netloc}").geturl())


def figures(api: Management, vhost: str) -> dict[str, tuple[int | None, float | None]]:
    """What the queues of a vhost do, by name: messages that consumers have, and how many they settle a second.

    RabbitMQ 3.10 gathers both every five seconds, and tells them of quorum queues up to ten seconds late. The rate
    is the mean of the last minute.

    Raises
    ------
    BrokerAwayError, RightsError, InfrastructureError
        As `Management.call` does.
    """
    columns = "name,messages_unacknowledged,message_stats.ack_details.avg_rate"
    window = f"msg_rates_age={_AVERAGE_S}&msg_rates_incr=5&lengths_age={_AVERAGE_S}&lengths_incr=5"
    told = api.call(f"queues/{quoted(vhost)}?{window}&columns={columns}") or []
    return {each["name"]: (each.get("messages_unacknowledged"), _rate(each)) for each in told}


def _rate(queue: dict[str, Any]) -> float:
    stats = queue.get("message_stats") or {}
    return float((stats.get("ack_details") or {}).get("avg_rate") or 0.0)  # absent where nothing ever was
