"""Writes the page of the benchmark of scale, and its picture, from the cells that have been measured.

python -m glai_bench.scale.report
python -m glai_bench.scale.report --results other/scale.json
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from glai_bench.exact.recording import finished
from glai_bench.markdown import held, report_files, table_header, table_row
from glai_bench.scale.arithmetic import paragraphs
from glai_bench.scale.curves import LETTERS, MB, QUANTITIES, Figures, curves, draw, name_of
from glai_bench.scale.data import BEST_ACCURACY, BEST_R2, TEST_ROWS
from glai_bench.scale.learners import KINDS
from glai_native.machine.writing import write_files
from glai_native.solvers.choice import DUAL_SAMPLES

STATES, ROOM = 1.5, 500 * MB  # of the peak's target: times the model's own state, and bytes beside it


def main(argv: Sequence[str] | None = None) -> None:
    read, page = report_files("python -m glai_bench.scale.report", __doc__, "scale.json", None, argv)
    write(json.loads(read.read_text()), page)
    print(f"Written: {page}")


def write(results: dict[str, Any], page: Path) -> str:
    """Write the page, and its picture where there are curves; return the page."""
    cells = finished(results)
    measured = [cell for key, cell in cells.items() if not key.startswith("same bits/")]
    found = curves(measured)
    picture = page.with_suffix(".png")
    if found:
        draw(found, picture)
    lines = [*_introduction(results), *_sizes(measured), *_exact_curves(measured)]
    if found:
        lines += [*_exponents(found), "", f"![time and memory against N, D and M]({picture.name})"]
    lines += _same_bits(cells)
    if said := paragraphs(measured):
        lines += ["", f"## {10**8:,} rows, {10**4:,} clients", "", "\n\n".join(said)]
    text = "\n".join(lines) + "\n"
    write_files({page: text.encode()})
    return text


def _introduction(results: Mapping[str, Any]) -> list[str]:
    machine = results["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return [
        "# A million rows",
        "",
        f"`OMP_NUM_THREADS=1 python -m glai_bench.scale`, one thread of {machine['processor']}, "
        f"{machine['cpu_isa']}; {packages}.",
        "",
        "Rows are drawn from a rule that is known: eight latent numbers, mixed into D, and a two-layer network of "
        "them (`glai_bench/scale/data.py`). Who knows the rule is right on "
        f"{BEST_ACCURACY:.0%} of the classes, ten, and has an R2 of {BEST_R2:.2f}. Every cell is a process of its "
        f"own, with one thread: score on {TEST_ROWS:,} further rows, processor seconds of reading and learning, and "
        "the peak of its memory as Linux tells it (VmHWM: libraries and mapped files included, tested on the further "
        "rows too). In brackets the target, 1.5 times the model's own state (sums and ledger, or numbers with two "
        "moments) and 500 MB; bold: missed. Everything is at its defaults but for M, the units of the exact head, "
        "which are random. What `glai train` tries before it decides counts in its peak and not in its state: the "
        f"dual, of {DUAL_SAMPLES:,} samples at most, where it is tried holds a matrix of N times N numbers.",
    ]


def _sizes(cells: Sequence[Figures]) -> Iterator[str]:
    """Yield a table of each task: learners against N, at the D that most cells have."""
    for task in ("classification", "regression"):
        chosen = [cell for cell in cells if cell["task"] == task]
        if not chosen:
            continue
        features = [cell["features"] for cell in chosen]
        width = max(set(features), key=features.count)
        chosen = [cell for cell in chosen if cell["features"] == width]
        chosen.sort(key=lambda cell: ([*KINDS].index(cell["kind"]), cell["source"], cell["units"] or 0))
        sizes = sorted({cell["rows"] for cell in chosen})
        learners: dict[str, dict[int, Figures]] = {}
        for cell in chosen:
            learners.setdefault(name_of(cell), {})[cell["rows"]] = cell
        longest = max(map(len, learners.values()))
        yield from ("", f"## {task.capitalize()}, D = {width}", "")
        yield from table_header("learner", *(f"N = {rows:,}" for rows in sizes))
        for name, by_rows in learners.items():
            on_a_curve = len(by_rows) == 1 < longest and name.startswith("exact")
            if not on_a_curve:  # over M, which has a table of its own
                yield table_row(name, *(_cell(by_rows.get(rows)) for rows in sizes))


def _cell(cell: Figures | None) -> str:
    if cell is None:
        return "-"
    if "unfinished" in cell:
        return str(cell["unfinished"])
    score = f"{100 * cell['score']:.1f}%" if cell["task"] == "classification" else f"{cell['score']:.3f}"
    return f"{score}; {_seconds(cell)}; {_peak(cell)}"


def _seconds(cell: Figures) -> str:
    return f"{cell['processor_seconds']:.3g} s"


def _peak(cell: Figures) -> str:
    peak = f"{cell['peak_bytes'] / MB:.0f} MB"
    if cell["state_bytes"] is None:
        return peak
    target = STATES * cell["state_bytes"] + ROOM
    return f"{held(peak, cell['peak_bytes'] < target)} ({target / MB:.0f})"


def _exact_curves(cells: Sequence[Figures]) -> Iterator[str]:
    """Yield tables of the exact head against D, and against M."""
    exact = [cell for cell in cells if cell["kind"] == "exact" and cell["task"] == "classification"]
    for curve in curves(exact):
        if curve.size == "rows":
            continue
        letter, first = LETTERS[curve.size], curve.cells[0]
        rest = f"D = {first['features']}" if curve.size == "units" else f"M = {first['units']:,}"
        yield from ("", f"## The exact head against {letter}: N = {first['rows']:,}, {rest}", "")
        yield from table_header(letter, "accuracy", "processor time", "peak (target)", "imported")
        for cell in curve.cells:
            yield table_row(
                f"{cell[curve.size]:,}",
                f"{100 * cell['score']:.1f}%",
                _seconds(cell),
                _peak(cell),
                f"{cell['imported_bytes'] / MB:.0f} MB",
            )


def _exponents(found: Sequence[Any]) -> Iterator[str]:
    yield from ("", "## Exponents", "")
    yield (
        "k of a·size^k, by least squares of logarithms. Small sizes pull them below what large ones have: parts that "
        "do not grow are in every figure."
    )
    yield from ("", *table_header("learner", "against", "sizes", *QUANTITIES.values()))
    for curve in found:
        sizes = f"{curve.cells[0][curve.size]:,} to {curve.cells[-1][curve.size]:,} ({len(curve.cells)})"
        exponents = (f"{curve.exponent(quantity):.2f}" for quantity in QUANTITIES)
        yield table_row(curve.name, LETTERS[curve.size], sizes, *exponents)


def _same_bits(cells: Mapping[str, Figures]) -> Iterator[str]:
    checks: dict[str, list[Figures]] = {}
    for key, cell in cells.items():
        if key.startswith("same bits/"):
            checks.setdefault(key.split("/")[1], []).append(cell)
    if not checks:
        return
    yield from ("", "## The same bits", "")
    for cell in checks.get("sources", ()):
        ways = "; ".join(
            f"`{name}` from {', '.join(digests)}: {', '.join(sorted({one[:12] for one in digests.values()}))}"
            for name, digests in cell["digests"].items()
        )
        verdict = "the same digest" if cell["same"] else "**not the same digest**"
        yield f"N = {cell['rows']:,}, M = {cell['units']:,}, {verdict} from each source: {ways}."
    if runs := checks.get("killed"):
        same = sum(cell["same"] for cell in runs)
        times = ", ".join(f"{cell['killed_at_seconds']:.1f} s" for cell in runs)
        verdict = held(f"{same} of {len(runs)}", same == len(runs))
        yield ""
        yield (
            f"`glai train --exact --checkpoint 1`, N = {runs[0]['rows']:,}, killed (SIGKILL) at a random time behind "
            f"its first checkpoint ({times}) and gone on with by `--resume`: {verdict} ended with the digest of the "
            "run that nobody disturbed."
        )


if __name__ == "__main__":
    main()
