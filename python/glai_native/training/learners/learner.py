"""What classifier and regressor share stands here."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from glai_native.data.arrays import array_tensor, weight_tensor
from glai_native.data.labels import Label
from glai_native.data.stored_rows import StoredRows
from glai_native.estimator.estimator import PathEstimator
from glai_native.estimator.outputs import Outputs
from glai_native.machine.memory import give_back_freed
from glai_native.model.glai import GLAI
from glai_native.model.unseen import lower_unseen
from glai_native.solvers.choice import new_kind, require_options
from glai_native.solvers.dual.model import PathKernelModel
from glai_native.solvers.samples import Samples
from glai_native.solvers.statistics.sums import PathStatistics
from glai_native.structure.selector import PathSelector
from glai_native.training.fitting import FitResult, fit
from glai_native.training.holding_out import rows_held_out
from glai_native.training.learners.parameters import seed_of, solver_options
from glai_native.training.learners.progressive import Progressive
from glai_native.training.learners.saving import SavedLearner
from glai_native.training.learners.validating import ValidatingLearner
from glai_native.training.learners.weighting import Weighed, weighed_samples
from glai_native.training.new_structure import train_selector
from glai_native.training.reading import LARGE_CHUNK
from glai_native.training.retraining import retrain
from glai_native.training.untrained import or_untrained, solver_of_untrained


class Learner(SavedLearner, ValidatingLearner):
    """What classifier and regressor share.

    Args:
        hidden_layer_sizes: units of the selector's hidden layers, or of the one that there is; the number of paths is
            the product of (units + 1). ``"auto"``, as :func:`train_selector`.
        n_components: as :func:`train_selector`.
        solver: as :func:`glai_native.fit`.
        structure_epochs: of the selector, at most; ``"auto"``, as :func:`train_selector`.
        validation_fraction: of the samples, held out by :func:`glai_native.fit`.
        l2: penalty of the closed forms, a number or "loo" (dual), "gcv" (statistics); None, as for the next three: the
            solver's own choice (:func:`glai_native.fit`). One that the solver does not have is refused; of
            ``solver="auto"`` it takes a solver that has it.
        learning_rate: of the native loop.
        epochs: of the native loop, at most.
        batch_size: of the native loop, samples per step.
        budget: seconds that ``fit`` is to take, half of them for the structure; no epoch, and no further solver, is
            begun later, so that what is learnt depends on the machine. None: as long as it takes.
        solver_options: further options of the solver, a dict.
        random_state: seed of all that is drawn, an int, a RandomState, or None for NumPy's global one.
        verbose: progress bars, and which solver was taken and why.

    Attributes:
        result_: the :class:`FitResult` of ``fit``, or of the latest ``retrain``.
        model_: its model; after ``partial_fit`` the model of all chunks so far.
        loss_curve_: mean training loss of each epoch of ``fit``, or of the latest ``retrain``; closed forms: none.
        n_iter_: how many epochs these are.
    """

    def __init__(
        self,
        hidden_layer_sizes: Sequence[int] | int | str = "auto",
        *,
        n_components: int | str | None = "auto",
        solver: str = "auto",
        structure_epochs: int | str = "auto",
        validation_fraction: float = 0.1,
        l2: float | str | None = None,
        learning_rate: float | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        budget: float | None = None,
        solver_options: dict[str, Any] | None = None,
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.n_components = n_components
        self.solver = solver
        self.structure_epochs = structure_epochs
        self.validation_fraction = validation_fraction
        self.l2 = l2
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.batch_size = batch_size
        self.budget = budget
        self.solver_options = solver_options
        self.random_state = random_state
        self.verbose = verbose

    def _validated(self, X: ArrayLike, *y: ArrayLike, reset: bool = True, **options: Any) -> Any:
        """Return X, and y with it, as :meth:`_read` does; X in the precision that the projection centres in."""
        centred_in = None if reset else self._known_selector().projection.centred_in
        found = self._read(X, *y, reset=reset, centred_in=centred_in, **options)
        return found if y else found[0]

    def __getattr__(self, name: str) -> Any:
        """Solve the model of all chunks so far when it is asked for."""
        if name == "model_" and self.__dict__.get("_statistics") is not None:
            self.__dict__[name] = self._solved_model()
            return self.__dict__[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _outputs(self) -> Outputs:
        """Return what says what the outputs mean: the statistics of ``partial_fit``, or the model."""
        statistics: PathStatistics | None = getattr(self, "_statistics", None)
        if statistics is not None:
            return statistics
        return self._outputs_of(self.model_)

    def _known_selector(self) -> PathSelector:
        selector: PathSelector = self._selector if self._is_accumulating() else self.model_.selector
        return selector

    def _stored(
        self, X: np.memmap, y: ArrayLike, sample_weight: ArrayLike | None, class_weight: Any = None
    ) -> tuple[StoredRows, NDArray[Any], NDArray[np.float64] | None]:
        """Return a large memory map's rows, which stay where they are, with targets and weights; equal ones apart."""
        owner = type(self).__name__
        self._validated(X[:1].reshape(1, -1))
        if len(X) != len(y):  # type: ignore[arg-type]
            raise ValueError(f"{owner}: X and y must be equally long, got {len(X)} and {len(y)}")  # type: ignore[arg-type]
        numbers = np.arange(len(X)).reshape(-1, 1)  # no two rows are equal
        rows, targets, weight = self._weighed(numbers, y, sample_weight, class_weight)
        order = np.argsort(rows[:, 0])
        weight = None if weight is None else weight[order]
        return StoredRows(owner, X).part(rows[order, 0]), targets[order], weight

    def _fit(
        self,
        x: Tensor | StoredRows,
        y: Tensor,
        n_outputs: int,
        sample_weight: NDArray[np.float64] | None,
        class_labels: Sequence[Label] | None = None,
    ) -> None:
        weight = weight_tensor(sample_weight)
        options, seed, begun = self._options(), seed_of(self.random_state), time.monotonic()
        selector = self._train_selector(x, y, weight, n_outputs, seed, self.validation_fraction)

        def fit_over(structure: PathSelector, solver: str, budget: float | None) -> FitResult:
            return fit(
                structure,
                x,
                y,
                solver=solver,
                sample_weight=weight,
                validation=self.validation_fraction,
                seed=seed,
                progress=self.verbose,
                class_labels=class_labels,
                budget=budget,
                **options,
            )

        self._statistics: PathStatistics | None = None
        self.result_: FitResult = fit_over(selector, self.solver, self.budget and self.budget / 2)
        left = None if self.budget is None else self.budget - (time.monotonic() - begun)
        if left is None or left > sum(self.result_.seconds.values()):
            solver = solver_of_untrained(self.solver, options)
            self.result_ = or_untrained(
                self.result_, len(x), seed, lambda drawn: fit_over(drawn, solver, left), self.verbose
            )
        self.model_: GLAI | PathKernelModel = self.result_.model
        self._take_history()

    def _options(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("l2", "learning_rate", "epochs", "batch_size")}
        return solver_options(type(self).__name__, self.solver_options, own)

    def _take_history(self) -> None:
        self.loss_curve_ = [epoch.loss for epoch in self.result_.history]
        self.n_iter_ = len(self.loss_curve_)

    def _require_retrainable(self) -> GLAI:
        if getattr(self, "_statistics", None) is not None:
            raise ValueError(
                f"{type(self).__name__}: retrain goes on from fit, and this was fitted by partial_fit, which takes more"
            )
        check_is_fitted(self, "result_")
        if not isinstance(self.model_, GLAI):
            raise ValueError(
                f"{type(self).__name__}: retrain needs path weights, and those of this model did not fit in memory; "
                "fit it again, with fewer units or solver='sgd'"
            )
        return self.model_

    def _retrain(
        self,
        x: Tensor,
        y: Tensor,
        sample_weight: NDArray[np.float64] | None,
        increment: bool,
        class_labels: Sequence[Label] | None = None,
        solver: str | None = None,
    ) -> None:
        options, solver = self._options(), solver or self.solver
        if not increment or solver == "sgd":  # an exact increment holds nothing out
            options["validation"] = self.validation_fraction
        self.result_ = retrain(
            self._require_retrainable(),
            x,
            y,
            increment=increment,
            solver=solver,
            sample_weight=weight_tensor(sample_weight),
            seed=seed_of(self.random_state),
            progress=self.verbose,
            class_labels=class_labels,
            **options,
        )
        self.model_ = self.result_.model
        self._take_history()

    def _train_selector(
        self,
        x: Tensor | StoredRows,
        y: Tensor,
        weight: Tensor | None,
        n_outputs: int,
        seed: int,
        held_out: float = 0.0,
    ) -> PathSelector:
        return train_selector(
            x,
            y,
            n_outputs,
            self.hidden_layer_sizes,
            self.n_components,
            epochs=self.structure_epochs,
            held_out=held_out,
            sample_weight=weight,
            seed=seed,
            progress=self.verbose,
            seconds=self.budget and self.budget / 2,
        )

    def _weighed(
        self,
        x: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None,
        class_weight: Any = None,
        *,
        required: bool = True,
    ) -> Weighed:
        """Return what :func:`weighed_samples` does; some samples must weigh something where that is ``required``."""
        owner = type(self).__name__
        weighed = weighed_samples(owner, x, y, sample_weight, class_weight)
        if required and not len(weighed[0]):
            raise ValueError(
                f"{owner}: sample_weight and class_weight must be > 0 for at least one sample, got zero for all"
            )
        return weighed

    def _goes_on_from_fit(self) -> bool:
        """Return whether the latest ``fit`` left sums over its samples, which ``partial_fit`` adds to."""
        model = self.__dict__.get("model_")
        return not self._is_accumulating() and isinstance(model, GLAI) and model.has_statistics

    def _begin_anew(self) -> None:
        """Forget what ``fit`` left without sums over its samples; say so where there is something."""
        if "result_" in self.__dict__:
            warnings.warn(
                f"{type(self).__name__}: partial_fit begins anew, what fit learnt is lost: its solver "
                f"'{self.result_.solver}' keeps no sums to add to; fit with solver='statistics', or retrain",
                stacklevel=4,
            )
        for name in ("model_", "result_", "loss_curve_", "n_iter_"):
            self.__dict__.pop(name, None)

    def _partial_fit(
        self,
        x: Tensor,
        y: Tensor,
        n_outputs: int,
        sample_weight: NDArray[np.float64] | None,
        *,
        class_labels: Sequence[Label] | None = None,
        scaling: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Add a chunk to the statistics; the first one trains the structure. The model is solved when asked for."""
        weight = weight_tensor(sample_weight)
        if not self._is_accumulating():
            require_options("statistics", self._options())
            self._seed, self._progressive = seed_of(self.random_state), Progressive()
            self._selector = self._train_selector(
                x, y, weight, n_outputs, self._seed, self.validation_fraction
            )
            self._statistics = _first_statistics(self._selector, n_outputs)
            self._statistics.class_labels = class_labels
            if scaling is not None:
                self._statistics.set_target_scaling(*scaling)
        assert self._statistics is not None
        self._statistics = copy(self._statistics)  # the same sums, which no change of it alters
        if class_labels is not None:
            self._statistics.add_classes(class_labels)
        z = self._selector.project(x)
        if self._statistics.n_units:
            samples = Samples(z, y, n_outputs, weight, selector=self._selector, of_units=True)
        else:
            samples = Samples(z, y, n_outputs, weight, gates=self._selector.gates_of(z))
        self._add(samples)
        is_large = z.numel() >= LARGE_CHUNK
        del samples, z
        if is_large:
            give_back_freed()
        self.__dict__.pop("model_", None)  # of the chunks before

    def _add(self, samples: Samples) -> None:
        """Add samples to the sums; those of classes are scored before, the first chunk's by what is not held out."""
        sums = self._statistics
        assert sums is not None
        parts = [samples]
        if not samples.has_values and not sums.n_samples:
            rows, held_out = rows_held_out(samples.y, self.validation_fraction, self._seed)
            parts = [samples[rows], samples[held_out]] if len(held_out) else parts
        for part in parts:
            if not part.has_values:
                self._progressive = self._progress().scored(part, sums, self._solve)
            sums.add(part)

    def _progress(self) -> Progressive:
        """Return what chunks have told of the temperature so far."""
        known: Progressive | None = self.__dict__.get("_progressive")
        return known or Progressive()

    def _solve(self, sums: PathStatistics) -> PathEstimator:
        options: dict[str, Any] = {"l2": "gcv", "dtype": torch.float32} | self._options()
        return sums.solve(**options, progress=self.verbose)

    def _output(self, X: ArrayLike) -> NDArray[np.float64]:
        check_is_fitted(self, "model_")
        x = array_tensor(self._validated(X, reset=False))
        model = self.model_
        if isinstance(model, PathKernelModel):
            output = model.predict(x)
        elif model.estimator.has_values:
            return model.predict(x)
        else:
            with torch.no_grad():
                output = model(x)
        return output.double().numpy()

    def _solved_model(self) -> GLAI:
        assert self._statistics is not None
        estimator = self._solve(self._statistics)
        if not estimator.has_values:
            estimator.temperature = self._progress().temperature
        model = GLAI(self._selector, estimator, copy(self._statistics))
        lower_unseen(model)
        return model


def _first_statistics(selector: PathSelector, n_outputs: int) -> PathStatistics:
    """Return sums without samples: over full paths while their unknowns are few, over units beyond."""
    if new_kind(selector, n_outputs, "statistics") == "units":
        return PathStatistics.of_units(selector, n_outputs)
    sizes = selector.n_paths, selector.z_features, n_outputs
    return PathStatistics(*sizes, structure_id=selector.structure_id)
