"""Steps of Adam on a selector's network: native ones where it is a plain network on the CPU, PyTorch's for others."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import glai_native._native as _native
from glai_native.data.checks import FLOATS
from glai_native.machine.adam import BETAS, EPS, Adam
from glai_native.machine.interrupts import uninterrupted
from glai_native.machine.threads import kernel_threads

SPAN_SECONDS = 0.2  # between looks at the keyboard
FIRST_SPAN = 8  # steps


class Batches(NamedTuple):
    """Samples that steps are taken over.

    Attributes:
        z: ``[N, D]``, of the network's dtype.
        y: int64 classes ``[N]``, cross-entropy; or values ``[N, C]``, squared error.
        weight: ``[N]`` of the samples' losses, of z's dtype; None: 1 each.
        order: of the steps, int64; a multiple of a batch where others follow.
    """

    z: Tensor
    y: Tensor
    weight: Tensor | None
    order: Tensor


def network_steps(mlp: nn.Sequential, z: Tensor, rows: int, learning_rate: float) -> NativeSteps | TorchSteps:
    """Choose who trains ``mlp`` in place.

    Args:
        mlp: a network that a selector can be made of.
        z: some samples of those to come, ``[N, D]``, of the network's dtype.
        rows: of a batch.
        learning_rate: Adam's.
    """
    native = z.device.type == "cpu" and z.dtype in FLOATS and is_plain(mlp)
    return (NativeSteps if native else TorchSteps)(mlp, rows, learning_rate)


def is_plain(mlp: nn.Sequential) -> bool:
    """Return whether a training step of ``mlp`` is nothing but its layers', all of whose numbers move."""
    parameters = list(mlp.parameters())
    return (
        type(mlp) is nn.Sequential
        and all(type(layer) in (nn.Linear, nn.ReLU) for layer in mlp)
        and all(layer.bias is not None for layer in mlp if isinstance(layer, nn.Linear))
        and len(parameters) == len(mlp) + 1  # no layer's are another's
        and all(type(p) is nn.Parameter and p.requires_grad and p.device.type == "cpu" for p in parameters)
        and len({p.dtype for p in parameters}) == 1
        and not any(
            any(vars(module).get(hooks) for hooks in HOOKS) or "forward" in vars(module)
            for module in mlp.modules()
        )
        and not any(p._backward_hooks or p._post_accumulate_grad_hooks for p in parameters)
    )


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class TorchSteps:
    """PyTorch's autograd, of whatever the network's modules compute."""

    def __init__(self, mlp: nn.Sequential, rows: int, learning_rate: float) -> None:
        self._mlp, self._rows = mlp, rows
        self._optimizer = Adam(mlp.parameters(), learning_rate)

    def run_epoch(self, windows: Iterable[Batches], total: int) -> float:
        """Take the steps over windows of ``total`` samples; return the mean loss."""
        device = next(self._mlp.parameters()).device
        lost = torch.zeros((), dtype=torch.float64, device=device)
        for z, y, weight, order in windows:
            for ids in order.to(device).split(self._rows):
                loss = _mean_loss(self._mlp(z[ids]), y[ids], None if weight is None else weight[ids])
                self._optimizer.zero_grad()
                loss.backward()
                self._optimizer.step()
                lost += loss.detach() * len(ids)
        return float(lost) / total


def _mean_loss(output: Tensor, targets: Tensor, weight: Tensor | None) -> Tensor:
    """Compute cross-entropy of classes, or the squared error of values, weighted ``[N]``."""
    values = targets.is_floating_point()
    if weight is None:
        return (
            nn.functional.mse_loss(output, targets)
            if values
            else nn.functional.cross_entropy(output, targets)
        )
    if values:
        return (nn.functional.mse_loss(output, targets, reduction="none").mean(1) * weight).mean()
    return (nn.functional.cross_entropy(output, targets, reduction="none") * weight).mean()


class NativeSteps:
    """The same in native code, for networks that :func:`is_plain`: many steps a call, equal bits for any threads."""

    def __init__(self, mlp: nn.Sequential, rows: int, learning_rate: float) -> None:
        self._parameters = list(mlp.parameters())  # weight [H, K] and bias [H], layer by layer
        self._learning_rate, self._step = learning_rate, 0
        first = self._parameters[0].detach()
        new = first.new_empty
        numbers = sum(parameter.numel() for parameter in self._parameters)
        self._flat = new(numbers)
        self._moments: dict[str, Any] = {name: first.new_zeros(numbers) for name in ("exp_avg", "exp_avg_sq")}
        *widths, outputs = (bias.numel() for bias in self._parameters[1::2])
        self._workspace: dict[str, Any] = {
            "batch_x": new(rows, first.shape[1]),
            "hidden": [new(rows, width) for width in widths],
            "hidden_words": [
                torch.empty((rows, -(-width // 32)), dtype=torch.int32, device="cpu") for width in widths
            ],
            "output": new(rows, outputs),
            "gradient": new(numbers),
            "row_losses": torch.empty(rows, dtype=torch.float64, device="cpu"),
        }
        self._rows, self._span = rows, FIRST_SPAN

    @torch.no_grad()
    def run_epoch(self, windows: Iterable[Batches], total: int) -> float:
        """Take the steps over windows of ``total`` samples; return the mean loss.

        The network then has the numbers of the last step that was taken, also where an exception ended the epoch.
        """
        ends = [0]
        for parameter in self._parameters:
            ends.append(ends[-1] + parameter.numel())
        places = [self._flat[begin:end] for begin, end in pairwise(ends)]
        for place, parameter in zip(places, self._parameters, strict=True):
            place.view(parameter.shape).copy_(parameter)  # a callback may have changed it
        try:
            parts: list[float] = []  # of the mean, one of each batch
            for window in windows:
                parts += self._take_steps(window, total)
                del window  # before the next is made
            # Exact before it is rounded: the length of spans, which the clock decides, must not show.
            return math.fsum(parts)
        finally:
            with uninterrupted():
                for place, parameter in zip(places, self._parameters, strict=True):
                    parameter.copy_(place.view(parameter.shape))

    def _take_steps(self, window: Batches, total: int) -> list[float]:
        """Take the steps over one window; return what each batch adds to the mean of so many samples' losses."""
        z, y, weight, order = window
        z, y = z.detach(), y.detach()
        data: dict[str, Any] = {
            "x": z if z.stride(1) == 1 else z.contiguous(),
            "targets": (y.to(z) if y.is_floating_point() else y).contiguous(),
            "sample_weight": None if weight is None else weight.contiguous(),
        }
        parts: list[float] = []
        begin = 0
        while begin < len(order):
            ids = order[begin : begin + self._span * self._rows]
            losses = torch.empty(-(-len(ids) // self._rows), dtype=torch.float64, device="cpu")
            started = time.perf_counter()
            _native.structure_steps(
                **data,
                order=ids,
                parameters=self._flat,
                **self._moments,
                step=self._step,
                learning_rate=self._learning_rate,
                beta1=BETAS[0],
                beta2=BETAS[1],
                eps=EPS,
                **self._workspace,
                losses=losses,
                threads=kernel_threads(),
            )
            seconds = max(time.perf_counter() - started, 1e-6)
            self._step += len(losses)
            rows = torch.full_like(losses, self._rows)
            rows[-1] = len(ids) - self._rows * (len(losses) - 1)
            parts += (losses * (rows / total)).tolist()
            begin += len(ids)
            self._span = max(1, int(len(losses) * SPAN_SECONDS / seconds))
        return parts
