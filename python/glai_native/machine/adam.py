"""This module holds AdamW without ``torch.optim.Optimizer``.

The first use of that in a process imports torch's compiler, which takes four seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

BETAS, EPS = (0.9, 0.999), 1e-8  # torch.optim.AdamW's


@torch.no_grad()
def take_adamw_step(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    moments: Sequence[tuple[Tensor, Tensor]],
    step: int,
    *,
    learning_rate: float,
    weight_decay: float = 0.0,
) -> None:
    """Take one step of torch's fused AdamW, in place.

    Args:
        parameters: what moves.
        gradients: of each.
        moments: of each, the mean of gradients and of their squares, zeros at first.
        step: how many were taken before.
        learning_rate: of the step.
        weight_decay: the share, times the rate, that parameters lose.
    """
    counts = [
        torch.tensor(float(step), dtype=torch.float32, device=p.device) for p in parameters
    ]  # counted up within
    adamw(
        list(parameters),
        list(gradients),
        [first for first, _ in moments],
        [second for _, second in moments],
        [],
        counts,
        fused=True,
        amsgrad=False,
        beta1=BETAS[0],
        beta2=BETAS[1],
        lr=learning_rate,
        weight_decay=weight_decay,
        eps=EPS,
        maximize=False,
    )


class Adam:
    """Of a module's parameters; ``zero_grad`` and ``step`` as torch's optimizers have them."""

    def __init__(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> None:
        self._parameters = list(parameters)
        self._moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in self._parameters]
        self._learning_rate = learning_rate
        self._steps = 0

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    def step(self) -> None:
        """Move the parameters that have a gradient."""
        moved = [i for i, parameter in enumerate(self._parameters) if parameter.grad is not None]
        take_adamw_step(
            [self._parameters[i] for i in moved],
            [g for i in moved if (g := self._parameters[i].grad) is not None],
            [self._moments[i] for i in moved],
            self._steps,
            learning_rate=self._learning_rate,
        )
        self._steps += 1
