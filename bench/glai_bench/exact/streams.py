"""Data that arrive class by class: the class-incremental tasks of every data set, in an order that a seed draws."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from glai_native.data.labelled import load_data


class Source(NamedTuple):
    """A data set, what it is called in tables, its number of tasks and the sizes of Gram that it is learnt with."""

    title: str
    file: str | None  # below the data's folder; None: scikit-learn's digits
    n_tasks: int
    sizes: tuple[int, ...]


SOURCES = {
    "tinyimagenet": Source("Tiny-ImageNet features", "tinyimagenet_efficientnet.npz", 10, (4_000, 10_000)),
    "banking": Source("BANKING77", "banking77_minilm.npz", 7, (3_000,)),
    "mnist": Source("MNIST", "mnist", 5, (4_000,)),
    "digits": Source("digits", None, 5, (300,)),
}


@dataclass(frozen=True)
class Stream:
    """Training samples in tasks, classes numbered as they arrive, and test samples of all classes."""

    tasks: list[tuple[Tensor, Tensor]]
    x_test: Tensor
    y_test: Tensor
    n_classes: int

    @property
    def in_features(self) -> int:
        return self.x_test.shape[1]

    def joint(self) -> tuple[Tensor, Tensor]:
        """Return all training samples, in the order that they arrive in."""
        return torch.cat([x for x, _ in self.tasks]), torch.cat([y for _, y in self.tasks])

    def one_class_a_task(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the same samples in tasks of one class each."""
        for x, y in self.tasks:
            for label in y.unique():
                yield x[y == label], y[y == label]


def read(name: str, folder: Path | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return x ``[N, D]`` float32 and y ``[N]`` int64 of training, then of test.

    Raises:
        FileNotFoundError: the data set is a file, and there is no folder.
    """
    file = SOURCES[name].file
    if file is None:
        bunch = load_digits()
        order = np.random.default_rng(0).permutation(len(bunch.target))
        x = torch.from_numpy(bunch.data[order]).float()
        y = torch.from_numpy(bunch.target[order])
        return x[:1_300], y[:1_300], x[1_300:], y[1_300:]
    if folder is None:
        raise FileNotFoundError(f"{name}: needs GLAI_DATA, the folder that holds {file}")
    data: Any = load_data(folder / file)
    return data.x_train.float(), data.y_train, data.x_test.float(), data.y_test


def stream(arrays: tuple[Tensor, Tensor, Tensor, Tensor], n_tasks: int, seed: int) -> Stream:
    """Split samples into tasks of as many classes each, in an order of classes that the seed draws.

    Where the classes do not divide, the first tasks hold one more. Samples of a task are shuffled.

    Args:
        arrays: as :func:`read` returns them.
        n_tasks: how many.
        seed: of the order.
    """
    x, y, x_test, y_test = arrays
    n_classes = int(y.max()) + 1
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(n_classes, generator=random)
    number = order.argsort()  # of a class as it stands in y: the number that it arrives under
    shuffled = torch.randperm(len(y), generator=random)
    arriving = number[y[shuffled]]
    tasks = []
    for classes in torch.arange(n_classes).tensor_split(n_tasks):
        chosen = (arriving >= classes[0]) & (arriving <= classes[-1])
        tasks.append((x[shuffled[chosen]], arriving[chosen]))
    return Stream(tasks, x_test, number[y_test], n_classes)
