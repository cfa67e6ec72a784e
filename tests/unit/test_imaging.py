"""WSClean's options and command line, what it really writes, and what becomes of its failures."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import write
from pydantic import ValidationError

from orca.errors import DataError, DeadDataError, DeadlineError, InvalidDataError, ProgramError, StoppedError
from orca.imaging import (
    ImageResult,
    ImagingOptions,
    advice,
    expected_files,
    fit_to_machine,
    image,
    products,
    wsclean_argv,
)
from orca.measuring import open_picture
from orca.sky import CYG_A, VIR_A

SMALL = {"size": 256, "scale_deg": 0.3, "threads": 2, "memory_gb": 2.0}
SHORT = "-maxuv-l 60"  # so that three of these pixels are a beam

# ---------------------------------------------------------------------------------------------------------------------
# Options


def test_the_defaults_are_those_of_the_telescope() -> None:
    options = ImagingOptions()
    assert (options.pol, options.size, options.scale_deg, options.niter) == ("I", 4096, 0.03125, 0)
    assert (options.weight, options.horizon_mask_deg, options.inner_taper_lambda) == ("briggs 0", 10, 30)
    assert (options.threads, options.memory_gb) == (4, 50)
    assert not options.together


def test_every_option_is_described() -> None:
    assert [name for name, field in ImagingOptions.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("given", "stored", "names"),
    [
        ("I", "I", ("I",)),
        ("iv", "IV", ("I", "V")),
        ("V, I", "IV", ("I", "V")),
        ("II", "I", ("I",)),
        ("IQUV", "IQUV", ("I", "Q", "U", "V")),
        ("yyxx", "XX,YY", ("XX", "YY")),
        ("xx,i", "I,XX", ("I", "XX")),
    ],
)
def test_polarizations_have_one_spelling(given: str, stored: str, names: tuple[str, ...]) -> None:
    options = ImagingOptions(pol=given)
    assert options.pol == stored
    assert options.polarizations == names


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("pol", "", "expected one or more"),
        ("pol", "XY", "XY is not one of"),  # WSClean takes it only with YX, and then crashes without cleaning
        ("pol", "RR", "RR is not one of"),  # not from linear feeds
        ("pol", "I,Z", "Z is not one of"),
        ("weight", "robust 0", "expected natural"),
        ("weight", "briggs", "expected natural"),
        ("weight", "briggs nan", "expected natural"),
        ("weight", "briggs 3", "expected natural"),
        ("size", 8, "greater than or equal to 16"),
        ("scale_deg", 0, "greater than 0"),
        ("scale_deg", float("nan"), "finite"),
        ("scale_deg", 3.125, "the sky is 114.6 deg wide"),
        ("niter", -1, "greater than or equal to 0"),
        ("horizon_mask_deg", 90, "less than 90"),
        ("threads", 0, "greater than or equal to 1"),
        ("memory_gb", 0, "greater than or equal to 0.1"),
        ("deadline_s", 0, "greater than 0"),
        ("keep", "some", "'dirty' or 'all'"),
        ("flag_antennas", ["12x"], "neither the number nor the name"),
        ("flag_antennas", [-1], "neither the number nor the name"),
        ("flag_antennas", [True], "neither the number nor the name"),
        ("extra", ["-size 10 10"], "use the option size"),
        ("extra", ["-name", "x"], "set by ORCA"),
        ("extra", ["--name x"], "set by ORCA"),
        ("extra", ["-mgain 0.8 -tempdir /tmp"], "-temp-dir is set by ORCA"),
        ("extra", ["-mem 100"], "use the option memory_gb"),
        ("extra", ["-predict"], "does not go with"),
        ("extra", ["-channels-out 4"], "does not go with"),
        ("extra", ["-python-deconvolution evil.py"], "runs another program"),
        ("extra", ["other.ms"], "is not an argument"),
        ("extra", ["-mgain '0.8"], "cannot be split"),
        ("unknown", 1, "Extra inputs are not permitted"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        ImagingOptions(**{field: value})
    assert len(caught.value.errors()) == 1


def test_cleaning_only_to_keep_the_dirty_image_is_refused() -> None:
    with pytest.raises(ValidationError, match="throw the result away"):
        ImagingOptions(keep="dirty", niter=10)


def test_odd_sizes_are_made_even_as_wsclean_does() -> None:
    assert ImagingOptions(size=1507, scale_deg=0.0767).size == 1508


def test_antennas_are_numbers_or_names_in_any_form() -> None:
    options = ImagingOptions(flag_antennas=[12, "13", "LWA-266, LWA048", " 7"])
    assert options.flag_antennas == (12, 13, "LWA-266", "LWA048", 7)
    assert ImagingOptions(flag_antennas="12,LWA-266").flag_antennas == (12, "LWA-266")


def test_options_survive_json() -> None:
    options = ImagingOptions(pol="XX,YY", extra=["-fits-mask '/a folder/mask.fits'"], flag_antennas=[3, "LWA-266"])
    assert ImagingOptions.model_validate_json(options.model_dump_json()) == options


def test_threads_and_memory_are_capped_at_what_the_machine_has() -> None:
    wanted = ImagingOptions(threads=4, memory_gb=50)
    assert fit_to_machine(wanted, 2, 16) == ImagingOptions(threads=2, memory_gb=16)
    assert fit_to_machine(wanted, 64, 512) == wanted


def test_advice_is_given_where_options_are_allowed_but_rarely_meant() -> None:
    assert advice(ImagingOptions()) == []
    assert "ghosts" in advice(ImagingOptions(size=1024))[0]
    assert "on the sky" in advice(ImagingOptions(size=8192))[0]
    assert "-mgain" in advice(ImagingOptions(niter=1000))[0]
    assert advice(ImagingOptions(niter=1000, extra=["-mgain 0.8"])) == []
    assert "noise" in advice(ImagingOptions(niter=10, pol="V", extra=["-mgain 0.8"]))[0]


# ---------------------------------------------------------------------------------------------------------------------
# Command line and files


def test_the_command_line_of_a_dirty_image() -> None:
    argv = wsclean_argv("/opt/bin/wsclean", ImagingOptions(), Path("/d/a.ms"), Path("/s/x"), Path("/s/tmp"))
    assert " ".join(argv) == (
        "/opt/bin/wsclean -name /s/x -temp-dir /s/tmp -no-update-model-required -data-column DATA -j 4 -abs-mem 50"
        " -pol I -size 4096 4096 -scale 0.03125 -weight briggs 0 -niter 0 -taper-inner-tukey 30 /d/a.ms"
    )


def test_the_command_line_of_a_cleaned_image_of_two_integrations() -> None:
    options = ImagingOptions(
        pol="iv", size=512, scale_deg=0.2, niter=1000, weight="natural", inner_taper_lambda=0, memory_gb=2.5, threads=2,
        extra=("-mgain 0.8", "-fits-mask '/a b/m.fits'", "-multiscale"),
    )  # fmt: skip
    argv = wsclean_argv("wsclean", options, [Path("/d/a.ms"), Path("/d/b.ms")], Path("/s/x"), Path("/s/tmp"))
    assert "|".join(argv) == (
        "wsclean|-name|/s/x|-temp-dir|/s/tmp|-no-update-model-required|-data-column|DATA|-j|2|-abs-mem|2.5"
        "|-pol|IV|-size|512|512|-scale|0.2|-weight|natural|-niter|1000|-horizon-mask|10deg|-mgain|0.8"
        "|-fits-mask|/a b/m.fits|-multiscale|/d/a.ms|/d/b.ms"
    )


Make = Callable[..., tuple[ImageResult, Path]]


@pytest.fixture
def ms(make_ms: Callable[..., Path]) -> Path:
    """Cyg A alone, 60 deg high in the north-east."""
    return make_ms(antennas=48, channels=16, gains=False, min_elevation_deg=40.0)


@pytest.fixture
def make(ms: Path, tmp_path: Path) -> Make:
    """Run WSClean, or what is given for it."""

    def run(program: Path | str = "wsclean", *, data: Path = ms, call: dict | None = None, **options: Any) -> Any:
        folder = tmp_path / "out"
        folder.mkdir()
        return image(data, ImagingOptions(**{**SMALL, **options}), program, folder, "x", **(call or {})), folder

    return run


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("pol", ["I", "IV", "XX,YY", "QU", "I,XX"])
@pytest.mark.parametrize("niter", [0, 20])
def test_wsclean_writes_the_files_that_are_expected(ms: Path, tmp_path: Path, pol: str, niter: int) -> None:
    options = ImagingOptions(**SMALL, pol=pol, niter=niter)
    argv = wsclean_argv("wsclean", options, ms, tmp_path / "x", tmp_path)
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    assert names(tmp_path) == {path.name for path in expected_files(options, tmp_path / "x")}
    assert set(products(tmp_path / "x", options)) <= set(expected_files(options, tmp_path / "x"))


def test_without_cleaning_the_image_is_a_copy_of_the_dirty_one(ms: Path, tmp_path: Path) -> None:
    argv = wsclean_argv("wsclean", ImagingOptions(**SMALL), ms, tmp_path / "x", tmp_path)
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    dirty, copy = (open_picture(tmp_path / f"x-{kind}.fits").data for kind in ("dirty", "image"))
    assert np.array_equal(dirty, copy)


# ---------------------------------------------------------------------------------------------------------------------
# Images


def test_a_dirty_image_shows_an_off_centre_source_where_and_as_bright_as_it_is(make: Make) -> None:
    result, folder = make(extra=[SHORT])
    assert names(folder) == {"x-dirty.fits", "x.log"}
    assert result.files == (folder / "x-dirty.fits",)
    assert result.pictures == {"I": folder / "x-dirty.fits"}
    assert result.version == "3.1.0"
    assert result.record.exit_code == 0
    (cyg,) = result.quality["I"].sources
    assert cyg.name == CYG_A.name
    assert cyg.x_px < 128 - 50 < 128 + 20 < cyg.y_px  # north-east: nothing is mirrored
    assert cyg.offset_px < 0.2
    assert cyg.ratio == pytest.approx(1, abs=0.03)
    assert result.quality["I"].peak_jy == pytest.approx(cyg.peak_jy, rel=0.1)
    assert result.numbers()["I Cyg A offset_px"] == cyg.offset_px
    assert result.numbers()["I dynamic_range"] == pytest.approx(
        result.quality["I"].peak_jy / result.quality["I"].rms_jy
    )


def test_a_cleaned_image_has_the_flux_the_beam_and_less_noise(make: Make) -> None:
    result, folder = make(extra=[SHORT, "-mgain 0.8"], niter=500, pol="IV")
    assert result.pictures == {"I": folder / "x-I-image.fits", "V": folder / "x-V-image.fits"}
    assert set(result.files) == set(expected_files(ImagingOptions(**SMALL, niter=500, pol="IV"), folder / "x"))
    (cyg,) = result.quality["I"].sources
    assert cyg.offset_px < 0.2
    assert cyg.ratio == pytest.approx(1, abs=0.03)
    assert result.quality["V"].sources == ()
    assert result.quality["V"].peak_jy < 0.02 * cyg.peak_jy
    assert result.quality["I"].rms_jy < 0.01 * cyg.peak_jy
    assert open_picture(result.pictures["I"]).beam_deg is not None


def test_keeping_only_the_dirty_image_removes_the_rest(make: Make) -> None:
    result, folder = make(keep="dirty", pol="IV", extra=["-make-psf"])
    assert names(folder) == {"x-I-dirty.fits", "x-V-dirty.fits", "x.log"}
    assert set(result.files) == {folder / "x-I-dirty.fits", folder / "x-V-dirty.fits"}


def test_what_extra_arguments_bring_is_kept_with_all(make: Make) -> None:
    result, folder = make(extra=["-make-psf"])
    assert names(folder) == {"x-dirty.fits", "x-psf.fits", "x.log"}
    assert set(result.files) == {folder / "x-dirty.fits", folder / "x-psf.fits"}


def test_several_measurement_sets_of_one_direction_make_one_image(make: Make, ms: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.ms"
    shutil.copytree(ms, other)
    result, _ = make(data=[ms, other], extra=[SHORT])
    assert result.quality["I"].sources[0].ratio == pytest.approx(1, abs=0.03)
    assert result.record.argv[-2:] == (str(ms), str(other))


def test_sources_to_measure_are_the_callers_choice(make: Make) -> None:
    result, _ = make(call={"sources": [VIR_A]})  # not in this picture
    assert result.quality["I"].sources == ()


def test_relative_paths_work(ms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ms, tmp_path / "a.ms")
    (tmp_path / "made").mkdir()
    monkeypatch.chdir(tmp_path)
    result = image(Path("a.ms"), ImagingOptions(**SMALL), "wsclean", Path("made"), "x")
    assert result.files == (tmp_path / "made" / "x-dirty.fits",)


def test_the_result_carries_the_advice(make: Make) -> None:
    result, _ = make()
    assert result.notes == tuple(advice(ImagingOptions(**SMALL)))
    assert result.notes


# ---------------------------------------------------------------------------------------------------------------------
# Failures


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    """A program in place of WSClean; its second argument is the prefix of the files to write."""

    def make(body: str) -> Path:
        path = tmp_path / "program"
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    return make


def test_a_failing_program_is_an_error_with_its_last_words(make: Make, script: Callable) -> None:
    with pytest.raises(ProgramError, match="exit code 3") as caught:
        make(script("echo something is wrong >&2; exit 3"))
    assert "something is wrong" in str(caught.value)


def test_wsclean_own_reason_is_the_message_and_names_the_measurement_set(make: Make, ms: Path, tmp_path: Path) -> None:
    with pytest.raises(ProgramError) as caught:
        make(extra=["-nonsense 3"])
    first_line = str(caught.value).splitlines()[0]
    log = tmp_path / "out" / "x.log"
    assert first_line == f"{ms}: WSClean failed: Unknown parameter: nonsense. See its log {log}"
    assert "An exception occured" in caught.value.tail


def test_nothing_of_the_temporary_folder_stays_after_a_failure(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ProgramError):
        make(extra=["-nonsense 3"])
    assert names(tmp_path / "out") == {"x.log"}


def test_a_missing_file_is_an_error_though_the_program_says_that_all_is_well(make: Make, script: Callable) -> None:
    with pytest.raises(ProgramError, match=r"x-dirty\.fits: WSClean ended well, but did not write"):
        make(script("exit 0"))


def picture_script(tmp_path: Path, script: Callable, data: np.ndarray) -> Path:
    template = write(tmp_path / "template.fits", data, 0.3)
    return script(f'cp {template} "$2-dirty.fits"; cp {template} "$2-image.fits"')


def test_an_image_of_another_size_is_an_error(make: Make, script: Callable, tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="128 x 128 pixels, not 256 x 256"):
        make(picture_script(tmp_path, script, np.ones((128, 128))))


def test_an_image_that_is_not_a_number_is_bad_data(make: Make, script: Callable, tmp_path: Path) -> None:
    data = np.ones((256, 256))
    data[9, 9] = np.nan
    with pytest.raises(InvalidDataError, match="not a number"):
        make(picture_script(tmp_path, script, data))


def test_a_truncated_image_is_an_error(make: Make, script: Callable, tmp_path: Path) -> None:
    program = picture_script(tmp_path, script, np.ones((256, 256)))
    program.write_text(program.read_text() + 'truncate -s 100000 "$2-dirty.fits"\n')
    with pytest.raises(DataError, match=r"x-dirty\.fits: has 100000 of"):
        make(program)


def test_data_without_signal_are_dead(make: Make, make_ms: Callable[..., Path]) -> None:
    dead = make_ms(antennas=24, channels=4, dead_subbands=("73MHz",))
    with pytest.raises(DeadDataError, match="zero everywhere") as caught:
        make(data=dead)
    assert caught.value.path == str(dead)


@pytest.mark.parametrize("gains", ["-gain 1.9 -mgain 0.9", "-gain 3"])
def test_cleaning_that_diverges_is_an_error_that_says_what_to_do(make: Make, gains: str) -> None:
    with pytest.raises(ProgramError, match=r"cleaning I diverged: .* Clean with fewer iterations .*mgain"):
        make(extra=[gains], niter=1000)


def test_a_residual_that_grows_is_divergence_though_the_image_looks_well(
    make: Make, script: Callable, tmp_path: Path
) -> None:
    sizes = {"dirty": 10, "image": 12, "model": 5, "residual": 30, "psf": 1, "horizon-mask": 1}
    for kind, value in sizes.items():
        write(tmp_path / f"{kind}.fits", np.full((256, 256), value), 0.3)
    program = script(f'for k in {" ".join(sizes)}; do cp {tmp_path}/$k.fits "$2-$k.fits"; done')
    with pytest.raises(ProgramError, match="diverged: the peak is 30 Jy/beam in the residual, 10 in the dirty image"):
        make(program, niter=10)


def test_the_sooner_deadline_holds(make: Make, script: Callable) -> None:
    with pytest.raises(DeadlineError):
        make(script("sleep 60"), call={"deadline_s": 0.3})


def test_the_deadline_of_the_options_holds(make: Make, script: Callable) -> None:
    with pytest.raises(DeadlineError):
        make(script("sleep 60"), deadline_s=0.3, call={"deadline_s": 100.0})


def test_it_can_be_stopped(make: Make, script: Callable) -> None:
    with pytest.raises(StoppedError, match="nobody waits"):
        make(script("sleep 60"), call={"stop": lambda: "nobody waits"})
