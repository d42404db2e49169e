"""What an epoch of the native loop gains where the frozen gates decide the order of paths and samples.

Paths: numbered anew so that those taken together have few patterns. Samples: in chunks of 64 alike ones, eight chunks
drawn for a batch, or batches of 512 alike ones. Counts are of a batch and per path: samples that are multiplied, and
sums of weights for them, with five paths taken together; a sum costs what 16 samples do. Epochs take turns, in
processor time of one thread; the ratio is to shuffled samples and paths as they are. Accuracy is that of validation
samples after the best epoch.

GLAI_DATA=data OMP_NUM_THREADS=1 python -m glai_bench.solvers.frozen_structure
GLAI_DATA=data OMP_NUM_THREADS=1 python -m glai_bench.solvers.frozen_structure --data BANKING77 --units 512
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import glai_native as glai
from glai_bench.folders import data_folder
from glai_bench.solvers.runs import Split, banking, mnist
from glai_native.solvers.samples import Samples
from glai_native.solvers.sgd.native import NativeLoop, SgdSettings, write_flat

DATA = ("MNIST raw", "MNIST centred", "BANKING77", "electricity")
BATCH, CHUNK, TOGETHER = 512, 64, 5
MAX_SAMPLES, STRUCTURE_SAMPLES = 20_000, 8_000
SUM_ROWS = 16  # what a sum of weights costs beside a sample (csrc/core/plan.cpp)
Order = Callable[[np.random.Generator], NDArray[np.int64]]  # of the samples, for one epoch


def read(name: str, folder: Path) -> Split:
    if name == "electricity":
        with np.load(folder / "tabular" / "electricity.npz") as file:
            x, y, x_test, y_test = (
                torch.from_numpy(file[key]) for key in ("x_train", "y_train", "x_test", "y_test")
            )
        mean, deviation = x.mean(0), x.std(0)
        x, x_test = (x - mean) / deviation, (x_test - mean) / deviation
        return Split(name, x[:-5000], y[:-5000], x[-5000:], y[-5000:], x_test, y_test)
    return banking(folder) if name == "BANKING77" else mnist(folder, quick=False)


def train_selector(name: str, data: Split, units: int) -> glai.PathSelector:
    torch.manual_seed(0)
    features = data.x.shape[1]
    mlp = nn.Sequential(nn.Linear(features, units), nn.ReLU(), nn.Linear(units, data.n_classes))
    projection = glai.InputProjection.identity(features) if name == "MNIST raw" else None
    x, y = data.x[:STRUCTURE_SAMPLES], data.y[:STRUCTURE_SAMPLES]
    return glai.train_structure(mlp, x, y, projection, glai.StructureMonitor(max_epochs=20), progress=False)


def alike(bits: NDArray[np.uint8], size: int) -> list[NDArray[np.int64]]:
    """Samples ``[size]`` in chunks: halved again and again where their patterns' first principal axis does it."""
    x, random = bits.astype(np.float32), np.random.default_rng(0)
    chunks, left = [], [np.arange(len(x))]
    while left:
        ids = left.pop()
        if len(ids) < 2 * size:
            chunks.append(ids[:size])
            continue
        some = x[ids] - x[ids].mean(0)
        axis = np.asarray(random.standard_normal(x.shape[1]), dtype=np.float32)
        for _ in range(6):
            axis = some.T @ (some @ axis)
            axis /= np.linalg.norm(axis) + 1e-9
        ids, middle = ids[np.argsort(some @ axis)], len(ids) // size // 2 * size
        left += [ids[:middle], ids[middle:]]
    return chunks


def ordered_paths(bits: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Groups of paths with few patterns, made greedily: each time the path that costs a batch least."""
    left, order, share = list(range(bits.shape[1])), [], BATCH / len(bits)
    while left:
        order.append(left.pop(0))
        code = bits[:, order[-1]].astype(np.int64)
        for _ in range(min(TOGETHER - 1, len(left))):
            counts = [np.bincount(code * 2 + bits[:, p]) for p in left]
            best = int(np.argmin([SUM_ROWS * np.count_nonzero(of[1:]) - share * of[0] for of in counts]))
            order.append(left.pop(best))
            code = code * 2 + bits[:, order[-1]]
    return np.array(order)


def count(bits: NDArray[np.uint8]) -> tuple[float, float]:
    """Samples multiplied and sums of weights per path of one batch."""
    paths = bits.shape[1]
    samples = sums = 0
    for first in range(0, paths, TOGETHER):
        group = bits[:, first : first + TOGETHER].astype(np.int64)
        patterns = np.bincount(group @ (1 << np.arange(group.shape[1])))
        samples, sums = samples + len(bits) - int(patterns[0]), sums + int(np.count_nonzero(patterns[1:]))
    return samples / paths, sums / paths


def orders(bits: NDArray[np.uint8]) -> dict[str, Order]:
    """By name; each gives as many samples, whole batches of them."""
    n = len(bits) // BATCH * BATCH
    chunks, batches = alike(bits, CHUNK), alike(bits, BATCH)

    def chosen(random: np.random.Generator, parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
        return np.concatenate([parts[i] for i in random.permutation(len(parts))])[:n]

    return {
        "shuffled": lambda random: random.permutation(len(bits))[:n],
        f"{BATCH // CHUNK} chunks": lambda random: chosen(random, chunks),
        "1 chunk": lambda random: chosen(random, batches),
    }


class Run(NamedTuple):
    """One training: its order of samples, with the paths in one order."""

    title: str
    bits: NDArray[np.uint8]
    order: Order
    samples: Samples
    estimator: glai.PathEstimator
    loop: NativeLoop
    held_out: glai.PackedGates


def runs_of(data: Split, selector: glai.PathSelector) -> list[Run]:
    """Shuffled samples with paths as they are come first."""
    x, y = data.x[:MAX_SAMPLES], data.y[:MAX_SAMPLES]
    z, settings = selector.project(x), SgdSettings("cross_entropy", BATCH, 1e-3, 0.0, True, 0)
    bits = selector.gates(x).unpack().numpy().astype(np.uint8)
    numberings = {"as they are": np.arange(bits.shape[1]), "ordered": ordered_paths(bits[:2048])}
    runs = []
    for numbering, paths in numberings.items():
        here = np.ascontiguousarray(bits[:, paths])
        samples = Samples(z, y, data.n_classes, gates=glai.pack_gates(torch.from_numpy(here).bool()))
        held_out = glai.pack_gates(selector.gates(data.x_val).unpack()[:, paths].contiguous())
        for name, order in orders(here).items():
            estimator = glai.PathEstimator(len(paths), z.shape[1], data.n_classes)
            loop = NativeLoop(estimator, samples, settings)
            runs.append(Run(f"{name}, paths {numbering}", here, order, samples, estimator, loop, held_out))
    return runs


def measure(name: str, data: Split, units: int, epochs: int) -> Iterator[tuple[str, ...]]:
    """Yield a row for each order of samples and paths."""
    selector = train_selector(name, data, units)
    runs, z_val = runs_of(data, selector), selector.project(data.x_val)
    seconds: list[list[float]] = [[] for _ in runs]
    best = [0.0] * len(runs)
    for epoch in range(epochs):
        for i, run in enumerate(runs):
            ids = torch.from_numpy(run.order(np.random.default_rng(epoch)))
            started = time.process_time()
            run.loop.run_epoch([(run.samples, ids)], len(ids), lambda share: None)
            seconds[i].append(time.process_time() - started)
            write_flat(run.estimator, run.loop.result())
            best[i] = max(best[i], accuracy(run.estimator, z_val, run.held_out, data.y_val))
    for run, taken, score in zip(runs, seconds, best, strict=True):
        batches = torch.from_numpy(run.order(np.random.default_rng(0))).split(BATCH)[:8]
        samples, sums = np.mean([count(run.bits[ids.numpy()]) for ids in batches], axis=0)
        figures = [f"{samples:.0f}", f"{sums:.2f}", f"{samples + SUM_ROWS * sums:.0f}"]
        if epochs:
            gain = statistics.median(a / b for a, b in zip(seconds[0], taken, strict=True))
            figures += [f"{gain:.2f}", f"{100 * score:.1f}"]
        yield name, run.title, *figures


@torch.no_grad()
def accuracy(estimator: glai.PathEstimator, z: Tensor, gates: glai.PackedGates, y: Tensor) -> float:
    return float((estimator(z, gates).argmax(1) == y).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m glai_bench.solvers.frozen_structure",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA, metavar="NAME", help=", ".join(DATA))
    parser.add_argument("--units", type=int, default=256, help="of the selector (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="0: counts alone (default: %(default)s)")
    arguments = parser.parse_args()
    folder = data_folder()
    if folder is None:
        parser.error("the data are read from the folder that GLAI_DATA names, which is not set")
    torch.set_num_threads(1)
    table = Table(title=f"{arguments.units} units, batches of {BATCH}", box=SIMPLE)
    for column in ("data", "order of samples and paths"):
        table.add_column(column)
    for column in ("samples", "sums", "cost", "times faster", "accuracy"):
        table.add_column(column, justify="right")
    for name in arguments.data:
        for row in measure(name, read(name, folder), arguments.units, arguments.epochs):
            table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
