"""What a message may say, and what is told of one that is none."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from orca.errors import InputError, MessageError
from orca.events.fields import MAX_DEPTH, MAX_VALUES
from orca.events.message import MAX_BYTES, Message, recorded_message, run_message, schema_text

TIME = datetime(2026, 1, 10, 20, 31, 53, tzinfo=UTC)
RUN: dict[str, Any] = {"id": "a", "run": {"flow": "imaging", "parameters": {"size": 1024}}}
RECORDED = {"id": "a", "recorded": {"path": "/raw/a.ms", "size": 3, "time": "2026-01-10T20:31:53Z"}}
SECRET = "hidden-word"


def refusal(body: bytes | str | dict[str, Any]) -> str:
    """Why something is no message."""
    text = json.dumps(body) if isinstance(body, dict) else body
    with pytest.raises(MessageError) as caught:
        Message.decode(text if isinstance(text, bytes) else text.encode())
    assert len(str(caught.value)) < 400, "the reason is short"
    return str(caught.value)


def run_with(**fields: Any) -> dict[str, Any]:
    return {**RUN, "run": {**RUN["run"], **fields}}


def recorded_with(**fields: Any) -> dict[str, Any]:
    return {**RECORDED, "recorded": {**RECORDED["recorded"], **fields}}  # type: ignore[dict-item]


def nested(depth: int) -> Any:
    return 1 if depth == 0 else [nested(depth - 1)]


def test_what_is_sent_is_what_arrives() -> None:
    run = run_message(
        "imaging", {"measurement_sets": ["/a.ms"], "options": {"size": 2}, "x": None, "y": 0.5, "z": True}
    )
    recorded = recorded_message("/raw/a.ms", 3, TIME)
    assert Message.decode(run.encode()) == run
    assert Message.decode(recorded.encode()) == recorded
    assert recorded.recorded is not None
    assert recorded.recorded.time == TIME
    assert b'"time":"2026-01-10T20:31:53Z"' in recorded.encode()


def test_a_flow_is_short_for_the_deployment_of_its_name() -> None:
    short, full = run_message("imaging").run, run_message("reduction/reduction-hour").run
    assert short is not None
    assert full is not None
    assert (short.full_name, full.full_name) == ("imaging/imaging", "reduction/reduction-hour")


def test_ids_differ_and_sort_by_the_time_they_were_made() -> None:
    earlier = run_message("imaging").id
    later = [run_message("imaging").id for _ in range(100)]
    assert len(set(later)) == 100
    assert all(earlier.partition("-")[0] <= each.partition("-")[0] for each in later)


def test_a_time_of_another_zone_becomes_utc() -> None:
    there = TIME.astimezone(timezone(timedelta(hours=-8)))
    message = Message.decode(json.dumps(recorded_with(time=there.isoformat())).encode())
    assert message.recorded is not None
    assert (message.recorded.time, message.recorded.time.tzinfo) == (TIME, UTC)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "is no JSON"),
        (b"{", "is no JSON"),
        (b"\xff\xfe", "is no UTF-8"),
        (b'{"id": "a", "run": {"flow": "a", "parameters": {"x": NaN}}}', "NaN is no number of JSON"),
        (b'{"id": "a", "run": {"flow": "a", "parameters": {"x": -Infinity}}}', "-Infinity is no number of JSON"),
        (b'{"id": "a", "run": {"flow": "a", "parameters": {"x": 1e999}}}', "expected finite numbers"),
        (b'{"id": "a", "run": {"flow": "a", "parameters": {"x": %s}}}' % (b"9" * 30), "64 bits"),
        (b'{"id": "a", "run": {"flow": "a", "parameters": {"x": %s}}}' % (b"9" * 9000), "is no JSON"),
        (b'{"id": "a", "run": {"flow": "a", "parameters": {"x": "\\ud800"}}}', "expected whole characters"),
        (b'{"id": "a", "id": "b", "run": {"flow": "a"}}', "a key stands there twice"),
        (b"[" * 200_000, "too many levels"),
        (b"[]", "valid dictionary"),
        (b"null", "valid dictionary"),
        (b"3", "valid dictionary"),
        (b'"run"', "valid dictionary"),
    ],
)
def test_what_is_no_json_is_refused(body: bytes, told: str) -> None:
    assert told in refusal(body)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"run": {"flow": "a"}}, "id: is missing"),
        ({"id": "a"}, "expected one of run and recorded"),
        ({**RUN, **RECORDED}, "expected one of run and recorded"),
        ({**RUN, "pool": "imaging"}, "pool: "),
        ({**RUN, "id": ""}, "id: "),
        ({**RUN, "id": "a b"}, "id: "),
        ({**RUN, "id": "a\n"}, "id: "),
        ({**RUN, "id": "a" * 65}, "id: "),
        ({**RUN, "id": 3}, "id: "),
        ({**RUN, "attempt": 0}, "attempt: "),
        ({**RUN, "attempt": 1001}, "attempt: "),
        ({**RUN, "attempt": True}, "attempt: "),
        ({**RUN, "attempt": "2"}, "attempt: "),
        (run_with(deployment="a/b"), "expected one of flow and deployment"),
        (run_with(flow=None), "expected one of flow and deployment"),
        (run_with(flow="a/b"), "run.flow: "),
        (run_with(flow="imaging; rm"), "run.flow: "),
        (run_with(flow="../imaging"), "run.flow: "),
        (run_with(flow=None, deployment="imaging"), "run.deployment: "),
        (run_with(flow=None, deployment="a/b/c"), "run.deployment: "),
        (run_with(parameters=[1]), "run.parameters: "),
        (run_with(parameters={"__class__": 1}), "is no name of a parameter"),
        (run_with(parameters={f"x{i}": 1 for i in range(101)}), "run.parameters: "),
        (run_with(parameters={"x": nested(MAX_DEPTH)}), f"at most {MAX_DEPTH} levels"),
        (run_with(parameters={"x": [0] * MAX_VALUES}), f"at most {MAX_VALUES} values"),
        (recorded_with(path="raw/a.ms"), "recorded.path: "),
        (recorded_with(path="/raw/../etc/a.ms"), "without '..'"),
        (recorded_with(path="/raw/a\0.ms"), "control characters"),
        (recorded_with(path="/" + "a" * 5000), "recorded.path: "),
        (recorded_with(size=-1), "recorded.size: "),
        (recorded_with(size=1.5), "recorded.size: "),
        (recorded_with(size=True), "recorded.size: "),
        (recorded_with(time="2026-01-10T20:31:53"), "time with its zone"),
        (recorded_with(time="yesterday"), "recorded.time: "),
        (recorded_with(time=1768077113), "recorded.time: "),
        (recorded_with(time="0001-01-01T00:00:00+10:00"), "in the calendar"),
        (recorded_with(host="lwacalim01"), "recorded.host: "),
    ],
)
def test_what_is_not_as_the_schema_says_is_refused(body: dict[str, Any], told: str) -> None:
    assert told in refusal(body)


def test_what_is_just_within_the_bounds_is_taken() -> None:
    for parameters in (
        {"x": nested(MAX_DEPTH - 1)},
        {"x": [0] * (MAX_VALUES - 1)},
        {"x": 2**63 - 1},
        {"x": {"a b": []}},
    ):
        assert Message.decode(json.dumps(run_with(parameters=parameters)).encode()).run is not None


def test_what_is_too_large_is_refused_before_it_is_read() -> None:
    assert f"{MAX_BYTES + 1} bytes" in refusal(b"\xff" * (MAX_BYTES + 1))
    with pytest.raises(InputError, match="too large"):
        run_message("imaging", {"x": "a" * MAX_BYTES}).encode()


@pytest.mark.parametrize(
    "body",
    [
        {**RUN, SECRET * 100: 1},
        {**RUN, "id": SECRET * 100},
        run_with(parameters={"x": SECRET, "y": nested(20)}),
        run_with(flow=SECRET + "!"),
        recorded_with(path=SECRET),
        recorded_with(time=SECRET),
    ],
)
def test_the_reason_does_not_quote_the_message(body: dict[str, Any]) -> None:
    assert refusal(body).count(SECRET) <= 5, "at most the beginning of a key"


def test_a_key_with_control_characters_is_told_without_them() -> None:
    assert refusal({**RUN, "\x1b[31mred\n": 1}).isprintable()


def test_who_makes_a_wrong_message_here_is_told() -> None:
    with pytest.raises(InputError, match=r"run\.parameters: expected finite numbers"):
        run_message("imaging", {"x": float("nan")})
    with pytest.raises(InputError, match="found PosixPath"):
        run_message("imaging", {"x": Path("a")})
    with pytest.raises(InputError, match="time with its zone"):
        recorded_message("/a", 1, datetime(2026, 1, 10))


def test_the_schema_in_the_docs_is_that_of_the_messages() -> None:
    file = Path(__file__).parents[2] / "docs" / "message.schema.json"
    assert file.read_text(encoding="utf-8") == schema_text(), "write it with: orca events schema --write"


def test_the_schema_takes_and_refuses_what_we_do() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json.loads(schema_text()))
    good = [RUN, RECORDED, json.loads(run_message("a/b").encode()), {**RUN, "recorded": None}]
    bad: list[Any] = [{}, [], {"run": {"flow": "a"}}, {**RUN, **RECORDED}, {**RUN, "x": 1}, run_with(deployment="a/b")]
    bad += [recorded_with(path="a"), recorded_with(size=-1), {**RUN, "attempt": 0}, {**RUN, "run": None}]
    assert [list(validator.iter_errors(each)) for each in good] == [[]] * len(good)
    assert all(list(validator.iter_errors(each)) for each in bad)
