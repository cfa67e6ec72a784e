"""What Prefect's page shows of a run. It is telemetry: when the server is away, the work goes on without it."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any

from httpx import HTTPError
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import PrefectException
from prefect.logging import get_logger


def show_picture(name: str, jpeg: bytes, where: str, numbers: Mapping[str, Any]) -> None:
    """A small picture with its place and its numbers; outside of a run there is no page for it."""
    if FlowRunContext.get() is None and TaskRunContext.get() is None:
        return
    rows = "\n".join(f"| {key} | {value:.6g} |" for key, value in numbers.items() if isinstance(value, int | float))
    picture = base64.b64encode(jpeg).decode()
    markdown = f"![{name}](data:image/jpeg;base64,{picture})\n\n`{where}`\n\n| | |\n|:--|--:|\n{rows}\n"
    try:
        create_markdown_artifact(markdown=markdown, key=_key(f"image-{name}"), description=where)
    except (HTTPError, PrefectException) as error:
        get_logger(__name__).warning("the picture of %s is not on Prefect's page: %s", name, error)


def show_table(name: str, rows: Sequence[dict[str, Any]], description: str) -> None:
    """A table, one dict a row."""
    try:
        create_table_artifact(table=list(rows), key=_key(name), description=description)
    except (HTTPError, PrefectException) as error:
        get_logger(__name__).warning("the table %s is not on Prefect's page: %s", name, error)


def tagged(function: Callable[..., Any], tags: Callable[[], Iterable[str]]) -> Callable[..., Any]:
    """The function of a flow, whose run gets some more tags before it begins."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        context = FlowRunContext.get()
        if context is not None and context.flow_run is not None:
            run = context.flow_run
            try:
                with get_client(sync_client=True) as client:
                    client.update_flow_run(run.id, tags=sorted({*run.tags, *tags()})).raise_for_status()
            except (HTTPError, PrefectException) as error:
                get_logger(__name__).warning("the flow run has no tags on Prefect's page: %s", error)
        return function(*args, **kwargs)

    return call


def _key(name: str) -> str:
    """As Prefect wants it: lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
