"""What torch offers on a GPU beyond the forms of every device: compiled dense products, and grouped ones.

A grouped product takes the rows of all paths, sorted by path, in one launch. torch has it under a private name, for
some types and sizes only; where it refuses, the benchmark leaves it out and says why.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from glai_bench.ops.cases import Case
from glai_bench.ops.grid import FORWARD, INPUT_GRAD
from glai_bench.ops.torch_forms import Calls, Kept

COMPILED = "torch.compile of dense"


def cuda_baselines(op: str, case: Case, compiled: bool) -> Calls:
    """The forms of one op; ``compiled``: those of torch.compile too, seconds for every new shape and type."""
    kept = Kept(case)
    calls = _grouped(op, kept)
    if compiled:
        calls[COMPILED] = _compiled(op, kept)
    return calls


def forget_compiled() -> None:
    """Drops what was compiled: of one function torch keeps a few shapes only, then goes back to eager, silently."""
    if _compiler.cache_info().currsize:
        torch._dynamo.reset()
        _compiler.cache_clear()


def _dense_forward(x: Tensor, beside: Tensor, g: Tensor) -> Tensor:
    return ((x @ beside).view(*g.shape, -1) * g.unsqueeze(2)).sum(1)


def _dense_weight_grad(x: Tensor, dy: Tensor, g: Tensor) -> Tensor:
    masked = (g.unsqueeze(2) * dy.unsqueeze(1)).flatten(1)
    return (x.T @ masked).view(x.shape[1], g.shape[1], dy.shape[1])


def _dense_input_grad(dy: Tensor, below: Tensor, g: Tensor) -> Tensor:
    return (g.unsqueeze(2) * dy.unsqueeze(1)).flatten(1) @ below


@cache
def _compiler(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    compiled: Callable[..., Tensor] = torch.compile(function, dynamic=False)
    return compiled


def _compiled(op: str, kept: Kept) -> Callable[[], Tensor]:
    x, dy, g = kept.x, kept.dy, kept.g
    if op == FORWARD:
        return lambda: _compiler(_dense_forward)(x, kept.beside, g)
    if op == INPUT_GRAD:
        return lambda: _compiler(_dense_input_grad)(dy, kept.below, g)
    return lambda: _compiler(_dense_weight_grad)(x, dy, g).permute(1, 0, 2)


def _grouped(op: str, kept: Kept) -> Calls:
    x, dy, weight = kept.x, kept.dy, kept.weight

    @cache
    def ends() -> Tensor:
        return kept.case.gates.sum(0).cumsum(0).to(torch.int32)

    @cache
    def transposed() -> Tensor:
        return weight.transpose(1, 2).contiguous()

    def summed(source: Tensor, weights: Tensor) -> Tensor:
        rows = kept.rows_by_path
        products = _grouped_mm(source.index_select(0, rows), weights, ends())
        return source.new_zeros((kept.n, weights.shape[2])).index_add_(0, rows, products)

    def weight_grad() -> Tensor:
        rows = kept.rows_by_path
        return _grouped_mm(x.index_select(0, rows).T, dy.index_select(0, rows), ends())

    if op == FORWARD:
        return {
            "grouped_mm": lambda: summed(x, weight),
            "grouped_mm, transposed": lambda: summed(x, transposed().transpose(1, 2)),
        }
    if op == INPUT_GRAD:
        return {
            "grouped_mm": lambda: summed(dy, transposed()),
            "grouped_mm, transposed": lambda: summed(dy, weight.transpose(1, 2)),
        }
    return {"grouped_mm": weight_grad}


def _grouped_mm(a: Tensor, b: Tensor, ends: Tensor) -> Tensor:
    grouped = getattr(torch, "_grouped_mm", None)
    if grouped is None:
        raise RuntimeError(f"torch {torch.__version__} has no _grouped_mm")
    product: Tensor = grouped(a, b, offs=ends)
    return product
