"""Helpers of a call (csrc/core/team.cpp): whoever does its tasks, and whoever cannot, the bits are the same."""

import os
import shutil
import subprocess
import sys
import threading
import time
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


def helpers():
    """Threads of this process that take no signals."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            status = (task / "status").read_text()
        except OSError:  # it has just ended
            continue
        blocked = int(status.split("SigBlk:")[1].split()[0], 16)
        if blocked & (1 << 1):  # SIGINT, signal 2
            found.add(task.name)
    return found


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


def test_helpers_leave_with_the_thread_that_they_help(threads):
    threads(4)
    before = helpers()
    multiply = product()
    while_it_lived = []

    def call():
        multiply()
        while_it_lived.append(len(helpers() - before))

    caller = threading.Thread(target=call)
    caller.start()
    caller.join()
    assert while_it_lived == [3]
    deadline = time.monotonic() + 30
    while helpers() - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not helpers() - before


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_has_no_helpers_and_needs_none(threads):
    threads(3)
    multiply = product()
    expected = multiply()
    child = os.fork()
    if child == 0:
        right = all(torch.equal(multiply(), expected) for _ in range(20))
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert torch.equal(multiply(), expected)


def test_one_core_for_many_threads():
    script = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "import torch, glai_native as glai\n"
        "x, w = torch.ones(512, 16), torch.ones(20, 16, 8)\n"
        "gates = glai.pack_gates(torch.ones(512, 20, dtype=torch.bool))\n"
        "torch.set_num_threads(8)\n"
        "assert all(bool((glai.gated_matmul(x, gates, w) == 320).all()) for _ in range(200))\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=200)


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
