"""GLAI beside three learners of scikit-learn on tables, every one at its defaults.

Random gates are GLAI's control: the same sizes and solvers over a selector that was never trained.

Inputs are standardised by the training samples, and so are the values of a regression. Each data set has one split into
training and test samples; the seeds change the learners alone. A figure is the test accuracy (R2 where values are
predicted), and the processor seconds of `fit` with one thread. Both are medians over the seeds, and the learners take
turns within each seed. Digits, breast cancer and diabetes come with scikit-learn; the others are read from the folder
that GLAI_DATA names, letter, electricity, protein and kin40k from `tabular` below it, and are left out where it is not
set. Those of many features take half an hour and more, and are run where --data names them.

python -m glai_bench.tables --quick
GLAI_DATA=data OMP_NUM_THREADS=1 python -m glai_bench.tables
GLAI_DATA=data OMP_NUM_THREADS=1 python -m glai_bench.tables --data letter protein --seeds 1 --output letter.json --json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sklearn
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from threadpoolctl import threadpool_limits

from glai_bench.clock import cpu_name
from glai_bench.exact.streams import read
from glai_bench.folders import data_folder
from glai_bench.tables.random_gates import RandomGates
from glai_bench.tables.report import markdown
from glai_native import GLAIClassifier, GLAIRegressor
from glai_native.machine.backend import build_info
from glai_native.machine.writing import write_files


class Table(NamedTuple):
    """One data set, standardised and split; ``classify``: y holds classes, otherwise values."""

    x: NDArray[np.float32]
    y: NDArray[Any]
    x_test: NDArray[np.float32]
    y_test: NDArray[Any]
    classify: bool


EMBEDDED: dict[str, tuple[Callable[..., Any], bool]] = {
    "digits": (load_digits, True),
    "breast cancer": (load_breast_cancer, True),
    "diabetes": (load_diabetes, False),
}
# Files of the folder, and whether they hold classes.
FILES = {"letter": True, "electricity": True, "protein": False, "kin40k": False}
# Of many features: what they are called among the streams of the exact head's benchmark.
WIDE = {"BANKING77": "banking", "MNIST": "mnist", "Tiny-ImageNet features": "tinyimagenet"}
# Name of a learner, then how to make one for classes and one for values, of a seed.
LEARNERS: dict[str, tuple[Callable[[int], Any], Callable[[int], Any]]] = {
    "linear": (lambda seed: LogisticRegression(random_state=seed), lambda seed: Ridge(random_state=seed)),
    "scikit-learn's MLP": (
        lambda seed: MLPClassifier(random_state=seed),
        lambda seed: MLPRegressor(random_state=seed),
    ),
    "gradient boosting": (
        lambda seed: HistGradientBoostingClassifier(random_state=seed),
        lambda seed: HistGradientBoostingRegressor(random_state=seed),
    ),
    "GLAI": (
        lambda seed: GLAIClassifier(random_state=seed),
        lambda seed: GLAIRegressor(random_state=seed),
    ),
    "GLAI, random gates": (partial(RandomGates, True), partial(RandomGates, False)),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*EMBEDDED, *FILES, *WIDE]
    parser.add_argument("--data", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="of the learners (default: 3)")
    parser.add_argument("--quick", action="store_true", help="one seed of scikit-learn's data, no file")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("bench/results/tables.json"),
        metavar="FILE",
        help="the same as a table goes beside it, with the suffix .md (default: bench/results/tables.json)",
    )
    arguments = parser.parse_args()
    folder = data_folder()
    there = names if folder is not None and not arguments.quick else list(EMBEDDED)
    wanted = arguments.data or [name for name in there if name not in WIDE]
    if missing := [name for name in wanted if name not in there]:
        parser.error(f"{', '.join(missing)}: read from the folder that GLAI_DATA names, which is not set")
    if not arguments.quick and not arguments.output.parent.is_dir():
        parser.error(f"--output must lie in a folder that is there, got {arguments.output}")
    seeds = 1 if arguments.quick else arguments.seeds
    tables = {name: read_table(name, folder) for name in wanted}
    started = time.perf_counter()
    with threadpool_limits(1):
        torch.set_num_threads(1)
        rows = measure(tables, seeds)
    results = {
        "settings": {"seeds": seeds, "threads": 1},
        "machine": {"processor": cpu_name(), "cpu_isa": build_info()["cpu_isa"]},
        "versions": {"scikit-learn": sklearn.__version__, "torch": torch.__version__},
        "minutes": (time.perf_counter() - started) / 60,
        "rows": rows,
    }
    report = markdown(results)
    if not arguments.quick:
        text = json.dumps(results, indent=2) + "\n"
        write_files({arguments.output: text.encode(), arguments.output.with_suffix(".md"): report.encode()})
    print(json.dumps(results, indent=2) if arguments.json else report)


def read_table(name: str, folder: Path | None) -> Table:
    """Read the data set of that name, standardised and split; a file lies below the folder."""
    if name in EMBEDDED:
        load, classify = EMBEDDED[name]
        x, x_test, y, y_test = train_test_split(*load(return_X_y=True), random_state=0)
    elif name in WIDE:
        x, y, x_test, y_test = (part.numpy() for part in read(WIDE[name], folder))
        classify = True
    else:
        assert folder is not None
        with np.load(folder / "tabular" / f"{name}.npz") as file:
            x, y, x_test, y_test = (file[key] for key in ("x_train", "y_train", "x_test", "y_test"))
        classify = FILES[name]
    x, x_test = _standardised(x, x_test)
    if not classify:
        y, y_test = _standardised(y, y_test)
    return Table(x, y, x_test, y_test, classify)


def _standardised(train: NDArray[Any], test: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    mean, deviation = train.mean(0, dtype=np.float64), train.std(0, dtype=np.float64)
    scale = np.where(deviation > 0, deviation, 1.0)
    return ((train - mean) / scale).astype(np.float32), ((test - mean) / scale).astype(np.float32)


def measure(tables: Mapping[str, Table], seeds: int) -> list[dict[str, Any]]:
    """Fit every learner to every table; a row for each pair: score and seconds of every seed, and medians."""
    scores: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with Progress(transient=True) as bar:
        task = bar.add_task("", total=len(tables) * seeds * len(LEARNERS))
        for name, table in tables.items():
            for seed in range(seeds):
                for learner, make in LEARNERS.items():
                    bar.update(task, description=f"{name}, {learner}")
                    found = _fit(partial(make[0 if table.classify else 1], seed), table)
                    scores.setdefault((name, learner), []).append(found)
                    bar.advance(task)
    return [
        {
            "data": name,
            "samples": len(tables[name].x),
            "features": tables[name].x.shape[1],
            "measure": "accuracy" if tables[name].classify else "R2",
            "learner": learner,
            "score": statistics.median(score for score, _ in found),
            "seconds": statistics.median(seconds for _, seconds in found),
            "scores": [score for score, _ in found],
            "all_seconds": [seconds for _, seconds in found],
        }
        for (name, learner), found in scores.items()
    ]


def _fit(make: Callable[[], Any], table: Table) -> tuple[float, float]:
    """Fit a new learner; return its test score, and the processor seconds of ``fit``."""
    learner = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # at its defaults, as it stands
        started = time.process_time()
        learner.fit(table.x, table.y)
        seconds = time.process_time() - started
    return float(learner.score(table.x_test, table.y_test)), seconds


if __name__ == "__main__":
    main()
