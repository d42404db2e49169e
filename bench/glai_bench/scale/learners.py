"""What is measured: every kind of cell imports what it needs, and gives what learns its data."""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from glai_bench.scale.data import LABEL, Array, read_chunks

CHUNK = 16_384


class Spec(NamedTuple):
    """A cell.

    Attributes:
        kind: a key of :data:`KINDS`.
        task: classification or regression.
        rows: N.
        features: D.
        units: of the exact head; None: a learner that is told none.
        source: how the rows are read: ``memory map``, ``chunks``, ``parquet`` or ``whole``.
    """

    kind: str
    task: str
    rows: int
    features: int
    units: int | None = None
    source: str = "whole"

    @property
    def key(self) -> str:
        """Name of the cell."""
        units = "" if self.units is None else f"/M={self.units}"
        return f"{self.task}/{self.kind}/{self.source}{units}/D={self.features}/N={self.rows}"

    @property
    def of_classes(self) -> bool:
        """Whether targets are classes."""
        return self.task == "classification"


class Paths(NamedTuple):
    """Where a cell's rows lie: what is trained on and what is tested on, files or folders, and a folder to fill."""

    train: Path
    test: Path
    out: Path


class Learnt(NamedTuple):
    """What came of learning.

    Attributes:
        score: accuracy or R2 of test rows.
        state: bytes of the sums or numbers that are the model's own; None: they are not what bounds this learner.
        figures: what else is to be told.
    """

    score: Callable[[Array, Array], float]
    state: int | None
    figures: dict[str, Any]


Learn = Callable[[], Learnt]


def exact(spec: Spec, paths: Paths) -> Learn:
    """``ExactClassifier`` or ``ExactRegressor`` of a memory map, of chunks, or of batches of a parquet file."""
    from glai_native import ExactClassifier, ExactRegressor

    kind = ExactClassifier if spec.of_classes else ExactRegressor
    # Of chunks that come once units are random: here they are of all sources, whose digests are compared.
    model = kind(spec.units or 2048, structure="random")
    if spec.source == "parquet":
        importlib.import_module("pyarrow.parquet")

    def learn() -> Learnt:
        if spec.source == "memory map":
            model.fit(np.load(paths.train / "x.npy", mmap_mode="r"), np.load(paths.train / "y.npy"))
        elif spec.source == "parquet":
            model.fit(_parquet_chunks(paths.train, CHUNK))
        else:
            model.fit(read_chunks(paths.train, CHUNK))
        model.solution()
        return Learnt(model.score, _exact_state(model), {"digest": model.digest()})

    return learn


def _parquet_chunks(path: Path, size: int) -> Iterator[tuple[Array, Array]]:
    file = importlib.import_module("pyarrow.parquet").ParquetFile(path, pre_buffer=False)
    return map(_rows_of, file.iter_batches(size))


def _rows_of(part: Any) -> tuple[Array, Array]:
    columns = [column.to_numpy() for column in part.columns]
    return np.stack(columns[:-1], 1), columns[-1]


def _exact_state(model: Any) -> int:
    sums = model.statistics_
    tensors = (sums.gram, sums.cross, sums.counts)
    ledger = 0 if sums.ledger is None else sums.ledger.hashes.nbytes
    return int(sum(tensor.numel() * tensor.itemsize for tensor in tensors) + ledger)


def command(spec: Spec, paths: Paths) -> Learn:
    """``glai train``, in this process, at its defaults but for the random units of --exact; it scores the test file."""
    from glai_native.cli.main import main

    is_exact = spec.kind == "glai train --exact"
    arguments = ["train", str(paths.train), "--test", str(paths.test), "--out", str(paths.out), "--json"]
    if spec.source == "parquet":
        arguments += ["--label", LABEL, "--no-preparation"]
    arguments += ["--task", spec.task]
    if is_exact:
        importlib.import_module("glai_native.cli.train.exact")
        arguments += ["--exact", "--units", str(spec.units), "--structure", "random"]
    else:
        importlib.import_module("glai_native.cli.train.session")

    def learn() -> Learnt:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            status = main(arguments)
        if status:
            raise RuntimeError(f"glai {' '.join(arguments)}: ended with {status}")
        report = json.loads(printed.getvalue())
        if not is_exact:
            return Learnt(lambda x, y: report["test"], _trained_state(report), _said(report))
        score = report["accuracy" if spec.of_classes else "r2"]
        state = 8 * report["features"] * (report["features"] + report["outputs"]) + 16 * report["train"]
        return Learnt(lambda x, y: score, state, {"digest": report["digest"]})

    return learn


def _trained_state(report: dict[str, Any]) -> int:
    """Return the bytes of the numbers, each with its gradient's two moments."""
    return 4 * 3 * int(sum(report["parameters"].values()))


def _said(report: dict[str, Any]) -> dict[str, Any]:
    return {name: report[name] for name in ("solver", "reason")}


def statistics(spec: Spec, paths: Paths) -> Learn:
    """``glai.fit`` of a stream, by float statistics; the first chunk trains the structure."""
    import torch

    import glai_native as glai
    from glai_native.training.new_structure import train_selector

    def learn() -> Learnt:
        chunks = ((torch.from_numpy(x), torch.from_numpy(y)) for x, y in read_chunks(paths.train, CHUNK))
        x, y = next(chunks)
        selector = train_selector(x, y, int(y.max()) + 1, held_out=0.1, epochs=20, progress=False)
        model = glai.fit(selector, itertools.chain([(x, y)], chunks), progress=False).model
        assert isinstance(model, glai.GLAI)
        return Learnt(lambda x, y: _accuracy(model, x, y), _statistics_state(model.statistics), {})

    return learn


def _statistics_state(sums: Any) -> int:
    unknowns = sums.n_paths * (sums.in_features + 1)
    return int(unknowns * (unknowns + sums.out_features) * sums.dtype.itemsize)


def _accuracy(model: Any, x: Array, y: Array) -> float:
    import torch

    with torch.no_grad():
        return float((model(torch.from_numpy(x)).argmax(1).numpy() == y).mean())


def partial_fit(spec: Spec, paths: Paths) -> Learn:
    """``GLAIClassifier.partial_fit``, chunk by chunk."""
    from glai_native import GLAIClassifier

    model = GLAIClassifier()

    def learn() -> Learnt:
        for x, y in read_chunks(paths.train, CHUNK):
            model.partial_fit(x, y)
        solved: Any = model.model_
        return Learnt(model.score, _statistics_state(solved.statistics), {})

    return learn


def of_library(make: Callable[[bool], Any]) -> Callable[[Spec, Paths], Learn]:
    """Return a kind that reads all rows into memory, for a learner that a function makes, of classes or of values."""

    def prepared(spec: Spec, paths: Paths) -> Learn:
        model = make(spec.of_classes)

        def learn() -> Learnt:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # at its defaults, as it stands
                model.fit(np.load(paths.train / "x.npy"), np.load(paths.train / "y.npy"))
            return Learnt(model.score, None, {})

        return learn

    return prepared


def _mlp(of_classes: bool) -> Any:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    return (MLPClassifier if of_classes else MLPRegressor)(random_state=0)


def _gradient_boosting(of_classes: bool) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    return (HistGradientBoostingClassifier if of_classes else HistGradientBoostingRegressor)(random_state=0)


def _lightgbm(of_classes: bool) -> Any:
    lightgbm = importlib.import_module("lightgbm")
    kind = lightgbm.LGBMClassifier if of_classes else lightgbm.LGBMRegressor
    return kind(random_state=0, n_jobs=1, verbose=-1)


def _linear(of_classes: bool) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge

    return LogisticRegression() if of_classes else Ridge()


OTHERS = {
    "scikit-learn's MLP": of_library(_mlp),
    "LightGBM": of_library(_lightgbm),
    "gradient boosting": of_library(_gradient_boosting),
    "linear": of_library(_linear),
}
KINDS: dict[str, Callable[[Spec, Paths], Learn]] = {
    "exact": exact,
    "glai train --exact": command,
    "statistics": statistics,
    "partial_fit": partial_fit,
    "glai train": command,
    **OTHERS,
}
