"""Writes the page of the ops' benchmark, and draws it.

The page holds the summary against the targets, missed targets in bold, and the worst cells; the pictures beside it
show the ratio and the fraction of measured peak against density.

python -m glai_bench --output bench/results/cpu.json && python -m glai_bench.report
python -m glai_bench.report --results bench/results/h100.json     of a GPU: a page of its own
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from glai_bench.cuda.tables import card_name, cuda_cell_name
from glai_bench.cuda.targets import cuda_command_name
from glai_bench.cuda.targets import summarize as summarize_cuda
from glai_bench.markdown import held, report_files, table_header, table_row, write_page
from glai_bench.ops.cases import INDEPENDENT
from glai_bench.ops.grid import OPS, Row
from glai_bench.ops.targets import (
    CALL_TARGET,
    PEAK_DENSITIES,
    SCALING_TARGET,
    Figure,
    bf16_figures,
    cell_name,
    command_name,
    geometric_mean,
    machine_name,
    scaling,
    slower_cells,
    summarize,
    threads_name,
)

LISTED = 10
RATIO = "best torch / ours"
# Values of C, and how their lines are drawn.
CLASSES = (("C = 10", 10, 10, "-"), ("C = 64 to 100", 64, 100, "--"), ("C = 1000", 1000, 1000, ":"))


class Plot(NamedTuple):
    """A picture: which figure of a row it shows, its axis, and the end of its file's name."""

    figure: str
    label: str
    suffix: str


class Device(NamedTuple):
    """What the reports of CPU and GPU differ in.

    ``title``, ``introduction``: of the page. ``panels``: title of each panel of a picture, and which rows it shows.
    """

    title: str
    introduction: tuple[str, ...]
    plots: tuple[Plot, ...]
    markdown: Callable[[dict[str, Any], Sequence[str]], Iterator[str]]
    panels: Callable[[dict[str, Any]], list[tuple[str, Callable[[Row], bool]]]]


def main(argv: Sequence[str] | None = None) -> None:
    read, page = report_files("python -m glai_bench.report", __doc__, "cpu.json", None, argv)
    results = json.loads(read.read_text())
    if "settings" not in results:
        raise SystemExit(f"{read}: must be written by this version of python -m glai_bench, run it again")
    device = CUDA if results["settings"].get("device") == "cuda" else CPU
    pictures = [f"{page.stem}-{plot.suffix}.png" for plot in device.plots]
    for plot, picture in zip(device.plots, pictures, strict=True):
        draw(results, device, plot, page.parent / picture)
    write_page(page, device.title, device.introduction, device.markdown(results, pictures))


def markdown(results: dict[str, Any], pictures: Sequence[str]) -> Iterator[str]:
    """Machine, tables, what is slower or missed, pictures."""
    machine, rows = results["machine"], results["rows"]
    call = machine["call"]
    yield f"`{command_name(results['settings'])}`, {results['seconds'] / 60:.1f} minutes on {machine_name(machine)}."
    for threads in machine["threads"]:
        yield from _summary(results, threads)
    yield from _bf16(results)
    yield ""
    extra = held(f"{call['extra_us']:.2f} µs between them", call["extra_us"] <= CALL_TARGET)
    yield (
        f"The smallest call without a gradient takes {call['op_us']:.2f} µs, the binding alone "
        f"{call['binding_us']:.2f} µs: {extra} (target: {CALL_TARGET:g})."
    )
    yield ""
    yield from _slower(rows, cell_name)
    yield from _left_out(results["skipped"])
    yield from _torch_rates(rows, machine["sgemm_gfma_per_s"]["1"])
    yield from ("", f"![best torch / ours against density]({pictures[0]})")
    yield from ("", f"![fraction of measured peak against density]({pictures[1]})")


def cuda_markdown(results: dict[str, Any], pictures: Sequence[str]) -> Iterator[str]:
    """The same of a GPU's results."""
    settings, rows = results["settings"], results["rows"]
    precisions = settings["precisions"]
    yield (
        f"`{cuda_command_name(settings)}`, {results['seconds'] / 60:.1f} minutes on "
        f"{card_name(results['machine'])}."
    )
    yield from ("", *table_header("geometric mean (worst); target", *precisions))
    for label, figures in summarize_cuda(rows, precisions):
        yield table_row(label, *map(_cell, figures))
    yield ""
    yield from _slower(rows, cuda_cell_name)
    yield from _left_out(results["skipped"])
    yield from ("", f"![best torch / ours against density]({pictures[0]})")
    yield from ("", f"![fraction of the matrix rate against density]({pictures[1]})")


def _summary(results: dict[str, Any], threads: int) -> Iterator[str]:
    summary = summarize(results["rows"], threads)
    gains = {line.label: line for line in scaling(results, threads)}
    shares = (f"useful work / peak, density {density:g}" for density in PEAK_DENSITIES)
    title = [f"**{threads_name(threads)}**: geometric mean (worst); target", *shares, RATIO, "worst cell"]
    if gains:
        title.append(f"scaling / sgemm's {results['machine']['sgemm_scaling'][str(threads)]:.2f}")
    yield from ("", *table_header(*title))
    for line in summary:
        floor = f"{line.floor.worst:.2f}; {line.floor.target:g}"
        cells = [line.label, *map(_cell, line.peaks), _cell(line.ratio), held(floor, not line.floor.missed)]
        if gains:
            share = gains[line.label].share
            cells.append(held(f"{share:.2f}", share >= SCALING_TARGET))
        yield table_row(*cells)


def _bf16(results: dict[str, Any]) -> Iterator[str]:
    columns = [dict(bf16_figures(results["rows"], threads)) for threads in results["machine"]["threads"]]
    labels = dict.fromkeys(label for column in columns for label in column)
    if not labels:
        return
    title = "Our float32's time / bf16's, density >= 0.25: geometric mean (worst); target"
    yield from ("", *table_header(title, *map(threads_name, results["machine"]["threads"])))
    for label in labels:
        yield table_row(label, *(_cell(column.get(label)) for column in columns))


def _torch_rates(rows: list[Row], peak: float) -> Iterator[str]:
    """How near to what the processor can do torch's best forms come: what is left to gain by the same work."""
    kinds: list[tuple[str, Callable[[Row], bool], Callable[[Row], float]]] = [
        ("dense forms with C = 10", lambda row: row["shape"][3] == 10 and _is_dense(row), lambda row: 1.0),
        ("dense forms with C >= 64", lambda row: row["shape"][3] >= 64 and _is_dense(row), lambda row: 1.0),
        (
            "loop over paths with C >= 64, density >= 0.25",
            lambda row: row["shape"][3] >= 64 and row["density"] > 0.2 and row["best"].startswith("loop"),
            lambda row: row["density"],
        ),
    ]
    found = []
    for name, counts, share in kinds:
        rates = [
            share(row) * math.prod(row["shape"]) / row["baselines_ms"][row["best"]] / 1e6 / peak
            for row in rows
            if row["threads"] == 1 and row["density"] < 1 and counts(row)
        ]
        if rates:
            found.append(f"{name} {statistics.median(rates):.0%}")
    if found:
        yield ""
        shares = ", ".join(found)
        yield f"Shares of sgemm's rate that torch's forms reach where they are its best, medians, 1 thread: {shares}."


def _is_dense(row: Row) -> bool:
    return bool(row["best"].startswith(("dense", "chunks")))


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    text = f"{figure.mean:.2f} ({figure.worst:.2f})"
    if figure.target is not None:
        text += f"; {figure.target:g}"
    return held(text, not figure.missed)


def _slower(rows: Sequence[Row], name: Callable[[Row], str]) -> Iterator[str]:
    slower = slower_cells(rows)
    if not slower:
        yield f"None of the {len(rows)} cells is slower than torch."
        return
    yield f"{len(slower)} of the {len(rows)} cells are slower than torch, {min(LISTED, len(slower))} worst first:"
    yield ""
    yield from (f"- {row['ratio']:.2f}: {name(row)} ({row['best']})" for row in slower[:LISTED])


def _left_out(skipped: Sequence[dict[str, str]]) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for one in skipped:
        reasons.setdefault(one["reason"], []).append(f"{one['shape']} with gates of {one['gates']}")
    if reasons:
        yield ""
        parts = [f"{', '.join(which)} ({why})" for why, which in reasons.items()]
        yield f"Left out: {'; '.join(parts)}."


def draw(results: dict[str, Any], device: Device, plot: Plot, path: Path) -> None:
    """One line per op and class of C (independent gates), in each of the device's panels; real gates as circles."""
    from matplotlib.figure import Figure as Picture
    from matplotlib.ticker import LogLocator, NullFormatter

    shown = device.panels(results)
    picture = Picture(figsize=(4.6 * len(shown) + 1.9, 4.2), layout="constrained")
    panels = picture.subplots(1, len(shown), sharex=True, sharey=True, squeeze=False)[0]
    for panel, (title, counts) in zip(panels, shown, strict=True):
        for i, op in enumerate(OPS):
            for name, low, high, style in CLASSES:
                rows = [
                    row
                    for row in results["rows"]
                    if counts(row) and row["op"] == op and low <= row["shape"][3] <= high
                ]
                _draw_line(panel, rows, plot.figure, f"C{i}", style, f"{op}, {name}")
        panel.axhline(1, color="black", linewidth=0.8)
        panel.set(title=title, xlabel="density", xscale="log", yscale="log")
        panel.set_xticks([0.05, 0.1, 0.25, 0.5, 1], ["0.05", "0.1", "0.25", "0.5", "1"])
        panel.xaxis.minorticks_off()
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(lambda tick, _: f"{tick:g}")
        panel.yaxis.set_minor_formatter(NullFormatter())
        panel.grid(alpha=0.3)
    panels[0].set_ylabel(plot.label)
    panels[0].scatter(
        [], [], s=14, facecolors="none", edgecolors="grey", label="gates of a selector, one shape"
    )
    lines, names = panels[0].get_legend_handles_labels()
    picture.legend(lines, names, loc="outside right upper", fontsize="small")
    picture.savefig(path, dpi=90)


def _draw_line(panel: Any, rows: Sequence[Row], value: str, colour: str, style: str, name: str) -> None:
    independent = [row for row in rows if row["gates"] == INDEPENDENT]
    real = [row for row in rows if row["gates"] != INDEPENDENT]
    densities = sorted({row["density"] for row in independent})
    means = [
        geometric_mean(row[value] for row in independent if row["density"] == density)
        for density in densities
    ]
    if densities:
        panel.plot(densities, means, color=colour, linestyle=style, marker=".", markersize=4, label=name)
    panel.scatter(
        [row["density"] for row in real],
        [row[value] for row in real],
        s=14,
        facecolors="none",
        edgecolors=colour,
        linewidths=0.7,
    )


def _rows_of(figure: str, value: Any) -> Callable[[Row], bool]:
    return lambda row: bool(row[figure] == value)


READING = (
    "The tables show the time of the **best** torch form over ours: over 1, ours is faster. Cells are geometric means "
    "over shapes and gates with the worst in brackets, then the target, where one is set; bold: missed."
)
CPU = Device(
    "The gated products on a CPU",
    (
        "`python -m glai_bench --output bench/results/cpu.json` measures this, with `GLAI_DATA` set to the folder of "
        "MNIST and BANKING77; `python -m glai_bench.report` writes this page from it.",
        READING,
        "Gates over density 0.85 count as density 1, the gates of real selectors in the ratios alone. Ratios are of "
        "medians of calls that take turns; the peak is that of the quickest loop of nothing but multiply-adds of "
        "vectors in the same run, times the threads, and its share that of the quickest of our calls, without others "
        "between them. Useful work is what switched-on gates ask for, N·P·D·C·density: sums of weights over several "
        "gates go beyond the peak.",
    ),
    (
        Plot("ratio", RATIO, "ratio"),
        Plot("peak_fraction", "useful work / peak", "peak"),
    ),
    markdown,
    lambda results: [(threads_name(n), _rows_of("threads", n)) for n in results["machine"]["threads"]],
)
CUDA = Device(
    "The gated products and the path kernel on a GPU",
    (
        "`python -m glai_bench --device cuda` measures this; `python -m glai_bench.report --results FILE` writes this "
        "page from it.",
        READING,
        'The "matrix rate" is that of torch\'s own product of two large squares in the same precision and run.',
    ),
    (
        Plot("ratio", RATIO, "ratio"),
        Plot("matrix_fraction", "work of the dense product / matrix rate", "matrix"),
    ),
    cuda_markdown,
    lambda results: [(name, _rows_of("precision", name)) for name in results["settings"]["precisions"]],
)

if __name__ == "__main__":
    main()
