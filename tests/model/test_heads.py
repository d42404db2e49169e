"""A GLAI head in an MLP's place: the same function, the same gradient, and only the linear part is trained."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import glai_native as glai
from conftest import make_mlp
from glai_bench.heads import tasks
from glai_native.data.labelled import load_data


@pytest.fixture(autouse=True)
def one_thread(threads):
    """Shapes are too small for more."""
    threads(1)


class Network(nn.Module):
    """A backbone and an MLP of D=12 inputs."""

    def __init__(self, head, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(1)
        self.backbone = nn.Linear(7, 12).to(dtype)
        self.head = head

    def forward(self, x):
        return self.head(self.backbone(x))


def inputs(*shape, dtype=torch.float64):
    return torch.randn(*shape, 7, generator=torch.Generator().manual_seed(2), dtype=dtype)


def network(*hidden, outputs=5, dtype=torch.float64):
    return Network(make_mlp(12, *(hidden or (33,)), outputs, dtype=dtype), dtype)


def assert_same(actual, expected):
    """Relative 1e-10, DESIGN's bound for exact emulation in float64."""
    actual, expected = actual.detach(), expected.detach()
    assert actual.shape == expected.shape
    if expected.numel():
        assert float((actual - expected).abs().max()) <= 1e-10 * float(expected.abs().max())


@pytest.mark.parametrize("directions", [None, False, True, "units"])
@pytest.mark.parametrize("hidden", [(1,), (33,), (6, 5), (3, 4, 2)])
def test_output_and_gradients_are_the_mlps(hidden, directions):
    model = network(*hidden)
    x = inputs(4, 9)
    expected = model(x)
    expected.square().sum().backward()
    gradient = model.backbone.weight.grad.clone()
    model.zero_grad()
    head = glai.replace_mlp(model, "head", directions=directions)
    assert model.head[0] is head
    assert isinstance(head, glai.GLAI)
    kind = "output directions" if directions is True else directions or "full paths"
    assert head.estimator.kind == kind
    actual = model(x)
    assert_same(actual, expected)
    actual.square().sum().backward()
    assert_same(model.backbone.weight.grad, gradient)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (32,), (0, 3), (2, 3, 5)])
def test_any_leading_shape(shape):
    model = network()
    x = inputs(*shape)
    expected = model(x)
    head = glai.replace_mlp(model)
    assert_same(model(x), expected)
    features = model.backbone(x)
    assert len(head.gates(features)) == features.numel() // 12
    assert_same(head(features, head.gates(features)), expected)
    strided = torch.stack([features, features], dim=-1)[..., 0]
    assert_same(head(strided), expected)


def test_only_the_estimator_is_trained():
    model = network(dtype=torch.float32)
    head = glai.replace_mlp(model)
    assert [name for name, _ in head.named_parameters()] == ["estimator.weight", "estimator.bias"]
    structure = {name: buffer.clone() for name, buffer in head.selector.named_buffers()}
    features = model.backbone(inputs(64, dtype=torch.float32)).detach()
    gates, target = head.gates(features), torch.arange(64) % 5
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(model(inputs(64, dtype=torch.float32)), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(structure[name], buffer) for name, buffer in head.selector.named_buffers())
    assert torch.equal(head.gates(features).words, gates.words)
    assert model.backbone.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("components", [None, 12])
def test_projection_keeps_the_output(components):
    model = network()
    x = inputs(50)
    expected = model(x)
    projection = glai.InputProjection.fit(model.backbone(x).detach() * 3 + 1, components)
    head = glai.replace_mlp(model, projection=projection)
    assert head.selector.projection.kind == ("centring" if components is None else "rotation")
    assert_same(model(x), expected)
    with pytest.raises(ValueError, match=r"projection must keep all D=12 features.*got 12 to 4"):
        glai.replace_mlp(network(), projection=glai.InputProjection.fit(torch.randn(50, 12), 4))
    with pytest.raises(ValueError, match=r"projection must keep all D=12 features.*got 9 to 9"):
        glai.replace_mlp(network(), projection=glai.InputProjection.identity(9))
    head = glai.replace_mlp(network(), projection=glai.InputProjection.identity(12))
    assert head.selector.projection.kind == "identity"


def test_what_precedes_the_mlp_stays():
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv1d(2, 3, 2), nn.ReLU(), nn.Flatten(), *make_mlp(9, 8, 4), nn.Dropout()
    ).eval()
    x = torch.randn(6, 2, 4)
    expected = model(x)
    before = {name: value for name, value in model.state_dict().items() if name.startswith("0.")}
    head = glai.replace_mlp(model)
    assert list(dict(model.named_children())) == ["0", "1", "2", "3"]
    assert model[3] is head
    assert not head.training
    assert before.keys() <= model.state_dict().keys()
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_and_dropout_are_folded_as_in_eval_mode(affine):
    torch.manual_seed(4)
    model = nn.Sequential(
        nn.Linear(6, 9, bias=False),
        nn.BatchNorm1d(9, affine=affine),
        nn.Dropout(0.5),
        nn.ReLU(),
        nn.Identity(),
        nn.Linear(9, 4),
        nn.BatchNorm1d(4, affine=affine),
    ).double()
    for norm in (model[1], model[6]):
        if affine:
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    for _ in range(5):
        model(torch.randn(20, 6, dtype=torch.float64) * 2 + 1)
    x = torch.randn(7, 6, dtype=torch.float64)
    expected = model.eval()(x)
    glai.replace_mlp(model, "")
    assert len(model) == 1
    assert_same(model(x), expected)


@pytest.mark.parametrize("sizes", [(768, 96, 77), (1280, 40, 1000), (400, 1000, 1000, 3)])
def test_wide_heads_are_of_units(sizes):
    """Of two layers of 1,000 units, too, which make a million paths."""
    model = nn.ModuleDict({"wide": make_mlp(*sizes)})
    x = torch.randn(3, sizes[0])
    expected = model["wide"](x)
    head = glai.replace_mlp(model)
    assert head.estimator.kind == "units"
    assert head.estimator.trained_parameters == (sizes[-2] + sizes[0] + 1) * sizes[-1]
    torch.testing.assert_close(model["wide"](x), expected, rtol=1e-5, atol=1e-6)
    gates = head.gates(x)  # of the one path, so that a loop over cached gates needs no other form
    assert torch.equal(head(x, gates), head(x))
    head.estimator.record(gates, torch.arange(3) % sizes[-1])


def test_the_kind_is_that_of_a_new_model_of_fit():
    """Full paths up to 2^20 numbers."""
    for outputs, kind in ((127, "full paths"), (129, "units")):
        assert glai.replace_mlp(make_mlp(255, 31, outputs), "").estimator.kind == kind


@pytest.mark.parametrize("directions", ["paths", 1, torch.zeros(9, 5)])
def test_other_kinds_are_refused(directions):
    model = network()
    with pytest.raises(ValueError, match="replace_mlp: directions must be True, False, 'units' or None, got"):
        glai.replace_mlp(model, directions=directions)
    assert isinstance(model.head, nn.Sequential)
    assert len(model.head) == 3


@pytest.mark.parametrize("directions", [False, True, "units"])
def test_output_layer_of_zeros(directions):
    """As blocks of residual networks often start; along directions, only random ones are left."""
    mlp = make_mlp(3, 8, 2, dtype=torch.float64)
    nn.init.zeros_(mlp[2].weight)
    x = torch.randn(5, 3, dtype=torch.float64)
    expected = mlp(x)
    head = glai.replace_mlp(mlp, "", directions=directions)
    assert_same(mlp(x), expected)
    mlp(x).sum().backward()
    assert all(bool(parameter.grad.any()) for parameter in head.parameters())


@pytest.mark.parametrize(
    ("module", "name", "message"),
    [
        (nn.Linear(3, 2), None, "must hold one MLP, an nn.Sequential that ends in .*found none$"),
        (nn.ModuleDict({"a": make_mlp(3, 2, 2), "b": make_mlp(3, 2, 2)}), None, "found 'a', 'b'; name one"),
        (nn.Linear(3, 2), "head", "must have a submodule 'head', it has none"),
        (nn.ModuleDict({"head": nn.Linear(3, 2)}), "head", r"'head' must be an nn.Sequential.*got Linear$"),
        (
            nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)),
            "",
            r"got Sequential of \(Linear, GELU, Linear\)",
        ),
        (
            nn.Sequential(*make_mlp(3, 4, 2), nn.Softmax(-1)),
            "",
            r"got Sequential of \(Linear, ReLU, Linear, Softmax\)",
        ),
        (nn.Sequential(nn.Linear(3, 2)), "", r"got Sequential of \(Linear\)"),
        (
            nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(2)),
            "",
            r"\(LazyLinear, ReLU, LazyLinear\)",
        ),
        (make_mlp(3, 4, 2).bfloat16(), "", r"'' must be all float32 or all float64, got bfloat16"),
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2).double()), "", "got float32, float64"),
    ],
)
def test_what_is_refused(module, name, message):
    before = list(module.named_modules())
    with pytest.raises(ValueError, match=message):
        glai.replace_mlp(module, name)
    assert list(module.named_modules()) == before


def test_hooks_are_not_lost_silently():
    mlp = make_mlp(3, 4, 2)
    prune.l1_unstructured(mlp[0], "weight", amount=0.5)
    with pytest.raises(ValueError, match=r"must have no forward hooks.*layer '0' has"):
        glai.replace_mlp(mlp, "")
    prune.remove(mlp[0], "weight")
    glai.replace_mlp(mlp, "")


def test_wrong_inputs_are_refused():
    head = glai.replace_mlp(network())
    for bad in (torch.zeros(()), torch.zeros(3, 11), torch.zeros(12, 3)):
        with pytest.raises(ValueError, match=r"GLAIHead: x must be \[..., D=12\], got"):
            head(bad)


@pytest.mark.parametrize("directions", [None, "units"])
def test_state_round_trip(directions):
    trained, fresh = (network(dtype=torch.float32) for _ in range(2))
    for model in (trained, fresh):
        glai.replace_mlp(model, directions=directions)
    with torch.no_grad():
        trained.head[0].estimator.weight += 0.1
    fresh.load_state_dict(trained.state_dict())
    x = inputs(5, dtype=torch.float32)
    assert torch.equal(fresh(x), trained(x))
    assert torch.equal(copy.deepcopy(trained)(x), trained(x))
    other = Network(make_mlp(12, 33, 5, seed=9), torch.float32)
    glai.replace_mlp(other, directions=directions)
    other.load_state_dict(trained.state_dict())  # of another structure, which comes along
    assert torch.equal(other(x), trained(x))


@pytest.mark.parametrize("directions", [None, "units"])
def test_files(tmp_path, directions):
    model = network()
    head = glai.replace_mlp(model, directions=directions)
    head.save(tmp_path)
    loaded = glai.GLAIHead.load(tmp_path)
    features = model.backbone(inputs(2, 3))
    assert torch.equal(loaded(features), head(features))


@pytest.mark.parametrize("hidden", [(33,), (6, 5)])
@pytest.mark.parametrize("directions", [False, True, "units"])
def test_autocast_does_not_reach_inside(hidden, directions):
    model = network(*hidden, dtype=torch.float32)
    x = inputs(8, dtype=torch.float32)
    head = glai.replace_mlp(model, directions=directions)
    with torch.autocast("cpu", torch.bfloat16):
        features = model.backbone(x)
        actual = head(features)
        gates = head.gates(features)
    assert features.dtype == torch.bfloat16
    assert actual.dtype == torch.float32
    assert torch.equal(actual, head(features.float()))
    assert torch.equal(gates.words, head.gates(features.float()).words)


@pytest.mark.filterwarnings("ignore:Dynamo does not know how to trace")  # gates are a graph break
@pytest.mark.parametrize("directions", [False, True, "units"])
def test_inside_a_compiled_model(directions):
    model = network(dtype=torch.float32)
    glai.replace_mlp(model, directions=directions)
    x = inputs(8, dtype=torch.float32)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager")
    actual = compiled(x)
    torch.testing.assert_close(actual, model(x))
    actual.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def info_nce(a, b, temperature=0.2):
    """Each sample of a against all of b, its own partner the right one."""
    a, b = nn.functional.normalize(a, dim=-1), nn.functional.normalize(b, dim=-1)
    return nn.functional.cross_entropy(a @ b.T / temperature, torch.arange(len(a)))


def test_projection_head_under_a_contrastive_loss():
    """Two views of the same samples, noise on them: the loss falls, and partners are found more often."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(64, 16, generator=generator)

    def views():
        return (x + torch.randn(x.shape, generator=generator) for _ in range(2))

    head = glai.replace_mlp(nn.Sequential(nn.Flatten(), *make_mlp(16, 32, 8)))
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = info_nce(*(head(view) for view in views()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.85 * sum(losses[:5])


@pytest.mark.parametrize("shots", [1, 5])
def test_few_shots_of_new_classes(data_folder, shots):
    """On BANKING77's embeddings, 5 ways: no worse than chance allows beside the same MLP and linear softmax."""
    data = load_data(data_folder / "banking77_minilm.npz")
    projection = glai.InputProjection.fit(data.x_train)
    data = replace(data, x_train=projection(data.x_train), x_test=projection(data.x_test))
    base_classes, new = torch.arange(40), torch.arange(40, 77)
    chosen = torch.isin(data.y_train, base_classes)
    base = tasks.base_mlp(data.x_train[chosen], data.y_train[chosen], hidden=32, epochs=1)

    def mean(kind):
        trials = [tasks.episode(kind, base, data, new, shots, 3e-3, seed) for seed in range(4)]
        return sum(trial.accuracy for trial in trials) / len(trials)

    ours = mean("GLAI, given structure of base")
    assert ours > {1: 75, 5: 88}[shots]
    assert ours > max(mean("linear"), mean("MLP from base")) - 10


class Doubling(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Leaky(nn.ReLU):
    def forward(self, x):
        return torch.where(x > 0, x, 0.1 * x)


def shared_layers(kind):
    """Sequentials that hold one module more than once."""
    relu, square, out = nn.ReLU(inplace=True), nn.Linear(6, 6), nn.Linear(6, 3)
    dropout = nn.Dropout(0.5)
    return {
        "one ReLU": [nn.Linear(6, 5), relu, nn.Linear(5, 6), relu, out],
        "one Linear": [square, relu, square, nn.ReLU(), out],
        "one Linear, also before": [square, nn.Tanh(), square, relu, out],
        "one Dropout": [
            nn.Linear(6, 5),
            dropout,
            relu,
            dropout,
            nn.Linear(5, 6),
            dropout,
            relu,
            out,
            dropout,
        ],
        "after Flatten": [nn.Flatten(), square, relu, nn.Linear(6, 4), relu, nn.Linear(4, 3)],
    }[kind]


@pytest.mark.parametrize(
    "kind", ["one ReLU", "one Linear", "one Linear, also before", "one Dropout", "after Flatten"]
)
def test_layers_that_are_held_twice(kind):
    torch.manual_seed(0)
    network = nn.Sequential(*shared_layers(kind)).double().eval()
    x = torch.randn(20, 6, dtype=torch.float64)
    expected = network(x)
    head = glai.replace_mlp(network)
    assert_same(network(x), expected)
    assert network[-1] is head or isinstance(network[-1], glai.GLAIHead)


def test_an_mlp_that_is_held_twice():
    mlp = make_mlp(6, 5, 6).double()
    network = nn.Sequential(mlp, nn.Tanh(), mlp)
    x = torch.randn(20, 6, dtype=torch.float64)
    expected = network(x)
    glai.replace_mlp(network, "0")
    assert_same(network(x), expected)
    assert network[2] is network[0]


def test_a_tail_that_ends_in_the_shared_relu_is_none():
    relu = nn.ReLU()
    network = nn.Sequential(nn.Linear(6, 5), relu, nn.Linear(5, 3), relu)
    with pytest.raises(ValueError, match="found none"):
        glai.replace_mlp(network)


@pytest.mark.parametrize("layer", [Doubling(5, 5), Leaky(), nn.LeakyReLU(), nn.GELU(), nn.AlphaDropout()])
def test_layers_that_compute_something_else_are_no_mlp(layer):
    network = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), layer, nn.Linear(5, 3))
    with pytest.raises(ValueError, match="found none"):
        glai.replace_mlp(network)
    patched = make_mlp(6, 5, 3)
    patched[1].forward = lambda x: x
    with pytest.raises(ValueError, match="found none"):
        glai.replace_mlp(patched)


def test_backward_hooks_are_refused():
    network = make_mlp(6, 5, 3)
    handle = network[0].register_full_backward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="must have no backward hooks, they would be lost; layer '0' has"):
        glai.replace_mlp(network)
    handle.remove()
    glai.replace_mlp(network)


def test_functional_mlps_are_not_found():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 3)

        def forward(self, x):
            return self.b(torch.relu(self.a(x)))

    with pytest.raises(
        ValueError, match="module must hold one MLP, an nn.Sequential that ends in .*, found none"
    ):
        glai.replace_mlp(Functional())
