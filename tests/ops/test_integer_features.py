"""integer_features against its reference, to the bit, on every instruction set."""

import itertools
import math

import pytest
import torch

from glai_native.ops import oracle as ref
from glai_native.ops.integer_sums import IntegerLayer, integer_features


def draw(n, *widths, seed=0):
    """x [n, D], mean, scale, and layers of widths D, h_1, ..., whose outputs spread over 0 to 127."""
    generator = torch.Generator().manual_seed(seed + n)
    d = widths[0]
    x = torch.randn((n, d), generator=generator)
    mean = torch.randn(d, generator=generator)
    scale = 10 + 10 * torch.rand(d, generator=generator)
    layers = []
    for k, h in itertools.pairwise(widths):
        weight = torch.randint(-127, 128, (h, k), generator=generator, dtype=torch.int8)
        bias = torch.randint(-50_000, 50_000, (h,), generator=generator, dtype=torch.int32)
        multiplier = torch.randint(1 << 15, 1 << 16, (h,), generator=generator, dtype=torch.int32)
        layers.append(IntegerLayer(weight, bias, multiplier, 22 + int(math.log2(k + 1)) // 2))
    return x, mean, scale, layers


@pytest.mark.parametrize(
    "shape",
    [
        *((0, 3, 4), (3, 0, 4), (3, 4, 0), (1, 1, 1), (2, 31, 33), (31, 32, 31), (33, 33, 32)),
        *((64, 7, 97), (65, 130, 48), (5, 9, 33, 20), (70, 21, 40, 50, 17), (3, 4, 0, 5)),
    ],
    ids=str,
)
def test_edges(byte_isa, shape):
    arguments = draw(*shape)
    features = integer_features(*arguments)
    assert torch.equal(features, ref.integer_features_ref(*arguments))
    assert features.shape == (shape[0], shape[-1] + shape[1] + 1)
    assert features.numel() == 0 or int(features.max()) == 127


def test_values_spread_and_saturate(byte_isa):
    """Else the tests above would hold little."""
    features = integer_features(*draw(200, 60, 80))[:, :80]
    assert 0.2 < float((features == 0).float().mean()) < 0.8
    assert len(features.unique()) == 128


def test_halves_round_to_even_and_what_is_no_number_is_the_smallest(byte_isa):
    values = [0.5, 1.5, 2.5, -0.5, -1.5, 62.5, 63.5, 1e30, -1e30, math.inf, -math.inf, math.nan, 62.499996]
    x = torch.tensor([values])
    layer = IntegerLayer(
        torch.ones(1, len(values), dtype=torch.int8), torch.zeros(1).int(), torch.ones(1).int(), 1
    )
    one = torch.ones(len(values))
    q = integer_features(x, 0 * one, one, [layer])[0, 1:-1].int() - 64
    assert q.tolist() == [0, 2, 2, 0, -2, 62, 63, 63, -63, 63, -63, -63, 62]


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_largest_sums_do_not_overflow(byte_isa, sign):
    k = 2000
    weight = torch.full((3, k), sign * 127, dtype=torch.int8)
    weight[1] = -128
    layer = IntegerLayer(weight, torch.full((3,), 900_000).int(), torch.full((3,), 65535).int(), 31)
    x = torch.full((2, k), 1e9 * sign)
    x[1] *= -1
    arguments = x, torch.zeros(k), torch.ones(k), [layer, IntegerLayer(weight[:, :3], *layer[1:3], 24)]
    assert torch.equal(integer_features(*arguments), ref.integer_features_ref(*arguments))


def test_strided_operands_and_a_slice_of_a_buffer(byte_isa):
    x, mean, scale, layers = draw(40, 20, 30)
    buffer = torch.full((44, 60), 9, dtype=torch.uint8)
    out = buffer[2:42, 5:56]
    wide = torch.randn(40, 40)
    wide[:, ::2] = x
    layer = IntegerLayer(
        layers[0].weight.T.contiguous().T,
        torch.stack([layers[0].bias] * 2, 1)[:, 0],
        torch.stack([layers[0].multiplier] * 2, 1)[:, 0],
        layers[0].shift,
    )
    assert integer_features(wide[:, ::2], mean, scale[:1].expand(20), [layer], out) is out
    assert torch.equal(out, ref.integer_features_ref(x, mean, scale[:1].expand(20), layers))
    buffer[2:42, 5:56] = 9
    assert bool((buffer == 9).all())


def test_bits_do_not_depend_on_threads_nor_on_what_else_is_asked(byte_isa, threads):
    arguments = draw(300, 50, 70, 40)
    expected = ref.integer_features_ref(*arguments)
    for n in (1, 2, 3):
        threads(n)
        assert torch.equal(integer_features(*arguments), expected)
    x, *frozen = arguments
    for few in (1, 2, 5):
        assert torch.equal(integer_features(x[:few], *frozen), expected[:few])


X, MEAN, SCALE, (LAYER,) = draw(3, 4, 5)


def replaced(**of_layer):
    return [LAYER._replace(**of_layer)]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: integer_features(X.double(), MEAN, SCALE, [LAYER]),
            r"x must be float32 \[N, D\], got float64",
        ),
        (
            lambda: integer_features(X, MEAN[1:], SCALE, [LAYER]),
            r"mean must be float32 \[D=4\], got float32 \[3\]",
        ),
        (lambda: integer_features(X, MEAN, SCALE[:1], [LAYER]), r"scale must be float32 \[D=4\]"),
        (lambda: integer_features(X, MEAN, SCALE, []), "layers must hold one layer at least, got none"),
        (
            lambda: integer_features(X, MEAN, SCALE, replaced(weight=LAYER.weight[:, 1:])),
            r"layers\[0\].weight must be int8 \[H, D=4\], got int8 \[5, 3\]",
        ),
        (
            lambda: integer_features(X, MEAN, SCALE, [LAYER, LAYER]),
            r"layers\[1\].weight must be int8 \[H, units of the layer before=5\], got int8 \[5, 4\]",
        ),
        (
            lambda: integer_features(X, MEAN, SCALE, replaced(multiplier=LAYER.multiplier + (1 << 15))),
            r"layers\[0\].multiplier must be in \[0, 65535\], got \d+",
        ),
        (lambda: integer_features(X, MEAN, SCALE, replaced(shift=63)), r"shift must be in \[1, 62\], got 63"),
        (lambda: integer_features(X, MEAN, SCALE, replaced(shift=0)), r"shift must be in \[1, 62\], got 0"),
        (
            lambda: integer_features(X, MEAN, SCALE, replaced(bias=LAYER.bias + (2**31 - 100_000))),
            r"layers\[0\].bias must be at most 2147418623 in size beside 4 columns of weights, got",
        ),
        (
            lambda: integer_features(X, MEAN, SCALE, [LAYER], torch.zeros(3, 9, dtype=torch.uint8)),
            r"out must be uint8 \[N=3, H\+D\+1=10\], got uint8 \[3, 9\]",
        ),
    ],
)
def test_bad_arguments_are_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        call()
    assert str(error.value).startswith("integer_features: ")
    assert "\n" not in str(error.value)


def test_layers_are_of_their_type():
    with pytest.raises(TypeError, match="layers must be a sequence of IntegerLayer, one per hidden layer"):
        integer_features(X, MEAN, SCALE, [tuple(LAYER)])
