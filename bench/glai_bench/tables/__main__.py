"""GLAI beside other learners on tables, every one at its defaults but one, an MLP that is tuned.

The others are a linear model, scikit-learn's MLP and gradient boosting, LightGBM where it is installed, and an MLP in
PyTorch whose width, rate, batch size and epochs are chosen once a table. Random gates are GLAI's control: the same
sizes and solvers over a selector that was never trained.

Inputs are standardised by the training samples, and so are the values of a regression. Each data set has one split into
training and test samples; the seeds change the learners alone. A figure is the test accuracy (R2 where values are
predicted), and the processor seconds of `fit` with one thread. The learners take turns within each seed. Gradient
boosting that is not done after ten processor minutes is ended, and said. Digits, breast cancer and diabetes come with
scikit-learn; the others are read from the folder that GLAI_DATA names, and are left out where it is not set. BANKING77,
MNIST and Tiny-ImageNet features take an hour and more.

A cell is written to the file as soon as it is measured and not measured again; the page and its picture go beside it.

python -m glai_bench.tables --quick
GLAI_DATA=data OMP_NUM_THREADS=1 python -m glai_bench.tables
GLAI_DATA=data OMP_NUM_THREADS=1 python -m glai_bench.tables --data letter protein --seeds 1 --output letter.json --json
GLAI_DATA=data OMP_NUM_THREADS=1 python -m glai_bench.tables --only 'MNIST/(GLAI|linear)/seed=0'
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from glai_bench.exact.recording import finished, opened, record
from glai_bench.folders import data_folder
from glai_bench.tables.cells import cells
from glai_bench.tables.data import EMBEDDED, NAMES
from glai_bench.tables.learners import LIGHTGBM, installed
from glai_bench.tables.report import write


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m glai_bench.tables",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", nargs="+", choices=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="of the learners (default: 3)")
    parser.add_argument(
        "--only", default="", metavar="PATTERN", help="cells whose name has this regular expression in it"
    )
    parser.add_argument("--quick", action="store_true", help="one seed of scikit-learn's data, no file")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("bench/results/tables.json"),
        metavar="FILE",
        help="default: bench/results/tables.json; the page has the suffix .md, the picture .png",
    )
    arguments = parser.parse_args(argv)
    folder = data_folder()
    there = NAMES if folder is not None and not arguments.quick else tuple(EMBEDDED)
    wanted = tuple(arguments.data or there)
    if missing := [name for name in wanted if name not in there]:
        parser.error(f"{', '.join(missing)}: read from the folder that GLAI_DATA names, which is not set")
    with tempfile.TemporaryDirectory() as scratch, threadpool_limits(1):
        torch.set_num_threads(1)
        output = Path(scratch) / "tables.json" if arguments.quick else arguments.output
        results = opened(parser, output, threads=1)
        if LIGHTGBM in installed():
            results["machine"]["packages"]["lightgbm"] = importlib.metadata.version("lightgbm")
        found = finished(results)
        chosen = cells(wanted, range(1 if arguments.quick else arguments.seeds), folder, found)
        record((cell for cell in chosen if re.search(arguments.only, cell.key)), results, found, output)
        page = write(results, output.with_suffix(".md"))
    print(json.dumps(results, indent=2) if arguments.json else page)


if __name__ == "__main__":
    main()
