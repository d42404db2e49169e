"""This module counts the numbers that models have, and finds sizes at which two have equally many."""

from __future__ import annotations


def mlp_parameters(in_features: int, hidden: int, out_features: int) -> int:
    """Count the parameters of Linear, ReLU, Linear."""
    return hidden * (in_features + 1) + (hidden + 1) * out_features


def glai_parameters(in_features: int, units: int, out_features: int) -> tuple[int, int]:
    """Count total and trained parameters of a GLAI with a selector of one hidden layer.

    Total counts the selector's hidden layer and the estimator, h'(D+1) + (h'+1)(D+1)C; trained the estimator.
    """
    trained = (units + 1) * (in_features + 1) * out_features
    return units * (in_features + 1) + trained, trained


def units_for(in_features: int, out_features: int, parameters: int) -> int:
    """Return the units of the selector whose GLAI has at most ``parameters`` in total, at least one."""
    constant = (in_features + 1) * out_features
    return max(1, (parameters - constant) // ((in_features + 1) * (1 + out_features)))
