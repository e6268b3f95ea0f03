"""Tests of refused permissions, which root has to give up first."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_VERSION_3 = 0x20080522
_READ_ANYTHING = 0b110
"""The bits of CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


@contextmanager
def refused(*paths: Path, mode: int = 0) -> Iterator[None]:
    """Take away all permissions of paths but `mode`, and this thread's capability to do without; its threads inherit.

    The test is skipped where root can't give that up.
    """
    header, data = _Header(_VERSION_3, 0), (_Data * 2)()
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        if not hasattr(libc, "capset") or libc.capget(ctypes.byref(header), data):
            pytest.skip("root can't give up reading everything here")
        before = data[0].effective
        data[0].effective = before & ~_READ_ANYTHING
        libc.capset(ctypes.byref(header), data)
    modes = {path: path.stat().st_mode for path in paths}
    try:
        for path in paths:
            path.chmod(mode)
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
        if os.geteuid() == 0:
            data[0].effective = before
            libc.capset(ctypes.byref(header), data)
