"""Solving integer sums, against least squares on the samples themselves."""

import math

import pytest
import torch

from glai_native.solvers.exact.penalty import _Scorer, choose_by_gcv, mean_diagonal
from glai_native.solvers.exact.resolving import keeps_penalty, rows_worth, solve_again
from glai_native.solvers.exact.solution import solve_sums
from glai_native.solvers.exact.system import CentredSystem
from glai_native.solvers.statistics.ridge import SingularSystem
from solvers.exact.integer_samples import dense_solution, integer_samples, sums_of


def one_hot(targets, n_classes):
    return torch.nn.functional.one_hot(targets, n_classes)


def assert_solves(weight, dense):
    assert weight.dtype == torch.float64
    assert float((weight - dense).abs().max()) <= 1e-9 * float(dense.abs().max())


@pytest.mark.parametrize(
    ("n", "n_units", "n_linear"), [(1, 1, 1), (2, 31, 1), (33, 32, 31), (500, 33, 7), (100, 0, 5)]
)
def test_weights_are_those_of_least_squares(n, n_units, n_linear):
    features, targets = integer_samples(n, n_units, n_linear, 3)
    solution = solve_sums(sums_of(features, targets, n_units, 3), 50.0, decision="least squares")
    seen = one_hot(targets, 3).any(0)
    assert_solves(
        solution.weight[:, seen], dense_solution(features, one_hot(targets, 3), n_units, 50.0)[:, seen]
    )
    scores = solution.scores(features)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.double(), features.double() @ solution.weight, atol=1e-4, rtol=0)
    assert (solution.l2, solution.n_samples, solution.provenance["l2_by"]) == (50.0, n, "given")


def test_values_and_dead_and_equal_columns():
    features, _ = integer_samples(200, 20, 5, 2)
    features[:, 3], features[:, 7] = 0, features[:, 8]
    targets = torch.randint(-(2**20) + 1, 2**20, (200, 2), generator=torch.Generator().manual_seed(1))
    sums = sums_of(features, targets, 20)
    solution = solve_sums(sums, 10.0)
    assert_solves(solution.weight, dense_solution(features, targets, 20, 10.0))
    assert not solution.weight[3].any()
    with pytest.raises(
        SingularSystem, match=r"25 unknowns is singular in float64 at l2=0 .*pass a larger l2"
    ):
        solve_sums(sums, 0)
    assert solve_sums(sums).weight.isfinite().all()


def test_many_samples_far_from_zero_cancel_in_integers():
    """Of 2**50 samples' worth of sums, features differ by one in a sample of all: floats alone would lose it."""
    features, targets = torch.full((2, 3), 127, dtype=torch.uint8), torch.tensor([0, 1])
    features[1, :2] = 126
    half = 2**48
    once = sums_of(features, targets, 1, 2)
    sums = type(once)(once.gram * half, once.cross * half, 2 * half, 1)
    assert CentredSystem(sums).gram()[0, 0] == half / 2
    scores = features.double() @ solve_sums(sums, 1.0).weight
    torch.testing.assert_close(scores, one_hot(targets, 2).double(), rtol=0, atol=1e-6)


def test_one_class_is_its_constant():
    features, _ = integer_samples(40, 9, 3, 2)
    solution = solve_sums(sums_of(features, torch.zeros(40, dtype=torch.long), 9, 2))
    assert not solution.weight[:-1].any()
    torch.testing.assert_close(
        solution.scores(features), torch.tensor([[1.0, 0.0]]).expand(40, 2)
    )  # 10·0.1 below


@pytest.mark.parametrize("class_weight", ["balanced", [0.5, 0.0, 3.0]])
def test_weights_of_classes_are_those_of_their_samples(class_weight):
    features, targets = integer_samples(150, 12, 4, 3)
    targets[(targets == 2).nonzero()[::2]] = 0  # few of one class
    sums = sums_of(features, targets, 12, 4, per_class=True)
    totals = sums.totals.double()
    assert totals[3] == 0
    known = (150 / (3 * totals)).where(totals > 0, 0) if class_weight == "balanced" else None
    known = torch.tensor([*class_weight, 1.0], dtype=torch.float64) if known is None else known
    given = class_weight if class_weight == "balanced" else known
    solution = solve_sums(sums, 20.0, class_weight=given, decision="least squares")
    dense = dense_solution(features, one_hot(targets, 4), 12, 20.0, known[targets])
    seen = known * totals > 0
    assert_solves(solution.weight[:, seen], dense[:, seen])
    assert bool(
        (solution.scores(features)[:, ~seen] < solution.scores(features)[:, seen].amax(1, True)).all()
    )
    assert solve_sums(sums, class_weight=given).weight.isfinite().all()
    with pytest.raises(
        ValueError, match="class_weight needs sums per class, got none; per_class=True keeps them"
    ):
        solve_sums(sums_of(features, targets, 12, 4), class_weight="balanced")


@pytest.mark.parametrize("n", [300, 2000])
def test_few_factorisations_find_the_least_score(n):
    """The walk's scores and slopes are those of all eigenvalues, and what it chooses scores hardly more."""
    features, targets = integer_samples(n, 500, 40, 70, rank=30)
    system = CentredSystem(sums_of(features, targets, 500, 70))
    values, axes = torch.linalg.eigh(system.gram(), UPLO="U")
    values, energies = values.clamp(min=0), (axes.T @ system.rhs).square().sum(1)

    def exact(l2):
        squares = system.squares - float((energies * (values + 2 * l2) / (values + l2) ** 2).sum())
        return math.log(squares) - 2 * math.log(1 - (1 + float((values / (values + l2)).sum())) / n)

    unit, tried = mean_diagonal(system), []
    scorer = _Scorer(system, unit)
    for power in (-1, 0):
        score, slope = scorer(unit * 10**power)
        assert score == pytest.approx(exact(unit * 10**power), abs=0.05)
        step = 1e-3
        either = (scorer(unit * 10**power * math.exp(sign * step))[0] for sign in (1, -1))
        above, below = either
        assert slope == pytest.approx((above - below) / (2 * step), rel=0.05, abs=2e-3)
    l2 = choose_by_gcv(system, lambda: tried.append(1))
    assert len(tried) <= 3
    assert exact(l2) <= min(exact(unit * 10**power) for power in (-3, -2, -1.5, -1, -0.5, 0, 1)) + 0.02
    assert choose_by_gcv(system) == l2


@pytest.mark.parametrize(
    ("n", "share"),
    [(5000, 10**-0.75), (500, 10**-0.75), (270, 10**-0.5), (210, 10**-0.25), (120, 1.0), (60, 1.0)],
)
def test_classes_take_a_share_of_the_penalty_that_grows_with_features_over_samples(n, share):
    features, targets = integer_samples(n, 100, 30, 4, rank=20)
    sums = sums_of(features, targets, 100, 4)
    assert solve_sums(sums).l2 == pytest.approx(choose_by_gcv(CentredSystem(sums)) * share)


def test_held_out_samples_choose_of_seventeen():
    features, targets = integer_samples(400, 40, 10, 5, rank=8)
    sums, held_out = sums_of(features, targets, 40, 5), sums_of(features[:80], targets[:80], 40, 5)
    solution = solve_sums(sums, "held-out", held_out=held_out)
    rest = sums_of(features[80:], targets[80:], 40, 5)
    unit = mean_diagonal(CentredSystem(rest)) / 320
    errors = {}
    for power in range(-8, 9):
        weight = dense_solution(features[80:], one_hot(targets[80:], 5), 40, unit * 10.0**power)
        errors[unit * 10.0**power] = float(
            (features[:80].double() @ weight - one_hot(targets[:80], 5)).square().sum()
        )
    assert solution.l2 == pytest.approx(min(errors, key=errors.get))
    with pytest.raises(ValueError, match="needs sums over held-out samples, got none"):
        solve_sums(sums, "held-out")


def test_few_samples_more_or_less_are_solved_for_again():
    features, targets = integer_samples(700, 100, 30, 4, rank=20)
    targets[660:] = 4  # a class that the first solution has not seen
    solution = solve_sums(sums_of(features[:650], targets[:650], 100, 4), "gcv")
    rows = torch.cat([torch.arange(650, 682), torch.arange(3, 12)])
    weights = torch.cat([torch.ones(32, dtype=torch.long), -torch.ones(9, dtype=torch.long)])
    weights[0] = 2
    again = solve_again(solution, features[rows], targets[rows], weights)
    kept = torch.cat([torch.arange(3), torch.arange(12, 682), torch.tensor([650])])
    anew = solve_sums(sums_of(features[kept], targets[kept], 100, 5), solution.l2)
    assert float((again.weight - anew.weight).abs().max()) <= 1e-10 * float(anew.weight.abs().max())
    assert again.n_samples == anew.n_samples == len(kept)
    assert keeps_penalty(again, 700)
    assert not keeps_penalty(again, 780)
    assert (rows_worth(100), rows_worth(4096), rows_worth(16384)) == (32, 256, 256)
    assert solve_again(solution, features[:650], targets[:650], -torch.ones(650, dtype=torch.long)) is None


def test_condition_is_told():
    features, targets = integer_samples(300, 60, 5, 3, rank=10)
    sums = sums_of(features, targets, 60, 3)
    values = torch.linalg.eigvalsh(CentredSystem(sums).gram(), UPLO="U") + 30.0
    assert 0.3 <= solve_sums(sums, 30.0).condition / float(values[-1] / values[0]) <= 1.001


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"l2": -1}, "l2 must be a finite number >= 0, 'gcv' or 'held-out', got -1"),
        ({"l2": "loo"}, "got 'loo'"),
        ({"decision": "cosine"}, "decision must be 'discriminants' or 'least squares', got 'cosine'"),
        ({"class_weight": "equal"}, r"class_weight must be \[C\] numbers, 'balanced' or None, got 'equal'"),
        ({"class_weight": [1.0, -1.0]}, r"class_weight must be finite numbers >= 0 \[C=2\]"),
    ],
)
def test_refusals(changes, message):
    features, targets = integer_samples(20, 4, 2, 2)
    sums = sums_of(features, targets, 4, 2, per_class=True)
    with pytest.raises(ValueError, match=message):
        solve_sums(sums, **changes)


def test_sums_of_no_samples_or_of_none_that_could_be():
    features, targets = integer_samples(20, 4, 2, 2)
    empty = sums_of(features[:0], targets[:0], 4, 2)
    with pytest.raises(SingularSystem, match="must hold samples, got none"):
        solve_sums(empty)
    sums = sums_of(features, targets, 4, 2)
    with pytest.raises(ValueError, match="samples were taken out that they did not hold"):
        solve_sums(type(sums)(sums.gram, sums.cross, 19, 4))
