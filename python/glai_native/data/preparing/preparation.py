"""What columns become: numbers filled and standardised, gaps marked, categories one-hot; frozen once it is fitted.

scikit-learn's own transformers do it. What they have come to is kept as plain numbers and names, from which they are
made again: nothing is pickled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from glai_native.data.preparing.columns import Columns, typed_columns
from glai_native.data.preparing.frames import RawColumn, raw_columns

if (
    TYPE_CHECKING
):  # it brings scikit-learn's neighbours, 7 MB and a third of a second, which tables alone need
    from sklearn.impute import SimpleImputer

VERSION = 1
MOST_COLUMNS = 100  # that a column of categories becomes; the rarest share the last of them
FEWEST_ROWS = 2  # of a category with a column of its own
MOST_CATEGORIES = 10_000  # of a column, whose names a model keeps
ROWS = 1 << 16  # that are prepared at a time


@dataclass(frozen=True)
class Numbers:
    """A column of numbers.

    Attributes:
        fill: what takes the place of a missing one: the median.
        mean: that is taken off.
        scale: > 0, that is divided by then.
        has_gaps: whether there were gaps, which a column of 0 and 1 then marks.
    """

    fill: float
    mean: float
    scale: float
    has_gaps: bool


@dataclass(frozen=True)
class Categories:
    """A column of categories, sorted, a missing one (None) last.

    Attributes:
        frequent: those with a column of 0 and 1 of their own.
        rare: those that share one.
    """

    frequent: tuple[str | None, ...]
    rare: tuple[str | None, ...]


@dataclass(frozen=True)
class Preparation:
    """What the columns of a table become: features float32 ``[N, D]``.

    First the numbers, then the marks of gaps, then the categories, each in the order of the columns. A category that
    was not there at first is all zeros. Each row's features hang on that row alone: of chunks they are the same bits.

    Attributes:
        columns: by name, in the order in which arrays without names have them.
        fitted_on: how many rows it was fitted on, and of how many these were a part; None: on all of them. No two
            preparations differ by that.
    """

    columns: Mapping[str, Numbers | Categories]
    fitted_on: tuple[int, int] | None = field(default=None, compare=False)

    @classmethod
    def fit(cls, owner: str, columns: Columns, n_rows: int | None = None) -> Preparation:
        """Fit to the columns of a table, of N >= 1 rows.

        Args:
            owner: whose they are, named in the errors.
            columns: of the table, or of a part of its rows.
            n_rows: of how many rows they are a part; None: of N.

        Raises:
            ValueError: there are no rows or columns, or a column has more than 10,000 categories.
        """
        if not len(columns) or not columns.by_name:
            raise ValueError(f"{owner}: must have rows and columns to learn from, got none")
        fitted = {
            name: _fit_categories(owner, name, values) if values.dtype.kind == "O" else _fit_numbers(values)
            for name, values in columns.by_name.items()
        }
        return cls(fitted, None if n_rows in (None, len(columns)) else (len(columns), n_rows))

    @property
    def names(self) -> list[str]:
        """The columns' names."""
        return list(self.columns)

    @property
    def categories(self) -> list[str]:
        """Names of the columns of categories."""
        return [name for name, column in self.columns.items() if isinstance(column, Categories)]

    @cached_property
    def _numbers(self) -> dict[str, Numbers]:
        return {name: column for name, column in self.columns.items() if isinstance(column, Numbers)}

    @cached_property
    def _scaling(self) -> tuple[SimpleImputer, StandardScaler]:
        """scikit-learn's transformers of all numbers, as they were fitted."""
        from sklearn.impute import SimpleImputer

        of = self._numbers.values()
        imputer = SimpleImputer(strategy="median").fit([[one.fill for one in of]])
        scaler = StandardScaler()
        scaler.mean_, scaler.scale_ = (np.array([getattr(one, k) for one in of]) for k in ("mean", "scale"))
        scaler.n_features_in_ = len(of)
        return imputer, scaler

    @cached_property
    def _encoders(self) -> dict[str, OneHotEncoder]:
        """Those of each column: fitted to a table that has what is frequent often enough, and what is rare once."""
        encoders = {}
        for name in self.categories:
            column = self.columns[name]
            assert isinstance(column, Categories)
            encoders[name] = _encoder(None).fit(_column([*column.frequent * FEWEST_ROWS, *column.rare]))
        return encoders

    @cached_property
    def n_features(self) -> int:
        """D."""
        gaps = sum(one.has_gaps for one in self._numbers.values())
        return len(self._numbers) + gaps + sum(self.n_columns_of(name) for name in self.categories)

    def n_columns_of(self, name: str) -> int:
        """Return how many columns one of categories becomes."""
        column = self.columns[name]
        assert isinstance(column, Categories)
        return len(column.frequent) + (len(column.rare) > 0)

    def transform(self, owner: str, columns: Columns, first: int = 0) -> NDArray[np.float32]:
        """Return features float32 ``[N, D]`` of columns that are typed as these are; errors count rows from ``first``.

        Raises:
            ValueError: a number is so far off that float32 does not hold it once it is standardised.
        """
        features = np.zeros((len(columns), self.n_features), dtype=np.float32)
        for begin in range(0, len(columns), ROWS):
            self._transform(
                owner, columns[begin : begin + ROWS], features[begin : begin + ROWS], first + begin
            )
        return features

    def _transform(self, owner: str, columns: Columns, features: NDArray[np.float32], first: int) -> None:
        at = 0
        if self._numbers:
            x = np.stack([columns.by_name[name] for name in self._numbers], 1).astype(np.float64, copy=False)
            imputer, scaler = self._scaling
            with np.errstate(over="ignore"):
                features[:, : x.shape[1]] = scaler.transform(imputer.transform(x))
            self._require_finite(owner, features, x, first)
            at = x.shape[1]
            gaps = [i for i, one in enumerate(self._numbers.values()) if one.has_gaps]
            if gaps:
                from sklearn.impute import MissingIndicator

                features[:, at : at + len(gaps)] = MissingIndicator(features="all").fit_transform(x[:, gaps])
                at += len(gaps)
        for name, encoder in self._encoders.items():
            width = self.n_columns_of(name)
            features[:, at : at + width] = encoder.transform(columns.by_name[name][:, None])
            at += width

    def _require_finite(
        self, owner: str, features: NDArray[np.float32], x: NDArray[np.float64], first: int
    ) -> None:
        bad = ~np.isfinite(features[:, : x.shape[1]])
        if bad.any():
            row, k = (int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))
            name = list(self._numbers)[k]
            raise ValueError(
                f"{owner}: row {first + row}, column {name!r}: {x[row, k]:g} is too far from "
                f"{self._numbers[name].mean:g}, about which the model has seen numbers there"
            )

    def features_of(self, owner: str, frame: Any, first: int = 0) -> NDArray[np.float32]:
        """Return features float32 ``[N, D]`` of whatever :func:`raw_columns` takes; columns are taken by name.

        Args:
            owner: whose they are, named in the errors.
            frame: a table's rows.
            first: of these rows, as the errors count them.

        Raises:
            ValueError: a column is missing, or a value is not what belongs there; row and column are named.
        """
        raw = raw_columns(owner, frame)
        return self.features_of_raw(owner, raw, first)

    def features_of_raw(
        self, owner: str, raw: Mapping[str, RawColumn], first: int = 0
    ) -> NDArray[np.float32]:
        """Return the same of columns that are read already; others among them are left out."""
        self.require_columns(owner, raw)
        known = {name: isinstance(column, Categories) for name, column in self.columns.items()}
        raw = {name: raw[name] for name in self.columns}
        rows = range(first, first + max((len(column.values) for column in raw.values()), default=0))
        return self.transform(owner, typed_columns(owner, raw, known=known, rows=rows), first)

    def features_of_array(self, owner: str, x: NDArray[Any]) -> NDArray[np.float32]:
        """Return the same of an array ``[N, K]`` whose columns are in the order of these."""
        if x.ndim != 2 or x.shape[1] != len(self.columns):
            raise ValueError(
                f"{owner}: x must be [N, K={len(self.columns)}] like the columns that the model was trained on, got "
                f"{list(x.shape)}"
            )
        return self.features_of_raw(owner, {name: RawColumn(x[:, k]) for k, name in enumerate(self.columns)})

    def require_columns(self, owner: str, names: Iterable[str]) -> None:
        """Raise unless all columns are among those of these names."""
        there = set(names)
        missing = [name for name in self.columns if name not in there]
        if missing:
            raise ValueError(
                f"{owner}: must have the {len(self.columns)} columns that the model was trained on, got none called "
                f"{', '.join(map(repr, missing[:12]))}{' and more' if len(missing) > 12 else ''}"
            )

    def described(self) -> dict[str, Any]:
        """Return, for people, what columns there are and what they become."""
        gaps = [name for name, one in self._numbers.items() if one.has_gaps]
        part = {}
        if self.fitted_on is not None:
            part["fitted_on"] = "{:,} of {:,} rows".format(*self.fitted_on)
        return {
            **part,
            "columns": len(self.columns),
            "features": self.n_features,
            "numbers": list(self._numbers),
            "gaps_in": gaps,
            "categories": {
                name: f"{self.n_columns_of(name)} columns, {len(column.rare)} rare ones share one"
                if column.rare
                else f"{self.n_columns_of(name)} columns"
                for name, column in self.columns.items()
                if isinstance(column, Categories)
            },
        }

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it; floats come back as they are."""
        columns = []
        for name, one in self.columns.items():
            if isinstance(one, Numbers):
                columns.append([name, "numbers", one.fill, one.mean, one.scale, one.has_gaps])
            else:
                columns.append([name, "categories", list(one.frequent), list(one.rare)])
        part = {} if self.fitted_on is None else {"fitted_on": list(self.fitted_on)}
        return {"version": VERSION, "columns": columns, **part}

    @classmethod
    def from_json(cls, kept: Any) -> Preparation:
        """Return what :meth:`to_json` has made.

        Raises:
            ValueError: it is not.
        """
        try:
            if kept["version"] != VERSION:
                raise ValueError(f"its version must be {VERSION}, got {kept['version']!r:.80}")
            columns = {entry[0]: _column_of(entry) for entry in kept["columns"]}
            if not columns or len(columns) != len(kept["columns"]):
                raise ValueError("its columns must have a name of their own each")
            fitted_on = kept.get("fitted_on")
            if fitted_on is not None and [type(count) for count in fitted_on] != [int, int]:
                raise ValueError(f"it must be fitted on some of so many rows, got {fitted_on!r:.80}")
        except (TypeError, KeyError, IndexError, AttributeError) as error:
            raise ValueError(f"it cannot be read ({error!r:.80})") from None
        return cls(columns, None if fitted_on is None else tuple(fitted_on))


def _column_of(entry: list[Any]) -> Numbers | Categories:
    name, kind, *rest = entry
    if not isinstance(name, str):
        raise ValueError(f"a column's name must be a text, got {name!r:.80}")
    if kind == "numbers":
        *numbers, has_gaps = rest
        fill, mean, scale = numbers
        if (
            not all(type(one) in (int, float) and math.isfinite(one) for one in numbers)
            or not scale > 0
            or type(has_gaps) is not bool
        ):
            raise ValueError(f"column {name!r} must have finite numbers and a scale > 0")
        return Numbers(float(fill), float(mean), float(scale), has_gaps)
    if kind != "categories":
        raise ValueError(f"column {name!r} must be of numbers or categories, got {kind!r:.80}")
    frequent, rare = (tuple(part) for part in rest)
    every = [*frequent, *rare]
    if (
        not every
        or len(set(every)) != len(every)
        or not all(one is None or type(one) is str for one in every)
    ):
        raise ValueError(f"column {name!r} must have texts as categories, each once")
    return Categories(frequent, rare)


def _fit_numbers(values: NDArray[Any]) -> Numbers:
    from sklearn.impute import SimpleImputer

    imputer = SimpleImputer(strategy="median", keep_empty_features=True)
    filled = imputer.fit_transform(values[:, None])
    scaler = StandardScaler().fit(filled)
    fill, mean, scale = (float(one[0]) for one in (imputer.statistics_, scaler.mean_, scaler.scale_))
    return Numbers(fill, mean, scale, bool(np.isnan(values).any()))


def _fit_categories(owner: str, name: str, values: NDArray[Any]) -> Categories:
    n_categories = len(set(values.tolist()))
    if n_categories > MOST_CATEGORIES:
        raise ValueError(
            f"{owner}: column {name!r} must have at most {MOST_CATEGORIES:,} categories, got {n_categories:,} "
            "different texts, which tell little; leave it out"
        )
    encoder = _encoder(MOST_COLUMNS).fit(values[:, None])
    (rare,) = encoder.infrequent_categories_
    rare = () if rare is None else tuple(rare.tolist())
    frequent = tuple(one for one in encoder.categories_[0].tolist() if one not in set(rare))
    return Categories(frequent, rare)


def _encoder(most: int | None) -> OneHotEncoder:
    return OneHotEncoder(
        handle_unknown="ignore",
        min_frequency=FEWEST_ROWS,
        max_categories=most,
        sparse_output=False,
        dtype=np.float32,
    )


def _column(values: list[Any]) -> NDArray[Any]:
    column = np.empty((len(values), 1), dtype=object)
    column[:, 0] = values
    return column
