"""What a PyTorch user can write instead: every form of the gated ops worth timing against.

Each function prepares, outside the clock, what that form may keep between steps (weights in the layout it likes
best, row indices per path), and returns the calls to time, by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from glai_native.cases import Case

Calls = dict[str, Callable[[], Tensor]]

# The chunked forms keep N·(paths in a chunk)·C values at a time, about what a second-level cache holds.
CHUNK_VALUES = 1 << 18


def forward_baselines(case: Case) -> Calls:
    """Forms of ``y[n,c] = sum_p g[n,p] · sum_d x[n,d] · w[p,d,c]``."""
    x, weight = case.x, case.weight
    n, p, d, c = case.shape.n, case.shape.p, case.shape.d, case.shape.c
    g = case.gates.to(x.dtype)
    beside = weight.permute(1, 0, 2).reshape(d, p * c).contiguous()  # [D, P·C]
    below = weight.permute(0, 2, 1).reshape(p * c, d).contiguous()  # [P·C, D]
    chunks = [(a, b, weight[a:b].permute(1, 0, 2).reshape(d, -1).contiguous()) for a, b in _chunks(case)]
    rows = _active_rows(case)

    def chunked() -> Tensor:
        y = x.new_zeros((n, c))
        for a, b, w in chunks:
            y += torch.bmm(g[:, None, a:b], (x @ w).view(n, b - a, c)).squeeze(1)
        return y

    def loop() -> Tensor:
        y = x.new_zeros((n, c))
        for path, ids in enumerate(rows):
            y.index_add_(0, ids, x.index_select(0, ids) @ weight[path])
        return y

    calls: Calls = {
        "dense, mask, sum": lambda: ((x @ beside).view(n, p, c) * g.unsqueeze(2)).sum(1),
        "dense, bmm with gates": lambda: torch.bmm(g.unsqueeze(1), (x @ beside).view(n, p, c)).squeeze(1),
        "dense transposed, bmm": lambda: torch.bmm(g.unsqueeze(1), (x @ below.T).view(n, p, c)).squeeze(1),
        "chunks of paths": chunked,
        "loop over paths": loop,
    }
    if case.density == 1.0:
        calls["x @ W.sum(0)"] = lambda: x @ weight.sum(0)
    return calls


def weight_grad_baselines(case: Case) -> Calls:
    """Forms of ``dw[p,d,c] = sum_n g[n,p] · x[n,d] · dy[n,c]``; each in the layout it likes best."""
    x, dy = case.x, case.dy
    n, p, d, c = case.shape.n, case.shape.p, case.shape.d, case.shape.c
    g = case.gates.to(x.dtype)
    rows = _active_rows(case)

    def masked(a: int, b: int) -> Tensor:
        return (g[:, a:b].unsqueeze(2) * dy.unsqueeze(1)).view(n, (b - a) * c)

    def chunked() -> Tensor:
        dw = x.new_empty((d, p * c))
        for a, b in _chunks(case):
            dw[:, a * c : b * c] = x.T @ masked(a, b)
        return dw.view(d, p, c).permute(1, 0, 2)

    def chunked_below() -> Tensor:
        dw = x.new_empty((p * c, d))
        for a, b in _chunks(case):
            torch.mm(masked(a, b).T, x, out=dw[a * c : b * c])
        return dw.view(p, c, d).permute(0, 2, 1)

    def loop() -> Tensor:
        dw = x.new_empty((p, d, c))
        for path, ids in enumerate(rows):
            torch.mm(x.index_select(0, ids).T, dy.index_select(0, ids), out=dw[path])
        return dw

    calls: Calls = {
        "dense": lambda: (x.T @ masked(0, p)).view(d, p, c).permute(1, 0, 2),
        "dense transposed": lambda: (masked(0, p).T @ x).view(p, c, d).permute(0, 2, 1),
        "chunks of paths": chunked,
        "chunks transposed": chunked_below,
        "loop over paths": loop,
    }
    if case.density == 1.0:
        calls["x.T @ dy, broadcast"] = lambda: (x.T @ dy).expand(p, d, c).contiguous()
    return calls


def input_grad_baselines(case: Case) -> Calls:
    """Forms of ``dx[n,d] = sum_p g[n,p] · sum_c dy[n,c] · w[p,d,c]``."""
    dy, weight = case.dy, case.weight
    n, p, d, c = case.shape.n, case.shape.p, case.shape.d, case.shape.c
    g = case.gates.to(dy.dtype)
    below = weight.permute(0, 2, 1).reshape(p * c, d).contiguous()  # [P·C, D]
    beside = weight.permute(1, 0, 2).reshape(d, p * c).contiguous()  # [D, P·C]
    transposed = weight.transpose(1, 2).contiguous()
    rows = _active_rows(case)

    def masked(a: int, b: int) -> Tensor:
        return (g[:, a:b].unsqueeze(2) * dy.unsqueeze(1)).view(n, (b - a) * c)

    def chunked() -> Tensor:
        dx = dy.new_zeros((n, d))
        for a, b in _chunks(case):
            dx.addmm_(masked(a, b), below[a * c : b * c])
        return dx

    def loop() -> Tensor:
        dx = dy.new_zeros((n, d))
        for path, ids in enumerate(rows):
            dx.index_add_(0, ids, dy.index_select(0, ids) @ transposed[path])
        return dx

    calls: Calls = {
        "dense": lambda: masked(0, p) @ below,
        "dense transposed": lambda: masked(0, p) @ beside.T,
        "chunks of paths": chunked,
        "loop over paths": loop,
    }
    if case.density == 1.0:
        calls["dy @ W.sum(0).T"] = lambda: dy @ weight.sum(0).T
    return calls


def _chunks(case: Case) -> Iterator[tuple[int, int]]:
    size = max(1, CHUNK_VALUES // (case.shape.n * case.shape.c))
    for a in range(0, case.shape.p, size):
        yield a, min(a + size, case.shape.p)


def _active_rows(case: Case) -> list[Tensor]:
    return [case.gates[:, path].nonzero().squeeze(1) for path in range(case.shape.p)]
