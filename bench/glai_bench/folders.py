"""Where the benchmarks read data, and where a checkout keeps their results."""

from __future__ import annotations

import os
from pathlib import Path

DATA_VARIABLE = "GLAI_DATA"
RESULTS = Path("bench/results")


def data_folder() -> Path | None:
    """Return the folder that the environment variable ``GLAI_DATA`` names; None where it is not set."""
    folder = os.environ.get(DATA_VARIABLE)
    return Path(folder) if folder else None


def results_folder() -> Path:
    """Return ``bench/results`` of the checkout that the current folder lies in: the package may be installed elsewhere.

    Raises:
        FileNotFoundError: neither the current folder nor one above it has that folder.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / RESULTS).is_dir():
            return folder / RESULTS
    raise FileNotFoundError(
        f"there is no folder {RESULTS} in {here} or above it: run this in a checkout, or name the file"
    )
