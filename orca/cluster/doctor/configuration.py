"""orca-conf.yml, work_pools.yaml, triggers.yaml and the deployments: found where, and whether they make sense."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from orca.cluster.doctor.finding import Check, Finding, failure
from orca.cluster.doctor.site import Examined
from orca.cluster.machine import standing
from orca.config import SecretUri
from orca.errors import InfrastructureError

SECTION = "configuration"


def checks(site: Examined) -> list[Check]:
    """All of the section."""
    return [
        Check(SECTION, "orca-conf.yml", lambda: _file(site)),
        Check(SECTION, "work_pools.yaml", lambda: _pools(site)),
        Check(SECTION, "triggers.yaml", _rules),
        Check(SECTION, "deployments", _deployments),
    ]


def _file(site: Examined) -> Iterator[Finding]:
    if site.broken is not None or site.settings is None:
        yield from _broken(site)
        return
    if site.file is None:
        remedy = "orca config init"
        yield Finding(SECTION, "orca-conf.yml", "note", "there is none: the packaged defaults are in force", remedy)
    else:
        yield Finding(SECTION, "orca-conf.yml", "ok", str(site.settings.file))
    for warning in site.settings.warnings:
        text, _, command = warning.partition(". Run: ")
        if command.startswith("chmod"):  # the section rights says so, also of a file that is broken
            continue
        yield Finding(SECTION, "orca-conf.yml", "warning", text, command)
    for key, value in site.settings.items().items():
        if isinstance(value, SecretUri) and value.placeholders:
            names = " ".join(dict.fromkeys(value.placeholders))
            edit = f"${{EDITOR:-vi}} +{site.settings.line_of(key)} {shlex.quote(str(site.settings.file))}"
            yield Finding(SECTION, key, "error", f"{names} still to be filled in", edit)
    yield from _together(site)


def _broken(site: Examined) -> Iterator[Finding]:
    """Each mistake of the file by itself."""
    error = site.broken
    told = "" if error is None else str(error) if error.path is None else f"{error.path}: {error.problem}"
    given = error.remedy if error is not None else None
    for line in told.splitlines():
        yield Finding(SECTION, "orca-conf.yml", "error", line, given or "Mend that line, then: orca config check")
    yield Finding(SECTION, "orca-conf.yml", "note", "what needs the configuration is not examined until it can be read")


def _together(site: Examined) -> Iterator[Finding]:
    """What is wrong where each value alone is right."""
    settings = site.settings
    if settings is None:
        return
    address = settings.dask.address or ""
    if address.startswith("tls://") and settings.network.tls is None:
        remedy = "Set network.tls to the folder with the cluster's certificates (orca cluster certs)"
        yield Finding(SECTION, "dask.address", "error", f"{address} talks TLS, and network.tls is null", remedy)
    if address.startswith("tcp://") and settings.network.tls is not None:
        seen = f"{address} talks no TLS although network.tls is set: who reaches it can run anything as you"
        yield Finding(SECTION, "dask.address", "warning", seen, "Set dask.address to tls://HOST:PORT")
    try:
        standing.read(standing.run_folder(settings))
    except InfrastructureError as error:
        yield failure(SECTION, "orca up", error)


def _pools(site: Examined) -> Iterator[Finding]:
    if site.pools is None:
        if site.pools_broken is not None:
            yield failure(SECTION, "work_pools.yaml", site.pools_broken)
        else:
            yield Finding(SECTION, "work_pools.yaml", "note", "not read, as orca-conf.yml cannot be")
        return
    hosts = ", ".join(site.pools.hosts) if len(site.pools.hosts) <= 4 else f"{len(site.pools.hosts)} nodes"
    yield Finding(SECTION, "work_pools.yaml", "ok", f"{site.pools.path}, for {hosts}")


def _rules() -> Iterator[Finding]:
    from orca.cluster.deployment_file import read_deployments
    from orca.events.rules import find_rules, load_rules

    path = find_rules()
    rules = load_rules(path)
    count = len(rules.recorded) + len(rules.announced)
    yield Finding(SECTION, "triggers.yaml", "ok", f"{path}, {count} rule{'' if count == 1 else 's'}")
    known = {entry.full_name for entry in read_deployments()}
    for rule in (*rules.recorded, *rules.announced):
        if rule.deployment not in known:
            seen = f"rule {rule.name} starts {rule.deployment}, which is not among ORCA's deployments"
            remedy = f"Name one of {', '.join(sorted(known))} in {path}, unless Prefect has one of yours"
            yield Finding(SECTION, "triggers.yaml", "warning", seen, remedy)


def _deployments() -> Iterator[Finding]:
    from orca.cluster.deployment_file import PACKAGED, read_deployments

    yield Finding(SECTION, "deployments", "ok", f"{PACKAGED}, {len(read_deployments())} deployments")
