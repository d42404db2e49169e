"""Output directions: V, the estimator that sends what paths carry along it, its files and its merging."""

import copy

import pytest
import torch
from torch import nn

import glai_native as glai
from conftest import make_mlp
from glai_native.cli.main import main
from glai_native.estimator.directions import directions_id
from glai_native.machine.files import TensorFile, tensors_to_bytes
from model.test_model_files import rewrite_header, set_metadata


def directed(selector, seed=0, out_features=None):
    """An estimator with directions and random parameters, as after training."""
    directions = glai.output_directions(selector, out_features)
    estimator = glai.PathEstimator(
        selector.n_paths,
        selector.z_features,
        directions.shape[1],
        directions,
        structure_id=selector.structure_id,
        dtype=directions.dtype,
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in estimator.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        estimator.u[-1], estimator.beta[-1] = 0, 0
    return estimator


def as_full_paths(estimator):
    """The same function with weights [P, D, C] and biases [P, C] (DESIGN, "Output directions")."""
    full = glai.PathEstimator(
        estimator.n_paths, estimator.in_features, estimator.out_features, dtype=estimator.dtype
    )
    with torch.no_grad():
        full.weight.copy_(estimator.u.unsqueeze(2) * estimator.directions.unsqueeze(1))
        full.bias.copy_(estimator.beta.unsqueeze(1) * estimator.directions)
        full.weight[-1], full.bias[-1] = estimator.constant_weight, estimator.constant_bias
    return full


def test_directions_are_the_output_weights_of_the_last_unit():
    selector = glai.PathSelector(make_mlp(3, 2, 4, 5))
    directions = glai.output_directions(selector, seed=1)
    by_unit = directions.view(3, 5, 5)
    weight = selector.output[0].double()
    for first in range(3):
        torch.testing.assert_close(by_unit[first, :4], (weight.T / weight.square().mean().sqrt()).float())
    assert bool((by_unit[:2, 4] != 0).all())
    assert bool((by_unit[2, 4] == 0).all())
    assert not torch.equal(by_unit[0, 4], by_unit[1, 4])
    assert torch.equal(glai.output_directions(selector, 5, seed=1), directions)
    other_seed = glai.output_directions(selector, seed=2)
    assert torch.equal(other_seed == directions, (torch.arange(15) % 5 != 4).unsqueeze(1) | (directions == 0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_random_directions(tmp_path, dtype):
    selector = glai.PathSelector(make_mlp(3, 500, 4, dtype=dtype))
    glai.GLAI(selector, glai.PathEstimator(501, 3, 4, dtype=dtype)).save(tmp_path)
    loaded = glai.GLAI.load(tmp_path).selector  # without its output layer
    with pytest.raises(ValueError, match="out_features must be given"):
        glai.output_directions(loaded)
    directions = glai.output_directions(loaded, 4)
    assert directions.shape == (501, 4)
    assert directions.dtype == dtype
    assert bool((directions[-1] == 0).all())
    assert float(directions[:-1].std()) == pytest.approx(1, rel=0.1)
    assert torch.equal(glai.output_directions(loaded, 4), directions)
    assert torch.equal(glai.output_directions(selector, random=True), directions)
    assert glai.output_directions(selector, 7).shape == (501, 7)  # the layer has 4 outputs: all are random
    extended = glai.extend_directions(directions, 3, seed=5)
    assert torch.equal(extended[:, :4], directions)
    assert bool((extended[-1] == 0).all())
    assert float(extended[:, 4:].std()) == pytest.approx(float(directions.std()), rel=0.1)
    assert torch.equal(glai.extend_directions(directions, 3, seed=5), extended)
    assert not torch.equal(glai.extend_directions(directions, 4)[:, 4:], directions)
    one_by_one = glai.extend_directions(glai.extend_directions(directions, 1), 1)
    assert abs(float(torch.corrcoef(one_by_one.T)[4, 5])) < 0.2


def test_directions_id():
    directions = torch.arange(6.0).view(3, 2)
    assert (
        directions_id(directions)
        == directions_id(directions.double())
        == directions_id(directions.T.contiguous().T)
    )
    others = (directions.view(2, 3), directions + 1, directions[:, :1])
    assert directions_id(directions) not in map(directions_id, others)


@pytest.mark.parametrize("sizes", [(6, 33, 4), (6, 1, 3), (6, 5, 3, 4), (6, 3, 2, 4, 2)])
@pytest.mark.parametrize("projected", [False, True])
def test_exact_emulation(sizes, projected, samples):
    """The network's own output along its own output weights, float64, relative 1e-10."""
    x = samples.double()
    mlp = make_mlp(*sizes, dtype=torch.float64, seed=1)
    for layer in mlp:  # large biases, so that they matter
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.bias)
    selector = glai.PathSelector(mlp, glai.InputProjection.fit(x) if projected else None)
    estimator = glai.PathEstimator.from_selector(selector, directions=glai.output_directions(selector))
    expected = mlp(selector.project(x)).detach()
    model = glai.GLAI(selector, estimator)
    assert float((model(x).detach() - expected).abs().max() / expected.abs().max()) < 1e-10
    assert bool((estimator.u[-1] == 0).all())
    assert bool(estimator.beta[-1] == 0)
    assert bool((estimator.constant_weight == 0).all())
    raw = glai.PathEstimator.from_selector(selector, directions=0.3 * estimator.directions)
    torch.testing.assert_close(glai.GLAI(selector, raw)(x), model(x), rtol=1e-10, atol=1e-10)


def test_emulation_of_a_network_with_decayed_weights(samples):
    """Weights so small that scaling them rounds off more than the last place."""
    mlp = make_mlp(6, 5, 3)
    with torch.no_grad():
        mlp[-1].weight[:, :2] *= 1e-38
    selector = glai.PathSelector(mlp)
    estimator = glai.PathEstimator.from_selector(selector, directions=glai.output_directions(selector))
    torch.testing.assert_close(estimator(samples, selector.gates(samples)), mlp(samples))


def test_along_other_directions_a_network_cannot_be_given(selector):
    directions = glai.output_directions(selector)
    directions[3] *= 2
    with pytest.raises(ValueError, match="directions must be the network's own"):
        glai.PathEstimator.from_selector(selector, directions=directions)


def test_equals_full_paths(selector, samples):
    selector = copy.deepcopy(selector).double()
    estimator = directed(selector)
    z, gates = selector.project(samples), selector.gates(samples)
    expected = as_full_paths(estimator)(z, gates)
    torch.testing.assert_close(estimator(z, gates), expected, rtol=1e-12, atol=1e-12)
    assert [name for name, _ in estimator.named_parameters()] == [
        "u",
        "beta",
        "constant_weight",
        "constant_bias",
    ]
    with pytest.raises(AttributeError, match="weight"):
        _ = estimator.weight


def test_starts_at_zero_trains_and_leaves_the_last_row_at_zero(selector, samples):
    directions = glai.output_directions(selector, 4)
    estimator = glai.PathEstimator(34, 6, 4, directions)
    z, gates = selector.project(samples), selector.gates(samples)
    assert torch.equal(estimator(z, gates), torch.zeros(40, 4))
    optimizer = torch.optim.AdamW(estimator.parameters(), lr=0.05, weight_decay=0.1)
    targets = torch.arange(40) % 4
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(estimator(z, gates), targets)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        assert bool((estimator.u.grad[-1] == 0).all())
        assert float(estimator.beta.grad[-1]) == 0
        optimizer.step()
    assert losses[-1] < losses[0] / 2
    assert bool((estimator.u[:-1] != 0).any())
    assert bool((estimator.u[-1] == 0).all())
    assert bool(estimator.beta[-1] == 0)
    assert torch.equal(estimator.directions, directions)


def test_counts_of_parameters():
    """DESIGN, section 2: h'(D+1) + h'·C + (D+1)C, of which V's h'·C are not trained."""
    selector = glai.PathSelector(make_mlp(6, 33, 4))
    estimator = directed(selector)
    assert estimator.trained_parameters == 33 * 7 + 7 * 4
    assert estimator.frozen_parameters == 33 * 4
    full = glai.PathEstimator(34, 6, 4)
    assert (full.trained_parameters, full.frozen_parameters) == (34 * 7 * 4, 0)
    assert "out_features=4, directions" in repr(estimator)
    assert "directions" not in repr(full)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_files(tmp_path, selector, samples, dtype, capsys):
    selector = copy.deepcopy(selector).to(dtype)
    model = glai.GLAI(selector, directed(selector))
    model.estimator.record(selector.gates(samples), torch.arange(40) % 4)
    model.save(tmp_path)
    loaded = glai.GLAI.load(tmp_path)
    assert torch.equal(loaded(samples), model(samples))
    assert loaded.estimator.directions_id == model.estimator.directions_id
    assert loaded.estimator.dtype == dtype
    assert torch.equal(loaded.estimator.on_counts, model.estimator.on_counts)
    assert main(["inspect", str(tmp_path), "--json"]) == 0
    assert f'"directions": "{loaded.estimator.directions_id}"' in capsys.readouterr().out


def test_full_paths_have_none(tmp_path):
    (tmp_path / "e").write_bytes(glai.PathEstimator(3, 2, 2).to_bytes())
    assert TensorFile(tmp_path / "e", "glai-estimator", newest=3).metadata["version"] == "3"
    assert glai.PathEstimator.load(tmp_path / "e").directions_id is None


def test_damaged_files(tmp_path, selector):
    estimator, path = directed(selector), tmp_path / "e"
    path.write_bytes(estimator.to_bytes())
    for name, value, sentence in (
        ("directions_id", "0" * 64, "directions_id must be 000000000000… as the file states"),
        ("directions_id", None, "metadata entry 'directions_id' is missing"),
        ("version", "1", "metadata entry 'crc32' is missing"),
        ("version", "4", "format version must be 1 or 2 or 3, got '4'"),
    ):
        path.write_bytes(estimator.to_bytes())
        rewrite_header(path, set_metadata(name, value))
        with pytest.raises(ValueError, match=sentence):
            glai.PathEstimator.load(path)
    metadata = {"format": "glai-estimator", "version": "3", "structure_id": ""}
    metadata["directions_id"] = estimator.directions_id
    state = estimator.state_dict()
    path.write_bytes(tensors_to_bytes(state | {"u": state["u"][1:]}, metadata))
    with pytest.raises(ValueError, match=r"'u' must be float32 \[34, any\], got float32 \[33, 6\]"):
        glai.PathEstimator.load(path)
    path.write_bytes(tensors_to_bytes(state | {"beta": state["beta"].double()}, metadata))
    with pytest.raises(ValueError, match=r"'beta' must be float32 \[34\], got float64 \[34\]"):
        glai.PathEstimator.load(path)


def test_state_dict(selector, samples):
    estimator = directed(selector)
    other = directed(selector, seed=1)
    other.load_state_dict(estimator.state_dict())
    z, gates = selector.project(samples), selector.gates(samples)
    assert torch.equal(other(z, gates), estimator(z, gates))
    with pytest.raises(RuntimeError, match="Missing key.*weight"):
        glai.PathEstimator(34, 6, 4).load_state_dict(estimator.state_dict())
    wide = copy.deepcopy(estimator).double()
    assert wide.directions_id == estimator.directions_id
    torch.testing.assert_close(wide(z.double(), gates).float(), estimator(z, gates), rtol=1e-4, atol=1e-4)


def test_merge(selector, samples):
    a, b = directed(selector, 1), directed(selector, 2)
    gates, z = selector.gates(samples), selector.project(samples)
    a.record(gates[:10])
    b.record(gates[:30])
    merged = glai.merge([glai.GLAI(selector, a), glai.GLAI(selector, b)]).estimator
    for name, parameter in merged.named_parameters():
        torch.testing.assert_close(parameter, 0.25 * a.get_parameter(name) + 0.75 * b.get_parameter(name))
    torch.testing.assert_close(
        merged(z, gates), 0.25 * a(z, gates) + 0.75 * b(z, gates), rtol=1e-4, atol=1e-4
    )
    assert merged.directions_id == a.directions_id
    assert int(merged.samples_seen) == 40


def test_merge_refuses_other_directions(selector, samples):
    gates = selector.gates(samples)
    a, b = directed(selector, out_features=5), directed(selector, out_features=5)
    b.directions[3] += 1
    full = glai.PathEstimator(34, 6, 5, structure_id=selector.structure_id)
    for estimator in (a, b, full):
        estimator.record(gates)
    ids = f"model 0 has directions_id {a.directions_id[:12]}… and model 1 has {b.directions_id[:12]}"
    with pytest.raises(ValueError, match=f"merge: models must share their output directions, {ids}"):
        glai.merge([a, b])
    with pytest.raises(ValueError, match="and model 1 has none"):
        glai.merge([a, full])
    with pytest.raises(ValueError, match="model 0 has directions_id none"):
        glai.merge([full, a])


@pytest.mark.parametrize("with_directions", [True, False])
def test_add_outputs(tmp_path, selector, samples, with_directions):
    estimator = directed(selector) if with_directions else glai.PathEstimator.from_selector(selector)
    z, gates = selector.project(samples), selector.gates(samples)
    estimator.record(gates, torch.arange(40) % 4)
    before, twin = estimator(z, gates).detach(), copy.deepcopy(estimator)
    counts = estimator.on_counts.clone()
    assert estimator.add_outputs(3, seed=8) is None
    after = estimator(z, gates)
    assert estimator.out_features == 7
    torch.testing.assert_close(after[:, :4], before, rtol=1e-5, atol=1e-5)
    assert bool((after[:, 4:] != 0).any()) == with_directions
    assert torch.equal(estimator.on_counts[:, :4], counts)
    assert bool((estimator.on_counts[:, 4:] == 0).all())
    estimator.record(gates, torch.full((40,), 6))
    after.sum().backward()
    assert all(parameter.grad is not None for parameter in estimator.parameters())
    twin.add_outputs(3, seed=8)
    assert twin.directions_id == estimator.directions_id
    assert glai.merge([twin, estimator]).out_features == 7
    (tmp_path / "e").write_bytes(estimator.to_bytes())
    assert torch.equal(glai.PathEstimator.load(tmp_path / "e")(z, gates), after)
    with pytest.raises(ValueError, match="k must be >= 1, got 0"):
        estimator.add_outputs(0)


def test_refusals(selector):
    directions = glai.output_directions(selector)
    for bad, sentence in (
        (directions[1:], r"directions must be floating \[P=34, C=4\], got float32 \[33, 4\]"),
        (directions.int(), r"directions must be floating \[P=34, C=4\], got int32 \[34, 4\]"),
        (directions / 0, "directions must be finite"),
        (directions + 1, "the last row of directions, of the path that is always on, must be zero"),
    ):
        with pytest.raises(ValueError, match=f"PathEstimator: {sentence}"):
            glai.PathEstimator(34, 6, 4, bad)
    with pytest.raises(TypeError, match="directions must be a torch.Tensor, got list"):
        glai.PathEstimator(34, 6, 4, directions.tolist())
    with pytest.raises(ValueError, match="out_features must be >= 1, got 0"):
        glai.output_directions(selector, 0)
    with pytest.raises(ValueError, match="k must be >= 1, got 0"):
        glai.extend_directions(directions, 0)


def test_compiled_step_equals_eager(selector, samples):
    estimator = directed(selector)
    z, gates = selector.project(samples), selector.gates(samples)

    def gradients(call):
        loss = call(z, gates).square().sum()
        return torch.autograd.grad(loss, list(estimator.parameters()))

    compiled = gradients(torch.compile(estimator, backend="aot_eager"))
    for got, want in zip(compiled, gradients(estimator), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
