"""The gated ops against their float64 reference: every ISA, dtype, edge shape and layout."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

import glai_native as glai
import glai_native._native as _native
from glai_bench.ops.cases import DENSITIES, SHAPES, make_case
from ops.oracle import (
    check_bias_grad,
    check_forward,
    check_input_grad,
    check_weight_grad,
    form_of,
)
from ops.oracle import draw_products as draw

DTYPES = [torch.float32, torch.float64]
FORMS = (None, "compaction", "subset_sums", "reference")
GRAD_FORMS = (None, "compaction", "subset_sums")
# (N, P, D, C): zero, one, around a word, around a vector, more than one block of rows, features, columns.
EDGES = [
    (0, 3, 4, 5),
    (3, 0, 4, 5),
    (3, 4, 0, 5),
    (3, 4, 5, 0),
    (0, 3, 128, 5),  # no samples, rows of x that would collide in the cache
    (1, 1, 1, 1),
    (31, 31, 31, 31),
    (32, 32, 32, 32),
    (33, 33, 33, 33),
    (5, 64, 7, 16),
    (130, 2, 17, 48),
    (257, 3, 5, 65),
    (300, 5, 300, 3),
    (64, 3, 513, 33),
    (1025, 2, 3, 2),
    (1100, 2, 300, 600),  # a path's weights overflow the cache, more than one block of rows and of columns
    (40, 2, 130, 1030),  # rows of weights far apart
    (700, 2, 256, 40),  # rows of x that collide in the cache
    (70, 330, 40, 5),  # more groups of gates than one pass of subset sums takes
    (300, 31, 33, 4),
    (600, 12, 60, 10),  # features as lanes, several tiles of them
    (300, 17, 200, 13),  # outputs of more than one tile's rows
    (1030, 14, 70, 20),  # features copied side by side, more than one block of rows
    (520, 22, 130, 9),  # the input gradient's sums of weights in registers, more than one block of rows
]


def check_all(x, weight, bias, dy, bits):
    gates = glai.pack_gates(bits)
    for form in FORMS:
        taken = form or form_of("gated_matmul", gates, weight)
        check_forward(glai.gated_matmul(x, gates, weight, form=form), x, bits, weight, None, taken)
        check_forward(glai.gated_matmul(x, gates, weight, bias, form=form), x, bits, weight, bias, taken)
        taken = form or form_of("gated_matmul_input_grad", gates, weight)
        check_input_grad(glai.gated_matmul_input_grad(dy, gates, weight, form=form), dy, bits, weight, taken)
    leaf = bias.clone().requires_grad_()
    glai.gated_matmul(x, gates, weight, leaf).backward(dy)
    check_bias_grad(leaf.grad, bits, dy)
    for form in GRAD_FORMS:
        check_weight_grad(glai.gated_matmul_weight_grad(x, gates, dy, form=form), x, bits, dy)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", EDGES, ids=str)
def test_edges(isa, shape, dtype):
    check_all(*draw(*shape, dtype=dtype))


@pytest.mark.parametrize("density", [0.0, 0.05, 0.9, 1.0])
def test_densities(isa, density):
    check_all(*draw(150, 40, 40, 12, density=density))


# Vectors filled with features: around whole vectors of them; several panels of features, passes over groups, parts of
# the groups and blocks of samples; each number of outputs.
FEW_OUTPUTS = [
    (33, 9, 128, 1),
    (31, 40, 127, 10),
    (32, 40, 129, 10),
    (300, 31, 530, 10),
    (700, 12, 784, 9),
    (40, 700, 70, 3),
    (1100, 6, 200, 5),
    *((31 + c % 3, 7, 60 + 11 * c, c) for c in range(1, 17)),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", FEW_OUTPUTS, ids=str)
def test_few_outputs(isa, shape, dtype):
    operands = draw(*shape, dtype=dtype, density=0.5)
    check_all(*operands)
    *values, bits = operands
    check_all(*values, bits | (torch.arange(shape[1]) % 5 > 0))  # most paths deviate seldom


def test_few_outputs_fill_vectors_with_features():
    gates = glai.pack_gates(torch.rand(512, 64, generator=torch.Generator().manual_seed(0)) < 0.5)
    for d, c, expected in ((784, 10, True), (256, 1, True), (16, 10, False), (784, 17, False)):
        assert _native.explain_form("gated_matmul", gates.words, 64, d, c)["by_features"] is expected
        assert (
            _native.explain_form("gated_matmul_input_grad", gates.words, 64, c, d)["by_features"] is expected
        )


def timed_cases():
    """All but the one whose reference takes gigabytes; the largest by default at half of the densities."""
    for shape, density in itertools.product(SHAPES, DENSITIES):
        if shape.p * shape.d * shape.c < 10**7:
            slow = shape.n * shape.p * shape.d * shape.c > 5 * 10**8 and density in DENSITIES[1::2]
            yield pytest.param(shape, density, id=f"{shape}-{density}", marks=[pytest.mark.slow] * slow)


@pytest.mark.parametrize(("shape", "density"), list(timed_cases()))
def test_timed_cases(shape, density):
    case = make_case(shape, density)
    gates = glai.pack_gates(case.gates)
    y, form = glai.gated_matmul(case.x, gates, case.weight), form_of("gated_matmul", gates, case.weight)
    check_forward(y, case.x, case.gates, case.weight, None, form)
    check_weight_grad(glai.gated_matmul_weight_grad(case.x, gates, case.dy), case.x, case.gates, case.dy)
    dx = glai.gated_matmul_input_grad(case.dy, gates, case.weight)
    form = form_of("gated_matmul_input_grad", gates, case.weight)
    check_input_grad(dx, case.dy, case.gates, case.weight, form)


# Results that are stored past the caches: lines of them aligned, and not; with and without a tail.
@pytest.mark.parametrize("density", [0.4, 1.0])
@pytest.mark.parametrize("shape", [(4200, 3, 512, 4), (4100, 2, 523, 3)], ids=str)
def test_large_input_gradients(isa, shape, density):
    _, weight, _, dy, bits = draw(*shape, density=density)
    gates = glai.pack_gates(bits)
    dx = glai.gated_matmul_input_grad(dy, gates, weight)
    check_input_grad(dx, dy, bits, weight, form_of("gated_matmul_input_grad", gates, weight))


@pytest.mark.parametrize("shape", [(40, 70, 2000, 16), (40, 70, 2001, 15)], ids=str)
def test_large_gradients_of_gates_that_are_all_on(isa, shape):
    x, _, _, dy, bits = draw(*shape, density=1.0)
    dw = glai.gated_matmul_weight_grad(x, glai.pack_gates(bits), dy)
    check_weight_grad(dw, x, bits, dy)


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_gates_on_accumulate(isa, dtype):
    for c in (3, 20):
        x, _, _, dy, bits = draw(70, 5, 300, c, dtype, density=1.0)
        start = torch.randn((5, 300, c), dtype=dtype)
        out = start.clone()
        glai.gated_matmul_weight_grad(x, glai.pack_gates(bits), dy, out=out, accumulate=True)
        check_weight_grad(out, x, bits, dy, added_to=start)


@given(
    n=st.integers(0, 70),
    p=st.integers(0, 70),
    d=st.integers(0, 40),
    c=st.integers(0, 70),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=80, deadline=None)
def test_any_shape(n, p, d, c, density, dtype, seed):
    check_all(*draw(n, p, d, c, dtype, density, seed))


@pytest.mark.parametrize("dtype", DTYPES)
def test_strided_inputs(isa, dtype):
    n, p, d, c = 40, 35, 21, 13
    x, weight, bias, dy, bits = draw(2 * n, 2 * p, 2 * d, 2 * c, dtype)
    bits = bits[:n, :p]
    views = {
        "slices": (
            x[5 : 5 + n, 3 : 3 + d],
            weight[1 : 1 + p, 2 : 2 + d, 4 : 4 + c],
            bias[:p, 1 : 1 + c],
            dy[:n, 2 : 2 + c],
        ),
        "steps": (x[::2, ::2], weight[::2, ::2, ::2], bias[::2, ::2], dy[::2, ::2]),
        "transposed": (
            x[:n, :d].T.contiguous().T,
            weight[:p, :d, :c].transpose(1, 2).contiguous().transpose(1, 2),
            bias[:p, :c].T.contiguous().T,
            dy[:n, :c].T.contiguous().T,
        ),
        "expanded": (
            x[:1, :d].expand(n, d),
            weight[:1, :d, :c].expand(p, d, c),
            bias[:1, :1].expand(p, c),
            dy[:1, :1].expand(n, c),
        ),
    }
    for view in views.values():
        check_all(*view, bits)


def test_out_is_a_slice_of_a_larger_buffer(isa):
    x, _, _, dy, bits = draw(50, 9, 21, 13)
    gates = glai.pack_gates(bits)
    buffer = torch.full((11, 30, 20), 7.0)
    out = buffer[1:10, 2:23, 3:16]
    assert glai.gated_matmul_weight_grad(x, gates, dy, out=out) is out
    check_weight_grad(out, x, bits, dy)
    untouched = torch.ones_like(buffer, dtype=torch.bool)
    untouched[1:10, 2:23, 3:16] = False
    assert bool((buffer[untouched] == 7).all())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("c", [3, 16, 33])
def test_accumulate(isa, c, dtype):
    x, _, _, dy, bits = draw(300, 9, 21, c, dtype)
    start = torch.randn((9, 21, c), dtype=dtype)
    out = start.clone()
    glai.gated_matmul_weight_grad(x, glai.pack_gates(bits), dy, out=out, accumulate=True)
    check_weight_grad(out, x, bits, dy, added_to=start)


def test_never_on_path_has_gradient_exactly_zero(isa):
    x, _, _, dy, bits = draw(300, 9, 21, 10)
    bits[:, 4] = False
    x[3] = float("inf")
    bits[3] = False
    gates = glai.pack_gates(bits)
    out = torch.full((9, 21, 10), float("nan"))
    glai.gated_matmul_weight_grad(x, gates, dy, out=out)
    assert bool((out[4] == 0).all())
    assert bool(torch.isfinite(out).all())


@pytest.mark.parametrize("form", FORMS)
def test_nan_in_a_weight_reaches_the_samples_whose_path_is_on(isa, form):
    x, weight, _, _, bits = draw(300, 9, 40, 10)
    bits[:, 4] = False
    gates = glai.pack_gates(bits)
    weight[4] = float("nan")  # reaches nobody: the path is never on
    assert bool(torch.isfinite(glai.gated_matmul(x, gates, weight, form=form)).all())
    weight[2] = float("nan")
    y = glai.gated_matmul(x, gates, weight, form=form)
    assert torch.equal(torch.isnan(y).all(1), bits[:, 2])
    assert torch.equal(torch.isnan(y).any(1), bits[:, 2])


def test_reference_steps_aside_where_weights_nearly_cancel(isa):
    """Else the weights of paths that are off, added and taken away again, would drown the others'."""
    x, weight, bias, dy, bits = draw(1024, 40, 32, 40, density=0.9)
    gates = glai.pack_gates(bits)
    for op in ("gated_matmul", "gated_matmul_input_grad"):
        assert form_of(op, gates, weight) == "reference"
    weight[3] *= 1e6
    for scale in (1, 1e20, 1e-30):
        check_forward(glai.gated_matmul(x, gates, weight * scale), x, bits, weight * scale, None)
    check_forward(glai.gated_matmul(x, gates, weight, bias), x, bits, weight, bias)
    bias[-1, 0] = 1e9  # one large bias hides nothing
    check_forward(glai.gated_matmul(x, gates, weight, bias)[:, 1:], x, bits, weight[..., 1:], bias[:, 1:])
    check_input_grad(glai.gated_matmul_input_grad(dy, gates, weight), dy, bits, weight)
    forced = glai.gated_matmul(x, gates, weight, form="reference")
    check_forward(forced, x, bits, weight, None, "reference")


def test_infinity_reaches_the_samples_whose_path_is_on_and_no_others(isa):
    x, weight, _, _, bits = draw(1024, 40, 32, 64, density=0.9)
    bits[:, -1] = True
    gates = glai.pack_gates(bits)
    assert form_of("gated_matmul", gates, weight) == "reference"
    weight[-1, :, 0] = weight[3, :, 1] = float("inf")
    y = glai.gated_matmul(x, gates, weight)
    assert torch.equal(torch.isfinite(y[:, 1]), ~bits[:, 3])
    assert not torch.isfinite(y[:, 0]).any()
    assert torch.isfinite(y[:, 2:]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(70, 35, 21, 13), (70, 9, 300, 5), (33, 9, 128, 1), (130, 3, 784, 10)], ids=str
)
def test_all_gates_on(isa, shape, dtype):
    x, weight, bias, dy, bits = draw(*shape, dtype=dtype, density=1.1)
    check_all(x, weight, bias, dy, bits)
    check_all(x.T.contiguous().T, weight.mT.contiguous().mT, bias, dy, bits)


def test_all_gates_on_accumulates(isa):
    x, _, _, dy, bits = draw(70, 35, 21, 13, density=1.1)
    out = torch.ones(35, 21, 13)
    glai.gated_matmul_weight_grad(x, glai.pack_gates(bits), dy, out=out, accumulate=True)
    check_weight_grad(out, x, bits, dy, added_to=torch.ones(35, 21, 13))


@pytest.mark.parametrize(("n", "d"), [(1, 70), (33, 530), (90, 70)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_few_samples_per_path_and_weights_far_apart(isa, dtype, n, d):
    x, weight, bias, dy, bits = draw(n, 6, d, 600, dtype)
    bits &= torch.rand(bits.shape) < 0.1
    check_all(x, weight, bias, dy, bits)
    check_all(x, weight.mT.contiguous().mT, bias, dy, bits)


# N, P, D, C: vectors of features; tiles of columns; two parts of the groups; several passes over groups; several
# batches of blocks; rows of weights on a memory page each.
@pytest.mark.parametrize(
    "shape",
    [
        (700, 60, 130, 10),
        (700, 40, 33, 70),
        (60, 90, 20, 10),
        (40, 1400, 9, 7),
        (4200, 21, 9, 5),
        (90, 20, 70, 600),
        (600, 12, 200, 10),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_threads(isa, threads, dtype, shape):
    x, weight, bias, dy, bits = draw(*shape, dtype)
    check_all(x, weight, bias, dy, bits)
    gates = glai.pack_gates(bits)
    results = []
    for n in (1, 2, 3, 3):
        threads(n)
        results.append(
            (
                *(glai.gated_matmul(x, gates, weight, bias, form=form) for form in FORMS),
                *(glai.gated_matmul_weight_grad(x, gates, dy, form=form) for form in GRAD_FORMS),
                *(glai.gated_matmul_input_grad(dy, gates, weight, form=form) for form in FORMS),
                glai.pack_gates(x).words,
                gates.counts(),
            )
        )
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def freed(t):
    """A tensor whose memory was given back, as sharded training does."""
    t = t.clone()
    t.untyped_storage().resize_(0)
    return t


def fake():
    with FakeTensorMode():
        return torch.zeros(3, 5)


GATES = glai.pack_gates(torch.ones(3, 40, dtype=torch.bool))
X, W, B, DY = torch.zeros(3, 5), torch.zeros(40, 5, 2), torch.zeros(40, 2), torch.zeros(3, 2)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: glai.gated_matmul(X, GATES, W[:39]),
            r"gated_matmul: weight must be float32 \[P=40, D=5, C\], got float32 \[39, 5, 2\]",
        ),
        (
            lambda: glai.gated_matmul(X, GATES, W[0]),
            r"weight must be float32 \[P=40, D=5, C\], got float32 \[5, 2\]",
        ),
        (lambda: glai.gated_matmul(X, GATES, W.double()), r"weight must be float32 .*, got float64"),
        (
            lambda: glai.gated_matmul(X.half(), GATES, W),
            r"x must be float32 or float64 \[N, D\], got float16 \[3, 5\]",
        ),
        (
            lambda: glai.gated_matmul(X[0], GATES, W),
            r"x must be float32 or float64 \[N, D\], got float32 \[5\]",
        ),
        (
            lambda: glai.gated_matmul(X[:2], GATES, W),
            r"gates.words must be int32 \[N=2, ceil\(P/32\)=2\], got int32 \[3, 2\]",
        ),
        (
            lambda: glai.gated_matmul(X, GATES, W, B[:, :1]),
            r"bias must be float32 \[P=40, C=2\], got float32 \[40, 1\]",
        ),
        (
            lambda: glai.gated_matmul(X, GATES, W.to("meta")),
            "weight must be on cpu like x, got another device",
        ),
        (lambda: glai.gated_matmul(X.to("meta"), GATES, W), "x must be on cpu or cuda"),
        (
            lambda: glai.gated_matmul(X, GATES, W, form="magic"),
            "form must be None, 'compaction', 'subset_sums', 'reference' or 'dense', got 'magic'",
        ),
        (
            lambda: glai.gated_matmul(X, GATES, W, form="dense"),
            "gated_matmul: form must be None, 'compaction', 'subset_sums' or 'reference' on cpu, got 'dense'",
        ),
        (
            lambda: glai.gated_matmul_weight_grad(X, GATES, DY, form="reference"),
            "gated_matmul_weight_grad: form must be None, 'compaction' or 'subset_sums', got 'reference'",
        ),
        (
            lambda: glai.gated_matmul_weight_grad(X, GATES, DY[:2]),
            r"gated_matmul_weight_grad: dy must be float32 or float64 \[N=3, C\]|dy must be float32 \[N=3, C\]",
        ),
        (
            lambda: glai.gated_matmul_weight_grad(X, GATES, DY, out=W[1:]),
            r"out must be float32 \[P=40, D=5, C=2\], got float32 \[39, 5, 2\]",
        ),
        (
            lambda: glai.gated_matmul_weight_grad(X, GATES, DY, out=torch.zeros(40, 2, 5).mT),
            "out must have stride 1 in its last dimension",
        ),
        (
            lambda: glai.gated_matmul_weight_grad(X, GATES, DY, out=torch.zeros(1, 5, 2).expand(40, 5, 2)),
            "rows that do not overlap",
        ),
        (
            lambda: glai.gated_matmul_weight_grad(W[0, :3].repeat(1, 3)[:, :5], GATES, W[2, :3], out=W),
            "out must not share memory with dy",
        ),
        (lambda: glai.gated_matmul(X.to_sparse(), GATES, W), "x must be a dense tensor, pass x.to_dense()"),
        (lambda: glai.gated_matmul(freed(X), GATES, W), "x must have memory of its own"),
        (lambda: glai.gated_matmul(fake(), GATES, W), "x must have memory of its own"),
        (
            lambda: glai.gated_matmul_weight_grad(X, GATES, DY, accumulate=True),
            "accumulate=True must come with out",
        ),
        (
            lambda: glai.gated_matmul_weight_grad(X.clone().requires_grad_(), GATES, DY, out=W.clone()),
            "no argument may require a gradient",
        ),
        (
            lambda: glai.gated_matmul_input_grad(DY, GATES, W[:, :, :1]),
            r"gated_matmul_input_grad: weight must be float32 \[P=40, D, C=2\], got float32 \[40, 5, 1\]",
        ),
        (
            lambda: glai.gated_matmul_input_grad(DY[0], GATES, W),
            r"dy must be float32 or float64 \[N, C\], got float32 \[2\]",
        ),
        (
            lambda: glai.gated_matmul(torch.zeros((1,) * 9), GATES, W),
            "x must have at most 8 dimensions, got 9",
        ),
        (lambda: glai.gated_matmul(torch._neg_view(X), GATES, W), "resolve_neg"),
    ],
)
@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_bad_arguments_are_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: glai.gated_matmul([1.0], GATES, W), "x must be a torch.Tensor, got list"),
        (lambda: glai.gated_matmul(X, GATES, None), "weight must be a torch.Tensor, got NoneType"),
        (
            lambda: glai.gated_matmul(X, torch.ones(3, 40), W),
            "gates must be PackedGates, got Tensor; pack_gates",
        ),
        (lambda: glai.gated_matmul_weight_grad(X, GATES, DY, out=1), "out must be a torch.Tensor, got int"),
        (lambda: glai.gated_matmul(X, GATES, W, form=3), "form must be None or a str, got int"),
        (lambda: glai.PackedGates(GATES.words, 40.0), "n_gates must be an int, got float"),
        (lambda: GATES.hamming(torch.ones(3, 40)), "other must be PackedGates, got Tensor"),
        (lambda: glai.gated_matmul_input_grad(DY, None, W), "gates must be PackedGates, got NoneType"),
    ],
)
def test_no_tensors_are_one_sentence(call, sentence):
    with pytest.raises(TypeError, match=sentence):
        call()


def test_out_counts_as_changed_in_place():
    x, _, _, dy, bits = draw(5, 3, 4, 2)
    out = torch.zeros(3, 4, 2)
    before = out._version
    glai.gated_matmul_weight_grad(x, glai.pack_gates(bits), dy, out=out)
    assert out._version > before


# A block of samples has more of dy than is copied at a time, a group's samples have less.
@pytest.mark.parametrize(
    ("shape", "dtype", "close"),
    [
        ((1024, 8, 64, 2048), torch.float32, {"rtol": 1e-3, "atol": 1e-3}),
        ((1024, 8, 16, 600), torch.float64, {"rtol": 1e-9, "atol": 1e-9}),
    ],
)
def test_a_block_has_more_outputs_than_are_copied_at_a_time(isa, dtype, shape, close):
    n, p, d, c = shape
    x, dy, bits = torch.randn(n, d, dtype=dtype), torch.randn(n, c, dtype=dtype), torch.rand(n, p) < 0.3
    expected = torch.einsum("np,nd,nc->pdc", bits.double(), x.double(), dy.double())
    for form in GRAD_FORMS:
        dw = glai.gated_matmul_weight_grad(x, glai.pack_gates(bits), dy, form=form)
        torch.testing.assert_close(dw.double(), expected, **close)


# N, P, C, D: more weights than are packed for all blocks; more buckets than are kept for many blocks.
@pytest.mark.parametrize(("shape", "density"), [((600, 300, 10, 3000), 0.05), ((4096, 6000, 2, 3), 0.02)])
def test_few_features_of_more_than_fits_in_a_pass(isa, shape, density):
    n, p, c, d = shape
    dy, weight, bits = torch.randn(n, c), torch.randn(p, d, c), torch.rand(n, p) < density
    dx = glai.gated_matmul_input_grad(dy, glai.pack_gates(bits), weight)
    summed = (dy.double() @ weight[i].double().mT for i in range(p))
    expected = sum(on[:, None] * product for on, product in zip(bits.double().T, summed, strict=True))
    torch.testing.assert_close(dx.double(), expected, rtol=1e-3, atol=1e-2)
