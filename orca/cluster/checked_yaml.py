"""A YAML file against a pydantic model, with file, line and key of every mistake in it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from orca.config.reader import Contents
from orca.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)

_EXPECTED = {
    "missing": "is missing",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "finite_number": "expected a finite number",
    "greater_than": "expected a number above {gt:g}",
    "greater_than_equal": "expected a number of at least {ge:g}",
    "string_type": "expected text",
    "string_pattern_mismatch": "expected a name of letters, digits, dots, dashes and underscores",
    "tuple_type": "expected a list",
    "list_type": "expected a list",
    "too_short": "expected at least one",
    "model_type": "expected keys below it",
    "dict_type": "expected keys below it",
}


def load(path: Path, model: type[Model], contradictions: Callable[[Model], Iterable[tuple[str, str]]]) -> Model:
    """Read a file and check it.

    Parameters
    ----------
    path : Path
        Must be absolute for a message that helps.
    model : type[BaseModel]
        What it should be.
    contradictions : function
        Yields the dotted key and the text of what is wrong where each value alone is right.

    Returns
    -------
    BaseModel
        One of the model.

    Raises
    ------
    ConfigError
        The file is missing, is no YAML, or holds unknown, duplicate or missing keys or values out of type or bounds:
        one line a problem, with file, line, key and what was expected.
    """
    contents = _read(path)
    problems, made = list(contents.problems), None
    try:
        made = model.model_validate(contents.values)
        problems += [(contents.line_of(key) or 1, f"{key}: {text}") for key, text in contradictions(made)]
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            key = ".".join(str(part) for part in detail["loc"] if part != "[key]")
            problems.append((contents.line_of(key) or 1, f"{key or 'the file'}: {_told(dict(detail), model)}"))
    if made is None or problems:
        told = sorted(dict.fromkeys(problems))
        raise ConfigError("\n".join(f"{path}:{line}: {text}" for line, text in told)) from None
    return made


def _read(path: Path) -> Contents:
    """Values, the line of each key, and keys that come twice."""
    contents = Contents(path)
    try:
        text = path.read_bytes()
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        contents.values = yaml.safe_load(text) or {}
        _note_lines(root, "", contents)
    except FileNotFoundError:
        raise ConfigError("there is no such file", path) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {(error.strerror or 'error').lower()}", path) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = path if mark is None else f"{path}:{mark.line + 1}"
        raise ConfigError(f"is no YAML: {error.problem}", place) from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigError("is no YAML", path) from None
    return contents


def _note_lines(node: yaml.Node | None, prefix: str, contents: Contents) -> None:
    if isinstance(node, yaml.SequenceNode):
        items = [(str(number), item.start_mark, item) for number, item in enumerate(node.value)]
    elif isinstance(node, yaml.MappingNode):
        items = [(str(key.value), key.start_mark, value) for key, value in node.value]
    else:
        return
    for name, mark, value in items:
        key, line = f"{prefix}{name}", mark.line + 1
        if key in contents.lines:
            contents.problems.append((line, f"{key}: given twice, first in line {contents.lines[key]}"))
        contents.lines[key] = line
        _note_lines(value, f"{key}.", contents)


def _told(detail: dict[str, Any], model: type[BaseModel]) -> str:
    """What pydantic found, in our words."""
    kind, loc = detail["type"], detail["loc"]
    if kind == "extra_forbidden":
        return f"unknown key; {_nearest(str(loc[-1]), list(_model_at(loc[:-1], model).model_fields))}"
    if kind in ("literal_error", "enum"):
        known = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
        return f"unknown {'key' if loc[-1] == '[key]' else 'value'}; {_nearest(str(detail['input']), known)}"
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    text = _EXPECTED.get(kind, detail["msg"]).format(**detail.get("ctx", {}))
    return text if kind == "missing" else f"{text}, found {detail['input']!r}"


def _model_at(loc: Iterable[int | str], model: type[BaseModel]) -> type[BaseModel]:
    """The model at a place; indexes of lists and keys of mappings lead no deeper."""
    for part in loc:
        field = model.model_fields.get(str(part))
        model = (_model_in(field.annotation) if field else None) or model
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner))), None)


def _nearest(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
