"""The log loss of GLAI's probabilities on test samples, beside scikit-learn's MLP at its defaults, on the same inputs.

Data: digits, which comes with scikit-learn; BANKING77, MNIST and the table letter, from the folder that GLAI_DATA
names. Tables are standardised, embeddings and pixels are as they are. "As chosen" is GLAIClassifier at its defaults,
"sgd", "dual" and "statistics" are its solvers; where what they hold does not fit, a smaller setting stands beside them.
A cell is written to the file as soon as it is measured, and not measured again; the page goes beside it.

python -m glai_bench.tables.probabilities --quick
GLAI_DATA=data OMP_NUM_THREADS=1 python -m glai_bench.tables.probabilities
GLAI_DATA=data OMP_NUM_THREADS=1 python -m glai_bench.tables.probabilities --data letter --output letter.json
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, log_loss
from sklearn.neural_network import MLPClassifier

from glai_bench.folders import data_folder
from glai_bench.tables.data import read_table
from glai_native import GLAIClassifier
from glai_native.data.labelled import load_data
from glai_native.machine.writing import write_files

MLP = "scikit-learn's MLP"
TARGET = 1.05  # times the MLP's log loss
SMALL_MNIST = "MNIST, 10,000 samples"
FILES = ("letter", "BANKING77", "MNIST", SMALL_MNIST)


def _solver(name: str, **told: Any) -> Callable[[], Any]:
    return lambda: GLAIClassifier(solver=name, **told)


# Of each data set, the learners in the order of the page.
DEFAULTS: dict[str, Callable[[], Any]] = {
    MLP: lambda: MLPClassifier(random_state=0),
    "as chosen": _solver("auto"),
    "sgd": _solver("sgd"),
    "dual": _solver("dual"),
    "statistics": _solver("statistics"),
}
LEARNERS: dict[str, dict[str, Callable[[], Any]]] = {
    "digits": DEFAULTS,
    "letter": DEFAULTS | {"dual, 512 units": _solver("dual", hidden_layer_sizes=512)},
    "BANKING77": {name: DEFAULTS[name] for name in (MLP, "as chosen", "sgd", "dual")}
    | {"statistics, 16 units": _solver("statistics", hidden_layer_sizes=16)},
    "MNIST": {name: DEFAULTS[name] for name in (MLP, "as chosen", "sgd")}
    | {"statistics, 32 units": _solver("statistics", hidden_layer_sizes=32)},
    SMALL_MNIST: {name: DEFAULTS[name] for name in (MLP, "as chosen", "sgd", "dual")},
}
Arrays = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]


def read(name: str, folder: Path | None) -> Arrays:
    """Return x and y of training, then of test."""
    if name in ("digits", "letter"):
        table = read_table(name, folder)
        return table.x, table.y, table.x_test, table.y_test
    assert folder is not None
    data = load_data(folder / ("banking77_minilm.npz" if name == "BANKING77" else "mnist"))
    parts = (data.x_train, data.y_train, data.x_test, data.y_test)
    x, y, x_test, y_test = (np.asarray(part) for part in parts)
    n = 10_000 if name == SMALL_MNIST else len(x)
    return x[:n], y[:n], x_test, y_test


def measure(make: Callable[[], Any], arrays: Arrays) -> dict[str, Any]:
    """Fit a learner, and return what its probabilities of the test samples are worth."""
    x, y, x_test, y_test = arrays
    learner = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # at its defaults, as it stands
        learner.fit(x, y)
    found = learner.predict_proba(x_test)
    predicted = learner.predict(x_test)
    if isinstance(learner, GLAIClassifier) and not (learner.classes_[found.argmax(1)] == predicted).all():
        raise AssertionError("the most probable class must be the one predicted")
    cell: dict[str, Any] = {
        "accuracy": float(accuracy_score(y_test, predicted)),
        "log_loss": float(log_loss(y_test, found, labels=learner.classes_)),
    }
    if isinstance(learner, GLAIClassifier):
        model = learner.model_
        cell |= {
            "solver": learner.result_.solver,
            "temperature": getattr(model, "estimator", model).temperature,
        }
    return cell


def markdown(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Write the page from the figures of all data sets."""
    lines = [
        "# Probabilities: log loss on test samples",
        "",
        "`GLAI_DATA=… OMP_NUM_THREADS=1 python -m glai_bench.tables.probabilities`. Everything is at its defaults, "
        "seed 0, unless the line says otherwise. The temperature is the model's own, fitted on samples that its "
        f"numbers were not trained on. Bold: more than {TARGET:g} times the MLP's log loss. For every test sample the "
        "most probable class was the one predicted.",
        "",
        "| data | learner | accuracy | log loss | over the MLP's | temperature |",
        "|---|---|---|---|---|---|",
    ]
    for data, cells in results.items():
        least = cells[MLP]["log_loss"]
        for learner, cell in cells.items():
            ratio = cell["log_loss"] / least
            loss = f"{cell['log_loss']:.4f}"
            loss = f"**{loss}**" if ratio > TARGET else loss
            name = f"{learner}: {cell['solver']}" if learner == "as chosen" else learner
            temperature = f"{cell['temperature']:.3g}" if "temperature" in cell else "-"
            share = f"{100 * cell['accuracy']:.2f}"
            lines.append(f"| {data} | {name} | {share} | {loss} | {ratio:.2f} | {temperature} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ["digits", *FILES]
    parser.add_argument("--data", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="digits alone, printed, no file")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("bench/results/probabilities.json"),
        metavar="FILE",
        help="default: bench/results/probabilities.json; the page has the suffix .md",
    )
    arguments = parser.parse_args()
    folder = data_folder()
    wanted = ["digits"] if arguments.quick else arguments.data or names
    if folder is None and any(name in FILES for name in wanted):
        parser.error(f"{', '.join(FILES)}: read from the folder that GLAI_DATA names, which is not set")
    if not arguments.quick and not arguments.output.parent.is_dir():
        parser.error(f"--output must lie in a folder that is there, got {arguments.output}")
    results: dict[str, dict[str, Any]] = {}
    if not arguments.quick and arguments.output.exists():
        results = json.loads(arguments.output.read_text())
    for name in wanted:
        cells = results.setdefault(name, {})
        missing = {learner: make for learner, make in LEARNERS[name].items() if learner not in cells}
        arrays = read(name, folder) if missing else None
        for learner, make in missing.items():
            assert arrays is not None
            chosen = cells.get("as chosen", {})  # the same learner, named
            cells[learner] = chosen if chosen.get("solver") == learner else measure(make, arrays)
            results[name] = {key: cells[key] for key in LEARNERS[name] if key in cells}
            if not arguments.quick:
                write_files(
                    {
                        arguments.output: (json.dumps(results, indent=2) + "\n").encode(),
                        arguments.output.with_suffix(".md"): markdown(results).encode(),
                    }
                )
    print(markdown(results))


if __name__ == "__main__":
    main()
