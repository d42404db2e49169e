"""The whole model is a frozen structure and the linear model that reads it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.compiler import is_compiling

from glai_native.data.arrays import array_tensor
from glai_native.data.checks import require_finite
from glai_native.data.labels import Label, label_array
from glai_native.estimator.estimator import PathEstimator
from glai_native.estimator.file import ESTIMATOR_FILE, open_estimator
from glai_native.estimator.temperature import log_probabilities, probabilities
from glai_native.gates.packed import PackedGates
from glai_native.machine.files import CHECKSUM, stated_checksum
from glai_native.machine.interrupts import uninterrupted
from glai_native.machine.precision import in_own_precision
from glai_native.machine.watching import is_watched
from glai_native.machine.writing import find_file, read_whole, remove_leftovers, write_files
from glai_native.model.casting import structure_as_it_is
from glai_native.model.output import model_output, wide_output
from glai_native.model.restoring import whole_or_unchanged
from glai_native.model.taking_over import take_over_structure
from glai_native.solvers.exact.file import EXACT_FILE
from glai_native.solvers.statistics.file import STATISTICS_FILE, open_statistics
from glai_native.solvers.statistics.sums import PathStatistics
from glai_native.structure.selector import STRUCTURE_FILE, PathSelector, prepare_folder
from glai_native.structure.unit_features import unit_features

FEATURE_ROWS = 2048  # whose unit features, more numbers than x, are there at a time where nothing needs all
STATISTICS_CHECKSUM = "statistics_checksum"  # in the estimator's file: of the statistics it was saved with


class GLAI(nn.Module):
    """A selector and an estimator of the same structure; takes raw x.

    Source: GreenLightningAI (Duato, Mestre, Dolz, Quintana-Ortí, arXiv 2312.09971): structural and quantitative
    knowledge kept apart.

    Args:
        selector: the frozen structure.
        estimator: the linear model over its paths; one without a structure_id takes the selector's.
        statistics: the sums that the estimator was solved from, where it was: what exact re-training and merging go
            on from. They are saved and loaded with the model.

    Raises:
        ValueError: they do not belong together.
    """

    def __init__(
        self, selector: PathSelector, estimator: PathEstimator, statistics: PathStatistics | None = None
    ) -> None:
        super().__init__()
        if not isinstance(selector, PathSelector) or not isinstance(estimator, PathEstimator):
            kinds = f"{type(selector).__name__} and {type(estimator).__name__}"
            raise TypeError(
                f"GLAI: selector must be a PathSelector and estimator a PathEstimator, got {kinds}"
            )
        if estimator.structure_id not in (None, selector.structure_id):
            raise ValueError(
                f"GLAI: estimator must have structure_id {selector.structure_id[:12]}… like the selector, "
                f"got {(estimator.structure_id or '')[:12]}…"
            )
        expected = (selector.n_paths, selector.z_features)
        if estimator.n_units:
            expected = (1, selector.widths[-1] + selector.z_features)
        if (estimator.n_paths, estimator.in_features) != expected:
            raise ValueError(
                f"GLAI: estimator must be [P={expected[0]}, D={expected[1]}, C], "
                f"got [{estimator.n_paths}, {estimator.in_features}, {estimator.out_features}]"
            )
        estimator.structure_id = selector.structure_id
        self.register_load_state_dict_pre_hook(take_over_structure)
        self.selector = selector
        self.estimator = estimator
        self._statistics_file: Path | None = None
        self._statistics_checksum: str | None = None  # that the file must state
        self.statistics = statistics

    @property
    def structure_id(self) -> str:
        """SHA-256 of the frozen structure."""
        return self.selector.structure_id

    @property
    def class_labels(self) -> list[Label] | None:
        """Labels of the outputs, the estimator's; None where they have none."""
        return self.estimator.class_labels

    @class_labels.setter
    def class_labels(self, labels: Sequence[Label] | None) -> None:
        self.estimator.class_labels = labels

    @property
    def statistics(self) -> PathStatistics | None:
        """The sums that the estimator was solved from, or None; a loaded model's are read when first asked for.

        Raises:
            ValueError: the model's statistics file is damaged, of another structure, or of other samples than the
                estimator: the folder was written to since.
        """
        if self._statistics_file is not None:
            self.statistics = self.read_statistics()
            assert self._statistics is not None
            self.estimator.solved_from = self._statistics.state
        if self._statistics is not None:
            self._statistics.take_outputs(self.estimator)  # column by column they are the estimator's
        return self._statistics

    @statistics.setter
    def statistics(self, statistics: PathStatistics | None) -> None:
        if statistics is not None:
            if statistics.structure_id not in (None, self.structure_id):
                raise ValueError(
                    f"GLAI: statistics must have structure_id {self.structure_id[:12]}… like the selector, "
                    f"got {(statistics.structure_id or '')[:12]}…"
                )
            sizes, expected = (
                [owner.n_paths, owner.in_features, owner.out_features]
                for owner in (statistics, self.estimator)
            )
            if sizes != expected:
                raise ValueError(f"GLAI: statistics must be of [P, D, C] = {expected}, got {sizes}")
            differ = None if statistics.means_nothing else statistics.outputs_differ(self.estimator)
            if differ is not None and not self.estimator.means_nothing:
                raise ValueError(f"GLAI: statistics must have the estimator's {differ}, got others")
            if self.estimator.means_nothing and (statistics.has_values or not statistics.means_nothing):
                self.estimator.take_outputs(statistics)
            statistics.structure_id = self.structure_id
        self._statistics = statistics
        self._statistics_file = None

    @property
    def has_statistics(self) -> bool:
        """Whether there are :attr:`statistics`; the file of a loaded model is not read for it."""
        return self._statistics is not None or self._statistics_file is not None

    def read_statistics(self) -> PathStatistics | None:
        """Return :attr:`statistics`; those of a loaded model are read from its file and not kept.

        Whoever takes them in turn from many models needs memory for one.
        """
        if self._statistics_file is None:
            return self.statistics
        file = open_statistics(self._statistics_file)
        statistics = PathStatistics.from_file(file, self.structure_id)
        seen, on = int(self.estimator.samples_seen), self.estimator.on_counts.cpu()
        stated = self._statistics_checksum
        if (
            statistics.n_samples != seen
            or not torch.equal(statistics.on_counts, on)
            or (stated is not None and file.metadata.get(CHECKSUM) != stated)
        ):
            raise ValueError(
                f"{self._statistics_file}: its {statistics.n_samples:,} samples must be those that the estimator was "
                f"solved from, which has seen {seen:,}, or others: the folder was written to since the model was "
                "loaded, or the estimator trained since; train it again, or set statistics to None"
            )
        statistics.take_outputs(self.estimator)  # which may have got other labels since
        return statistics

    def forward(self, x: Tensor, gates: PackedGates | None = None) -> Tensor:
        """Compute ``[N, C]`` of raw x ``[N, in_features]``, values in the units of y; path gates may be given.

        NaN in x gives NaN for that sample, as any ``nn.Module`` does; what keeps gates (``selector.gates``, stores,
        solvers) refuses it, since a bit cannot show it. Autocast does not reach inside.
        """
        if self._statistics is not None and not is_compiling():
            self._warn_if_stale()
        output = self._linear_output(x, gates)
        return self.estimator.in_units(output) if self.estimator.has_scaling else output

    @property
    def is_stale(self) -> bool:
        """Whether the statistics have changed since the weights were solved from them; :meth:`solve` solves anew."""
        statistics, solved_from = self._statistics, self.estimator.solved_from
        return statistics is not None and solved_from is not None and statistics.state != solved_from

    def _warn_if_stale(self) -> None:
        if self.is_stale:
            warnings.warn(
                "GLAI: the statistics have changed since the weights were solved from them, model.solve() solves anew",
                stacklevel=3,
            )

    def solve(self, l2: float | str | None = None, *, progress: bool = True) -> None:
        """Make the weights those of the statistics as they are now, after samples were added or taken out.

        Args:
            l2: as :meth:`PathStatistics.solve`; None: the share of the mean diagonal that it had, or ``"gcv"``.
            progress: show a bar while a penalty is chosen.

        Raises:
            ValueError: there are no statistics, or they cannot be solved; the model stays as it was.
        """
        statistics, estimator = self.statistics, self.estimator
        if statistics is None:
            raise ValueError("GLAI.solve: the model has no statistics, train it with solver='statistics'")
        made = estimator.provenance
        if l2 is None:
            known = {"l2", "mean_diagonal"} <= made.keys() and made["mean_diagonal"] > 0
            l2 = made["l2"] / made["mean_diagonal"] * statistics.mean_diagonal if known else "gcv"
        solved = statistics.solve(l2, estimator.directions, dtype=estimator.dtype, progress=progress)
        solved.temperature = estimator.temperature
        with whole_or_unchanged(self):
            estimator.load_state_dict(solved.state_dict())
            estimator.provenance, estimator.solved_from = solved.provenance, solved.solved_from

    def _linear_output(self, x: Tensor, gates: PackedGates | None = None) -> Tensor:
        """Compute the estimator's output ``[N, C]``, which is in the units of what it learnt."""
        if gates is None:
            # Attributes would be a tenth of the time of a call for one sample.
            modules: dict[str, Any] = self._modules
            y = model_output(modules["selector"], modules["estimator"], x)
            if y is not None:
                return y
        return self._forward_of_modules(x, gates)

    @in_own_precision
    def _forward_of_modules(self, x: Tensor, gates: PackedGates | None) -> Tensor:
        selector = self.selector
        z = selector.project(x)
        if self.estimator.n_units:
            kept_whole = torch.is_grad_enabled() or is_watched(z)
            parts = [z] if kept_whole else z.split(FEATURE_ROWS)
            outputs = [self.estimator(unit_features(selector, part), gates) for part in parts]
            return torch.cat(outputs) if len(outputs) > 1 else cast(Tensor, outputs[0])
        if gates is None:
            gates = selector.path_gates(selector.unit_gates_of(z))
        return cast(Tensor, self.estimator(z, gates))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> GLAI:
        with structure_as_it_is(self):
            super()._apply(fn, recurse)
        return self

    @torch.no_grad()
    def predict_proba(self, x: Tensor, gates: PackedGates | None = None) -> Tensor:
        """Return class probabilities ``[N, C]``, float64, of raw x: softmax of the outputs over the temperature.

        The temperature (``estimator.temperature``) is the solver's, fitted on samples that the numbers were not trained
        on; the most probable class is the highest output.
        """
        self.estimator.require_classes("GLAI.predict_proba")
        return probabilities(self._linear_output(x, gates), self.estimator.temperature)

    @torch.no_grad()
    def predict_log_proba(self, x: Tensor, gates: PackedGates | None = None) -> Tensor:
        """Return the logarithms of :meth:`predict_proba`, computed as such: none is cut off."""
        self.estimator.require_classes("GLAI.predict_log_proba")
        return log_probabilities(self._linear_output(x, gates), self.estimator.temperature)

    @torch.no_grad()
    def predict(self, x: Tensor | NDArray[Any], gates: PackedGates | None = None) -> NDArray[Any]:
        """Return what the model says of raw x ``[N, in_features]``.

        Returns:
            Of classes the label ``[N]`` of the largest output, or its index where outputs have no labels; of values
            float64 ``[N, C]`` in the units of y.

        Raises:
            ValueError: x holds NaN or infinite values, which are of no class.
        """
        if not isinstance(x, Tensor):
            array = np.asarray(x)
            # Numbers that torch has no type for, in text or in objects among them.
            own = array.dtype.kind in "iufc" and array.dtype.itemsize <= 8
            x = array_tensor(array if own or array.dtype.kind == "c" else array.astype(np.float64))
        x = x.to(self.estimator.on_counts.device)
        if x.is_floating_point():  # the largest of NaN would be some class
            require_finite("GLAI.predict", "x", x)
        if self.estimator.has_values and gates is None and self.estimator.provenance.get("solver") == "dual":
            output = wide_output(self.selector, self.estimator, x)
        else:
            output = self._linear_output(x, gates)
        if self.estimator.has_values:
            return self.estimator.in_units(output.double()).cpu().numpy()
        best: NDArray[Any] = output.argmax(1).cpu().numpy()
        labels = self.class_labels
        return best if labels is None else label_array("GLAI.predict", labels)[best]

    def add_outputs(self, k: int, seed: int = 0, labels: Sequence[Label] | None = None) -> None:
        """Append ``k`` outputs to the estimator (``PathEstimator.add_outputs``) and to the statistics, in place."""
        with self._changed_together() as statistics:
            self.estimator.add_outputs(k, seed, labels)
            if statistics is not None:
                statistics.add_outputs(k, labels=labels)

    def permute_outputs(self, order: Tensor) -> None:
        """Make output i what output ``order[i]`` was (``PathEstimator.permute_outputs``), in the statistics too."""
        with self._changed_together() as statistics:
            self.estimator.permute_outputs(order)
            if statistics is not None:
                statistics.permute_outputs(order)

    def add_classes(self, labels: Sequence[Label], seed: int = 0) -> None:
        """Add an output for each label that is new, and sort all outputs by their labels, in place.

        Raises:
            ValueError: the outputs have no labels, or these are of another type.
        """
        with self._changed_together() as statistics:
            self.estimator.add_classes(labels, seed=seed)
            if statistics is not None:
                statistics.add_classes(labels)

    @contextmanager
    def _changed_together(self) -> Iterator[PathStatistics | None]:
        """Change estimator and statistics, of which a copy is yielded, or neither where that fails."""
        statistics = self.statistics
        changed = (
            None if statistics is None else copy(statistics)
        )  # the same gram, which no change of outputs touches
        stale = self.is_stale
        with uninterrupted(), whole_or_unchanged(self):
            yield changed
            if statistics is not None and changed is not None:
                statistics.become(changed)
                if not stale and self.estimator.solved_from is not None:
                    self.estimator.solved_from = statistics.state

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write ``structure.safetensors``, ``estimator.safetensors`` and, where the model has them, its statistics.

        They take the place of what was there in one step: whatever fails, and a kill at any moment, leaves the folder
        with the model before or with this one, as :meth:`load` finds it.

        Args:
            folder: made when it is not there. An estimator of the same structure in it is replaced.
            overwrite: also replace a model of another structure, and remove statistics that this model lacks.

        Raises:
            OSError: the folder cannot be made, or not be written to.
            ValueError: the folder holds a gate store; or a model of another structure, or statistics where this model
                has none, and ``overwrite`` is False; or the weights are not of the statistics (:attr:`is_stale`).
        """
        folder = prepare_folder("GLAI.save", folder, self.structure_id, overwrite)
        file = folder / STATISTICS_FILE
        contents, remove = {folder / STRUCTURE_FILE: self.selector.to_bytes()}, []
        checksum = self._checksum_kept(file)
        if checksum is None:
            statistics = self.read_statistics()
            if self.is_stale:
                raise ValueError(
                    "GLAI.save: the statistics have changed since the weights were solved from them; model.solve() "
                    "solves anew, or set statistics to None"
                )
            if statistics is not None:
                contents[file] = statistics.to_bytes()
                checksum = stated_checksum(contents[file])
            elif find_file(file) is not None:
                if not overwrite:
                    raise ValueError(
                        f"GLAI.save: {file} holds statistics of another state of the model, which has none now; "
                        "save to another folder, or pass overwrite=True to remove them"
                    )
                remove = [file]
        entries = {} if checksum is None else {STATISTICS_CHECKSUM: checksum}
        contents[folder / ESTIMATOR_FILE] = self.estimator.to_bytes(**entries)
        write_files(contents, remove=remove)
        if self._is_unread(file):
            self._statistics_checksum = checksum

    def _is_unread(self, file: Path) -> bool:
        """Return whether the model's statistics are in that file, and were not read since it was loaded."""
        return self._statistics_file is not None and self._statistics_file.resolve() == file.resolve()

    def _checksum_kept(self, file: Path) -> str | None:
        """Return the checksum of the model's own file of statistics, where it can stay as it is; None: it cannot."""
        checksum = self._statistics_checksum
        if checksum is None or not self._is_unread(file) or open_statistics(file).entry(CHECKSUM) != checksum:
            return None
        return checksum

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> GLAI:
        """Open a folder that :meth:`save` wrote.

        Raises:
            FileNotFoundError: the structure or the estimator is missing.
            ValueError: a file is damaged, of another format, or the two are of different structures.
        """
        folder = Path(folder)
        if find_file(folder / EXACT_FILE) is not None and find_file(folder / STRUCTURE_FILE) is None:
            raise FileNotFoundError(
                f"GLAI.load: {folder} must hold {STRUCTURE_FILE}, which save writes, got an exact model, which "
                "ExactClassifier.load or ExactRegressor.load opens"
            )
        remove_leftovers(folder)
        return read_whole(folder, lambda: cls._load(folder))

    @classmethod
    def _load(cls, folder: Path) -> GLAI:
        selector = PathSelector.load(folder / STRUCTURE_FILE)
        file = open_estimator(folder / ESTIMATOR_FILE)
        estimator = PathEstimator.from_file(file)
        if estimator.structure_id is None:
            raise ValueError(f"{file.path}: states no structure_id, a model's estimator must")
        model = cls(selector, estimator)
        if find_file(folder / STATISTICS_FILE) is not None:
            model._statistics_file = (folder / STATISTICS_FILE).absolute()
            model._statistics_checksum = file.metadata.get(STATISTICS_CHECKSUM)
        return model
