"""A training step on a GPU: the one that training there takes, and steps in PyTorch to time it against.

Each is replayed from a CUDA graph of its own, on float32 parameters, gradients and AdamW state.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import glai_native as glai
from glai_bench.cuda.card import PRECISIONS, Card
from glai_bench.steps.torch_forms import BMM, MASK_SUM, full_forms
from glai_native.ops.oracle import gated_matmul_ref
from glai_native.solvers.samples import Samples
from glai_native.solvers.sgd.cuda import CudaLoop, captured
from glai_native.solvers.sgd.native import SgdSettings

RATE, WEIGHT_DECAY = 1e-3, 0.01
START = 0.01  # standard deviation of a GLAI model's first weights

MLP, COMPILED = "MLP", "MLP, compiled"  # by torch.compile
DENSE = {f"GLAI, {form}": form for form in (MASK_SUM, BMM)}
MLPS = (MLP, COMPILED)

# Of the float64 step's, by norm.
GRADIENT_TOLERANCES = {"fp32": 1e-4, "tf32": 5e-3}
CHANGE_TOLERANCE = 1e-3
# Adam's first step moves each parameter by about the rate, to the side that its gradient says: parameters whose
# gradient is smaller than this share of what is usual may go to either.
CLEAR = 0.05
FALLING_STEPS = 20  # on one batch, after which the loss must be lower


class StepShape(NamedTuple):
    """Samples of a batch, paths, features and outputs."""

    n: int
    p: int
    d: int
    c: int

    @property
    def parameters(self) -> int:
        """Of a GLAI model with one hidden layer, its selector's among them."""
        return (self.p - 1) * (self.d + 1) + self.p * (self.d + 1) * self.c

    @property
    def hidden(self) -> int:
        """Units of the MLP whose number of parameters is nearest."""
        return round((self.parameters - self.c) / (self.d + 1 + self.c))

    @property
    def mlp_parameters(self) -> int:
        """Of that MLP."""
        return self.hidden * (self.d + 1 + self.c) + self.c

    @property
    def mlp(self) -> str:
        """That MLP's layers."""
        return f"{self.d}-{self.hidden}-{self.c}"


class StepSamples:
    """Random samples on the card, more than its second-level cache holds, and the batch of the steps that follow.

    Attributes:
        batches: all of them, for our loop.
        ids: int64 ``[N]``, which of them the batch is.
        z: ``[N, D]`` of the batch, like gates and y in memory that stays in place.
        gates: float ``[N, P]``.
        y: class indices ``[N]``.
    """

    def __init__(self, shape: StepShape, density: float, card: Card) -> None:
        n, p, d, c = shape
        device = card.device
        generator = torch.Generator(device).manual_seed(0)
        batch_bytes = n * (4 * d + p // 8)
        rows = n * max(2, -(-2 * card.cache_bytes // batch_bytes))
        x = torch.randn((rows, d), generator=generator, device=device)
        self._bits = torch.rand((rows, p), generator=generator, device=device) < density
        self._bits[:, -1] = True
        y = torch.randint(c, (rows,), generator=generator, device=device)
        self.batches = Samples(x, y, c, gates=glai.pack_gates(self._bits))
        self._orders = itertools.cycle(torch.randperm(rows, generator=generator, device=device).split(n))
        self.z, self.gates, self.y = x.new_empty((n, d)), x.new_empty((n, p)), y.new_empty(n)
        self.turn()

    def turn(self) -> None:
        """Makes other samples the batch."""
        self.ids = next(self._orders)
        self.z.copy_(self.batches.z.index_select(0, self.ids))
        self.gates.copy_(self._bits.index_select(0, self.ids))
        self.y.copy_(self.batches.y.index_select(0, self.ids))


def make_loop(shape: StepShape, samples: StepSamples, precision: str) -> CudaLoop:
    """Ours, with random weights.

    Raises:
        ValueError: training takes no such type.
    """
    torch.manual_seed(0)
    estimator = glai.PathEstimator(shape.p, shape.d, shape.c, dtype=PRECISIONS[precision][0])
    for parameter in estimator.parameters():
        nn.init.normal_(parameter, std=START)
    settings = SgdSettings("cross_entropy", shape.n, RATE, WEIGHT_DECAY, average=True, seed=0)
    return CudaLoop(estimator.to(samples.z.device), samples.batches, settings)


def require_reference_step(loop: CudaLoop, samples: StepSamples, precision: str) -> None:
    """Takes the loop's first step, and holds it to the same one in float64 on the CPU.

    Raises:
        RuntimeError: gradients, or what the parameters changed by, are not those.
    """
    names = ("weight", "bias")
    before = {name: loop.state()[name].double().cpu() for name in names}
    exact = {name: value.clone().requires_grad_() for name, value in before.items()}
    optimizer = torch.optim.AdamW(exact.values(), lr=RATE, weight_decay=WEIGHT_DECAY)
    output = gated_matmul_ref(samples.z.double().cpu(), samples.gates.double().cpu(), **exact)
    cross_entropy(output, samples.y.cpu()).backward()
    optimizer.step()
    loop.hold(samples.ids)
    loop.replay()
    after = {name: value.double().cpu() for name, value in loop.state().items()}
    for name in names:
        gradient = optimizer.state[exact[name]]["exp_avg"]
        _hold(f"gradient of {name}", after[f"{name}.exp_avg"], gradient, GRADIENT_TOLERANCES[precision])
        clear = gradient.abs() > CLEAR * gradient.square().mean().sqrt()
        change, expected = after[name] - before[name], exact[name].detach() - before[name]
        _hold(f"change of {name}", change[clear], expected[clear], CHANGE_TOLERANCE)


def _hold(what: str, found: Tensor, expected: Tensor, tolerance: float) -> None:
    error = float((found - expected).norm() / expected.norm())
    if not error <= tolerance:
        raise RuntimeError(
            f"our step computes something else than a step in float64: the {what} has a relative error of "
            f"{error:.1e}, over {tolerance:g}"
        )


class TorchStep:
    """A step of AdamW on what a function of tensors that stay in place loses.

    Attributes:
        loss: of the step that was taken last.
    """

    loss: Tensor

    def __init__(self, loss: Callable[[], Tensor], parameters: list[Tensor]) -> None:
        self._compute_loss = loss
        self._optimizer = torch.optim.AdamW(
            parameters, lr=RATE, weight_decay=WEIGHT_DECAY, fused=True, capturable=True
        )
        self._graph = captured(self._take, parameters[0].device)

    def _take(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._compute_loss()
        loss.backward()
        self._optimizer.step()
        self.loss = loss.detach()

    def replay(self) -> None:
        """Takes the captured step."""
        self._graph.replay()

    def require_falling_loss(self) -> None:
        """Raises RuntimeError where steps on one batch do not lower its loss."""
        self.replay()
        before = float(self.loss)
        for _ in range(FALLING_STEPS):
            self.replay()
        after = float(self.loss)
        if not after < before:
            raise RuntimeError(f"the loss went from {before:.4g} to {after:.4g} in {FALLING_STEPS} steps")


def torch_steps(shape: StepShape, samples: StepSamples) -> dict[str, Callable[[], TorchStep]]:
    """By name, what makes each; a compiler is started by the step that needs it."""
    z, gates, y = samples.z, samples.gates, samples.y

    def mlp(compiled: bool) -> TorchStep:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(shape.d, shape.hidden), nn.ReLU(), nn.Linear(shape.hidden, shape.c))
        model.to(z.device)

        def loss(z: Tensor, y: Tensor) -> Tensor:
            return cross_entropy(model(z), y)

        if compiled:
            torch.compiler.reset()  # of one function it keeps a few shapes only, then goes back to eager, silently
            loss = torch.compile(loss, dynamic=False)
        return TorchStep(lambda: loss(z, y), list(model.parameters()))

    def dense(form: str) -> TorchStep:
        torch.manual_seed(0)
        weights, run = full_forms(shape.p, shape.d, shape.c)[form]
        weights = [nn.init.normal_(w, std=START).to(z.device).requires_grad_() for w in weights]
        return TorchStep(lambda: cross_entropy(run(z, gates, *weights), y), weights)

    mlps: dict[str, Callable[[], TorchStep]] = {MLP: partial(mlp, False), COMPILED: partial(mlp, True)}
    return mlps | {name: partial(dense, form) for name, form in DENSE.items()}
