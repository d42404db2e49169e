"""What the outputs of a linear model mean: classes, by their labels, or values, by the units of y."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from glai_native.data.labels import Label, joined_labels, label_list, listed_labels, require_same_type
from glai_native.estimator.temperature import require_temperature
from glai_native.machine.files import TensorFile
from glai_native.machine.watching import is_watched

CLASS_LABELS, TARGET_MEAN, TARGET_SCALE = "class_labels", "target_mean", "target_scale"
TEMPERATURE = "temperature"


class Outputs:
    """Labels of classes, or centre and scale of values, beside the numbers that they explain.

    The numbers stay those of the linear model: class indices, or values ``(y - target_mean) / target_scale``.
    """

    _labels: tuple[Label, ...] | None = None
    _scaling: tuple[Tensor, Tensor] | None = None  # mean and scale, float64 [C] on the CPU
    _temperature: float = 1.0
    _rescales: bool = False  # whether that is another unit than y's
    _scaling_there: tuple[Tensor, Tensor] | None = (
        None  # the same in dtype and on device of the latest output
    )

    @property
    def out_features(self) -> int:
        """C."""
        raise NotImplementedError

    @property
    def class_labels(self) -> list[Label] | None:
        """What the data call class 0, 1, ...; None where outputs have no names.

        Kept with the numbers, so that data which come later, or hold some of the classes, are numbered alike, and
        models are merged by label.

        Raises:
            ValueError: set to what are not C different labels of one type (bool, int, float or str), or while the
                outputs are values.
        """
        return None if self._labels is None else list(self._labels)

    @class_labels.setter
    def class_labels(self, labels: Iterable[Label] | None) -> None:
        if labels is None:
            self._labels = None
            return
        owner = type(self).__name__
        listed = label_list(owner, labels)
        if len(listed) != self.out_features:
            raise ValueError(
                f"{owner}: class_labels must be of the C={self.out_features} outputs, got {len(listed)} labels"
            )
        if self.has_scaling:
            raise ValueError(f"{owner}: class_labels must be None, these outputs are values")
        self._set_scaling(None)
        self._labels = tuple(listed)

    @property
    def target_mean(self) -> Tensor | None:
        """Float64 ``[C]``, what was taken off the targets before they were learnt; None where outputs are classes."""
        return None if self._scaling is None else self._scaling[0]

    @property
    def target_scale(self) -> Tensor | None:
        """Float64 ``[C]`` > 0, what the targets were then divided by; None where outputs are classes."""
        return None if self._scaling is None else self._scaling[1]

    def set_target_scaling(
        self, mean: Tensor | Sequence[float] | None, scale: Tensor | Sequence[float] | None
    ) -> None:
        """State that outputs are values, ``(y - mean) / scale`` of the targets y; None and None: they are classes.

        Raises:
            ValueError: not C finite numbers each, scales that are not > 0, or while the outputs have class labels.
        """
        if mean is None and scale is None:
            self._set_scaling(None)
            return
        owner = type(self).__name__
        pair = []
        for name, numbers in (("target_mean", mean), ("target_scale", scale)):
            wide = torch.as_tensor(numbers, dtype=torch.float64, device="cpu").detach().clone()
            if wide.shape != (self.out_features,) or not bool(wide.isfinite().all()):
                raise ValueError(
                    f"{owner}: {name} must be C={self.out_features} finite numbers, got {wide.tolist()}"
                )
            pair.append(wide)
        if not bool((pair[1] > 0).all()):
            raise ValueError(f"{owner}: target_scale must be > 0, got {pair[1].tolist()}")
        if self._labels is not None:
            raise ValueError(f"{owner}: target_mean must be None, these outputs are classes with labels")
        self._set_scaling((pair[0], pair[1]))

    def _set_scaling(self, scaling: tuple[Tensor, Tensor] | None) -> None:
        self._scaling, self._scaling_there = scaling, None
        self._rescales = scaling is not None and bool((scaling[0] != 0).any() or (scaling[1] != 1).any())

    @property
    def temperature(self) -> float:
        """What scores are divided by before softmax makes probabilities of them; 1 until a solver fits it.

        Raises:
            ValueError: set to what is no finite number > 0.
        """
        return self._temperature

    @temperature.setter
    def temperature(self, temperature: float) -> None:
        self._temperature = require_temperature(type(self).__name__, temperature)

    def require_classes(self, owner: str) -> None:
        """Raise where the outputs are known to be values, which have no probabilities."""
        if self.has_values:
            raise ValueError(f"{owner}: the outputs must be those of classes, and these are values")

    @property
    def has_values(self) -> bool:
        """Whether the outputs are known to be values."""
        return self._scaling is not None

    @property
    def has_scaling(self) -> bool:
        """Whether the outputs are values in other units than y."""
        return self._rescales

    @property
    def means_nothing(self) -> bool:
        """Whether neither labels nor scaling are known; values as they are may be unmarked."""
        return self._labels is None and not self._rescales

    def note_targets(self, owner: str, of_values: bool) -> None:
        """Take note of what is learnt: values as they are make the outputs values, class indices make them classes.

        Raises:
            ValueError: class indices, and the outputs are values in other units than y.
        """
        if of_values and self._labels is None and self._scaling is None:
            self.set_target_scaling([0.0] * self.out_features, [1.0] * self.out_features)
        elif not of_values and self.has_scaling:
            raise ValueError(f"{owner}: y must be values, as the model's outputs are, got class indices")
        elif not of_values:
            self._set_scaling(None)

    def scaled(self, y: Tensor, dtype: torch.dtype) -> Tensor:
        """Return values y ``[N, C]`` as the linear model learns them, in ``dtype`` where there is a scaling."""
        if (
            not self.has_scaling
            or not y.is_floating_point()
            or y.ndim != 2
            or y.shape[1] != self.out_features
        ):
            return y  # what does not fit is refused where samples are checked
        assert self._scaling is not None
        mean, scale = (t.to(y.device) for t in self._scaling)
        return ((y.double() - mean) / scale).to(dtype)

    def in_units(self, output: Tensor) -> Tensor:
        """Return the linear model's output ``[N, C]`` in the units of y."""
        if self._scaling is None or not self._rescales:
            return output
        there = self._scaling_there
        if there is None or there[0].dtype != output.dtype or there[0].device != output.device:
            there = self._scaling[0].to(output), self._scaling[1].to(output)
            if not is_watched(output):
                self._scaling_there = there
        return torch.addcmul(there[0], output, there[1])

    def take_outputs(self, other: Outputs) -> None:
        """Mean what ``other`` means, which has as many outputs."""
        self._labels = other._labels
        self._set_scaling(other._scaling)

    def outputs_differ(self, other: Outputs) -> str | None:
        """Say in what the outputs of another model mean something else, or None; unmarked values are as they are."""
        if (self._labels is None) != (other._labels is None) or self._labels != other._labels:
            return "class labels"
        if not self.has_scaling and not other.has_scaling:
            return None
        if self._scaling is None or other._scaling is None:
            return "centre and scale of y"
        same = all(torch.equal(a, b) for a, b in zip(self._scaling, other._scaling, strict=True))
        return None if same else "centre and scale of y"

    def require_same_outputs(self, owner: str, other: Outputs) -> None:
        """Raise where outputs of the same number mean something else."""
        differ = self.outputs_differ(other)
        if differ is not None:
            raise ValueError(
                f"{owner}: {differ} must be {self.outputs_text()}, got {other.outputs_text()}; "
                "glai.merge aligns classes"
            )

    def outputs_text(self) -> str:
        """Return the first labels, or centre and scale, for a message."""
        if self._labels is not None:
            return listed_labels(self._labels)
        return (
            "none"
            if self._scaling is None
            else f"{self._scaling[0].tolist()} and {self._scaling[1].tolist()}"
        )

    def labels_with(self, owner: str, labels: Sequence[Label]) -> list[Label]:
        """Return the model's labels and those given, checked, sorted.

        Raises:
            ValueError: they are of another type, or the outputs have no labels.
        """
        if self._labels is None:
            raise ValueError(
                f"{owner}: labels were given and the model's C={self.out_features} outputs have none; set its "
                "class_labels first"
            )
        listed = label_list(owner, labels, "labels")
        require_same_type(owner, self._labels, listed, "labels", "the model's")
        return joined_labels(self._labels, listed)

    def _append_outputs(self, labels: Sequence[Label], seed: int) -> None:
        """Append outputs of new classes, in place."""
        raise NotImplementedError

    def permute_outputs(self, order: Tensor) -> None:
        """Make output i what output ``order[i]`` was, in place."""
        raise NotImplementedError

    def add_classes(self, labels: Sequence[Label], seed: int = 0) -> None:
        """Add an output for each label that is new, as ``add_outputs`` does, and sort all outputs by their labels.

        Args:
            labels: of one type with those that are there; those that are there already change nothing.
            seed: of ``add_outputs``, where outputs have directions.

        Raises:
            ValueError: the outputs have no labels, or these are of another type.
        """
        known = self.labels_with("add_classes", labels)
        added = [label for label in known if label not in (self._labels or ())]
        if added:
            self._append_outputs(added, seed)
        if self.class_labels != known:
            self.permute_outputs(sorting_order(self._labels or ()))

    def _labels_of_added(self, owner: str, k: int, labels: Sequence[Label] | None) -> list[Label] | None:
        """Return the labels once ``k`` outputs are added, for which ``labels`` are given."""
        if self._labels is None:
            if labels is not None:
                raise ValueError(f"{owner}: labels must be None, the C={self.out_features} outputs have none")
            return None
        known = list(self._labels)
        if labels is None:
            if [type(label) for label in known] == [int] * len(known) and known == list(range(len(known))):
                return list(range(len(known) + k))
            raise ValueError(
                f"{owner}: labels must name the {k} outputs that are added, the others have labels; pass labels=[...]"
            )
        if len(labels) != k:
            raise ValueError(f"{owner}: labels must be of the k={k} outputs, got {len(labels)}")
        require_same_type(owner, known, label_list(owner, labels, "labels"), "labels", "the model's")
        return label_list(owner, [*known, *labels], "labels")

    def _scaling_of_added(self, k: int) -> None:
        if self._scaling is not None:
            mean, scale = self._scaling
            self._set_scaling((torch.cat([mean, mean.new_zeros(k)]), torch.cat([scale, scale.new_ones(k)])))

    def _permute_meaning(self, order: Tensor) -> None:
        if self._labels is not None:
            self._labels = tuple(self._labels[i] for i in order.tolist())
        if self._scaling is not None:
            mean, scale = self._scaling
            self._set_scaling((mean[order.cpu()], scale[order.cpu()]))

    def outputs_metadata(self) -> dict[str, str]:
        """Return the entries of a file that say what the outputs mean."""
        entries: dict[str, Any] = {}
        if self._labels is not None:
            entries[CLASS_LABELS] = self._labels
        if self._scaling is not None:
            entries[TARGET_MEAN], entries[TARGET_SCALE] = (t.tolist() for t in self._scaling)
        if self.temperature != 1.0:
            entries[TEMPERATURE] = self.temperature
        return {name: json.dumps(value) for name, value in entries.items()}

    def read_outputs(self, file: TensorFile) -> None:
        """Take over what the entries of a file say.

        Raises:
            ValueError: they are not of C outputs, or are damaged; the file is named.
        """
        entries = {
            name: file.json(name)
            for name in (CLASS_LABELS, TARGET_MEAN, TARGET_SCALE, TEMPERATURE)
            if name in file.metadata
        }
        try:
            self.set_outputs(entries)
        except (ValueError, TypeError, OverflowError, RuntimeError) as error:
            raise ValueError(f"{file.path}: what its outputs mean cannot be read: {error}") from None

    def set_outputs(self, entries: Mapping[str, Any]) -> None:
        """Take over what :meth:`outputs_metadata` holds, parsed."""
        labels = entries.get(CLASS_LABELS)
        if labels is not None:
            if not isinstance(labels, list):
                raise ValueError(f"class_labels must be a list, got {type(labels).__name__}")
            if {type(label) for label in labels} == {int, float}:  # what earlier versions joined
                labels = [int(label) if float(label).is_integer() else label for label in labels]
            self.class_labels = labels
        if TEMPERATURE in entries:
            self.temperature = entries[TEMPERATURE]
        if TARGET_MEAN in entries or TARGET_SCALE in entries:
            self.set_target_scaling(
                *(_numbers(name, entries.get(name)) for name in (TARGET_MEAN, TARGET_SCALE))
            )


def _numbers(name: str, found: Any) -> list[float]:
    if not isinstance(found, list) or not all(type(one) in (int, float) for one in found):
        raise ValueError(f"{name} must be a list of numbers")
    return [float(one) for one in found]


def sorting_order(labels: Sequence[Label]) -> Tensor:
    """Return int64 ``[C]``: where among ``labels`` the smallest is, the next, and so on."""
    return torch.tensor(sorted(range(len(labels)), key=lambda i: labels[i]), device="cpu")


def require_order(owner: str, order: Tensor, n_outputs: int) -> None:
    """Raise unless ``order`` holds each of the C outputs once."""
    if order.shape != (n_outputs,) or not torch.equal(
        order.cpu().sort().values, torch.arange(n_outputs, device="cpu")
    ):
        raise ValueError(f"{owner}: order must hold each of C={n_outputs} outputs once, got {order.tolist()}")
