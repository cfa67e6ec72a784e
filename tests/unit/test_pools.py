"""work_pools.yaml: what it says, where it is found, and what is told of mistakes in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from orca.cluster import pools
from orca.cluster.pools import default_path, find_pools, load_pools, pool_name, this_host
from orca.errors import ConfigError, InputError

ROOT = Path(__file__).parents[2]
TELESCOPE = ROOT / "work_pools.yaml"
POOLS = ["default", "imaging", "bandpass", "cosmology"]

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write((old, new), ...)`: the telescope's file with the first of each `old` replaced."""

    def write(*changes: tuple[str, str]) -> Path:
        text = TELESCOPE.read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        path = tmp_path / "pools.yaml"
        path.write_text(text)
        return path

    return write


def line_of(path: Path, text: str) -> int:
    return next(number for number, line in enumerate(path.read_text().splitlines(), 1) if text in line)


def test_the_telescopes_file_names_its_nodes_and_what_they_offer() -> None:
    telescope = load_pools(TELESCOPE)
    assert telescope.hosts == tuple(f"lwacalim{number:02d}" for number in range(11))
    assert list(telescope.pools) == POOLS
    assert telescope.path == TELESCOPE
    assert (telescope.pools["imaging"].threads, telescope.pools["imaging"].memory_gb) == (4, 50)
    assert telescope.reserved_cores == {f"lwacalim{number:02d}": 8 for number in range(1, 9)}  # recorders run there
    assert telescope.recycle.tasks == 20


@pytest.mark.parametrize(
    ("cores", "memory_gb", "slots"), [(2, 8, (2, 1, 1, 1)), (1, 2, (1, 1, 1, 1)), (16, 34, (8, 8, 8, 1))]
)
def test_one_machine_offers_what_it_has_room_for(
    cores: int, memory_gb: float, slots: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"total": memory_gb * 1e9}))
    own = load_pools(default_path())
    assert own.hosts == (this_host(),)
    assert own.slots(this_host()) == dict(zip(POOLS, slots, strict=True))


def test_each_slot_is_a_process(write: Write) -> None:
    telescope = load_pools(write(("slots: 4", "slots: 3"), ("slots: 1", "slots: 0")))
    processes = telescope.processes("lwacalim03")
    assert processes == [*3 * [{"default": 1}], *2 * [{"imaging": 1}], {"cosmology": 1}]
    assert [telescope.memory_gb(process) for process in processes] == [8, 8, 8, 50, 50, 4]


def test_where_pools_take_turns_a_process_serves_those_that_have_a_slot_left(write: Write) -> None:
    changes = ("slots: 4", "slots: 3"), ("slots: 1", "slots: 0"), ("limits:", "take_turns: true\nlimits:")
    telescope = load_pools(write(*changes))
    processes = telescope.processes("lwacalim03")
    assert processes == [
        {"default": 1, "imaging": 1, "cosmology": 1},
        {"default": 1, "imaging": 1},
        {"default": 1},
    ]
    assert [telescope.memory_gb(process) for process in processes] == [50, 50, 8]


def test_a_pool_may_be_served_by_some_nodes_only(write: Write) -> None:
    path = write()
    contents = yaml.safe_load(path.read_text())
    contents["pools"]["imaging"]["hosts"] = ["lwacalim00"]
    path.write_text(yaml.safe_dump(contents))
    telescope = load_pools(path)
    assert "imaging" in telescope.slots("lwacalim00")
    assert "imaging" not in telescope.slots("lwacalim01")
    with pytest.raises(InputError, match=r"no host lwacalim11.*Known are lwacalim00"):
        telescope.slots("lwacalim11")


def test_a_prefix_separates_users() -> None:
    assert (pool_name("default", "imaging"), pool_name("anna", "imaging")) == ("imaging", "anna-imaging")


MISTAKES = [
    ("slots: 2", "slotz: 2", "pools.imaging.slotz: unknown key; did you mean slots?"),
    ("  imaging:", "  imagin:", "pools.imagin: unknown key; did you mean imaging?"),
    ("recycle:", "nodes: [a]\nrecycle:", "nodes: unknown key; known here: hosts, pools, limits"),
    ("free_memory_gb: 8", "free_memory: 8", "limits.free_memory: unknown key; did you mean free_memory_gb?"),
    ("runs: 8", "runs: eight", "pools.default.runs: expected a whole number, found 'eight'"),
    ("runs: 4", "runs: 0", "pools.imaging.runs: expected a number of at least 1, found 0"),
    ("slots: 4", "slots: true", "pools.default.slots: expected a whole number, found True"),
    ("load: 0.9", "load: .nan", "limits.load: expected a finite number, found nan"),
    ("memory_gb: 50", "memory_gb: 0", "pools.imaging.memory_gb: expected a number above 0, found 0"),
    ("    threads: 4", "    runs: 4", "pools.imaging.runs: given twice, first in line 31"),
    ("hosts: null", "hosts: lwacalim01", "pools.default.hosts: expected a list, found 'lwacalim01'"),
    ("hosts: null", "hosts: [lwacalim77]", "pools.default.hosts: lwacalim77 is not among the hosts"),
    ("lwacalim08: 8", "lwacalim18: 8", "reserved_cores.lwacalim18: is not among the hosts"),
    ("slots: 4", "slots: null", "pools.default.slots: expected a number"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "told"), MISTAKES)
def test_a_mistake_is_told_with_file_line_and_key(old: str, new: str, told: str, write: Write) -> None:
    path = write((old, new))
    with pytest.raises(ConfigError) as caught:
        load_pools(path)
    line = line_of(path, new.strip().splitlines()[0]) if "twice" not in told else 33
    assert f"{path}:{line}: {told}" in str(caught.value)
    assert caught.value.exit_code == 2


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(write: Write) -> None:
    path = write(("runs: 8", "runs: x"), ("load: 0.9", "load: x"), ("  tasks: 20\n", ""))
    with pytest.raises(ConfigError) as caught:
        load_pools(path)
    keys = [line.split(": ")[1] for line in str(caught.value).splitlines()]
    assert keys == ["pools.default.runs", "limits.load", "recycle.tasks"]


def test_all_four_pools_are_needed(tmp_path: Path) -> None:
    contents = yaml.safe_load(TELESCOPE.read_text())
    del contents["pools"]["bandpass"]
    path = tmp_path / "pools.yaml"
    path.write_text(yaml.safe_dump(contents))
    with pytest.raises(ConfigError, match="pools: bandpass is missing; needed are default, imaging"):
        load_pools(path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("pools: [1", r"pools.yaml:1: is no YAML: "),
        ("- a", r"pools.yaml:1: the file: expected keys below it"),
        ("", r"pools.yaml:1: limits: is missing"),
        ("a: &a {b: *a}", "is no YAML"),
        ("x: \x00", "is no YAML"),
        ("[a]: b", "is no YAML"),
    ],
)
def test_what_is_no_such_file_is_told(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "pools.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told):
        load_pools(path)


def test_the_file_is_found_by_variable_then_beside_the_configuration_then_in_the_home(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_pools() == default_path()
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    Path("work_pools.yaml").write_text(TELESCOPE.read_text())
    assert find_pools() == default_path()
    at_home = Path.home() / "work_pools.yaml"
    at_home.write_text(TELESCOPE.read_text())
    assert find_pools() == at_home
    conf = tmp_path / "orca-conf.yml"
    conf.write_text("cluster: calim")
    monkeypatch.setenv("ORCA_CONF", str(conf))
    beside = tmp_path / "work_pools.yaml"
    beside.write_text(TELESCOPE.read_text())
    assert find_pools() == beside
    named = tmp_path / "other.yaml"
    monkeypatch.setenv("ORCA_POOLS", str(named))
    with pytest.raises(ConfigError, match="ORCA_POOLS names a file that does not exist"):
        load_pools()
    named.write_text(TELESCOPE.read_text())
    assert load_pools().path == named


def test_the_files_say_what_the_modules_know() -> None:
    assert list(pools.POOLS) == POOLS
    for path in (TELESCOPE, default_path()):
        assert set(yaml.safe_load(path.read_text())["pools"]) == set(POOLS)
