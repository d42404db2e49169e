"""What a PyTorch user can write for the outputs of a training step: differentiable by autograd."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import linear

# Weights as the form likes them, and a function of z, float gates and those.
Form = tuple[list[Tensor], Callable[..., Tensor]]

MASK_SUM, BMM = "dense, mask, sum", "dense, bmm"


def full_forms(p: int, d: int, c: int) -> dict[str, Form]:
    """Of full paths."""

    def dense(chunk: int) -> Form:
        def run(z: Tensor, g: Tensor, bias: Tensor, *weights: Tensor) -> Tensor:
            y = g @ bias
            for a, w in zip(range(0, p, chunk), weights, strict=True):
                part = g[:, a : a + chunk]
                y = y + torch.bmm(part.unsqueeze(1), (z @ w).view(len(z), part.shape[1], c)).squeeze(1)
            return y

        return [torch.zeros(p, c), *(torch.zeros(d, min(chunk, p - a) * c) for a in range(0, p, chunk))], run

    def mask_sum(z: Tensor, g: Tensor, bias: Tensor, w: Tensor) -> Tensor:
        return g @ bias + ((z @ w).view(len(z), p, c) * g.unsqueeze(2)).sum(1)

    def loop(z: Tensor, g: Tensor, bias: Tensor, weight: Tensor) -> Tensor:
        y = g @ bias
        for w, column in zip(weight, g.unbind(1), strict=True):
            ids = column.nonzero().squeeze(1)
            y = y.index_add(0, ids, z.index_select(0, ids) @ w)
        return y

    return {
        MASK_SUM: ([torch.zeros(p, c), torch.zeros(d, p * c)], mask_sum),
        BMM: dense(p),
        "chunks, bmm": dense(max(1, p // 4)),
        "loop over paths": ([torch.zeros(p, c), torch.zeros(p, d, c)], loop),
    }


def directions_forms(p: int, d: int, c: int, directions: Tensor) -> dict[str, Form]:
    def run(z: Tensor, g: Tensor, u: Tensor, beta: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return (g * linear(z, u, beta)) @ directions + torch.addmm(bias, z, weight)

    return {"dense, mask": ([torch.zeros(p, d), torch.zeros(p), torch.zeros(d, c), torch.zeros(c)], run)}
