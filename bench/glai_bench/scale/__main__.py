"""One machine, up to a million rows: what GLAI's ways to read them in chunks cost, and what others cost.

A seeded generator writes rows as arrays and as parquet. Each cell is a process of its own, with one thread, whose
processor seconds and peak memory are measured, and which is tested on 20,000 further rows. A cell is written to the
file as soon as it is measured and not measured again; the page and its picture go beside it. What others have not done
after ten processor minutes is ended, and said. All rows together take 2.5 GB on disk; name a folder to keep them.

python -m glai_bench.scale --quick
OMP_NUM_THREADS=1 python -m glai_bench.scale --folder /dev/shm/rows
OMP_NUM_THREADS=1 python -m glai_bench.scale --only 'glai train/.*N=1000000'
"""

from __future__ import annotations

import argparse
import itertools
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from glai_bench.exact.recording import finished, opened, record
from glai_bench.scale import same_bits
from glai_bench.scale.cells import FULL, QUICK, cells
from glai_bench.scale.report import write

COMMAND = "python -m glai_bench.scale"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog=COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="2,000 rows; the page is printed, no file")
    parser.add_argument(
        "--only", default="", metavar="PATTERN", help="cells whose name has this regular expression in it"
    )
    parser.add_argument(
        "--folder", type=Path, help="where the rows are kept (default: one that is removed again)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("bench/results/scale.json"),
        metavar="FILE",
        help="default: bench/results/scale.json; the page has the suffix .md, the picture .png",
    )
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "scale.json" if arguments.quick else arguments.output
        folder = arguments.folder or Path(scratch) / "rows"
        folder.mkdir(parents=True, exist_ok=True)
        results = opened(parser, output, threads=1)
        sizes = QUICK if arguments.quick else FULL
        checks = same_bits.cells(sizes.same, sizes.features[0], sizes.units[0], folder)
        chosen = itertools.chain(cells(sizes, folder), checks)
        wanted = (cell for cell in chosen if re.search(arguments.only, cell.key))
        record(wanted, results, finished(results), output)
        page = write(results, output.with_suffix(".md"))
    if arguments.quick:
        print(page)


if __name__ == "__main__":
    main()
