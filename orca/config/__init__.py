"""orca-conf.yml as one frozen, validated object. Nothing is read at import."""

from __future__ import annotations

import os
import stat
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr, ValidationError

from orca.config.model import Settings, known_keys
from orca.config.reader import Contents, read
from orca.config.secret import SecretUri, mask
from orca.errors import ConfigError

__all__ = ["Config", "SecretUri", "default_path", "find", "load", "mask"]

FILE_NAME = "orca-conf.yml"


class Config(Settings):
    """The configuration in force: the sections, and where they come from."""

    _file: Path | None = PrivateAttr(None)
    _lines: dict[str, int] = PrivateAttr(default_factory=dict)
    _warnings: tuple[str, ...] = PrivateAttr(())

    @property
    def file(self) -> Path | None:
        """The user's file; None when the packaged defaults alone are in force."""
        return self._file

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with the file, but not so that it does not load."""
        return self._warnings

    def line_of(self, key: str) -> int | None:
        """Return the line, from 1, of a dotted key in the user's file; None for a default."""
        return self._lines.get(key)

    def items(self) -> dict[str, Any]:
        """Return every value by its dotted key, in the order of the packaged file."""
        values: dict[str, Any] = {}
        for name, section in known_keys().items():
            value = getattr(self, name)
            if section is None:
                values[name] = value
            else:
                values |= {f"{name}.{key}": getattr(value, key) for key in known_keys(section)}
        return values


def default_path() -> Path:
    """Return the packaged file with every key, its default, and what it means."""
    return Path(str(resources.files("orca") / "data" / FILE_NAME))


def find() -> Path | None:
    """Return the user's file: `$ORCA_CONF`, `./orca-conf.yml`, `~/orca-conf.yml`, or None.

    Raises
    ------
    ConfigError
        When `$ORCA_CONF` names a file that does not exist.
    """
    if named := os.environ.get("ORCA_CONF"):
        path = Path(named).expanduser()
        if not _exists(path):
            raise ConfigError("$ORCA_CONF names a file that does not exist", path)
        return path
    return next((path for path in (Path(FILE_NAME), Path("~").expanduser() / FILE_NAME) if _exists(path)), None)


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # it is there: reading it will tell what is wrong with it
        return True
    return True


def load(path: Path | None = None) -> Config:
    """Read, merge and check the configuration.

    Parameters
    ----------
    path : Path, optional
        The user's file; without it, the one that `find` finds. What it leaves out has the packaged default.

    Returns
    -------
    Config

    Raises
    ------
    ConfigError
        When the file is missing, is no YAML, or holds unknown or duplicate keys or values out of type or bounds:
        one line a problem, with file, line, key and what was expected, and never with a value that may be secret.
    """
    file = find() if path is None else Path(path).expanduser()
    if file is not None and not _exists(file):
        raise ConfigError("there is no such file", file)
    defaults = read(default_path())
    contents = defaults if file is None else read(Path(os.path.abspath(file)))  # noqa: PTH100 - keep symlinks
    config = _validated(_merged(defaults.values, contents.values), contents)
    if file is not None:
        config._file, config._lines = contents.path, contents.lines
        config._warnings = tuple(_warnings(config))
    return config


def _merged(defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    merged = dict(defaults)
    for key, value in given.items():
        inner = defaults.get(key)
        merged[key] = _merged(inner, value) if isinstance(inner, dict) else value
    return merged


def _validated(values: dict[str, Any], contents: Contents) -> Config:
    problems = list(contents.problems)
    config = None
    try:
        config = Config.model_validate(values, context={"folder": contents.path.parent})
    except ValidationError as error:
        details = {".".join(map(str, detail["loc"])): detail for detail in error.errors(include_url=False)}
        # A default fails only where it is made of a value that fails, too, such as the folders below paths.data.
        given = {key: detail for key, detail in details.items() if key in contents.lines} or details
        already = {text.partition(":")[0] for _, text in problems}
        for key, detail in given.items():
            if key not in already:
                problems.append((contents.line_of(key) or 1, f"{key}: {_expectation(key, dict(detail))}"))
    if config is None or problems:
        raise ConfigError("\n".join(f"{contents.path}:{line}: {text}" for line, text in sorted(problems))) from None
    return config


_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "is_instance_of": "a path",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than_equal": "a number of at most {le:g}",
}
_PATTERNS = {
    "dask.address": "an address like tcp://host:8786",
    "": "a name of letters, digits, dots, dashes and underscores",
}
_KINDS = {bool: "true or false", str: "text", list: "a list", dict: "keys", type(None): "nothing"}


def _expectation(key: str, detail: dict[str, Any]) -> str:
    """Return what was expected and what kind of thing was found, without any text that was found."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "string_pattern_mismatch":
        return f"expected {_PATTERNS.get(key, _PATTERNS[''])}"
    value = detail["input"]
    found = _KINDS.get(type(value), "something else")
    if type(value) in (int, float):
        found = "a number" if kind == "string_type" else f"{value:g}"
    return f"expected {_EXPECTED.get(kind, 'something else').format(**context)}, found {found}"


def _warnings(config: Config) -> list[str]:
    """Return what is unwise about the user's file."""
    file = config.file
    given = (value for key, value in config.items().items() if config.line_of(key))
    secret = any(isinstance(value, SecretUri) and value.has_password for value in given)
    if file is not None and secret and file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        return [f"{file}: holds a password, and others can read it. Run: chmod 600 {file}"]
    return []
