"""This file tells what lies in a folder that we wrote, and what two of them have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from glai_native.cli.models import Model, PathModel, has_values, kind_of, labels_of
from glai_native.estimator.estimator import PathEstimator
from glai_native.gates.packed import PackedGates
from glai_native.gates.paths import count_paths
from glai_native.gates.patterns import count_gates, layer_agreement, oui, pattern_sizes
from glai_native.gates.store import GateStore
from glai_native.model.glai import GLAI
from glai_native.solvers.dual.model import PathKernelModel
from glai_native.solvers.exact.sums import IntegerStatistics
from glai_native.structure.selector import PathSelector
from glai_native.training.exact.learner import ExactLearner
from glai_native.training.tables import names_of

Opened = PathModel | GateStore


def structure_of(opened: Opened) -> PathSelector | GateStore:
    """Return what states the structure: a model's selector, or the store."""
    return opened if isinstance(opened, GateStore) else opened.selector


def unit_gates_of(opened: Opened, x: Tensor | None = None) -> list[PackedGates] | None:
    """Return unit bits per hidden layer: a store's own, or a model's for raw x ``[N, in_features]``; None without x."""
    if isinstance(opened, GateStore):
        return opened.unit_gates(slice(None))
    return None if x is None else opened.selector.unit_gates(x)


def describe(opened: Opened, layers: Sequence[PackedGates] | None = None) -> dict[str, Any]:
    """Return sizes and names and, where unit bits per hidden layer are given, what they show."""
    patterns = {} if layers is None else describe_patterns(structure_of(opened), layers)
    if isinstance(opened, GateStore):
        return _describe_store(opened) | patterns
    figures = _describe_model(opened) if isinstance(opened, GLAI) else _describe_kernel_model(opened)
    return figures | patterns


def _describe_store(store: GateStore) -> dict[str, Any]:
    return {
        "kind": "gate store",
        "structure_id": store.structure_id,
        "layer_widths": list(store.widths),
        "bytes_per_sample": store.bytes_per_sample,
    }


def _describe_model(model: GLAI) -> dict[str, Any]:
    estimator, sizes = model.estimator, model_sizes(model)
    return {
        "kind": kind_of(model),
        **_describe_selector(model.selector),
        "out_features": estimator.out_features,
        "directions": estimator.directions_id or f"none: {estimator.kind}",
        "dtype": str(estimator.dtype).removeprefix("torch."),
        "frozen_parameters": sizes["parameters"] - sizes["trained_parameters"],
        "trained_parameters": sizes["trained_parameters"],
        "bytes": sizes["bytes"],
        "samples_seen": int(estimator.samples_seen),
        "classes": estimator.class_labels,
        **_units(estimator),
        **_preparation(model),
        "made_by": _made_by(estimator.provenance),
    }


def _units(estimator: PathEstimator) -> dict[str, Any]:
    """Return centre and scale of outputs that are values."""
    mean, scale = estimator.target_mean, estimator.target_scale
    if mean is None or scale is None:
        return {}
    return {"values": {"centre": mean.tolist(), "scale": scale.tolist()}}


def _preparation(model: Model) -> dict[str, Any]:
    """Return what a model does to a table before it reads it, where it does."""
    preparation = names_of(model).preparation
    return {} if preparation is None else {"preparation": preparation.described()}


def _made_by(provenance: dict[str, Any]) -> str | None:
    """Name the solver or the merge, and what it was told."""
    if not provenance:
        return None
    words = []
    if "merge" in provenance:
        parties = ", ".join(f"{party['name']} ({party['samples']:,})" for party in provenance["parties"])
        words.append(f"merged by {provenance['merge']} from {parties}")
    if "federation" in provenance:
        words.append(f"federated in {len(provenance['federation']['rounds'])} rounds")
    if "solver" in provenance:
        words.append(provenance["solver"])
    if "l2" in provenance:
        words.append(f"l2 = {provenance['l2']:.4g}")
    return "; ".join(words)


def _describe_kernel_model(model: PathKernelModel) -> dict[str, Any]:
    return {
        "kind": kind_of(model),
        **_describe_selector(model.selector),
        "centres": 0 if model.centres is None else len(model.centres),
        "samples_seen": model.n_samples,
        "outputs": model.out_features,
        "l2": model.l2,
        "keeps_targets": model.kept is not None,
        **_preparation(model),
    }


def describe_exact(model: ExactLearner) -> dict[str, Any]:
    """Return sizes and names of an exact model, the solution that its folder keeps, and the digest of its sums.

    What is None of the solution nobody has asked for since the sums, or what the model was told, changed last.
    """
    sums, features = model.statistics_, model.features_
    kept = [sums.gram, sums.cross, sums.counts, *([] if sums.class_grams is None else [sums.class_grams])]
    ledger, solution = sums.ledger, model.known_solution()
    hashes = [] if ledger is None else [ledger.hashes, *([] if ledger.ids is None else [ledger.ids])]
    return {
        "kind": kind_of(model),
        "features_id": features.features_id,
        "structure": "trained" if features.seed is None else f"random, seed {features.seed}",
        "structure_reason": model.structure_reason_,
        "in_features": features.in_features,
        "units": features.n_units,
        "features": features.n_features,
        "outputs": sums.out_features,
        "samples_seen": sums.n_samples,
        "classes": None if has_values(model) else labels_of(model),
        **_counting(sums),
        "l2": None if solution is None else solution.l2,
        "l2_by": "given" if not isinstance(model.l2, str) else model.l2,
        "condition": None if solution is None else solution.condition,
        "decision": None if solution is None else solution.provenance.get("decision"),
        "ledger": ledger is not None,
        "ids": ledger is not None and ledger.ids is not None,
        "bytes_of_sums": sum(each.numel() * each.element_size() for each in kept),
        "bytes_of_ledger": sum(each.nbytes for each in hashes),
        "digest": sums.digest(),
        **_preparation(model),
    }


def _counting(sums: IntegerStatistics) -> dict[str, Any]:
    """Return what values are whole numbers of, and from where they are counted."""
    point = sums.fixed_point
    return {} if point is None else {"step": point.step.tolist(), "centre": point.centre.tolist()}


def _describe_selector(selector: PathSelector) -> dict[str, Any]:
    return {
        "structure_id": selector.structure_id,
        "parent_id": selector.parent_id,
        "projection": selector.projection.kind,
        "in_features": selector.in_features,
        "layer_widths": list(selector.widths),
        "paths": selector.n_paths,
        "paths_pruned": count_paths(selector.widths) - selector.n_paths,
    }


def model_sizes(model: GLAI) -> dict[str, Any]:
    """Count units, paths, parameters (all, and trained) and the bytes of the tensors that :meth:`GLAI.save` writes."""
    tensors = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if isinstance(tensor, Tensor) and not name.startswith("selector.output_")
    }
    trained = model.estimator.trained_parameters
    selector = sum(
        t.numel() for n, t in tensors.items() if n.startswith("selector.") and t.is_floating_point()
    )
    return {
        "layer_widths": list(model.selector.widths),
        "paths": model.selector.n_paths,
        "parameters": selector + trained + model.estimator.frozen_parameters,
        "trained_parameters": trained,
        "bytes": sum(t.numel() * t.element_size() for t in tensors.values()),
    }


def describe_patterns(structure: PathSelector | GateStore, layers: Sequence[PackedGates]) -> dict[str, Any]:
    """Return density, deviation, unique patterns, always-on and never-on units (per hidden layer) and paths.

    Args:
        structure: whose gates they are.
        layers: unit bits per hidden layer.
    """
    counts = count_gates(structure, layers)
    if counts.samples == 0:
        return {"samples": 0}
    units = [_shares(on, counts.samples) for on in counts.units]
    return {
        "samples": counts.samples,
        "unique_patterns": len(pattern_sizes(layers)),
        "unique_patterns_per_layer": [len(pattern_sizes([layer])) for layer in layers],
        **{f"unit_{name}": [unit[name] for unit in units] for name in units[0]},
        "paths": len(counts.paths),
        **{f"path_{name}": share for name, share in _shares(counts.paths, counts.samples).items()},
        "oui": round(oui(layers), 4) if counts.samples > 1 else None,
    }


def _shares(counts: Tensor, n_samples: int) -> dict[str, Any]:
    on = counts.double() / n_samples
    return {
        "density": round(float(on.mean()), 4),
        "deviation": round(float(torch.minimum(on, 1 - on).mean()), 4),
        "always_on": int((counts == n_samples).sum()),
        "never_on": int((counts == 0).sum()),
    }


def compare(
    first: PathSelector | GateStore,
    second: PathSelector | GateStore,
    a: Sequence[PackedGates] | None = None,
    b: Sequence[PackedGates] | None = None,
) -> dict[str, Any]:
    """Return how far two structures agree, per hidden layer.

    Args:
        first: one structure.
        second: the other.
        a: unit bits per hidden layer of the first; None: not known.
        b: of the second, for the same samples.
    """
    figures: dict[str, Any] = {"same_structure": first.structure_id == second.structure_id}
    if isinstance(first, PathSelector) and isinstance(second, PathSelector):
        figures["second_made_from_first"] = second.parent_id == first.structure_id
        figures["first_made_from_second"] = first.parent_id == second.structure_id
    if a is None or b is None:
        return figures | {"agreement": "not known: it needs two gate stores, or --data with two models"}
    if len(a) != len(b) or len(a[0]) != len(b[0]) or not len(a[0]):
        return figures | {
            "agreement": "not known: it needs the gates of the same samples and as many hidden layers"
        }
    pairs = [layer_agreement(one, other) for one, other in zip(a, b, strict=True)]
    return figures | {
        "agreement": [round(pair.matched, 4) for pair in pairs],
        "agreement_by_number": [None if pair.numbered is None else round(pair.numbered, 4) for pair in pairs],
        "matched_units": [pair.pairs for pair in pairs],
    }
