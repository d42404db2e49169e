"""Integer features and targets, and their sums, for the tests of what solves them."""

import torch

from glai_native.solvers.exact.system import CONSTANT, LINEAR_SHARE, FeatureSums


def integer_samples(n, n_units, n_linear, n_classes, *, seed=0, rank=None):
    """φ uint8 [N, M], of which ``rank`` directions matter, and classes that depend on it."""
    generator = torch.Generator().manual_seed(seed)
    k = n_units + n_linear
    hidden = torch.randn(n, rank or k, generator=generator)
    features = torch.full((n, k + 1), CONSTANT, dtype=torch.uint8)
    values = hidden @ torch.randn(rank or k, k, generator=generator) / (rank or k) ** 0.5
    values = values + 0.2 * torch.randn(n, k, generator=generator)
    features[:, :-1] = (20 * values + 40).round().clamp(0, 127).to(torch.uint8)
    scores = hidden @ torch.randn(rank or k, n_classes, generator=generator)
    noise = 0.5 * scores.std() if n > 1 else 0.0
    return features, (scores + noise * torch.randn(scores.shape, generator=generator)).argmax(1)


def sums_of(features, targets, n_units, n_classes=None, *, per_class=False):
    """What IntegerStatistics holds of samples: targets are classes [N], or integers [N, C]."""
    wide = features.double()  # exact, and far faster than products of integers
    values = torch.nn.functional.one_hot(targets, n_classes) if targets.ndim == 1 else targets
    grams = None
    if per_class:
        parts = [wide[targets == c] for c in range(n_classes)]
        grams = torch.stack([(part.T @ part).long().triu() for part in parts])
    return FeatureSums(
        (wide.T @ wide).long().triu(),
        (wide.T @ values.double()).long(),
        len(features),
        n_units,
        None if targets.ndim == 1 else values.square().sum(0).tolist(),
        grams,
    )


def dense_solution(features, values, n_units, l2, weight=None):
    """Weights [M, C] by least squares on the samples themselves, in float64.

    A linear feature's weight is charged a share of l2, the constant's nothing.
    """
    x, y = features[:, :-1].double(), values.double()
    weight = torch.ones(len(x), dtype=torch.float64) if weight is None else weight
    mean, target_mean = (weight @ x) / weight.sum(), (weight @ y) / weight.sum()
    root = weight.sqrt().unsqueeze(1)
    k = x.shape[1]
    charge = torch.full((k,), l2, dtype=torch.float64)
    charge[n_units:] *= LINEAR_SHARE
    penalised = torch.cat([(x - mean) * root, charge.sqrt().diag()])
    right = torch.cat([(y - target_mean) * root, torch.zeros(k, y.shape[1], dtype=torch.float64)])
    solution = torch.linalg.lstsq(penalised, right, driver="gelsd").solution
    return torch.cat([solution, (target_mean - mean @ solution).unsqueeze(0) / CONSTANT])
