"""The training loop's inner part has all parameters in one flat vector, and the native steps on it."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

import glai_native._native as _native
from glai_native.estimator.estimator import PathEstimator
from glai_native.gates.oracle import words_per_row
from glai_native.machine.adam import BETAS, EPS
from glai_native.machine.threads import kernel_threads
from glai_native.solvers.samples import Samples
from glai_native.solvers.streamed import StreamedSamples

SPAN_SECONDS = 0.2  # between looks at the progress bar and the keyboard
FIRST_SPAN = 8  # steps
SPAN_BYTES = 1 << 24  # of unit features, where they are computed for each span


@dataclass(frozen=True)
class SgdSettings:
    """What decides the numbers of a training, next to its data."""

    loss: str
    batch_size: int
    learning_rate: float
    weight_decay: float
    average: bool
    seed: int
    passes: int = 1  # over the samples in an epoch


def read_flat(estimator: PathEstimator) -> Tensor:
    """Return the parameters as the native steps keep them, biases as the weights of a last feature that is 1.

    Full paths: ``[P, D+1, C]``. Output directions: u and beta ``[D+1, P]``, then path P-1 ``[D+1, C]``.
    """
    with torch.no_grad():
        if estimator.directions is None:
            return torch.cat([estimator.weight, estimator.bias.unsqueeze(1)], dim=1).flatten()
        paths = torch.cat([estimator.u.T, estimator.beta.unsqueeze(0)])
        constant = torch.cat([estimator.constant_weight, estimator.constant_bias.unsqueeze(0)])
        return torch.cat([paths.flatten(), constant.flatten()])


def write_flat(estimator: PathEstimator, flat: Tensor) -> None:
    """Put back what :func:`read_flat` reads."""
    p, d, c = estimator.n_paths, estimator.in_features, estimator.out_features
    with torch.no_grad():
        if estimator.directions is None:
            weight = flat.view(p, d + 1, c)
            estimator.weight.copy_(weight[:, :d])
            estimator.bias.copy_(weight[:, d])
            return
        paths, constant = flat[: (d + 1) * p].view(d + 1, p), flat[(d + 1) * p :].view(d + 1, c)
        estimator.u.copy_(paths[:d].T)
        estimator.beta.copy_(paths[d])
        estimator.constant_weight.copy_(constant[:d])
        estimator.constant_bias.copy_(constant[d])


class NativeLoop:
    """AdamW's state and a batch's workspace, for steps on the CPU."""

    def __init__(
        self, estimator: PathEstimator, data: Samples | StreamedSamples, settings: SgdSettings
    ) -> None:
        self._settings = settings
        self.step = 0
        parameters = read_flat(estimator)
        zeros = {name: torch.zeros_like(parameters) for name in ("exp_avg", "exp_avg_sq", "mean")}
        self._state = {"parameters": parameters, **zeros}
        self._directions = estimator.directions
        rows = min(settings.batch_size, len(data))
        p, d, c = estimator.n_paths, estimator.in_features, estimator.out_features
        new = parameters.new_empty
        self._workspace = {
            "batch_words": torch.empty((rows, words_per_row(p)), dtype=torch.int32, device="cpu"),
            "output": new(rows, c),
            "gradient": new(len(parameters)),
            "row_losses": torch.empty(rows, dtype=torch.float64, device="cpu"),
        }
        if self._directions is None:
            self._workspace["batch_x"] = new(rows, d + 1)
        else:
            hidden = new(rows, p + d + 1)  # g ⊙ (z·uᵀ + beta), z, 1: all that the outputs are products of
            self._workspace |= {
                "hidden": hidden,
                "batch_x": hidden[:, p:],
                "hidden_grad": new(rows, p),
                "output_weights": new(p + d + 1, c),
            }
        self._span = FIRST_SPAN
        self._most_of_units = SPAN_BYTES // (rows * d * parameters.element_size()) + 1

    def state(self) -> dict[str, Tensor]:
        """Return what the next step depends on."""
        return self._state

    def result(self) -> Tensor:
        """Return the epoch's parameters: the mean of its iterates, or the last one."""
        return self._state["mean" if self._settings.average else "parameters"]

    def run_epoch(
        self, windows: Iterable[tuple[Samples, Tensor]], total: int, report: Callable[[float], None]
    ) -> float:
        """Take the steps over the samples of windows; return the mean loss.

        Args:
            windows: samples, and the order int64 of their steps; a multiple of a batch in each, the last one excepted.
            total: of samples in all of them.
            report: told the share that is done, between spans of steps.

        Raises:
            FloatingPointError: a loss was not finite.
        """
        batch = len(self._workspace["output"])
        parts: list[float] = []  # of the mean, one of each batch
        done = 0
        for data, order in windows:
            most = self._most_of_units if data.of_units else sys.maxsize
            begin = 0
            while begin < len(order):
                ids = order[begin : begin + min(self._span, most) * batch]
                started = time.perf_counter()
                losses = self._run_steps(data, ids, done // batch)
                rows = torch.full_like(losses, batch)
                rows[-1] = len(ids) - batch * (len(losses) - 1)
                parts += (losses * (rows / total)).tolist()
                begin, done = begin + len(ids), done + len(ids)
                seconds = max(time.perf_counter() - started, 1e-6)
                self._span = max(1, int(len(losses) * SPAN_SECONDS / seconds))
                report(done / total)
            del data  # before the next are made
        # Exact before it is rounded: the length of spans, which the clock decides, must not show.
        return math.fsum(parts)

    def _run_steps(self, data: Samples, ids: Tensor, averaged: int) -> Tensor:
        """Take the steps of samples ``ids``; return the loss of each of their batches, float64.

        ``averaged`` of this epoch's iterates are in the mean.
        """
        batch = len(self._workspace["output"])
        losses = torch.full((-(-len(ids) // batch),), torch.nan, dtype=torch.float64, device="cpu")
        settings, order = self._settings, ids
        if data.of_units:  # more than are kept
            data, order = data[ids].with_features(), torch.arange(len(ids), device="cpu")
        _native.train_steps(
            x=data.z,
            words=data.gates.words,
            n_gates=data.gates.n_gates,
            targets=data.y,
            sample_weight=data.weight,
            order=order,
            directions=self._directions,
            **self._state,
            step=self.step,
            averaged=averaged,
            learning_rate=settings.learning_rate,
            beta1=BETAS[0],
            beta2=BETAS[1],
            eps=EPS,
            weight_decay=settings.weight_decay,
            **self._workspace,
            losses=losses,
            threads=kernel_threads(),
        )
        failed = torch.isfinite(losses).logical_not().nonzero()
        if len(failed):
            raise FloatingPointError(
                f"the loss is {float(losses[failed[0]])} at step {averaged + int(failed[0]) + 1}"
            )
        self.step += len(losses)
        return losses
