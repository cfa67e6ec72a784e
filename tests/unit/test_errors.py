"""What an error says."""

from __future__ import annotations

import pickle

import pytest

from orca.errors import ConfigError, DataError, OrcaError


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OrcaError("is wrong"), "is wrong"),
        (OrcaError("is wrong", "a.ms"), "a.ms: is wrong"),
        (OrcaError("is wrong", "a.ms", "Mend it"), "a.ms: is wrong. Mend it"),
        (
            ConfigError("slotz: did you mean slots?", remedy="Mend it"),
            "slotz: did you mean slots? Mend it",
        ),
    ],
)
def test_problem_and_remedy_are_two_sentences(error: OrcaError, text: str) -> None:
    assert str(error) == text


def test_an_error_survives_the_way_from_a_worker() -> None:
    again = pickle.loads(pickle.dumps(DataError("is wrong", "a.ms", "Mend it")))
    assert (type(again), str(again)) == (DataError, "a.ms: is wrong. Mend it")
