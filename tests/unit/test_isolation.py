"""Isolated functions: what comes back from the child, and how each way of failing reads."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from orca.errors import DeadlineError, InputError, MissingDataError, ProgramError, StoppedError
from orca.isolation import run_isolated, tell
from orca.process import run


class StrangeError(Exception):
    def __init__(self, first, second):  # does not unpickle: Exception keeps the message alone
        super().__init__(f"{first} and {second}")


def raise_strange():
    raise StrangeError("this", "that")


def raise_ours(path):
    raise MissingDataError("is gone", path, "Look elsewhere")


def speak_and_abort():
    sys.stdout.write("on stdout\n")
    sys.stdout.flush()
    os.write(2, b"on stderr\n")
    os.abort()


def abort_silently():
    os.abort()


def crash_after_the_result():
    class Buffer:  # as casacore may, writing out what it still held
        flush = staticmethod(os.abort)

    sys.stdout = Buffer()
    return "result"


def environment_of_a_program(folder):
    run(["sh", "-c", "echo owner $ORCA_OWNER"], log=folder / "inner.log", deadline_s=40, threads=1)
    return (folder / "inner.log").read_text().splitlines()[-1]


def test_isolated_result_comes_from_another_process_in_the_same_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_isolated(os.getpid, deadline_s=40) != os.getpid()
    assert run_isolated(os.getcwd, deadline_s=40) == str(tmp_path.resolve())
    assert run_isolated(int, "ff", base=16, deadline_s=40) == 255


def test_isolated_calls_at_the_same_time_get_each_their_own_result():
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda i: run_isolated(abs, -i, deadline_s=40), range(16))) == list(range(16))


def test_isolated_large_arguments_and_results_pass():
    assert run_isolated(bytes.__add__, b"x" * 5_000_000, b"y", deadline_s=40) == b"x" * 5_000_000 + b"y"


def tell_and(result):
    tell("half")
    tell("nearly")
    if result is None:
        os.abort()
    return result


def test_isolated_function_tells_how_far_it_is():
    heard = []
    assert run_isolated(tell_and, "done", deadline_s=40, listen=heard.append) == "done"
    assert heard == ["half", "nearly"]
    assert run_isolated(tell_and, "done", deadline_s=40) == "done"
    with pytest.raises(ProgramError):
        run_isolated(tell_and, None, deadline_s=40, listen=heard.append)
    assert heard == ["half", "nearly"] * 2
    tell("nobody listens here")


def test_isolated_exception_is_raised_as_it_is_with_its_traceback():
    with pytest.raises(MissingDataError) as caught:
        run_isolated(raise_ours, "a.ms", deadline_s=40)
    assert (caught.value.path, caught.value.remedy) == ("a.ms", "Look elsewhere")
    assert "in raise_ours" in caught.value.__notes__[0]
    with pytest.raises(ProgramError, match=r"StrangeError.*this and that"):
        run_isolated(raise_strange, deadline_s=40)


def test_isolated_abort_tells_what_was_printed_and_where(tmp_path):
    with pytest.raises(ProgramError, match=r"speak_and_abort: was ended by signal SIGABRT") as caught:
        run_isolated(speak_and_abort, deadline_s=40, log=tmp_path / "log")
    for text in ("on stdout", "on stderr", "in speak_and_abort"):
        assert text in caught.value.tail
        assert text in (tmp_path / "log").read_text()


def test_isolated_crash_tells_the_last_words_before_pythons_own_report():
    with pytest.raises(ProgramError) as caught:
        run_isolated(speak_and_abort, deadline_s=40)
    assert str(caught.value).splitlines()[0].endswith("speak_and_abort: was ended by signal SIGABRT: on stderr")
    assert "on stdout" in str(caught.value)
    with pytest.raises(ProgramError, match=r"SIGABRT: File .*test_isolation\.py.* in abort_silently"):
        run_isolated(abort_silently, deadline_s=40)


def test_isolated_crash_after_the_result_is_an_error():
    with pytest.raises(ProgramError, match="SIGABRT"):
        run_isolated(crash_after_the_result, deadline_s=40)


def test_isolated_exit_without_a_result_is_an_error():
    for code, text in ((0, "without a result"), (4, "exit code 4")):
        with pytest.raises(ProgramError, match=text):
            run_isolated(os._exit, code, deadline_s=40)
    with pytest.raises(ProgramError, match="exit code"):
        run_isolated(sys.exit, 0, deadline_s=40)


def test_isolated_functions_that_cannot_be_sent_are_refused():
    for function, argument in ((lambda _: 1, 1), (abs, threading.Lock())):
        with pytest.raises(InputError, match="cannot be sent"):
            run_isolated(function, argument, deadline_s=40)


def test_isolated_deadline_and_stop_end_the_child():
    with pytest.raises(DeadlineError, match=r"longer than 0\.5 s"):
        run_isolated(time.sleep, 30, deadline_s=0.5)
    with pytest.raises(StoppedError, match="cancelled by the user"):
        run_isolated(time.sleep, 30, deadline_s=30, stop=lambda: "cancelled by the user")


def test_isolated_programs_carry_the_owner(tmp_path):
    assert run_isolated(environment_of_a_program, tmp_path, deadline_s=40, owner="token-1") == "owner token-1"


def test_isolated_child_does_not_run_the_main_script_again(tmp_path):
    """A script without a __name__ guard, which multiprocessing's own Process would run again in the child."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            print("main script runs")
            from orca.errors import InputError
            from orca.isolation import run_isolated, tell
            print("result", run_isolated(abs, -3, deadline_s=20))
            def local(): ...
            try:
                run_isolated(local, deadline_s=20)
            except InputError as error:
                print("refused:", error)
        """)
    )
    output = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=30)
    first, second, third = output.stdout.splitlines()
    assert (first, second) == ("main script runs", "result 3")
    assert third.startswith("refused: __main__.local: is part of the main script")
    assert output.stderr == ""


def test_preloaded_modules_are_imported_before_the_fork(tmp_path):
    (tmp_path / "helper.py").write_text("import sys\ndef has_sqlite():\n    return 'sqlite3' in sys.modules\n")
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import sys
            from orca.isolation import preload, run_isolated
            import helper
            preload(["sqlite3"])
            print(helper.has_sqlite(), run_isolated(helper.has_sqlite, deadline_s=20))
        """)
    )
    output = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=30)
    assert output.stdout == "False True\n"
