"""The calls that are timed: every op, a training step, the native loop."""

from __future__ import annotations

from collections.abc import Callable

import torch

import glai_native as glai

Call = Callable[[], object]

# Samples, paths, features, outputs: a training step's, and an evaluation's.
SHAPES = ((256, 32, 32, 10), (4096, 48, 64, 16))
# Samples of the native loop: 24 steps an epoch.
LOOP_SAMPLES, LOOP_EPOCHS = 3000, 10


def ops_of(n: int, p: int, d: int, c: int) -> dict[str, Call]:
    """Return every op as a call on random samples of one shape, by its name."""
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    def bits(width: int) -> torch.Tensor:
        return torch.rand((n, width), generator=generator) < 0.5

    x, dy, dh, weight, bias = numbers(n, d), numbers(n, c), numbers(n, p), numbers(p, d, c), numbers(p, c)
    u, beta, on = numbers(p, d), numbers(p), bits(p)
    gates, others, few = (glai.pack_gates(b) for b in (on, bits(p), bits(9)))
    layers = [few, glai.pack_gates(bits(6))]
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
    linear_leaves = [t.clone().requires_grad_() for t in (x, u, beta)]
    some = slice(0, min(n, 1000))

    def training_step() -> object:
        y = glai.gated_matmul(leaves[0], gates, *leaves[1:])
        return torch.autograd.grad(y, leaves, dy)

    def linear_step() -> object:
        h = glai.gated_linear(linear_leaves[0], gates, *linear_leaves[1:])
        return torch.autograd.grad(h, linear_leaves, dh)

    return {
        "pack_gates": lambda: glai.pack_gates(on),
        "unpack": gates.unpack,
        "counts": gates.counts,
        "agreement": lambda: gates.agreement(others),
        "path_gates": lambda: glai.path_gates(layers),
        "gated_matmul": lambda: glai.gated_matmul(x, gates, weight, bias),
        "gated_matmul_weight_grad": lambda: glai.gated_matmul_weight_grad(x, gates, dy),
        "gated_matmul_input_grad": lambda: glai.gated_matmul_input_grad(dy, gates, weight),
        "gated_matmul and its gradients": training_step,
        "gated_linear": lambda: glai.gated_linear(x, gates, u, beta),
        "gated_linear and its gradients": linear_step,
        "path_kernel": lambda: glai.path_kernel(x[some], [gates[some]]),
        "path_gram": lambda: glai.path_gram(x, few),
    }


def loops() -> dict[str, Call]:
    """Return the native loop's training as calls: full paths, and output directions."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((LOOP_SAMPLES, 20), generator=generator)
    y = torch.randint(0, 5, (LOOP_SAMPLES,), generator=generator)
    gates = glai.pack_gates(torch.rand((LOOP_SAMPLES, 33), generator=generator) < 0.5)
    directions = torch.randn((33, 5), generator=generator)
    directions[-1] = 0

    def train(along: torch.Tensor | None) -> Call:
        return lambda: glai.train_estimator(
            glai.PathEstimator(33, 20, 5, along),
            x,
            gates,
            y,
            epochs=LOOP_EPOCHS,
            batch_size=128,
            progress=False,
        )

    return {"full paths": train(None), "output directions": train(directions)}


def torch_product(n: int, p: int, d: int, c: int) -> Call:
    """Return torch's dense product of the same shape, whose threads wait for each other."""
    x, weight = torch.randn(n, d), torch.randn(d, p * c)
    return lambda: x @ weight
