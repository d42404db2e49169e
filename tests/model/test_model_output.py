"""A model's output in one native call: the modules', for few samples; and when the modules are asked."""

import numpy as np
import pytest
import torch
from torch import nn

import glai_native as glai
import glai_native._native as _native
import glai_native.model.glai as model_module
from conftest import make_mlp
from glai_native.model.output import FEW_SAMPLES, model_output

FEATURES, OUTPUTS = 20, 3


def make_model(widths=(33,), projection="rotation", directed=False, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, FEATURES, dtype=dtype, generator=generator) * 3 + 1
    projection = {
        "identity": lambda: glai.InputProjection.identity(FEATURES),
        "centring": lambda: glai.InputProjection.fit(x),
        "rotation": lambda: glai.InputProjection.fit(x, 7),
    }[projection]()
    selector = glai.PathSelector(make_mlp(projection.out_features, *widths, OUTPUTS, dtype=dtype), projection)
    directions = glai.output_directions(selector) if directed else None
    estimator = glai.PathEstimator.from_selector(selector, directions=directions)
    with torch.no_grad():
        for parameter in estimator.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, dtype=dtype, generator=generator)
    return glai.GLAI(selector, estimator)


def samples_of(model, n):
    """Samples none of whose units is so near to zero that rounding could switch it."""
    activation = x = torch.randn(
        n + 200, FEATURES, dtype=model.estimator.dtype, generator=torch.Generator().manual_seed(1)
    )
    activation = model.selector.project(x)
    clear = torch.ones(len(x), dtype=torch.bool)
    for weight, bias in model.selector.hidden:
        pre_activation = nn.functional.linear(activation, weight, bias)
        clear &= pre_activation.abs().amin(1) > 1e-5
        activation = pre_activation.relu()
    return x[clear][:n]


def modules_output(model, x, monkeypatch):
    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(model_module, "model_output", lambda *_: None)
        return model(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("directed", [False, True], ids=["paths", "directions"])
@pytest.mark.parametrize("projection", ["identity", "centring", "rotation"])
@pytest.mark.parametrize("widths", [(1,), (31,), (33,), (5, 8), (3, 2, 4)], ids=str)
@pytest.mark.usefixtures("isa")
def test_one_call_computes_what_the_modules_do(widths, projection, directed, dtype, monkeypatch):
    model = make_model(widths, projection, directed, dtype)
    for n in (1, 2, 31, 33):
        x = samples_of(model, n)
        assert len(x) == n
        with torch.no_grad():
            y = model_output(model.selector, model.estimator, x)
        expected = modules_output(model, x, monkeypatch)
        assert (y - expected).abs().max() <= 1e3 * torch.finfo(dtype).eps * expected.abs().max()


@torch.no_grad()
def test_a_sample_is_computed_alike_beside_any_others():
    model = make_model((40,), directed=True)
    x = samples_of(model, 100)
    assert torch.equal(
        model_output(model.selector, model.estimator, x[17:18]),
        model_output(model.selector, model.estimator, x)[17:18],
    )


@torch.no_grad()
@pytest.mark.parametrize("directed", [False, True], ids=["paths", "directions"])
def test_nan_reaches_its_sample_and_no_other(directed, monkeypatch):
    model = make_model((5, 8), directed=directed)
    x = samples_of(model, 3)
    clean = model_output(model.selector, model.estimator, x)
    x[1, 4] = float("nan")
    y = model_output(model.selector, model.estimator, x)
    assert bool(y[1].isnan().all())
    assert torch.equal(y[[0, 2]], clean[[0, 2]])
    assert bool(modules_output(model, x, monkeypatch)[1].isnan().all())


class Scaled(glai.PathEstimator):
    def forward(self, z, gates):
        return 2 * super().forward(z, gates)


@torch.no_grad()
def test_modules_are_asked_where_one_call_would_pass_somebody_by():
    model = make_model()
    x = samples_of(model, 4)
    y = model(x)
    assert torch.equal(y, model_output(model.selector, model.estimator, x))
    seen = []
    for module in (model.estimator, model.selector.projection):
        handle = module.register_forward_hook(lambda *_: seen.append(1))
        assert model_output(model.selector, model.estimator, x) is None
        model(x)
        handle.remove()
    assert len(seen) == 2
    model.estimator.forward = lambda z, gates: torch.zeros(len(z), OUTPUTS)
    assert bool((model(x) == 0).all())
    del model.estimator.forward
    scaled = Scaled(34, 7, OUTPUTS)
    scaled.load_state_dict(model.estimator.state_dict())
    assert torch.allclose(glai.GLAI(model.selector, scaled)(x), 2 * y)
    with torch.enable_grad():
        assert model(x).requires_grad
    assert model_output(model.selector, model.estimator, torch.zeros(FEW_SAMPLES + 1, FEATURES)) is None
    assert model_output(model.selector, model.estimator, x[:0]) is None
    assert model_output(model.selector, model.estimator, x.T.contiguous().T) is None
    assert model(x.double()).dtype == y.dtype
    deep = make_model((5, 8))
    pruned = glai.prune(deep, deep.selector.unit_gates(x))
    assert pruned.selector.kept_paths is not None
    assert model_output(pruned.selector, pruned.estimator, x) is None


@torch.no_grad()
def test_messages_are_those_of_the_modules():
    model = make_model()
    with pytest.raises(ValueError, match=r"PathSelector: x must be \[N, D=20\], got \[1, 19\]"):
        model(torch.zeros(1, 19))
    with pytest.raises(TypeError, match=r"PathSelector: x must be a torch.Tensor"):
        model([[0.0] * FEATURES])
    other = make_model((32,))
    model.estimator = other.estimator
    with pytest.raises(ValueError, match="gates must be of structure_id"):
        model(torch.zeros(1, FEATURES))


@torch.no_grad()
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"mean": torch.zeros(3), "scale": torch.tensor(1.0)},
            r"mean must be float32 \[I=2\], got float32 \[3\]",
        ),
        (
            {"mean": torch.zeros(2), "scale": torch.ones(1)},
            r"scale must be float32 or float64 \[\], got float32",
        ),
        ({"mean": torch.zeros(2)}, "mean and scale must come together"),
        ({"rotation": torch.zeros(2, 2)}, "rotation with them"),
        (
            {"hidden_weights": [], "hidden_biases": []},
            "layers must hold one hidden layer at least, got none",
        ),
        ({"hidden_biases": []}, "hidden_biases must be as many as hidden_weights, 1, got 0"),
        (
            {"hidden_weights": [torch.zeros(3, 5)]},
            r"hidden_weights\[0\] must be float32 \[H, D=2\], got float32 \[3, 5\]",
        ),
        ({"directions": torch.zeros(4, 1)}, "constant_weight and constant_bias must come together"),
        (
            {"weight": torch.zeros(9, 2, 1)},
            r"weight must be float32 \[P=4, D=2, C\], got float32 \[9, 2, 1\]",
        ),
        ({"y": torch.zeros(1, 7)}, r"y must be float32 \[N=1, C=1\], got float32 \[1, 7\]"),
        ({"x": torch.zeros(1, 2, device="meta")}, "x must be on cpu or cuda"),
    ],
)
def test_the_native_call_checks_what_it_is_given(wrong, message):
    given = {
        "x": torch.zeros(1, 2),
        "hidden_weights": [torch.zeros(3, 2)],
        "hidden_biases": [torch.zeros(3)],
        "weight": torch.zeros(4, 2, 1),
        "bias": torch.zeros(4, 1),
        "y": torch.zeros(1, 1),
        "threads": 1,
    }
    _native.model_output(**given)
    with pytest.raises(ValueError, match=message):
        _native.model_output(**(given | wrong))


@pytest.mark.parametrize("kind", [bool, object, str, np.longdouble, np.int8, ">f8"])
def test_arrays_that_torch_has_no_type_for(kind):
    selector = glai.PathSelector(make_mlp(4, 5, 3), glai.InputProjection.fit(torch.randn(20, 4)))
    model = glai.GLAI(selector, glai.PathEstimator.from_selector(selector))
    zeros_and_ones = np.arange(24).reshape(6, 4) % 3 == 0
    x = zeros_and_ones.astype(float).astype(kind) if kind is not bool else zeros_and_ones
    expected = model.predict(zeros_and_ones.astype(float))
    assert np.array_equal(model.predict(x), expected)
    if kind is bool:
        assert torch.equal(model(torch.from_numpy(x)), model(torch.from_numpy(x).float()))
