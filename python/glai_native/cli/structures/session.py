"""What ``glai inspect | prune | grow`` do."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.metrics import r2_score

from glai_native.cli.command import require_new_folder, require_plot, show
from glai_native.cli.models import Opened, PathModel, open_folder, open_path_model
from glai_native.data.labels import label_indices, require_same_type
from glai_native.data.tables import NO_TABLE
from glai_native.gates.packed import PackedGates
from glai_native.gates.store import GateStore
from glai_native.model.glai import GLAI
from glai_native.model.growing import grow
from glai_native.model.pruning import prune
from glai_native.training.exact.learner import ExactLearner
from glai_native.training.tables import keep_names, names_of

if TYPE_CHECKING:
    from glai_native.data.labelled import LabelledData


def inspect(arguments: argparse.Namespace) -> int:
    """Show a build, a model or a gate store, or compare two; return the exit status."""
    from glai_native.cli.structures.inspection import (
        compare,
        describe,
        structure_of,
        unit_gates_of,
    )
    from glai_native.machine.backend import build_info

    folders = [folder for folder in (arguments.folder, arguments.other) if folder is not None]
    if not folders:
        if arguments.data is not None or arguments.plot is not None:
            raise ValueError("--data and --plot must come with the folder of a model or a gate store")
        show(build_info(), arguments.json)
        return 0
    if arguments.plot is not None:
        require_plot(arguments.plot)
    opened = [open_folder(folder) for folder in folders]
    if any(isinstance(one, ExactLearner) for one in opened):
        return _inspect_exact(arguments, opened)
    paths = [one for one in opened if not isinstance(one, ExactLearner)]
    structures = [structure_of(one) for one in paths]
    data = _load(arguments.data, *(one for one in paths if not isinstance(one, GateStore)))
    gates = [unit_gates_of(one, None if data is None else data.x_train) for one in paths]
    described = [describe(one, layers) for one, layers in zip(paths, gates, strict=True)]
    if len(paths) == 1:
        show(described[0], arguments.json)
    else:
        comparison = compare(structures[0], structures[1], *gates)
        show({"first": described[0], "second": described[1]} | comparison, arguments.json)
    if arguments.plot is not None:
        from glai_native.cli.structures.plot import save_pattern_plot

        save_pattern_plot(arguments.plot, list(zip(map(str, folders), gates, strict=True)))
        print(f"Drawn: {arguments.plot}", file=sys.stderr)
    return 0


def _inspect_exact(arguments: argparse.Namespace, opened: Sequence[Opened]) -> int:
    """Show an exact model, or what it has in common with another."""
    from glai_native.cli.structures.inspection import describe, describe_exact

    if arguments.data is not None or arguments.plot is not None:
        raise ValueError("--data and --plot show gates, which a model of 'glai train --exact' has none of")
    described = [describe_exact(one) if isinstance(one, ExactLearner) else describe(one) for one in opened]
    if len(opened) == 1:
        show(described[0], arguments.json)
        return 0
    first, second = described
    same = {f"same_{name}": first.get(name) == second.get(name) for name in ("features_id", "digest")}
    show({"first": first, "second": second} | same, arguments.json)
    return 0


def prune_model(arguments: argparse.Namespace) -> int:
    """Save what :func:`prune` leaves of a model; return the exit status."""
    require_new_folder(arguments.out)
    model = open_path_model(arguments.model, "pruned")
    data = _load(arguments.data, model)
    if data is not None:
        _require_known_targets(arguments.data, model, data)
    gates: GateStore | list[PackedGates] | None = None
    if arguments.store is not None:
        gates = GateStore.open(arguments.store)
    elif data is not None:
        gates = model.selector.unit_gates(data.x_train)
    if gates is None:
        raise ValueError("--store or --data must say over which samples paths are never or always on")
    pruned = prune(model, gates, min_norm=arguments.min_norm, keep=arguments.keep)
    keep_names(pruned, names_of(model))
    pruned.save(arguments.out)
    show(_change(model, pruned, arguments.out, data), arguments.json)
    return 0


def grow_model(arguments: argparse.Namespace) -> int:
    """Save what :func:`grow` makes of a model; return the exit status."""
    require_new_folder(arguments.out)
    model = open_path_model(arguments.model, "grown")
    grown = grow(model, arguments.layer, arguments.units, arguments.seed)
    keep_names(grown, names_of(model))
    grown.save(arguments.out)
    show(_change(model, grown, arguments.out), arguments.json)
    return 0


def _load(path: Path | None, *models: PathModel) -> LabelledData | None:
    """Load data that the models are to read, all of them, in the widest dtype that one of them centres in."""
    if path is None:
        return None
    from glai_native.data.labelled import as_tensors
    from glai_native.data.trained_on import TestedOn, trained_on

    wide = any(model.selector.projection.centred_in == torch.float64 for model in models)
    centred_in = torch.float64 if wide else None
    known = next((names for names in map(names_of, models) if names.columns is not None), NO_TABLE)
    of_values = {model.estimator.has_values for model in models if isinstance(model, GLAI)}
    task = "auto" if len(of_values) != 1 else "regression" if True in of_values else "classification"
    # Nothing is trained, so nothing need be held out.
    found = trained_on(path, known=known, task=task, tested_on=TestedOn(), centred_in=centred_in)
    return as_tensors(found, centred_in=centred_in)


def _change(before: GLAI, after: GLAI, folder: Path, data: LabelledData | None = None) -> dict[str, Any]:
    """Return sizes before and after and, of labelled data, what happened to the output."""
    from glai_native.cli.structures.inspection import model_sizes

    models = {"before": before, "after": after}
    figures: dict[str, Any] = {name: model_sizes(model) for name, model in models.items()}
    if data is not None:
        for name, model in models.items():
            figures[name] |= _score(model, data)
        figures["largest_change_of_output_train"] = _largest_change(before, after, data)
    return figures | {
        "structure_id": after.structure_id,
        "parent_id": after.selector.parent_id,
        "folder": str(folder),
    }


def _largest_change(before: GLAI, after: GLAI, data: LabelledData) -> float:
    """Return the largest change of the output, relative to the largest output."""
    with torch.no_grad():
        expected = before(data.x_train)
        change = float((after(data.x_train) - expected).abs().max() / expected.abs().max())
    return float(f"{change:.2g}")


def _require_known_targets(path: Path, model: GLAI, data: LabelledData) -> None:
    """Raise unless the data have as many values as the model, or labels that are among the model's.

    The labels of outputs without are their indices.
    """
    n_outputs = model.estimator.out_features
    if data.has_values:
        if data.n_outputs != n_outputs:
            raise ValueError(
                f"{path}: must have C={n_outputs} values a sample like the model's outputs, got {data.n_outputs}"
            )
        return
    if data.n_classes > n_outputs:
        raise ValueError(
            f"{path}: must have at most C={n_outputs} classes like the model's outputs, got {data.n_classes}"
        )
    known = model.class_labels or list(range(n_outputs))
    require_same_type(str(path), known, data.classes, "y", "the model's")
    label_indices(str(path), np.array(data.classes), known)


def _score(model: GLAI, data: LabelledData) -> dict[str, float]:
    """Return accuracy or R2, by a name that says of which samples: those for test, or, where there are none, all."""
    has_test = len(data.x_test) > 0
    x, y = (data.x_test, data.y_test) if has_test else (data.x_train, data.y_train)
    part = "test" if has_test else "data"
    with torch.no_grad():
        outputs = model(x)
    if data.has_values:
        return {f"r2_{part}": round(r2_score(y, outputs), 4)}
    known = model.class_labels or list(range(model.estimator.out_features))
    numbers = torch.tensor([known.index(label) for label in data.classes], device="cpu")
    right = outputs.argmax(1) == numbers[y]
    return {f"accuracy_{part}": round(float(right.double().mean()), 4)}
