"""What a PyTorch user can write instead: every form of the gated ops worth timing against.

Each function returns the calls to time, by name. What a form may keep between steps (weights in the layout it likes
best, row indices per path, buffers for what it makes on the way and for a gradient of the weights) is made at its
first call, which is outside the clock, and freed with the calls. Results lie in buffers that the next call overwrites.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property, partial

import torch
from torch import Tensor

from glai_bench.ops.cases import Case

Calls = dict[str, Callable[[], Tensor]]

# The chunked forms keep N·(paths in a chunk)·C values at a time: about what a second-level cache holds, and what a
# third-level cache does. Four times more or fewer were never the best torch form by more than 3% (any op, 8 shapes).
CHUNK_VALUES = (1 << 18, 1 << 20)
# On a GPU: what its second-level cache holds, and enough for each launch to fill the card.
CUDA_CHUNK_VALUES = (1 << 22, 1 << 25)


class Kept:
    """What the forms of one op keep between steps, each made when first asked for."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.x, self.weight, self.dy = case.x, case.weight, case.dy
        self.n, self.p, self.d, self.c = case.shape.n, case.shape.p, case.shape.d, case.shape.c
        self.g = case.gates.to(case.x.dtype)

    @cached_property
    def beside(self) -> Tensor:
        """Weights ``[D, P·C]``."""
        return self.weight.permute(1, 0, 2).reshape(self.d, self.p * self.c).contiguous()

    @cached_property
    def below(self) -> Tensor:
        """Weights ``[P·C, D]``."""
        return self.weight.permute(0, 2, 1).reshape(self.p * self.c, self.d).contiguous()

    @cached_property
    def outputs_first(self) -> Tensor:
        """Weights ``[C, P·D]``."""
        return self.weight.permute(2, 0, 1).reshape(self.c, self.p * self.d).contiguous()

    @cached_property
    def per_path(self) -> list[Tensor]:
        """Weights ``[D, C]`` of each path."""
        return list(self.weight.contiguous())

    @cached_property
    def per_path_transposed(self) -> list[Tensor]:
        """Weights ``[C, D]`` of each path."""
        return list(self.weight.transpose(1, 2).contiguous())

    @cached_property
    def rows(self) -> list[Tensor]:
        """Of each path, the samples that it is on for."""
        return list(self.rows_by_path.split(self.case.gates.sum(0).tolist()))

    @cached_property
    def rows_by_path(self) -> Tensor:
        """The same in one: the samples of path 0, those of path 1, and so on."""
        return self.case.gates.T.nonzero()[:, 1].contiguous()

    @cached_property
    def product(self) -> Tensor:
        """Room for N·P·C values."""
        return self.x.new_empty(self.n * self.p * self.c)

    @cached_property
    def gradient(self) -> Tensor:
        """Room for P·D·C values."""
        return self.x.new_empty(self.p * self.d * self.c)

    def outputs(self, weight: Tensor, paths: int) -> Tensor:
        """``x @ weight`` of so many paths, ``[N, paths, C]``."""
        room = self.product[: self.n * paths * self.c].view(self.n, paths * self.c)
        return torch.mm(self.x, weight, out=room).view(self.n, paths, self.c)

    def masked(self, a: int, b: int) -> Tensor:
        """dy where the gates of paths a to b are on, ``[N, (b-a)·C]``."""
        room = self.product[: self.n * (b - a) * self.c].view(self.n, b - a, self.c)
        return torch.mul(self.g[:, a:b].unsqueeze(2), self.dy.unsqueeze(1), out=room).flatten(1)

    def chunks(self) -> dict[str, list[tuple[int, int]]]:
        """First and last+1 path of each chunk, per size of a chunk; a chunk of all paths is the dense form."""
        chunk_values = CUDA_CHUNK_VALUES if self.x.is_cuda else CHUNK_VALUES
        sizes = sorted({max(1, values // (self.n * self.c)) for values in chunk_values})
        return {
            f"chunks of {size}": [(a, min(a + size, self.p)) for a in range(0, self.p, size)]
            for size in sizes
            if size < self.p
        }


def forward_baselines(case: Case) -> Calls:
    """Forms of ``y[n,c] = sum_p g[n,p] · sum_d x[n,d] · w[p,d,c]``."""
    kept = Kept(case)
    x, weight, g, n, p, c = kept.x, kept.weight, kept.g, kept.n, kept.p, kept.c

    def chunked(chunks: list[tuple[int, int]], chunk_weight: Callable[[int, int], Tensor]) -> Tensor:
        y = x.new_zeros((n, 1, c))
        for a, b in chunks:
            y.baddbmm_(g[:, None, a:b], kept.outputs(chunk_weight(a, b), b - a))
        return y.squeeze(1)

    @cache
    def beside(a: int, b: int) -> Tensor:
        return weight[a:b].permute(1, 0, 2).reshape(kept.d, -1).contiguous()

    def below(a: int, b: int) -> Tensor:
        return kept.below[a * c : b * c].T

    def loop() -> Tensor:
        y = x.new_zeros((n, c))
        for w, ids in zip(kept.per_path, kept.rows, strict=True):
            y.index_add_(0, ids, x.index_select(0, ids) @ w)
        return y

    calls: Calls = {
        "dense, mask, sum": lambda: kept.outputs(kept.beside, p).mul_(g.unsqueeze(2)).sum(1),
        "dense, bmm with gates": lambda: torch.bmm(g.unsqueeze(1), kept.outputs(kept.beside, p)).squeeze(1),
        "dense transposed, bmm": lambda: torch.bmm(g.unsqueeze(1), kept.outputs(kept.below.T, p)).squeeze(1),
        "loop over paths": loop,
    }
    for name, chunks in kept.chunks().items():
        calls[name] = partial(chunked, chunks, beside)
        calls[f"{name}, transposed"] = partial(chunked, chunks, below)
    if case.density == 1.0:
        calls["x @ W.sum(0)"] = lambda: x @ weight.sum(0)
    return calls


def weight_grad_baselines(case: Case) -> Calls:
    """Forms of ``dw[p,d,c] = sum_n g[n,p] · x[n,d] · dy[n,c]``; each in the layout it likes best."""
    kept = Kept(case)
    x, dy, p, d, c = kept.x, kept.dy, kept.p, kept.d, kept.c

    def chunked(chunks: list[tuple[int, int]]) -> Tensor:
        dw = kept.gradient.view(d, p * c)
        for a, b in chunks:
            torch.mm(x.T, kept.masked(a, b), out=dw[:, a * c : b * c])
        return dw.view(d, p, c).permute(1, 0, 2)

    def chunked_transposed(chunks: list[tuple[int, int]]) -> Tensor:
        dw = kept.gradient.view(p * c, d)
        for a, b in chunks:
            torch.mm(kept.masked(a, b).T, x, out=dw[a * c : b * c])
        return dw.view(p, c, d).permute(0, 2, 1)

    def loop() -> Tensor:
        dw = kept.gradient.view(p, d, c)
        for one, ids in zip(dw.unbind(0), kept.rows, strict=True):
            torch.mm(x.index_select(0, ids).T, dy.index_select(0, ids), out=one)
        return dw

    calls: Calls = {
        "dense": lambda: chunked([(0, p)]),
        "dense transposed": lambda: chunked_transposed([(0, p)]),
        "loop over paths": loop,
    }
    for name, chunks in kept.chunks().items():
        calls[name] = partial(chunked, chunks)
        calls[f"{name}, transposed"] = partial(chunked_transposed, chunks)
    if case.density == 1.0:
        calls["x.T @ dy, broadcast"] = lambda: kept.gradient.view(p, d, c).copy_(x.T @ dy)
    return calls


def input_grad_baselines(case: Case) -> Calls:
    """Forms of ``dx[n,d] = sum_p g[n,p] · sum_c dy[n,c] · w[p,d,c]``."""
    kept = Kept(case)
    dy, weight, g, n, p, d, c = kept.dy, kept.weight, kept.g, kept.n, kept.p, kept.d, kept.c

    def chunked(chunks: list[tuple[int, int]]) -> Tensor:
        dx = dy.new_zeros((n, d))
        for a, b in chunks:
            dx.addmm_(kept.masked(a, b), kept.below[a * c : b * c])
        return dx

    @cache
    def every_path() -> Tensor:
        return dy.new_empty((n, p * d))

    def gates_last() -> Tensor:
        inputs = torch.mm(dy, kept.outputs_first, out=every_path())
        return torch.bmm(g.unsqueeze(1), inputs.view(n, p, d)).squeeze(1)

    def loop(weights: list[Tensor]) -> Tensor:
        dx = dy.new_zeros((n, d))
        for w, ids in zip(weights, kept.rows, strict=True):
            dx.index_add_(0, ids, dy.index_select(0, ids) @ w)
        return dx

    calls: Calls = {
        "dense": lambda: kept.masked(0, p) @ kept.below,
        "dense transposed": lambda: kept.masked(0, p) @ kept.beside.T,
        "dense, bmm with gates": gates_last,
        "loop over paths": lambda: loop(kept.per_path_transposed),
        "loop over paths, views": lambda: loop([w.T for w in kept.per_path]),
    }
    for name, chunks in kept.chunks().items():
        calls[name] = partial(chunked, chunks)
    if case.density == 1.0:
        calls["dy @ W.sum(0).T"] = lambda: dy @ weight.sum(0).T
    return calls
