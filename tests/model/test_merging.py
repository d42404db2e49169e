"""Merging: against formulas written out, free of order and grouping, exact by statistics, refused by name."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import glai_native as glai
from conftest import make_mlp
from glai_native.cli.main import main


def models(selector, seen, dtype=torch.float32):
    made = []
    for i, n in enumerate(seen):
        estimator = glai.PathEstimator(
            selector.n_paths, 6, 4, structure_id=selector.structure_id, dtype=dtype
        )
        torch.manual_seed(i)
        torch.nn.init.normal_(estimator.weight)
        torch.nn.init.normal_(estimator.bias)
        estimator.record(selector.gates(torch.randn(n, 6)), torch.arange(n) % 4)
        made.append(glai.GLAI(selector, estimator))
    return made


def test_average_by_samples(selector):
    a, b = models(selector, (10, 30))
    merged = glai.merge([a, b])
    for name in ("weight", "bias"):
        left, right = getattr(a.estimator, name), getattr(b.estimator, name)
        torch.testing.assert_close(getattr(merged.estimator, name), 0.25 * left + 0.75 * right)
    assert int(merged.estimator.samples_seen) == 40
    assert torch.equal(merged.estimator.on_counts, a.estimator.on_counts + b.estimator.on_counts)
    assert merged.structure_id == selector.structure_id


def test_order_free_and_associative(selector):
    a, b, c = (model.estimator for model in models(selector, (10, 30, 7), torch.float64))
    whole = glai.merge([a, b, c])
    for other in (glai.merge([c, a, b]), glai.merge([glai.merge([a, b]), c])):
        torch.testing.assert_close(other.weight, whole.weight, rtol=1e-12, atol=1e-12)
    assert isinstance(whole, glai.PathEstimator)


def test_merging_is_linear_in_the_outputs(selector, samples):
    a, b = models(selector, (20, 20))
    torch.testing.assert_close(glai.merge([a, b])(samples), (a(samples) + b(samples)) / 2)
    assert torch.equal(glai.merge([a])(samples), a(samples))


def test_refusals(selector):
    a, b = models(selector, (5, 5))
    other = glai.PathSelector(make_mlp(6, 33, 4, seed=5))
    (foreign,) = models(other, (5,))
    with pytest.raises(
        ValueError,
        match=f"model 0 has structure_id {selector.structure_id[:12]}.* and model 1 has {other.structure_id[:12]}",
    ):
        glai.merge([a, foreign])
    with pytest.raises(ValueError, match="model 1 has none"):
        glai.merge([a.estimator, glai.PathEstimator(34, 6, 4)])
    unknown = [glai.PathEstimator(34, 6, 4) for _ in range(2)]
    with pytest.raises(ValueError, match="model 0 states no structure_id"):
        glai.merge(unknown)
    with pytest.raises(
        ValueError, match="method must be one of samples, activations_classes, statistics, got 'magic'"
    ):
        glai.merge([a, b], method="magic")
    with pytest.raises(ValueError, match="at least one model"):
        glai.merge([])
    with pytest.raises(
        TypeError, match="all GLAI, all PathEstimator or all PathStatistics, got GLAI, PathEstimator"
    ):
        glai.merge([a, b.estimator])
    with pytest.raises(TypeError, match="a sequence of models, got one GLAI"):
        glai.merge(a)
    with pytest.raises(TypeError, match="got int"):
        glai.merge([1, 2])
    wider = glai.PathEstimator(34, 6, 5, structure_id=selector.structure_id)
    with pytest.raises(ValueError, match=r"weights must be torch.float32 \[34, 6, 4\] like model 0's"):
        glai.merge([a.estimator, wider])
    blank = glai.PathEstimator(34, 6, 4, structure_id=selector.structure_id)
    with pytest.raises(ValueError, match="no model has samples recorded"):
        glai.merge([blank, blank])


def test_activations_classes_is_its_formula(selector):
    parties = [model.estimator for model in models(selector, (10, 30, 0), torch.float64)]
    parties[1].on_counts[3] = parties[0].on_counts[3] = 0  # path 3 was never on: by samples
    merged = glai.merge(parties, "activations_classes")
    counts = torch.stack([party.on_counts for party in parties]).double()
    seen = torch.tensor([10.0, 30.0, 0.0], dtype=torch.float64).view(3, 1, 1)
    share = torch.where(counts.sum(0) > 0, counts / counts.sum(0).clamp(min=1), seen / 40)
    for name in ("weight", "bias"):
        stack = torch.stack([party.get_parameter(name) for party in parties])
        expected = (stack * (share.unsqueeze(2) if name == "weight" else share)).sum(0)
        torch.testing.assert_close(merged.get_parameter(name), expected, rtol=1e-12, atol=1e-12)
    assert merged.provenance["merge"] == "activations_classes"
    assert [party["samples"] for party in merged.provenance["parties"]] == [10, 30, 0]


def test_activations_classes_refuses(selector, samples):
    a, b = (model.estimator for model in models(selector, (5, 5)))
    b.on_counts.zero_()
    with pytest.raises(ValueError, match="needs counts per class, model 1 has none"):
        glai.merge([a, b], "activations_classes")
    directed = glai.PathEstimator.from_selector(selector, glai.output_directions(selector))
    directed.record(selector.gates(samples), torch.arange(40) % 4)
    with pytest.raises(ValueError, match="is for full paths, model 0 has output directions"):
        glai.merge([directed], "activations_classes")


# --- by statistics ---

N, D, H, C = 240, 4, 6, 3


@pytest.fixture(scope="module")
def parties():
    """A structure, and skewed parts of some samples: almost one class each."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, D, generator=generator, dtype=torch.float64)
    y = torch.arange(N) % C
    selector = glai.PathSelector(make_mlp(D, H, C, dtype=torch.float64), glai.InputProjection.fit(x))
    owner = torch.where(
        torch.rand(N, generator=generator) < 0.9, y, torch.randint(5, (N,), generator=generator)
    )
    return selector, [(x[owner == k], y[owner == k]) for k in range(5)], (x, y)


def solved(selector, x, y, l2):
    sizes = selector.n_paths, selector.z_features, C
    statistics = glai.PathStatistics(*sizes, structure_id=selector.structure_id)
    statistics.update(selector.project(x), selector.gates(x), y)
    return glai.GLAI(selector, statistics.solve(l2), statistics)


@torch.no_grad()
def difference(a, b):
    scale = float(b.estimator.weight.abs().max())
    return float((a.estimator.weight - b.estimator.weight).abs().max()) / scale


def test_statistics_are_the_union(parties):
    selector, parts, union = parties
    made = [solved(selector, x, y, 0.7) for x, y in parts]
    merged = glai.merge(made, "statistics", l2=0.7, progress=False)
    assert difference(merged, solved(selector, *union, 0.7)) < 1e-8
    assert int(merged.estimator.samples_seen) == N
    assert merged.statistics.n_samples == N
    assert all(model.statistics.n_samples < N for model in made)
    # Without l2: the share that all were solved with, refused where they differ.
    equal = [solved(selector, x, y, 1.0) for x, y in parts]
    equal = [
        solved(selector, *part, 0.1 * m.statistics.mean_diagonal)
        for part, m in zip(parts, equal, strict=True)
    ]
    merged = glai.merge(equal, "statistics", progress=False)
    l2 = 0.1 * merged.statistics.mean_diagonal
    assert difference(merged, solved(selector, *union, l2)) < 1e-8
    with pytest.raises(ValueError, match="l2 must be given, model 0 was solved with"):
        glai.merge(made, "statistics")
    statistics = glai.merge([model.statistics for model in made], progress=False)
    assert isinstance(statistics, glai.PathStatistics)
    assert statistics.n_samples == N


@settings(max_examples=15, deadline=None)
@given(data=st.data(), method=st.sampled_from(["samples", "activations_classes", "statistics"]))
def test_any_order_and_grouping(parties, data, method):
    selector, parts, _ = parties
    made = [solved(selector, x, y, 0.7) for x, y in parts]
    options = {"l2": 0.7} if method == "statistics" else {}
    whole = glai.merge(made, method, progress=False, **options)
    order = data.draw(st.permutations(range(5)))
    cut = data.draw(st.integers(1, 4))
    groups = [[made[i] for i in order[:cut]], [made[i] for i in order[cut:]]]
    halves = [glai.merge(group, method, progress=False, **options) for group in groups]
    assert difference(glai.merge(halves, method, progress=False, **options), whole) < 1e-10


def test_statistics_refuse(parties, selector):
    own, parts, _ = parties
    model = solved(own, *parts[0], 0.7)
    without = glai.GLAI(own, model.estimator)
    with pytest.raises(ValueError, match="here has no statistics, train it with solver='statistics'"):
        glai.merge([model, without], "statistics", l2=1.0, names=["there", "here"], progress=False)
    unsolved = glai.GLAI(own, glai.PathEstimator(own.n_paths, own.z_features, C, dtype=torch.float64))
    with pytest.raises(ValueError, match="model 1 has no statistics"):  # before it is asked for l2
        glai.merge([model, unsolved], "statistics", progress=False)
    with pytest.raises(ValueError, match="an estimator alone has no statistics"):
        glai.merge([model.estimator], "statistics")
    with pytest.raises(ValueError, match="statistics are merged by 'statistics', got 'samples'"):
        glai.merge([model.statistics], "samples")
    with pytest.raises(ValueError, match="l2 is for models merged by statistics"):
        glai.merge([model], "samples", l2=1.0)
    with pytest.raises(ValueError, match="l2 must be a number or 'gcv', got 'loo'"):
        glai.merge([model], "statistics", l2="loo")
    single = glai.PathStatistics(own.n_paths, own.z_features, C, torch.float32, own.structure_id)
    with pytest.raises(ValueError, match=r"must be torch.float64, got torch.float32 \(model 1\)"):
        glai.merge([model.statistics, single], progress=False)
    model.estimator.provenance = {}
    with pytest.raises(ValueError, match="model 0 does not say which it was solved with"):
        glai.merge([model], "statistics")


def test_class_labels_must_agree(selector):
    a, b = models(selector, (5, 5))
    a.estimator.class_labels = list("abcd")
    with pytest.raises(ValueError, match="or none, model 0 has 'a', 'b', 'c', 'd' and model 1 has none"):
        glai.merge([a, b])
    b.estimator.class_labels = [1, 2, 3, 4]
    with pytest.raises(ValueError, match=r"of type str like model 0's \('a', .*\), got int \(1, 2, 3, 4\)"):
        glai.merge([a, b])
    b.estimator.class_labels = list("abcd")
    merged = glai.merge([a, b])
    assert merged.estimator.class_labels == list("abcd")
    assert merged.estimator.class_labels is not a.estimator.class_labels


def test_command(tmp_path, parties, capsys):
    selector, parts, union = parties
    for name, (x, y) in zip("abcde", parts, strict=True):
        solved(selector, x, y, 0.7).save(tmp_path / name)
    folders = [str(tmp_path / name) for name in "abcde"]
    out = str(tmp_path / "all")
    assert main(["merge", *folders, "-o", out, "--method", "statistics", "--l2", "0.7", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["samples_seen"] == N
    assert report[f"samples of {folders[2]}"] == len(parts[2][0])
    merged = glai.GLAI.load(out)
    assert difference(merged, solved(selector, *union, 0.7)) < 1e-8
    assert merged.statistics.n_samples == N
    assert main(["inspect", out]) == 0
    assert "merged by statistics from" in capsys.readouterr().out
    assert main(["merge", *folders, "-o", str(tmp_path / "f"), "--method", "statistics"]) == 2
    assert f"l2 must be given, {folders[0]} was solved with" in capsys.readouterr().err
    (tmp_path / "b" / "statistics.safetensors").unlink()
    assert main(["merge", *folders, "-o", str(tmp_path / "f"), "--method", "statistics", "--l2", "gcv"]) == 2
    assert f"{folders[1]} has no statistics" in capsys.readouterr().err
    assert main(["merge", *folders, "-o", str(tmp_path / "f"), "--method", "activations_classes"]) == 0
    assert not (tmp_path / "f" / "statistics.safetensors").exists()
