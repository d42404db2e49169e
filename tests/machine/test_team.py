"""Helpers of a call (csrc/core/team.cpp): whoever does its tasks, and whoever cannot, the bits are the same."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import glai_native as glai

CSRC = Path(__file__).parents[2] / "csrc"


def product(seed=0):
    generator = torch.Generator().manual_seed(seed)
    gates = glai.pack_gates(torch.rand((700, 40), generator=generator) > 0.5)
    x = torch.randn((700, 33), generator=generator)
    weight = torch.randn((40, 33, 20), generator=generator)
    return lambda: glai.gated_matmul(x, gates, weight)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_more_and_fewer_threads_one_after_another(threads):
    multiply = product()
    threads(1)
    expected = multiply()
    for n in (2, 7, 1, 3, 16, 2):
        threads(n)
        for _ in range(20):
            assert torch.equal(multiply(), expected)


def test_many_callers_at_once(threads):
    threads(1)
    products = [product(seed) for seed in range(6)]
    expected = [multiply() for multiply in products]
    threads(3)
    wrong = []

    def call(i):
        wrong.extend(i for _ in range(50) if not torch.equal(products[i](), expected[i]))

    callers = [threading.Thread(target=call, args=(i,)) for i in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


FORKED = """
import os, sys, threading, time
import torch, glai_native as glai
from pathlib import Path
glai.build_info()  # loads the kernels, which learn of forks from then on
child = os.fork()  # where OpenMP's threads, which may not be used in a fork, are not
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
x, w = torch.ones(512, 16), torch.ones(20, 16, 8)
gates = glai.pack_gates(torch.ones(512, 20, dtype=torch.bool))
torch.set_num_threads(4)
def multiply():
    assert bool((glai.gated_matmul(x, gates, w) == 320).all())
def helpers():  # threads of this process that take no signals
    found = []
    for task in Path("/proc/self/task").iterdir():
        try:
            blocked = int((task / "status").read_text().split("SigBlk:")[1].split()[0], 16)
        except OSError:  # it has just ended
            continue
        found += [task.name] if blocked & 2 else []  # signal 2, an interrupt
    return found
"""


@pytest.mark.parametrize(
    "body",
    [
        "for _ in range(200): multiply()\nassert len(helpers()) == 3",
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\nfor _ in range(200): multiply()",
        "for n in (2, 7, 1, 3, 16, 2):\n    torch.set_num_threads(n)\n    for _ in range(20): multiply()",
        # Helpers leave with the thread that they help.
        "caller = threading.Thread(target=multiply)\ncaller.start()\ncaller.join()\n"
        "deadline = time.monotonic() + 30\n"
        "while helpers() and time.monotonic() < deadline: time.sleep(0.01)\n"
        "assert not helpers()",
        "multiply()\nchild = os.fork()\nif child == 0:\n    multiply()\n    os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\nmultiply()",
    ],
    ids=["helpers", "one core", "more and fewer", "leave", "fork"],
)
def test_helpers_of_our_own(body):
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED + body], capture_output=True, text=True, timeout=200
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_waits_for_none_of_its_parent_s_threads(threads):
    threads(3)
    multiply = product()
    expected = multiply()
    child = os.fork()
    if child == 0:
        right = all(torch.equal(multiply(), expected) for _ in range(20))
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert torch.equal(multiply(), expected)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined"])
def test_sanitizers_find_nothing(tmp_path, sanitizer):
    sources = [Path(__file__).parent / "check_team.cpp", CSRC / "core" / "team.cpp"]
    if not sources[1].exists():
        pytest.skip("needs the sources")
    program = tmp_path / "check_team"
    flags = ["-std=c++20", "-O1", "-g", f"-fsanitize={sanitizer}", f"-I{CSRC}", "-pthread"]
    built = subprocess.run(["g++", *flags, *sources, "-o", program], capture_output=True, text=True)
    if built.returncode and "cannot find" in built.stderr:
        pytest.skip(f"this compiler has no -fsanitize={sanitizer}")
    assert not built.returncode, built.stderr
    ran = subprocess.run([program], capture_output=True, text=True, timeout=200)
    if "unexpected memory mapping" in ran.stderr:
        pytest.skip("this system's addresses are too random for ThreadSanitizer")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "each task ran once" in ran.stdout
