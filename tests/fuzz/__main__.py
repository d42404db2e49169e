"""``python -m fuzz``: makes calls in a child process and says which one it died, hung or was wrong in."""

import argparse
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

HUNG_SECONDS = 120.0  # in one call
CHILD = ("-m", "fuzz.child")


def watch(
    seed: int,
    first: int,
    calls: int,
    seconds: float,
    failures: int = 1,
    child: Sequence[str] = CHILD,
) -> tuple[int, str]:
    """Run a child; return its exit status, or 1, and what it or its death says."""
    with tempfile.TemporaryDirectory() as folder:
        progress = Path(folder) / "number"
        progress.write_bytes(struct.pack("<q", first))
        command = [sys.executable, *child, progress, seed, first, calls, failures, seconds]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with (Path(folder) / "said").open("w+") as said:
            process = subprocess.Popen([*map(str, command)], stdout=said, stderr=said, env=environment)
            last, since = b"", time.monotonic()
            while process.poll() is None:
                time.sleep(0.05)
                now = progress.read_bytes()
                if now != last:
                    last, since = now, time.monotonic()
                elif time.monotonic() - since > HUNG_SECONDS:
                    process.kill()
            said.seek(0)
            text = said.read()
        (number,) = struct.unpack("<q", progress.read_bytes())
    if process.returncode < 0:
        text += f"the process died of signal {-process.returncode} in call {number} of seed {seed}\n"
    if process.returncode != 0:
        text += f"again: python -m fuzz --seed {seed} --first {number} --calls 1\n"
    return min(abs(process.returncode), 1), text


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first call")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--failures", type=int, default=1, help="stop after so many calls that were wrong")
    given = parser.parse_args()
    started = time.perf_counter()
    status, text = watch(given.seed, given.first, given.calls, given.seconds, given.failures)
    print(text, end="")
    print(f"{time.perf_counter() - started:.1f} s")
    return status


if __name__ == "__main__":
    sys.exit(main())
