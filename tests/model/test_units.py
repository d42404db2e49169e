"""Models of units: grown, pruned, merged, kept in files and exported like any other."""

import pytest
import torch

import glai_native as glai
from conftest import make_mlp, set_constant_units
from model.conftest import assert_same_output


def make_model(widths, x, kind="units"):
    """The network itself, its units or its full paths, with weights of z that are not zero."""
    mlp = set_constant_units(make_mlp(x.shape[1], *widths, 3, dtype=x.dtype))
    selector = glai.PathSelector(mlp, glai.InputProjection.fit(x))
    estimator = glai.PathEstimator.from_selector(selector, "units" if kind == "units" else None)
    with torch.no_grad():
        linear = torch.randn(x.shape[1], 3, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
        (estimator.weight[0, -x.shape[1] :] if kind == "units" else estimator.weight[-1]).add_(linear)
    estimator.class_labels = ["a", "b", "c"]
    model = glai.GLAI(selector, estimator)
    gates = selector.gates(x) if kind != "units" else glai.pack_gates(torch.ones(len(x), 1).bool())
    estimator.record(gates, torch.arange(len(x)) % 3)
    return model


@pytest.mark.parametrize(("widths", "layer"), [((9,), 0), ((5, 4), 1)])
def test_grow_keeps_the_output(tmp_path, x, widths, layer):
    model = make_model(widths, x)
    grown = glai.grow(model, layer, 7, seed=3)
    assert grown.estimator.kind == "units"
    assert grown.selector.widths == (*widths[:-1], widths[-1] + 7)
    assert grown.selector.parent_id == model.structure_id
    assert_same_output(grown, model, x)
    assert torch.equal(grown.estimator.on_counts, model.estimator.on_counts)
    assert grown.class_labels == ["a", "b", "c"]
    paths = glai.grow(make_model(widths, x, "full paths"), layer, 7, seed=3)
    assert paths.structure_id == grown.structure_id
    grown.save(tmp_path)
    assert torch.equal(glai.GLAI.load(tmp_path)(x), grown(x))
    grown(x).square().sum().backward()
    assert grown.estimator.weight.grad[0, widths[-1] : widths[-1] + 7].abs().sum() > 0


@pytest.mark.parametrize("limits", [{}, {"keep": 0.5}, {"min_norm": 0.3}, {"keep": 1e-9}])
def test_prune_does_what_it_does_to_full_paths(tmp_path, x, limits):
    model, paths = (make_model((9,), x, kind) for kind in ("units", "full paths"))
    gates = model.selector.unit_gates(x)
    pruned, expected = (glai.prune(one, gates, **limits) for one in (model, paths))
    assert pruned.estimator.kind == "units"
    assert pruned.structure_id == expected.structure_id
    assert_same_output(pruned, expected, x)
    if not limits:
        assert_same_output(pruned, model, x)
        assert pruned.selector.widths == (7,)
        again = glai.prune(pruned, pruned.selector.unit_gates(x))
        assert again.structure_id == pruned.structure_id
        assert_same_output(again, pruned, x)
    assert int(pruned.estimator.samples_seen) == len(x)
    pruned.save(tmp_path)
    assert torch.equal(glai.GLAI.load(tmp_path)(x), pruned(x))


def test_what_is_not_defined_is_refused(x):
    model = make_model((5, 4), x)
    with pytest.raises(
        ValueError, match="prune: a model of units must have one hidden layer, .* got 2; one of paths"
    ):
        glai.prune(model, model.selector.unit_gates(x))
    with pytest.raises(ValueError, match="grow: layer of a model of units must be its last, 1, .* got 0"):
        glai.grow(model, 0, 3)
    with pytest.raises(MemoryError, match=r"units in layer 1, while it is made, .* add fewer units"):
        glai.grow(model, 1, 10**15)


def test_merge_and_the_way_out(x):
    models = [make_model((5, 4), x) for _ in range(2)]
    with torch.no_grad():
        models[1].estimator.weight.add_(1)
    merged = glai.merge(models, "samples")
    torch.testing.assert_close(merged(x), (models[0](x) + models[1](x)) / 2, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(glai.to_torch(merged)(x), merged(x), rtol=1e-10, atol=1e-10)
