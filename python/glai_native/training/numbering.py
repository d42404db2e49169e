"""Targets are brought to a model's outputs: class indices by label, values in the units that it learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glai_native.data.labels import Label, joined_labels, label_list, require_same_type
from glai_native.estimator.directions import extend_directions
from glai_native.estimator.estimator import PathEstimator
from glai_native.estimator.outputs import sorting_order
from glai_native.model.glai import GLAI
from glai_native.structure.selector import PathSelector


@dataclass(frozen=True)
class Numbering:
    """Which output each class of the targets is.

    Attributes:
        owner: who is asked, named in the errors.
        estimator: of the model as it is; None: there is none yet.
        dtype: of the values that are learnt.
        labels: of all outputs once the new ones are added, sorted; None: outputs have no names.
        before: of the outputs that are there; None: they have no names, or there are none.
        place: int64, output of each class index; None: they are equal.
    """

    owner: str
    estimator: PathEstimator | None
    dtype: torch.dtype
    labels: list[Label] | None = None
    before: list[Label] | None = None
    place: Tensor | None = None

    @classmethod
    def of(
        cls,
        owner: str,
        model: GLAI | PathSelector,
        class_labels: Sequence[Label] | None,
        *,
        adding: bool = False,
        joining: bool = False,
    ) -> Numbering:
        """Compare the labels of the targets with the model's, which is left as it is.

        Args:
            owner: who is asked.
            model: what is trained; of a selector a new estimator is.
            class_labels: what class 0, 1, ... of the targets are called; None: they are numbered as the outputs.
            adding: whether classes may be new to the model.
            joining: whether what the model has learnt of its outputs stays.

        Raises:
            ValueError: labels of another type than the model's, new ones that may not be, or labels for a model that
                has learnt outputs without labels, or values.
        """
        selector = model if isinstance(model, PathSelector) else model.selector
        estimator = None if isinstance(model, PathSelector) else model.estimator
        dtype = selector.hidden[0][0].dtype
        known = None if estimator is None else estimator.class_labels
        if class_labels is None:
            return cls(owner, estimator, dtype, known, known)
        listed = label_list(owner, class_labels)
        before = known
        if estimator is not None and known is None:
            n_outputs = estimator.out_features
            if estimator.has_scaling or (joining and estimator.has_values):
                raise ValueError(f"{owner}: class_labels must be None, the model's outputs are values")
            if joining and int(estimator.samples_seen):
                raise ValueError(
                    f"{owner}: class_labels were given and the model's C={n_outputs} outputs have no labels; set its "
                    "class_labels first"
                )
            if len(listed) < n_outputs or (len(listed) > n_outputs and not adding):
                raise ValueError(
                    f"{owner}: class_labels must be of the model's C={n_outputs} outputs, got {len(listed)}"
                )
            before = listed[:n_outputs]
        if known is not None:
            require_same_type(owner, known, listed, "class_labels", "the model's")
            if not adding and not set(listed) <= set(known):
                new = [label for label in listed if label not in known]
                raise ValueError(
                    f"{owner}: class_labels must be among the model's, got {new} besides; retrain adds classes"
                )
        labels = joined_labels(before or (), listed)
        place = torch.tensor([labels.index(label) for label in listed], device="cpu")
        return cls(owner, estimator, dtype, labels, before, place)

    def __call__(self, y: Tensor) -> Tensor:
        """Return class indices as outputs, values as they are learnt; what is neither comes back as it is."""
        if not isinstance(y, Tensor):
            return y
        if y.is_floating_point():
            if self.place is not None:
                raise ValueError(f"{self.owner}: class_labels are of class indices y [N], got {y.dtype}")
            return y if self.estimator is None else self.estimator.scaled(y, self.dtype)
        if self.estimator is not None and self.estimator.has_scaling:
            raise ValueError(f"{self.owner}: y must be values, as the model's outputs are, got class indices")
        if self.place is None or y.is_complex() or y.dtype == torch.bool or not y.numel():
            return y
        least, most = int(y.min()), int(y.max())
        if not 0 <= least <= most < len(self.place):
            raise ValueError(
                f"{self.owner}: y must be class indices in [0, {len(self.place)}) like class_labels, "
                f"got {least} to {most}"
            )
        place = self.place.to(y.device)
        return y.long() if torch.equal(place, torch.arange(len(place), device=y.device)) else place[y.long()]

    def with_outputs(self, n_outputs: int) -> list[Label] | None:
        """Return the labels of so many outputs.

        Raises:
            ValueError: there are more than labels, which do not count 0, 1, ... either.
        """
        if self.labels is None or n_outputs <= len(self.labels):
            return self.labels
        if any(type(label) is not int or label != i for i, label in enumerate(self.labels)):
            raise ValueError(
                f"{self.owner}: class_labels must name the classes of y, whose indices go to {n_outputs - 1}, since "
                f"the model's C={len(self.labels)} outputs have labels"
            )
        return list(range(n_outputs))

    def add_outputs(self, model: GLAI, n_outputs: int, seed: int) -> None:
        """Give the model the outputs that it lacks, and all of them the order of their labels."""
        labels = self.with_outputs(n_outputs)
        added = n_outputs - model.estimator.out_features
        if labels is not None:
            if model.class_labels is None:
                model.class_labels = labels if self.estimator is None else self.before
            model.add_classes(labels, seed)
        elif added:
            model.add_outputs(added, seed)

    def wider_directions(self, n_outputs: int, seed: int) -> Tensor | None:
        """Give V ``[P, n_outputs]`` as the model will have it after :meth:`add_outputs`; None for full paths."""
        estimator = self.estimator
        if estimator is None or estimator.directions is None:
            return None
        directions, labels = estimator.directions, self.with_outputs(n_outputs)
        added = n_outputs - estimator.out_features
        if labels is None:
            return directions if not added else extend_directions(directions, added, seed)
        known = self.before or []
        new = [label for label in labels if label not in known]
        if new:
            directions = extend_directions(directions, len(new), seed, new)
        return directions[:, sorting_order([*known, *new]).to(directions.device)].contiguous()
