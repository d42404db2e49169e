"""The training loop's inner part on a GPU is the same step by the same ops, captured once in a CUDA graph."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from glai_native.estimator.estimator import PathEstimator
from glai_native.gates.packed import PackedGates
from glai_native.machine.adam import BETAS, EPS
from glai_native.solvers.samples import Samples
from glai_native.solvers.sgd.native import SgdSettings, read_flat

WARM_UP_STEPS = 3  # on a side stream before the capture, as torch asks for
SPAN = 256  # steps between looks at the losses, where the host waits for the GPU


def captured(step: Callable[[], None], device: torch.device) -> torch.cuda.CUDAGraph:
    """Return the graph of a step, which is taken a few times before its capture.

    Args:
        step: launches the same work each time, and makes the gradients that it needs anew.
        device: where; need not be the current one.
    """
    graph = torch.cuda.CUDAGraph()
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(WARM_UP_STEPS):
            step()
        with torch.cuda.graph(graph, stream=side):
            step()
    torch.cuda.current_stream(device).wait_stream(side)
    return graph


class CudaLoop:
    """AdamW's state on the GPU, and the graph of a step; a last batch of fewer samples runs without it."""

    @torch.inference_mode(False)  # and gradients on, whatever the caller has switched off
    def __init__(self, estimator: PathEstimator, data: Samples, settings: SgdSettings) -> None:
        self._data, self._settings = data, settings
        self.step = 0
        self._model, self._mean = copy.deepcopy(estimator).requires_grad_(), copy.deepcopy(estimator)
        self._trained, self._means = list(self._model.parameters()), list(self._mean.parameters())
        self._optimizer = torch.optim.AdamW(
            self._trained,
            lr=settings.learning_rate,
            betas=BETAS,
            eps=EPS,
            weight_decay=settings.weight_decay,
            fused=True,
            capturable=True,
        )
        device = data.z.device
        rows = min(settings.batch_size, len(data.z))
        self._ids = torch.zeros(rows, dtype=torch.int64, device=device)
        self._share = torch.ones((), dtype=estimator.dtype, device=device)  # of the next iterate in the mean
        self._total = torch.zeros((), dtype=torch.float64, device=device)  # losses of this span
        before = [parameter.detach().clone() for parameter in self._trained]
        self._graph = captured(lambda: self._take_step(self._ids), device)
        for parameter, value in zip(self._trained, before, strict=True):
            parameter.data.copy_(value)
            for moment in self._optimizer.state[parameter].values():
                moment.zero_()
        self._total.zero_()

    def hold(self, ids: Tensor) -> None:
        """Have the steps that :meth:`replay` takes read these samples, int64, as many as a batch has."""
        self._ids.copy_(ids)

    def replay(self) -> None:
        """Take the captured step."""
        self._graph.replay()

    @torch.inference_mode(False)
    def _take_step(self, ids: Tensor) -> None:
        data = self._data
        gates = PackedGates(data.gates.words.index_select(0, ids), data.gates.n_gates)
        output = self._model(data.features(ids), gates)
        targets = data.y.index_select(0, ids)
        if targets.is_floating_point():
            losses = (output - targets).square().mean(1)
        else:
            losses = nn.functional.cross_entropy(output, targets, reduction="none")
        if data.weight is not None:
            losses = losses * data.weight.index_select(0, ids)
        self._optimizer.zero_grad(set_to_none=True)
        losses.mean().backward()
        self._optimizer.step()
        with torch.no_grad():
            self._total += losses.detach().sum(dtype=torch.float64)
            for mean, parameter in zip(self._means, self._trained, strict=True):
                mean.lerp_(parameter, self._share)

    def state(self) -> dict[str, Tensor]:
        """Return what the next step depends on."""
        state = {}
        for name, parameter in self._model.named_parameters():
            state[name] = parameter.data
            state |= {f"{name}.{kind}": value for kind, value in self._optimizer.state[parameter].items()}
        return state | {f"mean.{name}": parameter.data for name, parameter in self._mean.named_parameters()}

    def result(self) -> Tensor:
        """Return the epoch's parameters: the mean of its iterates, or the last one."""
        return read_flat(self._mean if self._settings.average else self._model)

    def run_epoch(
        self, windows: Iterable[tuple[Samples, Tensor]], total: int, report: Callable[[float], None]
    ) -> float:
        """Run an epoch as :meth:`NativeLoop.run_epoch` does; the one window is of the samples that the graph reads."""
        ((_, order),) = windows
        losses, begin = 0.0, 0
        for number, ids in enumerate(order.to(self._ids.device).split(len(self._ids))):
            self._share.fill_(1.0 / (number + 1))
            if len(ids) == len(self._ids):
                self.hold(ids)
                self.replay()
            else:
                self._take_step(ids)
            begin += len(ids)
            self.step += 1
            if number % SPAN == SPAN - 1 or begin == len(order):
                losses += self._losses(number + 1)
                report(begin / total)
        return losses / total

    def _losses(self, step: int) -> float:
        losses = float(self._total)
        self._total.zero_()
        if losses - losses != 0.0:
            raise FloatingPointError(f"the loss is {losses} at or before step {step}")
        return losses
