"""An MLP in PyTorch that is tuned on each table: the solvers' baseline, for classes and for values.

One hidden layer, fused Adam, iterates averaged over an epoch. Width, rate, batch size and the number of epochs are
those of the best score on a fifth of the training samples, which is held out, of few samples the mean over all five
fifths; each candidate stops where that score has not grown for some epochs. With these settings it is then trained on
all training samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import product
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, r2_score
from torch import Tensor, nn

from glai_bench.solvers.mlp import MlpSettings, Stopwatch, make_mlp, trained_mlps
from glai_bench.tables.data import Table

FOLDS, FEW_SAMPLES = 5, 5_000  # up to so many every fold is held out once, otherwise the first alone
MANY_FEATURES = 100
RATES = ((1e-3, 64), (3e-3, 128), (3e-3, 256), (1e-2, 512))
WIDTHS, MOST_EPOCHS, PATIENCE = (32, 128, 512), 100, 10
# Beyond MANY_FEATURES, where a candidate takes minutes.
WIDE_RATES = ((1e-3, 128), (3e-3, 256))
WIDE_WIDTHS, WIDE_EPOCHS, WIDE_PATIENCE = (256, 1024), 30, 5


def candidates(features: int) -> tuple[list[MlpSettings], int]:
    """Return what is tried on data of so many features, and after how many epochs without a gain each ends."""
    wide = features > MANY_FEATURES
    widths, rates = (WIDE_WIDTHS, WIDE_RATES) if wide else (WIDTHS, RATES)
    epochs, patience = (WIDE_EPOCHS, WIDE_PATIENCE) if wide else (MOST_EPOCHS, PATIENCE)
    tried = [MlpSettings(width, *rate, epochs=epochs) for width, rate in product(widths, rates)]
    return tried, patience


def tuned(table: Table) -> dict[str, Any]:
    """Return the settings of the best score of held-out samples, that score, and the processor seconds."""
    started = time.process_time()
    folds = np.array_split(np.random.default_rng(0).permutation(len(table.x)), FOLDS)
    held_out = folds if len(table.x) <= FEW_SAMPLES else folds[:1]
    tried, patience = candidates(table.x.shape[1])
    found = []
    for settings in tried:
        best, epochs = -np.inf, 0
        for epoch, score in enumerate(_held_out_scores(table, held_out, settings), 1):
            if score > best:
                best, epochs = score, epoch
            if epoch >= epochs + patience:
                break
        found.append((best, replace(settings, epochs=epochs)))
    score, chosen = max(found, key=lambda pair: pair[0])
    return {
        "settings": asdict(chosen),
        "held_out_score": score,
        "candidates": len(tried),
        "processor_seconds": time.process_time() - started,
    }


def _held_out_scores(
    table: Table, held_out: Sequence[NDArray[np.int64]], settings: MlpSettings
) -> Iterator[float]:
    """Yield the mean score after each epoch, of models that are trained side by side, each without its fold."""
    n_classes = int(table.y.max()) + 1 if table.classify else None
    rest = [np.setdiff1d(np.arange(len(table.x)), fold) for fold in held_out]
    training = [_epochs(table.x[rows], table.y[rows], settings, n_classes, seed=0) for rows in rest]
    for models in zip(*training, strict=True):
        scores = [
            _score(model, table.x[fold], table.y[fold], table.classify)
            for model, fold in zip(models, held_out, strict=True)
        ]
        yield float(np.mean(scores))


class TunedMLP:
    """The MLP of given settings.

    Args:
        classify: y holds classes 0 to C-1, otherwise values.
        settings: as :func:`tuned` returns them.
        seed: of its start and of the order of samples.
    """

    def __init__(self, classify: bool, settings: MlpSettings, seed: int) -> None:
        self.classify, self.settings, self.seed = classify, settings, seed

    def fit(self, x: NDArray[np.float32], y: NDArray[Any]) -> Self:
        """Train on x ``[N, D]`` and y ``[N]``."""
        n_classes = int(y.max()) + 1 if self.classify else None
        *_, self.model = _epochs(x, y, self.settings, n_classes, self.seed)
        return self

    def score(self, x: NDArray[np.float32], y: NDArray[Any]) -> float:
        """Return the accuracy on x and y, or R2."""
        return _score(self.model, x, y, self.classify)


def _epochs(
    x: NDArray[np.float32], y: NDArray[Any], settings: MlpSettings, n_classes: int | None, seed: int
) -> Iterator[nn.Sequential]:
    """Yield the model after each epoch; n_classes: None for values, one output that squares are summed of."""
    targets = torch.from_numpy(y).long() if n_classes else torch.from_numpy(y).float()[:, None]
    loss: Callable[[Tensor, Tensor], Tensor] = (
        nn.functional.cross_entropy if n_classes else nn.functional.mse_loss
    )
    mlp = make_mlp(x.shape[1], settings.hidden, n_classes or 1, seed)
    return trained_mlps(mlp, torch.from_numpy(x), targets, settings, seed, Stopwatch(), loss)


@torch.no_grad()
def _score(model: nn.Sequential, x: NDArray[np.float32], y: NDArray[Any], classify: bool) -> float:
    output = model(torch.from_numpy(x))
    return float(accuracy_score(y, output.argmax(1)) if classify else r2_score(y, output[:, 0]))
