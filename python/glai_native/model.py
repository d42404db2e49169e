"""The whole model: a frozen structure and the linear model that reads it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from glai_native.estimator import ESTIMATOR_FILE, PathEstimator
from glai_native.files import TensorFile, write_files
from glai_native.gates import PackedGates
from glai_native.structure import KEPT_PATHS_VERSION, STRUCTURE_FILE, STRUCTURE_FORMAT, PathSelector


class GLAI(nn.Module):
    """A selector and an estimator of the same structure; takes raw x.

    Args:
        selector: the frozen structure.
        estimator: the linear model over its paths; one without a structure_id takes the selector's.

    Raises:
        ValueError: the two do not belong together.
    """

    def __init__(self, selector: PathSelector, estimator: PathEstimator) -> None:
        super().__init__()
        if not isinstance(selector, PathSelector) or not isinstance(estimator, PathEstimator):
            kinds = f"{type(selector).__name__} and {type(estimator).__name__}"
            raise TypeError(
                f"GLAI: selector must be a PathSelector and estimator a PathEstimator, got {kinds}"
            )
        if estimator.structure_id not in (None, selector.structure_id):
            raise ValueError(
                f"GLAI: estimator must have structure_id {selector.structure_id[:12]}… like the selector, "
                f"got {(estimator.structure_id or '')[:12]}…"
            )
        expected = (selector.n_paths, selector.z_features)
        if (estimator.n_paths, estimator.in_features) != expected:
            raise ValueError(
                f"GLAI: estimator must be [P={expected[0]}, D={expected[1]}, C], "
                f"got [{estimator.n_paths}, {estimator.in_features}, {estimator.out_features}]"
            )
        estimator.structure_id = selector.structure_id
        self.selector = selector
        self.estimator = estimator

    @property
    def structure_id(self) -> str:
        """SHA-256 of the frozen structure."""
        return self.selector.structure_id

    def forward(self, x: Tensor, gates: PackedGates | None = None) -> Tensor:
        """Raw x ``[N, in_features]`` to ``[N, C]``; path gates computed earlier may be given."""
        z = self.selector.project(x)
        if gates is None:
            gates = self.selector.path_gates(self.selector.unit_gates_of(z))
        return cast(Tensor, self.estimator(z, gates))

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Writes ``structure.safetensors`` and ``estimator.safetensors``, each whole or not at all.

        A full disk leaves what was there. A kill between the two renames, while a model of *another* structure is
        overwritten, leaves files that do not belong together; :meth:`load` refuses them.

        Args:
            folder: made when it is not there. An estimator of the same structure in it is replaced.
            overwrite: also replace a model of another structure.

        Raises:
            ValueError: the folder holds a model of another structure and ``overwrite`` is False.
        """
        folder = prepare_folder("GLAI.save", folder, self.structure_id, overwrite)
        write_files(
            {
                folder / STRUCTURE_FILE: self.selector.to_bytes(),
                folder / ESTIMATOR_FILE: self.estimator.to_bytes(),
            }
        )

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> GLAI:
        """Opens a folder that :meth:`save` wrote.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is damaged, of another format, or the two are of different structures.
        """
        folder = Path(folder)
        selector = PathSelector.load(folder / STRUCTURE_FILE)
        estimator = PathEstimator.load(folder / ESTIMATOR_FILE)
        if estimator.structure_id is None:
            raise ValueError(f"{folder / ESTIMATOR_FILE}: states no structure_id, a model's estimator must")
        return cls(selector, estimator)


def prepare_folder(owner: str, folder: str | os.PathLike[str], structure_id: str, overwrite: bool) -> Path:
    """Makes the folder of a model; refuses one that holds a model of another structure unless told to overwrite."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    structure = folder / STRUCTURE_FILE
    if structure.exists() and not overwrite:
        found = TensorFile(structure, STRUCTURE_FORMAT, newest=int(KEPT_PATHS_VERSION)).entry("structure_id")
        if found != structure_id:
            raise ValueError(
                f"{owner}: {folder} holds a model of another structure ({found[:12]}…, this one is "
                f"{structure_id[:12]}…), save to another folder or pass overwrite=True"
            )
    return folder
