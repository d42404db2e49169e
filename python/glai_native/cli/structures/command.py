"""``glai inspect | prune | grow`` look at structures, and make others of them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from glai_native.cli.arguments import positive_integer, seed
from glai_native.cli.command import add_command, add_out, require_new_folder, require_plot, show
from glai_native.cli.commands import COMMANDS
from glai_native.gates.packed import PackedGates
from glai_native.gates.store import GateStore
from glai_native.model.glai import GLAI
from glai_native.model.growing import grow
from glai_native.model.pruning import prune
from glai_native.structure.selector import PathSelector

if TYPE_CHECKING:
    from glai_native.data.labelled import LabelledData

INSPECT_EXAMPLES = """\
examples:
  glai inspect                                       what this build can do
  glai inspect glai-demo                             a model
  glai inspect glai-demo/gates                       a gate store: density, deviation, patterns, constant units
  glai inspect glai-demo --data digits --plot a.png  a model's gates on a data set, and a picture
  glai inspect glai-demo other --data digits         how far two models' units agree on it
  glai inspect gates other-gates --json              two stores of the same samples; figures as JSON
"""
PRUNE_EXAMPLES = """\
examples:
  glai prune glai-demo --store glai-demo/gates -o smaller            same output on the samples of the store
  glai prune glai-demo --data digits -o smaller                      on the training samples of a data set
  glai prune glai-demo --data digits --keep 0.5 -o half              half of the paths, and the accuracy it costs
"""
GROW_EXAMPLES = """\
examples:
  glai grow glai-demo --units 64 -o larger            64 units more in the first hidden layer, same output
  glai grow two-layers --layer 1 --units 8 -o larger  in the second
"""


def add_inspect(commands: Any) -> None:
    """Add ``inspect`` to the command line's subparsers."""
    inspect = add_command(commands, "inspect", COMMANDS["inspect"].summary, INSPECT_EXAMPLES, _inspect)
    inspect.add_argument(
        "folder", type=Path, nargs="?", help="a model's or a store's folder (default: the build)"
    )
    inspect.add_argument("other", type=Path, nargs="?", help="another one to compare it with")
    _add_data(inspect, "compute the gates of models on its training samples")
    inspect.add_argument("--plot", type=Path, metavar="FILE", help="draw the gates (.png, .pdf or .svg)")


def add_prune(commands: Any) -> None:
    """Add ``prune`` to the command line's subparsers."""
    prune = add_command(commands, "prune", COMMANDS["prune"].summary, PRUNE_EXAMPLES, _prune)
    prune.add_argument("model", type=Path, metavar="MODEL", help="folder of the model")
    prune.add_argument("--store", type=Path, metavar="FOLDER", help="gates of the samples that count")
    _add_data(prune, "its training samples count instead, and accuracy on its test samples is shown")
    further = prune.add_mutually_exclusive_group()
    further.add_argument(
        "--keep", type=float, metavar="SHARE", help="keep this share of the paths that are left, in (0, 1]"
    )
    further.add_argument(
        "--min-norm",
        type=float,
        metavar="X",
        help="drop paths whose norm times their gate's standard deviation is less",
    )
    add_out(prune)


def add_grow(commands: Any) -> None:
    """Add ``grow`` to the command line's subparsers."""
    grow = add_command(commands, "grow", COMMANDS["grow"].summary, GROW_EXAMPLES, _grow)
    grow.add_argument("model", type=Path, metavar="MODEL", help="folder of the model")
    grow.add_argument("--units", type=positive_integer, required=True, help="how many to add")
    grow.add_argument(
        "--layer", type=int, default=0, help="hidden layer, 0 for the first (default: %(default)s)"
    )
    grow.add_argument("--seed", type=seed, default=0, help="default: %(default)s")
    add_out(grow)


def _add_data(parser: argparse.ArgumentParser, purpose: str) -> None:
    parser.add_argument(
        "--data", type=Path, metavar="PATH", help=f"'digits', MNIST's folder, or .npz: {purpose}"
    )


def _inspect(arguments: argparse.Namespace) -> int:
    from glai_native.cli.structures.inspection import (
        compare,
        describe,
        open_folder,
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
    structures = [structure_of(one) for one in opened]
    data = _load(arguments.data, *(one for one in structures if isinstance(one, PathSelector)))
    gates = [unit_gates_of(one, None if data is None else data.x_train) for one in opened]
    described = [describe(one, layers) for one, layers in zip(opened, gates, strict=True)]
    if len(opened) == 1:
        show(described[0], arguments.json)
    else:
        comparison = compare(structures[0], structures[1], *gates)
        show({"first": described[0], "second": described[1]} | comparison, arguments.json)
    if arguments.plot is not None:
        from glai_native.cli.structures.plot import save_pattern_plot

        save_pattern_plot(arguments.plot, list(zip(map(str, folders), gates, strict=True)))
        print(f"Drawn: {arguments.plot}", file=sys.stderr)
    return 0


def _prune(arguments: argparse.Namespace) -> int:
    require_new_folder(arguments.out)
    model = GLAI.load(arguments.model)
    data = _load(arguments.data, model.selector)
    if data is not None and data.n_classes > model.estimator.out_features:
        raise ValueError(
            f"{arguments.data}: must have at most C={model.estimator.out_features} classes like the model's outputs, "
            f"got {data.n_classes}"
        )
    gates: GateStore | list[PackedGates] | None = None
    if arguments.store is not None:
        gates = GateStore.open(arguments.store)
    elif data is not None:
        gates = model.selector.unit_gates(data.x_train)
    if gates is None:
        raise ValueError("--store or --data must say over which samples paths are never or always on")
    pruned = prune(model, gates, min_norm=arguments.min_norm, keep=arguments.keep)
    pruned.save(arguments.out)
    show(_change(model, pruned, arguments.out, data), arguments.json)
    return 0


def _grow(arguments: argparse.Namespace) -> int:
    require_new_folder(arguments.out)
    model = GLAI.load(arguments.model)
    grown = grow(model, arguments.layer, arguments.units, arguments.seed)
    grown.save(arguments.out)
    show(_change(model, grown, arguments.out), arguments.json)
    return 0


def _load(path: Path | None, *selectors: PathSelector) -> LabelledData | None:
    """Load data that the structures are to read, in the widest dtype that one of them centres in."""
    from glai_native.data.labelled import load_data

    wide = any(selector.projection.centred_in == torch.float64 for selector in selectors)
    return None if path is None else load_data(path, centred_in=torch.float64 if wide else None)


def _change(before: GLAI, after: GLAI, folder: Path, data: LabelledData | None = None) -> dict[str, Any]:
    """Return sizes before and after and, of labelled data, what happened to the output."""
    from glai_native.cli.structures.inspection import model_sizes

    models = {"before": before, "after": after}
    figures: dict[str, Any] = {name: model_sizes(model) for name, model in models.items()}
    if data is not None:
        for name, model in models.items():
            figures[name]["accuracy_test"] = _accuracy(model, data)
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


def _accuracy(model: GLAI, data: LabelledData) -> float:
    with torch.no_grad():
        return round(float((model(data.x_test).argmax(1) == data.y_test).double().mean()), 4)
