"""A model is put back to what it was where its training fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from glai_native.estimator.outputs import Outputs
from glai_native.machine.interrupts import uninterrupted


class ModelState:
    """A ``GLAI`` as it is now, to which it is put back where its training fails.

    Statistics are kept as they are, without a copy: nothing may add to them in place meanwhile.
    """

    def __init__(self, model: Any) -> None:
        self._model, estimator = model, model.estimator
        tensors = [*estimator.named_parameters(), *estimator.named_buffers()]
        self._tensors = {name: (tensor, tensor.detach().clone()) for name, tensor in tensors}
        self._provenance, self._meaning = estimator.provenance, Outputs()
        self._meaning.take_outputs(estimator)
        self._temperature, self._solved_from = estimator.temperature, estimator.solved_from
        self._statistics = model._statistics, model._statistics_file, model._statistics_checksum

    @torch.no_grad()
    def restore(self) -> None:
        """Put the model back; parameters and buffers are the same tensors again, whatever took their place."""
        model, estimator = self._model, self._model.estimator
        with uninterrupted():
            for name, (tensor, values) in self._tensors.items():
                setattr(estimator, name, tensor.copy_(values))
            estimator.provenance = self._provenance
            estimator.take_outputs(self._meaning)
            estimator.temperature, estimator.solved_from = self._temperature, self._solved_from
            model._statistics, model._statistics_file, model._statistics_checksum = self._statistics


@contextmanager
def whole_or_unchanged(model: Any) -> Iterator[None]:
    """Leave the model as it was where a training within fails or is interrupted."""
    before = ModelState(model)
    try:
        yield
    except BaseException:
        before.restore()
        raise
