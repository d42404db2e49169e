"""What a second thread brings on an idle machine, and costs on one whose cores are taken.

Every op, a step of training with torch's autograd, and the native loop are timed with one thread and with two, in
turns, for a while each: first on the machine as it is, then beside two processes that are busy all the time. A ratio is
of medians, two threads over one: of wall time, and of processor time. On a busy machine the targets are 1.5 and 2.
`glai demo` is run with one thread and with two, in both states. torch's own product is shown beside them, without a
target. Run it where nothing else does.

python -m glai_bench.threads --quick
python -m glai_bench.threads
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from glai_bench.clock import cpu_name
from glai_bench.folders import results_folder
from glai_bench.threads.calls import SHAPES, Call, loops, ops_of, torch_product
from glai_bench.threads.report import markdown
from glai_native.machine.backend import build_info
from glai_native.machine.writing import write_files

THREADS = (1, 2)
BUSY_PROCESSES = 2
SLICE = 0.05  # seconds that a call is repeated for before the other number of threads has its turn


def main(argv: list[str] | None = None) -> None:
    """Measure, and write the results and their page."""
    parser = argparse.ArgumentParser(
        prog="python -m glai_bench.threads",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="of each call (default: 15)")
    parser.add_argument("--quick", action="store_true", help="three rounds, no demo, no file")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="the page goes beside it, with the suffix .md (default: bench/results/threads.json)",
    )
    arguments = parser.parse_args(argv)
    try:
        output = arguments.output or (None if arguments.quick else results_folder() / "threads.json")
    except FileNotFoundError as error:
        parser.error(str(error))
    rounds = 3 if arguments.quick else arguments.rounds
    calls = named_calls()
    rows = []
    with Progress(transient=True) as bar:
        task = bar.add_task("calls", total=2 * len(calls))
        for busy in (False, True):
            with busy_processes(BUSY_PROCESSES if busy else 0):
                for (kind, name), call in calls.items():
                    rows.append({"kind": kind, "call": name, "busy": busy, **measure(call, rounds)})
                    bar.advance(task)
                if not arguments.quick:
                    rows.append({"kind": "glai demo", "call": "all of it", "busy": busy, **demo(3)})
    results = {
        "settings": {"rounds": rounds, "slice": SLICE, "busy": BUSY_PROCESSES},
        "machine": {
            "processor": cpu_name(),
            "cores": len(os.sched_getaffinity(0)),
            "cpu_isa": build_info()["cpu_isa"],
        },
        "torch": torch.__version__,
        "rows": rows,
    }
    report = markdown(results)
    if output:
        text = json.dumps(results, indent=2) + "\n"
        write_files({output: text.encode(), output.with_suffix(".md"): report.encode()})
    print(json.dumps(results, indent=2) if arguments.json else report)


def named_calls() -> dict[tuple[str, str], Call]:
    """Return what is timed, by what it is of and its name."""
    calls: dict[tuple[str, str], Call] = {}
    for shape in SHAPES:
        kind = "(N, P, D, C) = ({}, {}, {}, {})".format(*shape)
        calls |= {(kind, name): call for name, call in ops_of(*shape).items()}
        calls[kind, "torch: x @ W"] = torch_product(*shape)
    return calls | {("train_estimator", name): call for name, call in loops().items()}


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Keep that many processes busy."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        if processes:
            time.sleep(0.5)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(call: Call, rounds: int) -> dict[str, float]:
    """Time a call with one thread and with two, in turns.

    Returns:
        ``one`` and ``two``: median seconds of a call; ``processor``: processor time of two threads over one's.
    """
    before = torch.get_num_threads()
    wall: dict[int, list[float]] = {threads: [] for threads in THREADS}
    processor: dict[int, list[float]] = {threads: [] for threads in THREADS}
    try:
        for _ in range(rounds):
            for threads in THREADS:
                torch.set_num_threads(threads)
                call()  # threads wake
                done, begin, begin_processor = 0, time.perf_counter(), time.process_time()
                while not done or time.perf_counter() - begin < SLICE:
                    call()
                    done += 1
                wall[threads].append((time.perf_counter() - begin) / done)
                processor[threads].append((time.process_time() - begin_processor) / done)
    finally:
        torch.set_num_threads(before)
    return _medians(wall, processor)


def demo(rounds: int) -> dict[str, float]:
    """Time the whole demo as :func:`measure` does, in processes of its own."""
    wall: dict[int, list[float]] = {threads: [] for threads in THREADS}
    processor: dict[int, list[float]] = {threads: [] for threads in THREADS}
    for _ in range(rounds):
        for threads in THREADS:
            environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
            with tempfile.TemporaryDirectory() as folder:
                command = "import glai_launcher, sys; sys.exit(glai_launcher.main())"
                begin, children = time.perf_counter(), os.times()
                subprocess.run(
                    [sys.executable, "-c", command, "demo", "--json", "--out", f"{folder}/demo"],
                    check=True,
                    env=environment,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                after = os.times()
            wall[threads].append(time.perf_counter() - begin)
            used = after.children_user + after.children_system
            processor[threads].append(used - children.children_user - children.children_system)
    return _medians(wall, processor)


def _medians(wall: dict[int, list[float]], processor: dict[int, list[float]]) -> dict[str, Any]:
    one, two = (statistics.median(wall[threads]) for threads in THREADS)
    used_one, used_two = (statistics.median(processor[threads]) for threads in THREADS)
    return {"one": one, "two": two, "processor": used_two / used_one}


if __name__ == "__main__":
    main()
