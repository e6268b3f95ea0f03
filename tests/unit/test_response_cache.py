"""The cache of encoded responses: by object and key, bounded, and released with the object."""

from __future__ import annotations

import gc

from app.execution.response_cache import ResponseCache


class Source:
    """An object that responses are of."""


def test_response_is_built_once_for_an_object_and_a_key() -> None:
    cache, first, second, built = ResponseCache(), Source(), Source(), list[str]()

    def get(source: Source, key: str) -> tuple[bytes, str]:
        found = cache.get(source, key, lambda: built.append(key) or key.encode())  # type: ignore[func-returns-value]
        return found.body, found.etag

    assert get(first, "a") == get(first, "a") == get(second, "a")
    assert get(first, "b")[1] != get(first, "a")[1]
    assert built == ["a", "a", "b"]


def test_cache_keeps_the_latest_within_its_bytes() -> None:
    cache, source, built = ResponseCache(max_bytes=20), Source(), list[int]()
    for key in (0, 1, 0, 2, 0, 1):
        cache.get(source, key, lambda key=key: built.append(key) or bytes(10))  # type: ignore[misc]
    assert built == [0, 1, 2, 1]
    assert cache.get(source, "large", lambda: bytes(21)).body == bytes(21)
    assert not cache._entries


def test_responses_go_with_their_object() -> None:
    cache, source = ResponseCache(), Source()
    cache.get(source, 0, lambda: b"0")
    del source
    gc.collect()
    kept = Source()
    cache.get(kept, 1, lambda: b"1")
    assert len(cache._entries) == 1
