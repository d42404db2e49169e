"""The dual closed form is ridge regression over all paths, whose number never enters; samples join it, and leave."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Self

import torch
from torch import Tensor

from glai_native.data.checks import (
    as_values,
    count_outputs,
    magnitude,
    require_sample_weight,
    require_samples,
    require_targets,
    weighted_mean,
)
from glai_native.data.counts import require_count, require_integer
from glai_native.data.labels import Label, label_list
from glai_native.estimator.temperature import RIDGE_TEMPERATURE, fit_temperature
from glai_native.machine.memory import free_memory
from glai_native.solvers.dual.arguments import require_enough, require_l2
from glai_native.solvers.dual.cholesky import NotPositiveDefiniteError
from glai_native.solvers.dual.features import PathFeatures
from glai_native.solvers.dual.fitted import FittedKernel
from glai_native.solvers.dual.kept import KeptTargets, joined, mean_diagonal, rounding_of, without
from glai_native.solvers.dual.ridge import choose_kernel_l2, mean_square
from glai_native.solvers.dual.within_memory import solve_within
from glai_native.solvers.samples import Samples

# Of the mean: what weighs less is felt as little, and its share of l2 must be finite.
LEAST_WEIGHT = 1e-30


class PathKernelModel(FittedKernel):
    """The best linear model over all paths by squared error, found and used through the path kernel.

        f(x) = sum_m k(x, x_m)·alpha_m        alpha = (K + l2·I)⁻¹·Y        k: see path_kernel

    the minimum of ``sum_n |y_n - f(x_n)|² + l2·(|w|² + |b|²)`` over the weights of all paths (DESIGN, "ridge"). Its
    cost depends on the number of samples, on D and on the number of units, never on the number of paths. Class
    indices are learnt as 0 and 1 per class. It reads all paths in full: output directions, which exist to make
    stored path weights smaller, have no part in it.

    Source: kernel ridge regression (Saunders, Gammerman and Vovk, 1998) with the neural path kernel (arXiv 2006.10529);
    Nyström preconditioning of conjugate gradients: Frangella, Tropp and Udell, arXiv 2110.02820.

    Args:
        selector: the frozen structure; the model works in its dtype and on its device.

    Attributes:
        l2: of the fit.
        centres: samples that predictions are compared with, M of them; None before a fit.
        alpha: their coefficients ``[M, C]``.
        kept: their targets and weights, by which samples are learnt and forgotten; None where not every sample is a
            centre, and of files before version 3.
        loo_error: mean over samples of the squared leave-one-out residual, summed over outputs.
        loo_accuracy: share of samples whose class the others predict; None for values.
        loo_scores: of each sample, what the others predict, ``[N, C]``; not kept in the file.
        n_samples: N of the fit, where sample weights are integers their sum.
        temperature: of its probabilities, fitted on leave-one-out scores where those are known.
        provenance: how the model came about: values that JSON can hold.
        unsolved: relative residual at which conjugate gradients stopped; 0 where a matrix was factored.
    """

    @torch.no_grad()
    def fit(
        self,
        x: Tensor,
        y: Tensor,
        l2: float | Literal["loo"] = "loo",
        *,
        sample_weight: Tensor | None = None,
        n_outputs: int | None = None,
        n_centres: int | None = None,
        memory: int | None = None,
        seed: int = 0,
        progress: bool = True,
    ) -> Self:
        """Solve for the coefficients; what was fitted before is replaced when this is done, not earlier.

        Every sample becomes a centre, unless ``n_centres`` says how many. A kernel matrix that fits ``memory`` is
        factored; else the same model is found by conjugate gradients on blocks of it, preconditioned by Nyström's
        approximation, to a relative residual of 1e-2 or for 20 steps (stopping early regularises, as l2 does; see
        ``unsolved``), and the leave-one-out figures stay unknown.

        Leave-one-out judges samples that the selector was trained on too kindly: its units know them.

        Args:
            x: raw ``[N, in_features]``.
            y: class indices ``[N]``, or values ``[N, C]``.
            l2: a number >= 0; ``"loo"`` chooses it by leave-one-out.
            sample_weight: ``[N]``, >= 0; samples of weight 0 are left out, integers are repetitions. Leave-one-out
                leaves all of a sample out: equal ones are one, of their weights' sum.
            n_outputs: C; None: the columns of values, or the largest class + 1.
            n_centres: M < N keeps that many samples, drawn uniformly: Nyström's approximation, less accurate, its file
                and its predictions smaller by M/N; None: all.
            memory: bytes that may be used; None: half of what the device has free.
            seed: of the samples that l2 is chosen on.
            progress: show a bar, on terminals, when it takes more than about two seconds.

        Raises:
            ValueError: data that do not fit each other or the structure, or are not finite; one class only; an l2 that
                is too small for the precision.
            MemoryError: ``memory`` is too small.
        """
        if n_outputs is None:
            n_outputs = count_outputs("PathKernelModel.fit", y, sample_weight)
        samples = Samples.of_raw("PathKernelModel.fit", self.selector, x, y, n_outputs, weight=sample_weight)
        return self.fit_samples(samples, l2, n_centres=n_centres, memory=memory, seed=seed, progress=progress)

    @torch.no_grad()
    def fit_samples(
        self,
        samples: Samples,
        l2: float | Literal["loo"] = "loo",
        *,
        n_centres: int | None = None,
        memory: int | None = None,
        seed: int = 0,
        progress: bool = True,
        left_out: Tensor | None = None,
    ) -> Self:
        """Fit as :meth:`fit` does, from samples of this structure that are checked and projected already.

        ``left_out``: rows of canonical samples which alone are left out one at a time, sooner than all would be; what
        the model says of leaving out, its temperature too, is then of them.
        """
        return self._fit("PathKernelModel.fit", samples, l2, n_centres, memory, seed, progress, left_out)

    def _fit(
        self,
        owner: str,
        samples: Samples,
        l2: float | Literal["loo"],
        n_centres: int | None,
        memory: int | None,
        seed: int,
        progress: bool,
        left_out: Tensor | None = None,
    ) -> Self:
        samples = samples.canonical()
        require_enough(owner, samples)
        require_l2(owner, l2, len(samples))
        n_centres, memory = (
            None if size is None else require_count(owner, name, size)
            for name, size in (("n_centres", n_centres), ("memory", memory))
        )
        seed = require_integer(owner, "seed", seed)
        # Relative to their mean: l2 then is too, and neither leaves the range of the selector's precision.
        given, weight, unit = l2, samples.z.new_ones(len(samples)), 1.0
        if samples.weight is not None:
            unit = float(samples.weight.max()) * weighted_mean(samples.weight / samples.weight.max(), None)
            weight = (samples.weight / unit).to(weight).clamp(min=LEAST_WEIGHT)
            l2 = l2 if isinstance(l2, str) else l2 / unit
        features = PathFeatures(samples.z, samples.layers)
        targets = as_values(samples.y, samples.n_outputs, samples.z.dtype)
        n = len(features)
        budget = free_memory(features.z.device) // 2 if memory is None else memory
        try:
            if isinstance(l2, str):
                l2 = choose_kernel_l2(features, targets, weight, budget, seed, progress)
            fit = solve_within(
                owner, features, targets, weight, l2, n_centres, budget, seed, progress, left_out
            )
        except NotPositiveDefiniteError:
            dtype = str(features.z.dtype).removeprefix("torch.")
            sizes = [magnitude(values) for values in (features.z, targets, weight)]
            scale = math.prod(max(size, 1.0) for size in sizes)
            if not scale * scale * n * self.selector.n_paths < torch.finfo(features.z.dtype).max:
                raise ValueError(
                    f"{owner}: x, y and sample_weight must have products that fit in {dtype}, got values up to "
                    + ", ".join(f"{size:.3g}" for size in sizes)
                ) from None
            penalty = "any l2 that leave-one-out tries" if isinstance(given, str) else f"l2={given}"
            raise ValueError(
                f"{owner}: the kernel matrix plus {penalty} cannot be factored in {dtype}, give a larger l2 or a "
                "selector in float64"
            ) from None
        self.l2 = l2 * unit if isinstance(given, str) else float(given)
        # A copy of z, which without a projection is the caller's own x.
        self.centres = PathFeatures(fit.centres.z.clone(), fit.centres.layers)
        self.alpha, self.n_samples = fit.alpha, samples.count
        self.unsolved = fit.unsolved
        self.kept = KeptTargets.of(samples, fit.rows) if len(fit.alpha) == n else None
        self.temperature = 1.0 if samples.has_values else RIDGE_TEMPERATURE
        self.class_labels = None  # what they are is for who fitted to say
        self.set_target_scaling(None, None)
        self.note_targets(owner, samples.has_values)
        self.loo_error = self.loo_accuracy = self.loo_scores = None
        if fit.residuals is not None:
            if left_out is not None:
                samples, targets, weight = samples[left_out], targets[left_out], weight[left_out]
            self.loo_error = mean_square(fit.residuals, weight)
            self.loo_scores = targets - fit.residuals
            if not samples.has_values:
                right = self.loo_scores.argmax(1) == targets.argmax(1)
                self.temperature = fit_temperature(self.loo_scores, samples.y, samples.weight)
                self.loo_accuracy = float((right * weight).sum() / weight.sum())
        return self

    @torch.no_grad()
    def learn(
        self,
        x: Tensor,
        y: Tensor,
        *,
        sample_weight: Tensor | None = None,
        class_labels: Sequence[Label] | None = None,
        memory: int | None = None,
        seed: int = 0,
        progress: bool = True,
    ) -> Self:
        """Let samples join those that were learnt, and solve for all of them, as one fit on all would.

        l2 keeps its share of the kernel's mean diagonal ``sum_n s_n·k(n, n) / sum_n s_n``. Structure and projection
        stay. What fails, or is interrupted, leaves the model as it was. It costs what the fit on all costs.

        Args:
            x: raw ``[N, in_features]``, of the dtype and on the device of those before.
            y: class indices ``[N]``, or values ``[N, C]`` in the units of y; classes that are new add outputs.
            sample_weight: ``[N]``, >= 0, as :meth:`fit`.
            class_labels: what class 0, 1, ... of y are called, as :func:`glai_native.retrain`; None: y is numbered as
                the outputs, and goes on behind them.
            memory: as :meth:`fit`.
            seed: of conjugate gradients' preconditioner.
            progress: as :meth:`fit`.

        Raises:
            ValueError: the model keeps no targets (:attr:`kept`), or data that do not fit it, or are not finite.
            MemoryError: ``memory`` is too small.
        """
        owner = "PathKernelModel.learn"
        centres, kept = self._learnt(owner, y)
        labels, y = self._numbered(owner, y, class_labels)
        n_outputs = len(labels) if class_labels is not None and labels is not None else self.out_features
        if isinstance(y, Tensor) and not y.is_floating_point():
            n_outputs = max(n_outputs, count_outputs(owner, y, sample_weight))
        if labels is not None and class_labels is None and n_outputs > len(labels):
            labels = self._labels_of_added(owner, n_outputs - len(labels), None)
        if labels is not None and self.class_labels is not None and not kept.has_values:
            places = torch.tensor([labels.index(label) for label in self.class_labels], device=kept.y.device)
            kept = KeptTargets(places[kept.y], kept.weight)
        new = Samples.of_raw(owner, self.selector, x, y, n_outputs, weight=sample_weight)
        self._solve_again(owner, joined(centres, kept, new), labels, memory, seed, progress)
        return self

    @torch.no_grad()
    def forget(
        self,
        x: Tensor,
        y: Tensor,
        *,
        sample_weight: Tensor | None = None,
        memory: int | None = None,
        seed: int = 0,
        progress: bool = True,
    ) -> Self:
        """Take samples out again, and solve for those that are left, as one fit on these would.

        Each row takes out one that was learnt: of the same projected sample and target, to the bit, where the
        projection rotates within the rounding of its product. l2 and all else are as :meth:`learn` has them.

        Args:
            x: raw ``[N, in_features]``, as they were learnt.
            y: indices of the model's outputs ``[N]``, or values ``[N, C]`` in the units of y.
            sample_weight: ``[N]``, >= 0, what is taken off the weight that a sample was learnt with; None: 1 each.
            memory: as :meth:`fit`.
            seed: of conjugate gradients' preconditioner.
            progress: as :meth:`fit`.

        Raises:
            ValueError: samples that were not learnt, or not so often, by row; none would be left, or of one class; or
                as :meth:`learn`.
            MemoryError: ``memory`` is too small.
        """
        owner = "PathKernelModel.forget"
        centres, kept = self._learnt(owner, y)
        require_samples(owner, x, self.selector.in_features)
        weight = require_sample_weight(owner, sample_weight, len(x))
        y = require_targets(owner, self.scaled(y, centres.z.dtype), len(x), self.out_features, "y").to(kept.y)
        z = PathFeatures.of(owner, self.selector, x).z
        rounding = rounding_of(self.selector, x, z)
        left = without(owner, centres, kept, z, y, self.out_features, weight, rounding)
        self._solve_again(owner, left, self.class_labels, memory, seed, progress)
        return self

    def _learnt(self, owner: str, y: Tensor) -> tuple[PathFeatures, KeptTargets]:
        """Return the samples that were learnt; raise where they are not known, or targets of another kind than y."""
        centres, _ = self._fitted(owner.partition(".")[2])
        if self.kept is None:
            raise ValueError(
                f"{owner}: the model must keep the target of every sample, which one of n_centres samples, or from a "
                "file of an earlier version, does not; train it again, on all of them"
            )
        kinds = [
            "values" if of_values else "class indices" for of_values in (self.kept.has_values, _of_values(y))
        ]
        if kinds[0] != kinds[1]:
            raise ValueError(f"{owner}: y must be {kinds[0]} as of the samples before, got {kinds[1]}")
        return centres, self.kept

    def _numbered(
        self, owner: str, y: Tensor, class_labels: Sequence[Label] | None
    ) -> tuple[list[Label] | None, Tensor]:
        """Return the labels of all outputs with those that are new, and y as it is learnt."""
        if class_labels is None or not isinstance(y, Tensor):
            return self.class_labels, self.scaled(y, self.selector.hidden[0][0].dtype)
        if y.is_floating_point():
            raise ValueError(f"{owner}: class_labels are of class indices y [N], got {y.dtype}")
        labels, listed = self.labels_with(owner, class_labels), label_list(owner, class_labels)
        y = require_targets(owner, y, y.shape[0] if y.ndim else 1, len(listed), "y")
        return labels, torch.tensor([labels.index(label) for label in listed], device=y.device)[y]

    def _solve_again(
        self,
        owner: str,
        samples: Samples,
        labels: list[Label] | None,
        memory: int | None,
        seed: int,
        progress: bool,
    ) -> None:
        """Become the model of other samples, at the share of the kernel's mean diagonal that l2 had; all or nothing."""
        centres, _ = self._fitted("learn")
        assert self.kept is not None
        share = self.l2 / mean_diagonal(centres, self.kept.weight)
        l2 = share * mean_diagonal(PathFeatures(samples.z, samples.layers), samples.weight)
        solved = type(self)(self.selector)
        solved._fit(owner, samples, l2, None, memory, seed, progress)
        solved.provenance = self.provenance
        if labels is not None:
            solved.class_labels = labels
        elif self.has_values:
            solved.set_target_scaling(self.target_mean, self.target_scale)
        if solved.loo_scores is None and not samples.has_values:
            solved.temperature = self.temperature  # none is left out to fit another on
        self.__dict__.update(solved.__dict__)


def _of_values(y: Tensor) -> bool:
    return isinstance(y, Tensor) and y.is_floating_point()
