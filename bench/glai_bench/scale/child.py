"""One cell is measured here, in a process of its own.

``python -m glai_bench.scale.child '{"spec": ..., "paths": ..., "limit": seconds}'`` prints one line of JSON. Memory is
what Linux says of this process, files that are mapped included: before it begins, with everything imported; and its
peak.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glai_bench.scale.learners import KINDS, Paths, Spec


def main(argv: Sequence[str] | None = None) -> None:
    told = json.loads((sys.argv[1:] if argv is None else argv)[0])
    limit = int(told["limit"])
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(
        resource.RLIMIT_CPU, (limit, hard)
    )  # in processor seconds, which no neighbour takes away
    print(json.dumps(measure(Spec(**told["spec"]), Paths(*map(Path, told["paths"])))))


def measure(spec: Spec, paths: Paths) -> dict[str, Any]:
    """Learn and test, and return what it took."""
    learn = KINDS[spec.kind](spec, paths)
    before = memory("VmRSS")
    started, processor = time.perf_counter(), time.process_time()
    learnt = learn()
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    score = learnt.score(*_test_rows(paths.test)) if paths.test.is_dir() else learnt.score(*[np.empty(0)] * 2)
    return {
        "score": score,
        "processor_seconds": processor,
        "wall_seconds": seconds,
        "imported_bytes": before,
        "peak_bytes": memory("VmHWM"),
        "state_bytes": learnt.state,
        **learnt.figures,
    }


def _test_rows(folder: Path) -> tuple[Any, Any]:
    return np.load(folder / "x.npy"), np.load(folder / "y.npy")


def memory(name: str) -> int:
    """Return bytes that /proc says of this process: ``VmRSS`` now, ``VmHWM`` at its peak.

    Where it is not there, getrusage's peak, which is no less than what the parent had when it started this process.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


if __name__ == "__main__":
    main()
