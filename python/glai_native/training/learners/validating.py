"""How every learner reads the X and y that scikit-learn's callers hand over, and stays whole, is written here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from glai_native.data.features import float_features
from glai_native.training.learners.densifying import dense


class ValidatingLearner(BaseEstimator):
    """An estimator whose calls do all that they were asked, or nothing, and which reads dense and sparse X."""

    @contextmanager
    def _whole_or_unchanged(self) -> Iterator[None]:
        """Leave every attribute as it was if anything within fails; sums see to themselves."""
        before = dict(self.__dict__)
        try:
            yield
        except BaseException:
            self.__dict__ = before  # in one step, which a second interrupt cannot divide
            raise

    def _read(
        self,
        X: ArrayLike,
        *y: ArrayLike,
        reset: bool,
        centred_in: torch.dtype | None = None,
        **options: Any,
    ) -> list[Any]:
        """Return what scikit-learn's ``validate_data`` makes of X, and of y; X dense, as :func:`float_features`."""
        found = validate_data(
            self, X, *y, reset=reset, dtype=None, ensure_all_finite=False, accept_sparse=True, **options
        )
        x, *targets = found if y else (found,)
        owner, names = type(self).__name__, getattr(self, "feature_names_in_", None)
        return [float_features(owner, dense(owner, x), "X", names, centred_in=centred_in), *targets]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
