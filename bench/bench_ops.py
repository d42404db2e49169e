"""Ratio of the best torch form to ours, per op, shape, gates and number of threads.

GLAI_DATA names the folder with MNIST and BANKING77, whose selectors' gates are timed beside independent ones.

python bench/bench_ops.py --quick
python bench/bench_ops.py --output bench/results/cpu.json
"""

import argparse
import json
from pathlib import Path

from rich.console import Console

from glai_native.bench_tables import print_results
from glai_native.cli import add_bench_arguments, run_bench


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_bench_arguments(parser)
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    arguments = parser.parse_args()
    results = run_bench(arguments)
    if arguments.output:  # first: the figures took longer than the tables
        arguments.output.write_text(json.dumps(results, indent=1) + "\n")
    print_results(results, Console(), every_row=arguments.all)


if __name__ == "__main__":
    main()
