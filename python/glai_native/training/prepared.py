"""``glai.prepared(learner)`` is a learner of tables: it prepares their columns, and knows how, also in its file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from glai_native.data.preparing.columns import typed_columns
from glai_native.data.preparing.frames import RawColumn, raw_columns
from glai_native.data.preparing.preparation import Preparation
from glai_native.data.tables import TableNames
from glai_native.machine.writing import find_file
from glai_native.model.glai import GLAI
from glai_native.solvers.exact.file import EXACT_FILE, open_exact
from glai_native.training.exact.classifier import ExactClassifier
from glai_native.training.exact.learner import ExactLearner
from glai_native.training.exact.regressor import ExactRegressor
from glai_native.training.learners.classifier import GLAIClassifier
from glai_native.training.learners.learner import Learner
from glai_native.training.learners.regressor import GLAIRegressor
from glai_native.training.learners.saving import open_model
from glai_native.training.tables import keep_names, names_of

OWNER = "prepared"


def prepared(
    learner: Learner | ExactLearner | str | os.PathLike[str],
    *,
    categories: str | Collection[str] = "auto",
    preparation: Preparation | None = None,
) -> Prepared:
    """Return a learner that takes tables as they are, or open the folder of one.

    Numbers are standardised, gaps in them are filled by the median and marked by a column of 0 and 1. Categories are
    one-hot: those of two rows or more, the 100 most frequent of a column at most; the others share a column, and one
    that ``fit`` has not seen is zeros in all of them. The first samples settle all that, later ones do not change it.

    Args:
        learner: what learns the features: :class:`~glai_native.GLAIClassifier`, :class:`~glai_native.GLAIRegressor`,
            :class:`~glai_native.ExactClassifier`, :class:`~glai_native.ExactRegressor`; or a folder, which ``save`` of
            a prepared one wrote, or ``glai train`` of a table.
        categories: ``"auto"``: columns of texts, and those whose frame says so; or names of columns that hold
            categories, be they numbers, beside those.
        preparation: another's ``preparation_``, such that the two can be merged; None: the first samples fit one.

    Raises:
        FileNotFoundError: the folder holds no model.
        ValueError: it is damaged, or its model was trained without a preparation.
    """
    if isinstance(learner, str | os.PathLike):
        return _opened(Path(learner))
    return Prepared(learner, categories=categories, preparation=preparation)


class Prepared(BaseEstimator):
    """A learner, and what it does to a table before it learns; in scikit-learn's manner, so that it can be cloned.

    ``X`` is a data frame ``[N, K]`` of pandas, polars, Arrow or any other that has ``__arrow_c_stream__`` or
    ``__dataframe__``, a mapping from names to arrays ``[N]``, or an array ``[N, K]``, whose columns are x0, x1, ...
    Columns are taken by name, in any order. ``y`` is ``[N]``, as the learner takes it, or the name of a column of X.
    Rows and columns that errors name are those of X, rows counted from 0.

    Source: scikit-learn's StandardScaler, SimpleImputer, MissingIndicator and OneHotEncoder (arXiv 1201.0490).

    Args:
        learner: not changed; ``fit`` trains a clone of it.
        categories: as :func:`prepared`.
        preparation: as :func:`prepared`.

    Attributes:
        learner_: the trained one, of features float32 ``[N, D]``.
        preparation_: what makes features of columns.
        label_: the column that was y; None: y was given by itself.
    """

    learner_: Any
    preparation_: Preparation
    label_: str | None

    def __init__(
        self,
        learner: Learner | ExactLearner,
        *,
        categories: str | Collection[str] = "auto",
        preparation: Preparation | None = None,
    ) -> None:
        self.learner = learner
        self.categories = categories
        self.preparation = preparation

    def __sklearn_tags__(self) -> Any:
        tags = self.learner.__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.categorical = tags.input_tags.allow_nan = True
        return tags

    @property
    def classes_(self) -> NDArray[Any]:
        """The labels, sorted."""
        return self.learner_.classes_

    def fit(self, X: Any, y: Any, **more: Any) -> Self:
        """Fit the preparation and then the learner, which takes ``more`` (sample_weight, ids)."""
        self._learn("fit", X, y, True, more)
        return self

    def partial_fit(self, X: Any, y: Any, **more: Any) -> Self:
        """Add samples; the first ones fit the preparation, which then stays as it is."""
        self._learn("partial_fit", X, y, "learner_" not in self.__dict__, more)
        return self

    def forget(self, X: Any, y: Any, **more: Any) -> Self:
        """Take samples out again, of a learner that can, given as they were learnt."""
        check_is_fitted(self, "learner_")
        if not hasattr(self.learner_, "forget"):
            raise ValueError(
                f"{OWNER}: forget is of ExactClassifier and ExactRegressor, got {type(self.learner_).__name__}"
            )
        raw, targets = self._read(X, y, self.label_)
        self.learner_.forget(self._features(raw), targets, **more)
        return self

    def _learn(self, how: str, X: Any, y: Any, first: bool, more: dict[str, Any]) -> None:
        label = None if first else self.label_
        raw, targets = self._read(X, y, label)
        if not first:
            getattr(self.learner_, how)(self._features(raw), targets, **more)
            return
        named = () if self.categories == "auto" else self.categories
        strange = [name for name in named if name not in raw]
        if strange:
            raise ValueError(f"{OWNER}: categories must name columns of X, got {strange[0]!r}")
        preparation, learner = self.preparation, clone(self.learner)
        if preparation is None:
            columns = typed_columns(OWNER, raw, named)
            preparation = Preparation.fit(OWNER, columns)
            features = preparation.transform(OWNER, columns)
        else:
            features = preparation.features_of_raw(OWNER, raw)
        getattr(learner, how)(features, targets, **more)
        self.preparation_, self.learner_ = preparation, learner
        self.label_ = y if isinstance(y, str) else None

    def _read(self, X: Any, y: Any, label: str | None) -> tuple[dict[str, RawColumn], Any]:
        """Return the columns of features, and the targets."""
        raw = raw_columns(OWNER, X)
        if isinstance(y, str):
            if y not in raw:
                raise ValueError(
                    f"{OWNER}: y must be targets or name a column of X ({', '.join(map(repr, list(raw)[:12]))}), got "
                    f"{y!r}"
                )
            return raw, _targets(y, raw.pop(y).values)
        raw.pop(label or "", None)
        return raw, y

    def _features(self, raw: dict[str, RawColumn]) -> NDArray[np.float32]:
        known = self.preparation_.columns
        unknown = [name for name in raw if name not in known and name != self.label_]
        if unknown:
            warnings.warn(
                f"{OWNER}: column {unknown[0]!r} of X is left out, since fit has not seen it"
                + (f", as are {len(unknown) - 1} more" if len(unknown) > 1 else ""),
                stacklevel=4,
            )
        return self.preparation_.features_of_raw(OWNER, raw)

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Return the features float32 ``[N, D]`` that the learner reads."""
        check_is_fitted(self, "learner_")
        return self._features(raw_columns(OWNER, X))

    def predict(self, X: Any) -> NDArray[Any]:
        """Return labels ``[N]``, or values, as the learner does."""
        features = self.transform(X)  # says where nothing is fitted
        return self.learner_.predict(features)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return class probabilities ``[N, C]``."""
        features = self.transform(X)  # says where nothing is fitted
        return self.learner_.predict_proba(features)

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the logarithms of class probabilities ``[N, C]``."""
        features = self.transform(X)  # says where nothing is fitted
        return self.learner_.predict_log_proba(features)

    def score(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> float:
        """Return accuracy, or R2."""
        check_is_fitted(self, "learner_")
        raw, targets = self._read(X, y, self.label_)
        return float(self.learner_.score(self._features(raw), targets, sample_weight))

    def merge(self, other: Prepared) -> Prepared:
        """Return a new model of the samples of both, of exact learners whose features are prepared alike.

        Raises:
            ValueError: their preparations differ; otherwise as the learner's ``merge``.
        """
        check_is_fitted(self, "learner_")
        check_is_fitted(other, "learner_")
        if self.preparation_ != other.preparation_:
            raise ValueError(
                f"{OWNER}: models that are merged must prepare their tables alike, and each has standardised its own; "
                "give the second the first one's: prepared(..., preparation=first.preparation_)"
            )
        merged = Prepared(self.learner, categories=self.categories, preparation=self.preparation)
        merged.preparation_, merged.label_ = self.preparation_, self.label_
        merged.learner_ = self.learner_.merge(other.learner_)
        return merged

    def __add__(self, other: Prepared) -> Prepared:
        return self.merge(other)

    def digest(self) -> str:
        """Return the exact learner's digest: equal where the same samples are left."""
        check_is_fitted(self, "learner_")
        return str(self.learner_.digest())

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the learner's folder, preparation and all; ``glai.prepared(folder)`` and the command line open it."""
        check_is_fitted(self, "learner_")
        exact = isinstance(self.learner_, ExactLearner)
        names = TableNames(self.preparation_.names, self.label_, self.preparation_)
        keep_names(self.learner_ if exact else self.learner_.model_, names)
        self.learner_.save(folder, overwrite=overwrite)


def _targets(name: str, values: NDArray[Any]) -> Any:
    missing = [row for row, value in enumerate(values.tolist()) if value is None or value != value]
    if missing:
        raise ValueError(
            f"{OWNER}: column {name!r} must say of each row what it is, got none in row {missing[0]}"
        )
    return values.tolist() if values.dtype.kind == "O" else values


def _opened(folder: Path) -> Prepared:
    learner = _open_learner(folder)
    names = names_of(learner if isinstance(learner, ExactLearner) else learner.model_)
    if names.preparation is None:
        raise ValueError(
            f"{folder}: its model was trained without a preparation; {type(learner).__name__}.load opens it"
        )
    found = Prepared(learner)
    found.learner_, found.preparation_, found.label_ = learner, names.preparation, names.label
    return found


def _open_learner(folder: Path) -> Learner | ExactLearner:
    if find_file(folder / EXACT_FILE) is not None:
        of_values = open_exact(folder / EXACT_FILE).metadata.get("targets") == "values"
        return ExactRegressor.open(folder) if of_values else ExactClassifier.open(folder)
    model = open_model(OWNER, folder)
    outputs = model.estimator if isinstance(model, GLAI) else model
    return GLAIRegressor.load(folder) if outputs.has_values else GLAIClassifier.load(folder)
