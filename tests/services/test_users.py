"""`orca users` with a real RabbitMQ: who is added has a vhost of his own, and nothing of anybody else's."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from site_of_tests import Site, script
from standing_broker import PASSWORD, Broker
from waiting import wait_for

from orca import config
from orca.cluster.machine.broker import find_program
from orca.cluster.pools import POOLS
from orca.config import Config, SecretUri
from orca.errors import BrokerAwayError, InfrastructureError, InputError, RightsError
from orca.events import administrators, names, users
from orca.events.administrators import Administrator, ByApi, ByProgram, administrator
from orca.events.broker import connect, setup
from orca.events.message import run_message
from orca.events.publisher import Publisher
from orca.events.queues import overview
from orca.events.refusals import translated


def api_uri(broker: Broker, user: str = "orca", password: str = PASSWORD) -> SecretUri:
    return SecretUri(f"http://{user}:{password}@127.0.0.1:{broker.ports['rabbitmq-management']}")


@pytest.fixture
def settings(broker: Broker, tmp_path: Path) -> Config:
    """The administrator's."""
    return broker.settings(tmp_path, "default")


@pytest.fixture
def admin(broker: Broker, settings: Config) -> Administrator:
    return administrator(settings, api_uri(broker))


@pytest.fixture
def add(settings: Config, admin: Administrator, tmp_path: Path) -> Callable[..., Config]:
    """`add("anna") -> Config` of a user who is new."""

    def make(name: str, **more: Any) -> Config:
        file = tmp_path / f"{name}.yml"
        users.add(settings, admin, name, file, **more)
        return config.load(file)

    return make


def seen_by(settings: Config) -> list[bool]:
    return [state.declared for state in overview(settings)]


def with_uri(settings: Config, uri: str) -> Config:
    return settings.model_copy(update={"queue": settings.queue.model_copy(update={"broker_uri": SecretUri(uri)})})


def test_a_new_user_can_work_at_once_with_a_file_for_his_eyes_only(add: Callable[..., Config]) -> None:
    made = add("first")
    assert made.file is not None
    assert stat.S_IMODE(made.file.stat().st_mode) == 0o600
    assert list(made.file.parent.glob(".*.part")) == []
    assert made.warnings == ()
    assert seen_by(made) == [True] * len(POOLS)
    with Publisher(made) as publisher:
        assert publisher.publish(run_message("imaging"), "imaging") == "confirmed"
    assert [state.ready for state in overview(made)] == [0, 1, 0, 0]


def test_users_see_and_touch_nothing_of_each_other(add: Callable[..., Config], broker: Broker) -> None:
    mine, theirs = add("mine"), add("theirs")
    uri = mine.queue.broker_uri
    assert uri is not None
    in_their_vhost = with_uri(theirs, uri.reveal().rpartition("/")[0] + "/theirs")
    for forbidden in (lambda: seen_by(in_their_vhost), lambda: setup(in_their_vhost)):
        with pytest.raises(InfrastructureError, match="access to vhost 'theirs' refused for user 'mine'"):
            forbidden()
    with connect(mine) as connection, translated(), connection.channel() as channel:
        with pytest.raises(InfrastructureError, match="no queue"), translated():
            channel.basic_get(names.queue("theirs", "imaging"))
    api = administrators.Management(api_uri(broker, "mine", urlsplit(uri.reveal()).password or ""))
    assert {queue["vhost"] for queue in api.call("queues")} == {"mine"}
    with pytest.raises(RightsError, match="does not show user mine this vhost"):
        api.call("queues/theirs")
    with pytest.raises(RightsError, match="administrators only"):
        users.users(ByApi(api))


def test_a_user_or_a_file_that_is_there_is_left_alone(
    settings: Config, admin: Administrator, add: Callable[..., Config], tmp_path: Path
) -> None:
    made = add("there")
    assert made.file is not None
    before = made.file.read_bytes()
    with pytest.raises(InputError, match="such a file"):
        add("there")
    with pytest.raises(InputError, match="there is a user there already"):
        users.add(settings, admin, "there", tmp_path / "other.yml")
    assert (made.file.read_bytes(), seen_by(made)) == (before, [True] * len(POOLS))
    renewed = add("there", force=True)
    assert seen_by(renewed) == [True] * len(POOLS)
    with pytest.raises(InfrastructureError, match="refuses the login of user there"):
        seen_by(made)


def test_what_was_interrupted_is_completed_with_the_same_password(
    settings: Config, admin: Administrator, tmp_path: Path
) -> None:
    """The user is there, and then the broker is not."""
    file = tmp_path / "late.yml"
    with pytest.raises(BrokerAwayError):
        users.add(with_uri(settings, "pyamqp://orca:x@127.0.0.1:9//"), admin, "late", file)
    assert not file.exists()
    [left] = tmp_path.glob(".*.part")
    assert stat.S_IMODE(left.stat().st_mode) == 0o600
    first = config.load(left).queue.broker_uri
    users.add(settings, admin, "late", file)
    again = config.load(file).queue.broker_uri
    assert first is not None
    assert again is not None
    assert urlsplit(first.reveal()).password == urlsplit(again.reveal()).password
    assert seen_by(config.load(file)) == [True] * len(POOLS)


@pytest.mark.parametrize("name", ["", "Anna", "a b", "../x", "guest", "default", "orca", "ä", "a" * 32, "a\n"])
def test_names_that_will_not_do_are_refused(settings: Config, admin: Administrator, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError):
        users.add(settings, admin, name, tmp_path / "x.yml")
    assert list(tmp_path.glob("*x.yml*")) == []


def test_a_vhost_of_others_is_shared_only_when_that_is_said(add: Callable[..., Config]) -> None:
    add("owner", vhost="common")
    with pytest.raises(InputError, match="vhost common is used by owner"):
        add("common")
    guest = add("visitor", vhost="common")
    assert seen_by(guest) == [True] * len(POOLS)


def test_all_users_are_shown_with_their_rights(admin: Administrator, add: Callable[..., Config]) -> None:
    made = add("shown")
    with connect(made):
        found = {user.name: user for user in wait_for(lambda: _connected(admin, "shown"), "that RabbitMQ tells of it")}
    assert (found["shown"].tags, found["shown"].rights) == (("management",), {"shown": "all"})
    assert found["reader"].rights == {"/": "read .*"}
    assert found["stranger"].rights == {}
    assert "administrator" in found["orca"].tags


def _connected(admin: Administrator, name: str) -> list[users.User]:
    found = users.users(admin)
    return found if any(user.name == name and user.connections for user in found) else []


def test_who_is_removed_is_out_at_once_and_his_vhost_is_gone(admin: Administrator, add: Callable[..., Config]) -> None:
    made = add("leaver")
    add("stayer", vhost="shared")
    add("goer", vhost="shared")
    with Publisher(made) as publisher:
        publisher.publish(run_message("imaging"), "imaging")
    wait_for(lambda: users.belongings(admin, "leaver")["leaver"]["leaver-imaging"] == 1, "that RabbitMQ tells of it")
    with connect(made) as connection:
        assert users.remove(admin, "leaver") == ["leaver"]
        with pytest.raises(BrokerAwayError), translated():
            connection.drain_events(timeout=60)  # hears that it was closed
    with pytest.raises(InfrastructureError):
        seen_by(made)
    assert users.remove(admin, "goer") == []
    with pytest.raises(InputError, match="no user leaver"):
        users.remove(admin, "leaver")
    with pytest.raises(InputError, match="administrator"):
        users.remove(admin, "orca")


@pytest.mark.parametrize(
    ("user", "password", "said"),
    [
        ("orca", "wrong", "refuses the login of user orca"),
        ("reader", PASSWORD, "is not for user reader"),
    ],
)
def test_an_administrator_who_is_none_is_told_what_is_missing(
    broker: Broker, settings: Config, user: str, password: str, said: str
) -> None:
    with pytest.raises(RightsError, match=said) as caught:
        administrator(settings, api_uri(broker, user, password))
    assert password not in str(caught.value)


def test_a_user_of_the_configuration_who_is_no_administrator_is_told_how_to_name_one(
    add: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")  # no rabbitmqctl
    with pytest.raises(RightsError, match=r"user plain of RabbitMQ is no administrator.*--admin-uri"):
        administrator(add("plain"), None)


def test_root_needs_no_management_api_on_the_broker_s_machine(
    broker: Broker, settings: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real rabbitmqctl, told of the tests' node instead of the machine's."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    program = find_program()
    assert program is not None
    private = {
        "HOME": broker.folder,
        "RABBITMQ_NODENAME": "orca@localhost",
        "ERL_EPMD_PORT": broker.ports["epmd"],
        "RABBITMQ_CONF_ENV_FILE": os.devnull,
        "ERL_AFLAGS": "'-start_epmd false'",
    }
    (tmp_path / "bin").mkdir()
    exports = "\n".join(f"export {name}={value}" for name, value in private.items())
    script(tmp_path / "bin" / "rabbitmqctl", f'{exports}\nexec {program.with_name("rabbitmqctl")} "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    admin = administrator(settings, None)
    assert isinstance(admin, ByProgram)
    file = tmp_path / "local.yml"
    users.add(settings, admin, "local", file)
    made = config.load(file)
    assert seen_by(made) == [True] * len(POOLS)
    assert "local" in {user.name for user in users.users(admin)}
    with connect(made):
        assert users.remove(admin, "local") == ["local"]
    with pytest.raises(InfrastructureError):
        seen_by(made)


def test_the_command_line_asks_for_the_password_and_prints_none(broker: Broker, tmp_path: Path) -> None:
    site = Site(tmp_path, broker.sections("default"))
    uri = f"http://orca@127.0.0.1:{broker.ports['rabbitmq-management']}"
    refused = site.run("users", "ls", "--admin-uri", uri)
    assert (refused.returncode, "nobody to ask" in refused.stderr) == (2, True)
    typed = _typed(site, PASSWORD, "users", "add", "typed", "--admin-uri", uri)
    made = config.load(tmp_path / "orca-conf-typed.yml").queue.broker_uri
    assert made is not None
    assert (urlsplit(made.reveal()).password or "") not in typed
    assert PASSWORD not in typed
    environment = {**site.environment(), "ORCA_BROKER_ADMIN": api_uri(broker).reveal()}
    listed = subprocess.run(
        site.command("users", "ls", "--json"), env=environment, capture_output=True, text=True, check=True
    )
    assert "typed" in {user["name"] for user in json.loads(listed.stdout)}
    removing = site.command("users", "rm", "typed")
    asked = subprocess.run(
        removing, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (asked.returncode, "vhost typed goes" in asked.stderr) == (2, True)
    done = subprocess.run([*removing, "--yes"], env=environment, capture_output=True, text=True, check=True)
    assert "removed user typed and vhost typed" in done.stdout


def _typed(site: Site, answer: str, *words: str) -> str:
    """What `orca` shows on a terminal at which somebody types an answer."""
    ours, theirs = os.openpty()
    with subprocess.Popen(
        site.command(*words), env=site.environment(), cwd=site.folder, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        bound = threading.Timer(60, process.kill)
        bound.start()
        shown = b""
        try:
            while b"Password of orca: " not in shown:  # the blank comes once it listens
                shown += os.read(ours, 1000)
            os.write(ours, f"{answer}\n".encode())
            while True:
                shown += os.read(ours, 1000)
        except OSError:  # its end
            bound.cancel()
    os.close(ours)
    assert process.returncode == 0, shown.decode()
    return shown.decode()
