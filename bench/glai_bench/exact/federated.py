"""Federated learning on frozen features, all clients in one process: exact sums against AFL and FedAvg on an MLP.

Ten clients, each class dealt by Dirichlet(0.1): most clients lack most classes. The integer map is frozen on the first
client's samples; every client adds up its own sums, which are merged; the digest must be that of all data in one place.
Bytes are those that clients send. Results go to the file of the class-incremental comparison, and its page.

python -m glai_bench.exact.federated --data digits --seeds 1 --output /dev/shm/federated.json
GLAI_DATA=data OMP_NUM_THREADS=1 python -m glai_bench.exact.federated
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

import glai_native as glai
from glai_bench.claims.cell import Cell
from glai_bench.exact.federated_controls import AFL, Clients, FedAvg, dirichlet_clients
from glai_bench.exact.recording import add_run_arguments, finished, opened, record
from glai_bench.exact.report import name_of_exact, write
from glai_bench.exact.streams import SOURCES, read
from glai_bench.folders import DATA_VARIABLE, data_folder

COMMAND = "python -m glai_bench.exact.federated"
CLIENTS, ALPHA, ROUNDS = 10, 0.1, 20
# Of the trace over D: what is left in AFL's result where the penalty is chosen by a fifth of each client's samples.
AFL_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)

Arrays = tuple[Tensor, Tensor, Tensor, Tensor]


def cells(name: str, arrays: Arrays, sizes: Sequence[int], seeds: range) -> Iterator[Cell]:
    """Yield the cells of one data set; exact sums of each size of Gram."""
    exact = {name_of_exact(size, sizes): partial(_exact, size) for size in sizes}
    for seed in seeds:
        for method, run in (exact | {"AFL": _afl, "FedAvg": _fedavg}).items():
            yield Cell(f"{name}/federated/{method}/seed={seed}", partial(run, arrays, seed))


def _clients(arrays: Arrays, seed: int) -> Clients:
    return dirichlet_clients(arrays[0], arrays[1], CLIENTS, ALPHA, seed)


def _exact(size: int, arrays: Arrays, seed: int) -> dict[str, Any]:
    """One round: the map goes out as a seed with means and multipliers, sums come back."""
    x, y, x_test, y_test = arrays
    clients, n_classes = _clients(arrays, seed), int(y.max()) + 1
    features = glai.IntegerFeatures.fit(clients[0][0], size - x.shape[1] - 1, seed=seed)
    whole = glai.IntegerStatistics(features, n_classes)
    for rows, classes in clients:
        party = glai.IntegerStatistics(features, n_classes)
        party.update(rows, classes)
        whole.merge(party)
    one_place = glai.IntegerStatistics(features, n_classes)
    one_place.update(x, y)
    scores = whole.solve("gcv").scores(features.transform(x_test))
    return {
        "accuracy": float((scores.argmax(1) == y_test).double().mean()),
        "bytes_up": CLIENTS * (size * (size + 1) // 2 + size * n_classes + n_classes) * 8,
        "rounds": 1,
        "same_digest": whole.digest() == one_place.digest(),
    }


def _afl(arrays: Arrays, seed: int) -> dict[str, Any]:
    """As the paper has it, without a penalty, and with the penalty that a fifth of each client's samples prefers."""
    x, y, x_test, y_test = arrays
    clients, n_classes = _clients(arrays, seed), int(y.max()) + 1
    plain = AFL(clients, n_classes)
    held = [(x[::5], y[::5]) for x, y in clients]
    rest = [(x[torch.arange(len(x)) % 5 > 0], y[torch.arange(len(y)) % 5 > 0]) for x, y in clients]
    unit = float(x.double().square().sum() / x.shape[1])
    x_held, y_held = torch.cat([x for x, _ in held]), torch.cat([y for _, y in held])
    penalty = max(
        (share * unit for share in AFL_PENALTIES),
        key=lambda l2: _accuracy(AFL(rest, n_classes, l2).scores(x_held), y_held),
    )
    return {
        "accuracy": _accuracy(plain.scores(x_test), y_test),
        "accuracy_with_penalty": _accuracy(AFL(clients, n_classes, penalty).scores(x_test), y_test),
        "bytes_up": plain.bytes_up,
        "rounds": 1,
    }


def _fedavg(arrays: Arrays, seed: int) -> dict[str, Any]:
    _, y, x_test, y_test = arrays
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        learner = FedAvg(_clients(arrays, seed), int(y.max()) + 1, ROUNDS, seed)
    return {
        "accuracy": _accuracy(learner.scores(x_test), y_test),
        "bytes_up": learner.bytes_up,
        "rounds": ROUNDS,
    }


def _accuracy(scores: Tensor, y: Tensor) -> float:
    return float((scores.argmax(1) == y).double().mean())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog=COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", choices=list(SOURCES), default="tinyimagenet", metavar="NAME", help=", ".join(SOURCES)
    )
    add_run_arguments(parser)
    arguments = parser.parse_args(argv)
    folder = data_folder()
    if folder is None and SOURCES[arguments.data].file is not None:
        parser.error(f"set {DATA_VARIABLE} to the folder that holds the data, or ask for --data digits")
    torch.set_num_threads(arguments.threads)
    results = opened(parser, arguments.output, arguments.threads)
    arrays, sizes = read(arguments.data, folder), SOURCES[arguments.data].sizes
    record(
        cells(arguments.data, arrays, sizes, range(arguments.seeds)),
        results,
        finished(results),
        arguments.output,
    )
    write(results, arguments.output.with_suffix(".md"))


if __name__ == "__main__":
    main()
