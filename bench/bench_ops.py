"""Ratio of the best torch form to ours, per op, shape, gates and number of threads, or precision of a GPU.

GLAI_DATA names the folder with MNIST and BANKING77, whose selectors' gates are timed beside independent ones (CPU).

python bench/bench_ops.py --quick
python bench/bench_ops.py --output bench/results/cpu.json
python bench/bench_ops.py --device cuda --quick
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from glai_native.cli.main import add_bench_arguments, print_bench, run_bench

RESULTS = Path(__file__).parent / "results"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_bench_arguments(parser)
    parser.add_argument(
        "--output", type=Path, help="also write the figures as JSON (GPU: bench/results/<card>.json)"
    )
    arguments = parser.parse_args(argv)
    try:
        results = run_bench(arguments)
    except (RuntimeError, ValueError) as error:
        print(f"bench_ops.py: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    output = arguments.output or results_file(results)
    if output:  # first: the figures took longer than the tables
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(results, indent=1) + "\n")
    print_bench(results, Console(), every_row=arguments.all)
    return 0


def results_file(results: dict[str, Any]) -> Path | None:
    """Where a card's results go: each has its own."""
    card = results["machine"].get("card")
    return RESULTS / (re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-") + ".json") if card else None


if __name__ == "__main__":
    sys.exit(main())
