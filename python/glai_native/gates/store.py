"""This module keeps activation patterns on disk, captured once and read as bits ever after."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from glai_native.gates.manifest import MANIFEST_FILE, Manifest, read_manifest
from glai_native.gates.packed import (
    GateEstimate,
    PackedGates,
    mean_estimate,
    require_unit_gates,
    words_per_row,
)
from glai_native.gates.paths import Structure, require_kept_paths, structure_gates
from glai_native.machine.files import TensorFile, is_number, shown, tensors_to_bytes
from glai_native.machine.writing import make_folder, remove_leftovers, write_files

STORE_FORMAT = "glai-gates"
STORE_VERSION = 3  # 1 and 2, of a first shard with kept paths, have a checksum over their tensors alone
_SHARD = re.compile(r"shard-(\d{8})\.safetensors")


@dataclass(frozen=True)
class _Shard:
    first_row: int
    layers: list[PackedGates]  # words are memory maps

    @property
    def rows(self) -> int:
        return len(self.layers[0])


class GateStore:
    """A folder of unit bits per hidden layer, one safetensors shard per append, and a manifest that counts them.

    Made by :meth:`create` or :meth:`open`. A kill while a shard is written leaves the store as it was before. Of a
    store that has lost shards the manifest (``gates/manifest.py``) knows.

    Source: the structural knowledge that arXiv 2312.09971 keeps between trainings; files are safetensors.

    Attributes:
        structure_id: the structure that made the gates.
        widths: units per hidden layer.
        kept_paths: int64 ``[K]``, the paths of a pruned structure; None: all.
    """

    def __init__(
        self, folder: Path, structure_id: str, widths: tuple[int, ...], kept_paths: Tensor | None = None
    ) -> None:
        self.folder = folder
        self.structure_id = structure_id
        self.widths = widths
        self.kept_paths = kept_paths
        self._shards: list[_Shard] = []

    @classmethod
    def create(cls, folder: str | os.PathLike[str], selector: Structure) -> GateStore:
        """Make an empty store for the gates of a structure, a selector's.

        Raises:
            ValueError: the folder holds a store, or a model.
        """
        folder = make_folder("GateStore.create", folder)
        if _shard_paths(folder):
            raise ValueError(f"GateStore.create: {folder} already holds a store, GateStore.open opens it")
        others = sorted(path.name for path in folder.glob("*.safetensors") if path.name != MANIFEST_FILE)
        if others:
            raise ValueError(
                f"GateStore.create: {folder} holds {others[0]}, make the store in a folder of its own"
            )
        store = cls(folder, selector.structure_id, selector.widths, selector.kept_paths)
        store._manifest.begin(folder)
        # A shard of no rows, so that an empty store states its structure as any other does.
        empty = [
            torch.empty((0, words_per_row(width)), dtype=torch.int32, device="cpu") for width in store.widths
        ]
        store.append([PackedGates(words, width) for words, width in zip(empty, store.widths, strict=True)])
        return store

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> GateStore:
        """Open a store and validate all of it: formats, shapes, row numbers, checksums.

        Raises:
            FileNotFoundError: the folder holds no store.
            ValueError: a shard is damaged, missing, or of another structure; the manifest is.
        """
        folder = Path(folder)
        remove_leftovers(folder)
        manifest = read_manifest(folder)  # first: who appends meanwhile adds a shard before it counts it
        paths = _shard_paths(folder)
        if not paths:
            raise FileNotFoundError(f"GateStore.open: {folder} holds no store (no shard-*.safetensors)")
        store: GateStore | None = None
        for i, path in enumerate(paths):
            if path.name != _shard_name(i):
                raise ValueError(f"GateStore.open: {folder / _shard_name(i)} is missing")
            file = _open_shard(path)
            if manifest is None and file.metadata["version"] == str(STORE_VERSION):
                raise ValueError(
                    f"{folder / MANIFEST_FILE}: is missing, so that nobody knows how many samples were"
                )
            structure_id = file.sha256("structure_id")
            widths = tuple(file.sizes("layer_widths"))
            if store is None:
                store = cls(folder, structure_id, widths, _read_kept_paths(file, widths))
            if (structure_id, widths) != (store.structure_id, store.widths):
                raise ValueError(
                    f"{path}: structure_id must be {store.structure_id[:12]}… with widths {list(store.widths)} like "
                    f"the shards before, got {structure_id[:12]}… with {list(widths)}"
                )
            store._shards.append(_read_shard(file, widths, len(store)))
        assert store is not None
        if manifest is not None:
            manifest.require_of(store.structure_id, [shard.rows for shard in store._shards])
        return store

    def __len__(self) -> int:
        return sum(shard.rows for shard in self._shards)

    @property
    def _manifest(self) -> Manifest:
        return Manifest(self.structure_id, len(self._shards), len(self))

    @property
    def bytes_per_sample(self) -> int:
        """Bytes of packed words that a sample takes."""
        return 4 * sum(words_per_row(width) for width in self.widths)

    def append(self, layers: Sequence[PackedGates]) -> None:
        """Add samples: their unit bits per hidden layer, as ``selector.unit_gates`` returns them.

        Raises:
            ValueError: layers, widths or numbers of samples that do not fit; another process has appended.
        """
        require_unit_gates("GateStore.append", layers, self.widths, self.structure_id)
        metadata = {
            "format": STORE_FORMAT,
            "version": str(STORE_VERSION),
            "structure_id": self.structure_id,
            "layer_widths": json.dumps(self.widths),
            "first_row": str(len(self)),
        }
        if len(layers[0]):  # so that who reads them need not count
            metadata["densities"] = json.dumps([layer.density() for layer in layers])
            metadata["deviations"] = json.dumps([layer.deviation() for layer in layers])
        path = self.folder / _shard_name(len(self._shards))
        tensors = {f"layer_{i}": layer.words.clone() for i, layer in enumerate(layers)}
        if self.kept_paths is not None and not self._shards:  # the first shard states them for all
            tensors["kept_paths"] = self.kept_paths
        # Before and after: at no moment may a shard be there without a manifest, nor be counted and not there.
        self._manifest.write(self.folder)
        write_files({path: tensors_to_bytes(tensors, metadata)}, exclusive=True)
        self._shards.append(_read_shard(_open_shard(path), self.widths, len(self)))
        self._manifest.write(self.folder)

    def unit_gates(self, ids: Tensor | Iterable[int] | slice) -> list[PackedGates]:
        """Return the unit bits per hidden layer of the samples ``ids``, in that order."""
        rows = self._rows(ids)
        layers = []
        for i, width in enumerate(self.widths):
            words = torch.empty((len(rows), words_per_row(width)), dtype=torch.int32, device="cpu")
            for shard in self._shards:
                here = (rows >= shard.first_row) & (rows < shard.first_row + shard.rows)
                if bool(here.any()):
                    words[here] = shard.layers[i].words[rows[here] - shard.first_row]
            estimate = mean_estimate([(shard.rows, shard.layers[i].estimate) for shard in self._shards])
            layers.append(PackedGates._trusted(words, width, self.structure_id, estimate))
        return layers

    def batch(self, ids: Tensor | Iterable[int] | slice) -> PackedGates:
        """Return the path gates of the samples ``ids`` (integers in ``[0, len(store))``), always-on units included.

        Those of a pruned structure are of its kept paths.
        """
        return structure_gates("GateStore", self, self.unit_gates(ids))

    def _rows(self, ids: Tensor | Iterable[int] | slice) -> Tensor:
        if isinstance(ids, slice):
            return torch.arange(len(self), device="cpu")[ids]
        rows = torch.as_tensor(ids if isinstance(ids, Tensor) else list(ids), device="cpu")
        if not len(rows):
            rows = rows.to(torch.int64)
        if rows.ndim != 1 or rows.dtype not in (torch.int64, torch.int32):
            raise ValueError(
                "GateStore: ids must be integers [n], "
                f"got {str(rows.dtype).removeprefix('torch.')} {list(rows.shape)}"
            )
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(self):
            raise IndexError(
                f"GateStore: ids must be in [0, {len(self)}), got {int(rows.min())} to {int(rows.max())}"
            )
        return rows.to(torch.int64)


def _shard_name(i: int) -> str:
    return f"shard-{i:08d}.safetensors"


def _shard_paths(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _SHARD.fullmatch(path.name))


def holds_store(folder: Path) -> bool:
    """Return whether a folder holds a store, or what is left of one."""
    return bool(_shard_paths(folder)) or (folder / MANIFEST_FILE).exists()


def _open_shard(path: Path) -> TensorFile:
    return TensorFile(path, STORE_FORMAT, newest=STORE_VERSION)


def _read_kept_paths(file: TensorFile, widths: tuple[int, ...]) -> Tensor | None:
    if "kept_paths" not in file:
        return None
    kept_paths = file.tensor("kept_paths", (torch.int64,), (None,)).clone()
    require_kept_paths(str(file.path), kept_paths, widths)
    return kept_paths


def _read_shard(file: TensorFile, widths: tuple[int, ...], first_row: int) -> _Shard:
    rows: int | None = None
    words = []
    for i, width in enumerate(widths):
        layer = file.tensor(f"layer_{i}", (torch.int32,), (rows, words_per_row(width)))
        rows = len(layer)
        words.append(layer)
    found = file.integer("first_row")
    if found != first_row:
        raise ValueError(f"{file.path}: first_row must be {first_row}, got {found}")
    layers = [PackedGates(layer, width) for layer, width in zip(words, widths, strict=True)]
    if "densities" in file.metadata:  # shards of earlier versions have none
        figures = zip(
            _shares(file, "densities", len(widths)), _shares(file, "deviations", len(widths)), strict=True
        )
        for gates, (density, deviation) in zip(layers, figures, strict=True):
            gates.estimate = GateEstimate(density, deviation)
    return _Shard(first_row, layers)


def _shares(file: TensorFile, name: str, count: int) -> list[float]:
    shares = file.json(name)
    sound = (
        isinstance(shares, list) and len(shares) == count and all(is_number(share, 0, 1) for share in shares)
    )
    if not sound:
        raise ValueError(
            f"{file.path}: metadata entry '{name}' must list {count} numbers from 0 to 1, "
            f"got {shown(file.metadata[name])}"
        )
    return [float(share) for share in shares]
