"""The canonical form of samples: weight 0 is absent, integers are repetitions, and the order hangs on content alone."""

import pytest
import torch

from glai_native.data import canonical
from glai_native.data.canonical import canonical_form, count_repeats


def draw(kind, n=300, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = {
        "floats": lambda: torch.randn(n, 7, generator=generator),
        "doubles of few digits": lambda: torch.randint(0, 3, (n, 2), generator=generator).double(),
        "odd width": lambda: torch.randint(0, 4, (n, 3), generator=generator).float(),
        "bytes": lambda: torch.randint(0, 3, (n, 5), generator=generator, dtype=torch.uint8),
        "half": lambda: torch.randint(0, 3, (n, 3), generator=generator).half(),
    }[kind]()
    return x, torch.randint(0, 3, (n,), generator=generator)


@pytest.mark.parametrize("kind", ["floats", "doubles of few digits", "odd width", "bytes", "half"])
def test_integer_weights_are_repetitions_in_any_order(kind):
    x, y = draw(kind)
    weight = torch.randint(0, 4, (300,), generator=torch.Generator().manual_seed(1))
    repeated = torch.repeat_interleave(torch.arange(300), weight)
    repeated = repeated[torch.randperm(len(repeated), generator=torch.Generator().manual_seed(2))]
    shuffled = torch.randperm(300, generator=torch.Generator().manual_seed(3))
    forms = [
        (canonical_form([x, y], weight), x, y),
        (canonical_form([x[shuffled], y[shuffled]], weight[shuffled].double()), x[shuffled], y[shuffled]),
        (canonical_form([x[repeated], y[repeated]]), x[repeated], y[repeated]),
    ]
    first, *others = [(form.of(a), form.of(b), form.weight) for form, a, b in forms]
    for other in others:
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(first, other, strict=True))
    assert first[2].sum() == weight.sum()
    rows = torch.cat([first[0].double(), first[1].unsqueeze(1).double()], dim=1)
    assert len(rows) == len(rows.unique(dim=0))


def test_samples_that_are_neither_weighted_nor_repeated_stay():
    x, y = draw("floats")
    for weight in (None, torch.ones(300)):
        assert canonical_form([x, y], weight) == (None, None)
    half = canonical_form([x, y], torch.full((300,), 0.5))
    assert half.rows is None
    assert torch.equal(half.weight, torch.full((300,), 0.5, dtype=torch.float64))
    masked = canonical_form([x, y], (torch.arange(300) % 3 > 0).float())
    assert torch.equal(masked.rows, (torch.arange(300) % 3).nonzero().squeeze(1))
    assert masked.weight is None
    twice = canonical_form([x.repeat(2, 1), y.repeat(2)])
    assert torch.equal(twice.rows, torch.arange(300))
    assert bool((twice.weight == 2).all())
    assert len(canonical_form([x, y], torch.zeros(300)).rows) == 0


def test_a_slice_at_any_offset_has_the_same_order():
    _x, y = draw("floats")
    wide = torch.randn(300, 4)
    weight = torch.rand(300)
    for values in (wide, torch.cat([torch.zeros(1), wide.flatten()])[1:].view(300, 4), wide.T.contiguous().T):
        assert torch.equal(canonical_form([values, y], weight).rows, canonical_form([wide, y], weight).rows)


def test_samples_that_share_a_hash_are_told_apart(monkeypatch):
    x, y = draw("odd width")
    x, y = x.repeat(2, 1), y.repeat(2)
    expected = {tuple(row) for row in torch.cat([x, y.unsqueeze(1)], dim=1).tolist()}
    hashed, seeds = canonical._hashed, []

    def first_is_useless(part, seed):
        seeds.append(seed)
        return hashed(part, seed) * (seed > canonical.FIRST_SEED + 1)

    monkeypatch.setattr(canonical, "_hashed", first_is_useless)
    form = canonical_form([x, y])
    assert {
        tuple(row) for row in torch.cat([form.of(x), form.of(y).unsqueeze(1)], dim=1).tolist()
    } == expected
    assert len(form.rows) == len(expected)
    assert len(seeds) > 2


def test_repeats():
    assert count_repeats(None) is None
    assert count_repeats(torch.tensor([2.0, 0.0, 3.0])).tolist() == [2, 0, 3]
    assert count_repeats(torch.tensor([2.0, 0.0, 0.5])).tolist() == [1, 0, 1]
    assert count_repeats(torch.tensor([1e30, 1.0])).tolist() == [1, 1]
