"""Which cells there are, and how one is run: its rows are written if they are not there, and a child measures it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glai_bench.claims.cell import Cell
from glai_bench.scale.data import TEST_BLOCK, TEST_ROWS, Rule, write_arrays, write_parquet
from glai_bench.scale.learners import OTHERS, Spec

# Processor seconds that a learner may take: others, and ours.
LIMIT, OUR_LIMIT = 600, 7_200


@dataclass(frozen=True)
class Sizes:
    """What is measured.

    Attributes:
        rows: values of N, at the first D.
        others: those of scikit-learn and LightGBM.
        features: values of D, at ``at``.
        units: values of M, at ``at``; the first two also at every N.
        at: N of the curves over D and M.
        same: N of the digests that must be equal.
    """

    rows: tuple[int, ...]
    others: tuple[int, ...]
    features: tuple[int, ...]
    units: tuple[int, ...]
    at: int
    same: int


FULL = Sizes(
    (10_000, 31_623, 100_000, 316_228, 1_000_000),
    (10_000, 100_000, 1_000_000),
    (100, 30, 300),
    (1024, 2048, 512, 4096),
    100_000,
    316_228,
)
QUICK = Sizes((2_000,), (), (40, 20), (32, 64), 2_000, 2_000)


def specs(sizes: Sizes) -> Iterator[Spec]:
    """Yield all cells, small ones first."""
    features = sizes.features[0]
    for rows in sizes.rows:
        for units in sizes.units[:2]:
            yield Spec("exact", "classification", rows, features, units, "memory map")
        units = sizes.units[0]
        yield Spec("exact", "regression", rows, features, units, "memory map")
        yield Spec("glai train --exact", "classification", rows, features, units, "arrays")
        yield Spec("glai train --exact", "classification", rows, features, units, "parquet")
        yield Spec("statistics", "classification", rows, features, source="chunks")
        yield Spec("partial_fit", "classification", rows, features, source="chunks")
        if rows == sizes.at:
            for other in sizes.features[1:]:
                yield Spec("exact", "classification", rows, other, units, "memory map")
            for more in sizes.units[2:]:
                yield Spec("exact", "classification", rows, features, more, "memory map")
        if rows in sizes.others:
            for task in ("classification", "regression"):
                yield Spec("glai train", task, rows, features, source="arrays")
            for kind in OTHERS:
                yield Spec(kind, "classification", rows, features)
            for kind in ("linear", "LightGBM"):
                yield Spec(kind, "regression", rows, features)


def cells(sizes: Sizes, folder: Path) -> Iterator[Cell]:
    """Yield what is to be run; rows are kept below the folder, for the cells that read them too."""
    for spec in specs(sizes):
        if spec.kind == "LightGBM" and importlib.util.find_spec("lightgbm") is None:
            continue
        yield Cell(spec.key, lambda spec=spec: run(spec, folder))  # type: ignore[misc]


def run(spec: Spec, folder: Path) -> dict[str, Any]:
    """Measure one cell in a child; return its figures, or what ended it."""
    train, test = written(spec, folder)
    out = Path(tempfile.mkdtemp(dir=folder)) / "model"
    limit = LIMIT if spec.kind in OTHERS else OUR_LIMIT
    told = {"spec": spec._asdict(), "paths": [str(path) for path in (train, test, out)], "limit": limit}
    try:
        child = subprocess.run(
            [sys.executable, "-m", "glai_bench.scale.child", json.dumps(told)],
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        shutil.rmtree(out.parent)
    if child.returncode == -signal.SIGXCPU:
        return spec._asdict() | {"unfinished": f"not done after {limit:,} processor seconds"}
    if child.returncode:
        raise RuntimeError(child.stderr.strip()[-2000:] or f"ended with {child.returncode}")
    figures: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return spec._asdict() | figures


def written(spec: Spec, folder: Path) -> tuple[Path, Path]:
    """Return the files or folders of the rows that are trained on and tested on, which are written if need be."""
    rule = Rule(spec.features)
    place = folder / f"{spec.task}-{spec.features}"
    told = rule, TEST_ROWS, spec.task, TEST_BLOCK
    # The command tests on its own, by the names of what it has learnt.
    as_table = spec.source == "parquet" and spec.kind.startswith("glai train")
    test = write_parquet(place / "test.parquet", *told) if as_table else write_arrays(place / "test", *told)
    if spec.source == "parquet":
        return write_parquet(place / f"{spec.rows}.parquet", rule, spec.rows, spec.task), test
    return write_arrays(place / str(spec.rows), rule, spec.rows, spec.task), test
