"""Where the integer features of a federation come from: sums over its clients, or what the server holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from glai_native.federated.integer_messages import layers_to
from glai_native.federated.integers import from_limbs
from glai_native.federated.messages import SAMPLES
from glai_native.federated.structuring import Structuring
from glai_native.ops.integer_sums import IntegerLayer
from glai_native.structure.centring import SCALE, Moments
from glai_native.structure.integer_features import IntegerFeatures
from glai_native.structure.integer_layers import WINDOWS
from glai_native.structure.measured_rows import measured_classes
from glai_native.structure.selector import PathSelector

ORIGINS = {
    "server": "trained on {server:,} samples that the server holds, integers",
    "clients": "selector averaged over {rounds} rounds of clients; mean, scale and multipliers from integer sums over "
    "{parties} clients",
    "random": "random units of seed {seed}; mean, scale and multipliers from integer sums over {parties} clients",
}


def make_features(
    structuring: Structuring, server_samples: tuple[Tensor, Tensor] | None
) -> tuple[IntegerFeatures, dict[str, Any]]:
    """The map that all parties' samples are summed through, and a statement of where it came from.

    With ``structure="random"`` it is the map that :meth:`IntegerFeatures.fit` makes of all samples in one place, to the
    bit, where all parties take part: mean and scale are functions of exact sums (a first round of messages), and
    multipliers of sums of the units' squares over the same rows (a second).
    """
    settings = structuring.settings
    facts = {"server": 0, "rounds": settings.structure_rounds, "seed": settings.seed}
    if settings.structure == "server":
        selector, _ = structuring.make(server_samples)  # raises where there are none
        assert server_samples is not None
        features = IntegerFeatures.fit(server_samples[0], None, selector)
        facts["server"] = len(server_samples[0])
    else:
        selector = None
        if settings.structure == "clients":
            selector, _ = structuring.make(None)
        nodes = structuring.first_round()
        structuring.fewest = len(nodes)
        moments, classes = _moments(structuring, nodes)
        features = _features(structuring, nodes, moments, classes, selector)
    return features, structuring.stated(
        ORIGINS[settings.structure].format(parties=structuring.fewest, **facts)
    )


def _moments(structuring: Structuring, nodes: list[int]) -> tuple[Moments, int]:
    """Exact sums over the clients' samples, and how many classes of rows are measured."""
    sums = structuring.ask("exact_moments", nodes, {}, {})
    moments = Moments(int(sums[SAMPLES]), from_limbs(sums["sums"]), from_limbs(sums["squares"]))
    return moments, measured_classes(sums["rows"])[0]


def _features(
    structuring: Structuring, nodes: list[int], moments: Moments, classes: int, selector: PathSelector | None
) -> IntegerFeatures:
    settings = structuring.settings
    mean, scale = moments.centre_and_scale(SCALE)
    n_units = None if selector is not None else sum(settings.widths[-1:])

    def measure(below: Sequence[IntegerLayer], weight: Tensor, bias: Tensor) -> tuple[Sequence[int], int]:
        tensors = {"mean": mean, "scale": scale} | layers_to(below)
        config: dict[str, Any] = {"classes": classes, "shifts": [layer.shift for layer in below]}
        if selector is None:
            config |= {"units_seed": settings.seed, "units": len(weight), "windows": WINDOWS}
        else:
            tensors |= {"weight": weight, "bias": bias}
        sums = structuring.ask("units", nodes, config, tensors)
        return from_limbs(sums["squares"]), int(sums[SAMPLES])

    with torch.no_grad():
        return IntegerFeatures.from_moments(moments, measure, n_units, selector, settings.seed)
