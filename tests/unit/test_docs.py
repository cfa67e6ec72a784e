"""The documents: they build without a warning and load nothing from elsewhere, and the commands in them exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from flows.stage_reference import stage_reference
from orca.cli import app
from orca.cli.lazy import LazyCommand
from orca.config.reference import reference

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
WITH_FREE_OPTIONS = {"run", "simulate"}
"""Commands whose options are those of a stage: their own tests see to them."""


class _Loaded(HTMLParser):
    """Addresses of what a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        if tag in LOADS and told.get("rel") not in ("canonical", "next", "prev", "edit"):
            self.found.append(told.get(LOADS[tag]) or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as they are built, warnings being errors."""
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    built = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_every_document_is_a_page_of_the_site(site: Path) -> None:
    named = (ROOT / "mkdocs.yml").read_text()
    assert [path.name for path in DOCS.glob("*.md") if f" {path.name}\n" not in named] == []
    assert (site / "administrator" / "index.html").exists()


def test_the_pages_load_nothing_from_elsewhere(site: Path) -> None:
    loaded = _Loaded()
    pages = [*site.rglob("*.html")]
    for page in pages:
        loaded.feed(page.read_text())
    assert len(pages) > 20
    assert [address for address in loaded.found if re.match(r"(https?:)?//", address)] == []
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert re.findall(r"url\(\s*[\"']?(?:https?:)?//[^)]*\)", styles) == []


def test_the_reference_of_the_configuration_is_that_of_the_code() -> None:
    assert (DOCS / "configuration.md").read_text() == reference(), "orca config reference > docs/configuration.md"
    assert (DOCS / "options.md").read_text() == stage_reference(), "orca config options > docs/options.md"


def commands() -> Iterator[tuple[str, list[str]]]:
    """Each call of `orca` in the documents: the file, and its words."""
    for path in [*DOCS.glob("*.md"), ROOT / "README.md"]:
        text = path.read_text()
        spans = re.findall(r"`(orca [^`\n]+)`", text) + re.findall(r"^\$ (orca [^\n#|;]+)", text, re.MULTILINE)
        for span in spans:
            try:
                yield path.name, shlex.split(span.partition(" | ")[0].replace("...", ""))[1:]
            except ValueError:  # a quotation mark that is closed in the next line
                continue


def problem(words: list[str]) -> str:
    """What is wrong with a call of `orca`: no such command, or no such option of it."""
    group: Any = get_command(app)
    context: Any = None
    options = [word for word in words if word.startswith("--")]
    path: list[str] = []
    for word in (word for word in words if not word.startswith("-") and word != "$"):
        if not hasattr(group, "get_command"):
            break
        if (found := group.get_command(context, word)) is None:
            if path or not re.fullmatch(r"[a-z]+", word):
                return "" if not re.fullmatch(r"[a-z-]+", word) else f"no command {' '.join([*path, word])}"
            return f"no command {word}"
        group, path = found.load() if isinstance(found, LazyCommand) else found, [*path, word]
    known = {name for each in (group, get_command(app)) for param in each.params for name in param.opts}
    known |= {name for param in group.params for name in param.secondary_opts} | {"--help"}
    if path and path[0] in WITH_FREE_OPTIONS:
        return ""
    return ", ".join(f"{' '.join(path)} has no {name}" for word in options if (name := word.split("=")[0]) not in known)


def test_every_command_of_the_documents_exists() -> None:
    found = [*commands()]
    assert len(found) > 100
    assert [f"{name}: orca {shlex.join(words)}: {why}" for name, words in found if (why := problem(words))] == []


def test_a_command_that_does_not_exist_is_found() -> None:
    assert problem(["queues", "ls"]) == ""
    assert problem(["queues", "dead", "ls"]) == ""
    assert "queues fly" in problem(["queues", "fly"])
    assert "no --wings" in problem(["queues", "ls", "--wings"])
