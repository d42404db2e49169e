"""The native training loop is AdamW on minibatches, without Python between the steps."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from glai_native.data.checks import (
    all_finite,
    total,
)
from glai_native.estimator.estimator import PathEstimator
from glai_native.estimator.temperature import RIDGE_TEMPERATURE
from glai_native.gates.packed import PackedGates
from glai_native.machine.files import crc32, tensors_to_bytes
from glai_native.machine.inference import outside_inference_mode
from glai_native.machine.progress import epoch_progress
from glai_native.machine.ranks import Ranks
from glai_native.machine.threads import FEW_VALUES, one_torch_thread
from glai_native.machine.writing import find_file, remove_leftovers, write_files
from glai_native.solvers.samples import Samples
from glai_native.solvers.sgd.arguments import (
    prepared,
    read_samples,
    require_settings,
    require_trainable,
    require_validation,
)
from glai_native.solvers.sgd.checkpoint import (
    CHECKPOINT_FORMAT,
    CHECKPOINT_VERSION,
    history_to_json,
    open_checkpoint,
    read_progress,
)
from glai_native.solvers.sgd.clear_progress import clear_progress
from glai_native.solvers.sgd.cuda import CudaLoop
from glai_native.solvers.sgd.group import GroupLoop
from glai_native.solvers.sgd.native import NativeLoop, SgdSettings, read_flat, write_flat
from glai_native.solvers.solution import SgdEpoch, output_of
from glai_native.solvers.streamed import StreamedSamples


@outside_inference_mode
def train_estimator(
    estimator: PathEstimator,
    x: Tensor,
    gates: PackedGates | None,
    targets: Tensor,
    *,
    loss: str | None = None,
    sample_weight: Tensor | None = None,
    epochs: int = 10,
    batch_size: int = 512,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    average: bool = True,
    validation: tuple[Tensor, PackedGates | None, Tensor]
    | tuple[Tensor, PackedGates | None, Tensor, Tensor]
    | None = None,
    patience: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    on_epoch: Callable[[SgdEpoch], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
    process_group: dist.ProcessGroup | None = None,
) -> list[SgdEpoch]:
    """Train an estimator in place, from the weights that it has, by AdamW (arXiv 1711.05101).

    Averaged: after an epoch the estimator holds the mean of that epoch's iterates (Polyak and Ruppert), which
    validation sees; the steps go on from the last iterate. Results have the same bits for any number of threads.

    Source: AdamW, Loshchilov and Hutter, arXiv 1711.05101; averaged iterates, Polyak and Juditsky (1992).

    Args:
        estimator: full paths, output directions or units, on the CPU or a GPU, float32 or float64.
        x: z ``[N, D]`` (projected, not raw x), or ``unit_features(selector, z)``, of the estimator's dtype, finite.
        gates: their path gates ``[N, P]``; None for units.
        targets: class indices ``[N]``, or values ``[N, C]``.
        loss: ``"cross_entropy"`` (of the softmax) or ``"squared"`` (mean over samples and outputs; classes as 0 and 1);
            None: cross-entropy for class indices, squared for values.
        sample_weight: ``[N]``, >= 0; scaled to mean 1. Those of weight 0 are left out, and integers are repetitions:
            equal samples are joined to one of their weights' sum (:func:`canonical_form`).
        epochs: passes over the samples; with a checkpoint, those before it included.
        batch_size: samples per step.
        learning_rate: AdamW's, constant.
        weight_decay: AdamW's, decoupled.
        average: keep the mean of an epoch's iterates instead of the last one.
        validation: ``(x, gates, targets)`` or ``(x, gates, targets, sample_weight)``; the estimator ends with the
            parameters of the best epoch, also where an interrupt or an error ends the training.
        patience: stop after so many epochs without a clearly better one, of an accuracy higher by a quarter of its
            standard error or a loss lower by half a hundredth; None: never.
        seconds: begin no epoch later than so many after the first, > 0; None: whenever. Not with process_group.
        seed: of the order of samples.
        on_epoch: called after each epoch; the estimator then holds that epoch's parameters. What it raises ends the
            training.
        checkpoint: a file, written after each epoch; where it exists the training goes on from it, bit for bit.
        progress: show a bar.
        process_group: of ``torch.distributed``: its ranks train together, each on its share of every batch and of the
            validation samples, and all end with the same weights: those of one process, to rounding. Every rank calls
            this with the same arguments and **all** samples; training starts from rank 0's weights, and rank 0 alone
            reads and writes the checkpoint. None: this process trains alone.

    Returns:
        One :class:`SgdEpoch` per epoch, those before a checkpoint included.

    Raises:
        ValueError: data or settings that do not fit, or differ between ranks; a checkpoint of another training.
        RuntimeError: another rank failed; the message is its.
        FloatingPointError: the loss became infinite or NaN; the estimator keeps the best epoch's parameters.
    """
    with Ranks("train_estimator", process_group).together():
        require_trainable(estimator)
        require_validation(validation, patience)
        data = read_samples("train_estimator", estimator, x, gates, targets, sample_weight)
        held_out = (
            None
            if validation is None
            else read_samples("train_estimator: validation", estimator, *validation)
        )
    return train_on(
        estimator,
        data,
        held_out,
        loss=loss,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        average=average,
        patience=patience,
        seconds=seconds,
        seed=seed,
        on_epoch=on_epoch,
        checkpoint=checkpoint,
        progress=progress,
        process_group=process_group,
    )


def train_on(
    estimator: PathEstimator,
    samples: Samples | StreamedSamples,
    validation: Samples | None,
    *,
    loss: str | None = None,
    epochs: int = 10,
    batch_size: int = 512,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    average: bool = True,
    patience: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    on_epoch: Callable[[SgdEpoch], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
    process_group: dist.ProcessGroup | None = None,
    passes: int = 1,
) -> list[SgdEpoch]:
    """Train as :func:`train_estimator` does, on samples that are checked and in canonical form already.

    An epoch is of so many ``passes`` over the samples, each in an order of its own.
    """
    ranks = Ranks("train_estimator", process_group)
    with ranks.together():
        loss = loss or ("squared" if samples.has_values else "cross_entropy")
        settings = SgdSettings(loss, batch_size, learning_rate, weight_decay, average, seed, passes)
        path = None if checkpoint is None else Path(checkpoint)
        require_settings(settings, epochs, patience, path if ranks.is_first else None)
        if seconds is not None and (not seconds > 0 or ranks.size > 1):
            raise ValueError(
                f"train_estimator: seconds must be > 0 and of one process, got {seconds} with {ranks.size} processes"
            )
        require_trainable(estimator)
        data = prepared("train_estimator", estimator, samples, loss)
        held_out = (
            None
            if validation is None
            else prepared("train_estimator: validation", estimator, validation, loss)
        )
    stops = {
        "epochs": epochs,
        "patience": patience,
        "held-out samples": 0 if held_out is None else len(held_out.z),
    }
    if ranks.size > 1:
        ranks.require_alike(_facts(estimator, data, settings) | {k: str(v) for k, v in stops.items()})
    training = _Training(estimator, data, held_out, settings, ranks)
    training.of_values = samples.has_values
    with ranks.together():
        if path is not None and ranks.is_first:
            remove_leftovers(path.parent, [path.name])
            if find_file(path) is not None:
                training.restore(path)
    training.follow_first()
    # What torch does between the native loop's epochs.
    small = data.device.type != "cuda" and len(data) * estimator.in_features < FEW_VALUES
    try:
        with epoch_progress(progress and ranks.is_first) as bar, one_torch_thread(small):
            task = bar.add_task("training", total=epochs, completed=len(training.history))
            begun = time.monotonic()
            while len(training.history) < epochs and not training.exhausted(patience):
                if seconds is not None and training.history and time.monotonic() - begun > seconds:
                    break
                epoch = training.run_epoch(
                    lambda share: bar.update(task, completed=len(training.history) + share)
                )
                score = "" if held_out is None else f", held out {epoch.validation_score:.4g}"
                bar.update(task, completed=epoch.epoch, description=f"training: loss {epoch.loss:.4g}{score}")
                with ranks.together():
                    if on_epoch is not None:
                        on_epoch(epoch)
                    if path is not None and ranks.is_first:
                        training.save(path)
    finally:  # also where a callback, the keyboard or an error ends it
        training.finish()
    return training.history


def _facts(
    estimator: PathEstimator, data: Samples | StreamedSamples, settings: SgdSettings
) -> dict[str, str]:
    """Return what ranks must have alike: all that the order of steps depends on, and that tells data sets apart."""
    p, d, c = estimator.n_paths, estimator.in_features, estimator.out_features
    facts = asdict(settings)
    if settings.passes == 1:
        del facts["passes"]  # of which checkpoints know nothing that were written when there was no other
    return {name: str(value) for name, value in facts.items()} | {
        "structure_id": str(estimator.structure_id),
        "directions_id": str(estimator.directions_id),
        "dtype": str(estimator.dtype),
        "[N, P, D, C]": f"[{len(data)}, {p}, {d}, {c}]",
        "sample_weight": "none" if data.weight is None else "given",
        "targets' CRC-32": str(crc32(data.y)),
    }


class _Training:
    """The state of a training at the end of an epoch: what goes on, what is best, and what was."""

    def __init__(
        self,
        estimator: PathEstimator,
        data: Samples | StreamedSamples,
        held_out: Samples | None,
        settings: SgdSettings,
        ranks: Ranks,
    ) -> None:
        self.estimator, self.data, self.held_out, self.settings = estimator, data, held_out, settings
        self.ranks = ranks
        self._judged = held_out  # those by this rank
        if held_out is not None and ranks.size > 1:
            self._judged = held_out[ranks.share(len(held_out))]
        self.of_values = False
        self._rows = min(settings.batch_size, len(data))  # of a batch
        self.loop: NativeLoop | CudaLoop | GroupLoop
        if ranks.size > 1:
            self.loop = GroupLoop(estimator, data, settings, ranks)
        elif isinstance(data, Samples) and data.device.type == "cuda":
            self.loop = CudaLoop(estimator, data, settings)
        else:
            self.loop = NativeLoop(estimator, data, settings)
        self.history: list[SgdEpoch] = []
        self.best = read_flat(estimator)  # flat parameters of the best epoch
        self.best_epoch = 0  # 0: those that the estimator came with

    def exhausted(self, patience: int | None) -> bool:
        """Return whether the last epochs have brought nothing that is clearly better."""
        if patience is None or self.held_out is None:
            return False
        progress = clear_progress(self.history, len(self.held_out), self.held_out.has_values)
        return len(self.history) - progress >= patience

    def run_epoch(self, report: Callable[[float], None]) -> SgdEpoch:
        """Run the passes of one epoch over the samples, in orders that seed and epoch alone decide."""
        number = len(self.history) + 1
        generator = torch.Generator().manual_seed((int(self.settings.seed) * 1_000_003 + number) % 2**63)
        windows = self.data.windows(generator, self._rows, self.settings.passes)
        started = time.perf_counter()
        try:
            loss = self.loop.run_epoch(windows, self.settings.passes * len(self.data), report)
            if not all_finite(self.loop.result()):
                raise FloatingPointError("the parameters are not finite at the end")
        except FloatingPointError as error:
            raise FloatingPointError(
                f"train_estimator: {error} of epoch {number}; pass a smaller learning_rate than "
                f"{self.settings.learning_rate:g}"
            ) from None
        seconds = time.perf_counter() - started + (self.history[-1].seconds if self.history else 0.0)
        flat = self.loop.result()
        write_flat(self.estimator, flat)
        validation_loss, score = (math.nan, math.nan) if self.held_out is None else self._validate()
        epoch = SgdEpoch(number, loss, validation_loss, score, seconds)
        if self._better(epoch):
            self.best, self.best_epoch = flat.clone(), number
        self.history.append(epoch)
        return epoch

    def _better(self, epoch: SgdEpoch) -> bool:
        if self.held_out is None or not self.best_epoch:
            return True
        best = self.history[self.best_epoch - 1]
        return self._rank(epoch) > self._rank(best)

    def _rank(self, epoch: SgdEpoch) -> tuple[float, float]:
        """Return what the best epoch has most of; accuracy to one sample of the mean weight, then the loss decides."""
        score = epoch.validation_score
        if self.held_out is not None and self.held_out.weight is not None and not self.of_values:
            score = round(score * len(self.held_out.z))
        return score, -epoch.validation_loss

    @torch.no_grad()
    def _validate(self) -> tuple[float, float]:
        assert self.held_out is not None
        assert self._judged is not None
        n, targets, weight = len(self.held_out), self._judged.y, self._judged.weight
        output = output_of(self.estimator, self._judged)
        weight = None if weight is None else weight.double()  # of mean 1
        if targets.is_floating_point():
            errors = (output.double() - targets).square()
            error = total(errors if weight is None else errors * weight.unsqueeze(1))
            squared = float(self.ranks.add_up(output.new_tensor(error, dtype=torch.float64))) / (
                n * output.shape[1]
            )
            return squared, -squared
        if weight is None:
            loss = nn.functional.cross_entropy(output.double(), targets, reduction="sum")
        else:
            loss = nn.functional.cross_entropy(output.double(), targets, reduction="none") @ weight
        right = (output.argmax(1) == targets).double()
        hits = right.sum() if weight is None else right @ weight
        loss, score = (self.ranks.add_up(torch.stack([loss, hits])) / n).tolist()
        return loss, score

    def follow_first(self) -> None:
        """Make all ranks take over the state of rank 0."""
        if self.ranks.size == 1:
            return
        for tensor in (*self.loop.state().values(), self.best):
            self.ranks.broadcast(tensor)
        progress = [self.loop.step, self.best_epoch, [list(asdict(epoch).values()) for epoch in self.history]]
        text = self.ranks.broadcast_bytes(json.dumps(progress).encode())
        self.loop.step, self.best_epoch, history = json.loads(text)
        self.history = [SgdEpoch(*values) for values in history]
        write_flat(self.estimator, self.loop.result() if history else self.best)

    def finish(self) -> None:
        """Give the estimator the best epoch's parameters."""
        write_flat(self.estimator, self.best)
        if self.history:  # what was fitted to the weights before is not for these
            logits = self.settings.loss == "cross_entropy" or self.of_values
            self.estimator.temperature = 1.0 if logits else RIDGE_TEMPERATURE

    @cached_property
    def _identity(self) -> str:
        """SHA-256 of all that a checkpoint must share with this training.

        Of the samples, their targets and weights: z may be computed anew, and then has other bits on other machines.
        """
        weight, held_out = self.data.weight, self.held_out
        facts = {
            "sample_weight": None if weight is None else crc32(weight),
            "held-out samples": None if held_out is None else crc32(held_out.y),
        }
        if held_out is not None and held_out.weight is not None:
            facts["held-out sample_weight"] = crc32(held_out.weight)
        text = json.dumps(facts | _facts(self.estimator, self.data, self.settings), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        metadata = {
            "format": CHECKPOINT_FORMAT,
            "version": str(CHECKPOINT_VERSION),
            "training": self._identity,
            "step": str(self.loop.step),
            "best_epoch": str(self.best_epoch),
            "history": history_to_json(self.history),
        }
        write_files({path: tensors_to_bytes(self.loop.state() | {"best": self.best}, metadata)})

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint of the same training."""
        file = open_checkpoint(path)
        if file.entry("training") != self._identity:
            raise ValueError(
                f"{path}: is a checkpoint of another training (other settings, data, held-out samples, structure or "
                "directions), delete it or name another file"
            )
        state = self.loop.state()
        like = {name: file.tensor(name, (t.dtype,), tuple(t.shape)) for name, t in state.items()}
        best = file.tensor("best", (self.estimator.dtype,), tuple(self.best.shape))
        steps = math.ceil(self.settings.passes * len(self.data) / self._rows)
        progress = read_progress(file, steps, validated=self.held_out is not None)
        for name, tensor in state.items():
            tensor.copy_(like[name])
        self.best = best.to(self.data.device, copy=True)
        self.loop.step, self.best_epoch, self.history = progress
        write_flat(self.estimator, self.loop.result())
