"""What a path kernel model is once it is fitted: it predicts, is written out as path weights, and is stored."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from glai_native.data.checks import FLOATS
from glai_native.estimator.estimator import PathEstimator
from glai_native.estimator.file import provenance_to_json, read_provenance
from glai_native.estimator.outputs import Outputs, require_order
from glai_native.estimator.temperature import UNSEEN_MARGIN, log_probabilities, probabilities
from glai_native.gates.packed import PackedGates, words_per_row
from glai_native.gates.packing import path_gates
from glai_native.machine.files import tensors_to_bytes
from glai_native.machine.memory import GB, free_memory
from glai_native.machine.writing import read_whole, remove_leftovers, write_files
from glai_native.ops.gated_matmul import gated_matmul_weight_grad
from glai_native.solvers.dual.features import PathFeatures
from glai_native.solvers.dual.file import (
    PATH_KERNEL_FILE,
    PATH_KERNEL_FORMAT,
    PATH_KERNEL_VERSION,
    FitFigures,
    open_kernel_model,
)
from glai_native.solvers.dual.kept import KeptTargets, kept_to_state, read_kept
from glai_native.structure.selector import STRUCTURE_FILE, PathSelector, prepare_folder

# Bytes of the kernel block that predict holds at a time.
BLOCK_BYTES = 64 * 2**20

# Samples whose path gates exist at a time in to_estimator.
GATE_ROWS = 4096


class FittedKernel(Outputs):
    """What :class:`~glai_native.PathKernelModel` does with its centres and coefficients, however they were found."""

    def __init__(self, selector: PathSelector) -> None:
        if not isinstance(selector, PathSelector):
            raise TypeError(
                f"PathKernelModel: selector must be a PathSelector, got {type(selector).__name__}"
            )
        if selector.hidden[0][0].dtype not in FLOATS:
            raise ValueError(
                "PathKernelModel: selector must be float32 or float64, "
                f"got {selector.hidden[0][0].dtype}, cast it by selector.float()"
            )
        if selector.kept_paths is not None:
            raise ValueError(
                "PathKernelModel: selector must keep all paths, as the kernel sums over all, got a pruned one of "
                f"P={selector.n_paths}"
            )
        self.selector = selector
        self.l2 = float("nan")
        self.n_samples = 0
        self.unsolved = 0.0
        self.temperature = 1.0
        self.loo_error: float | None = None
        self.loo_accuracy: float | None = None
        self.loo_scores: Tensor | None = None
        self.provenance: dict[str, Any] = {}
        self.centres: PathFeatures | None = None
        self.alpha: Tensor | None = None
        self.kept: KeptTargets | None = None

    def __repr__(self) -> str:
        if self.alpha is None:
            return "PathKernelModel(not fitted)"
        return f"PathKernelModel(N={self.n_samples}, M={len(self.alpha)}, C={self.alpha.shape[1]}, l2={self.l2:.3g})"

    @property
    def structure_id(self) -> str:
        """SHA-256 of the frozen structure."""
        return self.selector.structure_id

    @property
    def out_features(self) -> int:
        """C; 0 before a fit."""
        return 0 if self.alpha is None else self.alpha.shape[1]

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Return scores ``[N, C]`` of raw x ``[N, in_features]``, values in the units of y, in blocks of samples.

        The terms of a score nearly cancel, so they are computed in float64, in which a score of a float32 model keeps
        six digits instead of four.
        """
        self._fitted("predict")
        return self.scores_of(PathFeatures.of("PathKernelModel.predict", self.selector, x))

    @torch.no_grad()
    def scores_of(self, features: PathFeatures) -> Tensor:
        """Return scores as :meth:`predict` does, of samples that are projected already."""
        centres, alpha = self._fitted("predict")
        samples = features.double()
        centres, wide = centres.double(), alpha.double()
        scores = alpha.new_empty(len(samples), alpha.shape[1])
        rows = max(1, BLOCK_BYTES // (len(centres) * wide.element_size()))
        block = wide.new_empty(min(rows, len(samples)), len(centres))
        for start in range(0, len(samples), rows):
            at = slice(start, min(start + rows, len(samples)))
            scores[at] = self.in_units(samples[at].kernel(centres, out=block[: at.stop - at.start]) @ wide)
        return scores

    def _lowered(self, scores: Tensor) -> Tensor:
        """Put scores of classes without a sample below those of the others, as :func:`lower_unseen` does."""
        if self.kept is None or self.kept.has_values:
            return scores
        seen = torch.zeros(scores.shape[1], dtype=torch.bool, device=scores.device)
        seen[self.kept.y.to(scores.device).unique()] = True
        if not bool(seen.all()):
            below = scores[:, seen].mean(1, keepdim=True) - UNSEEN_MARGIN * self.temperature
            scores[:, ~seen] = below.expand(-1, int((~seen).sum()))
        return scores

    def predict_proba(self, x: Tensor) -> Tensor:
        """Return class probabilities ``[N, C]``, float64: softmax of the scores over :attr:`temperature`.

        Classes of which no sample is left are below the others.
        """
        self.require_classes("PathKernelModel.predict_proba")
        return probabilities(self._lowered(self.predict(x)), self.temperature)

    def predict_log_proba(self, x: Tensor) -> Tensor:
        """Return the logarithms of :meth:`predict_proba`, computed as such: none is cut off."""
        self.require_classes("PathKernelModel.predict_log_proba")
        return log_probabilities(self._lowered(self.predict(x)), self.temperature)

    def permute_outputs(self, order: Tensor) -> None:
        """Make output i what output ``order[i]`` (int64 ``[C]``) was, in place."""
        _, alpha = self._fitted("permute_outputs")
        require_order("permute_outputs", order, self.out_features)
        self.alpha = alpha[:, order.to(alpha.device)].contiguous()
        self.kept = None if self.kept is None else self.kept.permuted(order)
        self._permute_meaning(order)

    @torch.no_grad()
    def to_estimator(self, memory: int | None = None) -> PathEstimator:
        """Return the same function with its path weights written out, where there are not too many.

            w[p,d,c] = sum_m g_m[p]·z_m[d]·alpha[m,c]        b[p,c] = sum_m g_m[p]·alpha[m,c]

        Scores are equal to 1e-5, in float32 where l2 is not below a hundredth of the kernel's mean diagonal.

        Its full paths hold any such function; paths with output directions do not, fit those by themselves. Of what
        merging needs it knows the samples seen, not how often each path was on per class.

        Args:
            memory: bytes that the weights may take; None: half of what the device has free.

        Raises:
            MemoryError: they would take more.
        """
        centres, alpha = self._fitted("to_estimator")
        n_paths, width, n_outputs = self.selector.n_paths, self.selector.z_features, alpha.shape[1]
        budget = free_memory(alpha.device) // 2 if memory is None else memory
        # The weights, and on_counts of 8 bytes per path and output.
        needed = n_paths * n_outputs * ((width + 1) * alpha.element_size() + 8)
        if needed > budget:
            raise MemoryError(
                f"PathKernelModel.to_estimator: weights [P={n_paths}, D={width}, C={n_outputs}] take "
                f"{needed / GB:,.1f} GB and memory allows {budget / GB:,.1f}; predict with this model instead"
            )
        estimator = PathEstimator(
            n_paths, width, n_outputs, structure_id=self.structure_id, dtype=alpha.dtype, device=alpha.device
        )
        bias = alpha.new_zeros(n_paths, 1, n_outputs)
        weight = torch.zeros_like(estimator.weight)
        ones = alpha.new_ones(len(centres), 1)
        for start in range(0, len(centres), GATE_ROWS):
            at = slice(start, start + GATE_ROWS)
            gates = path_gates([layer[at] for layer in centres.layers])
            gated_matmul_weight_grad(centres.z[at], gates, alpha[at], out=weight, accumulate=True)
            gated_matmul_weight_grad(ones[at], gates, alpha[at], out=bias, accumulate=True)
        estimator.weight.copy_(weight)
        estimator.bias.copy_(bias.squeeze(1))
        estimator.samples_seen.fill_(self.n_samples)
        estimator.temperature = self.temperature
        estimator.take_outputs(self)
        return estimator

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write ``structure.safetensors`` and ``path_kernel.safetensors``, which holds training data.

        Args:
            folder: made when it is not there. A model of the same structure in it is replaced.
            overwrite: also replace a model of another structure.

        Raises:
            ValueError: the folder holds a model of another structure and ``overwrite`` is False.
        """
        centres, alpha = self._fitted("save")
        folder = prepare_folder("PathKernelModel.save", folder, self.structure_id, overwrite)
        warnings.warn(
            f"PathKernelModel.save: {PATH_KERNEL_FILE} contains training data, {len(centres)} projected samples, "
            "their activation patterns and targets; to_estimator() gives a model without them",
            stacklevel=2,
        )
        kept, kind = kept_to_state(self.kept)
        metadata = {
            "format": PATH_KERNEL_FORMAT,
            "version": str(PATH_KERNEL_VERSION),
            "structure_id": self.structure_id,
            "layer_widths": json.dumps([layer.n_gates for layer in centres.layers]),
            "contains_training_data": "true",
            "targets": kind,
            **self.outputs_metadata(),
        }
        if self.provenance:
            metadata["provenance"] = provenance_to_json(self.provenance)
        figures = self.n_samples, self.l2, self.loo_error, self.loo_accuracy, self.unsolved
        metadata |= FitFigures(*figures).to_metadata()
        state = {"z": centres.z, "alpha": alpha} | kept
        state |= {f"units_{i}": layer.words for i, layer in enumerate(centres.layers)}
        write_files(
            {
                folder / STRUCTURE_FILE: self.selector.to_bytes(),
                folder / PATH_KERNEL_FILE: tensors_to_bytes(state, metadata),
            }
        )

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Open a folder that :meth:`save` wrote.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is damaged, of another format, or the two are of different structures.
        """
        remove_leftovers(Path(folder))
        return read_whole(Path(folder), lambda: cls._load(Path(folder)))

    @classmethod
    def _load(cls, folder: Path) -> Self:
        selector = PathSelector.load(folder / STRUCTURE_FILE)
        file = open_kernel_model(folder / PATH_KERNEL_FILE)
        found = file.sha256("structure_id")
        if found != selector.structure_id:
            raise ValueError(
                f"{file.path}: must be of structure_id {selector.structure_id[:12]}… like {STRUCTURE_FILE} beside it, "
                f"got {found[:12]}…"
            )
        model = cls(selector)
        z = file.tensor("z", (selector.hidden[0][0].dtype,), (None, selector.z_features)).clone()
        layers = []
        for i, width in enumerate(selector.widths):
            words = file.tensor(f"units_{i}", (torch.int32,), (len(z), words_per_row(width))).clone()
            layers.append(PackedGates(words, width, selector.structure_id))
        model.centres = PathFeatures(z, layers)
        model.alpha = file.tensor("alpha", (z.dtype,), (len(z), None)).clone()
        model.kept = read_kept(file, z, model.out_features)
        figures = FitFigures.read(file, len(z))
        model.n_samples, model.l2, model.unsolved = figures.n_samples, figures.l2, figures.unsolved
        model.loo_error, model.loo_accuracy = figures.loo_error, figures.loo_accuracy
        model.read_outputs(file)
        model.provenance = read_provenance(file)
        return model

    def _fitted(self, verb: str) -> tuple[PathFeatures, Tensor]:
        if self.centres is None or self.alpha is None:
            raise ValueError(f"PathKernelModel.{verb}: the model is not fitted, call fit(x, y) first")
        return self.centres, self.alpha
