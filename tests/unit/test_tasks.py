"""Background tasks outlive their own failures."""

from __future__ import annotations

import pytest

from app.tasks import restarting


async def test_failed_task_is_logged_and_restarted(caplog: pytest.LogCaptureFixture) -> None:
    begun: list[int] = []

    async def work() -> None:
        begun.append(len(begun))
        if len(begun) < 3:
            raise ValueError("embedded null byte")

    await restarting(work, delay=0.0)
    assert begun == [0, 1, 2]
    assert caplog.text.count("ValueError: embedded null byte") == 2
