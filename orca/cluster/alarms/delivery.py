"""The ways on which people are told of an alarm: RabbitMQ's topic exchange, a program, mail."""

from __future__ import annotations

import json
import shlex
import smtplib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from orca import process
from orca.alarms.alarm import condition_of
from orca.alarms.email import Email
from orca.alarms.memory import Known
from orca.cluster.machine.standing import broker_uri
from orca.config import Config
from orca.errors import InfrastructureError

VARIABLE = "ORCA_ALARM"
"""Environment variable in which the program finds the alarm as JSON."""


@dataclass(frozen=True)
class Way:
    """A way to tell people.

    Attributes
    ----------
    name : str
    tell : callable
        Raises what hinders it.
    """

    name: str
    tell: Callable[[Known], None]


def ways(settings: Config) -> list[Way]:
    """Those that there are by the configuration; RabbitMQ is one where there is a broker."""
    told = settings.alarms
    found = []
    if broker_uri(settings) is not None:
        found.append(Way("broker", lambda known: announce_alarm(settings, known)))
    if (command := told.command) is not None:
        found.append(Way("command", lambda known: run_command(command, as_json(settings, known), told.deadline_s)))
    if (email := told.email) is not None:
        found.append(Way("email", lambda known: send_mail(email, as_json(settings, known), told.deadline_s)))
    return found


def as_json(settings: Config, known: Known) -> dict[str, Any]:
    """An alarm as a program gets it."""
    return {
        "state": known.state,
        "alarm": known.name,
        "condition": condition_of(known.name),
        "text": known.text,
        "since": _moment(known.since),
        "until": None if known.until is None else _moment(known.until),
        "paths": list(known.paths),
        "cluster": settings.cluster,
    }


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def headline(told: dict[str, Any]) -> str:
    """One line that says all: of an alarm that is over, what it was."""
    return f"{'over: ' if told['state'] == 'cleared' else ''}{told['text']}"


def announce_alarm(settings: Config, known: Known) -> None:
    """Tell all who listen at the broker."""
    from orca.events.announcements import Announcement, announce  # with kombu, for which others need not wait

    told = as_json(settings, known)
    text = headline(told)[:10_000]
    values = {"kind": f"alarm.{known.state}", "alarm": known.name[:400], "text": text, "paths": known.paths}
    announce(settings, [Announcement.model_validate(values)])


def run_command(command: str, told: dict[str, Any], deadline_s: float) -> None:
    """Have a program tell, which gets the alarm on its standard input, in its environment, and in its arguments.

    Parameters
    ----------
    command : str
        Program and arguments, in which {state}, {alarm} and {text} are replaced.
    told : dict
        See `as_json`.
    deadline_s : float

    Raises
    ------
    ProgramError, StorageError
        It is not there, fails, or takes too long; what it printed is told.
    """
    text = json.dumps(told)
    words = [_filled(word, told) for word in shlex.split(command)]
    with tempfile.TemporaryDirectory(prefix="orca-alarm-") as folder:
        given = Path(folder) / "alarm.json"
        given.write_text(text + "\n")
        log, environment = Path(folder) / "log", {VARIABLE: text}
        process.run(words, log=log, deadline_s=deadline_s, threads=1, env=environment, stdin=given)


def _filled(word: str, told: dict[str, Any]) -> str:
    for key in ("state", "alarm"):
        word = word.replace(f"{{{key}}}", str(told[key]))
    return word.replace("{text}", headline(told))  # the last, so that nothing in it is replaced


def send_mail(email: Email, told: dict[str, Any], deadline_s: float) -> None:
    """Send a mail.

    Raises
    ------
    InfrastructureError
        The server does not take it, for all who should get it.
    """
    message = EmailMessage()
    message["Subject"] = f"ORCA {told['cluster']}: {told['state']}: {told['alarm']}"
    message["From"], message["To"] = email.sender, ", ".join(email.to)
    until = f"\nOver since {told['until']}." if told["until"] else ""
    paths = "".join(f"\n{path}" for path in told["paths"])
    message.set_content(f"{headline(told)}\n\nUp since {told['since']}.{until}\n{paths}\n")
    try:
        with smtplib.SMTP(email.host, email.port, timeout=deadline_s) as server:
            refused = server.send_message(message)
    except (OSError, smtplib.SMTPException) as error:
        problem = f"the mail server does not take an alarm ({error})"
        raise InfrastructureError(problem, f"{email.host}:{email.port}", "See alarms.email") from error
    if refused:
        problem = f"the mail server does not take an alarm for {', '.join(refused)}"
        raise InfrastructureError(problem, f"{email.host}:{email.port}", "See alarms.email.to")
