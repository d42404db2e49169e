"""Discriminants of classes, against scatter and means taken from the samples themselves."""

import math

import pytest
import torch

import glai_native as glai
from glai_native.solvers.exact.deciding import CONTRAST, LEAST_CONTRAST, _kept
from glai_native.solvers.exact.resolving import solve_again
from glai_native.solvers.exact.solution import solve_sums
from glai_native.solvers.exact.system import LINEAR_SHARE
from solvers.exact.integer_samples import integer_samples, sums_of


def discriminant_scores(features, targets, n_units, l2, weight=None):
    """Scores [N, C] by the definition: S = scatter within classes + l2, inverted as it stands."""
    x = features[:, :-1].double()
    x[:, n_units:] /= LINEAR_SHARE**0.5
    classes = targets.unique()
    weight = torch.ones(len(classes), dtype=torch.float64) if weight is None else weight
    means = torch.stack([x[targets == c].mean(0) for c in classes])
    counts = weight * torch.stack([(targets == c).sum() for c in classes])
    scatter = l2 * torch.eye(x.shape[1], dtype=torch.float64)
    for mean, c, w in zip(means, classes, weight, strict=True):
        scatter += w * (x[targets == c] - mean).T @ (x[targets == c] - mean)
    centre = means.mean(0)
    direction = torch.linalg.solve(scatter / counts.sum(), (means - centre).T)  # S⁻¹·u, [K, C]
    squares = ((means - centre) * direction.T).sum(1)
    noise = x.shape[1] / torch.stack([(targets == c).sum() for c in classes]).double()
    typical = (squares - noise).clamp_min(0).mean()
    kept = typical / (typical + noise) if typical > 0 else torch.ones_like(noise)
    kept /= kept.max()
    direction, squares = direction * kept, squares * kept**2
    k = LEAST_CONTRAST + CONTRAST * squares.mean() / len(classes)
    likeness = (x - centre) @ direction + (counts / counts.sum()).log()
    return (likeness + k) / ((squares + k) * (squares.mean() + k)).sqrt()


@pytest.mark.parametrize(
    ("n", "n_units", "n_linear", "n_classes"),
    [(33, 32, 31, 3), (500, 33, 7, 5), (100, 0, 5, 4), (900, 65, 0, 31)],
)
def test_scores_are_those_of_the_definition(n, n_units, n_linear, n_classes):
    features, targets = integer_samples(n, n_units, n_linear, n_classes)
    targets[:n_classes] = torch.arange(n_classes)  # none is without samples
    solution = solve_sums(sums_of(features, targets, n_units, n_classes), 50.0)
    expected = discriminant_scores(features, targets, n_units, 50.0)
    torch.testing.assert_close(solution.scores(features, torch.float64), expected, rtol=1e-9, atol=1e-9)
    assert solution.temperature >= 0.02 + 0.01 * math.log(n_classes) - 1e-12
    assert solution.provenance["decision"] == "discriminants"


def test_classes_weigh_as_told():
    features, targets = integer_samples(300, 20, 6, 4)
    weight = torch.tensor([3.0, 1.0, 0.5, 2.0], dtype=torch.float64)
    sums = sums_of(features, targets, 20, 4, per_class=True)
    solution = solve_sums(sums, 30.0, class_weight=weight)
    expected = discriminant_scores(features, targets, 20, 30.0, weight)
    torch.testing.assert_close(solution.scores(features, torch.float64), expected, rtol=1e-9, atol=1e-9)


def test_classes_without_samples_are_never_the_answer():
    features, targets = integer_samples(300, 20, 6, 5)
    kept = (targets != 1) & (targets != 3)
    features, targets = features[kept], targets[kept]
    scores = solve_sums(sums_of(features, targets, 20, 6), 30.0).scores(features, torch.float64)
    seen = [0, 2, 4]
    expected = discriminant_scores(features, targets, 20, 30.0)
    torch.testing.assert_close(scores[:, seen], expected, rtol=1e-9, atol=1e-9)
    assert bool((scores[:, [1, 3, 5]] < scores[:, seen].amax(1, True)).all())


def test_two_classes_are_told_apart_by_least_squares():
    features, targets = integer_samples(300, 20, 6, 2)
    sums = sums_of(features, targets, 20, 2)
    by_default, told = (solve_sums(sums, 30.0, **told) for told in ({}, {"decision": "least squares"}))
    assert torch.equal(by_default.weight, told.weight)
    assert by_default.temperature == told.temperature
    assert by_default.provenance["decision"] == "least squares"


def test_samples_that_least_squares_meets_exactly_have_no_scatter():
    """More features than samples, and hardly a penalty: discriminants would be made of rounding."""
    features, targets = integer_samples(40, 60, 5, 4)
    sums = sums_of(features, targets, 60, 4)
    by_default, told = (solve_sums(sums, 1e-3, **told) for told in ({}, {"decision": "least squares"}))
    assert torch.equal(by_default.weight, told.weight)
    assert not torch.equal(
        solve_sums(sums, 1e3).weight, solve_sums(sums, 1e3, decision="least squares").weight
    )


def test_samples_of_a_rare_class_are_found():
    """Of classes in unlike numbers discriminants are right more often than scores of least squares."""
    features, targets = integer_samples(6000, 100, 10, 6, rank=12)
    kept = torch.rand(6000, generator=torch.Generator().manual_seed(1)) < 20.0 ** (-targets / 5)
    features, targets = features[kept], targets[kept]
    n = len(targets) // 2
    sums = sums_of(features[:n], targets[:n], 100, 6)
    right = [
        float(
            (solve_sums(sums, decision=decision).scores(features[n:]).argmax(1) == targets[n:])
            .double()
            .mean()
        )
        for decision in ("discriminants", "least squares")
    ]
    assert right[0] > right[1] + 0.005


@pytest.mark.parametrize(("apart", "most"), [(0.0, math.log(2) + 0.01), (1.0, 0.63), (6.0, 0.06)])
def test_two_classes_are_as_probable_as_they_are_right(apart, most):
    """Of noise, of classes that overlap and of classes far apart: log loss 0.69, 0.62 and 0.01 at best."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, 2, (3000,), generator=generator)
    x = torch.randn(3000, 20, generator=generator)
    x[:, 0] += apart * targets
    statistics = glai.IntegerStatistics(glai.IntegerFeatures.fit(x[:1500], 200), 2)
    statistics.update(x[:1500], targets[:1500])
    solution = statistics.solve()
    scores = solution.scores(statistics.features.transform(x[1500:]), torch.float64)
    loss = float(torch.nn.functional.cross_entropy(scores / solution.temperature, targets[1500:]))
    assert loss < most


@pytest.mark.parametrize("decision", ["discriminants", "least squares"])
def test_few_samples_more_are_told_apart_alike(decision):
    features, targets = integer_samples(700, 100, 30, 4, rank=20)
    targets[660:] = 4  # a class that is new
    solution = solve_sums(sums_of(features[:650], targets[:650], 100, 4), "gcv", decision=decision)
    again = solve_again(solution, features[650:], targets[650:], torch.ones(50, dtype=torch.long))
    anew = solve_sums(sums_of(features, targets, 100, 5), solution.l2, decision=decision)
    assert float((again.weight - anew.weight).abs().max()) <= 1e-9 * float(anew.weight.abs().max())
    if decision == "discriminants":
        assert again.temperature == pytest.approx(anew.temperature, rel=1e-9)


def test_classes_that_overlap_are_not_answered_by_the_noise_of_their_means():
    """One class has nineteen of twenty samples: whoever always answers it is right as often."""
    generator = torch.Generator().manual_seed(0)
    shares = torch.tensor([0.95, 0.01, 0.01, 0.01, 0.01, 0.01])
    targets = torch.multinomial(shares, 8000, True, generator=generator)
    means = torch.eye(6, 20)
    x = means[targets] + torch.randn(8000, 20, generator=generator)
    statistics = glai.IntegerStatistics(glai.IntegerFeatures.fit(x[:4000], 200), 6)
    statistics.update(x[:4000], targets[:4000])
    answers = statistics.solve().scores(statistics.features.transform(x[4000:])).argmax(1)
    right = float((answers == targets[4000:]).double().mean())
    assert right > float((targets[4000:] == 0).double().mean()) - 0.005


def test_classes_that_are_noise_are_hardly_more_probable_than_others():
    """The likelihoods themselves are flatter than what many classes far apart take."""
    generator = torch.Generator().manual_seed(0)
    x, targets = torch.randn(3000, 20, generator=generator), torch.randint(0, 3, (3000,), generator=generator)
    statistics = glai.IntegerStatistics(glai.IntegerFeatures.fit(x[:1500], 300), 3)
    statistics.update(x[:1500], targets[:1500])
    solution = statistics.solve()
    scores = solution.scores(statistics.features.transform(x[1500:]), torch.float64)
    loss = float(torch.nn.functional.cross_entropy(scores / solution.temperature, targets[1500:]))
    assert 0.04 < solution.temperature < 0.05
    assert loss < math.log(3) + 0.01


def test_equal_classes_keep_their_means_whole():
    features, targets = integer_samples(400, 20, 6, 4)
    targets = torch.arange(400) % 4
    sums = sums_of(features, targets, 20, 4)
    solved = solve_sums(sums, 30.0).base.solved
    assert float(_kept(torch.rand(4).double(), 26 / solved.counts).min()) == 1


def test_class_weights_near_underflow_leave_numbers():
    features, targets = integer_samples(300, 20, 6, 3)
    sums = sums_of(features, targets, 20, 3, per_class=True)
    weight = torch.tensor([1e-310, 1, 1], dtype=torch.float64)
    assert bool(solve_sums(sums, 30.0, class_weight=weight).weight.isfinite().all())


def test_other_decisions_are_solved_anew():
    """Of three classes one goes, and two are told apart by least squares."""
    features, targets = integer_samples(300, 20, 6, 3)
    targets[:290] %= 2
    targets[290:] = 2
    solution = solve_sums(sums_of(features, targets, 20, 3), 30.0)
    assert solve_again(solution, features[290:], targets[290:], -torch.ones(10, dtype=torch.long)) is None
    assert solve_again(solution, features[:5], targets[:5], -torch.ones(5, dtype=torch.long)) is not None
