"""What a child process does: one call after another, each from its own seed, until one breaks a promise."""

import collections
import contextlib
import itertools
import mmap
import random
import re
import struct
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch

import glai_native._native as _native
from fuzz import gate_calls, integer_calls, product_calls, public_calls, training_calls
from fuzz.call import Call, Draw
from fuzz.faults import spoil
from fuzz.memory import Memory, forget

NATIVE = (*gate_calls.CALLS, *product_calls.CALLS * 2, *integer_calls.CALLS, *training_calls.CALLS)
PUBLIC = public_calls.CALLS
SPOILT = 0.35  # the share of calls with something wrong
SENTENCE = re.compile(r"[A-Za-z_][\w.]*(\[\d+\])?: \S[^\n]*")
# Torch's own refusal of a result that would be so large.
NO_MEMORY = re.compile("can't allocate memory|(Storage size|Stride) calculation overflowed")


def make(number: int, seed: int, memory: Memory) -> tuple[Call, bool | None]:
    """Call ``number`` of ``seed``, and whether it must be refused: True, False for perhaps, None for never."""
    rng = random.Random(seed << 40 | number)
    _native.force_cpu_isa(rng.choice(_native.cpu_isas()))
    draw = Draw(rng, memory)
    call = rng.choice(PUBLIC if rng.random() < 0.15 else NATIVE)(draw)
    wrong = None
    if rng.random() < SPOILT:
        # Torch itself refuses some of the wrong tensors that are asked for.
        with contextlib.suppress(RuntimeError, OverflowError):
            wrong = spoil(call, rng, memory)
    return call, wrong


def run(call: Call, wrong: bool | None, memory: Memory) -> str:
    """Make the call and hold it to its promises; return what became of it."""
    written = [tensor for name in call.written for tensor in _tensors(call.arguments[name])]
    originals = [*written, *call.placed]
    inputs = [tensor.clone() for tensor in call.placed]
    before = None if wrong is None else memory.used().clone()
    result, error = _attempt(call)
    if error is not None:
        if wrong is None:
            raise error
        assert _is_refusal(error), f"no sentence: {error!r}"
        assert torch.equal(memory.used(), before), "memory was written by a call that was refused"
        memory.clear()
        return "refused"
    assert wrong is not True, "accepted"
    if wrong is None:
        call.holds(result)
        for tensor, values in zip(call.placed, inputs, strict=True):
            assert torch.equal(tensor, values), "an input was written"
        for tensor in originals:
            forget(tensor)
        assert bool((memory.used() == -1).all()), "memory outside of the outputs was written"
    memory.clear()
    return "right" if wrong is None else "allowed"


def _tensors(value: Any) -> list[torch.Tensor]:
    """An argument's tensors: itself, or those of a list."""
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, torch.Tensor)]


def _attempt(call: Call) -> tuple[Any, Exception | None]:
    try:
        return call.function(**call.arguments), None
    except Exception as error:
        return None, error


def _is_refusal(error: Exception) -> bool:
    """Whether an error is one sentence that names what it is about, or says that there is no memory."""
    if isinstance(error, RuntimeError):
        return NO_MEMORY.search(str(error)) is not None
    return isinstance(error, MemoryError) or (
        isinstance(error, ValueError | TypeError) and SENTENCE.fullmatch(str(error)) is not None
    )


def describe(call: Call) -> str:
    def of(value) -> str:
        if isinstance(value, torch.Tensor):
            return f"{str(value.dtype)[6:]} {list(value.shape)} strides {list(value.stride())}"
        return repr(value)

    return call.name + "(" + ", ".join(f"{name}={of(value)}" for name, value in call.arguments.items()) + ")"


def main(progress: Path, seed: int, first: int, calls: int, failures: int, seconds: float) -> int:
    """Make calls until so many are made or have failed or so much time has passed.

    ``progress`` holds the number of the last one.
    """
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    memory = Memory()
    counts: collections.Counter[str] = collections.Counter()
    started = time.perf_counter()
    with progress.open("r+b") as file, mmap.mmap(file.fileno(), 8) as shown:
        for number in itertools.count(first):
            if number - first >= calls or time.perf_counter() - started > seconds:
                break
            struct.pack_into("<q", shown, 0, number)
            made = None
            try:
                made, wrong = make(number, seed, memory)
                counts[run(made, wrong, memory)] += 1
            except Exception:
                print(f"seed {seed}, call {number}: {describe(made) if made else ''}", file=sys.stderr)
                traceback.print_exc()
                memory.clear()
                counts["wrong"] += 1
                if counts["wrong"] >= failures:
                    break
    print(" ".join(f"{kind} {count}" for kind, count in sorted(counts.items())))
    return int(counts["wrong"] > 0)


if __name__ == "__main__":
    torch.set_grad_enabled(True)
    sys.exit(main(Path(sys.argv[1]), *map(int, sys.argv[2:6]), float(sys.argv[6])))
