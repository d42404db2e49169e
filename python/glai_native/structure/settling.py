"""This module trains the structure and knows when it has settled."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor, nn

from glai_native.data.canonical import canonical_form
from glai_native.data.checks import (
    all_finite,
    require_dense,
    require_finite,
    require_sample_weight,
    require_targets,
    scale_sample_weight,
    weighted_mean,
)
from glai_native.data.counts import require_count, require_integer
from glai_native.gates.packed import PackedGates
from glai_native.gates.patterns import oui
from glai_native.machine.inference import outside_inference_mode
from glai_native.machine.precision import in_own_precision
from glai_native.machine.progress import epoch_progress
from glai_native.machine.threads import one_torch_thread
from glai_native.structure.projection import InputProjection
from glai_native.structure.selector import PathSelector, layer_gates
from glai_native.structure.steps import Batches, network_steps

# Of a network below which a step takes as long with two of torch's threads as with one. On two idle cores, 128 samples:
# 1,280 weights 1.02, 8,192 weights 0.91, 32,768 weights 0.77 of one thread's time.
FEW_NUMBERS = 16_384
SETTLED = 0.1  # a flip rate, as a share of its largest
PROBE_SAMPLES = 2048
JUDGED_ROWS = 2048  # held-out samples whose units are there at a time
# Beside held-out samples that find nothing better, what share of its largest the flip rate must have fallen to: on a
# plateau, behind which a loss may yet fall, units go on flipping as they did. Fewer samples than so many say nothing.
CALM_SHARE, FEWEST_HELD_OUT = 0.5, 20
# Of the epochs so far, for how many held-out samples must find nothing better: a long training makes slow progress.
PATIENT_SHARE = 0.2
CLEAR_LOSS = (
    0.01  # relative; by less a loss is no better: of digits' 1,347 samples it went on falling for 70 epochs
)


@dataclass(frozen=True)
class StructureEpoch:
    """What one epoch changed.

    Source: arXiv 2312.09971, whose claim that structure settles before the weights it measures; OUI: arXiv 2504.17160.

    Attributes:
        epoch: 1 for the first.
        flip_rate: share of gates on the probe set that differ from the epoch before.
        weight_change: relative change of the hidden weights, ``|W - W_before| / |W_before|``.
        loss: mean training loss; NaN when not given.
        oui: the Overfitting-Underfitting Indicator of the pattern on the probe set (:func:`patterns.oui`), 0 to 1; NaN
            where nobody asked for it.
    """

    epoch: int
    flip_rate: float
    weight_change: float
    loss: float
    oui: float


class StructureMonitor:
    """Says when the activation pattern has settled.

    Settled: the flip rate on a probe set was at most ``threshold`` times its maximum so far for ``patience``
    epochs in a row, after at least ``min_epochs``. A relative threshold, because an absolute one depends on
    the learning rate.

    Stale: for ``validation_patience`` epochs in a row, and a fifth of all so far, neither the loss of held-out samples
    was lower by a hundredth than ever before, nor their score higher at all (of values, minus the loss), while the flip
    rate was at most half of its maximum. What such epochs change of the pattern is learnt by heart: it does not tell on
    other samples. Of MNIST's 60,000 the loss was least after 3 epochs, and the 20th was still worth 0.2 points of
    accuracy over the 8th: hence the score too.

    Source: arXiv 2312.09971 stops when patterns have settled and gives no rule; this one is this project's (DESIGN
    section 11).

    Args:
        threshold: share of the largest flip rate so far, in (0, 1); None: it is never settled, where held-out samples
            say when it is enough. A pattern settles before a structure has stopped getting better: of kin40k's it
            had after 17 epochs, R2 0.970, and was stale after 83, 0.991.
        patience: epochs in a row.
        min_epochs: never settled before.
        max_epochs: stop there, settled or not.
        seconds: stop after the epoch that ends later than so many seconds after the first pattern; None: never.
        validation_patience: epochs in a row.
        indicator: compute the OUI of each epoch, which takes as long as a small network's epoch.

    Attributes:
        history: one :class:`StructureEpoch` per :meth:`update` after the first.
    """

    def __init__(
        self,
        threshold: float | None = SETTLED,
        patience: int = 2,
        min_epochs: int = 3,
        max_epochs: int = 100,
        seconds: float | None = None,
        validation_patience: int = 10,
        indicator: bool = True,
    ) -> None:
        if threshold is not None and not 0 < threshold < 1:
            raise ValueError(f"StructureMonitor: threshold must be in (0, 1) or None, got {threshold}")
        for name, value in (
            ("patience", patience),
            ("min_epochs", min_epochs),
            ("max_epochs", max_epochs),
            ("validation_patience", validation_patience),
        ):
            if value < 1:
                raise ValueError(f"StructureMonitor: {name} must be >= 1, got {value}")
        if seconds is not None and not seconds > 0:
            raise ValueError(f"StructureMonitor: seconds must be > 0 or None, got {seconds}")
        self.threshold = threshold
        self.seconds = seconds
        self.patience = patience
        self.min_epochs = min_epochs
        self.max_epochs = max_epochs
        self.validation_patience = validation_patience
        self.indicator = indicator
        self.history: list[StructureEpoch] = []
        self._gates: list[PackedGates] | None = None
        self._weights: list[Tensor] = []
        self._calm = self._stale = 0
        self._least_loss, self._most_score = math.inf, -math.inf
        self._begun: float | None = None

    @property
    def settled(self) -> bool:
        """Whether the pattern has settled."""
        return self._calm >= self.patience and len(self.history) >= self.min_epochs

    @property
    def stale(self) -> bool:
        """Whether held-out samples have found nothing better for a while, and the pattern has calmed down."""
        patience = max(self.validation_patience, PATIENT_SHARE * len(self.history))
        return self._stale >= patience and len(self.history) >= self.min_epochs

    @property
    def should_stop(self) -> bool:
        """Settled, or stale, or ``max_epochs`` reached, or the seconds spent."""
        spent = 0.0 if self._begun is None else time.monotonic() - self._begun
        late = self.seconds is not None and bool(self.history) and spent > self.seconds
        return self.settled or self.stale or late or len(self.history) >= self.max_epochs

    def update(
        self,
        gates: Sequence[PackedGates],
        weights: Sequence[Tensor] = (),
        loss: float = float("nan"),
        sample_weight: Tensor | None = None,
        validation: tuple[float, float] = (math.nan, math.nan),
    ) -> None:
        """Take the pattern after an epoch; the first call takes the pattern before training.

        Args:
            gates: unit bits per hidden layer on the probe set, the same samples every time.
            weights: the hidden layers' weights, for ``weight_change``.
            loss: mean training loss of the epoch, kept in the history.
            sample_weight: of the probe samples in the flip rate, ``[N]``, >= 0; None: 1 each.
            validation: loss and score of held-out samples; NaN: there are none.
        """
        self._begun = time.monotonic() if self._begun is None else self._begun
        gates = list(gates)
        share = require_sample_weight("StructureMonitor", sample_weight, len(gates[0]) if gates else 0)
        weights = [weight.detach().clone() for weight in weights]
        if self._gates is not None:
            n_gates = sum(layer.n_gates for layer in gates)
            changed = [now.hamming(before) for now, before in zip(gates, self._gates, strict=True)]
            flips: float
            if share is None:
                bits = float(sum(len(layer) * layer.n_gates for layer in gates))
                flips = sum(int(flipped.sum()) for flipped in changed)
            else:
                bits = n_gates * float(share.sum())
                flips = sum(
                    float(flipped.double() @ share.to(flipped.device).double()) for flipped in changed
                )
            moved = sum(
                float((now - before).square().sum())
                for now, before in zip(weights, self._weights, strict=True)
            )
            size = sum(float(before.square().sum()) for before in self._weights)
            flip_rate = flips / bits if bits else 0.0
            change = (moved / size) ** 0.5 if size > 0 else float("nan")
            indicator = oui(gates) if self.indicator else math.nan
            self.history.append(StructureEpoch(len(self.history) + 1, flip_rate, change, loss, indicator))
            largest = max(epoch.flip_rate for epoch in self.history)
            calm = self.threshold is not None and flip_rate <= self.threshold * largest
            self._calm = self._calm + 1 if calm else 0
            held_out_loss, score = validation
            lower = held_out_loss < self._least_loss * (1 - CLEAR_LOSS)
            no_better = not math.isnan(held_out_loss) and not lower and score <= self._most_score
            self._stale = self._stale + 1 if no_better and flip_rate <= CALM_SHARE * largest else 0
            self._least_loss = held_out_loss if lower else self._least_loss
            self._most_score = max(self._most_score, score)
        self._gates, self._weights = gates, weights


@outside_inference_mode
def train_structure(
    mlp: nn.Sequential,
    x: Tensor,
    y: Tensor,
    projection: InputProjection | None = None,
    monitor: StructureMonitor | None = None,
    *,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    sample_weight: Tensor | None = None,
    validation: tuple[Tensor, ...] | None = None,
    seed: int = 0,
    progress: bool = True,
    on_epoch: Callable[[StructureEpoch], None] | None = None,
) -> PathSelector:
    """Train a small ReLU network until its pattern settles, and freeze it.

    It runs Adam on softmax cross-entropy, or on squared error when ``y`` is floating.

    Source: the brief training of the path selector in arXiv 2312.09971; Adam: Kingma and Ba, arXiv 1412.6980.

    Args:
        mlp: ``nn.Sequential(Linear, ReLU, ..., Linear)``, reads z; trained in place.
        x: raw ``[N, in_features]``.
        y: class indices ``[N]``, or values ``[N, C]``.
        projection: raw x to z; None fits centring on ``x``.
        monitor: when to stop; its history is filled. None makes one with defaults.
        batch_size: samples per step.
        learning_rate: Adam's.
        sample_weight: ``[N]``, >= 0, of the loss, of the projection and of what the monitor sees. Samples of weight 0
            are left out, and integers are repetitions: equal samples are joined (:func:`canonical_form`).
        validation: ``(x, y)`` or ``(x, y, sample_weight)`` of held-out samples, which say when the monitor is stale;
            fewer than 20 are not asked. None: none.
        seed: of the order of the samples and the choice of the probe set.
        progress: show a bar.
        on_epoch: called after each epoch.

    Returns:
        The frozen selector.

    Raises:
        ValueError: data that do not fit each other or the network, or are not finite.
    """
    if (
        not isinstance(x, Tensor)
        or not isinstance(y, Tensor)
        or x.ndim != 2
        or not len(x)
        or len(x) != len(y)
    ):
        shapes = [list(t.shape) if isinstance(t, Tensor) else type(t).__name__ for t in (x, y)]
        raise ValueError(
            "train_structure: x must be a tensor [N >= 1, D] and y a tensor [N] or [N, C], "
            f"got {shapes[0]} and {shapes[1]}"
        )
    batch_size = require_count("train_structure", "batch_size", batch_size)
    seed = require_integer("train_structure", "seed", seed)
    if not (isinstance(learning_rate, Real) and math.isfinite(learning_rate) and learning_rate > 0):
        raise ValueError(f"train_structure: learning_rate must be > 0, got {learning_rate!r}")
    monitor = monitor or StructureMonitor()
    if monitor.history:
        raise ValueError(
            f"train_structure: monitor must be new, got one with {len(monitor.history)} epochs of another training"
        )
    for name, tensor in (("x", x), ("y", y)):
        require_dense("train_structure", name, tensor)
    weight = require_sample_weight("train_structure", sample_weight, len(x))
    if weight is not None:
        require_finite("train_structure", "x", x)
    form = canonical_form([x, y], weight)
    x, y, weight = form.of(x), form.of(y), form.weight
    if not len(x):
        raise ValueError("train_structure: sample_weight must be > 0 for at least one sample, got none")
    projection = projection or InputProjection.fit(x, sample_weight=weight)
    PathSelector(mlp, projection)  # refuses a network that cannot be a selector before it is trained
    if not any(parameter.requires_grad for parameter in mlp.parameters()):
        raise ValueError("train_structure: mlp must have parameters that require gradients, got none")
    z = projection(x).to(next(mlp.parameters()).dtype)
    require_finite("train_structure", "x", z)
    n_outputs = list(mlp.parameters())[-1].shape[0]  # of the output layer, its weight's rows or its bias
    y = require_targets("train_structure", y, len(x), n_outputs, name="y")
    if weight is not None:
        weight = scale_sample_weight("train_structure", weight).to(z)

    if validation is not None and len(validation) not in (2, 3):
        raise ValueError(
            f"train_structure: validation must be (x, y), a sample_weight may follow, got {len(validation)} of them"
        )
    held_out = None if validation is None else HeldOut.of(projection, n_outputs, z.dtype, *validation)
    generator = torch.Generator().manual_seed(seed)
    seen = torch.randperm(len(z), generator=generator, device="cpu")[:PROBE_SAMPLES].to(z.device)
    probe, probe_weight = z[seen], None if weight is None else weight[seen]
    steps = network_steps(mlp, z, min(batch_size, len(z)), float(learning_rate))

    def run_epoch() -> float:
        order = torch.randperm(len(z), generator=generator, device="cpu")
        return steps.run_epoch([Batches(z, y, weight, order)], len(z))

    settle(mlp, run_epoch, probe, probe_weight, held_out, monitor, progress, on_epoch)
    return PathSelector(mlp, projection)


def settle(
    mlp: nn.Sequential,
    run_epoch: Callable[[], float],
    probe: Tensor,
    probe_weight: Tensor | None,
    held_out: HeldOut | None,
    monitor: StructureMonitor,
    progress: bool,
    on_epoch: Callable[[StructureEpoch], None] | None = None,
) -> None:
    """Run epochs until the monitor says that it is enough.

    Args:
        mlp: is trained in place.
        run_epoch: trains it, and returns the mean loss.
        probe: z ``[N, D]`` of the samples whose pattern is looked at.
        probe_weight: theirs ``[N]``; None: 1 each.
        held_out: samples that the network is not trained on; None: there are none.
        monitor: new.
        progress: show a bar.
        on_epoch: called after each epoch.
    """
    monitor.update(*_pattern(mlp, probe), sample_weight=probe_weight)
    numbers = sum(parameter.numel() for parameter in mlp.parameters())
    with epoch_progress(progress) as bar, torch.enable_grad(), one_torch_thread(numbers < FEW_NUMBERS):
        task = bar.add_task("structure", total=monitor.max_epochs)
        while not monitor.should_stop:
            loss = run_epoch()
            found = (math.nan, math.nan) if held_out is None else held_out.judge(mlp)
            monitor.update(*_pattern(mlp, probe), loss=loss, sample_weight=probe_weight, validation=found)
            epoch = monitor.history[-1]
            bar.update(
                task, advance=1, description=f"structure: {epoch.flip_rate:.2%} flips, OUI {epoch.oui:.2f}"
            )
            if on_epoch is not None:
                on_epoch(epoch)


@dataclass(frozen=True)
class HeldOut:
    """What the network has not been trained on: z ``[N, D]``, targets and weights ``[N]``."""

    z: Tensor
    y: Tensor
    weight: Tensor | None

    @classmethod
    def of(
        cls,
        projection: InputProjection,
        n_outputs: int,
        dtype: torch.dtype,
        x: Tensor,
        y: Tensor,
        sample_weight: Tensor | None = None,
    ) -> HeldOut | None:
        """Check and project samples; None of too few."""
        owner = "train_structure: validation"
        y = require_targets(owner, y, len(x), n_outputs, name="y")
        weight = require_sample_weight(owner, sample_weight, len(x))
        if len(x) < FEWEST_HELD_OUT:
            return None
        z = projection(x).to(dtype)
        require_finite(owner, "x", z)
        return cls(z, y.to(z.device), weight)

    @in_own_precision
    @torch.no_grad()
    def judge(self, mlp: nn.Sequential) -> tuple[float, float]:
        """Return loss and score of the network, the same for any number of threads."""
        with one_torch_thread(True):
            output = torch.cat([mlp(part) for part in self.z.split(JUDGED_ROWS)]).double()
            if self.y.is_floating_point():
                loss = weighted_mean((output - self.y).square().mean(1), self.weight)
                return loss, -loss
            losses = nn.functional.cross_entropy(output, self.y, reduction="none")
            right = (output.argmax(1) == self.y).double()
            return weighted_mean(losses, self.weight), weighted_mean(right, self.weight)


@in_own_precision
@torch.no_grad()
def _pattern(mlp: nn.Sequential, probe: Tensor) -> tuple[list[PackedGates], list[Tensor]]:
    """Return the unit bits of the probe and the hidden weights; raise where a network can be no selector any more."""
    linears = [layer for layer in mlp if isinstance(layer, nn.Linear)]
    if not all(all_finite(parameter) for parameter in mlp.parameters()):
        raise ValueError(
            "train_structure: weights must be finite, got NaN or infinite values; use a smaller learning_rate"
        )
    hidden = []
    for linear in linears[:-1]:
        weight = linear.weight.detach()
        bias = weight.new_zeros(len(weight)) if linear.bias is None else linear.bias.detach()
        hidden.append((weight, bias))
    return layer_gates(probe, hidden), [weight for weight, _ in hidden]
