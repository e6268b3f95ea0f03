"""Signals are deferred to the end of a step, and then have their usual effect."""

import signal
import subprocess
import sys
import threading

import pytest

from tests.conftest import REPOSITORY
from training.run.interrupt import DeferredInterrupt

BEGIN = """
import signal, sys
from training.run.interrupt import DeferredInterrupt
number = int(sys.argv[1])
signal.signal(number, signal.default_int_handler)
events = []
try:
    with DeferredInterrupt() as signals:
        signals.deliver()
        signal.raise_signal(number)
        events.append("held")
"""
END = """
except KeyboardInterrupt:
    print(*events, signal.getsignal(number) is signal.default_int_handler)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("step", "events"),
    [
        ("        signals.deliver()\n        events.append('swallowed')", "held True"),
        ("", "held True"),  # the end of the context delivers as well
        (
            "        signal.raise_signal(number)\n        events.append('swallowed')",
            "held True",
        ),  # a second signal is immediate
    ],
)
def test_first_signal_is_deferred_then_interrupts(number, step, events):
    # In a separate process, so that the signal does not reach pytest.
    command = [sys.executable, "-c", f"{BEGIN}{step}{END}", str(int(number))]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == events, done.stderr


def test_errors_propagate_and_handlers_are_restored():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), DeferredInterrupt():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_are_unaffected():
    seen = []

    def work():
        with DeferredInterrupt() as signals:
            signals.deliver()
            seen.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]
