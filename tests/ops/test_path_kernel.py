"""path_kernel against its float64 reference, and against the paths that it stands for."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import glai_native as glai
import glai_native._native as _native
from accuracy import EPS, assert_accurate
from glai_native.ops import oracle as ref
from ops.oracle import check_kernel, pack
from ops.oracle import draw_kernel as draw

DTYPES = [torch.float32, torch.float64]
# (Na, Nb, D, units per layer): zero, one, around a word, around a vector, more than one block of rows and columns.
EDGES = [
    (0, 3, 4, (5,)),
    (3, 0, 4, (5,)),
    (3, 4, 0, (5,)),
    (3, 4, 5, (0,)),
    (1, 1, 1, (1,)),
    (31, 33, 31, (31,)),
    (32, 32, 32, (32,)),
    (33, 31, 33, (33, 65)),
    (7, 65, 100, (64, 0, 3)),
    (257, 70, 9, (40,)),
    (300, 130, 210, (33, 1, 32)),  # more than one step of features
    (40, 37, 5, (2050,)),  # and of words
]


def check_both(xa, layers_a, xb, layers_b):
    check_kernel(glai.path_kernel(xa, pack(layers_a), xb, pack(layers_b)), xa, layers_a, xb, layers_b)
    symmetric = glai.path_kernel(xa, pack(layers_a))
    check_kernel(symmetric, xa, layers_a, xa, layers_a)
    assert torch.equal(symmetric, symmetric.T)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", EDGES, ids=str)
def test_edges(isa, shape, dtype):
    na, nb, d, units = shape
    check_both(*draw(na, d, units, dtype), *draw(nb, d, units, dtype, seed=1))


@given(
    na=st.integers(0, 90),
    nb=st.integers(0, 90),
    d=st.integers(0, 40),
    units=st.lists(st.integers(0, 70), min_size=1, max_size=3),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_any_shape(na, nb, d, units, density, dtype, seed):
    check_both(*draw(na, d, units, dtype, seed, density), *draw(nb, d, units, dtype, seed + 1, density))


@pytest.mark.parametrize("n", [2048, 2051])  # rows aligned to vectors, and not
def test_a_large_kernel(isa, threads, n):
    """So large that it is stored past the caches."""
    threads(2)
    x, layers = draw(n, 3, (20,))
    kernel = glai.path_kernel(x, pack(layers))
    check_kernel(kernel, x, layers, x, layers)
    assert torch.equal(kernel, kernel.T)
    check_kernel(glai.path_kernel(x, pack(layers), x, pack(layers)), x, layers, x, layers)


@pytest.mark.parametrize("dtype", DTYPES)
def test_shared_bits_are_counted_exactly(isa, dtype):
    _, layers = draw(140, 0, (1000, 77), dtype, density=0.9)
    kernel = glai.path_kernel(torch.zeros((140, 3), dtype=dtype), pack(layers))
    counts = [layer.double() @ layer.double().T + 1 for layer in layers]
    assert torch.equal(kernel.double(), counts[0] * counts[1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_strided_inputs(isa, dtype):
    x, layers = draw(80, 42, (40,), dtype)
    for view in (x[5:45, 3:24], x[::2, ::2], x[:40, :21].T.contiguous().T, x[:1, :21].expand(40, 21)):
        check_both(view, [layers[0][:40]], view.flip(0), [layers[0][40:]])


@pytest.mark.parametrize("dtype", DTYPES)
def test_it_is_the_inner_product_of_the_path_features(isa, dtype):
    """Two hidden layers: every path, with the always-on units and the bias feature, without enumerating them."""
    xa, layers_a = draw(20, 6, (7, 9), dtype)
    xb, layers_b = draw(30, 6, (7, 9), dtype, seed=1)
    phi_a, phi_b = (
        ref.path_features_ref(x.double(), glai.path_gates(pack(layers)).unpack())
        for x, layers in ((xa, layers_a), (xb, layers_b))
    )
    kernel = glai.path_kernel(xa, pack(layers_a), xb, pack(layers_b))
    terms = phi_a.abs() @ phi_b.abs().T
    assert_accurate(kernel, phi_a @ phi_b.T, terms, torch.full(kernel.shape, 7))


def test_a_nan_reaches_its_own_sample_only(isa):
    x, layers = draw(70, 9, (40,))
    x[33, 2] = float("nan")
    kernel = glai.path_kernel(x, pack(layers))
    wrong = torch.zeros(70, dtype=torch.bool)
    wrong[33] = True
    assert torch.equal(torch.isnan(kernel), wrong[:, None] | wrong[None, :])


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_threads(isa, threads, dtype):
    x, layers = draw(600, 33, (70, 20), dtype)
    results = []
    for n in (1, 2, 3, 3):
        threads(n)
        results.append(
            (
                glai.path_kernel(x, pack(layers)),
                glai.path_kernel(x[:50], pack([b[:50] for b in layers]), x, pack(layers)),
            )
        )
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_instruction_sets_agree():
    x, layers = draw(100, 50, (200,))
    before = _native.cpu_isa()
    kernels = []
    try:
        for name in _native.cpu_isas():
            _native.force_cpu_isa(name)
            kernels.append(glai.path_kernel(x, pack(layers)).double())
    finally:
        _native.force_cpu_isa(before)
    terms = ref.path_kernel_ref(x.double().abs(), layers, x.double().abs(), layers)
    for a, b in itertools.pairwise(kernels):
        assert bool(((a - b).abs() <= 2 * EPS[torch.float32] * 16 * terms).all())


@pytest.mark.parametrize("n", [70, 2051])  # the larger one is stored past the caches
def test_out_is_written_and_nothing_beside_it(isa, n):
    x, layers = draw(n, 9, (40, 3))
    buffer = torch.full((n + 3, n + 9), float("nan"))
    out = buffer[1 : 1 + n, 4 : 4 + n]
    assert glai.path_kernel(x, pack(layers), out=out) is out
    assert torch.equal(out, glai.path_kernel(x, pack(layers)))
    halves = glai.path_kernel(x, pack(layers), x[:33], pack([layer[:33] for layer in layers]))
    glai.path_kernel(x, pack(layers), x[:33], pack([layer[:33] for layer in layers]), out=out[:, 5:38])
    assert torch.equal(out[:, 5:38], halves)
    out.fill_(float("nan"))
    assert bool(torch.isnan(buffer).all())


def test_no_gradient_comes_out_and_out_counts_as_changed():
    x, layers = draw(5, 3, (4,))
    out = glai.path_kernel(x.requires_grad_(), pack(layers))
    assert not out.requires_grad
    before = out._version
    glai.path_kernel(x, pack(layers), out=out)
    assert out._version > before


X, LAYERS = torch.zeros(3, 5), [glai.pack_gates(torch.ones(3, h, dtype=torch.bool)) for h in (40, 2)]
OUT = torch.zeros(3, 3)
TWO_WORDS = [glai.pack_gates(torch.ones(2, 40, dtype=torch.bool))]
OTHER = [glai.PackedGates(layer.words, layer.n_gates, name) for layer, name in zip(LAYERS, "ab", strict=True)]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: glai.path_kernel(X, LAYERS, X), "path_kernel: xb must come with layers_b"),
        (lambda: glai.path_kernel(X, LAYERS, layers_b=LAYERS), "path_kernel: layers_b must come with xb"),
        (lambda: glai.path_kernel(X, []), "layers_a must hold the unit bits of at least one hidden layer"),
        (
            lambda: glai.path_kernel(X, LAYERS, X, LAYERS[:1]),
            r"layers_b must have the units of layers_a, \[40, 2\], got \[40\]",
        ),
        (
            lambda: glai.path_kernel(X, LAYERS, X, LAYERS[::-1]),
            r"layers_b must have the units of layers_a, \[40, 2\], got \[2, 40\]",
        ),
        (
            lambda: glai.path_kernel(X, LAYERS, X[:, :4], LAYERS),
            r"path_kernel: xb must be float32 \[Nb, D=5\], got float32 \[3, 4\]",
        ),
        (lambda: glai.path_kernel(X, LAYERS, X.double(), LAYERS), r"xb must be float32 .*, got float64"),
        (
            lambda: glai.path_kernel(X[:2], LAYERS),
            r"layers_a\[0\].words must be int32 \[Na=2, ceil\(h/32\)=2\], got int32 \[3, 2\]",
        ),
        (
            lambda: glai.path_kernel(X, LAYERS, X[:2], LAYERS),
            r"layers_b\[0\].words must be int32 \[Nb=2, ceil\(h/32\)=2\], got int32 \[3, 2\]",
        ),
        (
            lambda: glai.path_kernel(X[0], LAYERS),
            r"xa must be float32 or float64 \[Na, D\], got float32 \[5\]",
        ),
        (lambda: glai.path_kernel(X.half(), LAYERS), r"xa must be float32 or float64 \[Na, D\], got float16"),
        (lambda: glai.path_kernel(X, OTHER), "path_kernel: gates must be of one structure"),
        (lambda: glai.path_kernel(X.to("meta"), LAYERS), "xa must be on cpu or cuda"),
        (
            lambda: glai.path_kernel(X, LAYERS, out=OUT[:2]),
            r"path_kernel: out must be float32 \[Na=3, Nb=3\], got float32 \[2, 3\]",
        ),
        (lambda: glai.path_kernel(X, LAYERS, out=OUT.double()), "out must be float32 .*, got float64"),
        (lambda: glai.path_kernel(X, LAYERS, out=OUT.T), "out must have stride 1 in its last dimension"),
        (lambda: glai.path_kernel(X, LAYERS, out=OUT[:1].expand(3, 3)), "rows that do not overlap"),
        (lambda: glai.path_kernel(X, LAYERS, out=X[:, 1:4]), "out must not share memory with xa"),
        (
            lambda: glai.path_kernel(X.clone(), LAYERS, X, LAYERS, out=X[:, 1:4]),
            "out must not share memory with xb",
        ),
        (
            lambda: glai.path_kernel(X[:2, :0], TWO_WORDS, out=TWO_WORDS[0].words.view(torch.float32)[:, :2]),
            r"out must not share memory with layers_a\[0\].words",
        ),
    ],
)
def test_bad_arguments_are_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: glai.path_kernel([1.0], LAYERS), "path_kernel: xa must be a torch.Tensor, got list"),
        (lambda: glai.path_kernel(X, LAYERS[0]), "layers_a must be a sequence of PackedGates"),
        (lambda: glai.path_kernel(X, LAYERS, X, [X]), "layers_b must be a sequence of PackedGates"),
        (lambda: glai.path_kernel(X, LAYERS, 1, LAYERS), "path_kernel: xb must be a torch.Tensor, got int"),
        (lambda: glai.path_kernel(X, LAYERS, out=1), "path_kernel: out must be a torch.Tensor, got int"),
    ],
)
def test_no_tensors_are_one_sentence(call, sentence):
    with pytest.raises(TypeError, match=sentence):
        call()
