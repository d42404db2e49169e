"""This file holds the types of the command line's arguments, whose errors say what is allowed."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterable

# What the library calls an option, where an error of its own starts with it.
_OPTIONS = {
    "n_components": "--components",
    "learning_rate": "--learning-rate",
    "country": "--country",
    "keep": "--keep",
    "min_norm": "--min-norm",
    "layer": "--layer",
    "n_units": "--units",
    "alpha": "--alpha",
    "fraction": "--fraction",
    "clients": "--clients",
    "server-share": "--server-share",
    "components": "--components",
    "secure-clip": "--secure-clip",
    "timeout": "--timeout",
    "l2": "--l2",
}
# Who says so in the library: on the command line nobody has asked them. What cannot be solved is no fault of the data.
_OWNER = re.compile(
    r"^(update|downdate|accumulate|fit|retrain|forget|train_(?:structure|selector|estimator)|(?P<solver>solve)"
    r"|(?:GLAI|Exact)(?:Classifier|Regressor)|(?:GLAI|Integer(?:Features|Statistics)|InputProjection|PackedGates|GateStore"
    r"|Path(?:Selector|Estimator|Statistics|KernelModel))(?:\.\w+)?): "
)
_ABOUT = re.compile(rf"^(?:[\w.]+: )?({'|'.join(_OPTIONS)}) must\b")


def by_option(sentence: str, named: Iterable[str] = ()) -> str:
    """Name the option in an error of the library that names its own parameter, and leave out who says so.

    ``named``: what the user has named, files and folders, which stay.
    """
    if sentence.startswith(tuple(f"{one}: " for one in named)):
        return sentence
    return without_owner(_ABOUT.sub(lambda found: f"{_OPTIONS[found[1]]} must", sentence, count=1))


def without_owner(sentence: str, data: str = "") -> str:
    """Leave out who in the library says so; name the data, where these are given, in the place of who read them."""
    if data and sentence.startswith(f"{data}: "):
        return sentence
    return _OWNER.sub(
        lambda found: f"{data}: " if data and found["solver"] is None else "", sentence, count=1
    )


def positive_integer(text: str) -> int:
    """Read an integer argument >= 1."""
    value = _parsed(text, int, "an integer >= 1")
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be >= 1, got {value}")
    return int(value)


def seed(text: str) -> int:
    """Read an argument that every library takes as a seed."""
    value = _parsed(text, int, "an integer in [0, 2^32)")
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"must be in [0, 2^32), got {value}")
    return int(value)


def positive_number(text: str) -> float:
    """Read a finite argument > 0."""
    allowed = "a finite number > 0"
    value = _parsed(text, float, allowed)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"must be {allowed}, got {text}")
    return value


def share(text: str) -> float:
    """Read an argument between 0 and 1, both excluded."""
    allowed = "a number between 0 and 1"
    value = _parsed(text, float, allowed)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must be {allowed}, got {text}")
    return value


def penalty_or_gcv(text: str) -> float | str:
    """Read an l2: a finite number >= 0, or what lets sums choose it."""
    return _penalty(text, "gcv")


def penalty_or_choice(text: str) -> float | str:
    """Read an l2: a finite number >= 0, or how it is chosen."""
    return _penalty(text, "gcv", "held-out")


def _penalty(text: str, *choices: str) -> float | str:
    if text in choices:
        return text
    allowed = f"a finite number >= 0 or {' or '.join(choices)}"
    value = _parsed(text, float, allowed)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"must be {allowed}, got {text}")
    return value


def components(text: str) -> int | str | None:
    """Read how many principal components there are: a number >= 1, "all" or "auto"."""
    if text in ("auto", "all"):
        return {"auto": "auto", "all": None}[text]
    allowed = "an integer >= 1, all or auto"
    value = _parsed(text, int, allowed)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be {allowed}, got {text}")
    return int(value)


def _parsed(text: str, kind: type[int] | type[float], allowed: str) -> float:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be {allowed}, got {text!r}") from None
