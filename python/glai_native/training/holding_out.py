"""Samples are held out of a training, and a structure that has not seen them is trained on the others alone."""

from __future__ import annotations

from numbers import Real

import numpy as np
import torch
from torch import Tensor

from glai_native.data.counts import require_seed
from glai_native.data.splitting import split_rows
from glai_native.solvers.samples import Samples
from glai_native.solvers.solution import Split
from glai_native.solvers.streamed import StreamedSamples
from glai_native.structure.selector import PathSelector
from glai_native.training.numbering import Numbering

VALIDATION_SHARE = 0.1
VALIDATION_SAMPLES = 10_000  # at most


def split_samples(
    selector: PathSelector,
    samples: Samples | StreamedSamples,
    validation: tuple[Tensor, ...] | float,
    seed: int,
    numbering: Numbering,
) -> Split:
    """Split samples into what is trained on and what is held out, as :func:`fit` takes ``validation``."""
    if isinstance(validation, tuple):
        if len(validation) not in (2, 3):
            raise ValueError(
                f"fit: validation must be a share in [0, 1) or (x, y), got {len(validation)} of them; "
                "a sample_weight may follow"
            )
        held_x, held_y, *weights = validation
        held_out = Samples.of_raw(
            "fit",
            selector,
            held_x,
            numbering(held_y),
            samples.n_outputs,
            None,
            *weights,
            of_units=isinstance(samples, Samples) and samples.of_units,
        )
        return Split(samples, samples, held_out)
    train, rows = (part.to(samples.device) for part in rows_held_out(samples.y, validation, seed))
    if not len(rows):
        return Split(samples, samples, None)
    return Split(samples, samples.part(train), samples[rows], rows)


def rows_held_out(y: Tensor, validation: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the rows of samples of targets y that :func:`fit` trains on, and those that it holds out, in order.

    A structure that has not seen the latter is trained on the former alone.
    """
    if not (isinstance(validation, Real) and 0 <= validation < 1):
        found = validation if isinstance(validation, Real) else type(validation).__name__
        raise ValueError(f"fit: validation must be a share in [0, 1) or (x, y), got {found}")
    n, seed = len(y), require_seed("fit", seed)
    n_held_out = min(VALIDATION_SAMPLES, round(n * validation))
    if not n_held_out:
        return torch.arange(n, device="cpu"), torch.arange(0, device="cpu")
    if n_held_out == n:
        raise ValueError(f"fit: validation must leave a sample to train on, got {validation} of N={n}")
    classes = None if y.is_floating_point() else y.cpu().numpy()
    train, held_out = split_rows(classes, n, n_held_out, seed)
    return torch.from_numpy(np.sort(train)), torch.from_numpy(np.sort(held_out))
