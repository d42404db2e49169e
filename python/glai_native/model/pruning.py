"""Pruning makes a smaller structure with the same output on the samples whose gates were given."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from glai_native.estimator.path_weights import move_paths, move_units, path_norms
from glai_native.gates.packed import PackedGates
from glai_native.gates.paths import all_paths, paths_of_units, units_of_paths
from glai_native.gates.patterns import GateCounts, count_gates
from glai_native.gates.store import GateStore
from glai_native.model.glai import GLAI
from glai_native.structure.selector import PathSelector


def prune(
    model: GLAI,
    gates: GateStore | Sequence[PackedGates],
    *,
    min_norm: float | None = None,
    keep: float | None = None,
) -> GLAI:
    """Drop the paths that are never on over some samples, and fold units that are always on into the constant one.

    The weight of a path through a unit that is always on is added to the path with the always-on unit in its place,
    whose gate is the same. On these samples the output is unchanged to rounding; on others a dropped path might have
    been on, or a folded one off. With output directions a path can be folded into the constant one, and into others
    of equal directions; where it cannot be, it stays.

    With ``min_norm`` or ``keep`` the paths that vary least are dropped too, which changes the output: those of least
    ``(|w_p|² + |b_p|²)^½ · (pi_p·(1 - pi_p))^½``, pi_p = how often path p is on. What such a path gives on average,
    ``pi_p·(w_p, b_p)``, is folded into the constant path, so that only the deviation of its gate from pi_p is lost.

    Units of the last hidden layer that no path is left of leave the selector, so that with one hidden layer nothing
    else is needed. Those of earlier layers stay, since the next layer reads them; the structure then keeps the index
    of its paths (``selector.kept_paths``).

    A model of units of one hidden layer is pruned as its full paths would be, w_p = u_p·v_pᵀ; of a deeper one what a
    unit gives is no linear function of z where it is on, and cannot be folded.

    Source: this project's; exact where a path is never on or a unit always is.

    Args:
        model: left as it is.
        gates: of the samples that count: a store, or unit bits per hidden layer as ``selector.unit_gates`` returns.
        min_norm: also drop paths for which that is less than this, >= 0.
        keep: also drop all but this share of the paths that are left, in (0, 1]; the constant path always stays.

    Returns:
        A model of a new structure that names its parent (``selector.parent_id``) and has no output layer. A store of
        the parent cannot be read with it: its path gates differ. Where there is nothing to prune, a model of the same
        structure, with its ``structure_id``, parent and output layer.

    Raises:
        ValueError: no samples, gates of another structure, both ``min_norm`` and ``keep``, or a model of units of more
            than one hidden layer.
    """
    _require_limits(min_norm, keep)
    selector = model.selector
    if model.estimator.n_units and len(selector.widths) > 1:
        raise ValueError(
            f"prune: a model of units must have one hidden layer, whose units are linear in z where they are on, got "
            f"{len(selector.widths)}; one of paths may have more (replace_mlp(..., directions=True))"
        )
    if isinstance(gates, GateStore) and gates.structure_id != selector.structure_id:
        raise ValueError(
            f"prune: the store's gates must be of structure_id {selector.structure_id[:12]}… like the model, "
            f"got {gates.structure_id[:12]}…"
        )
    layers = gates.unit_gates(slice(None)) if isinstance(gates, GateStore) else gates
    counts = count_gates(selector, layers)
    if counts.samples == 0:
        raise ValueError("prune: gates must hold at least one sample, got none")
    if model.estimator.n_units:
        return _prune_units(model, counts, min_norm, keep)
    numbers, position = _fold(selector, counts, model.estimator.directions)
    estimator = move_paths(model.estimator, position, len(numbers))
    if min_norm is not None or keep is not None:
        goes = position >= 0
        on = torch.zeros(len(numbers), dtype=torch.float64, device="cpu")
        # Paths that were folded into one are on together, so that any of them may say how often.
        on[position[goes]] = counts.paths.cpu()[goes].double() / counts.samples
        score = path_norms(estimator).cpu() * (on * (1 - on)).sqrt()
        left = _largest(score, keep) if keep is not None else score >= (min_norm or 0.0)
        left[-1] = True
        numbers = numbers[left]
        position = torch.where(left, left.cumsum(0), len(numbers)) - 1
        estimator = move_paths(estimator, position, len(numbers), share=torch.where(left, 1.0, on))
    return GLAI(_smaller(selector, numbers), estimator)


@torch.no_grad()
def _prune_units(model: GLAI, counts: GateCounts, min_norm: float | None, keep: float | None) -> GLAI:
    selector, estimator = model.selector, model.estimator
    weight, bias = selector.hidden[0]
    carried = torch.cat([weight, bias.unsqueeze(1)], dim=1).double()  # [h, D + 1]
    out = estimator.weight[0, : estimator.n_units].double()  # v, [h, C]
    on = counts.units[0].to(weight.device).double() / counts.samples
    left = (on > 0) & (on < 1)
    if min_norm is not None or keep is not None:
        score = carried.norm(dim=1) * out.norm(dim=1) * (on * (1 - on)).sqrt()
        score = torch.cat([score[left], score.new_tensor([math.inf])])  # and the constant path
        left[left.clone()] = (_largest(score, keep) if keep is not None else score >= (min_norm or 0.0))[:-1]
    share = torch.where(left, 0.0, on)
    units = left.nonzero().squeeze(1)
    smaller = _smaller(selector, torch.cat([units, units.new_tensor([estimator.n_units])]).cpu())
    position = torch.where(left, left.cumsum(0) - 1, -1)
    folded = (share.unsqueeze(1) * carried).T @ out
    return GLAI(smaller, move_units(estimator, position, smaller.widths[-1], folded))


def _require_limits(min_norm: float | None, keep: float | None) -> None:
    if min_norm is not None and keep is not None:
        raise ValueError(f"prune: give min_norm or keep, not both, got {min_norm} and {keep}")
    if min_norm is not None and not 0 <= min_norm < math.inf:
        raise ValueError(f"prune: min_norm must be >= 0, got {min_norm}")
    if keep is not None and not 0 < keep <= 1:
        raise ValueError(f"prune: keep must be in (0, 1], got {keep}")


def _fold(selector: PathSelector, counts: GateCounts, directions: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the paths that are left, by number, and where among them each path goes (-1: never on)."""
    widths = selector.widths
    kept = all_paths(widths) if selector.kept_paths is None else selector.kept_paths.cpu()
    units = units_of_paths(kept, widths)
    for i, (on, width) in enumerate(zip(counts.units, widths, strict=True)):
        always = torch.cat([on.cpu() == counts.samples, torch.ones(1, dtype=torch.bool, device="cpu")])
        units[i] = torch.where(always[units[i]], width, units[i])
    numbers = paths_of_units(units, widths)
    if directions is not None:
        numbers = torch.where(_can_fold(kept, numbers, directions.cpu()), numbers, kept)
    alive = counts.paths.cpu() > 0
    left, place = numbers[alive].unique(return_inverse=True)
    position = torch.full_like(numbers, -1)
    position[alive] = place
    return left, position


def _can_fold(kept: Tensor, numbers: Tensor, directions: Tensor) -> Tensor:
    """Tell whether each path's weights can be added to another's: the constant one's, or along equal directions."""
    index = torch.searchsorted(kept, numbers).clamp(max=len(kept) - 1)
    alike = (kept[index] == numbers) & (directions[index] == directions).all(1)
    return alike | (numbers == kept[-1])


def _largest(score: Tensor, keep: float) -> Tensor:
    """Return which paths belong to the share ``keep`` of the largest score, the constant path, last, among them."""
    score = score.clone()
    score[-1] = math.inf
    order = score.argsort(descending=True, stable=True)
    left = torch.zeros(len(score), dtype=torch.bool, device=score.device)
    left[order[: math.ceil(keep * len(score))]] = True
    return left


def _smaller(selector: PathSelector, numbers: Tensor) -> PathSelector:
    """Return the structure that keeps these paths, less the units of its last layer that none goes through."""
    *before, last = units_of_paths(numbers, selector.widths)
    width = selector.widths[-1]
    used = last.unique()[:-1]  # the always-on unit is last
    if not len(used):
        used = torch.zeros(1, dtype=torch.int64, device="cpu")  # a layer has one unit at least
    renumbered = torch.full((width + 1,), len(used), device=used.device)
    renumbered[used] = torch.arange(len(used), device=used.device)
    widths = [*selector.widths[:-1], len(used)]
    kept = paths_of_units([*before, renumbered[last]], widths)
    *hidden, (weight, bias) = selector.hidden
    device = weight.device
    smaller = PathSelector.from_layers(
        copy.deepcopy(selector.projection),
        [*((w.clone(), b.clone()) for w, b in hidden), (weight[used.to(device)], bias[used.to(device)])],
        kept_paths=kept.to(device),
        parent_id=selector.structure_id,
    )
    return selector if smaller.structure_id == selector.structure_id else smaller
