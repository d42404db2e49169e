"""The CUDA kernels on the host executor: all orders of lanes, copies that land at once and late."""

import pytest
import torch

import glai_native as glai
from executor import SCHEDULES, load, on_executor
from glai_native import reference as ref
from test_ops import check_bias_grad, check_forward, check_input_grad, check_weight_grad, draw
from test_path_gram import check_gram
from test_path_gram import draw as path_gram_draw
from test_path_kernel import check_kernel, pack
from test_path_kernel import draw as path_kernel_draw


@pytest.fixture(scope="session")
def executor(tmp_path_factory, request):
    """Built once, in the cache folder of pytest, so that a second run compiles only what has changed."""
    return load(request.config.cache.mkdir("simt"))


@pytest.fixture(params=SCHEDULES, ids=lambda s: f"{s[0]}-{'eager' if s[1] else 'lazy'}")
def every_schedule(request, executor):
    module, schedule = executor
    schedule(*request.param)
    with on_executor(module):
        yield


@pytest.mark.parametrize("p", [0, 1, 31, 32, 33, 100])
@pytest.mark.parametrize("n", [0, 1, 31, 33, 300])
def test_gate_bits(every_schedule, n, p):
    generator = torch.Generator().manual_seed(n + p)
    values = torch.randn((n, 2 * p), generator=generator)
    bits, other = values[:, :p] > 0, values[:, p:] > 0.3
    for source in (bits, values[:, :p], values[:, :p].double()):
        gates = glai.pack_gates(source)
        assert torch.equal(gates.words, ref.pack_gates_ref(bits))
    assert torch.equal(gates.unpack(), bits)
    assert torch.equal(gates.counts(), bits.sum(0))
    assert torch.equal(gates.hamming(glai.pack_gates(other)), (bits != other).sum(1))


@pytest.mark.parametrize("units", [(0,), (5,), (31,), (33,), (7, 0, 3), (40, 2)])
def test_path_gates(every_schedule, units):
    generator = torch.Generator().manual_seed(0)
    layers = [torch.rand((37, h), generator=generator) < 0.5 for h in units]
    paths = glai.path_gates([glai.pack_gates(layer) for layer in layers])
    assert torch.equal(paths.unpack(), ref.path_gates_ref(layers))


ARITHMETICS = ["fp32", "tf32", "fp16", "bf16", "fp64"]
DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp64": torch.float64,
}


@pytest.fixture(params=ARITHMETICS)
def arithmetic(request):
    """A dtype, and how its results are rounded."""
    tf32, before = request.param == "tf32", torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    yield DTYPES[request.param], {"tf32": tf32}
    torch.backends.cuda.matmul.allow_tf32 = before


# (N, P, D, C): zero, one, around a word, odd, more than one tile of rows, of depth, of columns, of paths.
SHAPES = [
    (0, 3, 4, 5),
    (3, 0, 4, 5),
    (3, 4, 0, 5),
    (3, 4, 5, 0),
    (1, 1, 1, 1),
    (31, 31, 31, 31),
    (33, 33, 33, 33),
    (130, 9, 17, 16),
    (70, 3, 100, 65),
    (140, 70, 8, 10),
]


def draw_as(shape, dtype, **options):
    *values, bits = draw(*shape, dtype=torch.float64, **options)
    return *(v.to(dtype) for v in values), bits


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gated_matmul(every_schedule, arithmetic, shape):
    dtype, rounding = arithmetic
    x, weight, bias, dy, bits = draw_as(shape, dtype)
    gates = glai.pack_gates(bits)
    for w in (weight, weight.mT.contiguous().mT):
        check_forward(glai.gated_matmul(x, gates, w), x, bits, w, None, **rounding)
        check_forward(glai.gated_matmul(x, gates, w, bias), x, bits, w, bias, **rounding)
        check_input_grad(glai.gated_matmul_input_grad(dy, gates, w), dy, bits, w, **rounding)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gated_matmul_weight_grad(every_schedule, arithmetic, shape):
    dtype, rounding = arithmetic
    x, weight, bias, dy, bits = draw_as(shape, dtype)
    gates = glai.pack_gates(bits)
    check_weight_grad(glai.gated_matmul_weight_grad(x, gates, dy), x, bits, dy, **rounding)
    start = weight.clone()
    glai.gated_matmul_weight_grad(x, gates, dy, out=start, accumulate=True)
    check_weight_grad(start, x, bits, dy, added_to=weight, **rounding)
    glai.gated_matmul(x, gates, weight, bias.requires_grad_()).backward(dy)
    check_bias_grad(bias.grad, bits, dy, **rounding)


# (Na, Nb, D, units per layer)
KERNEL_SHAPES = [
    (0, 3, 4, (5,)),
    (3, 4, 0, (0,)),
    (33, 31, 33, (33, 65)),
    (130, 70, 40, (32,)),
    (70, 200, 8, (9, 0, 3)),
]


@pytest.mark.parametrize("shape", KERNEL_SHAPES, ids=str)
def test_path_kernel(every_schedule, arithmetic, shape):
    dtype, rounding = arithmetic
    na, nb, d, units = shape
    (xa, layers_a), (xb, layers_b) = (path_kernel_draw(n, d, units, seed=n) for n in (na, nb))
    xa, xb = xa.to(dtype), xb.to(dtype)
    kernel = glai.path_kernel(xa, pack(layers_a), xb, pack(layers_b))
    check_kernel(kernel, xa, layers_a, xb, layers_b, **rounding)
    symmetric = glai.path_kernel(xa, pack(layers_a))
    check_kernel(symmetric, xa, layers_a, xa, layers_a, **rounding)
    assert torch.equal(symmetric, symmetric.T)


# (N, P, D)
GRAM_SHAPES = [(0, 3, 4), (3, 0, 4), (3, 4, 0), (33, 33, 3), (60, 3, 31), (90, 2, 130), (9000, 2, 2)]


@pytest.mark.parametrize("shape", GRAM_SHAPES, ids=str)
@pytest.mark.parametrize("arithmetic", ["fp32", "tf32", "fp64"], indirect=True)
def test_path_gram(every_schedule, arithmetic, shape):
    dtype, rounding = arithmetic
    x, bits, weight = path_gram_draw(*shape, dtype)
    gates = glai.pack_gates(bits)
    out = glai.path_gram(x, gates)
    check_gram(out, x, bits, **rounding)
    start = out.clone()
    glai.path_gram(x, gates, weight, out=out)
    check_gram(out, x, bits, weight, added_to=start, **rounding)


def test_strided_inputs(executor, arithmetic):
    dtype, rounding = arithmetic
    n, p, d, c = 40, 35, 24, 16
    x, weight, bias, dy, bits = draw_as((2 * n, 2 * p, 2 * d, 2 * c), dtype)
    bits = bits[:n, :p]
    views = {
        "slices": (
            x[5 : 5 + n, 3 : 3 + d],
            weight[1 : 1 + p, 2 : 2 + d, 4 : 4 + c],
            bias[:p, 1 : 1 + c],
            dy[:n, 2 : 2 + c],
        ),
        "aligned slices": (x[5 : 5 + n, 8 : 8 + d], weight[1 : 1 + p, :d, 16:], bias[:p, :c], dy[:n, :c]),
        "steps": (x[::2, ::2], weight[::2, ::2, ::2], bias[::2, ::2], dy[::2, ::2]),
        "expanded": (
            x[:1, :d].expand(n, d),
            weight[:1, :d, :c].expand(p, d, c),
            bias[:1, :1].expand(p, c),
            dy[:1, :1].expand(n, c),
        ),
    }
    gates = glai.pack_gates(bits)
    with on_executor(executor[0]):
        for x, weight, bias, dy in views.values():
            check_forward(glai.gated_matmul(x, gates, weight, bias), x, bits, weight, bias, **rounding)
            check_input_grad(glai.gated_matmul_input_grad(dy, gates, weight), dy, bits, weight, **rounding)
            out = torch.full((p + 2, d + 3, c + 5), 7.0, dtype=dtype)
            glai.gated_matmul_weight_grad(x, gates, dy, out=out[1:-1, 2:-1, 3:-2])
            check_weight_grad(out[1:-1, 2:-1, 3:-2], x, bits, dy, **rounding)
            out[1:-1, 2:-1, 3:-2] = 7
            assert (out == 7).all()


def test_what_is_off_has_no_effect(executor, arithmetic):
    """A NaN or infinity reaches the samples whose path is on, and nobody else."""
    dtype, _ = arithmetic
    x, weight, _, dy, bits = draw_as((300, 9, 40, 10), dtype)
    bits[:, 4] = False
    gates = glai.pack_gates(bits)
    with on_executor(executor[0]):
        weight[4] = float("nan")
        assert torch.isfinite(glai.gated_matmul(x, gates, weight)).all()
        assert torch.isfinite(glai.gated_matmul_input_grad(dy, gates, weight)).all()
        weight[2] = float("inf")
        y = glai.gated_matmul(x, gates, weight)
        assert torch.equal(~torch.isfinite(y).all(1), bits[:, 2])
        bits[3] = False
        x[3], dy[3] = float("inf"), float("nan")
        out = torch.full((9, 40, 10), float("nan"), dtype=dtype)
        glai.gated_matmul_weight_grad(x, glai.pack_gates(bits), dy, out=out)
        assert torch.isfinite(out).all()
        assert (out[4] == 0).all()


def test_graph_of_the_timed_step(executor, generator):
    """The gradient of a loss through all three products, as training takes it."""
    x, weight, bias, _, bits = draw(64, 17, 50, 10)
    gates = glai.pack_gates(bits)
    leaves = [t.requires_grad_() for t in (x, weight, bias)]
    expected = torch.autograd.grad(glai.gated_matmul(x, gates, weight, bias).square().sum(), leaves)
    with on_executor(executor[0]):
        actual = torch.autograd.grad(glai.gated_matmul(x, gates, weight, bias).square().sum(), leaves)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


def test_sums_do_not_depend_on_the_schedule(executor, arithmetic):
    dtype, _ = arithmetic
    x, weight, bias, dy, bits = draw_as((140, 20, 70, 20), dtype)
    gates = glai.pack_gates(bits)
    module, schedule = executor
    results = []
    with on_executor(module):
        for order, eager in SCHEDULES:
            schedule(order, eager, seed=7)
            y = glai.gated_matmul(x, gates, weight, bias)
            results.append((y, glai.gated_matmul_weight_grad(x, gates, dy)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_what_cuda_does_not_take(executor):
    x, weight, _, dy, bits = draw(5, 4, 3, 2)
    gates = glai.pack_gates(bits)
    with on_executor(executor[0]):
        with pytest.raises(ValueError, match="gated_matmul: form must be None on cuda, got 'compaction'"):
            glai.gated_matmul(x, gates, weight, form="compaction")
        with pytest.raises(ValueError, match="weight_grad: form must be None on cuda, got 'subset_sums'"):
            glai.gated_matmul_weight_grad(x, gates, dy, form="subset_sums")
        with pytest.raises(ValueError, match="path_kernel: layers_a must be at most 16 on cuda, got 17"):
            glai.path_kernel(x, [gates] * 17)
        with pytest.raises(ValueError, match="path_gram: x must be float32 or float64"):
            glai.path_gram(x.half(), gates)
