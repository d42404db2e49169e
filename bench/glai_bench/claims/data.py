"""The data of every claim, split alike."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from glai_bench.claims.cell import Settings
from glai_bench.solvers.runs import Split, banking, digits, mnist


def load_split(settings: Settings, name: str) -> Split:
    """``name``: one of ``settings.data_sets``. MNIST's training part is 10,000 samples when quick, else 50,000."""
    return _load(name, settings.data, settings.quick)


@cache
def _load(name: str, folder: Path | None, quick: bool) -> Split:
    if name == "digits":
        return digits()
    if folder is None:
        raise FileNotFoundError(f"{name}: needs GLAI_DATA, the folder with mnist/ and banking77_minilm.npz")
    return mnist(folder, quick) if name == "MNIST" else banking(folder)
