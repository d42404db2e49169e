"""The benchmark's clock: calls that take turns; and the machine's name, and its own rates measured in the same run."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

import glai_native._native as _native
from glai_native.gates.packing import pack_gates
from glai_native.machine.backend import execution
from glai_native.ops.gated_matmul import gated_matmul

# Seconds that one call takes, on the device that it runs on.
Clock = Callable[[Callable[[], object]], float]

OURS = "glai_native"
MIN_ROUNDS = 3
MAX_ROUNDS = 200
# A baseline this many times slower than the fastest one is not timed further.
HOPELESS = 2.5
# Where one round of all calls takes so many seconds there is no trial, and a baseline need be this many times slower:
# what interrupts a call is short beside it.
SLOW_ROUND, HOPELESS_IF_SLOW = 5.0, 1.5
# Share of the budget that the trial takes: long enough to outlast an interruption, which a few short calls do not.
TRIAL_SHARE = 0.2

SGEMM_SIZE = 2048
SGEMM_REPEATS = 8


def measure(
    ours: Callable[[], object],
    baselines: Mapping[str, Callable[[], object]],
    seconds: float,
    check: Callable[[str, Any], None] = lambda name, result: None,
    clock: Clock | None = None,
) -> dict[str, float]:
    """Median seconds per call, the calls taking turns, each round starting with the next.

    Every call is first warmed up, then tried, in turns too: one round at least, more while a fifth of the budget lasts.
    A baseline whose best time so far, warm-up included, is more than 2.5 times that of the fastest baseline cannot
    become the best one: that time is what is returned for it, and it takes no further part. Calls of seconds are not
    tried, and 1.5 times is enough of them.

    Args:
        ours: always timed to the end.
        baselines: what to time beside it, by name.
        seconds: budget for the rounds of all of them together; three rounds are run whatever it says.
        check: is given every name with the result of its warm-up, and raises when it is wrong.
        clock: of the device that the calls run on (None: the CPU's, wall time); when it returns, the call is over.

    Returns:
        By name, ours under ``OURS``.
    """
    calls = {OURS: ours, **baselines}
    clock = clock or _seconds
    tried = {}
    for name, call in calls.items():
        tried[name], result = _with_result(clock, call)
        check(name, result)
        del result  # one result at a time: a gradient of the weights may be large
    slow = sum(tried.values()) > SLOW_ROUND
    if not slow:
        for name, taken in _rounds(calls, 1, TRIAL_SHARE * seconds, clock).items():
            tried[name] = min(tried[name], *taken)
    limit = (HOPELESS_IF_SLOW if slow else HOPELESS) * min(tried[name] for name in baselines)
    hopeful = {name: call for name, call in calls.items() if name == OURS or tried[name] <= limit}
    times = _rounds(hopeful, MIN_ROUNDS, seconds, clock)
    return {name: statistics.median(times[name]) if name in times else tried[name] for name in calls}


def quickest(call: Callable[[], object], seconds: float) -> float:
    """Seconds of the quickest of some calls one after the other, three at least, for a budget of seconds.

    Beside a rate that the processor reaches at its best, it says what the call does when nothing else disturbs it.
    """
    taken = [_seconds(call) for _ in range(MIN_ROUNDS)]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        taken.append(_seconds(call))
    return min(taken)


def _rounds(
    calls: Mapping[str, Callable[[], object]], at_least: int, seconds: float, clock: Clock
) -> dict[str, list[float]]:
    """Seconds of each call in every round, each round starting with the next."""
    names = list(calls)
    times: dict[str, list[float]] = {name: [] for name in names}
    end = time.perf_counter() + seconds
    for i in range(MAX_ROUNDS):
        if i >= at_least and time.perf_counter() > end:
            break
        for name in names[i % len(names) :] + names[: i % len(names)]:
            times[name].append(clock(calls[name]))
    return times


def _with_result(clock: Clock, call: Callable[[], object]) -> tuple[float, object]:
    results: list[object] = []
    return clock(lambda: results.append(call())), results[0]


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def sgemm_rates(threads: Sequence[int]) -> dict[int, float]:
    """Multiply-adds per second, in units of 1e9, of torch's largest float32 product, per number of threads.

    The best of several runs on squares that take turns: the peak that other rates are a fraction of.
    """
    a, b, out = (torch.randn(SGEMM_SIZE, SGEMM_SIZE) for _ in range(3))
    best = dict.fromkeys(threads, float("inf"))
    before = torch.get_num_threads()
    try:
        for _ in range(SGEMM_REPEATS):
            for count in threads:
                torch.set_num_threads(count)
                torch.mm(a, b, out=out)  # wakes the threads
                best[count] = min(best[count], _seconds(lambda: torch.mm(a, b, out=out)))
    finally:
        torch.set_num_threads(before)
    return {count: SGEMM_SIZE**3 / seconds / 1e9 for count, seconds in best.items()}


def call_cost(batches: int = 60, calls: int = 500) -> dict[str, float]:
    """Microseconds of the smallest forward call without a gradient, through Python and through the binding alone.

    Args:
        batches: how often each is timed, taking turns; the median counts.
        calls: per batch.
    """
    x, weight = torch.ones(1, 1), torch.ones(1, 1, 1)
    gates, y = pack_gates(torch.ones(1, 1, dtype=torch.bool)), torch.empty(1, 1)
    words, where = gates.words, execution(x)

    def op() -> None:
        for _ in range(calls):
            gated_matmul(x, gates, weight)

    def binding() -> None:
        for _ in range(calls):
            _native.gated_matmul(x, words, 1, weight, None, y, None, None, None, *where)

    times: dict[str, list[float]] = {"op_us": [], "binding_us": []}
    for _ in range(batches):
        times["op_us"].append(_seconds(op))
        times["binding_us"].append(_seconds(binding))
    medians = {name: statistics.median(values) / calls * 1e6 for name, values in times.items()}
    return {**medians, "extra_us": medians["op_us"] - medians["binding_us"]}


def cpu_name() -> str:
    """As the system names it, with family and model: virtual machines often give no more than the brand."""
    found: dict[str, str] = {}
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                name, _, value = line.partition(":")
                found.setdefault(name.strip(), value.strip())
    except OSError:
        pass
    if "model name" not in found:
        return platform.processor() or platform.machine()
    return f"{found['model name']}, family {found.get('cpu family', '?')}, model {found.get('model', '?')}"
