"""The reference of the stages: parameters of their flows and all options, made from the code."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefect import Flow
from prefect.utilities.callables import parameter_docstrings
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from flows.bandpass import bandpass, delay, nightly_calibration
from flows.cosmology import cosmology
from flows.imaging import imaging
from flows.reduction import reduction
from flows.spectrum import spectrum
from orca.config.reference import RULE, TITLE, row

FLOWS: tuple[Flow[..., Any], ...] = (reduction, cosmology, delay, bandpass, nightly_calibration, imaging, spectrum)
_HEAD = """# Parameters of the stages

What each flow takes, as `orca config options` prints it: as parameters of a deployment, of `orca submit run`, and of
messages. The options of `orca run STAGE` and `orca submit STAGE` are called the same, `--min-snr` for `min_snr`, unless
the table names another; but `day` is `--date`, and what is a list is said in the singular, `--subband`, once for each.
`null` means that none is given.
"""


def stage_reference() -> str:
    """All flows as Markdown: a table of parameters each, and a table for each model of options, once."""
    lines, seen = [_HEAD], set[type[BaseModel]]()
    for flow in FLOWS:
        lines += [f"## {flow.name}", "", *_flow(flow, seen)]
    return "\n".join(lines).rstrip() + "\n"


def _flow(flow: Flow[..., Any], seen: set[type[BaseModel]]) -> Iterator[str]:
    told = parameter_docstrings(inspect.getdoc(flow.fn))
    yield from ((inspect.getdoc(flow.fn) or "").splitlines()[0], "", TITLE, RULE)
    models = {}
    for name, parameter in inspect.signature(flow.fn).parameters.items():
        needed = parameter.default is inspect.Parameter.empty
        field = FieldInfo.from_annotation(parameter.annotation)
        if isinstance(parameter.default, BaseModel):
            model = models[name] = type(parameter.default)
            yield f"| `{name}` | {told.get(name, '')} | keys: [{model.__name__}](#{model.__name__.lower()}) | |"
        else:
            line = row(name, field, None if needed else _plain(parameter.default), told.get(name))
            yield line.removesuffix("`null` |") + "needed |" if needed else line
    yield ""
    for model in models.values():
        if model not in seen:
            seen.add(model)
            yield from (f"### {model.__name__}", "", (inspect.getdoc(model) or "").splitlines()[0], "", TITLE, RULE)
            yield from (_option(name, field) for name, field in model.model_fields.items())
            yield ""


def _option(name: str, field: FieldInfo) -> str:
    extra = field.json_schema_extra
    other = extra.get("cli") if isinstance(extra, dict) else None
    said = f"{field.description or ''} (`{other}`)" if other else field.description
    return row(name, field, _plain(field.default), said)


def _plain(value: Any) -> Any:
    """A default as YAML knows it."""
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value
