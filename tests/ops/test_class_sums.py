"""class_sums against its reference, to the bit."""

import pytest
import torch

from glai_native.ops import oracle as ref
from glai_native.ops.integer_sums import class_sums
from ops.oracle import draw_bytes


def draw(n, m, c, seed=0):
    generator = torch.Generator().manual_seed(seed + n + c)
    return draw_bytes(n, m, seed=seed), torch.randint(max(c, 1), (n,), generator=generator)


@pytest.mark.parametrize(
    "shape",
    [
        (0, 5, 3),
        (3, 0, 2),
        (1, 1, 1),
        (31, 31, 2),
        (32, 255, 33),
        (33, 256, 1),
        (900, 257, 3),
        (40, 600, 300),
    ],
    ids=str,
)
def test_edges(isa, shape):
    features, classes = draw(*shape)
    expected = ref.class_sums_ref(features, classes, shape[2])
    assert torch.equal(class_sums(features, classes, n_classes=shape[2]), expected)


def test_strided_operands_and_a_slice_of_a_buffer(isa):
    features, classes = draw(80, 40, 9)
    buffer = torch.full((24, 15), 3)
    out = buffer[2:22, 4:13]
    assert class_sums(features[::2, 1:21], classes[1::2], out) is out
    expected = ref.class_sums_ref(features[::2, 1:21], classes[1::2], 9)
    assert torch.equal(out - 3, expected)
    buffer[2:22, 4:13] = 3
    assert bool((buffer == 3).all())
    assert torch.equal(
        class_sums(features.T, classes[:40], n_classes=9), ref.class_sums_ref(features.T, classes[:40], 9)
    )


def test_chunks_add_up_and_are_taken_out_again(isa, threads):
    features, classes = draw(500, 700, 7)
    out = torch.zeros(700, 7, dtype=torch.int64)
    for n, rows in enumerate(torch.arange(500).split(111)):
        threads(1 + n % 3)
        class_sums(features[rows], classes[rows], out)
    assert torch.equal(out, ref.class_sums_ref(features, classes, 7))
    class_sums(features[9:400], classes[9:400], out, sign=-1)
    left = torch.cat([torch.arange(9), torch.arange(400, 500)])
    assert torch.equal(out, ref.class_sums_ref(features[left], classes[left], 7))


@pytest.mark.slow
def test_sums_past_16_and_32_bits(isa):
    n = (1 << 20) + 40_000
    features = torch.full((1, 3), 255, dtype=torch.uint8).expand(n, 3)
    sums = torch.full((3, 2), (1 << 33) - 5)
    class_sums(features, torch.ones(1, dtype=torch.int64).expand(n), sums)
    assert torch.equal(sums, torch.tensor([[(1 << 33) - 5, (1 << 33) - 5 + 255 * n]] * 3))


X, T, OUT = draw_bytes(3, 5), torch.tensor([0, 1, 1]), torch.zeros(5, 2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: class_sums(X, T), "class_sums: n_classes must be given where out is None"),
        (lambda: class_sums(X, T, OUT, 3), "class_sums: n_classes must be that of out, 2, got 3"),
        (lambda: class_sums(X.int(), T, OUT), r"features must be uint8 \[N, M\], got int32 \[3, 5\]"),
        (lambda: class_sums(X, T[:2], OUT), r"classes must be int64 \[N=3\], got int64 \[2\]"),
        (lambda: class_sums(X, T.int(), OUT), r"classes must be int64 \[N=3\], got int32 \[3\]"),
        (lambda: class_sums(X, T, OUT[1:]), r"out must be int64 \[M=5, C\], got int64 \[4, 2\]"),
        (lambda: class_sums(X, T + 1, OUT), r"classes must be in \[0, C=2\), got 2 in row 1"),
        (lambda: class_sums(X, T - 1, OUT), r"classes must be in \[0, C=2\), got -1 in row 0"),
        (lambda: class_sums(X, T, n_classes=0), r"classes must be in \[0, C=0\), got 0 in row 0"),
        (lambda: class_sums(X, T, OUT, sign=2), "class_sums: sign must be 1 or -1, got 2"),
        (lambda: class_sums(X, OUT.view(-1)[:3], OUT), "out must not share memory with classes"),
    ],
)
def test_bad_arguments_are_one_sentence_and_nothing_is_added(call, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        call()
    assert "\n" not in str(error.value)
    assert not OUT.any()
