"""What is measured: every learner on every table with every seed, and the tuning of the MLP once a table."""

from __future__ import annotations

import signal
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

from sklearn.exceptions import ConvergenceWarning

from glai_bench.claims.cell import Cell
from glai_bench.solvers.mlp import MlpSettings
from glai_bench.tables.data import Table, read_table
from glai_bench.tables.learners import DEFAULTS, GLAI, LIMIT_SECONDS, LIMITED, TUNED, installed
from glai_bench.tables.tuned_mlp import TunedMLP, tuned

TUNING = f"{TUNED}/tuning"


def cells(
    names: tuple[str, ...], seeds: range, folder: Path | None, found: Mapping[str, Any]
) -> Iterator[Cell]:
    """Yield the cells of the data sets of these names; found: results by key, where the settings of the MLP are."""
    for name in names:
        yield Cell(f"{name}/{TUNING}", lambda name=name: tuned(_table(name, folder)))  # type: ignore[misc]
        for seed in seeds:
            for learner in installed():
                first = found.get(f"{name}/{learner}/seed={seeds[0]}", {})
                if seed == seeds[0] or "unfinished" not in first:
                    yield Cell(
                        f"{name}/{learner}/seed={seed}",
                        partial(_measured, name, learner, seed, folder, found),
                    )


@lru_cache(1)
def _table(name: str, folder: Path | None) -> Table:
    return read_table(name, folder)


def _measured(
    name: str, learner: str, seed: int, folder: Path | None, found: Mapping[str, Any]
) -> dict[str, Any]:
    table = _table(name, folder)
    settings = None
    if learner == TUNED:
        if (key := f"{name}/{TUNING}") not in found:
            raise LookupError(f"needs {key}, which failed or was not run")
        settings = MlpSettings(**found[key]["settings"])
    model = _new(learner, table.classify, seed, settings)
    _load(learner, table.classify)
    size = {
        "samples": len(table.x),
        "features": table.x.shape[1],
        "measure": "accuracy" if table.classify else "R2",
    }
    limit: AbstractContextManager[None] = (
        processor_limit(LIMIT_SECONDS) if learner in LIMITED else nullcontext()
    )
    started = time.process_time()
    try:
        with limit:
            _fit(model, table)
    except TimeoutError:
        return size | {"unfinished": LIMIT_SECONDS}
    seconds = time.process_time() - started
    said = {"reason": model.result_.reason} if learner == GLAI else {}
    return size | {
        "score": float(model.score(table.x_test, table.y_test)),
        "processor_seconds": seconds,
        **said,
    }


def _new(learner: str, classify: bool, seed: int, settings: MlpSettings | None) -> Any:
    return TunedMLP(classify, settings, seed) if settings else DEFAULTS[learner](classify, seed)


@cache
def _load(learner: str, classify: bool) -> None:
    """Fit a learner to a small table: what is imported at first use is not measured with the first cell."""
    settings = MlpSettings(8, 1e-3, 64, epochs=1) if learner == TUNED else None
    _fit(_new(learner, classify, 0, settings), read_table("breast cancer" if classify else "diabetes", None))


def _fit(model: Any, table: Table) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # at its defaults, as it stands
        model.fit(table.x, table.y)


@contextmanager
def processor_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError once the block has taken so many processor seconds, as soon as Python has the word again."""

    def end(*_: object) -> None:
        raise TimeoutError(f"took more than {seconds:g} processor seconds")

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
