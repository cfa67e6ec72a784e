"""Command-line options made from a pydantic model: the model alone says names, types, bounds, defaults and help."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Collection
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

Command = Callable[..., Any]


def from_model(*, exclude: Collection[str] = (), **models: type[BaseModel]) -> Callable[[Command], Command]:
    """Replace parameters of a command by one option for each field of their models.

    ``@from_model(options=ImagingOptions)`` gives a command with the parameter ``options`` an option ``--pol`` for the
    field ``pol``, and calls it with an ``ImagingOptions`` made of them. ``scale_deg`` becomes ``--scale-deg``; a field
    with ``json_schema_extra={"cli": "--scale"}`` that as well. A truth value becomes ``--together/--no-together``, a
    list an option that may be repeated, a Literal one with choices. What the model refuses is wrong usage, and the
    message names the option.

    Parameters
    ----------
    exclude : collection of str
        Fields that keep their defaults.
    **models : type[BaseModel]
        Parameter of the command -> model.
    """

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            model = models.get(parameter.name)
            if model is None:
                parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            else:
                parameters += [_option(name, field) for name, field in _fields(model, exclude).items()]

        @functools.wraps(command)
        def wrapper(**given: Any) -> Any:
            for parameter, model in models.items():
                given[parameter] = _build(model, {name: given.pop(name) for name in _fields(model, exclude)})
            return command(**given)

        wrapper.__dict__["__signature__"] = signature.replace(parameters=parameters)
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return wrapper

    return decorate


def _fields(model: type[BaseModel], exclude: Collection[str]) -> dict[str, FieldInfo]:
    return {name: field for name, field in model.model_fields.items() if name not in exclude}


def _flags(name: str, field: FieldInfo) -> list[str]:
    """Names of an option, the one to mention first."""
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    return [*([str(extra["cli"])] if "cli" in extra else []), "--" + name.replace("_", "-")]


def _default(field: FieldInfo) -> Any:
    default = field.get_default(call_default_factory=True)
    return list(default or ()) if _kind(field.annotation)[1] else default


def _is_default(field: FieldInfo, value: Any) -> bool:
    """Whether a value is what the model has anyhow; typer may have made text of it."""
    default = _default(field)
    alike = list(map(str, value)) == list(map(str, default)) if isinstance(value, list) else str(value) == str(default)
    return alike and not field.is_required()


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    flags = _flags(name, field)
    kind, many = _kind(field.annotation)
    default = inspect.Parameter.empty if field.is_required() else _default(field)
    if kind is bool:
        flags = [f"{flag}/--no-{flag[2:]}" for flag in flags]
    limits: dict[str, Any] = {}
    for item in field.metadata if kind in (int, float) else ():
        limits |= {k: getattr(item, v) for k, v in (("min", "ge"), ("max", "le")) if hasattr(item, v)}
    wanted = list[kind] if many else kind  # type: ignore[valid-type]
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[
            wanted | None if default is None else wanted, typer.Option(*flags, help=field.description, **limits)
        ],
    )


def _kind(annotation: Any) -> tuple[Any, bool]:
    """Type of an option's value, and whether there may be several; text where the model takes several types."""
    origin, inner = get_origin(annotation), [item for item in get_args(annotation) if item not in (type(None), ...)]
    if origin in (Union, types.UnionType):
        return _kind(inner[0]) if len(inner) == 1 else (str, False)
    if origin in (tuple, list, set, frozenset):
        return _kind(inner[0])[0], True
    return (annotation, False) if origin is Literal or origin is None else (str, False)


def _build(model: type[BaseModel], values: dict[str, Any]) -> BaseModel:
    fields = model.model_fields
    try:
        return model(**{name: value for name, value in values.items() if not _is_default(fields[name], value)})
    except ValidationError as error:
        faults = [(fault["loc"], fault["msg"].removeprefix("Value error, ")) for fault in error.errors()]
    named = [(_flags(str(loc[0]), fields[str(loc[0])])[0] if loc else "", text) for loc, text in faults]
    first, *others = dict.fromkeys(named)
    texts = [first[1], *(f"{flag}: {text}" if flag else text for flag, text in others)]
    raise typer.BadParameter("; ".join(texts), param_hint=f"'{first[0]}'" if first[0] else None)
