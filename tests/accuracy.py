"""The bound that every floating result is held to (DESIGN, "Numbers that tests use")."""

import torch

EPS = {torch.float32: 2.0**-23, torch.float64: 2.0**-52}


def assert_accurate(actual, expected, terms, counts):
    """``|err| <= eps·(8 + sqrt(K))·sum of |terms|`` for every element.

    Args:
        actual: what the kernel gave.
        expected: float64 reference from the inputs as rounded.
        terms: sum of the terms' magnitudes, per element.
        counts: K, how many terms, per element.
    """
    assert actual.shape == expected.shape
    error = (actual.double() - expected).abs()
    bound = EPS[actual.dtype] * (8 + counts.double().sqrt()) * terms
    worst = (error - bound).max() if error.numel() else torch.tensor(0.0)
    assert not torch.isnan(error).any()
    assert worst <= 0, f"error exceeds its bound by {float(worst):.3e}"
