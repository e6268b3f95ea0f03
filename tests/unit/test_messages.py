"""Parts of error messages."""

from __future__ import annotations

import doctest

from lookalike import messages


def test_examples_of_messages_hold() -> None:
    assert doctest.testmod(messages).failed == 0


def test_message_of_a_long_name_stays_short() -> None:
    message = messages.unknown_name("field", "x" * 1_000_000, ["limit"])
    assert message.endswith("; known: limit")
    assert len(message) < 250
