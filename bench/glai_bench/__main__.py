"""Ratio of the best torch form to ours, per op, shape, gates and number of threads, or precision of a GPU.

GLAI_DATA names the folder with MNIST and BANKING77, whose selectors' gates are timed beside independent ones (CPU).

python -m glai_bench --quick
python -m glai_bench --output bench/results/cpu.json && python -m glai_bench.report
python -m glai_bench --device cuda --quick
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from glai_bench.command import add_bench_arguments, print_bench, run_bench
from glai_bench.folders import results_folder


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m glai_bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_bench_arguments(parser)
    parser.add_argument(
        "--output", type=Path, help="also write the figures as JSON (GPU: bench/results/<card>.json)"
    )
    arguments = parser.parse_args(argv)
    try:
        # Looked for before the work: a card's results are always kept.
        folder = results_folder() if arguments.device == "cuda" and not arguments.output else None
        results = run_bench(arguments)
    except (RuntimeError, ValueError, OSError) as error:
        print(f"python -m glai_bench: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    output = folder / card_file(results["machine"]["card"]) if folder else arguments.output
    if output:  # first: the figures took longer than the tables
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(results, indent=1) + "\n")
    print_bench(results, Console(), every_row=arguments.all)
    return 0


def card_file(card: str) -> str:
    """Return the name of the file that a card's results go to: each has its own."""
    return re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-") + ".json"


if __name__ == "__main__":
    sys.exit(main())
