"""A new structure needs data only: a projection fitted, a network trained until its pattern settles, and frozen."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from glai_native.data.canonical import canonical_form
from glai_native.data.checks import require_finite, require_sample_weight
from glai_native.data.counts import require_count, require_integer
from glai_native.data.stored_rows import StoredRows
from glai_native.gates.paths import count_paths
from glai_native.machine.memory import give_back_freed, require_memory
from glai_native.solvers.choice import FEW_SAMPLES
from glai_native.structure.network import drawn_network
from glai_native.structure.projection import InputProjection
from glai_native.structure.selector import PathSelector
from glai_native.structure.settling import FEWEST_HELD_OUT, SETTLED, StructureMonitor, train_structure
from glai_native.structure.stored_structure import train_stored_structure
from glai_native.training.holding_out import rows_held_out
from glai_native.training.reading import Stored, part_of, read_part, rows_of, stored_or_whole, stored_rows

# Units of a structure of which nothing is said, half of them beyond so many features, whose products are its time. With
# 512 instead of 128 letter gained 0.7 points, electricity 0.9, digits 0.7, of one seed.
UNITS, WIDE_FEATURES = 512, 512
# Adam's rate of up to so many features, and of many: on letter, electricity, protein and kin40k, of 6 to 16 features,
# the larger one was better by 0.2 to 1.2 points after as many epochs; on digits (64), MNIST and BANKING77 the smaller,
# and of few samples, whose dual any gates serve.
FEW_RATE, FEW_FEATURES, RATE = 3e-3, 32, 1e-3
# Epochs at most, as many as pass so many samples; most structures are stale before.
MOST_EPOCHS, LEAST_EPOCHS, EPOCHS_SAMPLES = 100, 15, 6_000_000
# In a row that held-out samples find nothing better in, at the larger rate and the smaller one: what they say wavers at
# the larger one (kin40k stopped after 20 or 83 epochs by the seed); ten cost MNIST five epochs, for 0.02 points.
FEW_STALE_EPOCHS, STALE_EPOCHS = 10, 5
# What training a structure holds: of each number, float32, itself, gradient, two moments and the monitor's copies, 8 in
# all; of each unit, activation and gradient in a batch of 128. Measured: 3.4 kB of a unit between 64 features and 10.
BYTES_PER_NUMBER, BYTES_PER_UNIT = 8 * 4, 2 * 128 * 4


def train_selector(
    x: Tensor | Stored,
    y: Tensor,
    n_outputs: int,
    hidden: Sequence[int] | int | str = "auto",
    n_components: int | str | None = "auto",
    *,
    epochs: int | str = "auto",
    held_out: float = 0.0,
    sample_weight: Tensor | None = None,
    seed: int = 0,
    progress: bool = True,
    seconds: float | None = None,
) -> PathSelector:
    """Fit a projection on x, and train a ReLU network on it until its pattern settles, or more of it tells nothing.

    Args:
        x: raw ``[N, in_features]``; or a NumPy memory map of them, which is read once an epoch, and of which a part
            settles the projection: 8 MB, or 16,384 samples where these are more.
        y: class indices ``[N]``, or values ``[N, C]``.
        n_outputs: C.
        hidden: units of each hidden layer; one number is one layer; ``"auto"``: one of 512 units, of 256 where there
            are more than 512 features.
        n_components: principal components that z keeps; None, and ``"auto"``: all features, unrotated.
        epochs: at most; ``"auto"``: 100, or as many as pass 6 million samples, 15 at least.
        held_out: share of the samples that :func:`glai_native.fit` will hold out by the same seed, which the structure
            must not be trained on: it would be judged by what it knows. They only say when it is no longer worth an
            epoch (:attr:`StructureMonitor.stale`); of few samples, whose dual any gates serve, the pattern says so
            too, by having settled.
        sample_weight: ``[N]``, >= 0, as :func:`train_structure`.
        seed: of the network's start and the order of samples.
        progress: show a bar.
        seconds: no epoch begins later; None: whenever.

    Raises:
        ValueError: sizes, components or a seed that are none.
        MemoryError: the network, or the gates of its paths on x, take more memory than there is.
    """
    if isinstance(hidden, str) and hidden == "auto":
        hidden = new_units(math.prod(x.shape[1:]))
    with suppress(TypeError):  # of what is no number, but several
        hidden = [operator.index(hidden)]  # type: ignore[arg-type]
    if isinstance(hidden, str) or not isinstance(hidden, Sequence | np.ndarray) or not len(hidden):
        raise ValueError(
            "train_selector: hidden layer sizes must be a sequence of ints >= 1, or one, or 'auto', got "
            f"{hidden!r}"
        )
    if any(not isinstance(units, int | np.integer) or units < 1 for units in hidden):
        raise ValueError(f"train_selector: hidden layer sizes must be ints >= 1, got {hidden!r}")
    seed = require_integer("train_selector", "seed", seed)
    by_samples = isinstance(epochs, str) and epochs == "auto"
    epochs = MOST_EPOCHS if by_samples else require_count("train_selector", "epochs", epochs)
    weight = require_sample_weight("train_selector", sample_weight, len(x))
    if not isinstance(x, Tensor):
        x = stored_or_whole(stored_rows("train_selector", x))
    n_given = len(x)
    if isinstance(x, Tensor):
        if weight is not None:
            require_finite("train_selector", "x", x)
        form = canonical_form([x, y], weight)
        x, y, weight = form.of(x), form.of(y), form.weight
    elif weight is not None and not bool(weight.all()):
        kept = weight > 0
        x, y, weight = x.part(kept.nonzero().squeeze(1).numpy()), y[kept], weight[kept]
    if not len(x):
        raise ValueError("train_selector: sample_weight must be > 0 for at least one sample, got none")
    n_samples = len(x)  # that are there: repetitions and weights are the same thing
    if by_samples:
        epochs = min(MOST_EPOCHS, max(LEAST_EPOCHS, EPOCHS_SAMPLES // n_samples))
    rows, unseen = rows_held_out(y, held_out, seed)
    validation: tuple[Tensor, ...] | None = None
    if len(unseen):
        rows, unseen = rows.to(y.device), unseen.to(y.device)
        validation = (rows_of(x, unseen), y[unseen], *(() if weight is None else (weight[unseen],)))
        x, y, weight = part_of(x, rows), y[rows], None if weight is None else weight[rows]
    projection = _projection(x, weight, n_components, seed)
    widths = [projection.out_features, *map(int, hidden)]
    _require_memory(y.device, [*widths, n_outputs], n_given)
    mlp = drawn_network([*widths, n_outputs], seed)
    few = widths[0] <= FEW_FEATURES and n_samples > FEW_SAMPLES
    monitor = StructureMonitor(
        threshold=SETTLED if len(unseen) < FEWEST_HELD_OUT or n_samples <= FEW_SAMPLES else None,
        min_epochs=min(3, epochs),
        max_epochs=epochs,
        seconds=seconds,
        validation_patience=FEW_STALE_EPOCHS if few else STALE_EPOCHS,
        indicator=progress,
    )
    train: Callable[..., PathSelector] = train_structure if isinstance(x, Tensor) else train_stored_structure
    selector = train(
        mlp.to(y.device),
        x,
        y,
        projection,
        monitor,
        learning_rate=FEW_RATE if few else RATE,
        sample_weight=weight,
        validation=validation,
        seed=seed,
        progress=progress,
    )
    give_back_freed()
    return selector


def _projection(
    x: Tensor | StoredRows, weight: Tensor | None, n_components: int | str | None, seed: int
) -> InputProjection:
    """Return the projection that x settles, a part of it where it is not in memory."""
    if isinstance(x, StoredRows):
        x, rows = read_part(x, seed)
        weight = None if weight is None else weight[rows]
    if isinstance(n_components, str) and n_components == "auto":
        return InputProjection.fit(x, seed=seed, sample_weight=weight)
    try:
        count = None if n_components is None else operator.index(n_components)  # type: ignore[arg-type]
    except TypeError:
        raise ValueError(
            f"train_selector: n_components must be an int, None or 'auto', got {n_components!r}"
        ) from None
    return InputProjection.fit(x, count, seed=seed, sample_weight=weight)


def new_units(in_features: int) -> int:
    """Return the units of a structure of which nothing is said."""
    return UNITS if in_features <= WIDE_FEATURES else UNITS // 2


def _require_memory(device: torch.device, widths: Sequence[int], n_samples: int) -> None:
    """Raise where a selector cannot be trained on a device, before it is made; widths go from z to the outputs."""
    numbers = sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(widths))
    units = widths[1:-1]
    require_memory(
        "train_selector",
        f"a network of hidden layers {units} between D={widths[0]} features and C={widths[-1]} outputs, in training,",
        numbers * BYTES_PER_NUMBER + sum(units) * BYTES_PER_UNIT,
        device,
        "use fewer units",
    )
    n_paths = count_paths(units)
    require_memory(
        "train_selector",
        f"the gates of N={n_samples:,} samples and the P={n_paths:,} paths of hidden layers {units}, a bit each,",
        n_samples * (n_paths // 8),
        device,
        "P is the product of (units + 1) over the layers, use fewer of them",
    )
