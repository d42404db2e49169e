"""This file holds the command ``glai merge``."""

from __future__ import annotations

import argparse
import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glai_native.cli.arguments import penalty_or_gcv
from glai_native.cli.command import add_command, add_out, require_new_folder, show
from glai_native.cli.commands import COMMANDS
from glai_native.model.names import METHODS

if TYPE_CHECKING:
    from glai_native.cli.models import Model
    from glai_native.model.glai import GLAI
    from glai_native.training.exact.learner import ExactLearner

MERGE_EXAMPLES = """\
examples:
  glai merge site-a site-b site-c -o merged
  glai merge site-a site-b -o merged --method statistics       as if trained on all data in one place
  glai merge exact-a exact-b -o merged                         of 'glai train --exact': the bits of all data at once
  glai merge site-a site-b -o merged --method activations_classes --json
"""


def add(commands: Any) -> None:
    """Add ``merge`` to the command line's subparsers."""
    parser = add_command(commands, "merge", COMMANDS["merge"].summary, MERGE_EXAMPLES, _merge)
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="folders of models")
    add_out(parser)
    parser.add_argument(
        "--method",
        choices=METHODS,
        help="weights averaged by samples (default), or by how often a path was on for a class; or sums of "
        "statistics, solved, for models of 'glai train --solver statistics'; those of 'glai train --exact' need none",
    )
    parser.add_argument(
        "--l2",
        type=penalty_or_gcv,
        help="of --method statistics: a number or gcv (default: as the models were solved)",
    )


def _merge(arguments: argparse.Namespace) -> int:
    from glai_native.cli.models import open_model
    from glai_native.training.exact.learner import ExactLearner
    from glai_native.training.tables import keep_names, names_of

    require_new_folder(arguments.out)
    models = [open_model(folder) for folder in arguments.models]
    for (a, first), (b, second) in itertools.combinations(zip(arguments.models, models, strict=True), 2):
        if a.resolve() == b.resolve() or _are_of_the_same_samples(first, second):
            raise ValueError(
                f"{a} and {b} must be models of different samples, got one twice; its samples would count twice"
            )
        if names_of(first).columns != names_of(second).columns:
            raise ValueError(f"{a} and {b} must be models of tables with the same columns in the same order")
        if names_of(first).preparation != names_of(second).preparation:
            raise ValueError(
                f"{a} and {b} must prepare their tables alike, and each has standardised its own; train the second "
                f"with --structure {a}, whose preparation it then takes"
            )
    merged: Model
    exact = [model for model in models if isinstance(model, ExactLearner)]
    if len(exact) == len(models):
        merged, figures = _merge_exact(arguments, exact)
    else:
        merged, figures = _merge_paths(arguments)
    keep_names(merged, names_of(models[0]))
    merged.save(arguments.out)
    show(figures | {"folder": str(arguments.out)}, arguments.json)
    return 0


def _are_of_the_same_samples(first: Model, second: Model) -> bool:
    from glai_native.model.aligning import equal_models
    from glai_native.model.glai import GLAI
    from glai_native.training.exact.learner import ExactLearner

    if isinstance(first, GLAI) and isinstance(second, GLAI):
        return equal_models(first.estimator, second.estimator)
    if isinstance(first, ExactLearner) and isinstance(second, ExactLearner):
        return first.n_samples_ > 0 and first.digest() == second.digest()
    return False


def _merge_paths(arguments: argparse.Namespace) -> tuple[GLAI, dict[str, Any]]:
    from glai_native.cli.models import open_path_model
    from glai_native.model.merging import merge

    models = [open_path_model(folder, "merged, or all of them exact") for folder in arguments.models]
    names = [str(folder) for folder in arguments.models]
    method = arguments.method or METHODS[0]
    merged = merge(models, method, l2=arguments.l2, names=names)
    provenance = merged.estimator.provenance
    return merged, {
        "method": method,
        **{f"samples of {party['name']}": party["samples"] for party in provenance["parties"]},
        "samples_seen": int(merged.estimator.samples_seen),
        **({"l2": provenance["l2"]} if "l2" in provenance else {}),
        **({"classes": merged.class_labels} if merged.class_labels is not None else {}),
        "structure_id": merged.structure_id,
    }


def _merge_exact(
    arguments: argparse.Namespace, models: Sequence[ExactLearner]
) -> tuple[ExactLearner, dict[str, Any]]:
    from glai_native.cli.models import has_values, labels_of

    for option in ("method", "l2"):
        if getattr(arguments, option) is not None:
            raise ValueError(
                f"--{option} is of other models: exact ones add up, and choose l2 as the first did"
            )
    merged = models[0]
    shared, named = 0, ""
    for other in models[1:]:
        mine, theirs = merged.statistics_, other.statistics_
        if mine.ledger is not None and theirs.ledger is not None and mine.features_id == theirs.features_id:
            both = mine.shared_with(theirs)
            shared += len(both)
            named = named or both.shown()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of shared samples, which the figures tell
            merged = merged.merge(other)
    samples = {
        f"samples of {folder}": model.n_samples_
        for folder, model in zip(arguments.models, models, strict=True)
    }
    return merged, {
        "method": "exact",
        **samples,
        "samples_seen": merged.n_samples_,
        "samples_counted_twice": shared,
        **({"counted_twice": named} if shared else {}),
        **({} if has_values(merged) else {"classes": labels_of(merged)}),
        "digest": merged.digest(),
        "l2": merged.l2_,
    }
