"""The published claims of GLAI (arXiv 2312.09971), one module each: what is run, and the tables made of it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, cast

from glai_bench.claims.cell import Cell, Settings

NAMES = ("settling", "accuracy", "retraining", "merging", "energy")


class Claim(Protocol):
    """What a module of this package has."""

    def cells(self, settings: Settings) -> Iterator[Cell]:
        """What is to be run, in order; a cell may ask for results of those before it."""

    def tables(self, results: Mapping[str, dict[str, Any]]) -> str:
        """Markdown: the claim's tables, and its line: reproduced, partly, or not, with the figures."""

    # And, where there is something to draw:
    # def pictures(results) -> Iterator[tuple[str, matplotlib.figure.Figure]], each with the end of its file's name.


def load(name: str) -> Claim:
    return cast(Claim, importlib.import_module(f"glai_bench.claims.{name}"))
