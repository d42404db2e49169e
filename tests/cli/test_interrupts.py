"""An interrupt ends work at once, although a thread would never end, with the processes that the work has started."""

import os
import signal
import subprocess
import sys
import time

import pytest

from glai_native.cli.interrupts import ends_at_once

STUCK = """
import signal, subprocess, sys, threading, time
from glai_native.cli.interrupts import ends_at_once

signal.signal(signal.SIGINT, signal.default_int_handler)
folder = sys.argv[1]
threading.Thread(target=threading.Event().wait).start()  # which Python would wait for
sleeper = "import time; print(1, flush=True); time.sleep(60)"
child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {sleeper!r}])"

def tidy():
    open(folder + "/tidied", "w").close()
    return ", folder tidied"

with ends_at_once("glai federate", tidy):
    subprocess.Popen([sys.executable, "-c", child])
    try:
        time.sleep(60)
    finally:
        time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_threads_and_processes(tmp_path, number):
    with subprocess.Popen(
        [sys.executable, "-c", STUCK, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as stuck:
        assert stuck.stdout.readline() == "1\n"  # of the grandchild
        stuck.send_signal(number)
        # Ends only when nobody is left that has our pipes.
        _, errors = stuck.communicate(timeout=30)
    assert (stuck.returncode, errors) == (128 + number, "glai federate: interrupted, folder tidied\n")
    assert (tmp_path / "tidied").exists()


def test_handlers_are_given_back():
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]

    def fail():
        with ends_at_once("x", str):
            assert signal.getsignal(signal.SIGTERM) not in before
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    assert [signal.getsignal(number) for number in numbers] == before


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with ends_at_once("x", str):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
    finally:
        signal.signal(signal.SIGTERM, before)
