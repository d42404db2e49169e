"""Heads at the sizes that people use, by what a newcomer calls: ``replace_mlp`` and ``fit`` at their defaults.

Beside them the linear probes that they must beat, or say that they suffice, and the MLP that is replaced.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import glai_native as glai
from glai_bench.heads.tasks import mlp, percent
from glai_native.data.labelled import load_data

UNITS = 256
EPOCHS, PATIENCE, BATCH, RATE = 25, 4, 128, 1e-3
DECAYS = (0.01, 0.1, 1.0)  # AdamW's, tried for the softmax probe and the MLP
RIDGES = (1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)  # times the mean diagonal


@dataclass(frozen=True)
class Parts:
    """Features, centred and scaled by one number, and classes: to train on, to choose by, to test on."""

    train: tuple[Tensor, Tensor]
    chosen_by: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    @property
    def sizes(self) -> tuple[int, int]:
        """D and C."""
        return self.train[0].shape[1], int(self.train[1].max()) + 1


Row = dict[str, Any]


def data_sets(folder: Path) -> Iterator[tuple[str, Parts]]:
    for name, file in (
        ("BANKING77", "banking77_minilm.npz"),
        ("Tiny-ImageNet", "tinyimagenet_efficientnet.npz"),
    ):
        if (folder / file).exists():
            data = load_data(folder / file)
            yield name, parts(data.x_train.float(), data.y_train, data.x_test.float(), data.y_test)
    yield "made up", parts(*clusters(768, 1000))


def parts(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor) -> Parts:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    held, kept = order[: len(x) // 10], order[len(x) // 10 :]
    projection = glai.InputProjection.fit(x[kept])
    return Parts((projection(x[kept]), y[kept]), (projection(x[held]), y[held]), (projection(x_test), y_test))


def clusters(features: int, classes: int, modes: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Classes of a few Gaussian clusters each, within 48 of the dimensions: no linear model separates them."""
    generator = torch.Generator().manual_seed(0)
    rank = 48
    basis = torch.randn(rank, features, generator=generator) / rank**0.5
    centres = torch.randn(classes * modes, rank, generator=generator)

    def drawn(count: int) -> tuple[Tensor, Tensor]:
        cluster = torch.randint(classes * modes, (count,), generator=generator)
        latent = centres[cluster] + 0.6 * torch.randn(count, rank, generator=generator)
        return latent @ basis + 0.05 * torch.randn(count, features, generator=generator), cluster % classes

    return *drawn(6_000), *drawn(3_000)


def accuracy(model: Callable[[Tensor], Tensor], samples: tuple[Tensor, Tensor]) -> float:
    with torch.no_grad():
        return percent(model(samples[0]), samples[1])


def descend_until_best(model: nn.Module, data: Parts, decay: float, epochs: int = EPOCHS) -> float:
    """Train by AdamW, keep the epoch that is best by ``chosen_by``, and return its accuracy there."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=decay, fused=True)
    (x, y), best, since, state = data.train, -1.0, 0, copy.deepcopy(model.state_dict())
    for _ in range(epochs):
        for ids in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[ids]), y[ids]).backward()
            optimizer.step()
        found = accuracy(model, data.chosen_by)
        best, since, state = (
            (found, 0, copy.deepcopy(model.state_dict())) if found > best else (best, since + 1, state)
        )
        if since == PATIENCE:
            break
    model.load_state_dict(state)
    return best


def ridge_probe(data: Parts) -> Callable[[Tensor], Tensor]:
    x, y = data.train
    phi = torch.cat([x, x.new_ones(len(x), 1)], 1).double()
    gram, cross = phi.T @ phi, phi.T @ nn.functional.one_hot(y).double()
    eye = torch.eye(len(gram), dtype=torch.float64) * gram.diagonal().mean()
    found = [torch.linalg.solve(gram + share * eye, cross) for share in RIDGES]

    def scores(weight: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda x: x.double() @ weight[:-1] + weight[-1]

    return max((scores(weight) for weight in found), key=lambda model: accuracy(model, data.chosen_by))


def trained(make: Callable[[], nn.Module], data: Parts) -> nn.Module:
    models = [make() for _ in DECAYS]
    found = [descend_until_best(model, data, decay) for model, decay in zip(models, DECAYS, strict=True)]
    return models[found.index(max(found))]


def head_by_fit(network: nn.Sequential, data: Parts) -> tuple[nn.Module, str]:
    network = copy.deepcopy(network)
    head = glai.replace_mlp(network, "")
    result = glai.fit(head, *data.train, validation=data.chosen_by, progress=False)
    return network, f"{head.estimator.kind}; {result.reason}"


def rows_of(data: Parts, seed: int = 0) -> dict[str, Row]:
    """Each kind's test accuracy, and processor seconds of its training and of choosing its settings."""
    features, classes = data.sizes
    rows: dict[str, Row] = {}

    def measure(kind: str, make: Callable[[], tuple[Callable[[Tensor], Tensor], str]]) -> None:
        torch.manual_seed(seed)
        started = time.process_time()
        model, says = make()
        seconds = time.process_time() - started
        rows[kind] = {
            "accuracy": accuracy(model, data.test),
            "standard_error": None,
            "seconds": seconds,
            "says": says,
        }

    def begun(epochs: int) -> nn.Sequential:
        network = mlp(features, UNITS, classes)
        descend_until_best(network, data, DECAYS[0], epochs)
        return network

    measure("linear: ridge", lambda: (ridge_probe(data), ""))
    measure("linear: softmax", lambda: (trained(lambda: nn.Linear(features, classes), data), ""))
    measure("MLP", lambda: (trained(lambda: mlp(features, UNITS, classes), data), ""))
    measure("GLAI, random gates", lambda: head_by_fit(mlp(features, UNITS, classes), data))
    measure("GLAI", lambda: head_by_fit(begun(2), data))
    return rows
