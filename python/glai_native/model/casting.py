"""A model that is cast rounds its numbers; its structure, which is frozen, stays, or says that it is another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def structure_as_it_is(model: Any) -> Iterator[None]:
    """Take back, of a ``GLAI`` that is moved or cast within, what 16-bit floats would round of frozen tensors.

    Gates are then those that they were, and what reads them computes in the structure's type. A structure that is
    rounded to float32 is another, of the old one's sizes: the estimator goes with it, and sums over the old one go.
    """
    selector, estimator = model.selector, model.estimator
    frozen = [(module, dict(module._buffers)) for module in (*selector.modules(), estimator)]
    identity = selector.structure_id, selector.parent_id
    yield
    for module, buffers in frozen:
        for name, tensor in buffers.items():
            moved = module._buffers[name]
            if tensor is not None and moved is not None and moved.dtype.itemsize == 2 < tensor.dtype.itemsize:
                module._buffers[name] = tensor.to(moved.device)
                selector.structure_id, selector.parent_id = identity
    if estimator.structure_id == identity[0] != selector.structure_id:
        estimator.structure_id, model.statistics = selector.structure_id, None
