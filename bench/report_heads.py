"""Puts the accuracies of heads on a frozen backbone into the README.

GLAI_DATA=data python bench/bench_heads.py --json bench/results/heads.json && python bench/report_heads.py
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from report import ROOT, with_report

MARKER = "head results"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=ROOT / "bench/results/heads.json", metavar="FILE")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", metavar="FILE")
    arguments = parser.parse_args()
    part = "\n".join(markdown(json.loads(arguments.results.read_text())))
    text = with_report(arguments.readme.read_text(), part, MARKER, str(arguments.readme))
    arguments.readme.write_text(text)


def markdown(tasks: dict[str, Any]) -> Iterator[str]:
    """A column per task, a line per head: accuracy ± standard error, and seconds of training."""
    heads = list(dict.fromkeys(head for rows in tasks.values() for head in rows))
    yield f"| accuracy, % ± standard error; seconds of training | {' | '.join(tasks)} |"
    yield f"|{'---|' * (1 + len(tasks))}"
    for head in heads:
        cells = [_cell(rows[head]) if head in rows else "" for rows in tasks.values()]
        yield f"| {head} | {' | '.join(cells)} |"


def _cell(row: dict[str, Any]) -> str:
    error = row["standard_error"]
    accuracy = f"{row['accuracy']:.2f}" if error is None else f"{row['accuracy']:.2f} ± {error:.2f}"
    return f"{accuracy}; {row['seconds']:.2f}" if row["seconds"] else accuracy


if __name__ == "__main__":
    main()
