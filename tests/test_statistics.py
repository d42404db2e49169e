"""PathStatistics against direct float64 ridge on features made in full."""

import pytest
import torch

import glai_native as glai
from conftest import make_mlp
from glai_native import reference as ref

# Units per hidden layer, D, C, N.
SHAPES = [((4,), 3, 2, 40), ((33,), 1, 5, 50), ((31,), 5, 1, 33), ((3, 4), 6, 4, 70), ((1,), 2, 3, 1)]


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


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ridge(shape):
    z, gates, targets, weight = draw(*shape)
    c = shape[2]
    for s in (None, weight):
        statistics = gather(z, gates, targets, c, s)
        for l2 in (0.3, 20.0):
            estimator = statistics.solve(l2)
            assert_solution(estimator, ridge(z, gates, targets, c, l2, s))
        assert estimator.weight.dtype == torch.float64
        assert int(estimator.samples_seen) == len(z)
    counted = glai.PathEstimator(gates.n_gates, z.shape[1], c)
    counted.record(gates, targets)
    assert torch.equal(estimator.on_counts, counted.on_counts)


def test_merging_is_exact():
    z, gates, targets, _ = draw((3, 4), 6, 4, 90)
    whole = gather(z, gates, targets, 4)
    parts = [gather(z[i::3], gates[i::3], targets[i::3], 4) for i in range(3)]
    for merged in (parts[0] + parts[1] + parts[2], parts[2] + (parts[1] + parts[0])):
        assert_solution(merged.solve(0.1), ridge(z, gates, targets, 4, 0.1))
        assert merged.n_samples == 90
        assert torch.equal(merged.on_counts, whole.on_counts)
    assert parts[0].n_samples == 30  # as it was


def test_files(tmp_path, selector, samples):
    targets = torch.arange(len(samples)) % 4
    z, gates = selector.project(samples), selector.gates(samples)
    statistics = gather(z, gates, targets, 4)
    assert statistics.structure_id == selector.structure_id
    path = tmp_path / "statistics.safetensors"
    statistics.save(path)
    loaded = glai.PathStatistics.load(path, selector.structure_id)
    assert torch.equal(loaded.solve(1.0).weight, statistics.solve(1.0).weight)
    assert torch.equal(loaded.solve(1.0).on_counts, statistics.solve(1.0).on_counts)
    assert loaded.n_samples == 40
    foreign = glai.PathSelector(make_mlp(6, 33, 4, seed=5))
    with pytest.raises(ValueError, match=f"structure_id must be {foreign.structure_id[:12]}"):
        glai.PathStatistics.load(path, foreign.structure_id)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="truncated"):
        glai.PathStatistics.load(path)
