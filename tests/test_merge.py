import pytest
import torch

import glai_native as glai
from conftest import make_mlp


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
    with pytest.raises(ValueError, match="method must be one of samples, got 'magic'"):
        glai.merge([a, b], method="magic")
    with pytest.raises(ValueError, match="at least one model"):
        glai.merge([])
    with pytest.raises(TypeError, match="all GLAI or all PathEstimator, got GLAI, PathEstimator"):
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
