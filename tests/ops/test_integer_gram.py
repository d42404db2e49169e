"""integer_gram against its reference, to the bit: adding, taking away, and leaving alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import glai_native as glai
from glai_native.ops import oracle as ref
from ops.oracle import draw_bytes

# (N, M): zero, one, around a vector and a tile, more than one block of columns, more than one of samples.
EDGES = [
    *((0, 5), (3, 0), (1, 1), (4, 7), (7, 8), (8, 9), (9, 15), (31, 31), (32, 32), (33, 33)),
    *((5, 47), (12, 48), (65, 49), (70, 97), (40, 129), (3, 260), (520, 34), (1030, 21), (2100, 150)),
]


@pytest.mark.parametrize("shape", EDGES, ids=str)
def test_edges(byte_isa, shape):
    features = draw_bytes(*shape)
    assert torch.equal(glai.integer_gram(features), ref.integer_gram_ref(features))


@given(n=st.integers(0, 90), m=st.integers(0, 140), seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_any_shape(n, m, seed):
    features = draw_bytes(n, m, seed=seed)
    assert torch.equal(glai.integer_gram(features), ref.integer_gram_ref(features))


@pytest.mark.parametrize("value", [1, 64, 127])
def test_the_largest_sums_do_not_overflow(byte_isa, value):
    features = torch.full((3000, 19), 127, dtype=torch.uint8)
    features[:, 1::2] = value
    assert torch.equal(glai.integer_gram(features), ref.integer_gram_ref(features))


@pytest.mark.slow
def test_sums_past_32_bits(byte_isa):
    features = torch.full((1, 5), 127, dtype=torch.uint8).expand(300_000, 5)
    expected = torch.full((5, 5), 300_000 * 127 * 127).triu()
    assert torch.equal(glai.integer_gram(features), expected)


def test_strided_features(byte_isa):
    features = draw_bytes(80, 90)
    for view in (features[5:45, 3:60], features[::2, ::2], features[:40, :21].T, features[:1].expand(40, 90)):
        assert torch.equal(glai.integer_gram(view), ref.integer_gram_ref(view))


def test_chunks_add_up_and_are_taken_out_again(byte_isa):
    features = draw_bytes(210, 70)
    whole, out = ref.integer_gram_ref(features), torch.zeros(70, 70, dtype=torch.int64)
    for rows in features.split(64):
        assert glai.integer_gram(rows, out=out) is out
    assert torch.equal(out, whole)
    glai.integer_gram(features[13:150], out=out, sign=-1)
    assert torch.equal(out, ref.integer_gram_ref(torch.cat([features[:13], features[150:]])))
    assert torch.equal(glai.integer_gram(features, sign=-1), -whole)


def test_only_the_upper_triangle_is_touched(byte_isa):
    features, m = draw_bytes(50, 131), 131
    buffer = torch.full((m + 3, m + 9), 7)
    out = buffer[1 : 1 + m, 4 : 4 + m]
    glai.integer_gram(features, out=out)
    assert torch.equal(out.triu(), ref.integer_gram_ref(features) + torch.full((m, m), 7).triu())
    untouched = torch.ones_like(buffer, dtype=torch.bool)
    untouched[1 : 1 + m, 4 : 4 + m] = ~torch.ones(m, m, dtype=torch.bool).triu()
    assert bool((buffer[untouched] == 7).all())


def test_bits_do_not_depend_on_threads(byte_isa, threads):
    features = draw_bytes(700, 300)
    for n in (1, 2, 3):
        threads(n)
        assert torch.equal(glai.integer_gram(features), ref.integer_gram_ref(features))


@pytest.mark.parametrize("at", [(0, 0), (32, 32), (7, 31)])
def test_a_value_past_127_is_refused_before_anything_is_added(byte_isa, at):
    features, out = draw_bytes(33, 33), torch.full((33, 33), 5)
    features[at] = 128
    with pytest.raises(ValueError, match=rf"features must be values 0 to 127, got 128 in row {at[0]}$"):
        glai.integer_gram(features, out=out)
    assert bool((out == 5).all())


X, OUT = torch.zeros(3, 5, dtype=torch.uint8), torch.zeros(5, 5, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: glai.integer_gram(X[0]), r"integer_gram: features must be uint8 \[N, M\], got uint8 \[5\]"),
        (lambda: glai.integer_gram(X.float()), r"must be uint8 \[N, M\], got float32 \[3, 5\]"),
        (lambda: glai.integer_gram(X, OUT[1:]), r"out must be int64 \[M=5, M=5\], got int64 \[4, 5\]"),
        (lambda: glai.integer_gram(X, OUT.int()), "out must be int64 .*, got int32"),
        (lambda: glai.integer_gram(X, OUT.T), "out must have stride 1 in its last dimension"),
        (lambda: glai.integer_gram(X, OUT[:1].expand(5, 5)), "rows that do not overlap"),
        (
            lambda: glai.integer_gram(OUT.view(torch.uint8)[:3, :5], OUT),
            "out must not share memory with feat",
        ),
        (lambda: glai.integer_gram(X, sign=0), "integer_gram: sign must be 1 or -1, got 0"),
        (lambda: glai.integer_gram(X.to("meta")), "features must be on cpu or cuda"),
    ],
)
def test_bad_arguments_are_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: glai.integer_gram([1.0]), "integer_gram: features must be a torch.Tensor, got list"),
        (lambda: glai.integer_gram(X, 3), "integer_gram: out must be a torch.Tensor, got int"),
        (lambda: glai.integer_gram(X, sign=1.0), "integer_gram: sign must be an int, got float"),
    ],
)
def test_no_tensors_are_one_sentence(call, sentence):
    with pytest.raises(TypeError, match=sentence):
        call()
