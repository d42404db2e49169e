"""Calls of integer features and their sums."""

import itertools

import torch

import glai_native._native as _native
from fuzz.call import Call, Draw
from glai_native.ops import oracle as ref


def integer_gram(draw: Draw) -> Call:
    m, sign = draw.size(), draw.rng.choice((1, -1))
    features, out = draw.matrix(draw.n, m, dtype=torch.uint8), draw.rows(m, m, dtype=torch.int64)
    before = _started(draw, out)

    def holds(_) -> None:
        assert torch.equal(out, before + sign * ref.integer_gram_ref(features))

    given = {"features": features, "sign": sign, "out": out, **draw.execution()}
    return Call("integer_gram", _native.integer_gram, given, ("out",), holds)


def class_sums(draw: Draw) -> Call:
    m, c, sign = draw.size(), max(draw.size(), 1), draw.rng.choice((1, -1))
    features, out = draw.matrix(draw.n, m, dtype=torch.uint8), draw.rows(m, c, dtype=torch.int64)
    before = _started(draw, out)
    ids = torch.tensor([draw.rng.randrange(c) for _ in range(draw.n)], dtype=torch.int64)
    classes = draw.memory.place(draw.rng, ids)

    def holds(_) -> None:
        assert torch.equal(out, before + sign * ref.class_sums_ref(features, ids, c))

    given = {"features": features, "classes": classes, "sign": sign, "out": out, **draw.execution()}
    return Call("class_sums", _native.class_sums, given, ("out",), holds, placed=(classes,))


def integer_features(draw: Draw) -> Call:
    widths = [draw.size() for _ in range(draw.rng.choice((2, 2, 3)))]
    d = widths[0]
    x, mean, scale = (draw.matrix(*shape, dtype=torch.float32) for shape in ((draw.n, d), (d,), (d,)))
    parts: dict[str, list] = {"weights": [], "biases": [], "multipliers": [], "shifts": []}
    for k, h in itertools.pairwise(widths):
        parts["weights"].append(draw.matrix(h, k, dtype=torch.int8))
        parts["biases"].append(draw.memory.place(draw.rng, _integers(draw, h, 1000)))
        parts["multipliers"].append(draw.memory.place(draw.rng, _integers(draw, h, 1 << 15) + (1 << 15)))
        parts["shifts"].append(draw.rng.choice((1, 16, 20, 24, 62)))
    out = draw.rows(draw.n, widths[-1] + d + 1, dtype=torch.uint8)
    layers = list(zip(*parts.values(), strict=True))

    def holds(_) -> None:
        assert torch.equal(out, ref.integer_features_ref(x, mean, scale, layers))

    given = {"x": x, "mean": mean, "scale": scale, **parts, "out": out, **draw.execution()}
    placed = (*parts["biases"], *parts["multipliers"])
    return Call("integer_features", _native.integer_features, given, ("out",), holds, placed=placed)


def _integers(draw: Draw, count: int, size: int) -> torch.Tensor:
    return torch.tensor([draw.rng.randrange(-size, size) for _ in range(count)], dtype=torch.int32)


def _started(draw: Draw, out: torch.Tensor) -> torch.Tensor:
    """Sums of before, far past 32 bits; returns a copy."""
    out.copy_(draw.rng.randrange(-(1 << 40), 1 << 40) + torch.arange(out.numel()).view(out.shape))
    return out.clone()


CALLS = (integer_gram, integer_gram, class_sums, integer_features)
