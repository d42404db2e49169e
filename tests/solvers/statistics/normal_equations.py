"""Ridge regression in float64 on path features made in full, which PathStatistics never makes."""

import torch

import glai_native as glai
from glai_native.ops import oracle as ref


def draw(widths, d, c, n, seed=0):
    """z [N, D], path gates, class indices, weights of samples."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn((n, d), generator=generator, dtype=torch.float64)
    layers = [glai.pack_gates(torch.rand((n, h), generator=generator) < 0.5) for h in widths]
    targets = torch.randint(0, c, (n,), generator=generator)
    return z, glai.path_gates(layers), targets, torch.rand(n, generator=generator, dtype=torch.float64)


def ridge(z, gates, targets, n_outputs, l2, weight=None):
    """[P, D+1, C]: the normal equations of features made in full."""
    phi = ref.path_features_ref(z.double(), gates.unpack())
    values = (
        targets.double() if targets.is_floating_point() else torch.nn.functional.one_hot(targets, n_outputs)
    )
    weighted = phi if weight is None else phi * weight.double().unsqueeze(1)
    gram = weighted.T @ phi + l2 * torch.eye(phi.shape[1], dtype=torch.float64)
    solution = torch.linalg.solve(gram, weighted.T @ values.double())
    return solution.view(gates.n_gates, z.shape[1] + 1, n_outputs)


def gather(z, gates, targets, n_outputs, weight=None, **options):
    statistics = glai.PathStatistics(gates.n_gates, z.shape[1], n_outputs, **options)
    statistics.update(z, gates, targets, weight)
    return statistics


def assert_solution(estimator, expected, tolerance=1e-8):
    actual = torch.cat([estimator.weight, estimator.bias.unsqueeze(1)], dim=1).detach()
    assert float((actual.double() - expected).norm() / expected.norm()) <= tolerance
