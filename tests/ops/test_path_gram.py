"""path_gram against its float64 reference, adding, taking away, and leaving alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import glai_native as glai
from accuracy import assert_accurate
from glai_native.ops import oracle as ref
from ops.oracle import check_gram
from ops.oracle import draw_gram as draw

DTYPES = [torch.float32, torch.float64]
# (N, P, D): zero, one, around a word, around a vector, more than one pass of samples, group of gates, square.
EDGES = [
    (0, 3, 4),
    (3, 0, 4),
    (3, 4, 0),
    (1, 1, 1),
    (31, 31, 3),
    (32, 32, 2),
    (33, 33, 3),
    (40, 67, 1),
    (60, 3, 31),
    (60, 4, 32),
    (60, 5, 33),
    (200, 6, 63),
    (150, 7, 64),
    (90, 8, 130),
    (4200, 3, 5),
]


def check_all(x, bits, weight):
    gates = glai.pack_gates(bits)
    check_gram(glai.path_gram(x, gates), x, bits)
    check_gram(glai.path_gram(x, gates, weight), x, bits, weight)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", EDGES, ids=str)
def test_edges(isa, shape, dtype):
    check_all(*draw(*shape, dtype=dtype))


@pytest.mark.parametrize("density", [0.0, 0.05, 0.9, 1.0])
def test_densities(isa, density):
    check_all(*draw(300, 12, 20, density=density))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "d"), [(1, 1), (31, 32), (33, 7), (70, 31), (300, 130), (600, 63)])
def test_one_path_that_is_always_on(isa, threads, n, d, dtype):
    """A dense product, which units' statistics are."""
    x, bits, weight = draw(n, 1, d, dtype, density=1.0)
    check_all(x, bits, weight)
    gates = glai.pack_gates(bits)
    found = []
    for count in (1, 2, 3):
        threads(count)
        buffer = torch.full((d + 4, d + 9), 7.0, dtype=dtype)
        out = buffer[2 : 3 + d, 4 : 5 + d]
        glai.path_gram(x, gates, weight, out=out)
        found.append(out.triu())
        untouched = torch.ones_like(buffer, dtype=torch.bool)
        untouched[2 : 3 + d, 4 : 5 + d] = ~torch.ones(d + 1, d + 1, dtype=torch.bool).triu()
        assert bool((buffer[untouched] == 7).all())
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    check_gram(found[0], x, bits, weight, added_to=torch.full((d + 1, d + 1), 7.0, dtype=dtype).triu())


@given(
    n=st.integers(0, 70),
    p=st.integers(0, 17),
    d=st.integers(0, 36),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_any_shape(n, p, d, density, dtype, seed):
    check_all(*draw(n, p, d, dtype, density, seed))


@pytest.mark.parametrize("dtype", DTYPES)
def test_strided_inputs(isa, dtype):
    x, bits, weight = draw(80, 11, 42, dtype)
    for view in (x[5:45, 3:24], x[::2, ::2], x[:40, :21].T.contiguous().T, x[:1, :21].expand(40, 21)):
        for weights in (weight[3:43], weight[::2], weight[:1].expand(40)):
            check_all(view, bits[:40], weights)


@pytest.mark.parametrize("dtype", DTYPES)
def test_chunks_add_up_to_the_whole(isa, dtype):
    x, bits, weight = draw(210, 9, 17, dtype)
    gates = glai.pack_gates(bits)
    out = glai.path_gram(x[:64], gates[:64], weight[:64])
    for begin in (64, 128, 192):
        rows = slice(begin, min(begin + 64, 210))
        assert glai.path_gram(x[rows], gates[rows], weight[rows], out=out) is out
    check_gram(out, x, bits, weight)


@pytest.mark.parametrize("dtype", DTYPES)
def test_negative_weights_take_samples_out_again(isa, dtype):
    x, bits, weight = draw(150, 9, 17, dtype)
    gates = glai.pack_gates(bits)
    start = glai.path_gram(x[:90], gates[:90])
    out = start.clone()
    glai.path_gram(x, gates, weight, out=out)
    glai.path_gram(x, gates, -weight, out=out)
    wide = x.double()
    doubled = torch.cat([wide[:90], wide, wide]), torch.cat([bits[:90], bits, bits])
    weights = torch.cat([torch.ones(90, dtype=torch.float64), weight.double(), weight.double()]).abs()
    assert_accurate(
        out,
        ref.path_gram_ref(wide[:90], bits[:90]),
        ref.path_gram_ref(doubled[0].abs(), doubled[1], weights),
        ref.path_gram_ref(torch.ones_like(doubled[0]), doubled[1]),
    )


@pytest.mark.parametrize("p", [7, 2])
def test_only_the_upper_triangle_is_touched(isa, p):
    x, bits, _ = draw(50, p, 40)
    size = p * 41
    buffer = torch.full((size + 3, size + 9), 7.0)
    out = buffer[1 : 1 + size, 4 : 4 + size]
    glai.path_gram(x, glai.pack_gates(bits), out=out)
    check_gram(out.triu(), x, bits, added_to=torch.full((size, size), 7.0).triu())
    untouched = torch.ones_like(buffer, dtype=torch.bool)
    untouched[1 : 1 + size, 4 : 4 + size] = ~torch.ones(size, size, dtype=torch.bool).triu()
    assert bool((buffer[untouched] == 7).all())


def test_paths_that_are_never_on_together_leave_their_block_untouched(isa):
    x, bits, _ = draw(300, 12, 20)
    bits[:, 4] = False
    bits[:, 7] &= ~bits[:, 1]
    x[3] = float("inf")
    bits[3] = False
    out = torch.zeros(12 * 21, 12 * 21)
    block = out.view(12, 21, 12, 21)
    block[:, :, 4] = block[4] = block[1, :, 7] = float("nan")  # nothing is added to these
    kept = torch.isnan(out)
    glai.path_gram(x, glai.pack_gates(bits), out=out)
    assert torch.equal(torch.isnan(out), kept)
    x[3] = 0
    check_gram(out.masked_fill(kept, 0), x, bits)


@pytest.mark.parametrize("dtype", DTYPES)
def test_blocks_are_symmetric(isa, dtype):
    x, bits, weight = draw(80, 8, 70, dtype)
    gram = glai.path_gram(x, glai.pack_gates(bits), weight).view(8, 71, 8, 71)
    for p in range(8):
        for q in range(p + 1, 8):
            assert torch.equal(gram[p, :, q], gram[p, :, q].T)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_threads(isa, threads, dtype):
    x, bits, weight = draw(500, 13, 70, dtype)
    gates = glai.pack_gates(bits)
    results = []
    for n in (1, 2, 3, 3):
        threads(n)
        results.append(glai.path_gram(x, gates, weight))
    assert all(torch.equal(results[0], other) for other in results[1:])


def test_no_gradient_comes_out_and_out_counts_as_changed():
    x, bits, weight = draw(5, 3, 4)
    gates = glai.pack_gates(bits)
    out = glai.path_gram(x.requires_grad_(), gates, weight.requires_grad_())
    assert not out.requires_grad
    before = out._version
    glai.path_gram(x, gates, out=out)
    assert out._version > before


GATES = glai.pack_gates(torch.ones(3, 4, dtype=torch.bool))
X, S, OUT = torch.zeros(3, 5), torch.zeros(3), torch.zeros(24, 24)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: glai.path_gram(X[0], GATES),
            r"path_gram: x must be float32 or float64 \[N, D\], got float32 \[5\]",
        ),
        (
            lambda: glai.path_gram(X.half(), GATES),
            r"x must be float32 or float64 \[N, D\], got float16 \[3, 5\]",
        ),
        (
            lambda: glai.path_gram(X[:2], GATES),
            r"gates.words must be int32 \[N=2, ceil\(P/32\)=1\], got int32 \[3, 1\]",
        ),
        (
            lambda: glai.path_gram(X, GATES, S[:2]),
            r"sample_weight must be float32 \[N=3\], got float32 \[2\]",
        ),
        (
            lambda: glai.path_gram(X, GATES, S.double()),
            r"sample_weight must be float32 \[N=3\], got float64 \[3\]",
        ),
        (
            lambda: glai.path_gram(X, GATES, out=OUT[1:]),
            r"path_gram: out must be float32 \[P\*\(D\+1\)=24, P\*\(D\+1\)=24\], got float32 \[23, 24\]",
        ),
        (lambda: glai.path_gram(X, GATES, out=OUT.double()), "out must be float32 .*, got float64"),
        (lambda: glai.path_gram(X, GATES, out=OUT.T), "out must have stride 1 in its last dimension"),
        (lambda: glai.path_gram(X, GATES, out=OUT[:1].expand(24, 24)), "rows that do not overlap"),
        (lambda: glai.path_gram(OUT[:3, :5], GATES, out=OUT), "out must not share memory with x"),
        (
            lambda: glai.path_gram(X, GATES, OUT[0, :3], out=OUT),
            "out must not share memory with sample_weight",
        ),
        (lambda: glai.path_gram(X.to("meta"), GATES), "x must be on cpu or cuda"),
    ],
)
def test_bad_arguments_are_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: glai.path_gram([1.0], GATES), "path_gram: x must be a torch.Tensor, got list"),
        (lambda: glai.path_gram(X, torch.ones(3, 4)), "path_gram: gates must be PackedGates, got Tensor"),
        (lambda: glai.path_gram(X, GATES, 2.0), "sample_weight must be a torch.Tensor, got float"),
        (lambda: glai.path_gram(X, GATES, out=1), "out must be a torch.Tensor, got int"),
    ],
)
def test_no_tensors_are_one_sentence(call, sentence):
    with pytest.raises(TypeError, match=sentence):
        call()
