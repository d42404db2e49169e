"""The CUDA kernels: on the host executor, in all orders of lanes and with copies that land at once and late; and,
where there is one, on a GPU."""

from contextlib import contextmanager
from unittest import mock

import pytest
import torch

import glai_native as glai
import glai_native._native as _native
from conftest import make_mlp
from executor import SCHEDULES, SHARED_KIB, on_executor
from glai_native.machine import backend
from glai_native.ops.gated_linear import _apply_gates
from glai_native.ops.gated_matmul import gated_matmul as ops
from glai_native.ops.gated_matmul import gated_matmul_autograd as gated_products
from glai_native.ops.gated_matmul import operands
from glai_native.ops.gated_matmul import oracle as ref
from test_gated_linear import check_gradients, check_linear
from test_gated_linear import draw as linear_draw
from test_ops import check_bias_grad, check_forward, check_input_grad, check_weight_grad, draw
from test_path_gram import check_gram
from test_path_gram import draw as path_gram_draw
from test_path_kernel import check_kernel, pack
from test_path_kernel import draw as path_kernel_draw
from test_selector_gates import check_gates
from test_selector_gates import draw as selector_draw


def name_of(machine):
    return machine if machine == "gpu" else f"{machine[0]}-{'eager' if machine[1] else 'lazy'}"


@pytest.fixture(params=[*SCHEDULES, pytest.param("gpu", marks=pytest.mark.gpu)], ids=name_of)
def place(request):
    """Where kernels run: a function that puts a tensor, or gates, there."""
    if request.param == "gpu":
        yield lambda t: t.to("cuda")
        return
    module, schedule = request.getfixturevalue("executor")
    # Kernels choose by the memory that there is: of an H100 with one order of lanes.
    schedule(*request.param, shared_kib=SHARED_KIB[request.param[0] == "reverse"])
    with on_executor(module):
        yield lambda t: t


@pytest.mark.parametrize("p", [0, 1, 31, 32, 33, 100])
@pytest.mark.parametrize("n", [0, 1, 31, 33, 300])
def test_gate_bits(place, n, p):
    generator = torch.Generator().manual_seed(n + p)
    values = torch.randn((n, 2 * p), generator=generator)
    bits, other = values[:, :p] > 0, values[:, p:] > 0.3
    for source in (bits, values[:, :p], values[:, :p].double(), values[:, :p].half()):
        gates = glai.pack_gates(place(source))
        assert torch.equal(gates.words.cpu(), ref.pack_gates_ref(bits))
    assert torch.equal(gates.unpack().cpu(), bits)
    assert torch.equal(gates.counts().cpu(), bits.sum(0))
    assert torch.equal(gates.hamming(glai.pack_gates(place(other))).cpu(), (bits != other).sum(1))


@pytest.mark.parametrize("units", [(0,), (5,), (31,), (33,), (7, 0, 3), (40, 2)])
def test_path_gates(place, units):
    generator = torch.Generator().manual_seed(0)
    layers = [torch.rand((37, h), generator=generator) < 0.5 for h in units]
    paths = glai.path_gates([glai.pack_gates(place(layer)) for layer in layers])
    assert torch.equal(paths.unpack().cpu(), ref.path_gates_ref(layers))


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
    (66, 5, 72, 72),
    (140, 70, 8, 10),
    (40, 5, 20, 1),
    (40, 5, 1, 20),
]
FORMS = ("dense", "compaction", "reference")


def draw_as(shape, dtype, **options):
    *values, bits = draw(*shape, dtype=torch.float64, **options)
    return *(v.to(dtype) for v in values), bits


# (N, D, H): also slices whose rows are aligned to 16 bytes, to 4, to less.
SELECTOR_SHAPES = [(0, 3, 4), (3, 0, 4), (3, 4, 0), (1, 1, 1), (33, 33, 33), (130, 72, 140), (65, 40, 64)]


@pytest.mark.parametrize("shape", SELECTOR_SHAPES, ids=str)
def test_selector_gates(place, arithmetic, shape):
    dtype, rounding = arithmetic
    x, weight, bias = selector_draw(*shape, dtype)
    views = [(x, weight, bias), (x, weight.T.contiguous().T, bias), (x[::3, 1:], weight[1:, 1:], bias[1:])]
    for x, weight, bias in views:
        check_gates(ops.selector_gates(place(x), place(weight), place(bias)), x, weight, bias, **rounding)
        check_gates(ops.selector_gates(place(x), place(weight)), x, weight, None, **rounding)


def test_selector_gates_of_exact_sums(place, arithmetic):
    """Small integers, exact in every type: zeros are many, and off."""
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randint(-2, 3, size, generator=generator).to(arithmetic[0])
        for size in ((140, 9), (70, 9), (70,))
    )
    expected = ref.selector_gates_ref(x.double(), weight.double(), bias.double())
    x[5] = float("nan")
    expected[5] = False
    assert torch.equal(ops.selector_gates(place(x), place(weight), place(bias)).unpack().cpu(), expected)
    alone = ops.selector_gates(place(x[77:78]), place(weight), place(bias))
    assert torch.equal(alone.unpack().cpu(), expected[77:78])


# (N, P, D): as for selector_gates, whose D and H change places here.
LINEAR_SHAPES = [(n, h, d) for n, d, h in SELECTOR_SHAPES]


@pytest.mark.parametrize("shape", LINEAR_SHAPES, ids=str)
def test_gated_linear(place, arithmetic, shape):
    dtype, rounding = arithmetic
    x, u, bias, dh, bits = linear_draw(*shape, dtype)
    on = glai.pack_gates(place(bits))
    views = [(x, u, bias, bits), (x, u.T.contiguous().T, bias, bits)]
    views.append((x[::3, 1:], u[1:, 1:], bias[1:], bits[::3, 1:]))
    for a, b, c, g in views:
        gates = glai.pack_gates(place(g))
        h = glai.gated_linear(place(a), gates, place(b), place(c))
        check_linear(h.cpu(), a, g, b, c, **rounding)
        check_linear(glai.gated_linear(place(a), gates, place(b)).cpu(), a, g, b, None, **rounding)
    masked = _apply_gates(place(dh), on.words, on.n_gates).cpu()
    assert torch.equal(masked, ref.apply_gates_ref(dh, bits))
    if dtype == torch.float64:  # products of torch's, of the type's own accuracy
        leaves = [place(t.clone()).requires_grad_() for t in (x, u, bias)]
        h = glai.gated_linear(leaves[0], on, *leaves[1:])
        gradients = torch.autograd.grad(h, leaves, place(dh))
        check_gradients([gradient.cpu() for gradient in gradients], x, bits, u, dh)


def test_gated_linear_where_off_is_exactly_zero(place, arithmetic):
    """A NaN or infinity reaches the samples whose gate is on, and nobody else."""
    x, u, bias, dh, bits = linear_draw(70, 67, 40, arithmetic[0])
    bits[:, 4] = bits[3] = False
    x[3], u[4], u[9, 7], bias[11] = float("inf"), float("nan"), float("inf"), float("nan")
    dh[~bits] = float("nan")
    gates = glai.pack_gates(place(bits))
    h = glai.gated_linear(place(x), gates, place(u), place(bias)).cpu()
    assert bool((h[~bits] == 0).all())
    assert torch.equal(~torch.isfinite(h[:, [9, 11]]), bits[:, [9, 11]])
    assert bool(torch.isfinite(_apply_gates(place(dh), gates.words, gates.n_gates)).all())


@pytest.mark.parametrize("sizes", [(6, 33, 3), (6, 40, 35, 3)])
def test_units_of_a_selector(place, sizes):
    x = torch.randn((300, 6), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mlp = make_mlp(*sizes, dtype=torch.float64)
    *earlier, last = [layer for layer in mlp if isinstance(layer, torch.nn.Linear)][:-1]
    gates = place(glai.PathSelector(mlp)).unit_gates(place(x))
    activation = x
    for layer in earlier:
        activation = layer(activation).relu()
    check_gates(gates[-1], activation.detach(), last.weight.detach(), last.bias.detach())
    whole = ref.path_gates_ref([layer.unpack().cpu() for layer in gates])
    assert torch.equal(glai.path_gates(gates).unpack().cpu(), whole)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gated_matmul(place, arithmetic, shape, form):
    dtype, rounding = arithmetic
    x, weight, bias, dy, bits = draw_as(shape, dtype)
    gates = glai.pack_gates(place(bits))
    for w in (weight, weight.mT.contiguous().mT):
        there = place(x), gates, place(w)
        y = glai.gated_matmul(*there, form=form)
        check_forward(y.cpu(), x, bits, w, None, form, **rounding)
        y = glai.gated_matmul(*there, place(bias), form=form)
        check_forward(y.cpu(), x, bits, w, bias, form, **rounding)
        dx = glai.gated_matmul_input_grad(place(dy), gates, place(w), form=form)
        check_input_grad(dx.cpu(), dy, bits, w, form, **rounding)


@pytest.mark.parametrize("shape", [(257, 180, 7, 20), (385, 9, 150, 270)], ids=str)
def test_blocks_of_many_rows(place, arithmetic, shape):
    """More blocks than run at once, which own more rows each; several slices of depth."""
    dtype, rounding = arithmetic
    x, weight, bias, _, bits = draw_as(shape, dtype)
    y = glai.gated_matmul(place(x), glai.pack_gates(place(bits)), place(weight), place(bias), form="dense")
    check_forward(y.cpu(), x, bits, weight, bias, **rounding)


@pytest.mark.parametrize("density", [0.05, 1.0])
def test_compaction(place, arithmetic, density):
    """More than one block of rows, none to several gathers of a path's rows, paths over word and window."""
    dtype, rounding = arithmetic
    x, weight, bias, dy, bits = draw_as((270, 18, 20, 9), dtype, density=density)
    bits[:, 7] = True
    bits[:200, 17] = True
    bits[:, 3] = False
    gates = glai.pack_gates(place(bits))
    for splits in (1, 5):
        with mock.patch.object(operands, "_native", wraps=operands._native) as native:
            native.plan_cuda_product.side_effect = lambda *_, n=splits: ("compaction", n, 0)
            y = glai.gated_matmul(place(x), gates, place(weight), place(bias))
            dx = glai.gated_matmul_input_grad(place(dy), gates, place(weight))
        check_forward(y.cpu(), x, bits, weight, bias, **rounding)
        check_input_grad(dx.cpu(), dy, bits, weight, **rounding)


@contextmanager
def reference_taken(splits=1):
    """Within, products take the reference form as where it is chosen: they look whether it is safe."""

    def plan(op, y, n_gates, depth, tf32, estimate, form):
        item, c = 8 if y.dtype == torch.float64 else 4, y.shape[1]
        parts = (4 * (-(-n_gates // 32) + 1), (depth + 1) * c * item, 2 * n_gates * c * item)
        return "reference", splits + 1, sum(-(-part // 16) * 4 for part in parts)

    with mock.patch.object(operands, "_native", wraps=operands._native) as native:
        native.plan_cuda_product.side_effect = plan
        yield


@pytest.mark.parametrize(("n", "splits"), [(70, 3), (300, 1)])
def test_reference(place, arithmetic, n, splits):
    """Most paths on or off for most samples; around a word of gates, more than one block of rows."""
    dtype, rounding = arithmetic
    x, weight, bias, dy, _ = draw_as((n, 35, 20, 37), dtype)
    generator = torch.Generator().manual_seed(0)
    majority = torch.rand(35, generator=generator) < 0.7
    bits = majority ^ (torch.rand((n, 35), generator=generator) < 0.1)
    weight[majority] = weight[majority].abs()
    bias[majority] = bias[majority].abs()
    gates = glai.pack_gates(place(bits))
    for w in (weight, weight.mT.contiguous().mT):
        with reference_taken(splits):
            y = glai.gated_matmul(place(x), gates, place(w), place(bias))
            without = glai.gated_matmul(place(x), gates, place(w))
            dx = glai.gated_matmul_input_grad(place(dy), gates, place(w))
        check_forward(y.cpu(), x, bits, w, bias, "reference", **rounding)
        check_forward(without.cpu(), x, bits, w, None, "reference", **rounding)
        check_input_grad(dx.cpu(), dy, bits, w, "reference", **rounding)


def test_reference_that_is_not_safe_is_dropped(place, arithmetic):
    """Where what a sample has off outweighs what it has on, sums are those of compaction, bit by bit."""
    dtype, _ = arithmetic
    x, weight, bias, dy, bits = draw_as((300, 9, 40, 37), dtype, density=0.9)
    bits[:, 2] = True
    bits[7, 2] = False
    gates = glai.pack_gates(place(bits))

    def check():
        there = place(x), gates, place(weight), place(bias)
        with reference_taken():
            y, dx = glai.gated_matmul(*there), glai.gated_matmul_input_grad(place(dy), gates, there[2])
        expected = glai.gated_matmul(*there, form="compaction")
        assert torch.equal(y.nan_to_num(7), expected.nan_to_num(7))
        expected = glai.gated_matmul_input_grad(place(dy), gates, there[2], form="compaction")
        assert torch.equal(dx.nan_to_num(7), expected.nan_to_num(7))

    weight[2, 3, 5] = 1e4  # one number, in one output of each product
    bias[2, 30] = 1e4
    check()
    weight[2] = float("nan")
    check()
    weight[2], bias[2] = float("inf"), float("inf")
    check()


def test_padding_bits_of_a_majority(place, arithmetic):
    """Nobody looks at the padding of words on CUDA; what lies behind the weights is NaN."""
    dtype, rounding = arithmetic
    x, weight, bias, dy, _ = draw_as((70, 33, 9, 11), dtype)
    bits = torch.ones((70, 33), dtype=torch.bool)
    gates = glai.PackedGates._trusted(place(torch.full((70, 2), -1, dtype=torch.int32)), 33)
    wide = [torch.full((40, *t.shape[1:]), float("nan"), dtype=dtype) for t in (weight, bias)]
    for behind, t in zip(wide, (weight, bias), strict=True):
        behind[:33] = t
    there = place(wide[0])[:33], place(wide[1])[:33]
    with reference_taken():
        y = glai.gated_matmul(place(x), gates, *there)
        dx = glai.gated_matmul_input_grad(place(dy), gates, there[0])
    check_forward(y.cpu(), x, bits, weight, bias, "reference", **rounding)
    check_input_grad(dx.cpu(), dy, bits, weight, "reference", **rounding)


@pytest.mark.parametrize("estimate", [(0.99, 0.0), (0.5, 0.5)])
def test_a_chosen_reference_always_looks(executor, estimate):
    """An estimate may be wrong: there is room for norms whatever it says."""
    module, _ = executor
    form, slices, words = module.plan_cuda_product(
        "gated_matmul", torch.empty(4096, 64), 64, 128, False, (0.99, 0.0), None
    )
    forced = module.plan_cuda_product(
        "gated_matmul", torch.empty(4096, 64), 64, 128, False, estimate, "reference"
    )
    assert (form, forced[0], slices) == ("reference", "reference", forced[1])
    assert words - forced[2] == 2 * 64 * 64


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gated_matmul_weight_grad(place, arithmetic, shape):
    dtype, rounding = arithmetic
    x, weight, bias, dy, bits = draw_as(shape, dtype)
    gates = glai.pack_gates(place(bits))
    there = place(x), gates, place(dy)
    check_weight_grad(glai.gated_matmul_weight_grad(*there).cpu(), x, bits, dy, **rounding)
    out = place(weight.clone())
    glai.gated_matmul_weight_grad(*there, out=out, accumulate=True)
    check_weight_grad(out.cpu(), x, bits, dy, added_to=weight, **rounding)
    leaf = place(bias).requires_grad_()
    glai.gated_matmul(place(x), gates, place(weight), leaf).backward(place(dy))
    check_bias_grad(leaf.grad.cpu(), bits, dy, **rounding)


@pytest.mark.parametrize("shape", [(4100, 3, 9, 5), (4200, 2, 70, 20), (4096, 1, 0, 3)], ids=str)
def test_weight_grad_of_many_samples_and_few_paths(place, arithmetic, shape):
    """Samples are split among blocks; paths that are on for one split's samples alone, and for none."""
    dtype, rounding = arithmetic
    x, weight, bias, dy, bits = draw_as(shape, dtype, density=0.1)
    bits[: shape[0] // 2, 0] = False
    bits[:, 1:2] = False
    gates = glai.pack_gates(place(bits))
    assert _native.plan_cuda_weight_grad(x, shape[1], shape[3]) > 1
    there = place(x), gates, place(dy)
    check_weight_grad(glai.gated_matmul_weight_grad(*there).cpu(), x, bits, dy, **rounding)
    wide = place(torch.full((shape[1], shape[2] + 1, shape[3] + 3), 7.0, dtype=dtype))
    out = wide[:, :-1, 1:-2]
    out.copy_(weight)
    glai.gated_matmul_weight_grad(*there, out=out, accumulate=True)
    check_weight_grad(out.cpu(), x, bits, dy, added_to=weight, **rounding)
    out.fill_(7)
    assert (wide == 7).all()
    leaf = place(bias).requires_grad_()
    glai.gated_matmul(place(x), gates, place(weight), leaf).backward(place(dy))
    check_bias_grad(leaf.grad.cpu(), bits, dy, **rounding)


# (Na, Nb, D, units per layer)
KERNEL_SHAPES = [
    (0, 3, 4, (5,)),
    (3, 4, 0, (0,)),
    (33, 31, 33, (33, 65)),
    (20, 21, 3, (300,)),
    (130, 70, 40, (32,)),
    (9, 200, 8, (9, 0, 3)),
]


@pytest.mark.parametrize("shape", KERNEL_SHAPES, ids=str)
def test_path_kernel(place, arithmetic, shape):
    dtype, rounding = arithmetic
    na, nb, d, units = shape
    (xa, layers_a), (xb, layers_b) = (path_kernel_draw(n, d, units, seed=n) for n in (na, nb))
    xa, xb = xa.to(dtype), xb.to(dtype)
    a, b = (
        (place(x), pack([place(layer) for layer in layers])) for x, layers in ((xa, layers_a), (xb, layers_b))
    )
    check_kernel(glai.path_kernel(*a, *b).cpu(), xa, layers_a, xb, layers_b, **rounding)
    symmetric = glai.path_kernel(*a).cpu()
    check_kernel(symmetric, xa, layers_a, xa, layers_a, **rounding)
    assert torch.equal(symmetric, symmetric.T)


# (N, P, D)
GRAM_SHAPES = [(0, 3, 4), (3, 0, 4), (3, 4, 0), (33, 33, 3), (60, 3, 31), (90, 2, 130), (9000, 2, 2)]


@pytest.mark.parametrize("shape", GRAM_SHAPES, ids=str)
@pytest.mark.parametrize("arithmetic", ["fp32", "tf32", "fp64"], indirect=True)
def test_path_gram(place, arithmetic, shape):
    dtype, rounding = arithmetic
    x, bits, weight = path_gram_draw(*shape, dtype)
    gates = glai.pack_gates(place(bits))
    out = glai.path_gram(place(x), gates)
    check_gram(out.cpu(), x, bits, **rounding)
    start = out.cpu().clone()
    glai.path_gram(place(x), gates, place(weight), out=out)
    check_gram(out.cpu(), x, bits, weight, added_to=start, **rounding)
    blocks = out.cpu().view(shape[1], shape[2] + 1, shape[1], shape[2] + 1)
    for p in range(shape[1] - 1):
        assert torch.equal(blocks[p, :, p + 1], blocks[p, :, p + 1].T)


def test_strided_inputs(place, arithmetic):
    dtype, rounding = arithmetic
    n, p, d, c = 40, 35, 24, 16
    *values, bits = draw_as((2 * n, 2 * p, 2 * d, 2 * c), dtype)
    x, weight, bias, dy = map(place, values)
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
    gates = glai.pack_gates(place(bits))
    for view in views.values():
        x, weight, bias, dy = view
        there = [t.cpu() for t in view]
        for form in FORMS:
            y = glai.gated_matmul(x, gates, weight, bias, form=form)
            check_forward(y.cpu(), there[0], bits, there[1], there[2], form, **rounding)
            dx = glai.gated_matmul_input_grad(dy, gates, weight, form=form)
            check_input_grad(dx.cpu(), there[3], bits, there[1], form, **rounding)
        out = place(torch.full((p + 2, d + 3, c + 5), 7.0, dtype=dtype))
        inner = out[1:-1, 2:-1, 3:-2]
        glai.gated_matmul_weight_grad(x, gates, dy, out=inner)
        check_weight_grad(inner.cpu(), there[0], bits, there[3], **rounding)
        inner.fill_(7)
        assert (out == 7).all()


@pytest.mark.parametrize("row", [64, 50], ids=["16 bytes at a time", "4 bytes at a time"])
def test_odd_slices_of_wide_buffers(place, arithmetic, row):
    """The last copy of a row is partial, and what lies behind it NaN."""
    dtype, rounding = arithmetic
    *values, bits = draw_as((70, 5, 37, 21), dtype)

    def inside(t):
        wide = torch.full((*t.shape[:-1], row), float("nan"), dtype=dtype)
        wide[..., : t.shape[-1]] = t
        return place(wide)[..., : t.shape[-1]]

    x, weight, bias, dy = values
    gates = glai.pack_gates(place(bits))
    for w in (inside(weight), inside(weight.mT).mT):
        for form in FORMS:
            y = glai.gated_matmul(inside(x), gates, w, inside(bias), form=form)
            check_forward(y.cpu(), x, bits, weight, bias, form, **rounding)
            dx = glai.gated_matmul_input_grad(inside(dy), gates, w, form=form)
            check_input_grad(dx.cpu(), dy, bits, weight, form, **rounding)
    check_weight_grad(
        glai.gated_matmul_weight_grad(inside(x), gates, inside(dy)).cpu(), x, bits, dy, **rounding
    )
    fired = ops.selector_gates(inside(x), inside(weight[:, :, 0]), None)
    check_gates(fired, x, weight[:, :, 0], None, **rounding)


def test_what_is_off_has_no_effect(place, arithmetic):
    """A NaN or infinity reaches the samples whose path is on, and nobody else."""
    dtype, _ = arithmetic
    x, weight, _, dy, bits = draw_as((300, 9, 40, 10), dtype)
    bits[:, 4] = bits[3] = False
    gates = glai.pack_gates(place(bits))
    weight[4] = float("nan")
    for form in ("dense", "compaction"):
        assert torch.isfinite(glai.gated_matmul(place(x), gates, place(weight), form=form)).all()
        dx = glai.gated_matmul_input_grad(place(dy), gates, place(weight), form=form)
        assert torch.isfinite(dx).all()
    weight[2] = float("inf")
    for form in ("dense", "compaction"):
        y = glai.gated_matmul(place(x), gates, place(weight), form=form).cpu()
        assert torch.equal(~torch.isfinite(y).all(1), bits[:, 2])
    x[3], dy[3] = float("inf"), float("nan")
    out = place(torch.full((9, 40, 10), float("nan"), dtype=dtype))
    glai.gated_matmul_weight_grad(place(x), gates, place(dy), out=out)
    assert torch.isfinite(out).all()
    assert (out[4] == 0).all()


def test_gradients_of_a_step(place):
    """Of a loss, through all three products, as training takes them."""
    x, weight, bias, _, bits = draw(64, 17, 50, 10)

    def gradients(device, gates):
        leaves = [device(t).requires_grad_() for t in (x, weight, bias)]
        loss = glai.gated_matmul(leaves[0], gates, *leaves[1:]).square().sum()
        return [g.cpu() for g in torch.autograd.grad(loss, leaves)]

    actual = gradients(place, glai.pack_gates(place(bits)))
    g = bits.float()
    leaves = [t.requires_grad_() for t in (x, weight, bias)]
    loss = (torch.einsum("np,nd,pdc->nc", g, x, weight) + g @ bias).square().sum()
    for a, b in zip(actual, torch.autograd.grad(loss, leaves), strict=True):
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
            y = [glai.gated_matmul(x, gates, weight, bias, form=form) for form in FORMS]
            results.append((*y, glai.gated_matmul_weight_grad(x, gates, dy)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_sums_do_not_depend_on_shared_memory(executor, arithmetic):
    dtype, _ = arithmetic
    x, weight, bias, _, bits = draw_as((600, 20, 40, 20), dtype, density=0.2)
    gates = glai.pack_gates(bits)
    module, schedule = executor
    results = []
    with on_executor(module):
        for kib in SHARED_KIB:
            schedule("forward", True, shared_kib=kib)
            results.append([glai.gated_matmul(x, gates, weight, bias, form=form) for form in FORMS])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_the_form_follows_what_is_known_of_the_gates(place):
    x, weight, _, dy, bits = draw(600, 20, 64, 128, density=0.05)
    there, gates = (place(x), place(weight), place(dy)), glai.pack_gates(place(bits))

    def forms():
        with mock.patch.object(gated_products, "_native", wraps=gated_products._native) as native:
            leaf = there[0].detach().clone().requires_grad_()
            glai.gated_matmul(leaf, gates, there[1]).backward(there[2])
        calls = native.gated_matmul.call_args, native.gated_matmul_input_grad.call_args
        return [next(a for a in call.args if isinstance(a, str)) for call in calls]

    assert forms() == ["dense", "dense"]  # nobody has counted
    gates.density()
    assert forms() == ["compaction", "compaction"]
    gates = gates[torch.arange(600).to(gates.device)]
    assert forms() == ["compaction", "compaction"]


def test_what_cuda_does_not_take(place):
    x, weight, _, dy, bits = draw(5, 4, 3, 2)
    x, weight, dy, gates = place(x), place(weight), place(dy), glai.pack_gates(place(bits))
    sentence = "form must be None, 'dense', 'compaction' or 'reference' on cuda, got 'subset_sums'"
    with pytest.raises(ValueError, match=f"gated_matmul: {sentence}"):
        glai.gated_matmul(x, gates, weight, form="subset_sums")
    with pytest.raises(ValueError, match=f"gated_matmul_input_grad: {sentence}"):
        glai.gated_matmul_input_grad(dy, gates, weight, form="subset_sums")
    with pytest.raises(
        ValueError, match="weight_grad: form must be None or 'compaction' on cuda, got 'dense'"
    ):
        glai.gated_matmul_weight_grad(x, gates, dy, form="dense")
    with pytest.raises(ValueError, match="path_kernel: layers_a must be at most 16 on cuda, got 17"):
        glai.path_kernel(x, [gates] * 17)
    with pytest.raises(ValueError, match="path_gram: x must be float32 or float64"):
        glai.path_gram(x.half(), gates)


@pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="torch has one name for it"
)
def test_tf32_follows_torch_by_either_name():
    matmul = torch.backends.cuda.matmul
    try:
        for precision in ("tf32", "ieee"):
            matmul.fp32_precision = precision
            assert backend.allows_tf32() == (precision == "tf32")
    finally:
        matmul.allow_tf32 = False
    assert not backend.allows_tf32()
    matmul.allow_tf32 = True
    assert backend.allows_tf32()
    matmul.allow_tf32 = False
