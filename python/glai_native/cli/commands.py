"""This file lists the commands of ``glai`` by name: what each is for, and who adds its arguments.

It is read before anything else is imported: ``glai --help`` must not wait for torch. Other packages add commands by
the entry point group :data:`GROUP`; each entry names a function that takes argparse's subparsers.
"""

from __future__ import annotations

from typing import NamedTuple

GROUP = "glai_native.commands"


class Command(NamedTuple):
    """``summary``: a line of help. ``added_by``: ``"module:function"``, which takes argparse's subparsers."""

    summary: str
    added_by: str


COMMANDS = {
    "demo": Command("the main job, end to end, on real data", "glai_native.cli.demo.command:add"),
    "train": Command("train a model on your data and save it", "glai_native.cli.train.command:add"),
    "learn": Command("let samples join what a model has seen", "glai_native.cli.learn.command:add_learn"),
    "forget": Command("take samples out of a model again", "glai_native.cli.learn.command:add_forget"),
    "predict": Command("write what a model says of your data", "glai_native.cli.predict.command:add_predict"),
    "evaluate": Command(
        "show how right a model is on labelled data", "glai_native.cli.predict.command:add_evaluate"
    ),
    "inspect": Command(
        "show a build, a model or a gate store, or compare two",
        "glai_native.cli.structures.command:add_inspect",
    ),
    "prune": Command(
        "drop paths that are never on, fold those that always are",
        "glai_native.cli.structures.command:add_prune",
    ),
    "grow": Command("add units without changing the output", "glai_native.cli.structures.command:add_grow"),
    "federate": Command(
        "train one model on data that several owners keep, simulated with Flower",
        "glai_native.cli.federate:add",
    ),
    "merge": Command("merge models of one structure", "glai_native.cli.merge:add"),
}
