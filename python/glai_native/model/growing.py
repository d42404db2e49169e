"""Growing adds units to a structure without changing the model's output."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from glai_native.data.counts import require_integer
from glai_native.estimator.path_weights import move_paths, move_units
from glai_native.gates.paths import all_paths, paths_of_units, units_of_paths
from glai_native.machine.memory import require_memory
from glai_native.model.glai import GLAI
from glai_native.structure.selector import PathSelector


def grow(model: GLAI, layer: int, n_units: int, seed: int = 0) -> GLAI:
    """Add units to a hidden layer; the output stays, and the new paths are there to be trained.

    The new units read what their layer reads with random weights and biases, uniform within ±1/sqrt(fan-in) as
    ``nn.Linear`` starts. The next layer reads them with zeros, so that no other unit's bit changes, and paths through
    them start with weight zero (and random output directions, where the model has any). Of a pruned structure, each
    kept path through the layer's always-on unit gets a twin through each new unit; of any other that means all paths.
    A model of units grows in its last layer alone, since what reads the units of others is frozen; nothing flows out
    of the new ones until they are trained.

    Source: function-preserving widening, Net2Net, Chen, Goodfellow and Shlens, arXiv 1511.05641.

    Args:
        model: left as it is.
        layer: 0 for the first hidden layer.
        n_units: how many, >= 1.
        seed: of the random weights.

    Returns:
        A model of a new structure that names its parent (``selector.parent_id``) and has no output layer. Counts of the
        new paths start at 0.

    Raises:
        ValueError: there is no such layer, or no unit to add; a model of units grows in its last layer alone.
        MemoryError: the larger model takes more memory than there is.
    """
    layer, n_units, seed = (
        require_integer("grow", name, value)
        for name, value in (("layer", layer), ("n_units", n_units), ("seed", seed))
    )
    selector = model.selector
    n_layers = len(selector.widths)
    if not 0 <= layer < n_layers:
        raise ValueError(f"grow: layer must be in [0, L={n_layers}), got {layer}")
    if n_units < 1:
        raise ValueError(f"grow: n_units must be >= 1, got {n_units}")
    if model.estimator.n_units:
        return _grow_units(model, layer, n_units, seed)
    _require_memory(model, layer, n_units)
    kept, position = _more_paths(selector, layer, n_units)
    grown = _larger(selector, layer, n_units, seed, kept)
    return GLAI(grown, move_paths(model.estimator, position, grown.n_paths, seed=seed))


def _grow_units(model: GLAI, layer: int, n_units: int, seed: int) -> GLAI:
    selector, estimator = model.selector, model.estimator
    if layer != len(selector.widths) - 1:
        raise ValueError(
            f"grow: layer of a model of units must be its last, {len(selector.widths) - 1}, since what reads units of "
            f"others is frozen, got {layer}"
        )
    width = estimator.n_units + n_units
    require_memory(
        "grow",
        f"a model of {width:,} units in layer {layer}, while it is made,",
        width * (estimator.in_features + estimator.out_features) * (8 + estimator.dtype.itemsize),
        estimator.on_counts.device,
        "add fewer units",
    )
    position = torch.arange(estimator.n_units, device="cpu")
    return GLAI(_larger(selector, layer, n_units, seed), move_units(estimator, position, width))


def _require_memory(model: GLAI, layer: int, n_units: int) -> None:
    """Raise where the larger model cannot be held beside the model, before it is begun."""
    selector, estimator = model.selector, model.estimator
    width, n_paths = selector.widths[layer], selector.n_paths
    if selector.kept_paths is None:
        twins = n_paths // (width + 1)
    else:
        twins = int((units_of_paths(selector.kept_paths, selector.widths)[layer] == width).sum())
    n_paths += twins * n_units
    rest = (
        estimator.in_features + 1,
        estimator.out_features,
    )  # weight and bias of a path, or along its direction
    per_path = math.prod(rest) if estimator.directions is None else sum(rest)
    summed = 8 + estimator.dtype.itemsize  # float64, in which paths are moved, and the weights
    per_unit = selector.hidden[layer][0].shape[1] + 1
    require_memory(
        "grow",
        f"a model of {width + n_units:,} units in layer {layer}, P={n_paths:,} paths, while it is made,",
        (n_paths * per_path + n_units * per_unit) * summed,
        estimator.on_counts.device,
        "add fewer units",
    )


def _more_paths(selector: PathSelector, layer: int, n_units: int) -> tuple[Tensor, Tensor]:
    """Return the paths of the larger structure, by number, and where among them each path goes."""
    width = selector.widths[layer]
    kept = all_paths(selector.widths) if selector.kept_paths is None else selector.kept_paths.cpu()
    units = units_of_paths(kept, selector.widths)
    always = units[layer] == width
    widths = list(selector.widths)
    widths[layer] += n_units

    def through(unit: int) -> Tensor:
        return paths_of_units(
            [u[always] if i != layer else u[always].fill_(unit) for i, u in enumerate(units)], widths
        )

    twins = [through(unit) for unit in range(width, width + n_units)]
    units[layer] = torch.where(always, width + n_units, units[layer])
    moved = paths_of_units(units, widths)
    larger = torch.cat([moved, *twins]).sort().values
    return larger, torch.searchsorted(larger, moved)


def _larger(
    selector: PathSelector, layer: int, n_units: int, seed: int, kept_paths: Tensor | None = None
) -> PathSelector:
    hidden = [(weight.clone(), bias.clone()) for weight, bias in selector.hidden]
    weight, bias = hidden[layer]
    generator = torch.Generator().manual_seed(seed)
    drawn = (
        torch.rand((n_units, weight.shape[1] + 1), generator=generator, dtype=torch.float64, device="cpu") * 2
        - 1
    )
    drawn = (drawn / weight.shape[1] ** 0.5).to(weight)
    hidden[layer] = torch.cat([weight, drawn[:, :-1]]), torch.cat([bias, drawn[:, -1]])
    if layer + 1 < len(hidden):
        weight, bias = hidden[layer + 1]
        hidden[layer + 1] = torch.cat([weight, weight.new_zeros(len(weight), n_units)], dim=1), bias
    kept_paths = None if kept_paths is None else kept_paths.to(weight.device)
    return PathSelector.from_layers(
        copy.deepcopy(selector.projection), hidden, kept_paths, selector.structure_id
    )
