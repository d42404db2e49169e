"""This file holds the command ``glai merge``."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glai_native.cli.arguments import penalty_or_gcv
from glai_native.cli.command import add_command, add_out, require_new_folder, show
from glai_native.cli.commands import COMMANDS
from glai_native.model.names import METHODS

if TYPE_CHECKING:
    from glai_native.model.glai import GLAI

MERGE_EXAMPLES = """\
examples:
  glai merge site-a site-b site-c -o merged
  glai merge site-a site-b -o merged --method statistics       as if trained on all data in one place
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
        default="samples",
        help="weights averaged by samples (default), or by how often a path was on for a class; or sums of "
        "statistics, solved: exact, for models of 'glai train --solver statistics'",
    )
    parser.add_argument(
        "--l2",
        type=penalty_or_gcv,
        help="of --method statistics: a number or gcv (default: as the models were solved)",
    )


def _merge(arguments: argparse.Namespace) -> int:
    from glai_native.cli.models import keep_names, names_of
    from glai_native.model.aligning import equal_models
    from glai_native.model.merging import merge

    require_new_folder(arguments.out)
    models = [_mergeable(folder) for folder in arguments.models]
    names = [str(folder) for folder in arguments.models]
    for (a, first), (b, second) in itertools.combinations(zip(arguments.models, models, strict=True), 2):
        if a.resolve() == b.resolve() or equal_models(first.estimator, second.estimator):
            raise ValueError(
                f"{a} and {b} must be models of different samples, got one twice; its samples would count twice"
            )
        if names_of(first).columns != names_of(second).columns:
            raise ValueError(f"{a} and {b} must be models of tables with the same columns in the same order")
    merged = merge(models, arguments.method, l2=arguments.l2, names=names)
    keep_names(merged, names_of(models[0]))
    merged.save(arguments.out)
    provenance = merged.estimator.provenance
    figures = {
        "method": arguments.method,
        **{f"samples of {party['name']}": party["samples"] for party in provenance["parties"]},
        "samples_seen": int(merged.estimator.samples_seen),
        **({"l2": provenance["l2"]} if "l2" in provenance else {}),
        **({"classes": merged.class_labels} if merged.class_labels is not None else {}),
        "structure_id": merged.structure_id,
        "folder": str(arguments.out),
    }
    show(figures, arguments.json)
    return 0


def _mergeable(folder: Path) -> GLAI:
    from glai_native.cli.models import kind_of, open_model
    from glai_native.model.glai import GLAI

    model = open_model(folder)
    if not isinstance(model, GLAI):
        raise ValueError(
            f"{folder}: must be a model with path weights to be merged, a {kind_of(model)} keeps samples; "
            "train it with: glai train DATA --solver statistics --out FOLDER"
        )
    return model
