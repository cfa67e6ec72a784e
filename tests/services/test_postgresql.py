"""Prefect's server on PostgreSQL, which a cluster needs: one key of the configuration, and nothing else changes."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from site_of_tests import Site, outcomes

from orca.cluster.ports import free_port

PROGRAMS = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
pytestmark = pytest.mark.skipif(PROGRAMS is None, reason="PostgreSQL is not installed")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL of our own on the loopback interface; its address."""
    assert PROGRAMS is not None
    folder = tmp_path_factory.mktemp("postgresql")
    as_user: list[str] = []
    if os.geteuid() == 0:  # it does not run as root
        user = pwd.getpwnam("postgres")
        for part in (folder, *folder.parents[: len(folder.parents) - 2]):
            part.chmod(part.stat().st_mode | 0o011)  # so that its user gets there
        shutil.chown(folder, user.pw_uid, user.pw_gid)
        as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]
    port = free_port("127.0.0.1")
    (folder / "password").write_text("pa55/word")
    (folder / "password").chmod(0o644)

    def call(program: str, *words: str) -> None:
        subprocess.run(
            [*as_user, str(PROGRAMS / program), *words], cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=120
        )

    data, log = str(folder / "data"), str(folder / "log")
    call("initdb", "-D", data, "-U", "orca", "--pwfile", str(folder / "password"), "-A", "scram-sha-256", "--no-sync")
    options = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off"
    call("pg_ctl", "-D", data, "-l", log, "-w", "-o", options, "start")
    try:
        yield f"postgresql://orca:pa55%2Fword@127.0.0.1:{port}/postgres"
    finally:
        call("pg_ctl", "-D", data, "-m", "immediate", "stop")


def test_a_flow_runs_with_a_server_on_postgresql(database: str, tmp_path: Path, make_ms: Callable[..., Path]) -> None:
    site = Site(tmp_path, {"prefect": {"database": database}, "limits": {"settle_s": 0}})
    ms = make_ms()
    try:
        result = site.run("run", "imaging", ms, "--size", 256, "--scale", 0.5, "--out", tmp_path / "out", "--json")
        assert [outcome["status"] for outcome in outcomes(result).values()] == ["done"], result.stderr
        assert "pa55" not in result.stderr + site.run("config", "show").stdout
        count = "select count(*) from flow_run where state_type = 'COMPLETED'"
        asked = subprocess.run([str(PROGRAMS / "psql"), database, "-tAc", count], capture_output=True, text=True)
        assert asked.stdout.strip() == "1", asked.stderr
    finally:
        site.run("down")
