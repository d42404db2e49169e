"""What counts as clear progress of held-out figures."""

import math

import pytest

from glai_native.solvers.sgd.clear_progress import clear_progress
from glai_native.solvers.solution import SgdEpoch


def history(scores, losses):
    return [
        SgdEpoch(i, math.nan, loss, score, 0.0)
        for i, (score, loss) in enumerate(zip(scores, losses, strict=True), 1)
    ]


@pytest.mark.parametrize(
    ("scores", "losses", "last"),
    [
        ([], [], 0),
        ([0.5], [1.0], 1),
        ([0.5, 0.505, 0.51], [1.0, 1.1, 1.2], 1),  # within a quarter of 0.05
        ([0.5, 0.505, 0.52], [1.0, 1.1, 1.2], 3),
        ([0.5, 0.49, 0.49], [1.0, 0.996, 0.994], 3),  # the loss, by more than half a hundredth of the best
        ([0.5, 0.49, 0.49], [1.0, 0.998, 0.996], 1),
        ([1.0, 1.0, 1.0], [0.0, 0.0, 0.0], 1),
        ([math.nan, 0.5], [math.nan, 1.0], 2),
    ],
)
def test_noise_is_no_progress(scores, losses, last):
    assert clear_progress(history(scores, losses), 100, of_values=False) == last


def test_of_values_the_error_alone_decides():
    errors = [2.0, 1.995, 1.98, 1.98]
    assert clear_progress(history([-error for error in errors], errors), 100, of_values=True) == 3
