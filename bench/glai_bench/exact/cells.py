"""What the class-incremental comparison measures: every cell has a name, and gives plain values for JSON."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

import glai_native as glai
from glai_bench.claims.cell import Cell
from glai_bench.exact.controls import ACIL, NearestClassMean, RanPAC, StreamingLDA
from glai_bench.exact.networks import HIDDEN, FineTuned, joint, tuned
from glai_bench.exact.ours import Exact
from glai_bench.exact.streams import SOURCES, Stream, read, stream

SECTIONS = ("accuracy", "one-class", "structure", "task", "forgetting", "energy")
LARGEST_ACIL = 4_000  # a task's recursion costs what RanPAC's 17 solves do, in float64
LINEAR, MLP = HIDDEN
TIMED_ROUNDS = 3
FORGOTTEN_ROUNDS = 5


class Learner(Protocol):
    """What a task is learnt by."""

    def learn(self, x: Tensor, y: Tensor) -> None: ...
    def solve(self) -> None: ...
    def scores(self, x: Tensor) -> Tensor: ...


class Cells:
    """All cells of one data set.

    Args:
        name: out of :data:`SOURCES`.
        folder: of the data.
        seeds: of class order, random units and starts of networks.
        finished: results by key, of this run or one before.
    """

    def __init__(
        self, name: str, folder: Path | None, seeds: range, finished: dict[str, dict[str, Any]]
    ) -> None:
        self.name, self.folder, self.seeds, self.finished = name, folder, seeds, finished
        self._arrays: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    def of(self, sections: tuple[str, ...], sizes: tuple[int, ...] | None) -> Iterator[Cell]:
        """Yield the cells, what others need first."""
        for section in SECTIONS:
            if section in sections:
                for size in sizes or SOURCES[self.name].sizes:
                    yield from getattr(self, f"_{section.replace('-', '_')}")(size)

    def stream(self, seed: int) -> Stream:
        if self._arrays is None:
            self._arrays = read(self.name, self.folder)
        return stream(self._arrays, SOURCES[self.name].n_tasks, seed)

    def _cell(self, what: str, run: Callable[[], dict[str, Any]]) -> Cell:
        return Cell(f"{self.name}/{what}", run)

    def _accuracy(self, size: int) -> Iterator[Cell]:
        for seed in self.seeds:
            methods = ["ours", "RanPAC"] + ["ACIL"] * (size <= LARGEST_ACIL)
            for method in methods:
                yield self._cell(
                    f"accuracy/{size}/{method}/seed={seed}", partial(self._incremental, method, size, seed)
                )
        if size != SOURCES[self.name].sizes[0]:
            return  # what follows has no Gram of units
        for hidden in HIDDEN:
            yield self._cell(f"tuning/{hidden}", partial(self._tuned, hidden))
        for seed in self.seeds:
            for method in ("streaming LDA", "nearest class mean", "MLP, fine-tuned"):
                yield self._cell(
                    f"accuracy/-/{method}/seed={seed}", partial(self._incremental, method, size, seed)
                )
            for method, hidden in (("MLP, joint", MLP), ("linear softmax, joint", LINEAR)):
                yield self._cell(f"accuracy/-/{method}/seed={seed}", partial(self._joint, hidden, seed))

    def _structure(self, size: int) -> Iterator[Cell]:
        for seed in self.seeds:
            for kind in ("first task", "all classes"):
                yield self._cell(
                    f"structure/{size}/{kind}/seed={seed}", partial(self._trained, kind, size, seed)
                )
            yield self._cell(f"structure/{size}/default/seed={seed}", partial(self._default, size, seed))

    def _one_class(self, size: int) -> Iterator[Cell]:
        for seed in self.seeds[:2]:
            yield self._cell(f"one-class/{size}/seed={seed}", partial(self._one_class_a_task, size, seed))

    def _task(self, size: int) -> Iterator[Cell]:
        yield self._cell(f"task/{size}", partial(self._seconds_of_a_task, size))

    def _forgetting(self, size: int) -> Iterator[Cell]:
        yield self._cell(f"forgetting/{size}", partial(self._seconds_of_forgetting, size))

    def _energy(self, size: int) -> Iterator[Cell]:
        for method in ("ours", "RanPAC", "MLP, fine-tuned"):
            yield self._cell(f"energy/{size}/{method}", partial(self._joules_of_a_task, method, size))

    def _learner(self, method: str, size: int, seed: int, data: Stream) -> Learner:
        d, c = data.in_features, data.n_classes
        if method == "MLP, fine-tuned":
            return FineTuned(data, MLP, self._settings(MLP), seed)
        made: dict[str, Callable[[], Learner]] = {
            "ours": lambda: Exact(d, c, size, seed),
            "RanPAC": lambda: RanPAC(d, c, size, seed),
            "ACIL": lambda: ACIL(d, c, size, seed),
            "streaming LDA": lambda: StreamingLDA(d, c),
            "nearest class mean": lambda: NearestClassMean(d, c),
        }
        return made[method]()

    def _settings(self, hidden: int) -> dict[str, float]:
        key = f"{self.name}/tuning/{hidden}"
        if key not in self.finished:
            raise LookupError(f"needs {key}, which failed or was not run")
        return self.finished[key]

    def _incremental(self, method: str, size: int, seed: int) -> dict[str, Any]:
        data = self.stream(seed)
        learner = self._learner(method, size, seed, data)
        started = time.process_time()
        for x, y in data.tasks:
            learner.learn(x, y)
        learner.solve()
        seconds = time.process_time() - started
        result = {"accuracy": _accuracy_of(learner, data), "processor_seconds": seconds}
        if isinstance(learner, Exact):
            result |= {"l2": learner.solution.l2}
        return result

    def _tuned(self, hidden: int) -> dict[str, Any]:
        return tuned(self.stream(0), hidden, 0)

    def _joint(self, hidden: int, seed: int) -> dict[str, Any]:
        data = self.stream(seed)
        started = time.process_time()
        trained = joint(data, hidden, self._settings(hidden), seed)
        return {
            "accuracy": float((trained.scores(data.x_test).argmax(1) == data.y_test).double().mean()),
            "processor_seconds": time.process_time() - started,
        }

    def _trained(self, kind: str, size: int, seed: int) -> dict[str, Any]:
        data = self.stream(seed)
        structure = data.tasks[0] if kind == "first task" else data.joint()
        learner = Exact(data.in_features, data.n_classes, size, seed, structure=structure)
        for x, y in data.tasks:
            learner.learn(x, y)
        learner.solve()
        return {"accuracy": _accuracy_of(learner, data)}

    def _default(self, size: int, seed: int) -> dict[str, Any]:
        """All samples at once, by a learner at its defaults: held-out ones choose its units."""
        data = self.stream(seed)
        x, y = data.joint()
        learner = glai.ExactClassifier(size - data.in_features - 1, random_state=seed)
        started = time.process_time()
        learner.fit(x.numpy(), y.numpy())
        learner.solution()
        return {
            "accuracy": learner.score(data.x_test.numpy(), data.y_test.numpy()),
            "processor_seconds": time.process_time() - started,
            "reason": learner.structure_reason_,
        }

    def _one_class_a_task(self, size: int, seed: int) -> dict[str, Any]:
        """The same map, samples one class at a time, against all at once; and RanPAC, whose last task is one class."""
        data = self.stream(seed)
        d, c = data.in_features, data.n_classes
        first = next(data.one_class_a_task())[0]
        apart, at_once = (Exact(d, c, size, seed, first=first) for _ in range(2))
        ranpac = RanPAC(d, c, size, seed)
        for x, y in data.one_class_a_task():
            apart.learn(x, y)
            ranpac.learn(x, y)
        at_once.learn(*data.joint())
        for learner in (apart, ranpac):
            learner.solve()
        return {
            "digest": apart.sums.digest(),
            "joint_digest": at_once.sums.digest(),
            "accuracy": _accuracy_of(apart, data),
            "ranpac": _accuracy_of(ranpac, data),
        }

    def _seconds_of_a_task(self, size: int) -> dict[str, Any]:
        """The last task, learnt and solved by copies that have seen the others; the two take turns."""
        data = self.stream(0)
        ready = {method: self._before_last(method, size, data) for method in ("ours", "RanPAC")}
        x, y = data.tasks[-1]
        seconds: dict[str, list[float]] = {method: [] for method in ready}
        for _ in range(TIMED_ROUNDS if size <= LARGEST_ACIL else 1):
            for method, learner in ready.items():
                seconds[method].append(_seconds(partial(_learn, learner, x, y)))
        return {"samples": len(x), "seconds": {m: statistics.median(s) for m, s in seconds.items()}}

    def _before_last(self, method: str, size: int, data: Stream) -> Learner:
        learner = self._learner(method, size, 0, data)
        for x, y in data.tasks[:-1]:
            learner.learn(x, y)
        return learner

    def _seconds_of_forgetting(self, size: int) -> dict[str, Any]:
        """Take out one sample in a hundred, against adding up the others anew; and the digests of both.

        The median of several hundredths, each but the last learnt again.
        """
        data = self.stream(0)
        x, y = data.joint()
        learner = Exact(data.in_features, data.n_classes, size, 0, first=data.tasks[0][0])
        learner.learn(x, y)
        seconds = []
        for hundredth in reversed(range(FORGOTTEN_ROUNDS)):
            gone = torch.arange(len(x)) % 100 == hundredth
            samples = x[gone], y[gone]
            seconds.append(_seconds(partial(learner.sums.downdate, *samples)))
            if hundredth:
                learner.learn(*samples)
        anew = Exact(data.in_features, data.n_classes, size, 0, first=data.tasks[0][0])
        accumulating = _seconds(lambda: anew.learn(x[~gone], y[~gone]))
        return {
            "samples": int(gone.sum()),
            "seconds": statistics.median(seconds),
            "anew": accumulating,
            "solve": _seconds(learner.solve),
            "same_digest": learner.sums.digest() == anew.sums.digest(),
        }

    def _joules_of_a_task(self, method: str, size: int) -> dict[str, Any]:
        data = self.stream(0)
        learner = self._before_last(method, size, data)
        with glai.EnergyMeter("a task") as meter:
            _learn(learner, *data.tasks[-1])
        energy = meter.energy
        # Memory's part is wall seconds times a constant, which a busy machine stretches.
        processor = next(part for part in energy.parts if part.component == "processor")
        return {"joules": processor.joules, "how": processor.how}


def _learn(learner: Learner, x: Tensor, y: Tensor) -> None:
    learner.learn(x, y)
    learner.solve()


def _accuracy_of(learner: Learner, data: Stream) -> float:
    return float((learner.scores(data.x_test).argmax(1) == data.y_test).double().mean())


def _seconds(call: Callable[[], object]) -> float:
    """Processor seconds of a call: what a machine's other programs take does not count."""
    gc.collect()
    started = time.process_time()
    call()
    return time.process_time() - started
