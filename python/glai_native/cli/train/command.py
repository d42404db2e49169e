"""This file holds the arguments of ``glai train``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from glai_native.cli.arguments import (
    components,
    penalty_or_choice,
    positive_integer,
    positive_number,
    seed,
    share,
)
from glai_native.cli.command import add_command, add_data, add_out
from glai_native.cli.commands import COMMANDS
from glai_native.solvers.names import SOLVERS

TRAIN_EXAMPLES = """\
examples:
  glai train digits --out model                      scikit-learn's digits; solver chosen and explained
  glai train mnist/ --out model --hidden 192         a folder of MNIST's IDX files (plain or .gz)
  glai train data.npz --out model --solver sgd --epochs 5 --seed 1
  glai train data.npz --out model --components 50 --json
  glai train digits --out model --energy --country ESP   joules, beside those of the MLP of the same layers
tables, .csv or .parquet: numbers are standardised, texts one-hot, gaps filled and marked; the model keeps how
  glai train houses.csv --label price --out model            classes, or values where price is not a few whole numbers
  glai train houses.csv --label price --test-share 0.2 --out model     tested on a fifth, which is not trained on
  glai train houses.csv --label price --test new.csv --out model       tested on another file
  glai train houses.csv --label rooms --task regression --categories zip --drop name --out model
  glai predict model new.csv --out prices.csv                a category that was not there at first counts as none
on many processes or hosts, by gradients, statistics or, to the bits of one process, --exact:
  torchrun --nproc-per-node 2 --no-python glai train digits --out model --solver sgd
  torchrun --nproc-per-node 2 --no-python glai train data.npz --exact --out model
learning, forgetting and merging that is exact to the bit:
  glai train data.npz --exact --out model            then glai learn, forget, merge
  glai train data.npz --exact --units 4096 --structure trained --out model
  glai train first.npz --exact --structure random --out model      glai learn brings classes that are not yet there
data that need not fit in memory: a folder with x.npy and y.npy, or a table; large ones are read a part at a time
  glai train large/ --out model --checkpoint 60                    killed? the same again, with --resume
  glai train large/ --exact --out model --checkpoint 60
re-training, the structure kept byte for byte:
  glai train all.npz --structure model --out again           all data anew
  glai train digits --out model --solver statistics          keeps what increments need
  glai train new.npz --structure model --increment --out more     joins new samples, new classes too
"""


def add(commands: Any) -> None:
    """Add ``train`` to the command line's subparsers."""
    train = add_command(commands, "train", COMMANDS["train"].summary, TRAIN_EXAMPLES, _train)
    add_data(train)
    add_out(train)
    train.add_argument(
        "--task",
        choices=("auto", "classification", "regression"),
        default="auto",
        help="whether the label names classes or is a value (default: values are numbers that are not all whole and, "
        "in a table, more than 20 different whole ones, unless they number classes; the report says which)",
    )
    train.add_argument(
        "--regression",
        dest="task",
        action="store_const",
        const="regression",
        help="short for --task regression",
    )
    tested = train.add_mutually_exclusive_group()
    tested.add_argument(
        "--test-share",
        type=share,
        metavar="SHARE",
        help="test on this share of the samples, and do not train on it (default: all are trained on, but of data that "
        "come in train and test, and a quarter of digits)",
    )
    tested.add_argument("--test", type=Path, metavar="FILE", help="test on the samples of this file")
    train.add_argument(
        "--categories",
        nargs="+",
        default=(),
        metavar="COLUMN",
        help="of a table, columns of numbers that are names, such as codes; those of texts are categories anyway. "
        "Each category of two rows or more, of the 100 most frequent, becomes a column of 0 and 1, the others share "
        "one; one that the training did not see is zeros in all of them",
    )
    train.add_argument(
        "--drop", nargs="+", default=(), metavar="COLUMN", help="of a table, columns that are left out"
    )
    train.add_argument(
        "--no-preparation",
        action="store_true",
        help="of a table: take its numbers as they are; texts and gaps are refused",
    )
    train.add_argument(
        "--hidden",
        type=positive_integer,
        nargs="+",
        metavar="UNITS",
        help="units of the selector's hidden layers (default: 512; 256 of more than 512 features)",
    )
    train.add_argument(
        "--components",
        type=components,
        metavar="K",
        help="principal components of x to keep, or 'all' (default), which 'auto' is too",
    )
    train.add_argument("--solver", choices=SOLVERS, default="auto", help="default: %(default)s")
    train.add_argument(
        "--structure-epochs", type=positive_integer, help="at most (default: by the samples, 15 to 100)"
    )
    train.add_argument(
        "--structure",
        type=Path,
        metavar="FOLDER",
        help="re-train: keep the structure of this model, and start from its numbers; of --exact: random, "
        "covariance, trained, auto (default: trained units where samples held out prefer them to random ones; of data "
        "that classes will join later, take random), or another exact model's folder, so that the two can be merged",
    )
    train.add_argument(
        "--increment",
        action="store_true",
        help="DATA join what the model of --structure has seen, instead of being all there is",
    )
    train.add_argument(
        "--epochs",
        type=positive_integer,
        help="of the native loop, at most (default: 10 or more)",
    )
    train.add_argument("--learning-rate", type=positive_number, help="of the native loop (default: 0.001)")
    train.add_argument(
        "--l2",
        type=penalty_or_choice,
        help="of the closed forms: a number or gcv, of --exact also held-out (default: chosen)",
    )
    train.add_argument(
        "--exact",
        action="store_true",
        help="learn by integer sums: glai learn, forget and merge then leave the same bits as training anew",
    )
    train.add_argument("--units", type=positive_integer, help="of --exact (default: 2048)")
    train.add_argument(
        "--no-ledger",
        action="store_true",
        help="of --exact: keep no hash of each sample; forgetting what was never learnt then goes unnoticed",
    )
    train.add_argument(
        "--checkpoint",
        type=positive_number,
        metavar="SECONDS",
        help="keep what the training has come to beside --out, which --resume goes on with after a kill: of --exact "
        "the sums every so many seconds, otherwise the structure, and each epoch of the native loop",
    )
    train.add_argument(
        "--resume",
        action="store_true",
        help="go on from what the same command kept before it was killed, to the same bits",
    )
    train.add_argument(
        "--energy",
        action="store_true",
        help="joules and CO2 of each phase, and of the MLP of the same layers",
    )
    train.add_argument(
        "--country", metavar="ISO", help="whose grid CO2 is of, such as ESP (default: the world's)"
    )
    train.add_argument("--seed", type=seed, default=0, help="default: %(default)s")


def _train(arguments: argparse.Namespace) -> int:
    from glai_native.cli.train.exact import require_no_exact_options, train_exact
    from glai_native.cli.train.session import train
    from glai_native.machine.memory import give_back_large_blocks

    give_back_large_blocks()
    if arguments.exact:
        return train_exact(arguments)
    require_no_exact_options(arguments)
    return train(arguments)
