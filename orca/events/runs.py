"""Flow runs for messages: what a deployment may be asked for, and asking Prefect's API for it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote

from orca.cluster.machine.questions import call_api
from orca.cluster.machine.standing import api_url
from orca.cluster.pools import pool_name
from orca.config import Config
from orca.errors import InfrastructureError, MessageError
from orca.events.fields import printable
from orca.events.journal import Request

PATIENCE_S = 10.0
REMEMBERED_S = 60.0
"""How long a deployment is taken to be as it was."""
_REFUSALS = (400, 404, 409, 422)
_TEMPLATE = "__prefect"
"""Keys that begin so are templates to Prefect, which would put its variables and blocks in."""
_PATHS = ("path", "file-path", "directory-path")


def data_roots(settings: Config) -> tuple[Path, ...]:
    """Folders below which the paths of a message have to lie: raw data and products."""
    paths = settings.paths
    return (paths.raw, paths.averaged, paths.cosmology, paths.calibration, paths.images, paths.dynspec)


def check_path(path: str, roots: Sequence[Path]) -> Path:
    """The path, if it lies below one of the roots, links followed.

    Raises
    ------
    MessageError
        It is relative, goes through "..", or lies, or leads, elsewhere.
    """
    found = Path(path)
    if not found.is_absolute() or ".." in found.parts or "\0" in path:
        raise MessageError("is no absolute path without '..'", printable(path))
    resolved = found.resolve()
    if not any(resolved.is_relative_to(_resolved(root)) for root in roots):
        where = "leads out of" if any(found.is_relative_to(root) for root in roots) else "is not below"
        raise MessageError(
            f"{where} the folders of raw data and products", path, "They are paths.* of the configuration"
        )
    return found


@lru_cache(maxsize=64)
def _resolved(root: Path) -> Path:
    return root.resolve()


def outside(values: Any, settings: Config) -> list[Path]:
    """Paths among values, at whatever depth of lists and mappings, that a trigger with this configuration refuses."""
    if isinstance(values, Mapping):
        values = list(values.values())
    if isinstance(values, list | tuple):
        return [path for value in values for path in outside(value, settings)]
    if not isinstance(values, Path):
        return []
    try:
        check_path(str(values.absolute()), data_roots(settings))
    except MessageError:
        return [values]
    return []


def check_parameters(parameters: dict[str, Any], schema: dict[str, Any], roots: Sequence[Path] | None) -> None:
    """Refuse parameters that the flow has not, templates, and paths that lie elsewhere.

    Whether the types are right is for Prefect to say, which has the same schema.

    Parameters
    ----------
    parameters : dict
        JSON values.
    schema : dict
        Of the deployment's parameters, as Prefect keeps it.
    roots : paths or None
        None: paths may lie anywhere.

    Raises
    ------
    MessageError
    """
    known = schema.get("properties", {})
    if unknown := [name for name in parameters if name not in known]:
        raise MessageError(f"the flow has no parameter {printable(unknown[0])}; it has {', '.join(known)}")
    for value, kinds in _walk(parameters, [schema], schema.get("definitions", {})):
        if isinstance(value, dict) and (found := [key for key in value if str(key).startswith(_TEMPLATE)]):
            raise MessageError(f"{found[0]}: templates are not allowed in a message")
        if roots is not None and isinstance(value, str) and any(kind.get("format") in _PATHS for kind in kinds):
            check_path(value, roots)


def check_types(parameters: dict[str, Any], schema: dict[str, Any]) -> None:
    """Refuse values of the wrong type, and parameters that are missing, as Prefect would do.

    Raises
    ------
    MessageError
    """
    import jsonschema  # type: ignore[import-untyped]

    problems = jsonschema.Draft202012Validator(schema).iter_errors(parameters)
    if (worst := jsonschema.exceptions.best_match(problems)) is not None:
        where = ".".join(str(part) for part in worst.absolute_path)
        raise MessageError(f"parameter {where}: {worst.message}" if where else worst.message)


def _walk(
    value: Any, kinds: list[dict[str, Any]], definitions: dict[str, Any]
) -> Iterator[tuple[Any, list[dict[str, Any]]]]:
    """Each value inside a value, with all that the schema says it may be."""
    meant = [kind for given in kinds for kind in _alternatives(given, definitions)]
    yield value, meant
    if isinstance(value, dict):
        for key, item in value.items():
            inner = [kind["properties"][key] for kind in meant if key in kind.get("properties", {})]
            inner += [more for kind in meant if isinstance(more := kind.get("additionalProperties"), dict)]
            yield from _walk(item, inner, definitions)
    elif isinstance(value, list):
        inner = [kind["items"] for kind in meant if isinstance(kind.get("items"), dict)]
        inner += [each for kind in meant for each in kind.get("prefixItems", ())]
        for item in value:
            yield from _walk(item, inner, definitions)


def _alternatives(kind: dict[str, Any], definitions: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "$ref" in kind:
        kind = definitions.get(str(kind["$ref"]).rpartition("/")[2], {})
    yield kind
    for name in ("anyOf", "oneOf", "allOf"):
        for inner in kind.get(name, ()):
            yield from _alternatives(inner, definitions)


def run_key(deployment: str, content: Any, attempt: int = 1) -> str:
    """Key by which Prefect makes one flow run of a request, however often it is asked for."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return f"{deployment}:{digest}:{attempt}"


@dataclass(frozen=True)
class _Known:
    id: str
    schema: dict[str, Any]
    asked: float


class FlowRuns:
    """Prefect's API, as far as the trigger needs it, without Prefect, which takes seconds to import."""

    def __init__(self, settings: Config, patience_s: float = PATIENCE_S) -> None:
        self._settings, self.roots, self._patience_s = settings, data_roots(settings), patience_s
        self._deployments: dict[str, _Known] = {}

    def check(self, deployment: str, parameters: dict[str, Any], *, paths: bool = True) -> None:
        """Refuse what would be refused, without asking for it.

        Parameters
        ----------
        deployment : str
        parameters : dict
            JSON values.
        paths : bool
            Whether also for where paths lie.

        Raises
        ------
        MessageError
            There is no such deployment, or its flow takes no such parameters.
        InfrastructureError
            The server does not answer.
        """
        schema = self._deployment(deployment).schema
        check_parameters(parameters, schema, self.roots if paths else None)
        check_types(parameters, schema)

    def ask(self, request: Request) -> str:
        """Have a flow run made, if there is none for its key; returns its number.

        Raises
        ------
        MessageError
            Prefect refuses it: asking again would change nothing.
        InfrastructureError
            The server does not answer.
        """
        known = self._deployment(request.deployment)
        check_parameters(request.parameters, known.schema, self.roots)
        body = {"parameters": request.parameters, "idempotency_key": request.key, "tags": list(request.tags)}
        try:
            return str(self._call(f"deployments/{known.id}/create_flow_run", body)["id"])
        except MessageError:
            self._deployments.pop(request.deployment, None)  # it may have been made anew
            raise

    def healthy(self) -> bool:
        """Whether the server answers."""
        try:
            self._call("health")
        except (InfrastructureError, MessageError):
            return False
        return True

    def _deployment(self, name: str) -> _Known:
        known = self._deployments.get(name)
        if known is None or time.monotonic() - known.asked > REMEMBERED_S:
            flow, _, own = name.partition("/")
            full = f"{quote(flow, safe='')}/{quote(pool_name(self._settings.queue.prefix, own), safe='')}"
            try:
                found = self._call(f"deployments/name/{full}")
            except MessageError as error:
                problem = f"there is no deployment {printable(name)}"
                raise MessageError(problem, remedy="Prefect is told of all with `orca deploy`") from error
            known = _Known(found["id"], found.get("parameter_openapi_schema") or {}, time.monotonic())
            self._deployments[name] = known
        return known

    def _call(self, path: str, body: Any = None) -> Any:
        url = api_url(self._settings)
        if url is None:
            raise InfrastructureError("there is no Prefect server", remedy="Set prefect.api_url, or run `orca up`")
        try:
            return call_api(url, path, body, tls=self._settings.network.tls, patience_s=self._patience_s)
        except HTTPError as error:
            told = _detail(error)
            if error.code in _REFUSALS:
                raise MessageError(f"Prefect refuses it: {told}") from error
            raise InfrastructureError(f"the Prefect server answers {error.code} ({told})", url) from error
        except (OSError, ValueError) as error:
            remedy = "See that it runs (`orca status`)"
            raise InfrastructureError(f"the Prefect server does not answer ({error})", url, remedy) from error


def _detail(error: HTTPError) -> str:
    """What the server said, in one line."""
    try:
        text = error.read(2000).decode(errors="replace")
        told = json.loads(text).get("detail", text)
    except (OSError, ValueError, AttributeError):
        told = error.reason
    return " ".join(str(told).split())[:300]
