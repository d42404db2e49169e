"""Moments of first samples have no rounding, so that those of parts add up to those of all, and freeze the same map."""

from fractions import Fraction

import pytest
import torch

import glai_native as glai
from glai_native.structure.centring import Moments, quantised
from glai_native.structure.integer_layers import squares_of_units
from glai_native.structure.measured_rows import (
    HASH_CLASSES,
    MEASURED_ROWS,
    count_classes,
    hash_classes,
    measured_classes,
    measured_rows,
)

EXTREMES = [1e-45, -1.17549435e-38, 3.4e38, -3.4e38, 1.0, -1.0, 1e-20, 0.0, -0.0, 16777215.0]


@pytest.mark.parametrize("n", [0, 1, 33, 1500])
def test_sums_are_exact(generator, n):
    x = torch.randn((n, 3), generator=generator) * 10.0 ** torch.randint(-30, 18, (n, 3), generator=generator)
    x = torch.cat([x, torch.tensor(EXTREMES).unsqueeze(1).expand(-1, 3)]) if n == 33 else x
    moments = Moments.of(x)
    for power, unit, found in ((1, 149, moments.sums), (2, 298, moments.squares)):
        wanted = [sum((Fraction(v) ** power for v in column), Fraction()) for column in x.T.tolist()]
        assert [Fraction(each, 1 << unit) for each in found] == wanted
    cut = n // 3
    assert Moments.of(x[:cut]) + Moments.of(x[cut:]) == moments


@pytest.mark.parametrize("kind", ["global", "features"])
def test_mean_and_scale_are_those_of_float64(generator, kind):
    x = torch.randn((700, 5), generator=generator) * torch.arange(5) + 100
    mean, scale = Moments.of(x).centre_and_scale(kind)
    torch.testing.assert_close(mean, x.double().mean(0).float())
    deviation = x.double().var(0, correction=0)
    wanted = 16 / deviation.mean().sqrt().expand(5).clone()
    if kind == "features":
        wanted[1:] = 16 / deviation[1:].sqrt()  # the first does not vary
    torch.testing.assert_close(scale, wanted.float())


@pytest.mark.parametrize(
    ("spreads", "mean", "kind"),
    [
        ((1, 40), 0, "features"),  # half of them have few steps
        ((1, 1, 60), 0, "features"),
        ((1, 30, 30, 60), 0, "global"),  # of what is rare the mean is small
        ((1, 30, 30, 60), 2, "features"),
        ((9, 30, 30, 60), 2, "global"),
    ],
)
def test_columns_that_one_scale_would_lose_get_their_own(generator, spreads, mean, kind):
    x = torch.randn((900, len(spreads)), generator=generator) * torch.tensor(spreads) + mean
    x = torch.cat([x, torch.full((900, 3), 5.0)], 1)  # columns that do not vary lose nothing
    moments = Moments.of(x)
    for one, other in zip(moments.centre_and_scale("auto"), moments.centre_and_scale(kind), strict=True):
        assert torch.equal(one, other)
    summed = Moments(moments.n_samples, moments.sums, [sum(moments.squares)])
    assert len(summed.centre_and_scale("auto")[1].unique()) == 1
    with pytest.raises(ValueError, match="zip"):
        summed.centre_and_scale("features")  # which nobody asks of parties that send one sum
    assert torch.isfinite(Moments.of(torch.ones(3, 2)).centre_and_scale("auto")[1]).all()


def test_measured_rows_do_not_depend_on_order_or_cut(generator):
    x = torch.randn((5000, 4), generator=generator)
    counts = count_classes(x)
    assert torch.equal(counts, count_classes(x[:77]) + count_classes(x[77:]))
    assert int(counts.max()) < 25  # about 5 each: rows are spread
    classes, count = measured_classes(counts)
    rows = measured_rows(x, classes)
    assert MEASURED_ROWS <= len(rows) == count < MEASURED_ROWS + 25
    shuffled = measured_rows(x[torch.randperm(5000, generator=generator)], classes)
    assert torch.equal(rows[rows[:, 0].argsort()], shuffled[shuffled[:, 0].argsort()])
    assert measured_classes(count_classes(x[:900])) == (HASH_CLASSES, 900)
    assert torch.equal(hash_classes(torch.zeros(1, 2)), hash_classes(-torch.zeros(1, 2)))


@pytest.mark.parametrize("hidden", [None, [6], [7, 5]])
def test_parts_freeze_the_map_of_all(generator, hidden):
    """What a federation does: sums of the owners' samples, never the samples, give the bits of one place."""
    x = torch.randn((2500, 6), generator=generator) * 3 + 1
    selector = None
    if hidden:
        torch.manual_seed(1)
        layers = zip([6, *hidden], [*hidden, 3], strict=True)
        mlp = torch.nn.Sequential(
            *[part for a, b in layers for part in (torch.nn.Linear(a, b), torch.nn.ReLU())][:-1]
        )
        selector = glai.PathSelector(mlp)
    parts = x.split([10, 1490, 1000])
    moments = sum((Moments.of(part) for part in parts[1:]), Moments.of(parts[0]))
    classes, count = measured_classes(sum(count_classes(part) for part in parts))
    mean, scale = moments.centre_and_scale("auto")

    def measure(below, weight, bias):
        each = [
            squares_of_units(quantised(measured_rows(part, classes), mean, scale), below, weight, bias)
            for part in parts
        ]
        return [sum(column) for column in zip(*each, strict=True)], count

    n_units = None if hidden else 40
    federated = glai.IntegerFeatures.from_moments(moments, measure, n_units, selector, 3)
    assert federated.features_id == glai.IntegerFeatures.fit(x, n_units, selector, 3).features_id
