"""What a fit of the path kernel is given is checked here, once samples of weight 0 are left out."""

from __future__ import annotations

from glai_native.solvers.samples import Samples


def require_enough(owner: str, samples: Samples) -> None:
    """Raise unless samples of weight > 0 are there, and of at least two classes."""
    if not len(samples):
        raise ValueError(f"{owner}: sample_weight must be > 0 for at least one sample, got none")
    if samples.classes is not None:
        classes = samples.classes.unique()
        if len(classes) < 2:
            raise ValueError(f"{owner}: y must hold at least 2 classes, got class {int(classes[0])} only")


def require_l2(owner: str, l2: float | str, n: int) -> None:
    """Raise unless l2 is a number >= 0, or "loo" and there are samples enough for that."""
    if l2 == "loo":
        if n < 2:
            raise ValueError(
                f'{owner}: l2="loo" needs at least 2 samples that differ and weigh something, got {n}; '
                "give l2 as a number"
            )
    elif isinstance(l2, (str, bool)) or not 0 <= l2 < float("inf"):
        raise ValueError(f'{owner}: l2 must be a number >= 0 or "loo", got {l2!r}')
