"""Signals wait for the end of a step, and then do what they would have done."""

import signal
import subprocess
import sys
import threading

import pytest

from tests.conftest import REPOSITORY
from training.run.interrupt import HeldBack

BEGIN = """
import signal, sys
from training.run.interrupt import HeldBack
number = int(sys.argv[1])
signal.signal(number, signal.default_int_handler)
said = []
try:
    with HeldBack() as signals:
        signals.deliver()
        signal.raise_signal(number)
        said.append("held")
"""
END = """
except KeyboardInterrupt:
    print(*said, signal.getsignal(number) is signal.default_int_handler)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("        signals.deliver()\n        said.append('swallowed')", "held True"),
        ("", "held True"),  # the end of the context delivers, too
        (
            "        signal.raise_signal(number)\n        said.append('swallowed')",
            "held True",
        ),  # a second one is urgent
    ],
)
def test_a_first_signal_waits_and_then_interrupts(number, step, said):
    # In a process of its own: a signal is no business of whoever runs the tests.
    command = [sys.executable, "-c", f"{BEGIN}{step}{END}", str(int(number))]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == said, done.stderr


def test_what_a_step_raises_goes_on_and_handlers_come_back():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), HeldBack():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is before


def test_threads_that_get_no_signals_are_left_alone():
    seen = []

    def work():
        with HeldBack() as signals:
            signals.deliver()
            seen.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]
