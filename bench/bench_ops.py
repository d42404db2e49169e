"""Ratio of the best torch form to ours, per op, shape and density.

python bench/bench_ops.py --quick
python bench/bench_ops.py --threads 1 --output bench/results/cpu.json
"""

import argparse
import json
from pathlib import Path

from rich.console import Console

from glai_native.benchmark import bench_ops, print_results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few cases only")
    parser.add_argument("--threads", type=int, help="default: as torch")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="budget per op and case (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    arguments = parser.parse_args()
    results = bench_ops(quick=arguments.quick, threads=arguments.threads, seconds=arguments.seconds)
    print_results(results, Console())
    if arguments.output:
        arguments.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
