"""What ``glai predict | evaluate`` do."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np

from glai_native.cli.command import chosen_part, show, show_rows, tell_unknown
from glai_native.cli.models import (
    Answers,
    Model,
    answers,
    features_for,
    has_values,
    kind_of,
    open_model,
    targets_for,
)
from glai_native.cli.predict.file import require_answers_file, write_answers
from glai_native.cli.predict.scores import class_scores, value_scores
from glai_native.data.sources import Rows, Source, read_source
from glai_native.machine.progress import samples_bar
from glai_native.training.tables import names_of


def predict(arguments: argparse.Namespace) -> int:
    """Write what a model says of data; return the exit status."""
    require_answers_file(arguments.out, arguments.proba)
    model = open_model(arguments.model)
    if arguments.proba and has_values(model):
        raise ValueError("--proba needs a model of classes, and the outputs of this one are values")
    _, figures, found, rows = _answered(model, arguments)
    write_answers(arguments.out, found, rows.ids, arguments.proba)
    if found.classes is not None:
        counts = np.bincount(found.best, minlength=len(found.classes)).tolist()
        pairs = zip(found.classes, counts, strict=True)
        figures["answers"] = [{"class": label, "samples": n} for label, n in pairs if n]
    _print(figures | {"file": str(arguments.out)}, "answers", arguments.json)
    return 0


def evaluate(arguments: argparse.Namespace) -> int:
    """Show how right a model is; return the exit status."""
    model = open_model(arguments.model)
    source, figures, found, rows = _answered(model, arguments, scored=True)
    targets = targets_for(model, source, rows).numpy()
    figures |= value_scores(found, targets) if found.classes is None else class_scores(found, targets)
    _print(figures, "per_class", arguments.json)
    return 0


def _answered(
    model: Model, arguments: argparse.Namespace, *, scored: bool = False
) -> tuple[Source, dict[str, Any], Answers, Rows]:
    """Return the data, what is known of them and the model, the answers, and the samples that they are of."""
    source = read_source(arguments.data, arguments.label, names_of(model), labelled=scored)
    tell_unknown(source)
    part = chosen_part(arguments.part, source, "test")
    split = {"of_classes": not has_values(model), "test_share": arguments.test_share}
    rows = source.rows(part, arguments.seed, **split)
    if scored:
        targets_for(model, source, rows)  # what is wrong with them is said before the work
    x = features_for(model, source, rows)
    started = time.perf_counter()
    with samples_bar("predicting", len(x)) as done:
        found = answers(model, x, done)
    figures = {
        "model": str(arguments.model),
        "kind": kind_of(model),
        "data": source.name,
        "part": part,
        "samples": len(x),
        "seconds": round(time.perf_counter() - started, 3),
    }
    return source, figures, found, rows


def _print(figures: dict[str, Any], of_each: str, as_json: bool) -> None:
    """Print figures; those of each class, a list of dicts of that name, as a table of their own."""
    if as_json:
        print(json.dumps(figures, indent=2))
        return
    show({name: value for name, value in figures.items() if name != of_each}, False)
    each = figures.get(of_each)
    if each:
        show_rows(each)
