"""Parts of error messages."""

from __future__ import annotations

import doctest

import pytest

from lookalike import messages
from lookalike.errors import SourceError


def test_examples_of_messages_hold() -> None:
    assert doctest.testmod(messages).failed == 0


def test_message_of_a_long_name_stays_short() -> None:
    message = messages.unknown_name("field", "x" * 1_000_000, ["limit"])
    assert message.endswith("; known: limit")
    assert len(message) < 250


@pytest.mark.parametrize("value", ["x" * 5_000, repr("a cat " * 900), repr("it's " * 900), repr("'\"' " * 900)])
def test_errors_shorten_long_values(value: str) -> None:
    message = str(SourceError(f"row 3 can't hold {value}; it doesn't fit"))
    assert message.startswith("row 3 can't hold ")
    assert message.endswith("; it doesn't fit")
    assert len(message) < 240


def test_errors_keep_long_sentences() -> None:
    message = "can't read this, and it doesn't 'help' to " + "try again " * 40
    assert str(SourceError(message)) == message
