"""A store's manifest says how many shards and samples there must be at least, so that lost ones are noticed.

A shard is there before it is counted: an append that is killed in between has appended. The manifest is therefore a
lower bound, and one that a slower appender writes later may not take it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from glai_native.machine.files import TensorFile, tensors_to_bytes
from glai_native.machine.writing import find_file, locked, write_files

MANIFEST_FILE = "store.safetensors"
MANIFEST_FORMAT = "glai-gates-manifest"
MANIFEST_VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """What a store must hold at least.

    Attributes:
        structure_id: of the structure that made the gates.
        shards: how many there must be, the first of which holds no samples.
        rows: how many samples those hold.
    """

    structure_id: str
    shards: int
    rows: int

    def begin(self, folder: Path) -> None:
        """Write that of a new store, in place of one whose shards are all gone."""
        with locked(folder):
            there = read_manifest(folder)
            if there is not None and not any(folder.glob("shard-*.safetensors")):
                (folder / MANIFEST_FILE).unlink()
        self.write(folder)

    def write(self, folder: Path) -> None:
        """Write it, unless the folder's counts more already."""
        metadata = {
            "format": MANIFEST_FORMAT,
            "version": str(MANIFEST_VERSION),
            "structure_id": self.structure_id,
            "shards": str(self.shards),
            "rows": str(self.rows),
        }
        content = tensors_to_bytes({}, metadata)
        with locked(folder):
            there = read_manifest(folder)
            # One that counts nothing may be that of a creator which was second, or was killed.
            same = there is not None and there.structure_id == self.structure_id
            if (
                there is None
                or (there.shards == 0 and there != self)
                or (same and there.shards < self.shards)
            ):
                write_files({folder / MANIFEST_FILE: content})

    def require_of(self, structure_id: str, rows: Sequence[int]) -> None:
        """Raise unless a store of that structure, with shards of so many samples, is all that was counted."""
        if not self.shards:
            return
        if structure_id != self.structure_id:
            raise ValueError(
                f"{MANIFEST_FILE}: structure_id must be {structure_id[:12]}… like the shards', "
                f"got {self.structure_id[:12]}…"
            )
        if len(rows) < self.shards:
            raise ValueError(
                f"GateStore.open: {self.shards - len(rows)} of {self.shards} shards are missing, the last one among "
                f"them; {sum(rows):,} of {self.rows:,} samples are left"
            )
        if sum(rows[: self.shards]) != self.rows:
            raise ValueError(
                f"{MANIFEST_FILE}: rows must be {sum(rows[: self.shards]):,} like the first {self.shards} shards', "
                f"got {self.rows:,}"
            )


def read_manifest(folder: Path) -> Manifest | None:
    """Return a store's manifest; None where it has none, as stores of earlier versions."""
    path = folder / MANIFEST_FILE
    if find_file(path) is None:
        return None
    file = TensorFile(path, MANIFEST_FORMAT, newest=MANIFEST_VERSION)
    return Manifest(file.sha256("structure_id"), file.integer("shards"), file.integer("rows"))
