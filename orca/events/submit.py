"""Asking for a run, or telling of a recording, from Python: what `orca submit` does.

>>> from orca.events import submit_run
>>> submit_run("imaging", {"measurement_sets": ["/data/20260110_203143_73MHz.ms"], "options": {"size": 1024}})
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_jsonable_python

from orca import config, naming
from orca.cluster.deployment_file import Deployment, read_deployments
from orca.cluster.machine.questions import PATIENCE_S
from orca.cluster.machine.standing import api_url
from orca.config import Config
from orca.errors import InfrastructureError, InputError, MessageError, MissingDataError
from orca.events.message import Message, recorded_message, run_message
from orca.events.names import queue
from orca.events.publisher import Publisher, Sent
from orca.events.runs import FlowRuns
from orca.ms.growth import Snapshot, snapshot

RECORDED_POOL = "default"
"""Which queue recorded files go to."""


@dataclass(frozen=True)
class Submitted:
    """What became of a message.

    Attributes
    ----------
    id : str
    queue : str
    sent : Sent
    subject : str
        The deployment, or the path of what was recorded.
    why : str
        Why it waits in the spool; empty where it does not.
    """

    id: str
    queue: str
    sent: Sent
    subject: str
    why: str = ""


def submit_run(
    target: str, parameters: Mapping[str, Any] | None = None, *, settings: Config | None = None, id: str | None = None
) -> Submitted:
    """Ask for a run of a deployment.

    Parameters
    ----------
    target : str
        A deployment of deployments/prefect.yaml, such as ``imaging`` or ``reduction/reduction-hour``.
    parameters : mapping, optional
        Of its flow: what JSON has, and paths, dates and options as the flow takes them. Paths become absolute.
    settings : Config, optional
        The configuration; that in force without.
    id : str, optional
        Who sends a message twice with one id means it once; a new one without.

    Raises
    ------
    InputError
        There is no such deployment, or its flow does not take these parameters. Whether it does, the Prefect server
        says; while that does not answer, the trigger finds out.
    RightsError, InfrastructureError, ConfigError, StorageError
        As `orca.events.publisher.Publisher.publish` does.
    """
    settings = settings or config.load()
    deployment = find_deployment(target)
    plain = {name: jsonable(value) for name, value in (parameters or {}).items()}
    _check(deployment, plain, settings)
    message = run_message(deployment.full_name, plain, **({} if id is None else {"id": id}))
    with Publisher(settings) as publisher:
        return send(publisher, message, deployment.work_pool.name)


def submit_recorded(
    paths: Sequence[str | Path], *, time: datetime | None = None, settings: Config | None = None
) -> list[Submitted]:
    """Tell of raw Measurement Sets, or tars of them, that were recorded.

    Parameters
    ----------
    paths : sequence of path
    time : datetime, optional
        When they were closed, with its time zone; when each was last changed without.
    settings : Config, optional
        The configuration; that in force without.

    Raises
    ------
    InputError
        A name is not that of a recording.
    MissingDataError
        There is no such file. Nothing is sent then.
    RightsError, InfrastructureError, ConfigError, StorageError
        As `orca.events.publisher.Publisher.publish` does.
    """
    settings = settings or config.load()
    messages = [recorded(straight(Path(path)), time=time) for path in paths]
    with Publisher(settings) as publisher:
        return [send(publisher, message, RECORDED_POOL) for message in messages]


def send(publisher: Publisher, message: Message, pool: str) -> Submitted:
    """Publish a message, and say what became of it; raises what `Publisher.publish` does."""
    sent = publisher.publish(message, pool)
    name = queue(publisher.settings.queue.prefix, pool)
    return Submitted(message.id, name, sent, message.subject, publisher.away)


def recorded(path: Path, *, seen: Snapshot | None = None, time: datetime | None = None) -> Message:
    """The message of a recording. It has the same id each time, as long as the file is not changed.

    Parameters
    ----------
    path : Path
        Absolute.
    seen : Snapshot, optional
        Sizes and times of its files; it is looked at without.
    time : datetime, optional
        As `submit_recorded` has it.
    """
    if naming.parse(path).kind is not naming.Kind.RAW:
        raise InputError("is no name of a raw Measurement Set", path, "A right name is like 20260110_180000_73MHz.ms")
    files = snapshot(path) if seen is None else seen
    if not files:
        raise MissingDataError("there is no such file, or nothing in it", path, "Check the name")
    size = sum(each for each, _ in files.values())
    newest_ns = max(changed for _, changed in files.values())
    closed = datetime.fromtimestamp(newest_ns / 1e9, UTC) if time is None else time
    digest = hashlib.sha256(f"{path}\n{size}\n{newest_ns}".encode(errors="surrogateescape")).hexdigest()
    return recorded_message(str(path), size, closed, id=f"recorded-{digest[:32]}")


def find_deployment(target: str) -> Deployment:
    """The deployment that is called so, with or without its flow.

    Raises
    ------
    InputError
        There is none.
    """
    entries = read_deployments()
    known = {name: entry for entry in entries for name in (entry.name, entry.full_name)}
    if target not in known:
        near = difflib.get_close_matches(target, known, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(entry.name for entry in entries)}"
        raise InputError(f"there is no deployment {target}", remedy=hint)
    return known[target]


def _check(deployment: Deployment, parameters: dict[str, Any], settings: Config) -> None:
    """Refuse parameters that the trigger would refuse; paths are for that, whose machine may have other ones."""
    if api_url(settings) is None:
        return
    try:
        FlowRuns(settings, patience_s=PATIENCE_S).check(deployment.full_name, parameters, paths=False)
    except InfrastructureError:
        return
    except MessageError as error:
        raise InputError(f"{deployment.full_name}: {error.problem}", remedy=error.remedy) from error


def jsonable(value: Any) -> Any:
    """What a flow takes, as JSON has it: options without their defaults, paths absolute.

    Raises
    ------
    InputError
        JSON cannot say it.
    """
    if isinstance(value, BaseModel):
        return jsonable(value.model_dump(exclude_defaults=True))
    if isinstance(value, Path):
        return str(straight(value))
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    try:
        return to_jsonable_python(value)
    except PydanticSerializationError as error:
        raise InputError(f"a parameter is a {type(value).__name__}, which no message can hold") from error


def straight(path: Path) -> Path:
    """A path that is right from everywhere: absolute, and without '..'."""
    return path.resolve() if ".." in path.parts else path.absolute()
