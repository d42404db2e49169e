"""Gates of a real selector, for the benchmark: which gates agree between samples is what data decide."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from glai_native.data.labelled import LabelledData, load_data
from glai_native.structure.projection import InputProjection
from glai_native.structure.settling import StructureMonitor, train_structure

# Enough for the pattern to leave its start: MNIST raw at 255 units moves by 0.02 in density and deviation beyond.
TRAIN_SAMPLES = 8000
MAX_EPOCHS = 20


@dataclass(frozen=True)
class Source:
    """Where gates come from: data, and whether the selector reads them as they are or centred."""

    name: str
    file: str
    centred: bool


SOURCES = (
    Source("MNIST raw", "mnist", centred=False),
    Source("MNIST centred", "mnist", centred=True),
    Source("BANKING77", "banking77_minilm.npz", centred=True),
)


class RealGates:
    """Path gates of selectors with one hidden layer, trained once per source and number of paths.

    Args:
        folder: holds MNIST's IDX files in ``mnist/``, and ``banking77_minilm.npz``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._data: dict[str, LabelledData] = {}
        self._gates: dict[tuple[str, int], Tensor] = {}

    def gates(self, name: str, n: int, p: int) -> Tensor:
        """bool ``[N, P]``: the bits of N samples of the source, and the path that is always on.

        Raises:
            ValueError: the source has fewer than N samples, or P leaves no unit for the selector.
            FileNotFoundError: the folder lacks the data.
        """
        source = next(source for source in SOURCES if source.name == name)
        if p < 2:
            raise ValueError(f"real gates: P must be >= 2, one unit and the path that is always on, got {p}")
        if source.file not in self._data:
            self._data[source.file] = load_data(self.folder / source.file)
        data = self._data[source.file]
        if n > len(data.x_train):
            raise ValueError(
                f"real gates: N must be at most {len(data.x_train)}, the samples of {name}, got {n}"
            )
        if (name, p) not in self._gates:
            self._gates[name, p] = _selector_bits(data, source.centred, p)
        return self._gates[name, p][:n]


def _selector_bits(data: LabelledData, centred: bool, p: int) -> Tensor:
    order = torch.randperm(len(data.x_train), generator=torch.Generator().manual_seed(0))
    x = data.x_train[order]
    units, features = p - 1, x.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mlp = nn.Sequential(nn.Linear(features, units), nn.ReLU(), nn.Linear(units, data.n_classes))
    selector = train_structure(
        mlp,
        x[:TRAIN_SAMPLES],
        data.y_train[order][:TRAIN_SAMPLES],
        None if centred else InputProjection.identity(features),
        StructureMonitor(max_epochs=MAX_EPOCHS),
        progress=False,
    )
    return selector.gates(x).unpack()
