"""The same rows give the same digest: however they are read, and after a run of them was killed and went on."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from glai_bench.claims.cell import Cell
from glai_bench.scale.cells import run, written
from glai_bench.scale.learners import CHUNK, Spec

KILLS = 3  # of runs of so many rows that a checkpoint comes long before their end
KILLED_ROWS, TRIES = 100_000, 5
SECONDS = 1.0  # between two checkpoints
COMMAND = "import sys; from glai_native.cli.main import main; sys.exit(main())"
SOURCES = ("memory map", "chunks", "parquet")


def cells(rows: int, features: int, units: int, folder: Path) -> Iterator[Cell]:
    """Yield the checks, at one size."""
    sizes = {"rows": rows, "features": features, "units": units}
    at = f"M={units}/D={features}/N={rows}"
    yield Cell(f"same bits/sources/{at}", lambda: same_sources(sizes, folder))
    for number in range(KILLS if rows >= KILLED_ROWS else 0):
        yield Cell(f"same bits/killed/{at}/{number}", lambda number=number: killed(sizes, folder, number))  # type: ignore[misc]


def same_sources(sizes: dict[str, int], folder: Path) -> dict[str, Any]:
    """Learn from each source, and by the command from arrays and parquet; return all digests.

    The command lets all rows settle the features, where there are more than it reads at once; ``fit`` the first ones.
    """
    found: dict[str, dict[str, Any]] = {"fit": {}, "glai train": {}}
    for source in SOURCES:
        spec = Spec("exact", "classification", source=source, **sizes)
        found["fit"][source] = run(spec, folder)["digest"]
    for source in ("arrays", "parquet"):
        spec = Spec("glai train --exact", "classification", source=source, **sizes)
        found["glai train"][source] = run(spec, folder)["digest"]
    same = all(len(set(digests.values())) == 1 for digests in found.values())
    return sizes | {"digests": found, "same": same, "chunk": CHUNK}


def killed(sizes: dict[str, int], folder: Path, number: int) -> dict[str, Any]:
    """Kill ``glai train --exact --checkpoint`` at a random time behind its first checkpoint, resume, and compare.

    The time is drawn between that checkpoint and the end that a run has which nobody disturbs, and which is done first;
    a run that ends sooner is done again.
    """
    train, _ = written(Spec("glai train --exact", "classification", source="arrays", **sizes), folder)
    place = Path(tempfile.mkdtemp(dir=folder))
    try:
        started = time.monotonic()
        whole = _digest(_start(train, place / "whole", sizes["units"]))
        undisturbed = time.monotonic() - started
        draws = random.Random(number)
        for attempt in range(TRIES):
            out = place / f"model-{attempt}"
            at = _killed_at(_start(train, out, sizes["units"]), out, undisturbed * draws.random())
            if at is not None:
                break
        else:
            raise RuntimeError(f"all of {TRIES} runs ended before they were killed")
        resumed = _digest(_start(train, out, sizes["units"], "--resume"))
    finally:
        shutil.rmtree(place)
    figures = {"undisturbed_seconds": undisturbed, "killed_at_seconds": at}
    return sizes | figures | {"same": resumed == whole, "digests": [whole, resumed]}


def _killed_at(process: subprocess.Popen[str], out: Path, seconds: float) -> float | None:
    """Kill a run so many seconds after its start, or at its first checkpoint if that is later.

    Returns:
        when that was; None: the run had ended.
    """
    started = time.monotonic()
    checkpoint = out.with_name(f"{out.name}.checkpoint")
    while process.poll() is None and not (checkpoint.exists() and time.monotonic() - started >= seconds):
        time.sleep(0.01)
    process.kill()
    process.communicate()
    at = time.monotonic() - started
    return at if process.returncode == -signal.SIGKILL and checkpoint.exists() and not out.exists() else None


def _start(train: Path, out: Path, units: int, *more: str) -> subprocess.Popen[str]:
    told = ["--exact", "--units", str(units), "--checkpoint", str(SECONDS), "--json", *more]
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "train", str(train), "--out", str(out), *told],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _digest(process: subprocess.Popen[str]) -> str:
    printed, said = process.communicate()
    if process.returncode:
        raise RuntimeError(said.strip()[-2000:] or f"ended with {process.returncode}")
    return str(json.loads(printed)["digest"])
