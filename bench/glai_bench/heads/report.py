"""Writes the page of heads on a frozen backbone.

GLAI_DATA=data python -m glai_bench.heads --json bench/results/heads.json && python -m glai_bench.heads.report
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from glai_bench.markdown import report_files, table_header, table_row, write_page

INTRODUCTION = (
    "`GLAI_DATA=data python -m glai_bench.heads --json bench/results/heads.json` measures this; "
    "`python -m glai_bench.heads.report` writes this page from it.",
    "On BANKING77's cached embeddings: all 77 classes (classify); a projection head under a contrastive loss that a "
    "linear probe scores (project); and few shots of classes that the structure was not trained on. Each head's "
    "learning rate is the best of a few on validation data. Heads with random gates, and those of a given structure, "
    "are controls: what remains without gates that were trained on the task.",
    "Heads of GLAI are of the kind that `replace_mlp` chooses, units for 64 outputs and more, full paths for the 5 "
    "of few shots, unless full paths or directions are named. Seconds are of one processor.",
)
SIZES = (
    "`replace_mlp` and `fit` at their defaults, 256 units, one seed: the network untrained (random gates), and after "
    "two epochs. The MLP and the probes have their weight decay or l2 chosen by the samples that `fit` gets as "
    "`validation=`; their seconds hold that choice.",
)


def main(argv: Sequence[str] | None = None) -> None:
    read, page = report_files("python -m glai_bench.heads.report", __doc__, "heads.json", None, argv)
    tasks = json.loads(read.read_text())
    write_page(page, "Heads on a frozen backbone", INTRODUCTION, markdown(tasks))


def markdown(tasks: dict[str, Any]) -> Iterator[str]:
    """A column per task, a line per head: accuracy ± standard error, and seconds of training; sizes apart."""
    sizes = {name: rows for name, rows in tasks.items() if any("says" in row for row in rows.values())}
    yield from _table({name: rows for name, rows in tasks.items() if name not in sizes})
    if sizes:
        yield from ("", "## At the sizes that people use", "", *SIZES, "")
        yield from _table(sizes)
        yield from ("", "What `fit` says:", "")
        for name, rows in sizes.items():
            yield from (f"- {name}, {head}: {row['says']}" for head, row in rows.items() if row["says"])


def _table(tasks: dict[str, Any]) -> Iterator[str]:
    heads = list(dict.fromkeys(head for rows in tasks.values() for head in rows))
    yield from table_header("accuracy, % ± standard error; processor seconds of training", *tasks)
    for head in heads:
        yield table_row(head, *(_cell(rows[head]) if head in rows else "" for rows in tasks.values()))


def _cell(row: dict[str, Any]) -> str:
    error = row["standard_error"]
    accuracy = f"{row['accuracy']:.2f}" if error is None else f"{row['accuracy']:.2f} ± {error:.2f}"
    return f"{accuracy}; {row['seconds']:.2f}" if row["seconds"] else accuracy


if __name__ == "__main__":
    main()
