"""Classes are told apart by scores: those of least squares, or discriminants, which its solution holds already."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from glai_native.solvers.exact.system import CONSTANT, columns_weight

DISCRIMINANTS, LEAST_SQUARES = "discriminants", "least squares"
DECISIONS = (DISCRIMINANTS, LEAST_SQUARES)
# Samples are nearer to the mean of all classes than their class is, or farther. How little of that is taken for
# granted: the angle decides where classes are many and far apart, the distance too where they are few, or near. On
# held-out samples of digits, letter, MNIST, BANKING77 and Tiny-ImageNet, all classes of each and 4 to 60 of them, in
# like and in unlike numbers, and of protein and kin40k cut into 3 to 10 classes, nothing from a third to three times as
# much was better throughout.
LEAST_CONTRAST, CONTRAST = 20.0, 10.0
# Of the whole scatter, in some direction: below, rounding would be what distances are measured by.
LEAST_SCATTER = 1e-6
# Of discriminants' probabilities, over log C, and not below that of their likelihoods, which distances between few
# classes far apart overrate. Those of the least log loss on held-out samples of the same data were 0.03 to 0.09, for 4
# to 202 classes.
FIRST_TEMPERATURE, TEMPERATURE_STEP = 0.02, 0.01
# How far below the others, in temperatures, the scores of classes without samples are.
MARGIN = 10.0


class Decided(NamedTuple):
    """Weights float64 ``[M, C]`` of φ's columns, the constant's last, and what they are.

    Attributes:
        weight: whose largest score tells the class, which is never one without samples.
        decision: what scores are, of ``DECISIONS``.
        temperature: of the scores.
    """

    weight: Tensor
    decision: str
    temperature: float


class Solved(NamedTuple):
    """A centred system's solution, and what it was solved for.

    Attributes:
        solution: of least squares, of the centred and scaled columns, float64 ``[K, C]``.
        rhs: float64 ``[K, C]``.
        scale: of the columns, float64 ``[K]``.
        mean: of the columns, float64 ``[K]``.
        target_mean: float64 ``[C]``.
        weight_sum: of the samples.
        counts: how many samples each class has, float64 ``[C]``; of values what the outputs add up to.
    """

    solution: Tensor
    rhs: Tensor
    scale: Tensor
    mean: Tensor
    target_mean: Tensor
    weight_sum: float
    counts: Tensor

    def values_weight(self) -> Tensor:
        """Return weights float64 ``[M, C]`` of φ's columns, the constant's last, whose scores are values."""
        return columns_weight(self.solution, self.scale, self.mean, self.target_mean)

    def decided(self, decision: str, temperature: float) -> Decided:
        """Return weights that tell classes apart.

        Args:
            decision: of ``DECISIONS``; least squares are what there is, too, where discriminants cannot be.
            temperature: of the scores of least squares.
        """
        solution, at_mean = self.solution, self.target_mean
        seen = self.target_mean > 0
        found = discriminants(self) if decision == DISCRIMINANTS else None
        if found is None:
            decision = LEAST_SQUARES
        else:
            solution, at_mean, likelihoods = found
            temperature = max(likelihoods, FIRST_TEMPERATURE + TEMPERATURE_STEP * math.log(int(seen.sum())))
        weight = columns_weight(solution, self.scale, self.mean, at_mean)
        if not bool(seen.all()):
            below = weight[:, seen].mean(1)
            below[-1] -= MARGIN * temperature / CONSTANT
            weight = torch.where(seen, weight, below.unsqueeze(1))
        return Decided(weight, decision, temperature)


def discriminants(solved: Solved) -> tuple[Tensor, Tensor, float] | None:
    """Return weights ``[K, C]`` and values at the mean of all samples ``[C]`` of discriminants of classes, or None.

    Last comes the temperature that makes likelihoods of them near a class's mean, as far as they are not overrated.

    With S the scatter within classes and l2, a class's mean, less the mean of all classes' means, is ``u``, and a
    sample, less that mean, x. If classes were normal around ``r·u``, with r normal around 1 of variance 1/k, the
    largest likelihood over r would grow with ``(x·S⁻¹·u + k) / sqrt(u·S⁻¹·u + k)``, which is linear in x: at k = 0 the
    cosine that S measures, at a large k the linear discriminant. The logarithm of a class's share of the samples
    is added to ``x·S⁻¹·u``, as there; all is divided so that a class scores about 1 at its own mean.

    Means of few samples are noise in K directions, of ``K / n`` for n samples: with t the classes' mean of what
    ``u·S⁻¹·u`` has beyond that, u is multiplied by ``t / (t + K / n)``, over what the largest class is multiplied by.
    It changes nothing where classes have equally many.

    S takes no factorisation of its own: ``S⁻¹·rhs = A·(D - Aᵀ·rhs)⁻¹·D`` for the solution A, its right side, which
    holds the classes' centred sums, and the classes' sizes D.

    Source: Woodbury (1950); Hastie, Tibshirani and Buja, "Flexible discriminant analysis by optimal scoring" (1994);
    Hayes and Kanan, "Lifelong Machine Learning with Deep Streaming Linear Discriminant Analysis" (2020). That the mean
    is known up to r is ours.

    Returns:
        None where there are no three classes, or samples of a class do not differ. Of two classes the direction is
        that of least squares, whose threshold is right more often where the one class is rare.
    """
    solution, rhs = solved.solution, solved.rhs
    seen = solved.target_mean > 0
    n_seen = int(seen.sum())
    if n_seen < 3:
        return None
    share = solved.target_mean[seen]
    size = share * solved.weight_sum
    root = size.sqrt()
    between = solution[:, seen].T @ rhs[:, seen]  # Aᵀ·rhs [C, C]
    between = (between + between.T) / 2
    left = -(between / root / root.unsqueeze(1))
    left.diagonal().add_(1 - LEAST_SCATTER)
    if int(torch.linalg.cholesky_ex(left).info):
        return None
    left.diagonal().add_(LEAST_SCATTER)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(left)) / root / root.unsqueeze(1)  # (D - Aᵀ·rhs)⁻¹
    mixed = solved.weight_sum * inverse
    mixed -= mixed.mean(1, keepdim=True)  # S⁻¹·u = A·mixed
    # Of each class's mean, less the samples', in every class's direction.
    reached = (between / size.unsqueeze(1)) @ mixed
    centre = reached.mean(0)
    squares = (reached.diagonal() - centre).clamp_min(0)  # u·S⁻¹·u
    kept = _kept(squares, len(solution) / solved.counts[seen])
    mixed, centre, squares = mixed * kept, centre * kept, squares * kept.square()
    typical = float(squares.mean())
    contrast = LEAST_CONTRAST + CONTRAST * typical / n_seen
    length = ((squares + contrast) * (typical + contrast)).sqrt()
    weight, value = torch.zeros_like(solution), torch.zeros_like(solved.target_mean)
    weight[:, seen] = solution[:, seen] @ (mixed / length)
    value[seen] = (contrast + share.log() - centre) / length
    if not bool(weight.isfinite().all()):  # a class weighs next to nothing
        return None
    return weight, value, 1 / (typical + contrast)


def _kept(squares: Tensor, noise: Tensor) -> Tensor:
    """Return what is kept of each class's mean, ``[C]``, 1 at most: less of one that fewer samples tell.

    Source: James and Stein, "Estimation with quadratic loss" (1961), with the spread of means estimated from all.

    Args:
        squares: ``u·S⁻¹·u``.
        noise: what of it is that of the mean's own samples, at most.
    """
    typical = float((squares - noise).clamp_min(0).mean())
    kept = typical / (typical + noise) if typical else torch.ones_like(noise)
    return kept / kept.max()
