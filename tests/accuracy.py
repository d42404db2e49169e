"""The bound that every floating result is held to (DESIGN, "Numbers that tests use")."""

import torch

# Of the type that products are summed in, and what rounding the result to its own type may add.
EPS = {torch.float32: 2.0**-23, torch.float64: 2.0**-52, torch.float16: 2.0**-23, torch.bfloat16: 2.0**-23}
HALF_ULP = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
HALF_SUBNORMAL = {torch.float16: 2.0**-25}
EPS_TF32 = 2.0**-11
UNIT_BF16 = 2.0**-8  # what rounding a number to bfloat16 adds to it at most


def assert_accurate(actual, expected, terms, counts, tf32=False, rounded_sums=False):
    """``|err| <= eps·(8 + sqrt(K))·sum of |terms|`` for every element, and half an ulp of float16 and bfloat16.

    Args:
        actual: what the kernel gave.
        expected: float64 reference from the inputs as rounded.
        terms: sum of the terms' magnitudes, per element.
        counts: K, how many terms, per element.
        tf32: float32 operands were rounded to tf32.
        rounded_sums: sums of weights were rounded to bfloat16, which the reference does not know.
    """
    assert actual.shape == expected.shape
    error = (actual.double() - expected).abs()
    eps = EPS_TF32 if tf32 else EPS[actual.dtype]
    bound = (eps * (8 + counts.double().sqrt()) + (UNIT_BF16 if rounded_sums else 0.0)) * terms
    bound += HALF_ULP.get(actual.dtype, 0.0) * (expected.abs() + bound) + HALF_SUBNORMAL.get(
        actual.dtype, 0.0
    )
    worst = (error - bound).max() if error.numel() else torch.tensor(0.0)
    assert not torch.isnan(error).any()
    assert worst <= 0, f"error exceeds its bound by {float(worst):.3e}"
