"""An exact learner begins with a map, which its first samples settle, and says why it is that one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glai_native.data.arrays import array_tensor
from glai_native.structure.first_samples import FirstSamples
from glai_native.structure.integer_features import IntegerFeatures
from glai_native.training.exact.choosing import STRUCTURE_EPOCHS, DrawnSamples, choose_features
from glai_native.training.exact.saving import SavedExact
from glai_native.training.learners.parameters import seed_of
from glai_native.training.learners.validating import ValidatingLearner
from glai_native.training.new_structure import train_selector

# A name, or a map as it is.
Structure = str | IntegerFeatures
# Validated x float32 [N, D] and y, and weights [N] or None.
Part = tuple[NDArray[np.float32], Any, NDArray[np.float64] | None]
NAMES = ("auto", "random", "covariance", "trained")


def as_told(structure: Structure) -> str:
    """Return the reason for a structure that leaves no choice."""
    return (
        "units of the features given"
        if isinstance(structure, IntegerFeatures)
        else f"{structure} units, as told"
    )


class BeginningLearner(SavedExact, ValidatingLearner):
    """How classifier and regressor come by their features: a mixin."""

    n_units: int
    structure: Structure
    scale: str
    random_state: int | np.random.RandomState | None
    verbose: bool

    def _structure(self, all_samples: Iterable[Part] | None) -> Structure:
        """Return the structure to begin with: the one told, or, of ``"auto"``, the one that samples prefer.

        Args:
            all_samples: in parts; None: nobody knows whether those that are there are like those that are to come.
        """
        told, owner = self.structure, type(self).__name__
        if isinstance(told, IntegerFeatures) or (isinstance(told, str) and told in NAMES[1:]):
            self.structure_reason_ = as_told(told)
            return told
        if not isinstance(told, str) or told not in NAMES:
            named = ", ".join(map(repr, NAMES))
            raise ValueError(f"{owner}: structure must be {named} or IntegerFeatures, got {told!r:.80}")
        if all_samples is None:
            self.structure_reason_ = (
                "random units: samples that are not all there need not be like those to come, by which trained units "
                "would be judged"
            )
            return "random"
        first: FirstSamples | None = None
        for x, y, weight in all_samples:
            if first is None:
                first, drawn = FirstSamples(x.shape[1]), DrawnSamples(x.shape[1])
            first.add(self._repeated(x, weight))
            counted = slice(None) if weight is None else weight > 0  # equal samples are drawn once
            drawn.add(array_tensor(x[counted]), self.compared(y)[counted])
        if first is None or not first.moments.n_samples:
            raise self._no_sample()
        features, self.structure_reason_ = choose_features(
            first,
            drawn,
            self.n_units,
            seed=seed_of(self.random_state),
            scale=self.scale,
            progress=self.verbose,
        )
        return features

    def compared(self, y: Any) -> NDArray[Any]:
        """Return y as units are compared by: labels ``[N]``, or values ``[N, C]``."""
        raise NotImplementedError

    def _first_features(
        self,
        structure: Structure,
        x: NDArray[np.float32],
        y: Tensor,
        n_outputs: int,
        weight: NDArray[np.float64] | None,
    ) -> IntegerFeatures:
        """Return the map that the first samples settle: it sees a sample as often as it counts."""
        if isinstance(structure, IntegerFeatures):
            if structure.in_features != x.shape[1]:
                raise ValueError(
                    f"{type(self).__name__}: X must have the {structure.in_features} features of structure, got "
                    f"{x.shape[1]}"
                )
            return structure
        samples = self._repeated(x, weight)
        if not len(samples):
            raise self._no_sample()
        seed = seed_of(self.random_state)
        if structure != "trained":
            return IntegerFeatures.fit(samples, self.n_units, seed=seed, scale=self.scale, weights=structure)
        if weight is not None:
            y = y.repeat_interleave(torch.from_numpy(weight.astype(np.int64)), 0)
        selector = train_selector(
            samples,
            y,
            n_outputs,
            self.n_units,
            None,
            epochs=STRUCTURE_EPOCHS,
            seed=seed,
            progress=self.verbose,
        )
        return IntegerFeatures.fit(samples, None, selector, scale=self.scale)

    def _repeated(self, x: NDArray[np.float32], weight: NDArray[np.float64] | None) -> Tensor:
        """Return each sample as often as it counts."""
        samples = array_tensor(x)
        return (
            samples
            if weight is None
            else samples.repeat_interleave(torch.from_numpy(weight.astype(np.int64)), 0)
        )

    def _no_sample(self) -> ValueError:
        return ValueError(
            f"{type(self).__name__}: sample_weight must be > 0 for at least one sample, got zero for all"
        )
