"""Writes the figures of the tables as one page of Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def markdown(results: Mapping[str, Any]) -> str:
    """Write the whole of tables.md; the best score of each data set is bold."""
    machine, versions, seeds = results["machine"], results["versions"], results["settings"]["seeds"]
    rows: dict[str, dict[str, Any]] = {}
    for row in results["rows"]:
        rows.setdefault(row["data"], {})[row["learner"]] = row
    learners = list(dict.fromkeys(row["learner"] for row in results["rows"]))
    lines = [
        "# Tables: every learner at its defaults",
        "",
        f"`python -m glai_bench.tables --seeds {seeds}`, {results['minutes']:.0f} minutes, one thread of "
        f"{machine['processor']}, {machine['cpu_isa']}; scikit-learn {versions['scikit-learn']}, "
        f"torch {versions['torch']}.",
        "",
        "Each cell holds the test accuracy in % (R2 where the data are values), and the processor seconds of `fit`: "
        "medians over the seeds. Inputs are standardised. The best score of a line is bold. Random gates are "
        "the control of GLAI: the same sizes and solvers over a selector that was never trained.",
        "",
        f"| data: training samples x features | {' | '.join(learners)} |",
        f"|{'---|' * (1 + len(learners))}",
    ]
    for name, found in rows.items():
        first = next(iter(found.values()))
        best = max(row["score"] for row in found.values())
        cells = [_cell(found[learner], best) for learner in learners]
        size = f"{first['samples']:,} x {first['features']}, {first['measure']}"
        lines.append(f"| {name}: {size} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(row: Mapping[str, Any], best: float) -> str:
    score = f"{100 * row['score']:.1f}" if row["measure"] == "accuracy" else f"{row['score']:z.3f}"
    score = f"**{score}**" if row["score"] == best else score
    return f"{score}; {row['seconds']:.2g} s" if row["seconds"] < 10 else f"{score}; {row['seconds']:.0f} s"
