"""Samples are split here into those trained on and those held out, by class where they have classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

Rows = NDArray[np.int64]

# Of more samples a part of so many is split: stratifying a million takes 120 MB, and what is freed of that stays.
MOST_SPLIT = 1 << 16


def split_rows(classes: NDArray[Any] | None, n_samples: int, n_held_out: int, seed: int) -> tuple[Rows, Rows]:
    """Split row numbers into train and held out, such that train has every class.

    Classes of two samples and more are held out in proportion, where that leaves each of them on both sides. The only
    sample of a class goes to train, whatever the others do. Where there are more classes than samples to hold out, one
    of each class, drawn at random, goes to train, and what is held out is drawn from the rest. Of very many
    samples all this is done with a part that is drawn, and the others go to train.

    Args:
        classes: the class of each sample ``[N]``, of any kind; None: there are none.
        n_samples: N.
        n_held_out: samples to hold out, in ``[1, N)``.
        seed: of the draw.

    Returns:
        Rows of train and rows held out, in the order drawn; of the latter fewer than asked for, none even, where the
        rest of the samples is each the only one of its class.
    """
    if n_samples > MOST_SPLIT >= 4 * n_held_out:
        drawn = np.sort(np.random.default_rng(seed).choice(n_samples, MOST_SPLIT, replace=False))
        _, held_out = split_rows(None if classes is None else classes[drawn], MOST_SPLIT, n_held_out, seed)
        kept = np.ones(n_samples, dtype=np.bool_)
        kept[drawn[held_out]] = False
        return np.flatnonzero(kept), drawn[held_out]
    rows = np.arange(n_samples)
    if classes is None:
        train, held_out = train_test_split(rows, test_size=n_held_out, random_state=seed)
        return train, held_out
    _, index, counts = np.unique(classes, return_inverse=True, return_counts=True)
    single = counts[index] == 1
    alone, rest = rows[single], rows[~single]
    n_classes = int((counts > 1).sum())
    if n_classes <= n_held_out <= len(rest) - n_classes:
        train, held_out = train_test_split(
            rest, test_size=n_held_out, random_state=seed, stratify=index[rest]
        )
        if len(np.unique(index[train])) == n_classes:
            return np.concatenate([train, alone]), held_out
    order = np.random.default_rng(seed).permutation(n_samples)
    of_each = np.unique(index[order], return_index=True)[1]  # the first of each class in that order
    others = np.delete(order, of_each)
    return np.concatenate([order[of_each], others[n_held_out:]]), others[:n_held_out]
