"""IntegerStatistics: sums without rounding, whatever the history, and all or nothing of every call."""

import copy

import numpy as np
import pytest
import torch

import glai_native as glai
from glai_native.solvers.exact import adding, samples

D, C = 6, 4


@pytest.fixture(scope="module")
def data():
    g = torch.Generator().manual_seed(0)
    x = torch.randn((70, D), generator=g)
    return x, torch.randint(0, C, (70,), generator=g), torch.randn((70, 2), generator=g) * 100


@pytest.fixture(scope="module")
def features(data):
    return glai.IntegerFeatures.fit(data[0], 26)


def sums_of(features, x, targets, weight=None):
    """Gram and cross by plain int64 products."""
    phi = features.transform(x).long()
    weighted = phi if weight is None else phi * weight.unsqueeze(1)
    return (weighted.T @ phi).triu(), weighted.T @ targets


def same(statistics, gram, cross):
    return torch.equal(statistics.gram, gram) and torch.equal(statistics.cross, cross)


def of(features, x, y, n_outputs=C, **options):
    statistics = glai.IntegerStatistics(features, n_outputs, **options)
    statistics.update(x, y)
    return statistics


def test_sums_of_classes(data, features):
    x, y, _ = data
    statistics = of(features, x, y, per_class=True)
    one_hot = torch.nn.functional.one_hot(y, C)
    assert same(statistics, *sums_of(features, x, one_hot))
    assert statistics.n_samples == 70
    assert statistics.counts.tolist() == statistics.squares == one_hot.sum(0).tolist()
    assert torch.equal(statistics.class_grams.sum(0), statistics.gram)
    assert torch.equal(statistics.class_grams[2], sums_of(features, x[y == 2], one_hot[y == 2])[0])
    assert statistics.digest() == of(features, x, y, ledger=False).digest()  # neither is part of it


def test_sums_of_values(data, features):
    x, _, values = data
    statistics = of(features, x, values, 2, targets="values")
    steps = statistics.step
    assert bool((steps.log2() == steps.log2().round()).all())
    assert bool((statistics.centre / steps == (statistics.centre / steps).round()).all())
    assert bool(((statistics.centre - values.double().mean(0)).abs() <= steps).all())
    whole = ((values.double() - statistics.centre) / steps).round().long()
    assert 2**16 <= int(whole.abs().max()) <= 2**17
    assert same(statistics, *sums_of(features, x, whole))
    assert statistics.squares == whole.square().sum(0).tolist()
    statistics.downdate(x[:30], values[:30])
    told = {"step": steps, "centre": statistics.centre}
    rest = of(features, x[30:], values[30:], 2, targets="values", **told)
    assert statistics.digest() == rest.digest()
    with pytest.raises(
        ValueError, match=r"must be between .*, got 1e\+06 in row 1, column 0; begin with a larger"
    ):
        statistics.update(x[:2], torch.tensor([[1.0, 1.0], [1e6, 1.0]]))
    assert statistics.digest() == rest.digest()


def test_one_digest_for_any_cutting_and_order(data, features, monkeypatch):
    x, y, _ = data
    whole = of(features, x, y)
    monkeypatch.setattr(samples, "CHUNK_ROWS", (7, 7))
    order = torch.randperm(70)
    chunked = of(features, x[order], y[order])
    assert chunked.digest() == whole.digest()
    parts = [of(features, x[i::3], y[i::3]) for i in range(3)]
    assert (parts[2] + parts[0] + parts[1]).digest() == whole.digest()
    assert parts[0].n_samples == 24  # + leaves both as they were
    weighted = glai.IntegerStatistics(features, C)
    weighted.update(x, y, torch.arange(70) % 3)
    assert same(weighted, *sums_of(features, x, torch.nn.functional.one_hot(y, C), torch.arange(70) % 3))
    for one in range(70):
        for _ in range(one % 3):
            weighted.downdate(x[one : one + 1], y[one : one + 1])
    assert weighted.digest() == glai.IntegerStatistics(features, C).digest()


def test_mapped_rows_are_learnt_as_raw_ones(data, features):
    x, y, _ = data
    statistics = glai.IntegerStatistics(features, C)
    statistics.update_features(features.transform(x), y)
    assert statistics.digest() == of(features, x, y).digest()
    statistics.downdate(x[:9], y[:9])
    statistics.downdate_features(features.transform(x[9:]), y[9:])
    assert statistics.n_samples == 0
    for bad, sentence in (
        (features.transform(x).int(), r"features must be uint8 \[N, M=33\], got int32 \[70, 33\]"),
        (features.transform(x) + 1, "0 to 127 with the constant 127"),
    ):
        with pytest.raises(ValueError, match=sentence):
            statistics.update_features(bad, y)


def test_classes_arrive_in_any_order(data, features):
    x, y, _ = data
    whole = of(features, x, y)
    wide = of(features, x, y, C + 5)
    assert wide.digest() == whole.digest()  # classes without samples are not part of it
    named = glai.IntegerStatistics(features, 2)
    named.class_labels = ["c", "a"]
    labels = ["a", "b", "c", "d"]
    for label in ["a", "c"]:
        rows = y == labels.index(label)
        named.update(x[rows], torch.full((int(rows.sum()),), named.class_labels.index(label)))
    other = glai.IntegerStatistics(features, 3, per_class=False)
    other.class_labels = ["e", "d", "b"]
    for label in ["d", "b"]:
        rows = y == labels.index(label)
        other.update(x[rows], torch.full((int(rows.sum()),), other.class_labels.index(label)))
    joint = glai.IntegerStatistics(features, C)
    joint.class_labels = labels
    joint.update(x, y)
    merged = named + other
    assert merged.class_labels == ["a", "b", "c", "d", "e"]
    assert merged.digest() == joint.digest() == (other + named).digest()
    named.add_classes(["b", "d"])
    assert named.class_labels == labels
    named.merge(other)
    named.downdate(x, y)
    assert named.n_samples == 0
    with pytest.raises(ValueError, match="class_labels must be set before samples are learnt"):
        joint.class_labels = ["a", "b", "c", "x"]
    with pytest.raises(ValueError, match="both must have class labels, or none, got none in other"):
        joint.merge(whole)


def test_classes_are_added_and_permuted(data, features):
    x, y, _ = data
    grown = of(features, x[y < 2], y[y < 2], 2, per_class=True)
    grown.add_outputs(2)
    grown.update(x[y >= 2], y[y >= 2])
    whole = of(features, x, y, per_class=True)
    assert grown.digest() == whole.digest()
    assert torch.equal(grown.class_grams, whole.class_grams)
    permuted = whole.copy()
    permuted.permute_outputs(torch.tensor([2, 0, 3, 1]))
    assert torch.equal(permuted.cross[:, 1], whole.cross[:, 0])
    assert torch.equal(permuted.class_grams[0], whole.class_grams[2])


@pytest.mark.parametrize("ledger", [True, False])
def test_what_was_never_learnt_is_not_forgotten(data, features, ledger):
    x, y, _ = data
    statistics = of(features, x, y, ledger=ledger)
    before = statistics.digest()
    with pytest.raises(ValueError, match="downdate: the samples must be among"):
        statistics.downdate(x * 100, torch.zeros_like(y))
    assert statistics.digest() == before
    with pytest.raises(ValueError, match="downdate: the samples must be among the 70"):
        statistics.downdate(torch.cat([x, x]), torch.cat([y, y]))
    if not ledger:
        return
    statistics.downdate(x[3:5], y[3:5])
    rest = statistics.digest()
    with pytest.raises(
        ValueError, match=r"got 2 that are not, or not so often, in rows 1, 2; nothing was taken out"
    ):
        statistics.downdate(x[2:5], y[2:5])
    with pytest.raises(ValueError, match=r"in row 2"):
        statistics.downdate(x[[0, 1, 0]], y[[0, 1, 0]])
    with pytest.raises(ValueError, match=r"in row 7; nothing"):
        statistics.downdate(x[:9], y[:9], torch.tensor([0, 0, 0, 0, 0, 0, 0, 2, 1]))
    assert statistics.digest() == rest
    assert len(statistics.ledger) == statistics.n_samples == 68


class Stop(BaseException):
    pass


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("where", [0, 3, 9])
def test_what_fails_changes_nothing(data, features, monkeypatch, sign, where):
    x, y, _ = data
    statistics = of(features, x, y, per_class=True)
    before, class_grams = statistics.digest(), statistics.class_grams.clone()
    monkeypatch.setattr(samples, "CHUNK_ROWS", (7, 7))
    calls = []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == where + 1:
            raise Stop
        return add(*arguments)

    add = adding._add_chunk
    monkeypatch.setattr(adding, "_add_chunk", failing)
    with pytest.raises(Stop):
        (statistics.update if sign > 0 else statistics.downdate)(x, y)
    assert statistics.digest() == before
    assert torch.equal(statistics.class_grams, class_grams)
    assert len(statistics.ledger) == statistics.n_samples == 70


@pytest.mark.parametrize("op", ["integer_gram", "class_sums"])
def test_an_op_that_fails_changes_nothing(data, features, monkeypatch, op):
    x, y, _ = data
    statistics = of(features, x, y)
    before = statistics.digest()

    def failing(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(adding, op, failing)
    with pytest.raises(MemoryError):
        statistics.update(x, y)
    assert statistics.digest() == before


def test_sums_from_elsewhere_may_lie_as_they_like(data, features):
    x, y, _ = data
    statistics = of(features, x, y, ledger=False)
    sums = statistics._sums()._replace(cross=statistics.cross.T.contiguous().T)
    made = glai.IntegerStatistics.from_sums(features, sums, 70)
    made.update(x, y)
    statistics.update(x, y)
    assert made.digest() == statistics.digest()


def test_samples_that_both_hold_are_named(data, features):
    x, y, _ = data
    one, two = glai.IntegerStatistics(features, C), glai.IntegerStatistics(features, C)
    one.update(x[:40], y[:40], ids=[f"p{i}" for i in range(40)])
    two.update(x[38:], y[38:], ids=[f"q{i}" for i in range(38, 70)])
    assert len(one.shared_with(two)) == 2
    assert sorted(one.shared_with(two).ids.tolist()) == ["p38", "p39"]
    with pytest.warns(
        UserWarning, match="merge: 2 samples are, to 7 bits, in both statistics and count twice now: id 'p3"
    ):
        one.merge(two)
    assert len(one.ledger) == 72
    with pytest.raises(ValueError, match=r"in row 0 \(id 'q3'\)"):
        one.downdate(x[3:4], y[3:4], ids=["q3"])
    one.downdate(x[38:40], y[38:40], ids=["q38", "p39"])
    assert sorted(one.shared_with(one.copy()).ids.tolist())[-2:] == ["q68", "q69"]
    one.downdate(x[38:39], y[38:39])  # any that there is
    one.update(x[:1], y[:1], ids=[5])
    assert "5" in one.ledger.ids.tolist()  # as it is written
    one.downdate(x[:1], y[:1], ids=[5])


def test_changes_since_the_last_solution(data, features):
    x, y, _ = data
    statistics = of(features, x, y)
    assert statistics.changes is None
    statistics.note_solved()
    statistics.downdate(x[:2], y[:2])
    statistics.update(x[:1] + 1, y[:1], torch.tensor([2]))
    changes, state = statistics.changes, statistics.state
    assert changes.weights.tolist() == [-1, -1, 2]
    assert changes.targets.tolist() == [*y[:2].tolist(), int(y[0])]
    assert torch.equal(changes.features[:2], features.transform(x[:2]))
    statistics.update(x.repeat(8, 1), y.repeat(8))
    assert statistics.state != state
    assert statistics.changes is None
    statistics.note_solved()
    assert len(statistics.changes) == 0
    statistics.add_outputs(1)
    assert statistics.changes is None  # the solution has fewer outputs


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (lambda x, y: (x[:, 1:], y), r"x must be \[N, D=6\], got \[70, 5\]"),
        (lambda x, y: (x, y + 1), r"class indices in \[0, C=4\), got 1 to 4"),
        (lambda x, y: (x, y.double()), r"class indices \[N=70\], got torch.float64"),
        (
            lambda x, y: (x, y, torch.arange(70) / 2),
            "integers from 0 to 65,535, .* got 0.5 in row 1",
        ),
        (lambda x, y: (x, y, torch.arange(70) - 3), "got -3 in row 0"),
        (lambda x, y: (x, y, None, [1.5] * 70), "ids must be all integers or all texts, got float in row 0"),
        (lambda x, y: (x, y, None, [1]), r"ids must be \[N=70\], got \[1\]"),
    ],
)
def test_bad_samples_are_refused(data, features, arguments, sentence):
    x, y, _ = data
    statistics = of(features, x, y)
    before = statistics.digest()
    with pytest.raises(ValueError, match=sentence):
        statistics.update(*arguments(x, y))
    assert statistics.digest() == before


def test_other_sums_are_refused(data, features):
    x, y, values = data
    statistics = of(features, x, y)
    other = glai.IntegerStatistics(glai.IntegerFeatures.fit(x, 26, seed=1), C)
    with pytest.raises(ValueError, match="statistics must be of features_id"):
        statistics.merge(other)
    with pytest.raises(ValueError, match="other must be of C=4 outputs like these statistics, got C=3"):
        statistics.merge(glai.IntegerStatistics(features, 3))
    with pytest.raises(ValueError, match="targets must be classes like these, got values"):
        statistics.merge(glai.IntegerStatistics(features, C, targets="values"))
    with pytest.raises(ValueError, match="other must have been made with ledger=True like these statistics"):
        statistics.merge(of(features, x, y, ledger=False))
    with pytest.raises(ValueError, match="other must have been made with ledger=False like these statistics"):
        of(features, x, y, ledger=False).merge(statistics)
    wide = of(features, x, values, 2, targets="values", step=1.0)
    with pytest.raises(ValueError, match=r"step must be \[1.0, 1.0\] like these, got \[2.0, 2.0\]"):
        wide.merge(of(features, x, values, 2, targets="values", step=2.0))
    with pytest.raises(ValueError, match=r"centre must be \[0.0, 0.0\] like these, got \[1.0, 3.0\]"):
        wide.merge(of(features, x, values, 2, targets="values", step=1.0, centre=[1.0, 3.0]))
    for told, sentence in (
        ({"centre": 1.0}, "centre must come with a step, got centre=1.0 alone"),
        ({"step": 1.0, "centre": float("nan")}, "centre must be a finite number, or C=2 of them"),
        ({"step": 0.0}, "step must be a finite number > 0, or C=2 of them"),
    ):
        with pytest.raises(ValueError, match=sentence):
            glai.IntegerStatistics(features, 2, targets="values", **told)
    with pytest.raises(TypeError, match="other must be IntegerStatistics, got int"):
        statistics.merge(3)
    with pytest.raises(
        MemoryError, match="IntegerStatistics: the gram matrix of M=33 features, and one of each"
    ):
        glai.IntegerStatistics(features, 10**12, per_class=True)


def test_types_of_samples(data, features):
    x, y, _ = data
    whole = of(features, x.half().float(), y)
    for other in (x.half(), x.half().double(), x.half().float().numpy()):
        assert of(features, other, y.to(torch.uint8)).digest() == whole.digest()
        assert of(features, other, np.asarray(y)).digest() == whole.digest()
    assert copy.copy(whole).digest() == copy.deepcopy(whole).digest() == whole.digest()
    copied = copy.copy(whole)
    copied.update(x[:1], y[:1])
    assert copied.digest() != whole.digest() == of(features, x.half(), y).digest()


def test_values_are_counted_from_the_mean_of_the_first(data, features):
    x, _, values = data
    far = torch.stack([values[:, 0].double() / 100 + 1e6, values[:, 1].double() / 1e5 - 1e9], 1)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    weight = torch.arange(len(x)) % 3
    some = weight > 0
    twice = of(
        features, x.repeat_interleave(weight, 0), far.repeat_interleave(weight, 0), 2, targets="values"
    )
    first = glai.IntegerStatistics(features, 2, targets="values")
    first.update(x[order], far[order].where(some[order].unsqueeze(1), 0), weight[order])
    assert first.digest() == twice.digest()
    spread = torch.std(far, 0)
    assert bool((first.step < spread / 1000).all())
    phi = features.transform(x)
    near = of(features, x, far - first.centre, 2, targets="values", step=first.step)
    whole = of(features, x, far, 2, targets="values", step=first.step, centre=first.centre)
    torch.testing.assert_close(
        whole.solve(1.0).scores(phi, torch.float64),
        near.solve(1.0).scores(phi, torch.float64) + first.centre,
        rtol=0,
        atol=1e-6,
    )
    with pytest.raises(ValueError, match="between .* and 1.0000.*, the range that the first ones set"):
        first.update(x[:1], far[:1] + 1e3)
    few = of(features, x[:31], far[:31], 2, targets="values")
    same = of(features, x, far * 0 + 7, 2, targets="values")
    for statistics in (few, same):  # which do not tell how much others vary
        assert not statistics.fixed_point.is_centred
    huge = of(features, x, values.double() * 1e250, 2, targets="values")
    assert bool(huge.solve(1.0).weight.isfinite().all())


@pytest.mark.parametrize("ids", [None, list(range(-35, 35)), [f"sample é {i}" for i in range(70)]])
def test_files(data, features, tmp_path, ids):
    x, y, values = data
    statistics = glai.IntegerStatistics(features, C, per_class=True)
    statistics.class_labels = ["a", "b", "c", "d"]
    statistics.update(x, y, ids=ids)
    path = tmp_path / "exact.safetensors"
    statistics.save(path)
    for loaded in (glai.IntegerStatistics.load(path), glai.IntegerStatistics.load(path, features)):
        assert loaded.digest() == statistics.digest()
        assert loaded.class_labels == ["a", "b", "c", "d"]
        assert torch.equal(loaded.class_grams, statistics.class_grams)
        assert b"".join(loaded.to_pieces()) == path.read_bytes()
        if ids is not None:
            with pytest.raises(ValueError, match="in row 0"):
                loaded.downdate(x[:1], y[:1], ids=ids[1:2])
        loaded.downdate(x, y, ids=ids)
        assert loaded.n_samples == 0
    for more in (0, 3, 40):
        empty = glai.IntegerStatistics(features, 2, targets="values", ledger=False)
        empty.update(x[:more], values[:more])
        empty.save(path)
        loaded = glai.IntegerStatistics.load(path)
        assert loaded.digest() == empty.digest()
        assert loaded.squares == empty.squares
        assert loaded.fixed_point == empty.fixed_point
        assert (loaded.step is None) == (more == 0)
        assert more < 32 or loaded.fixed_point.is_centred
        assert loaded.ledger is None
    with pytest.raises(ValueError, match="features_id must be"):
        glai.IntegerStatistics.load(path, glai.IntegerFeatures.fit(x, 26, seed=3))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="the checksum of tensors and metadata does not match"):
        glai.IntegerStatistics.load(path)


def test_solutions(data, features):
    x, y, values = data
    phi = features.transform(x)
    scores = of(features, x, y, per_class=True).solve(1e-3).scores(phi)
    assert float((scores.argmax(1) == y).double().mean()) > 0.7  # as many unknowns as half the samples
    balanced = of(features, x, y, per_class=True).solve(1e-3, class_weight="balanced").scores(phi)
    assert not torch.equal(balanced, scores)
    statistics = of(features, x, values, 2, targets="values")
    rest = (statistics.solve(1e-3).scores(phi) - values).square().mean() / values.square().mean()
    assert float(rest) < 0.7  # in the units of y
    told = {"step": statistics.step, "centre": statistics.centre}
    statistics.solve("held-out", held_out=of(features, x[::5], values[::5], 2, targets="values", **told))


def test_sums_that_were_added_up_elsewhere(data, features):
    x, y, values = data
    for whole in (of(features, x, y), of(features, x, values, 2, targets="values")):
        kind = {"targets": whole.targets, "step": whole.step, "centre": whole.centre}
        kind |= {"squares": whole.squares} if whole.targets == "values" else {}
        made = glai.IntegerStatistics.from_sums(features, whole._sums(), 70, **kind)
        assert made.digest() == whole.digest()
        with pytest.raises(ValueError, match="from_sums: the sums must be those of N=71 samples, got others"):
            glai.IntegerStatistics.from_sums(features, whole._sums(), 71, **kind)


def test_inference_mode_leaves_ordinary_sums(data, features):
    x, y, _ = data
    with torch.inference_mode():
        made = of(features, x.clone(), y, per_class=True) + glai.IntegerStatistics(features, C)
        made.add_outputs(1)
    made.downdate(x, y)
    made.update(x[:0], y[:0], ids=[])
    assert made.digest() == glai.IntegerStatistics(features, C).digest()
