"""The fuzzer, briefly and for a minute; and that it notices what it is there for."""

import random
import subprocess
import sys
import time

import pytest
import torch

from fuzz.__main__ import watch
from fuzz.call import Call
from fuzz.child import run
from fuzz.memory import Memory

SECONDS_A_DAY = 24 * 60 * 60


def test_a_second_of_calls():
    status, text = watch(seed=1, first=0, calls=100_000, seconds=1.0)
    assert status == 0, text


@pytest.mark.slow
def test_a_minute_of_calls():
    """Other calls each day; what fails says how to repeat it."""
    status, text = watch(seed=int(time.time()) // SECONDS_A_DAY, first=0, calls=10**9, seconds=60.0)
    assert status == 0, text


@pytest.fixture
def memory():
    return Memory()


def written_by(memory, function, wrong=None):
    rng = random.Random(0)
    out = memory.write(rng, (4, 3), (5, 1), torch.float32)
    return run(Call("made_up", function, {"out": out}, ("out",)), wrong, memory)


def test_only_outputs_may_be_written(memory):
    assert written_by(memory, lambda out: out.zero_()) == "right"
    with pytest.raises(AssertionError, match="outside of the outputs"):
        written_by(memory, lambda out: out.as_strided((4, 4), (5, 1)).zero_())


def test_a_refusal_is_one_sentence_and_writes_nothing(memory):
    def refuse(error, writes=False):
        def function(out):
            if writes:
                out[0, 0] = 1
            raise error

        return lambda: written_by(memory, function, wrong=True)

    assert refuse(ValueError("made_up: out must be larger, got 3"))() == "refused"
    with pytest.raises(AssertionError, match="no sentence"):
        refuse(TypeError("made_up(): incompatible arguments\nThe following are supported:"))()
    memory.clear()
    with pytest.raises(AssertionError, match="written by a call that was refused"):
        refuse(ValueError("made_up: out must be larger, got 3"), writes=True)()
    memory.clear()
    with pytest.raises(AssertionError, match="accepted"):
        written_by(memory, lambda out: out.zero_(), wrong=True)


STEP = """
from fuzz.memory import frozen, guarded_bytes
import ctypes, torch
{}
"""


@pytest.mark.parametrize(
    "step",
    [
        "frozen(torch.zeros(5))[0] = 1",
        "ctypes.c_char.from_address(frozen(torch.zeros(5)).data_ptr() + 20).value",
        "ctypes.c_char.from_address(guarded_bytes(10)[1] - 1).value",
    ],
    ids=["writes an input", "reads past an input", "reads before memory"],
)
def test_a_step_past_bounds_ends_the_process(step):
    done = subprocess.run(
        [sys.executable, "-c", STEP.format(step)], env={"PYTHONPATH": ":".join(sys.path)}, check=False
    )
    assert done.returncode == -11


def test_a_child_that_dies_is_told_of():
    status, text = watch(seed=3, first=7, calls=1, seconds=1.0, child=["-c", "import os; os.abort()"])
    assert status == 1
    assert "died of signal 6 in call 7 of seed 3" in text
    assert "again: python -m fuzz --seed 3 --first 7 --calls 1" in text
