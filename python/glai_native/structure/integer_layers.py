"""Layers of integer units are made here: random ones, or a selector's, quantised unit by unit on first samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from glai_native.machine.threads import one_torch_thread
from glai_native.ops.integer_sums import IntegerLayer
from glai_native.structure.selector import PathSelector

# What an input q, and a unit h, cannot pass.
MOST_INPUT, MOST_UNIT, MOST_WEIGHT = 63, 127, 127
# The last value that a unit tells apart from larger ones is so many root mean squares of what it lets through.
UNIT_RANGE = 6
# A random unit's bias is what an input of this value would add by one more random weight.
BIAS_INPUT = 16
# Every second random unit reads a window of features.
WINDOWS_APART = 2
# How long windows are, for each rule that files name, from least to most: a share of the features, but no less than so
# many. On held-out samples rule 2 is 0.25 points better than rule 1 on MNIST and letter, 0.2 worse on electricity, and
# level elsewhere.
WINDOW_LENGTHS = {1: ((1 / 10, 2), (1.0, 2)), 2: ((1 / 20, 4), (1 / 4, 12))}
WINDOWS = max(WINDOW_LENGTHS)
# The root mean square that weights are brought to where samples give them: that of those drawn.
WEIGHT_RMS = 37
# Rows that units are measured on at a time.
MEASURED_CHUNK = 128
# No unit is taken to be weaker than this share of the layer's mean square: it would drown the others' digits.
LEAST_SQUARE = 2**-12
MOST_SUM = (1 << 31) - 1
MOST_MULTIPLIER, MOST_SHIFT = (1 << 16) - 1, 62
# Sums of products below this are exact in float32.
EXACT_SUM = 1 << 24
# Seeds that users can give end here; those of further numbers are beyond.
SEEDS = 1 << 32

# Measures a layer's units on first samples: takes the layers below it, its weight and its bias; returns the sums over
# samples of the squares of what each unit lets through, ``[H]``, and of how many samples they are.
Measure = Callable[[Sequence[IntegerLayer], Tensor, Tensor], tuple[Sequence[int], int]]


def random_numbers(seed: int, n_units: int, fan_in: int) -> Tensor:
    """Draw near-normal integers in [-126, 126], standard deviation 37, int8 ``[n_units, fan_in]``.

    Each is the sum of four numbers of 6 bits, less 126: integer arithmetic on the words of Philox, which are the same
    on every machine and for every version of NumPy. A seed's first units do not depend on how many follow.

    Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (2011).
    """
    count = n_units * fan_in
    words = np.random.Philox(seed).random_raw((count + 1) // 2)
    halves = np.stack([words & 0xFFFFFF, words >> np.uint64(40)], axis=1).ravel()[:count].astype(np.int32)
    numbers = (halves & 63) + (halves >> 6 & 63) + (halves >> 12 & 63) + (halves >> 18) - 126
    return torch.from_numpy(numbers.astype(np.int8)).reshape(n_units, fan_in)


def random_weights(
    seed: int, n_units: int, in_features: int, windows: int = WINDOWS
) -> tuple[Tensor, Tensor]:
    """Draw weights int8 ``[n_units, D]`` and biases int32 ``[n_units]`` of random units.

    Every second unit reads features that lie side by side and no others: neighbours in a picture, a few columns of a
    table. Where features have no order that costs nothing that could be measured.

    Source: receptive fields of random units: McDonnell et al., arXiv 1412.8307, there rectangles of a picture.

    Args:
        seed: of all that is drawn.
        n_units: H.
        in_features: D.
        windows: the rule for their lengths.
    """
    numbers = random_numbers(seed, n_units, in_features + 1)
    bias = numbers[:, -1].to(torch.int32) * BIAS_INPUT
    weight = numbers[:, :-1].contiguous()
    begin, length = random_windows(seed, len(weight[1::WINDOWS_APART]), in_features, windows)
    place = torch.arange(in_features, device="cpu")
    weight[1::WINDOWS_APART] *= (place >= begin[:, None]) & (place < (begin + length)[:, None])
    return weight, bias


def random_windows(
    seed: int, n_windows: int, in_features: int, windows: int = WINDOWS
) -> tuple[Tensor, Tensor]:
    """Draw begin and length, int64 ``[n_windows]``; all lengths that the rule allows are alike often."""
    words = np.random.Philox([seed, 1]).random_raw(n_windows)
    low, high = words & np.uint64(0xFFFFFFFF), words >> np.uint64(32)
    least, most = (
        min(in_features, max(fewest, math.ceil(share * in_features)))
        for share, fewest in WINDOW_LENGTHS[windows]
    )
    length = np.uint64(least) + (low * np.uint64(most - least + 1) >> np.uint64(32))
    begin = high * (np.uint64(in_features + 1) - length) >> np.uint64(32)
    return torch.from_numpy(begin.astype(np.int64)), torch.from_numpy(length.astype(np.int64))


def random_layers(measure: Measure, n_units: int, in_features: int, seed: int) -> tuple[IntegerLayer, ...]:
    """Return one layer of random units."""
    weight, bias = random_weights(seed, n_units, in_features)
    return (measured_layer(weight, bias, *measure((), weight, bias)),)


def shaped_layers(measure: Measure, rows: Tensor, n_units: int, seed: int) -> tuple[IntegerLayer, ...]:
    """Return one layer of random units, of which those that read all features follow the covariance of samples.

    The weights of such a unit are a random combination of samples, normal numbers with their second moments; neither
    the order of the samples nor how often one comes matters.

    Args:
        measure: the units.
        rows: q int8 ``[N, D]``, some of the samples.
        n_units: H.
        seed: of all that is drawn.
    """
    weight, bias = random_weights(seed, n_units, rows.shape[1])
    whole = rows.contiguous().numpy()
    distinct = np.unique(whole.view(f"V{whole.shape[1]}")).view(np.int8).reshape(-1, whole.shape[1])
    followers = torch.ones(n_units, dtype=torch.bool, device="cpu")
    followers[1::WINDOWS_APART] = False
    numbers = random_numbers(seed + SEEDS, int(followers.sum()), len(distinct)).numpy()
    combined = torch.from_numpy(numbers.astype(np.float64) @ distinct.astype(np.float64))  # integers, exactly
    spread = combined.square().mean(1, keepdim=True).sqrt()
    shaped = (combined * (WEIGHT_RMS / spread)).round().clamp(-MOST_WEIGHT, MOST_WEIGHT)
    # Where samples do not differ there is nothing to follow.
    weight[followers] = torch.where(spread > 0, shaped, weight[followers].double()).to(torch.int8)
    return (measured_layer(weight, bias, *measure((), weight, bias)),)


def selector_layers(
    measure: Measure, mean: Tensor, scale: Tensor, selector: PathSelector
) -> tuple[IntegerLayer, ...]:
    """Return a selector's hidden layers as integer units that read q.

    Its projection is folded into the first layer: z = Rᵀ(x - mean_z)·scale_z, and x = q/scale + mean. Each unit is then
    multiplied by what puts its largest weight at 127; its multiplier takes that back, and the layer above it too.

    Args:
        measure: the units, layer by layer.
        mean: float32 ``[D]``.
        scale: float32 ``[D]``.
        selector: of in_features D.
    """
    layers: list[IntegerLayer] = []
    most = MOST_INPUT
    gain = scale.double()  # what one of the values below stands for: gain times the network's own
    for i, (weight, bias) in enumerate(selector.hidden):
        weight, bias = weight.double().cpu(), bias.double().cpu()
        if i == 0:
            weight, bias = _folded(weight, bias, mean, selector)
        whole, offset, factor = _quantised(weight / gain, bias, most)
        layer = measured_layer(whole, offset, *measure(layers, whole, offset))
        gain, most = factor * layer.multiplier.double() * 2.0**-layer.shift, MOST_UNIT
        layers.append(layer)
    return tuple(layers)


def _folded(weight: Tensor, bias: Tensor, mean: Tensor, selector: PathSelector) -> tuple[Tensor, Tensor]:
    """Return what the first layer reads of x - mean: weight ``[H, D]`` and bias ``[H]``, float64."""
    projection = selector.projection
    centre = mean.new_zeros(()).double()
    if projection.mean is not None and projection.scale is not None:
        if projection.rotation is not None:
            with one_torch_thread(True):  # so that equal selectors give equal integers on one machine
                weight = weight @ projection.rotation.double().cpu().T
        weight = weight * projection.scale.double().cpu()
        centre = projection.mean.double().cpu()
    with one_torch_thread(True):
        return weight, bias + weight @ (mean.double() - centre)


def _quantised(weight: Tensor, bias: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return weight int8 ``[H, K]``, bias int32 ``[H]`` and the factors float64 ``[H]`` that made them."""
    room = MOST_SUM - require_fan_in(weight.shape[1], most) - 1
    largest, offset = weight.abs().amax(1), bias.abs()
    factor = torch.minimum(MOST_WEIGHT / largest, room / offset)  # infinite where both are 0
    factor = torch.where(factor.isfinite(), factor, torch.ones_like(factor))
    whole = (weight * factor.unsqueeze(1)).round().clamp(-MOST_WEIGHT, MOST_WEIGHT)
    return whole.to(torch.int8), (bias * factor).round().to(torch.int32), factor


def require_fan_in(fan_in: int, most: int) -> int:
    """Return the largest sum of a unit without its bias; raise where 32 bits do not hold it."""
    largest = fan_in * most * MOST_WEIGHT
    if largest > MOST_SUM // 2:
        raise ValueError(
            f"IntegerFeatures: a unit must read at most {MOST_SUM // 2 // (most * MOST_WEIGHT):,} values, whose sums "
            f"32 bits hold, got {fan_in:,}"
        )
    return largest


def squares_of_units(q: Tensor, below: Sequence[IntegerLayer], weight: Tensor, bias: Tensor) -> list[int]:
    """Return the sums over rows of ``max(a, 0)²`` of each unit, ``[H]``; sums of parts of the rows add up.

    Args:
        q: int8 ``[N, D]``.
        below: the layers that these units read.
        weight: int8 ``[H, K]``.
        bias: int32 ``[H]``.
    """
    squares = torch.zeros((3, len(weight)), dtype=torch.int64, device="cpu")
    for part in q.split(MEASURED_CHUNK):
        h, most = part, MOST_INPUT
        for layer in below:
            h, most = _activation(_sums(h, layer.weight, layer.bias, most), layer), MOST_UNIT
        sums = _sums(h, weight, bias, most).clamp_(min=0).long()
        high, low = sums >> 16, sums & 0xFFFF  # squares of 31 bits, summed in three parts that 64 hold
        for so_far, a, b in zip(squares, (high, high, low), (high, low, low), strict=True):
            so_far += (a * b).sum(0)
    return [(a << 32) + (b << 17) + c for a, b, c in zip(*squares.tolist(), strict=True)]


def measured_layer(weight: Tensor, bias: Tensor, squares: Sequence[int], n_samples: int) -> IntegerLayer:
    """Return the layer whose multipliers put ``UNIT_RANGE`` root mean squares of each unit at 127."""
    multiplier, shift = _multipliers(squares, n_samples)
    return IntegerLayer(weight, bias, torch.tensor(multiplier, dtype=torch.int32, device="cpu"), shift)


def _multipliers(squares: Sequence[int], n_samples: int) -> tuple[list[int], int]:
    """Return m of each unit and r, so that 127·2^r = m·UNIT_RANGE·sqrt(squares/N), in integers alone.

    A unit that none of the samples switched on is taken to be like the others.
    """
    mean = max(sum(squares) // len(squares), 1)
    least = max(int(mean * LEAST_SQUARE), 1)
    squares = [max(square, least) if square else mean for square in squares]

    def multiplier(square: int, shift: int) -> int:
        return math.isqrt((MOST_UNIT**2 * n_samples << 2 * shift) // (UNIT_RANGE**2 * square))

    shift = MOST_SHIFT
    while shift > 1 and multiplier(min(squares), shift) > MOST_MULTIPLIER:
        shift -= 1
    return [min(max(multiplier(square, shift), 1), MOST_MULTIPLIER) for square in squares], shift


def _sums(below: Tensor, weight: Tensor, bias: Tensor, most: int) -> Tensor:
    """Return the units' sums int32 ``[N, H]``, by products that float32 holds exactly.

    They are NumPy's, which no setting of torch makes of fewer bits.
    """
    width = EXACT_SUM // (most * MOST_WEIGHT)
    sums = np.repeat(bias.numpy()[None], len(below), axis=0)
    for begin in range(0, below.shape[1], width):
        columns = slice(begin, begin + width)
        product = (
            below[:, columns].numpy().astype(np.float32) @ weight[:, columns].numpy().astype(np.float32).T
        )
        sums += product.astype(np.int32)
    return torch.from_numpy(sums)


def _activation(sums: Tensor, layer: IntegerLayer) -> Tensor:
    """Return the units' values uint8 ``[N, H]``."""
    scaled = sums.clamp(min=0).long() * layer.multiplier + (1 << (layer.shift - 1))
    return (scaled >> layer.shift).clamp_(max=MOST_UNIT).to(torch.uint8)
