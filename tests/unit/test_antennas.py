"""Bad antennas: every way in which a source may fail, and what the autocorrelations show."""

from __future__ import annotations

import shlex
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from orca.antennas import BadAntennas, BadAntennaSource, bad_antennas, bad_by_autocorrelation
from orca.errors import InputError
from orca.procfs import processes

DAY = date(2026, 1, 10)
FALLBACK = (7, "LWA-200")


def from_file(tmp_path: Path, text: str | bytes, day: date = DAY) -> BadAntennas:
    file = tmp_path / "bad.yml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return bad_antennas(BadAntennaSource(file=file, fallback=FALLBACK), day)


def from_command(script: str, *arguments: str, deadline_s: float = 10, day: date = DAY) -> BadAntennas:
    command = shlex.join(["sh", "-c", script, *arguments])
    return bad_antennas(BadAntennaSource(command=command, fallback=FALLBACK, deadline_s=deadline_s), day)


def assert_fallback(told: BadAntennas, *parts: str) -> None:
    """The fall-back list is used, and the warning says so in one line, and why."""
    assert told.antennas == FALLBACK
    assert told.source == "fall-back list of the configuration"
    assert told.warning is not None
    assert told.warning.endswith("; used is the fall-back list of 2 antennas")
    assert "\n" not in told.warning
    for part in parts:
        assert part in told.warning


# ---- a file ----

LISTS = """\
2025-12-01: [1, 2]
2026-01-10: [3, LWA-114, "12", LWA266, 3]
2026-01-20: []
"2026-02-01": [5]
"""


@pytest.mark.parametrize(
    ("day", "antennas", "entry"),
    [
        (date(2025, 12, 1), (1, 2), "2025-12-01"),
        (date(2026, 1, 9), (1, 2), "2025-12-01"),
        (date(2026, 1, 10), (3, "LWA-114", 12, "LWA266"), "2026-01-10"),
        (datetime(2026, 1, 19, 23, 59, tzinfo=UTC), (3, "LWA-114", 12, "LWA266"), "2026-01-10"),
        (date(2026, 1, 25), (), "2026-01-20"),
        (date(2030, 1, 1), (5,), "2026-02-01"),
    ],
)
def test_the_newest_list_that_is_not_after_the_day_counts(tmp_path: Path, day, antennas, entry) -> None:
    told = from_file(tmp_path, LISTS, day)
    assert told == BadAntennas(antennas, f"{tmp_path}/bad.yml, list of {entry}", None)


def test_a_file_with_later_dates_only_gives_the_fall_back_list(tmp_path: Path) -> None:
    told = from_file(tmp_path, "2026-02-01: [1]\n2026-01-11: [2]\n")
    assert_fallback(told, "has no list for 2026-01-10: its first is of 2026-01-11")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "holds no lists by date"),
        ("{}", "holds no lists by date"),
        ("[1, 2]", "holds no lists by date"),
        ("12", "holds no lists by date"),
        ("2026-01-10", "holds no lists by date"),
        ("2026-01-10: [1", ":1: is no YAML: expected ',' or ']'"),
        ("2026-01-09: [1]\n2026-01-10: [1, *x]", ":2: is no YAML: found undefined alias 'x'"),
        (b"\xff\xfe\x00", "is no YAML"),
        (b"[" * 5000, "is no YAML"),
        ("2026-13-01: [1]", ":1: a key in it is no date"),
        ("2026-01-09: [1]\n2026-01-32: [1]", ":2: a key in it is no date"),
        ("2026-01-09: [1]\nJanuary 10: [2]", ":2: a key in it is no date"),
        ("2026-01-10 12:00:00: [1]", "is no date"),
        ("20260110: [1]", "is no date"),
        ("2026-01-10:", "2026-01-10: expected a list of antennas"),
        ("2026-01-10: none", "2026-01-10: expected a list of antennas"),
        ("2026-01-09: [1]\n2026-01-10:\n- 1\n- all", ":4: 2026-01-10: expected an antenna"),
        ("2026-01-10: 12", "2026-01-10: expected a list of antennas"),
        ("2026-01-10: {12: bad}", "2026-01-10: expected a list of antennas"),
        ("2026-01-10: [-1]", "expected an antenna"),
        ("2026-01-10: [1.5]", "expected an antenna"),
        ("2026-01-10: [yes]", "expected an antenna"),
        ("2026-01-10: [null]", "expected an antenna"),
        ("2026-01-10: ['']", "expected an antenna"),
        ("2026-01-10: [LWA 114]", "expected an antenna"),
        ("2026-01-10: [all]", "expected an antenna"),
        ("2026-01-10: [[1]]", "expected an antenna"),
        ("# " + "x" * 1_000_001, "holds no lists by date"),
    ],
)
def test_a_broken_file_gives_the_fall_back_list(tmp_path: Path, text, reason) -> None:
    assert_fallback(from_file(tmp_path, text), f"{tmp_path}/bad.yml:", reason)


def test_an_antenna_of_a_file_is_told_with_its_line_and_others_with_their_source(tmp_path: Path) -> None:
    told = from_file(tmp_path, "2025-12-01: [1, 2]\n2026-01-10:\n- 3\n- LWA-999\n")
    assert [told.place(each) for each in told.antennas] == [f"{tmp_path}/bad.yml:3", f"{tmp_path}/bad.yml:4"]
    assert bad_antennas(BadAntennaSource(fallback=(3,)), DAY).place(3) == "list of the configuration"


def test_one_antenna_is_not_several() -> None:
    told = bad_antennas(BadAntennaSource(command="false", fallback=(3,)), DAY)
    assert str(told.warning).endswith("used is the fall-back list of 1 antenna")


def test_a_file_that_is_missing_or_a_folder_gives_the_fall_back_list(tmp_path: Path) -> None:
    for file, reason in ((tmp_path / "none.yml", "there is no such file"), (tmp_path, "cannot be read")):
        assert_fallback(bad_antennas(BadAntennaSource(file=file, fallback=FALLBACK), DAY), f"{file}: {reason}")


# ---- a command ----


@pytest.mark.parametrize(
    ("script", "antennas"),
    [
        ("echo '[3, \"LWA-114\", 12]'", (3, "LWA-114", 12)),
        ("echo '['; echo '3 ]'", (3,)),
        ("printf 'LWA-114\\n\\n 12 \\nLWA-003A\\n'", ("LWA-114", 12, "LWA-003A")),
        ("echo LWA-114; echo LWA-114", ("LWA-114",)),
        ("echo '[]'", ()),
        ("echo None", ()),
    ],
)
def test_what_a_command_prints_is_the_list(script: str, antennas: tuple) -> None:
    assert from_command(script) == BadAntennas(antennas, "sh, for 2026-01-10", None)


def test_the_date_reaches_the_command_as_one_argument_and_no_shell_sees_it() -> None:
    told = from_command(
        'test "$1" = "on 2026-01-10; x" && test "$2" = 2026-01-10 && echo 5', "sh", "on {date}; x", "{date}"
    )
    assert (told.antennas, told.warning) == ((5,), None)
    late = datetime(2026, 1, 10, 23, 0, tzinfo=UTC)
    assert from_command("echo LWA$1 | tr -d -", "sh", "{date}", day=late).antennas == ("LWA20260110",)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 1", "ended with exit code 1, and printed nothing"),
        ("echo 12; echo cannot connect to database; exit 1", "ended with exit code 1: cannot connect to database"),
        ("kill -SEGV $$", "was ended by signal SIGSEGV"),
        ("true", "prints no list of antennas"),
        ("echo", "prints no list of antennas"),
        ("echo error", "prints no list of antennas"),
        ("echo 12; echo connection refused >&2", "prints no list of antennas"),
        ("echo '<html>500</html>'", "prints no list of antennas"),
        ("echo '{\"error\": 1}'", "prints no list of antennas"),
        ("echo '[1, 2'", "prints no list of antennas"),
        ("echo '[true]'", "prints no list of antennas"),
        ("echo '[NaN]'", "prints no list of antennas"),
        ("echo null", "prints no list of antennas"),
        ("echo -3", "prints no list of antennas"),
        ("head -c 300 /dev/zero | tr '\\0' '\\377'", "prints no list of antennas"),
        ("head -c 100000 /dev/zero | tr '\\0' '['", "prints no list of antennas"),
        ("head -c 1100000 /dev/zero", "prints too much to be a list of antennas"),
    ],
)
def test_a_command_that_fails_or_prints_no_list_gives_the_fall_back_list(script: str, reason: str) -> None:
    assert_fallback(from_command(script), f"sh: {reason}")


def test_a_command_that_hangs_is_ended_at_its_deadline_and_gives_the_fall_back_list() -> None:
    told = from_command("echo 12; sleep 987.5 & sleep 987.5", deadline_s=1)
    assert_fallback(told, "sh: took longer than 1 s and was ended")
    left = [pid for pid, *_ in processes() if b"987.5" in command_line(pid)]
    assert left == []


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_command_that_is_not_there_gives_the_fall_back_list(tmp_path: Path) -> None:
    source = BadAntennaSource(command=f"{tmp_path}/bad {{date}}", fallback=FALLBACK)
    assert_fallback(bad_antennas(source, DAY), f"{tmp_path}/bad: program not found")


def test_output_that_cannot_be_kept_gives_the_fall_back_list(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    assert_fallback(from_command("echo 1"), "sh: its output cannot be kept")


# ---- the source itself ----


def test_a_list_alone_is_the_list_and_nothing_is_said_to_be_nothing() -> None:
    assert bad_antennas(BadAntennaSource(fallback=(3,)), DAY) == BadAntennas((3,), "list of the configuration", None)
    assert bad_antennas(BadAntennaSource(), DAY) == BadAntennas((), "no list is configured", None)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"file": "bad.yml"}, "expected a fallback beside the file"),
        ({"command": "bad"}, "expected a fallback beside the command"),
        ({"file": "a", "command": "b", "fallback": [1]}, "not both"),
        ({"command": "bad 'x", "fallback": [1]}, "quotation mark"),
        ({"command": " ", "fallback": [1]}, "expected a command line"),
        ({"fallback": "12"}, "expected a list of antennas"),
        ({"fallback": [True]}, "expected an antenna"),
        ({"deadline_s": 0}, "greater than 0"),
        ({"url": "x"}, "url"),
    ],
)
def test_a_source_that_could_end_in_nothing_or_is_wrong_is_refused(given: dict, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        BadAntennaSource(**given)


def test_the_sources_module_imports_at_once() -> None:
    code = "import sys, orca.antennas; print(sorted({'numpy', 'numba', 'astropy', 'casacore'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# ---- autocorrelations ----


class Array:
    """Autocorrelations of an array that works, to be damaged: bandpass shape, 1.5 dB of scatter, 2 % noise."""

    def __init__(self, n_core: int = 60, n_outriggers: int = 30, scatter_db: float = 1.5, seed: int = 3) -> None:
        rng = np.random.default_rng(seed)
        n = n_core + n_outriggers
        self.core = np.arange(n) < n_core
        shape = 1e6 * (1 + 0.5 * np.sin(np.linspace(0, 3, 32)))
        gain_db = np.clip(rng.normal(0, scatter_db, (n, 2)), -2.5 * scatter_db, 2.5 * scatter_db)
        gain_db[~self.core] -= 12  # fibre
        self.power = shape[None, :, None] * 10 ** (gain_db[:, None, :] / 10) * rng.normal(1, 0.02, (n, 32, 2))

    def bad(self, **options) -> dict[tuple[int, int], str]:
        return bad_by_autocorrelation(self.power, self.core, **options)


def both(*antennas: int) -> set[tuple[int, int]]:
    """Both polarizations of antennas."""
    return {(number, pol) for number in antennas for pol in (0, 1)}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "size", [(60, 30), (243, 109), (16, 8), (9, 3), (5, 0), (0, 6), (3, 3), (1, 0), (2, 1), (0, 0)]
)
def test_an_array_that_works_has_no_bad_antennas(size: tuple[int, int], seed: int) -> None:
    scatter = 1.5 if min(size) >= 5 else 0.5
    array = Array(*size, scatter_db=scatter, seed=seed)
    if min(size) < 5:
        array.power[~array.core] *= 10**1.2  # judged by all together: of one level
    assert array.bad() == {}


def test_antennas_that_are_all_equal_are_all_well() -> None:
    assert bad_by_autocorrelation(np.ones((10, 4, 2)), np.ones(10, bool)) == {}


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -1.0])
def test_an_antenna_without_power_is_dead(value: float) -> None:
    array = Array()
    array.power[4] = value
    array.power[70, :, 1] = value
    array.power[8, :20, 0] = value  # more than half of its channels
    array.power[9, :12, 0] = value
    assert array.bad() == dict.fromkeys([(4, 0), (4, 1), (8, 0), (70, 1)], "no power")


def test_channels_that_nobody_has_are_nobodys_fault() -> None:
    array = Array()
    array.power[:, 4:30] = np.nan
    array.power[5, :4] = 0
    assert array.bad() == dict.fromkeys(both(5), "no power")


def test_rfi_in_less_than_half_of_the_channels_makes_no_antenna_bad() -> None:
    array = Array()
    array.power[::3, 7:19] *= 1e5
    assert array.bad() == {}


def test_antennas_off_the_others_are_named_with_how_far() -> None:
    array = Array()
    level = 10 * np.log10(np.median(array.power, axis=1))
    array.power[3, :, 1] *= 1e-3
    array.power[65] *= 1e3
    bad = array.bad()
    assert set(bad) == {(3, 1)} | both(65)
    off = level[3, 1] - 30 - np.median(level[:60, 1])
    told = float(bad[3, 1].removesuffix(" dB weaker than the other core antennas"))
    assert told == pytest.approx(-off, abs=0.3)
    assert all(bad[65, pol].endswith(" dB stronger than the other outriggers") for pol in (0, 1))


def test_core_and_outriggers_are_judged_apart() -> None:
    array = Array(scatter_db=0.5)
    array.power[70] *= 10**1.2  # as strong as the core
    array.power[5] *= 10**-1.2  # as weak as an outrigger
    assert set(array.bad()) == both(5, 70)


def test_a_few_outriggers_are_judged_with_the_core() -> None:
    array = Array(20, 4, scatter_db=0.5)
    array.power[~array.core] *= 10**1.2
    array.power[22] *= 1e-2
    bad = array.bad()
    assert set(bad) == both(22)
    assert all(text.endswith(" dB weaker than the other antennas") for text in bad.values())


def test_fewer_antennas_than_a_group_are_only_judged_dead() -> None:
    array = Array(3, 1, scatter_db=0.1)
    array.power[0] *= 1e-4
    array.power[1] = 0
    assert set(array.bad()) == both(1)


def test_n_sigma_and_the_scatter_of_the_group_set_the_limit() -> None:
    array = Array(200, 0, scatter_db=1.0)
    level = 10 * np.log10(np.median(array.power, axis=1))
    sigma = 1.4826 * np.median(np.abs(level - np.median(level, axis=0)), axis=0)
    middle = np.median(level, axis=0)
    for number, factor in ((0, 6.7), (1, 7.3), (2, -6.7), (3, -7.3)):
        array.power[number] *= 10 ** ((middle + factor * sigma - level[number]) / 10)
    assert set(array.bad()) == both(1, 3)
    assert set(array.bad(n_sigma=6.0)) == both(0, 1, 2, 3)


@pytest.mark.parametrize("share", [0.3, 0.55, 0.7])
@pytest.mark.parametrize("how", ["dead", "weak", "weak and scattered"])
def test_where_most_antennas_are_bad_they_are_the_bad_ones(how: str, share: float) -> None:
    """A median of all would take the weak ones for well, and those that work for too strong."""
    array = Array(120, 60)
    rng = np.random.default_rng(5)
    broken = np.flatnonzero(rng.permutation(180) < share * 180)
    if how == "dead":
        array.power[broken] = 0
    elif how == "weak":
        array.power[broken] = 50 * rng.normal(1, 0.02, (broken.size, 32, 2))
    else:
        array.power[broken] *= 10 ** -rng.uniform(2.5, 6, broken.size)[:, None, None]
    assert set(array.bad()) == both(*broken)


def test_many_hot_antennas_do_not_make_the_others_bad() -> None:
    array = Array(120, 60)
    hot = np.arange(0, 180, 4)
    array.power[hot] *= 10 ** np.random.default_rng(8).uniform(2.5, 5, hot.size)[:, None, None]
    assert set(array.bad()) == both(*hot)


def test_wrong_shapes_are_refused() -> None:
    for power, core in ((np.ones((4, 3)), np.ones(4)), (np.ones((4, 3, 4)), np.ones(4)), (np.ones((4, 3, 2)), [True])):
        with pytest.raises(InputError, match="have the shape"):
            bad_by_autocorrelation(power, core)


def test_nothing_is_warned_of_whatever_the_numbers_are(recwarn: pytest.WarningsRecorder) -> None:
    array = Array(12, 6)
    array.power[0], array.power[1], array.power[2], array.power[3, 0] = np.nan, np.inf, 0, -5
    assert set(array.bad()) == both(0, 1, 2)
    array.power[:] = np.nan
    assert set(array.bad()) == both(*range(18))
    assert list(recwarn) == []
