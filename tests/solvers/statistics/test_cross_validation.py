"""The penalty that is chosen: generalised cross-validation and leave-one-out against their definitions."""

import pytest
import torch

from glai_native.ops import oracle as ref
from glai_native.solvers.statistics import cross_validation
from solvers.statistics.normal_equations import draw, gather


def brute_force(z, gates, targets, n_outputs, l2, weight=None):
    """GCV and leave-one-out scores by their definitions: the hat matrix, and N fits without one sample each."""
    phi = ref.path_features_ref(z, gates.unpack())
    values = torch.nn.functional.one_hot(targets, n_outputs).double()
    n = len(z)
    s = torch.ones(n, dtype=torch.float64) if weight is None else weight
    eye = l2 * torch.eye(phi.shape[1], dtype=torch.float64)
    root = s.sqrt().unsqueeze(1)
    hat = root * phi @ torch.linalg.solve((phi * s.unsqueeze(1)).T @ phi + eye, (root * phi).T)
    residuals = root * values - hat @ (root * values)
    gcv = residuals.square().mean() / (1 - hat.trace() / n) ** 2
    left_out = 0.0
    for i in range(n):
        kept = torch.arange(n) != i
        w = phi[kept] * s[kept].unsqueeze(1)
        solution = torch.linalg.solve(w.T @ phi[kept] + eye, w.T @ values[kept])
        left_out += s[i] * (values[i] - phi[i] @ solution).square().sum()
    return float(gcv), float(left_out)


@pytest.mark.parametrize("spectrum_size", [4096, 0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [((4,), 3, 2, 60), ((2, 3), 2, 3, 33)], ids=str)
def test_cross_validation_scores(monkeypatch, shape, weighted, spectrum_size):
    """Scores at each penalty tried, and that the least of them is taken."""
    z, gates, targets, weight = draw(*shape)
    weight = weight + 0.1 if weighted else None
    c = shape[2]
    statistics = gather(z, gates, targets, c, weight)
    scores = {}

    def spy(function):
        def call(system, *args):
            score = function(system, *args)
            scores[args[-1]] = score
            return score

        return call

    def least(penalties, found):
        scores.update(zip(penalties.tolist(), found.tolist(), strict=True))
        return float(penalties[found.argmin()])

    monkeypatch.setattr(cross_validation, "SPECTRUM_SIZE", spectrum_size)
    monkeypatch.setattr(cross_validation, "_least", least)
    for name in ("_gcv_by_cholesky", "_loo_by_cholesky"):
        monkeypatch.setattr(cross_validation, name, spy(getattr(cross_validation, name)))
    data = [
        (z[rows], gates[rows], targets[rows], *(() if weight is None else (weight[rows],)))
        for rows in (slice(0, 20), slice(20, len(z)))
    ]
    for name, method_data, index in (("gcv", None, 0), ("loo", data, 1)):
        scores.clear()
        chosen = statistics.choose_l2(name, data=method_data)
        assert len(scores) == 33 if spectrum_size else 3 < len(scores) < 14
        assert scores[chosen] == min(scores.values())
        for l2 in sorted(scores)[::5]:
            expected = brute_force(z, gates, targets, c, l2, weight)[index]
            assert scores[l2] == pytest.approx(expected, rel=1e-6)
        estimator = statistics.solve(name, data=method_data)
        assert torch.equal(estimator.weight, statistics.solve(chosen).weight)


def test_samples_of_no_weight_are_no_samples():
    """Counted, they would make cross-validation take any fit for a tested one."""
    z, gates, targets, weight = draw((8,), 5, 3, 100)
    weight[40:] = 0.0
    padded = gather(z, gates, targets, 3, weight)
    alone = gather(z[:40], gates[:40], targets[:40], 3, weight[:40])
    assert padded.n_samples == 40
    assert torch.equal(padded.on_counts, alone.on_counts)
    assert padded.choose_l2("gcv") == pytest.approx(alone.choose_l2("gcv"))
    loo = padded.choose_l2("loo", data=[(z, gates, targets, weight)])
    assert loo == pytest.approx(
        alone.choose_l2("loo", data=[(z[:40], gates[:40], targets[:40], weight[:40])])
    )
    padded.downdate(z, gates, targets, weight)
    assert padded.n_samples == 0


@pytest.mark.parametrize("n", [36, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("noise", [0.0, 0.1, 10.0])
def test_generalised_cross_validation_does_not_choose_rounding(n, dtype, noise):
    """Equal features, as few samples as unknowns: the penalty can be solved for, and scores as the best in truth."""
    for seed in range(12):
        z, gates, _, _ = draw((5,), 5, 2, n, seed)
        if noise < 1:
            z[:, 1] = z[:, 0]
        phi = ref.path_features_ref(z, gates.unpack())
        generator = torch.Generator().manual_seed(seed)
        values = phi @ torch.randn((36, 2), generator=generator, dtype=torch.float64) / 6
        values += noise * torch.randn((n, 2), generator=generator, dtype=torch.float64)
        statistics = gather(z, gates, values, 2, dtype=dtype)
        chosen = statistics.solve("gcv").provenance["l2"]
        axes, singular, _ = torch.linalg.svd(phi)
        spectrum = torch.nn.functional.pad(singular.square(), (0, n - len(singular)))

        def score(l2, axes=axes, spectrum=spectrum, values=values):
            left = l2 / (spectrum + l2)
            residuals = left.unsqueeze(1) * (axes.T @ values)
            return float(residuals.square().mean() / left.mean().square())

        least = min(score(10 ** (step / 4) * statistics.mean_diagonal) for step in range(-32, 9))
        assert score(chosen) <= 1.05 * least or not noise
