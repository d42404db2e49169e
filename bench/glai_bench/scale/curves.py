"""Curves of time and memory against N, D and M: which cells are on them, the exponents that fit, and the picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Figures = Mapping[str, Any]
LETTERS = {"rows": "N", "features": "D", "units": "M"}
QUANTITIES = {"processor_seconds": "processor seconds", "memory": "MB above what is imported"}
MB = 1e6


class Curve(NamedTuple):
    """Cells of one learner that differ in one size, in its order.

    Attributes:
        name: of the learner.
        size: ``rows``, ``features`` or ``units``.
        cells: their figures, at least two.
    """

    name: str
    size: str
    cells: Sequence[Figures]

    def values(self, quantity: str) -> list[float]:
        """Return seconds, or MB of the peak above what was there with everything imported."""
        if quantity == "memory":
            return [(cell["peak_bytes"] - cell["imported_bytes"]) / MB for cell in self.cells]
        return [cell[quantity] for cell in self.cells]

    def exponent(self, quantity: str) -> float:
        """Return k of the ``a·size^k`` that fits best, by least squares of the logarithms."""
        sizes = np.log([cell[self.size] for cell in self.cells])
        return float(np.polyfit(sizes, np.log(self.values(quantity)), 1)[0])


def name_of(cell: Figures) -> str:
    """Return what a learner is called: its kind, units and source."""
    units = "" if cell["units"] is None else f", M = {cell['units']:,}"
    source = "" if cell["source"] in ("whole", "chunks") else f", {cell['source']}"
    if cell["kind"] == "glai train":
        source = ""
    return f"{cell['kind']}{units}{source}"


def curves(cells: Iterable[Figures]) -> list[Curve]:
    """Return the curves of classification: over N of every learner, over D and M of the exact head."""
    done = [cell for cell in cells if cell["task"] == "classification" and "unfinished" not in cell]
    found = []
    for size in LETTERS:
        groups: dict[tuple[Any, ...], list[Figures]] = {}
        for cell in done:
            same = tuple(cell[name] for name in ("kind", "source", *LETTERS) if name != size)
            if cell[size] is not None and (size == "rows" or cell["kind"] == "exact"):
                groups.setdefault(same, []).append(cell)
        longest = max(map(len, groups.values()), default=0)
        for group in groups.values():
            if len(group) > 1 and (size == "rows" or len(group) == longest):
                group.sort(key=itemgetter(size))
                name = name_of(group[0] if size != "units" else {**group[0], "units": None})
                found.append(Curve(name, size, group))
    return found


def draw(found: Sequence[Curve], path: Path) -> None:
    """Draw time above memory, each against N, D and M, all axes logarithmic."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(13, 7), layout="constrained")
    panels = picture.subplots(len(QUANTITIES), len(LETTERS), squeeze=False)
    names = list(dict.fromkeys(curve.name for curve in found))
    for line, (quantity, label) in zip(panels, QUANTITIES.items(), strict=True):
        for panel, (size, letter) in zip(line, LETTERS.items(), strict=True):
            for curve in found:
                if curve.size == size:
                    number = names.index(curve.name)
                    panel.plot(
                        [cell[size] for cell in curve.cells],
                        curve.values(quantity),
                        color=f"C{number % 10}",
                        linestyle="-" if number < 10 else "--",
                        marker=".",
                        label=curve.name,
                    )
            panel.set(xscale="log", yscale="log", xlabel=letter)
            sizes = sorted({cell[size] for curve in found if curve.size == size for cell in curve.cells})
            panel.set_xticks(sizes, [f"{one:,}" for one in sizes])
            panel.xaxis.minorticks_off()
            for formats in (panel.yaxis.set_major_formatter, panel.yaxis.set_minor_formatter):
                formats(lambda tick, _: f"{tick:g}")
            panel.tick_params(labelsize="small", which="both")
            panel.grid(alpha=0.3, which="both")
        line[0].set_ylabel(label)
    handles = {
        name: line
        for panel in panels[0]
        for line, name in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    picture.legend(handles.values(), handles.keys(), loc="outside right upper", fontsize="small")
    picture.savefig(path, dpi=90)
