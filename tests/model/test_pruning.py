"""Pruning: the output stays, and a structure of fewer paths is a structure like any other."""

import json
import math
import struct

import pytest
import torch

import glai_native as glai
from glai_native.cli.structures.inspection import model_sizes
from glai_native.gates.paths import all_paths, units_of_paths
from glai_native.structure.selector import PathSelector
from model.conftest import assert_same_output, make_model

WIDTHS = [(9,), (5, 4), (4, 3, 2), (33,), (3, 33)]


@pytest.mark.parametrize("widths", WIDTHS)
def test_prune_keeps_the_output_and_drops_all_that_is_constant(tmp_path, x, widths):
    model = make_model(widths, x)
    counts = model.selector.gates(x).counts()
    store = glai.GateStore.create(tmp_path / "gates", model.selector)
    store.append(model.selector.unit_gates(x[:20]))
    store.append(model.selector.unit_gates(x[20:]))
    pruned = glai.prune(model, store)
    assert_same_output(pruned, model, x)
    now = pruned.selector.gates(x).counts()
    assert now.min() > 0
    assert (now == len(x)).sum() == 1  # the constant path
    varying = int(((counts > 0) & (counts < 60)).sum())
    assert pruned.selector.n_paths == pruned.estimator.n_paths == varying - folded(model, x) + 1
    assert pruned.selector.parent_id == model.structure_id != pruned.structure_id
    assert (pruned.selector.kept_paths is None) == (len(widths) == 1)
    before, after = model_sizes(model), model_sizes(pruned)
    for name in ("paths", "parameters", "trained_parameters", "bytes"):
        assert after[name] < before[name]
    assert torch.equal(now, pruned.estimator.on_counts.sum(1))
    assert int(pruned.estimator.samples_seen) == 60
    again = glai.prune(pruned, pruned.selector.unit_gates(x))
    assert again.structure_id == pruned.structure_id
    assert again.selector.parent_id == model.structure_id


def folded(model, x):
    """Paths that are neither never nor always on and have the gate of another, with an always-on unit replaced."""
    widths = model.selector.widths
    units = torch.stack(units_of_paths(all_paths(widths), widths), dim=1).tolist()
    always = [
        set((layer.counts() == len(x)).nonzero()[:, 0].tolist()) for layer in model.selector.unit_gates(x)
    ]
    counts = model.selector.gates(x).counts().tolist()
    return sum(
        0 < count < len(x) and any(unit in on for unit, on in zip(path, always, strict=True))
        for path, count in zip(units, counts, strict=True)
    )


def test_one_hidden_layer_loses_its_constant_units(x):
    model = make_model((9,), x)
    pruned = glai.prune(model, model.selector.unit_gates(x))
    counts = model.selector.unit_gates(x)[0].counts()
    used = (counts > 0) & (counts < 60)
    assert torch.equal(pruned.selector.hidden[0][0], model.selector.hidden[0][0][used])
    expected = model.estimator.weight[-1] + model.estimator.weight[:-1][counts == 60].sum(0)
    torch.testing.assert_close(pruned.estimator.weight[-1], expected)


@pytest.mark.parametrize("widths", [(3,), (3, 2)])
@pytest.mark.parametrize("bias", [-1000.0, 1000.0])
def test_nothing_but_the_constant_path_may_be_left(tmp_path, x, widths, bias):
    model = make_model(widths, x, constant=False)
    hidden = [(weight, torch.full_like(b, bias)) for weight, b in model.selector.hidden]
    selector = PathSelector.from_layers(model.selector.projection, hidden)
    model.estimator.structure_id = None
    model = glai.GLAI(selector, model.estimator)
    pruned = glai.prune(model, selector.unit_gates(x))
    assert (pruned.selector.n_paths, pruned.selector.widths) == (1, (*widths[:-1], 1))
    assert_same_output(pruned, model, x)
    pruned.save(tmp_path)
    assert torch.equal(glai.GLAI.load(tmp_path)(x), pruned(x))


def test_nothing_to_prune(x):
    model = make_model((5, 4), x[:1], constant=False)
    everything = [glai.pack_gates(torch.eye(width)[torch.arange(60) % width]) for width in (5, 4)]
    pruned = glai.prune(model, everything)
    assert pruned.structure_id == model.structure_id
    assert pruned.selector.parent_id is None
    assert torch.equal(pruned.estimator.weight, model.estimator.weight)
    assert pruned.estimator.weight.data_ptr() != model.estimator.weight.data_ptr()


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("share", [1.0, 0.5, 1e-9])
@torch.no_grad()
def test_prune_by_share(x, widths, share):
    model = make_model(widths, x)
    gates = model.selector.unit_gates(x)
    exact, pruned = glai.prune(model, gates), glai.prune(model, gates, keep=share)
    n = exact.selector.n_paths
    assert pruned.selector.n_paths == math.ceil(share * n)
    # What varies most is left with the weights it had; of the others, their mean is in the constant path.
    weight, bias = exact.estimator.weight, exact.estimator.bias
    on = exact.selector.gates(x).counts().double() / 60
    worth = (weight.square().sum((1, 2)) + bias.square().sum(1)).sqrt() * (on * (1 - on)).sqrt()
    order = worth[:-1].argsort(descending=True)
    left = order[: pruned.selector.n_paths - 1].sort().values
    gone = order[pruned.selector.n_paths - 1 :]
    assert torch.equal(pruned.estimator.weight[:-1], weight[left])
    expected = weight[-1] + (on[gone, None, None] * weight[gone]).sum(0)
    torch.testing.assert_close(pruned.estimator.weight[-1], expected)
    torch.testing.assert_close(pruned.estimator.bias[-1], bias[-1] + (on[gone, None] * bias[gone]).sum(0))
    gates = exact.selector.gates(x).unpack()
    assert torch.equal(pruned.selector.gates(x).unpack()[:, :-1], gates[:, left])
    # The same by the value between what stays and what goes.
    if len(left):
        value = float(worth[left].min()) * (1 - 1e-9)
        same = glai.prune(model, model.selector.unit_gates(x), min_norm=value)
        assert same.structure_id == pruned.structure_id


def test_prune_refuses(x, samples):
    model = make_model((5, 4), x)
    gates = model.selector.unit_gates(x)
    other = make_model((5, 4), x, seed=1)
    for bad, sentence in (
        (dict(gates=gates[:1]), r"layers must have widths \[5, 4\], got \[5\]"),
        (dict(gates=gates[0]), "must be a sequence of PackedGates"),
        (dict(gates=other.selector.unit_gates(x)), "must be of structure_id"),
        (dict(gates=[layer[:0] for layer in gates]), "at least one sample"),
        (dict(gates=gates, keep=0.0), r"keep must be in \(0, 1\], got 0.0"),
        (dict(gates=gates, keep=float("nan")), "keep must be"),
        (dict(gates=gates, min_norm=-1.0), "min_norm must be >= 0, got -1.0"),
        (dict(gates=gates, min_norm=1.0, keep=0.5), "min_norm or keep, not both"),
    ):
        with pytest.raises((TypeError, ValueError), match=sentence):
            glai.prune(model, **bad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_pruned_structure_is_a_structure(tmp_path, x, dtype):
    """Files, store, state, merging, refusals: as of any other."""
    x = x.to(dtype)
    parent = make_model((5, 4), x)
    model = glai.prune(parent, parent.selector.unit_gates(x), keep=0.6)
    model.save(tmp_path / "model")
    loaded = glai.GLAI.load(tmp_path / "model")
    assert torch.equal(loaded(x), model(x))
    assert loaded.structure_id == model.structure_id
    assert loaded.selector.parent_id == parent.structure_id
    assert torch.equal(loaded.selector.kept_paths, model.selector.kept_paths)

    store = glai.GateStore.create(tmp_path / "gates", loaded.selector)
    store.append(loaded.selector.unit_gates(x))
    store = glai.GateStore.open(tmp_path / "gates")
    store.append(loaded.selector.unit_gates(x[:3]))
    store = glai.GateStore.open(tmp_path / "gates")
    gates = store.batch(range(60))
    assert torch.equal(gates.unpack(), model.selector.gates(x).unpack())
    assert torch.equal(model(x, gates), model(x))
    assert torch.equal(store.batch([60, 61]).unpack(), gates[:2].unpack())

    merged = glai.merge([model, loaded])
    assert merged.structure_id == model.structure_id
    torch.testing.assert_close(merged(x), model(x))
    with pytest.raises(ValueError, match="must share one structure"):
        glai.merge([model, parent])
    with pytest.raises(ValueError, match="gates must be of structure_id"):
        parent.estimator(x, gates)
    with pytest.raises(ValueError, match="structure_id"):
        parent.load_state_dict(model.state_dict())
    with pytest.raises(ValueError, match="holds a model of another structure"):
        parent.save(tmp_path / "model")
    with pytest.raises(ValueError, match="no output layer"):
        glai.PathEstimator.from_selector(model.selector)
    with pytest.raises(ValueError, match="selector must keep all paths"):
        glai.PathKernelModel(model.selector)


@pytest.mark.parametrize(
    ("kept", "sentence"),
    [
        ([0, 1], "must ascend within"),
        ([3, 1, 29], "out of order"),
        ([3, 3, 29], "out of order"),
        ([-1, 29], "must ascend within"),
        ([29, 30], "must ascend within"),
        ([], "must be int64"),
    ],
)
def test_kept_paths_are_checked(x, kept, sentence):
    selector = make_model((5, 4), x).selector
    with pytest.raises(ValueError, match=sentence):
        PathSelector.from_layers(selector.projection, selector.hidden, torch.tensor(kept, dtype=torch.int64))


def test_all_paths_kept_are_the_structure_itself(x):
    selector = make_model((5, 4), x).selector
    same = PathSelector.from_layers(selector.projection, selector.hidden, torch.arange(30))
    assert same.structure_id == selector.structure_id
    assert same.kept_paths is None


def test_the_id_covers_the_kept_paths_and_an_older_reader_refuses_them(tmp_path, x):
    model = make_model((5, 4), x)
    ids = {
        PathSelector.from_layers(
            model.selector.projection, model.selector.hidden, torch.tensor(kept)
        ).structure_id
        for kept in ([1, 29], [2, 29], [29])
    }
    assert len(ids | {model.structure_id}) == 4
    glai.prune(model, model.selector.unit_gates(x)).save(tmp_path)
    data = (tmp_path / "structure.safetensors").read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    assert json.loads(data[8 : 8 + size])["__metadata__"]["version"] == "3"
