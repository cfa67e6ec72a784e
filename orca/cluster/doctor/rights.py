"""Who else can read passwords and keys, or write what we believe."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from orca.cluster.doctor.finding import Check, Finding
from orca.cluster.doctor.site import Examined
from orca.cluster.machine import standing
from orca.cluster.security import CA, CERTIFICATE, KEY
from orca.config import Config

SECTION = "rights"
SOON_DAYS = 30
_READ, _WRITE = stat.S_IRGRP | stat.S_IROTH, stat.S_IWGRP | stat.S_IWOTH
_PASSWORD = re.compile(rb"://[^\s/@:]*:[^\s/@]+@")


def checks(site: Examined) -> list[Check]:
    """All of the section."""
    found = [Check(SECTION, "orca-conf.yml", lambda: _file(site))]
    settings = site.settings
    if settings is not None:
        found.append(Check(SECTION, "orca up", lambda: _run_folder(settings)))
        found.append(Check(SECTION, "spool", lambda: _spool(settings)))
        found.append(Check(SECTION, "certificates", lambda: _certificates(settings)))
    return found


def _file(site: Examined) -> Iterator[Finding]:
    """Who can write the file chooses the programs that run; who can read it may find a password."""
    if site.file is None:
        return
    path = site.file.absolute()
    mode = path.stat().st_mode
    seen = f"{path} {stat.filemode(mode)}"
    if mode & _WRITE:
        told = f"{seen}: others can write it, and so choose which programs run as you"
        yield Finding(
            SECTION, "orca-conf.yml", "error" if mode & stat.S_IWOTH else "warning", told, f"chmod go-w {path}"
        )
    elif mode & _READ and _PASSWORD.search(path.read_bytes()):
        told = f"{seen}: others can read its password"
        yield Finding(SECTION, "orca-conf.yml", "warning", told, f"chmod 600 {path}")
    else:
        yield Finding(SECTION, "orca-conf.yml", "ok", seen)


def _run_folder(settings: Config) -> Iterator[Finding]:
    """`up.json` has passwords that were made here."""
    path = standing.run_folder(settings) / "up.json"
    if path.exists():
        mode = path.stat().st_mode
        if mode & (_READ | _WRITE) and path.parent.stat().st_mode & (stat.S_IXGRP | stat.S_IXOTH):
            seen = f"{path} {stat.filemode(mode)}: others can read its passwords"
            yield Finding(SECTION, "orca up", "warning", seen, f"chmod 600 {path}; chmod 700 {path.parent}")
        else:
            yield Finding(SECTION, "orca up", "ok", f"{path} is yours alone")


def _spool(settings: Config) -> Iterator[Finding]:
    """Who can write there has flows started."""
    folder = settings.paths.spool
    if not folder.is_dir():
        return
    mode = folder.stat().st_mode
    if mode & stat.S_IWOTH:
        seen = f"{folder} {stat.filemode(mode)}: whoever writes a message there has it sent as yours"
        yield Finding(SECTION, "spool", "warning", seen, f"chmod o-w {folder}")
    else:
        yield Finding(SECTION, "spool", "ok", f"{folder} {stat.filemode(mode)}")


def _certificates(settings: Config) -> Iterator[Finding]:
    folder = settings.network.tls
    if folder is None:
        return
    again = f"orca cluster certs --out {folder} --force, and the folder to all machines"
    missing = [name for name in (CA, CERTIFICATE, KEY) if not os.access(folder / name, os.R_OK)]
    if missing:
        seen = f"{', '.join(missing)} cannot be read in {folder}"
        yield Finding(SECTION, "certificates", "error", seen, again)
        return
    key = folder / KEY
    if key.stat().st_mode & (_READ | _WRITE):
        seen = f"{key} {stat.filemode(key.stat().st_mode)}: whoever has it can run anything in the cluster"
        yield Finding(SECTION, "certificates", "error", seen, f"chmod 600 {key}")
    for name in (CA, CERTIFICATE):
        yield _expiry(folder / name, again)


def _expiry(path: Path, again: str) -> Finding:
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        return Finding(SECTION, path.name, "error", f"{path} is no certificate ({error})", again)
    left = (certificate.not_valid_after_utc - datetime.now(UTC)).days
    until = f"{path} holds until {certificate.not_valid_after_utc:%Y-%m-%d}"
    if left < 0:
        return Finding(SECTION, path.name, "error", f"{until}: nobody talks to anybody with it", again)
    if left < SOON_DAYS:
        return Finding(SECTION, path.name, "warning", f"{until}, {left} days from now", again)
    return Finding(SECTION, path.name, "ok", until)
