"""The way out: the same function in torch's modules alone, wherever torch's modules go."""

import copy
import io
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

import glai_native as glai
from conftest import make_mlp
from model.test_watched_models import FEW, MODELS, OTHERS, SAMPLES, C, make_model


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


def close(got, want):
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_the_same_function(model):
    before = copy.deepcopy(model)
    plain = glai.to_torch(model)
    close(plain(SAMPLES), model(SAMPLES))
    close(plain(SAMPLES[:0]), model(SAMPLES[:0]))
    if isinstance(model, glai.GLAI):  # of whatever type samples come
        close(plain(FEW.double()), model(FEW.double()))
        close(plain(FEW.long()), model(FEW.long()))
    for mine, theirs in zip(before.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    modules = {type(part).__module__.split(".")[0] for part in plain.modules()}
    assert modules == {"torch"}


def test_the_same_gradients(model):
    plain = glai.to_torch(model)
    gradients = []
    for one in (model, plain):
        x = FEW.clone().requires_grad_()
        one(x).square().sum().backward()
        gradients.append((x.grad, sorted(float(p.grad.norm()) for p in one.parameters() if p.requires_grad)))
    close(gradients[1][0], gradients[0][0])
    trained = sum(p.numel() for p in plain.parameters() if p.requires_grad)
    assert trained == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_values_are_in_the_units_of_y():
    values = 100 * SAMPLES[:, :2] + 7
    for y in (values, values[:, 0]):
        model = glai.GLAIRegressor((8,), random_state=0).fit(SAMPLES.numpy(), y.numpy()).model_
        torch.testing.assert_close(glai.to_torch(model)(FEW), model(FEW), rtol=1e-4, atol=1e-2)


def test_learners_and_networks_without_a_model_are_told_what_to_pass():
    learner = glai.GLAIClassifier((4,)).fit(SAMPLES[:60].numpy(), (SAMPLES[:60, 0] > 1).numpy())
    with pytest.raises(
        TypeError, match="to_torch: module must be a torch.nn.Module, got GLAIClassifier; .* model_"
    ):
        glai.to_torch(learner)
    with pytest.raises(
        ValueError, match="to_torch: module must be or hold a GLAI, got Sequential without one"
    ):
        glai.to_torch(make_mlp(3, 4, 2))


def test_a_head_that_is_held_twice_is_one_module():
    head = MODELS["head"]()[2]
    network = nn.ModuleDict({"a": head, "b": nn.Sequential(nn.Identity(), head)})
    plain = glai.to_torch(network)
    assert plain["a"] is plain["b"][1]
    close(plain["a"](FEW[:, :5]), head(FEW[:, :5]))
    assert isinstance(network["a"][0], glai.GLAIHead)


def test_heads_take_any_leading_shape():
    head = MODELS["head"]()[2][0]
    x = torch.randn(2, 3, 4, 5)
    close(glai.to_torch(head)(x), head(x))
    close(glai.to_torch(head)(x[0, 0, 0]), head(x[0, 0, 0]))


def test_scripted_traced_and_compiled(model):
    plain = glai.to_torch(model)
    expected = model(OTHERS)
    with pytest.warns(DeprecationWarning, match="jit"):
        scripted = torch.jit.script(plain)
    file = io.BytesIO()
    torch.jit.save(scripted, file)
    file.seek(0)
    for other in (
        scripted,
        torch.jit.load(file),
        torch.jit.trace(plain, FEW),
        torch.compile(plain, backend="eager"),
    ):
        close(other(OTHERS), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_of_a_model_that_was_cast_the_output_has_its_type(model, dtype):
    model = copy.deepcopy(model).to(dtype)
    plain = glai.to_torch(model)
    assert plain(FEW.to(dtype)).dtype == model(FEW.to(dtype)).dtype == dtype
    tolerance = 4 * torch.finfo(dtype).eps * float(model(FEW.to(dtype)).detach().abs().max())
    torch.testing.assert_close(plain(FEW.to(dtype)), model(FEW.to(dtype)), rtol=0, atol=max(tolerance, 1e-5))


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16, torch.double])
def test_cast(model, dtype):
    cast = glai.to_torch(model).to(dtype)
    y = cast(FEW.to(dtype))
    assert y.dtype == dtype
    off = (y.float() - model(FEW)).norm() / model(FEW).norm()
    assert off < {torch.half: 0.05, torch.bfloat16: 0.4, torch.double: 1e-5}[dtype]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_quantised(model):
    quantised = torch.ao.quantization.quantize_dynamic(glai.to_torch(model), {nn.Linear})
    assert any("quantized" in type(part).__module__ for part in quantised.modules())
    assert quantised(FEW).shape == (len(FEW), C)


ELSEWHERE = """
import sys
sys.modules["glai_native"] = None  # its import fails
import torch
x, y = torch.load(sys.argv[1])
whole = torch.load(sys.argv[2], weights_only=False)
for program in (torch.export.load(sys.argv[3]).module(), whole):
    torch.testing.assert_close(program(x), y, rtol=1e-5, atol=1e-5)
whole.load_state_dict(torch.load(sys.argv[4], weights_only=True))
torch.testing.assert_close(whole(x), y, rtol=1e-5, atol=1e-5)
print("the same")
"""


@pytest.mark.parametrize("name", ["one layer, rotated", "two layers, directions", "head"])
def test_runs_where_this_package_is_not(name, tmp_path):
    model = MODELS[name]()
    plain = glai.to_torch(model)
    files = [str(tmp_path / file) for file in ("samples.pt", "whole.pt", "program.pt2", "state.pt")]
    torch.save((OTHERS, model(OTHERS).detach()), files[0])
    torch.save(plain, files[1])
    sizes = ({0: torch.export.Dim("N", min=2)},)
    torch.export.save(torch.export.export(plain, (FEW,), dynamic_shapes=sizes), files[2])
    torch.save(plain.state_dict(), files[3])
    done = subprocess.run([sys.executable, "-c", ELSEWHERE, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the same\n"


@pytest.mark.parametrize("name", ["one layer, rotated", "two layers, directions", "pruned", "head"])
def test_onnx(name, tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    model, file = MODELS[name](), tmp_path / "model.onnx"
    torch.onnx.export(
        glai.to_torch(model).eval(),
        (FEW,),
        file,
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("N", min=2)},),
        verbose=False,
    )
    session = onnxruntime.InferenceSession(file)
    (y,) = session.run(None, {session.get_inputs()[0].name: OTHERS.numpy()})
    torch.testing.assert_close(torch.from_numpy(y), model(OTHERS).detach(), rtol=1e-4, atol=1e-4)


def test_pickled_and_copied():
    plain = glai.to_torch(make_model((5, 4)))
    for other in (copy.deepcopy(plain), pickle.loads(pickle.dumps(plain))):
        assert torch.equal(other(FEW), plain(FEW))
