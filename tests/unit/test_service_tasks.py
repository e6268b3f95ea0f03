"""What watches over the service goes on, whatever happens to it."""

from __future__ import annotations

import asyncio

import pytest

from app import service


def test_a_task_that_fails_is_told_and_begins_anew(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service, "_AGAIN_SECONDS", 0.0)
    begun: list[int] = []

    async def work() -> None:
        begun.append(len(begun))
        if len(begun) < 3:
            raise ValueError("embedded null byte")

    asyncio.run(service._lasting(work))
    assert begun == [0, 1, 2]
    assert caplog.text.count("ValueError: embedded null byte") == 2
