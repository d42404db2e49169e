"""Class-incremental learning without replay: the exact head against the field's learners, on the same frozen features.

Tasks bring new classes; after the last one all classes are tested. The seed draws the order of the classes, the random
units and the starts of networks. Tiny-ImageNet features, BANKING77 and MNIST are read from the folder that GLAI_DATA
names; digits, which come with scikit-learn, are the quick run. A cell is written to the file as soon as it is measured
and not measured again; the page goes beside it. Sections: accuracy, one-class (a task for every class), structure
(trained on the first task, on all), task (seconds of learning one), forgetting, energy.

python -m glai_bench.exact.incremental --quick
GLAI_DATA=data OMP_NUM_THREADS=1 python -m glai_bench.exact.incremental
GLAI_DATA=data OMP_NUM_THREADS=1 python -m glai_bench.exact.incremental --data banking --sections accuracy --seeds 2
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from glai_bench.exact.cells import SECTIONS, Cells
from glai_bench.exact.recording import add_run_arguments, finished, opened, record
from glai_bench.exact.report import write
from glai_bench.exact.streams import SOURCES
from glai_bench.folders import DATA_VARIABLE, data_folder

COMMAND = "python -m glai_bench.exact.incremental"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog=COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = list(SOURCES)
    parser.add_argument(
        "--quick", action="store_true", help="digits, one seed, all sections but energy; no file"
    )
    parser.add_argument(
        "--data", nargs="+", choices=names, default=names[:-1], metavar="NAME", help=", ".join(names)
    )
    parser.add_argument(
        "--sections",
        nargs="+",
        choices=SECTIONS,
        default=list(SECTIONS),
        metavar="NAME",
        help=", ".join(SECTIONS),
    )
    parser.add_argument(
        "--sizes", nargs="+", type=int, metavar="M", help="of the Gram (default: each data set's own)"
    )
    parser.add_argument(
        "--only", default="", metavar="PATTERN", help="cells whose name has this regular expression in it"
    )
    add_run_arguments(parser)
    arguments = parser.parse_args(argv)
    folder = data_folder()
    if folder is None and not arguments.quick:
        parser.error(f"set {DATA_VARIABLE} to the folder that holds the data, or ask for --quick")
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "quick.json" if arguments.quick else arguments.output
        results = opened(parser, output, arguments.threads)
        sections = tuple(arguments.sections)
        if arguments.quick:
            sections = tuple(section for section in sections if section != "energy")
        found = finished(results)
        seeds = range(1 if arguments.quick else arguments.seeds)
        for name in ["digits"] if arguments.quick else arguments.data:
            cells = Cells(name, folder, seeds, found)
            chosen = cells.of(sections, arguments.sizes and tuple(arguments.sizes))
            chosen = (cell for cell in chosen if re.search(arguments.only, cell.key))
            record(chosen, results, found, output)
        page = write(results, output.with_suffix(".md"))
    if arguments.quick:
        print(page)


if __name__ == "__main__":
    main()
