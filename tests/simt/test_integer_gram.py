"""integer_gram on the executor and on a GPU, to the bit."""

import pytest
import torch

import glai_native as glai
from glai_native.ops.integer_sums import class_sums
from glai_native.ops.oracle import integer_gram_ref
from ops.oracle import draw_bytes

# (N, M): nothing, one, around a word; more than one fragment, one step, all stages; more than one tile.
SHAPES = [(0, 5), (3, 0), (1, 1), (33, 33), (64, 128), (65, 129), (300, 40), (7, 300)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_integer_gram(place, shape):
    features = draw_bytes(*shape)
    out = glai.integer_gram(place(features))
    assert torch.equal(out.cpu(), integer_gram_ref(features))
    glai.integer_gram(place(features[: shape[0] // 2]), out, sign=-1)
    assert torch.equal(out.cpu(), integer_gram_ref(features[shape[0] // 2 :]))


@pytest.mark.parametrize("first", [0, 1, 4, 16])
def test_rows_that_begin_anywhere(place, first):
    features = draw_bytes(70, 96)
    for columns in (slice(first, first + 64), slice(first, first + 35)):
        assert torch.equal(
            glai.integer_gram(place(features)[:, columns]).cpu(), integer_gram_ref(features[:, columns])
        )


def test_only_the_upper_triangle_of_a_slice_is_touched(place):
    buffer = place(torch.full((34, 40), 7))
    out = buffer[1:34, 4:37]
    glai.integer_gram(place(draw_bytes(5, 33)), out)
    untouched = torch.ones_like(buffer, dtype=torch.bool)
    untouched[1:34, 4:37] = ~torch.ones(33, 33, dtype=torch.bool).triu()
    assert bool((buffer[untouched] == 7).all())


def test_values_past_127_and_other_ops_are_refused(place):
    features = draw_bytes(3, 4)
    features[1, 2] = 200
    with pytest.raises(ValueError, match="integer_gram: features must be values 0 to 127, got"):
        glai.integer_gram(place(features))
    with pytest.raises(ValueError, match="class_sums: there is no CUDA kernel for this op yet"):
        class_sums(place(features), place(torch.zeros(3, dtype=torch.int64)), n_classes=2)
