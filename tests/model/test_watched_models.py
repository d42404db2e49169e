"""Whole models where something watches: compilers, exporters, tracers, transforms, copies, modes."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import cross_entropy

import glai_native as glai
from conftest import make_mlp

D, C = 8, 3
SAMPLES = torch.randn(600, D, generator=torch.Generator().manual_seed(0)) + 1
FEW, OTHERS = SAMPLES[:20], SAMPLES[100:133]


def make_model(widths, directed=False, n_components=None, pruned=False, units=False):
    projection = glai.InputProjection.fit(SAMPLES, n_components) if n_components else None
    selector = glai.PathSelector(make_mlp(n_components or D, *widths, C), projection)
    directions = "units" if units else glai.output_directions(selector) if directed else None
    model = glai.GLAI(selector, glai.PathEstimator.from_selector(selector, directions))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return glai.prune(model, selector.unit_gates(SAMPLES), keep=0.5) if pruned else model


def make_network():
    network = nn.Sequential(nn.Linear(D, 5), nn.Tanh(), nn.Sequential(*make_mlp(5, 6, C)))
    glai.replace_mlp(network, "2")
    return network


MODELS = {
    "one layer": lambda: make_model((16,)),
    "one layer, rotated": lambda: make_model((16,), n_components=6),
    "one layer, directions": lambda: make_model((16,), directed=True, n_components=D),
    "two layers": lambda: make_model((5, 4), n_components=D),
    "two layers, directions": lambda: make_model((5, 4), directed=True),
    "two layers, units": lambda: make_model((5, 4), n_components=6, units=True),
    "pruned": lambda: make_model((5, 4), pruned=True),
    "head": make_network,
}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


def close(got, want):
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_compiled_whole_for_any_number_of_samples(model):
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for n in (20, 33, 600, 2, 47):
        close(compiled(SAMPLES[:n]), model(SAMPLES[:n]))
    assert counter.frame_count <= 2  # the first number, then any


@pytest.mark.parametrize("name", ["one layer", "two layers, directions", "head"])
def test_compiled_training_step(name):
    model = MODELS[name]()
    other, counter = copy.deepcopy(model), CompileCounterWithBackend("aot_eager")
    for trained in (model, other):
        optimizer = torch.optim.Adam(trained.parameters(), lr=1e-2)

        def loss_of(x, y, trained=trained):
            return cross_entropy(trained(x), y)

        compiled = torch.compile(loss_of, backend=counter, fullgraph=True) if trained is other else loss_of
        for n in (20, 33, 47, 64):
            optimizer.zero_grad()
            compiled(SAMPLES[:n], torch.arange(n) % C).backward()
            optimizer.step()
    assert counter.frame_count <= 2
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        close(mine, theirs)


@pytest.mark.parametrize("strict", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_exported_for_any_number_of_samples(model, strict):
    sizes = ({0: torch.export.Dim("N", min=2)},)
    exported = torch.export.export(model, (FEW,), dynamic_shapes=sizes, strict=strict)
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    for program in (exported, torch.export.load(file)):
        for x in (OTHERS, SAMPLES):
            close(program.module()(x), model(x))


def test_traced(model):
    for traced in (
        torch.jit.trace(model, FEW, check_trace=False),
        make_fx(model, tracing_mode="symbolic", _allow_non_fake_inputs=True)(FEW),
    ):
        close(traced(OTHERS), model(OTHERS))
        close(traced(SAMPLES), model(SAMPLES))
    for pre_dispatch in (False, True):
        close(make_fx(model, pre_dispatch=pre_dispatch)(FEW)(SAMPLES[:20] + 1), model(SAMPLES[:20] + 1))


def test_a_traced_many_is_for_few_too(model):
    """More samples than are taken at a time: a trace of those parts would hold their number."""
    traced = torch.jit.trace(model, SAMPLES, check_trace=False)
    close(traced(FEW), model(FEW))


def test_transforms(model):
    wide = copy.deepcopy(model).double()
    x = FEW[:3].double()
    jacobian = torch.autograd.functional.jacobian(wide, x)
    close(torch.func.jacrev(wide)(x), jacobian)
    close(torch.func.jacfwd(wide)(x), jacobian)
    close(torch.func.vmap(lambda row: wide(row[None])[0])(x), wide(x))
    close(
        torch.func.vmap(torch.func.jacrev(wide))(x[:, None]).squeeze(3),
        jacobian.diagonal(0, 0, 2).movedim(-1, 0)[:, None],
    )
    with torch.no_grad():
        close(torch.func.vmap(lambda row: wide(row[None])[0])(x), wide(x))


def test_gradients_of_each_sample(model):
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    y = torch.arange(len(FEW)) % C

    def loss(parameters, x, y):
        return cross_entropy(torch.func.functional_call(model, parameters, (x[None],)), y[None])

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, FEW, y)
    cross_entropy(model(FEW), y, reduction="sum").backward()
    for name, parameter in model.named_parameters():
        close(each[name].sum(0), parameter.grad)


def test_fake_tensors(model):
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        y = model(mode.from_tensor(FEW))
        assert y.shape == (len(FEW), C)
        assert isinstance(y, torch._subclasses.FakeTensor)


def test_copies(model):
    y = model(FEW)
    assert torch.equal(copy.deepcopy(model)(FEW), y)
    assert torch.equal(pickle.loads(pickle.dumps(model))(FEW), y)
    gates = model.selector.gates(FEW) if isinstance(model, glai.GLAI) else model[2][0].gates(FEW[:, :5])
    for other in (copy.deepcopy(gates), pickle.loads(pickle.dumps(gates))):
        assert torch.equal(other.words, gates.words)


@torch.no_grad()
def test_replicas(model):
    """As DataParallel makes them: parameters become attributes."""
    y = model(FEW)
    copies = {module: module._replicate_for_data_parallel() for module in model.modules()}
    for module, replica in copies.items():
        for name, child in module._modules.items():
            replica._modules[name] = copies[child]
        for name, parameter in module._parameters.items():
            setattr(replica, name, None if parameter is None else parameter.clone())
    torch.testing.assert_close(copies[model](FEW), y)


@pytest.mark.parametrize("grad", [True, False])
def test_autocast_does_not_reach_inside(model, grad):
    if not isinstance(model, glai.GLAI):
        model = model[2][0]
    for x in (FEW[:, : model.selector.in_features], SAMPLES[:, : model.selector.in_features]):
        with torch.set_grad_enabled(grad):
            expected, gates = model(x), model.selector.gates(x)
            with torch.autocast("cpu", torch.bfloat16):
                assert torch.equal(model(x), expected)
                assert torch.equal(model.selector.gates(x).words, gates.words)


def test_subclasses_that_watch_see_the_op():
    class Watching(torch.Tensor):
        @classmethod
        def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
            names.append(str(func))
            return super().__torch_dispatch__(func, types, args, kwargs or {})

    model, names = make_model((16,)), []
    with torch.no_grad():
        y = model(FEW.as_subclass(Watching))
    assert "glai_native.gated_matmul.default" in names
    close(y.as_subclass(torch.Tensor), model(FEW))
