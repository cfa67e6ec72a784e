"""Programs: what they get, what is recorded, and how each way of failing reads."""

from __future__ import annotations

import json
import pickle
import sys
import threading
from dataclasses import asdict

import pytest

from orca.errors import (
    InputError,
    ProgramError,
    ProgramMissingError,
    StorageError,
)
from orca.process import THREAD_VARIABLES, find_program, run


def shell(script, tmp_path, **options):
    """Run a script by an explicit shell; the module itself never uses one."""
    options = {"deadline_s": 20, "threads": 1} | options
    return run(["sh", "-c", script], log=tmp_path / "sh.log", **options)


def test_log_starts_with_the_quoted_command_and_holds_both_outputs(tmp_path):
    log = tmp_path / "new folder" / "sh.log"
    run(["sh", "-c", "echo to out; echo to err >&2"], log=log, deadline_s=10, threads=1)
    assert log.read_text() == "sh -c 'echo to out; echo to err >&2'\nto out\nto err\n"
    run(["echo", "again"], log=log, deadline_s=10, threads=1)
    assert log.read_text() == "echo again\nagain\n"


def test_arguments_reach_the_program_as_they_are(tmp_path):
    words = ["a b", "$HOME; rm *", "'", "", "--", "-x", "ü"]
    run(["printf", "%s\\n", *words], log=tmp_path / "log", deadline_s=10, threads=1)
    assert (tmp_path / "log").read_text().splitlines()[-7:] == words


@pytest.mark.parametrize("argv", ["echo hello", b"echo", [], [""], ["echo", 3], ["echo", "a\0b"], ["echo", None]])
def test_anything_but_a_list_of_words_is_refused(argv, tmp_path):
    with pytest.raises(InputError):
        run(argv, log=tmp_path / "log", deadline_s=10, threads=1)
    assert not (tmp_path / "log").exists()


def test_threads_are_set_whatever_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as a Dask nanny does
    shell(f"echo {' '.join('$' + name for name in THREAD_VARIABLES)}", tmp_path, threads=3)
    assert (tmp_path / "sh.log").read_text().splitlines()[1] == " ".join("3" * len(THREAD_VARIABLES))


def test_environment_folder_and_empty_input_reach_the_program(tmp_path):
    shell("echo $COLOUR; pwd; cat", tmp_path, env={"COLOUR": "blue"}, cwd=tmp_path)
    assert (tmp_path / "sh.log").read_text().splitlines()[1:] == ["blue", str(tmp_path.resolve())]


def test_a_file_is_the_programs_input(tmp_path):
    (tmp_path / "given").write_text("from a file\n")
    shell("cat", tmp_path, stdin=tmp_path / "given")
    assert (tmp_path / "sh.log").read_text().splitlines()[1:] == ["from a file"]


def test_record_counts_cpu_memory_and_bytes(tmp_path):
    script = "data = bytearray(150_000_000); open('out', 'wb').write(data[:3_000_000]); sum(range(6_000_000))"
    record = run([sys.executable, "-c", script], log=tmp_path / "log", deadline_s=30, threads=1, cwd=tmp_path)
    assert record.argv == (sys.executable, "-c", script)
    assert record.exit_code == 0
    assert 0.02 < record.cpu_seconds < record.seconds + 0.5
    assert 150e6 < record.peak_memory_bytes < 250e6
    assert 3e6 <= record.written_bytes < 3.5e6
    assert 1e4 < record.read_bytes < 50e6
    assert json.loads(json.dumps(asdict(record)))["log"] == str(tmp_path / "log")


def test_bytes_of_the_programs_own_children_are_counted(tmp_path):
    record = shell("head -c 2000000 /dev/zero > a; head -c 1000000 a > b; true", tmp_path, cwd=tmp_path)
    assert 3e6 <= record.written_bytes < 3.1e6
    assert 3e6 <= record.read_bytes < 3.5e6


def test_peak_memory_is_the_programs_and_not_the_callers(tmp_path):
    ballast = b"x" * 300_000_000  # Linux hands the caller's high-water mark down to ru_maxrss of its children
    record = shell("sleep 0.2", tmp_path)
    assert 1e5 < record.peak_memory_bytes < 20e6
    del ballast


def test_exit_code_log_and_its_last_50_lines_are_in_the_error(tmp_path):
    with pytest.raises(ProgramError) as caught:
        shell("for i in $(seq 100); do echo line $i; done; exit 3", tmp_path)
    error = caught.value
    assert error.tail.splitlines() == [f"line {i}" for i in range(51, 101)]
    assert str(error).endswith(error.tail)
    first_line = f"sh: ended with exit code 3: line 100. See its log {tmp_path / 'sh.log'}"
    assert str(error).splitlines()[0] == first_line, "which alone is the message in short"
    assert pickle.loads(pickle.dumps(error)).tail == error.tail


@pytest.mark.parametrize(
    ("script", "first_line"),
    [
        ("echo cause; echo; echo '  '; exit 1", "ended with exit code 1: cause. See its log LOG"),
        ("echo 'no beam.'; exit 1", "ended with exit code 1: no beam. See its log LOG"),
        ("exit 1", "ended with exit code 1, and printed nothing. See its log LOG"),
        ("kill -SEGV $$", "was ended by signal SIGSEGV, and printed nothing. See its log LOG"),
        ("echo half way; kill -TERM $$", "was ended by signal SIGTERM: half way. See its log LOG"),
    ],
)
def test_last_words_of_the_program_are_in_the_messages_first_line(script, first_line, tmp_path):
    with pytest.raises(ProgramError) as caught:
        shell(script, tmp_path)
    assert str(caught.value).splitlines()[0] == "sh: " + first_line.replace("LOG", str(tmp_path / "sh.log"))


def test_command_of_several_lines_is_not_taken_for_output(tmp_path):
    with pytest.raises(ProgramError, match="printed nothing") as caught:
        shell("true\ntrue\nexit 1", tmp_path)
    assert caught.value.tail == ""


def test_tail_survives_progress_bars_bad_bytes_and_long_logs(tmp_path):
    with pytest.raises(ProgramError) as caught:
        shell("head -c 3000000 /dev/zero | tr '\\0' x; printf '\\n10%%\\r20%%\\n\\377\\nlast\\n'; exit 1", tmp_path)
    assert caught.value.tail.splitlines()[-4:] == ["10%", "20%", "\ufffd", "last"]
    assert len(caught.value.tail) < 100_000


def test_signal_that_ended_the_program_is_named(tmp_path):
    with pytest.raises(ProgramError, match="was ended by signal SIGSEGV"):
        shell("kill -SEGV $$", tmp_path)
    with pytest.raises(ProgramError, match=r"SIGKILL, not sent by ORCA.*memory"):
        shell("kill -KILL $$", tmp_path)
    with pytest.raises(ProgramError, match=r"exit code 137 \(a child of it got SIGKILL\).*memory"):
        shell("sh -c 'kill -KILL $$'; exit $?", tmp_path)


def test_missing_program_is_told_from_one_that_cannot_be_executed(tmp_path):
    plain = tmp_path / "program"
    plain.write_text("#!/bin/sh\n")
    options = {"log": tmp_path / "log", "deadline_s": 5, "threads": 1}
    with pytest.raises(ProgramMissingError, match="no-such-program: program not found"):
        run(["no-such-program"], **options)
    with pytest.raises(ProgramMissingError, match="not an executable"):
        run([plain], **options)
    plain.chmod(0o755)
    assert run([plain], **options).exit_code == 0
    plain.write_text("#!/no/such/interpreter\n")
    with pytest.raises(ProgramError, match="No such file"):
        run([plain], **options)


def test_missing_program_names_the_configuration_key(tmp_path):
    assert find_program("sh", "execs.shell").name == "sh"
    assert find_program(find_program("sh", "execs.shell"), "execs.shell").is_absolute()
    for name in ("no-such-program", str(tmp_path / "wsclean"), str(tmp_path)):
        with pytest.raises(ProgramMissingError, match=r"set execs\.wsclean"):
            find_program(name, "execs.wsclean")


def test_wrong_folder_threads_and_deadline_are_refused(tmp_path):
    for wrong in ({"cwd": tmp_path / "missing"}, {"threads": 0}, {"deadline_s": 0}):
        with pytest.raises(InputError):
            shell("true", tmp_path, **wrong)


def test_log_in_an_impossible_place_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="log cannot be written"):
        run(["true"], log=tmp_path / "file" / "log", deadline_s=5, threads=1)


def test_program_that_complains_about_space_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError) as caught:
        shell("echo 'write: No space left on device'; exit 1", tmp_path)
    assert "No space left" in caught.value.tail


def test_runs_in_threads_at_the_same_time(tmp_path):
    codes = []

    def one(i):
        codes.append(run(["sleep", "0.3"], log=tmp_path / str(i), deadline_s=10, threads=1).exit_code)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * 8
