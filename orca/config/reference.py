"""The reference of the configuration: every key with its default, made from the model and the packaged defaults."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from orca.config import default_path, model
from orca.config.model import Section, Settings, known_keys
from orca.config.secret import SecretUri

_WORDS: dict[Any, str] = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "yes or no",
    Path: "path",
    date: "date",
    SecretUri: "address",
}
_BOUNDS = {"gt": "above {}", "ge": "{} or more", "lt": "below {}", "le": "at most {}"}
_HEAD = """# Configuration

Every key of `orca-conf.yml`, as `orca config reference` prints it. `orca config init` writes a file to start from, with
a comment at each key; `orca config show` tells what is in force and where it comes from, and `orca config check` tries
it. What a file leaves out keeps its default. `null` means none; among `paths`, the folder of that name below `data`.
"""


def reference() -> str:
    """All keys as Markdown, a table a section."""
    defaults = yaml.safe_load(default_path().read_text())
    told = _docstrings()
    lines = [_HEAD]
    single = []
    for name, section in known_keys().items():
        if section is None:
            field = Settings.model_fields[name]
            single.append(row(name, field, defaults.get(name), told.get(("Settings", name), "")))
            continue
        lines += [f"## {name}", "", _sentence(section.__doc__), "", *_table(section, defaults[name], told), ""]
    if single:
        lines += ["## Keys of no section", "", TITLE, RULE, *single, ""]
    return "\n".join(lines).rstrip() + "\n"


TITLE, RULE = "| key | what | value | default |", "| --- | --- | --- | --- |"


def _table(section: type[Section], defaults: dict[str, Any], told: dict[tuple[str, str], str]) -> Iterator[str]:
    yield TITLE
    yield RULE
    for name, field in section.model_fields.items():
        yield row(name, field, defaults.get(name), told.get((section.__name__, name), ""))


def row(name: str, field: FieldInfo, default: Any, text: str | None) -> str:
    """A line of a table: key, what it says, what it takes, default."""
    shown = "null" if default is None else yaml.safe_dump(default, default_flow_style=True).split("\n")[0]
    cells = (f"`{name}`", _sentence(text), _value(field), f"`{shown}`")
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _sentence(text: str | None) -> str:
    return " ".join((text or "").split()).replace("None:", "null:")


def _value(field: FieldInfo) -> str:
    """What a key takes, in words."""
    bounds: list[Any] = list(field.metadata)
    word, nothing = _word(field.annotation, bounds)
    limits = [
        words.format(f"{limit:g}")
        for name, words in _BOUNDS.items()
        for limit in {getattr(item, name) for item in _all(bounds) if getattr(item, name, None) is not None}
    ]
    return ", ".join([word, *limits]) + (" or null" if nothing else "")


def _all(items: list[Any]) -> Iterator[Any]:
    """Bounds, those inside of a pydantic Field as well."""
    for item in items:
        yield item
        yield from getattr(item, "metadata", ())


def _word(annotation: Any, bounds: list[Any]) -> tuple[str, bool]:
    """Name of a type, and whether it may be null; appends its bounds."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds += parts[1:]
        return _word(parts[0], bounds)
    if origin in (Union, UnionType):
        words = [_word(part, bounds)[0] for part in parts if part is not NoneType]
        return " or ".join(dict.fromkeys(words)), NoneType in parts
    if origin in (tuple, list):
        return "list", False
    if origin is Literal:
        return " or ".join(f"`{part}`" for part in parts), False
    return _WORDS.get(annotation, "keys below it"), False


def _docstrings() -> dict[tuple[str, str], str]:
    """What is written below the fields of the sections, by class and field."""
    classes = [node for node in ast.parse(inspect.getsource(model)).body if isinstance(node, ast.ClassDef)]
    return {
        (node.name, ast.unparse(field.target)): str(below.value.value)
        for node in classes
        for field, below in zip(node.body, node.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    }
