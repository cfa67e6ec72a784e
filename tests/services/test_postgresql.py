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
from waiting import wait_for

from orca.cluster import server
from orca.cluster.ports import free_port
from orca.config import SecretUri

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


def test_a_flow_runs_with_a_server_on_postgresql_which_forgets_it_when_it_is_old(
    database: str, tmp_path: Path, make_ms: Callable[..., Path]
) -> None:
    site = Site(tmp_path, {"prefect": {"database": database}, "limits": {"settle_s": 0}})
    ms = make_ms()
    try:
        result = site.run("run", "imaging", ms, "--size", 256, "--scale", 0.5, "--out", tmp_path / "out", "--json")
        assert [outcome["status"] for outcome in outcomes(result).values()] == ["done"], result.stderr
        assert "pa55" not in result.stderr + site.run("config", "show").stdout
        count = "select count(*) from flow_run where state_type = 'COMPLETED'"
        assert ask(database, count) == "1"
        assert int(ask(database, "select count(*) from log")) > 0

        site.run("down")
        ask(database, "update flow_run set end_time = now() - interval '31 days'")
        made, _ = server.ensure(site.data / "prefect", SecretUri(database), keep_days=30)
        server.wait_until_healthy(made)
        wait_for(lambda: ask(database, "select count(*) from flow_run") == "0", "the removal of an old flow run")
        wait_for(lambda: ask(database, "select count(*) from log") == "0", "the removal of its log")
    finally:
        site.run("down")


def ask(database: str, question: str) -> str:
    """What psql says."""
    assert PROGRAMS is not None
    words = [str(PROGRAMS / "psql"), database, "-tAc", question]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
