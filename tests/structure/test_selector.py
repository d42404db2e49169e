import copy

import pytest
import torch
from torch import nn

import glai_native as glai
from conftest import make_mlp
from glai_native.ops import oracle as ref


@pytest.mark.parametrize("sizes", [(6, 5, 4), (6, 33, 3), (6, 5, 4, 3), (6, 3, 4, 5, 2)])
def test_gates_are_the_units_that_fire(sizes, samples):
    mlp = make_mlp(*sizes)
    selector = glai.PathSelector(mlp, glai.InputProjection.fit(samples))
    activation = selector.project(samples)
    bits = []
    for layer in mlp[:-1]:
        activation = layer(activation)
        if isinstance(layer, nn.ReLU):
            bits.append(activation > 0)
    unit_gates = selector.unit_gates(samples)
    assert len(unit_gates) == len(sizes) - 2
    for gates, expected in zip(unit_gates, bits, strict=True):
        assert torch.equal(gates.unpack(), expected)
    assert torch.equal(selector.gates(samples).unpack(), ref.path_gates_ref(bits))
    assert selector.gates(samples).n_gates == selector.n_paths
    torch.testing.assert_close(selector(samples), mlp(selector.project(samples)))


def test_many_samples_are_captured_in_blocks(monkeypatch, selector, samples):
    whole = selector.unit_gates(samples)
    monkeypatch.setattr("glai_native.structure.selector.CAPTURE_ROWS", 7)
    for a, b in zip(whole, selector.unit_gates(samples), strict=True):
        assert torch.equal(a.words, b.words)


def test_gates_of_one_layer_do_not_depend_on_the_batch():
    """Pre-activations are of rounding alone: where torch's product sums a lone row in another order, signs change."""
    generator = torch.Generator().manual_seed(0)
    half, weight = torch.randn((40, 300), generator=generator), torch.randn((70, 300), generator=generator)
    x = torch.cat([half, half.flip(1)], dim=1)
    mlp = make_mlp(600, 70, 3)
    with torch.no_grad():
        mlp[0].weight.copy_(torch.cat([weight, -weight.flip(1)], dim=1))
        mlp[0].bias.zero_()
    selector = glai.PathSelector(mlp)
    together = selector.gates(x)
    for rows in (slice(0, 1), slice(5, 8), slice(1, 40)):
        assert torch.equal(selector.gates(x[rows]).words, together[rows].words)


def test_no_samples(selector):
    assert len(selector.gates(torch.zeros(0, 6))) == 0


def test_selector_is_frozen_and_does_not_follow_the_network(samples):
    mlp = make_mlp(6, 5, 4)
    selector = glai.PathSelector(mlp)
    before = selector.gates(samples).words
    with torch.no_grad():
        mlp[0].weight.neg_()
    assert torch.equal(selector.gates(samples).words, before)
    assert list(selector.parameters()) == []


def test_structure_id():
    mlp = make_mlp(6, 5, 4)
    projection = glai.InputProjection.fit(torch.randn(20, 6))
    selector = glai.PathSelector(mlp, projection)
    same_hidden = copy.deepcopy(mlp)
    with torch.no_grad():
        same_hidden[-1].weight.add_(1)
    assert glai.PathSelector(same_hidden, projection).structure_id == selector.structure_id
    wider = glai.PathSelector(copy.deepcopy(mlp).double(), copy.deepcopy(projection).double())
    assert wider.structure_id == selector.structure_id
    assert glai.PathSelector(mlp).structure_id != selector.structure_id
    with torch.no_grad():
        same_hidden[0].bias[0] += 1e-6
    assert glai.PathSelector(same_hidden, projection).structure_id != selector.structure_id


def test_bias_free_network(samples):
    mlp = nn.Sequential(nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 2, bias=False))
    selector = glai.PathSelector(mlp)
    torch.testing.assert_close(selector(samples), mlp(samples))


@pytest.mark.parametrize(
    ("mlp", "sentence"),
    [
        (nn.Linear(3, 2), "got Linear"),
        (nn.Sequential(nn.Linear(3, 2)), r"at least one hidden layer, got \(Linear\)"),
        (nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2)), r"got \(Linear, Tanh, Linear\)"),
        (nn.Sequential(nn.Linear(3, 2), nn.ReLU()), r"got \(Linear, ReLU\)"),
        (nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(4, 2)), "got 2 outputs into 4 inputs"),
    ],
)
def test_other_networks_are_refused(mlp, sentence):
    with pytest.raises(ValueError, match=sentence):
        glai.PathSelector(mlp)


def test_selector_refuses(samples):
    mlp = make_mlp(6, 5, 4)
    with pytest.raises(ValueError, match="must read D=3 features of z, got 6"):
        glai.PathSelector(mlp, glai.InputProjection.identity(3))
    selector = glai.PathSelector(mlp)
    with pytest.raises(ValueError, match=r"x must be \[N, D=6\], got \[40, 5\]"):
        selector.gates(samples[:, :5])
    with pytest.raises(TypeError, match="x must be a torch.Tensor"):
        selector.gates(samples.tolist())
    with pytest.raises(ValueError, match="z must be float32 like the network's weights, got float64"):
        selector.unit_gates_of(samples.double())
    with pytest.raises(ValueError, match="x must be real numbers"):
        selector.gates(samples.to(torch.complex64))
    with pytest.raises(ValueError, match="x must be finite"):
        selector.gates(samples.index_fill(0, torch.tensor(3), float("nan")))
    with torch.no_grad():
        mlp[0].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="weights must be finite"):
        glai.PathSelector(mlp)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_networks_of_16_bits(dtype, samples):
    mlp = make_mlp(6, 33, 4, dtype=dtype)
    (gates,) = glai.PathSelector(mlp).unit_gates(samples)
    assert torch.equal(gates.unpack(), mlp[0](samples.to(dtype)) > 0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int32, torch.uint8])
def test_raw_samples_of_any_dtype(dtype, samples):
    selector = glai.PathSelector(make_mlp(6, 5, 4))
    x = samples.abs().round().to(dtype)
    assert selector.project(x).dtype == torch.float32
    assert torch.equal(selector.gates(x).words, selector.gates(x.float()).words)


def test_gates_know_their_structure(selector, samples):
    other = glai.PathSelector(make_mlp(6, 33, 4, seed=9))
    gates, foreign = selector.gates(samples), other.gates(samples)
    assert (
        gates.structure_id == gates[:3].structure_id == gates.to("cpu").structure_id == selector.structure_id
    )
    assert glai.PackedGates.cat([gates, gates]).structure_id == selector.structure_id
    estimator = glai.PathEstimator.from_selector(selector)
    for call in (lambda: estimator(selector.project(samples), foreign), lambda: estimator.record(foreign)):
        with pytest.raises(ValueError, match="gates must be of structure_id"):
            call()
    with pytest.raises(ValueError, match="gates must be of one structure"):
        glai.path_gates([selector.unit_gates(samples)[0], other.unit_gates(samples)[0]])
    assert 0 < gates.agreement(foreign) < 1  # comparing two structures is what agreement is for
    unknown = glai.pack_gates(gates.unpack())
    torch.testing.assert_close(estimator(samples, unknown), estimator(samples, gates))
