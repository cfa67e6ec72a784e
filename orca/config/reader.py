"""A YAML file as nested dictionaries of known keys, with the line of each key and every mistake in it."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from orca.config.model import Section, Settings, known_keys
from orca.config.secret import mask
from orca.errors import ConfigError


@dataclass
class Contents:
    """What a file says."""

    path: Path
    values: dict[str, Any] = field(default_factory=dict)
    """Nested like the sections; only known keys, only those that the file gives."""
    lines: dict[str, int] = field(default_factory=dict)
    """Line, from 1, of every key of the file, by dotted name."""
    problems: list[tuple[int, str]] = field(default_factory=list)
    """Line and text of every mistake."""

    def line_of(self, key: str) -> int | None:
        """Return the line of a key, or of the section around it."""
        while key and key not in self.lines:
            key = key.rpartition(".")[0]
        return self.lines.get(key)


def read(path: Path) -> Contents:
    """Read a configuration file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Contents
        With `problems` for unknown and duplicate keys, and for sections that are none. Values are not checked.

    Raises
    ------
    ConfigError
        When the file cannot be read, or is no YAML. The message does not quote values.
    """
    contents = Contents(path)
    loader = None
    try:
        loader = yaml.SafeLoader(path.read_bytes())
        root = loader.get_single_node()
        if root is not None and not _empty(root):
            if isinstance(root, yaml.MappingNode):
                contents.values = _section(loader, root, Settings, "", contents)
            else:
                contents.problems.append((_line(root), "expected sections such as `queue:` with keys below them"))
    except OSError as error:
        raise ConfigError(f"cannot be read: {(error.strerror or 'error').lower()}", path) from None
    except yaml.MarkedYAMLError as error:
        raise ConfigError(*_syntax_error(path, error)) from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigError("is no YAML: it holds characters that are no text", path) from None
    except RecursionError:
        raise ConfigError("is nested too deeply", path) from None
    finally:
        if loader is not None:
            loader.dispose()
    return contents


def _section(
    loader: yaml.SafeLoader, node: yaml.MappingNode, section: type[Section], prefix: str, contents: Contents
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    known = known_keys(section)
    for key_node, value_node in node.value:
        line = _line(key_node)
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
        dotted = prefix + key
        if key not in known:
            contents.problems.append((line, f"{_shown(dotted)}: unknown key; {_nearest(key, prefix, known)}"))
            continue
        if dotted in contents.lines:
            contents.problems.append((line, f"{dotted}: given twice, first in line {contents.lines[dotted]}"))
            continue
        contents.lines[dotted] = line
        subsection = known[key]
        if subsection is None:
            values[key] = _value(loader, value_node, dotted, contents)
        elif isinstance(value_node, yaml.MappingNode):
            values[key] = _section(loader, value_node, subsection, dotted + ".", contents)
        elif not _empty(value_node):
            names = ", ".join(known_keys(subsection))
            contents.problems.append((line, f"{dotted}: expected a section with keys below it ({names})"))
    return values


def _value(loader: yaml.SafeLoader, node: yaml.Node, dotted: str, contents: Contents) -> Any:
    """Return a value, or, when YAML itself cannot make it, None and a problem."""
    try:
        return loader.construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError, TypeError, OverflowError):  # such as the date 2026-02-31
        contents.problems.append((_line(node), f"{dotted}: expected a plain value; put text in quotes"))
    return None


def _nearest(key: str, prefix: str, known: dict[str, type[Section] | None]) -> str:
    """Say which known key may have been meant."""
    if near := difflib.get_close_matches(key, known, n=1):
        return f"did you mean {prefix}{near[0]}?"
    everywhere = [
        f"{name}.{leaf}" if section else leaf
        for name, section in known_keys().items()
        for leaf in (known_keys(section) if section else (name,))
    ]
    leaves = {dotted.rpartition(".")[2]: dotted for dotted in reversed(everywhere)}
    if near := difflib.get_close_matches(key, leaves, n=1, cutoff=0.75):
        return f"did you mean {leaves[near[0]]}?"
    return f"known here: {', '.join(known)}"


def _shown(key: str) -> str:
    """Return a key of the file fit for a message: a password may have ended up in it."""
    text = mask("".join(character if character.isprintable() else "?" for character in key))
    return text if len(text) <= 60 else text[:59] + "…"


def _empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _syntax_error(path: Path, error: yaml.MarkedYAMLError) -> tuple[str, str, str]:
    """Return problem, file with line, and remedy, without PyYAML's quotation of the file."""
    mark = error.problem_mark or error.context_mark
    place = str(path) if mark is None else f"{path}:{mark.line + 1}"
    problem = error.problem or "error"
    if problem.startswith("but ") and error.context:
        problem = f"{error.context}, {problem}"
    # Of what PyYAML quotes, single characters and names of tokens are kept: the rest may be a part of a password.
    problem = re.sub(r"'(?!(?:\\?.|<[a-z ]+>)')[^']*'|('[^']*')", lambda quoted: quoted[1] or "'...'", problem)
    remedy = "Use spaces, not tabs" if "\\t" in problem else "Put text with special characters in quotes"
    return f"is no YAML: {problem}", place, remedy
