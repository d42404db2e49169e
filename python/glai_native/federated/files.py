"""Parties that are files on one machine: each holds its own samples, whatever kind of file it is."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import torch
from flwr.app import Context
from torch import Tensor

from glai_native.data.labelled import LabelledData
from glai_native.data.labels import Label, joined_labels, require_same_type
from glai_native.data.tables import ID, NO_TABLE, TABLES, TableNames, column_names, listed
from glai_native.federated.partition import Party, load_party, numbered


@dataclass(frozen=True)
class PartyFiles:
    """Owners of data on one machine, a file each; their names are those of the files.

    Attributes:
        files: an .npz, a table or a folder each, as :func:`glai_native.data.sources.read_source` reads them; of those
            that come in train and test, the part to train on.
        test: a file for the accuracy of each round; None: the test parts of the others, where they have some.
        label: of tables, the label's column.
    """

    files: tuple[str, ...]
    test: str | None = None
    label: str | None = None
    server_share: float = 0.0  # the server holds none of them

    def __post_init__(self) -> None:
        if len(self.files) < 2:
            raise ValueError(f"federate: parties must be >= 2 files, got {len(self.files)}")
        doubled = next((file for file in self.files if self.files.count(file) > 1), None)
        if doubled is not None:
            raise ValueError(f"federate: each party must be a file of its own, got {doubled} twice")

    @property
    def n_parties(self) -> int:
        """How many."""
        return len(self.files)

    def party(self, i: int) -> Party:
        """What party i holds."""
        stems = [Path(file).stem for file in self.files]
        name = stems[i] if stems.count(stems[i]) == 1 else self.files[i]
        return self._read(self.files[i], name)

    def __call__(self, context: Context) -> Party:
        """The party of a node in Flower's simulation engine."""
        return self.party(int(context.node_config["partition-id"]))

    def server_samples(self) -> tuple[Tensor, Tensor]:
        """None: samples stay with the parties."""
        raise ValueError(
            "federate: structure 'server' needs samples that the server holds, parties keep theirs"
        )

    def load(self) -> LabelledData:
        """All of them together, for the report, and what is tested on; read once per process."""
        return _load(self)

    @property
    def tables(self) -> list[str]:
        """Those that are tables."""
        return [file for file in self.files if Path(file).suffix in TABLES]

    def _read(self, file: str, name: str, part: str = "train") -> Party:
        table = Path(file).suffix in TABLES
        return load_party(
            file, name, part, self.label if table else None, _columns(self) if table else NO_TABLE
        )


@functools.cache
def _columns(parties: PartyFiles) -> TableNames:
    """Of the first table: others have the same columns, in any order."""
    first = next(iter(parties.tables), parties.test)
    assert first is not None
    return load_party(first, "", "train", parties.label, NO_TABLE).names


@functools.cache
def _load(parties: PartyFiles) -> LabelledData:
    _require_same_columns(parties)
    held = [parties.party(i) for i in range(parties.n_parties)]
    if parties.test is not None:
        tested = [parties._read(parties.test, parties.test, "all")]
    else:
        tested = [parties._read(file, file, "test") for file in parties.files]
    classes: list[Label] = []
    for party in held:
        found = party.found
        require_same_type(f"party {party.name}", classes, found, "y", "the other parties'")
        classes = joined_labels(classes, found)
    named = [numbered(party, classes) for party in (*held, *tested)]
    widths = {party.name: party.x.shape[1] for party in named if len(party.x)}
    if len(set(widths.values())) > 1:
        shown = ", ".join(f"{width} of {name}" for name, width in widths.items())
        raise ValueError(f"federate: parties must hold the same features, got {shown}")
    x, x_test = (_joined([party.x for party in part]) for part in (named[: len(held)], named[len(held) :]))
    y, y_test = (torch.cat([party.y for party in part]) for part in (named[: len(held)], named[len(held) :]))
    names = (
        _columns(parties) if parties.tables else NO_TABLE
    )  # of a table to test on alone nothing was learnt
    return LabelledData(f"{len(held)} files", x, y, x_test, y_test, classes, names)


def _require_same_columns(parties: PartyFiles) -> None:
    """Raise unless all parties' tables have the first one's columns, in any order; test data may have more."""
    for i, file in enumerate(parties.files):
        if file not in parties.tables[1:]:
            continue
        first, known = parties.tables[0], _columns(parties)
        assert known.columns is not None
        found = column_names(Path(file))
        missing = [name for name in known.columns if name not in found]
        if missing:
            raise ValueError(f"{file}: must have the columns of {first}, got none called {listed(missing)}")
        others = {*known.columns, ID, known.label, parties.party(i).names.label}
        more = [name for name in found if name not in others]
        if more:
            raise ValueError(f"{file}: must have the columns of {first}, got {listed(more)} besides")


def _joined(parts: list[Tensor]) -> Tensor:
    held = [part for part in parts if len(part)] or parts[:1]
    return torch.cat([part.to(torch.promote_types(part.dtype, held[0].dtype)) for part in held])
