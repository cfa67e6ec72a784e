"""Programs and Python packages: there, where the configuration says, and new enough."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from orca import config
from orca.cluster.doctor.finding import Check, Finding
from orca.cluster.doctor.site import Examined
from orca.process import find_program
from orca.program_version import version_of

SECTION = "programs"
OLDEST = {"wsclean": "3.0", "aoflagger": "3.1"}
"""Debian 12 has 3.1 of both. Before 3.0 WSClean lacks the gridder and options that we count on; strategies in Lua, as
ours is, came with AOFlagger 3.0, and the strategies of 3.1 are what ours was measured beside."""
ANSWER_S = 8.0
DISTRIBUTION = "orca-lwa"


def checks(site: Examined) -> list[Check]:
    """All of the section; with a broken configuration, programs as they are called without one."""
    execs = (site.settings or config.load(config.default_path())).execs
    wanted = {"wsclean": execs.wsclean, "aoflagger": execs.aoflagger}
    return [
        *(Check(SECTION, f"execs.{key}", partial(_program, key, name)) for key, name in wanted.items()),
        Check(SECTION, "aoflagger package", _flagger),
        Check(SECTION, "python packages", _packages),
        Check(SECTION, "setpriv", _setpriv),
    ]


def _program(key: str, name: str) -> Iterator[Finding]:
    path = find_program(name, f"execs.{key}")
    found = version_of(path, deadline_s=ANSWER_S)
    yield _judged(
        f"execs.{key}", found, OLDEST[key], str(path), f"apt install {key}, or set execs.{key} to a newer one"
    )


def _judged(name: str, found: str, oldest: str, where: str, remedy: str) -> Finding:
    try:
        old = Version(found) < Version(oldest)
    except InvalidVersion:
        return Finding(SECTION, name, "note", f"{where}, version {found}, which cannot be compared with {oldest}")
    if old:
        return Finding(SECTION, name, "error", f"{where} has version {found}, and {oldest} is needed", remedy)
    return Finding(SECTION, name, "ok", f"{where}, version {found}")


def _flagger() -> Iterator[Finding]:
    """The module that flags; the program of that name is for people."""
    again = "script/bootstrap"
    try:
        found = version("aoflagger")
    except PackageNotFoundError:
        yield Finding(SECTION, "aoflagger package", "error", "Python has no package aoflagger", again)
        return
    yield _judged("aoflagger package", found.partition(".post")[0], OLDEST["aoflagger"], "Python package", again)


def _packages() -> Iterator[Finding]:
    """Versions that pyproject.toml asks for."""
    try:
        wanted = [Requirement(text) for text in requires(DISTRIBUTION) or ()]
    except PackageNotFoundError:
        seen = f"{DISTRIBUTION} is not installed as a package, so what it needs is not known"
        yield Finding(SECTION, "python packages", "warning", seen, "script/bootstrap")
        return
    needed = [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    wrong = [text for each in needed if (text := _unlike(each))]
    for text in wrong:
        yield Finding(SECTION, "python packages", "error", text, "script/bootstrap")
    if not wrong:
        yield Finding(SECTION, "python packages", "ok", f"{len(needed)}, in versions that ORCA takes")


def _unlike(wanted: Requirement) -> str:
    try:
        found = version(wanted.name)
    except PackageNotFoundError:
        return f"{wanted.name} is missing"
    fits = wanted.specifier.contains(found, prereleases=True)
    return "" if fits else f"{wanted.name} is {found}, and {wanted.specifier} is needed"


def _setpriv() -> Iterator[Finding]:
    """Without it no program is run: it ends them when the process that started them is killed."""
    path = find_program("setpriv", "PATH")
    yield Finding(SECTION, "setpriv", "ok", str(path))
