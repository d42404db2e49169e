"""In the training loop's inner part on many ranks, each takes its share of every batch, and gradients are summed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from glai_native.estimator.estimator import PathEstimator
from glai_native.gates.packed import PackedGates
from glai_native.machine.adam import take_adamw_step
from glai_native.machine.ranks import Ranks
from glai_native.ops.gated_linear import gated_linear
from glai_native.ops.gated_matmul import gated_matmul
from glai_native.solvers.samples import Samples
from glai_native.solvers.sgd.native import SgdSettings, read_flat
from glai_native.solvers.streamed import StreamedSamples

SPAN = 32  # steps between looks at the losses, which are summed over the ranks there


class GroupLoop:
    """AdamW's state, alike on all ranks, on the CPU or a GPU; its checkpoints are those of the native loop."""

    @torch.inference_mode(False)  # and gradients on, whatever the caller has switched off
    def __init__(
        self,
        estimator: PathEstimator,
        data: Samples | StreamedSamples,
        settings: SgdSettings,
        ranks: Ranks,
    ) -> None:
        self._settings, self._ranks = settings, ranks
        self._rows = min(settings.batch_size, len(data))
        self.step = 0
        self._sizes = estimator.n_paths, estimator.in_features + 1, estimator.out_features
        self._directions = estimator.directions
        self._parameters = nn.Parameter(read_flat(estimator))
        self._moments = torch.zeros_like(self._parameters), torch.zeros_like(self._parameters)
        self._mean = torch.zeros_like(self._parameters)

    def state(self) -> dict[str, Tensor]:
        """Return what the next step depends on."""
        first, second = self._moments
        parameters = self._parameters.detach()
        return {"parameters": parameters, "exp_avg": first, "exp_avg_sq": second, "mean": self._mean}

    def result(self) -> Tensor:
        """Return the epoch's parameters: the mean of its iterates, or the last one."""
        return self._mean if self._settings.average else self._parameters.detach()

    def run_epoch(
        self, windows: Iterable[tuple[Samples, Tensor]], total: int, report: Callable[[float], None]
    ) -> float:
        """Run an epoch as :meth:`NativeLoop.run_epoch` does; windows must be the same on all ranks."""
        losses = torch.zeros((), dtype=torch.float64, device=self._mean.device)
        lost, done = 0.0, 0
        for number, (data, ids) in enumerate(self._batches(windows), start=1):
            losses += self._add_gradients(data, ids)
            self._take_step()
            self._mean.lerp_(self._parameters.detach(), 1.0 / number)
            done += len(ids)
            if number % SPAN == 0 or done == total:
                lost += float(self._ranks.add_up(losses))
                losses.zero_()
                if lost - lost != 0.0:
                    raise FloatingPointError(f"the loss is {lost} at or before step {number}")
                report(done / total)
        return lost / total

    def _batches(self, windows: Iterable[tuple[Samples, Tensor]]) -> Iterator[tuple[Samples, Tensor]]:
        for data, order in windows:
            for ids in order.to(self._mean.device).split(self._rows):
                yield data, ids

    @torch.inference_mode(False)
    def _add_gradients(self, data: Samples, batch: Tensor) -> Tensor:
        """Sum the gradient of the batch's mean loss over the ranks; return the sum of this rank's losses."""
        ids = batch[self._ranks.share(len(batch))]
        gates = PackedGates(data.gates.words.index_select(0, ids), data.gates.n_gates)
        output = self._output(data.features(ids), gates)
        targets = data.y.index_select(0, ids)
        if targets.is_floating_point():
            losses = (output - targets).square().mean(1)
        else:
            losses = nn.functional.cross_entropy(output, targets, reduction="none")
        if data.weight is not None:
            losses = losses * data.weight.index_select(0, ids)
        self._parameters.grad = None
        (losses.sum() / len(batch)).backward()
        assert self._parameters.grad is not None
        self._ranks.add_up(self._parameters.grad)
        return losses.detach().sum(dtype=torch.float64)

    def _take_step(self) -> None:
        assert self._parameters.grad is not None
        take_adamw_step(
            [self._parameters],
            [self._parameters.grad],
            [self._moments],
            self.step,
            learning_rate=self._settings.learning_rate,
            weight_decay=self._settings.weight_decay,
        )
        self.step += 1

    def _output(self, z: Tensor, gates: PackedGates) -> Tensor:
        """Compute ``PathEstimator.forward`` of the flat parameters, z with a last feature that is 1."""
        p, d, c = self._sizes
        x = torch.cat([z, z.new_ones((len(z), 1))], dim=1)
        if self._directions is None:
            return gated_matmul(x, gates, self._parameters.view(p, d, c))
        paths, constant = self._parameters.split([d * p, d * c])
        h = gated_linear(x, gates, paths.view(d, p).T)
        return torch.addmm(x @ constant.view(d, c), h, self._directions)
