"""Finding RFI: what our strategy finds, what flags do to it, and AOFlagger's own program beside it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from casacore import tables as ct

from orca.errors import InputError, InvalidDataError, MissingDataError
from orca.flagging import Flagger, check_strategy, default_strategy
from orca.ms.flagmeta import read_flagmeta
from orca.ms.reduce import reduce_block
from orca.reduction_options import ReductionOptions
from orca.rfi_score import KINDS, background, inject, score

LOUD = """
aoflagger.require_min_version("3.0")
function execute(input)
  for _, polarization in ipairs(input:get_polarizations()) do
    local data = input:convert_to_polarization(polarization):convert_to_complex("amplitude")
    aoflagger.sumthreshold(data, 2, 2, true, true)
    input:join_mask(data)
  end
end
"""


def test_rfi_of_six_times_the_noise_is_found_and_little_else() -> None:
    found = score(default_strategy(), baselines=20, strengths=(6.0,))
    assert found.false_alone <= 0.005
    plain = [each for each in found.detections if not each.linear]
    assert {each.kind for each in plain} == set(KINDS)
    for each in plain:
        assert each.found >= 0.95, each
        assert each.false <= 0.005, each


def test_a_bright_sky_is_not_taken_for_rfi(simulations: Callable[..., list[Path]]) -> None:
    """Two sources far above the noise beat against each other over time and frequency, as on the real sky."""
    sets = simulations(integrations=12, channels=96, antennas=24)
    data = []
    for ms in sets:
        with ct.table(str(ms), ack=False) as table:
            cross = table.getcol("ANTENNA1") != table.getcol("ANTENNA2")
            data.append(table.getcol("DATA")[cross])
    stack = np.ascontiguousarray(np.array(data), np.complex64)
    flags = np.zeros(stack.shape, bool)
    Flagger(default_strategy(), 12, 96, 4).flag(stack, flags, list(range(stack.shape[1])))
    assert flags.mean() < 0.01


def test_what_is_flagged_already_hides_nothing_and_alarms_nobody() -> None:
    rng = np.random.default_rng(3)
    data = background(rng, 20, 24)
    known = np.zeros(data.shape, bool)
    known[5:8, :, 20:60] = known[:, :, 100] = known[0] = True
    line = np.zeros((24, 192), bool)
    line[:, 150] = True
    for row in range(20):
        inject(data[:, row], line, 8.0, False, rng)
    data[known] = 0
    flags = known.copy()
    Flagger(default_strategy(), 24, 192, 4).flag(data, flags, list(range(20)))
    assert flags[known].all()
    new = (flags & ~known)[..., 0]
    assert new[1:, :, 150].mean() > 0.99
    new[:, :, 150] = False
    assert new.mean() < 0.005


def test_rows_that_are_not_named_are_left_alone() -> None:
    rng = np.random.default_rng(4)
    data = background(rng, 2, 24)
    inject(data[:, 0], np.ones((24, 192), bool), 0, False, rng)
    data[:, :, 30] += 50
    flags = np.zeros(data.shape, bool)
    count = Flagger(default_strategy(), 24, 192, 4).flag(data, flags, [1])
    assert not flags[:, 0].any()
    assert flags[:, 1, 30].all()
    assert count == np.count_nonzero(flags)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("import numpy", InvalidDataError, "AOFlagger cannot use it: .*syntax error"),
        ("function execute(input)\n  input:no_such_thing()\nend\n", InvalidDataError, "no_such_thing"),
        ("x = 1\n", InvalidDataError, "AOFlagger cannot use it"),
        (None, MissingDataError, "no such strategy"),
    ],
)
def test_a_strategy_that_cannot_be_used_is_named(
    tmp_path: Path, text: str | None, error: type[Exception], words: str
) -> None:
    path = tmp_path / "mine.lua"
    if text is not None:
        path.write_text(text)
    with pytest.raises(error, match=f"mine.lua: .*{words}"):
        check_strategy(path)
    assert check_strategy(None) == default_strategy()


def test_other_numbers_of_correlations() -> None:
    data = background(np.random.default_rng(5), 1, 24)[..., [0, 3]]
    data[:, :, 30] += 50
    data, flags = np.ascontiguousarray(data), np.zeros(data.shape, bool)
    Flagger(default_strategy(), 24, 192, 2).flag(data, flags, [0])
    assert flags[:, 0, 30].all()
    with pytest.raises(InputError, match="not 3"):
        Flagger(default_strategy(), 24, 192, 3)


@pytest.mark.parametrize("strategy", ["loud", "generic-minimal", "ours"])
def test_one_integration_is_flagged_as_aoflaggers_program_does_it(
    copy_ms: Callable[..., Path], tmp_path: Path, strategy: str
) -> None:
    import aoflagger

    own = tmp_path / "loud.lua"
    own.write_text(LOUD)
    shipped = Path(aoflagger.AOFlagger().find_strategy_file(aoflagger.TelescopeId.Generic)).parent
    path = {"loud": own, "generic-minimal": shipped / "generic-minimal.lua", "ours": default_strategy()}[strategy]
    ms = copy_ms(rfi=3, channels=64)
    reduced = reduce_block([ms], tmp_path, ReductionOptions(strategy=path))
    copy = Path(shutil.copytree(ms, tmp_path / "theirs.ms"))
    subprocess.run(["aoflagger", "-strategy", str(path), str(copy)], check=True, capture_output=True, timeout=300)
    with ct.table(str(copy), ack=False) as table:
        theirs = table.getcol("FLAG")
    [member] = reduced.members
    ours = read_flagmeta(member.flagmeta, *theirs.shape)
    np.testing.assert_array_equal(ours, theirs)
    assert theirs.any() or strategy == "ours"
