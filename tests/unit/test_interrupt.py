"""Signals wait for the end of a step, and then do what they would have done."""

import signal
import subprocess
import sys
import threading

import pytest

from tests.conftest import REPOSITORY
from training.interrupt import held_back

SCRIPT = """
import signal, sys
from training.interrupt import held_back
number = int(sys.argv[1])
signal.signal(number, signal.default_int_handler)
done = False
try:
    with held_back():
        signal.raise_signal(number)
        done = True
except KeyboardInterrupt:
    print("interrupted", done, signal.getsignal(number) is signal.default_int_handler)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_answered_when_the_step_is_done(number):
    # In a process of its own: a signal is no business of whoever runs the tests.
    command = [sys.executable, "-c", SCRIPT, str(int(number))]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "interrupted True True", done.stderr


def test_what_a_step_raises_goes_on_and_handlers_come_back():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), held_back():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is before


def test_threads_that_get_no_signals_are_left_alone():
    seen = []

    def work():
        with held_back():
            seen.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]
