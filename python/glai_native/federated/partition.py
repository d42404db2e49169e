"""The data of a party: its own file, or its part of a data set that is split for a simulation."""

from __future__ import annotations

import functools
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Context
from torch import Tensor

from glai_native.data.features import float_features
from glai_native.data.labelled import LabelledData, load_data
from glai_native.data.labels import (
    Label,
    label_array,
    label_indices,
    label_type,
    require_same_type,
)
from glai_native.data.sources import Rows, read_source
from glai_native.data.splitting import split_rows
from glai_native.data.tables import NO_TABLE, TABLES, TableNames
from glai_native.federated.settings import names_of_table

PARTITIONS = ("iid", "dirichlet")
# Of a Dirichlet part, so that no party has next to nothing.
FEWEST_SAMPLES = 2


@dataclass(frozen=True)
class Party:
    """An owner of data: x ``[N, in_features]``, float32 or float64, class indices y int64 ``[N]``."""

    name: str
    x: Tensor
    y: Tensor
    labels: list[Label] | None = None  # what y's indices are called; None: y are themselves labels
    names: TableNames = NO_TABLE  # of a table's columns

    @property
    def found(self) -> list[Label]:
        """The labels of its samples, sorted."""
        indices: list[int] = np.unique(self.y.numpy()).tolist()
        return [*indices] if self.labels is None else sorted(self.labels[i] for i in indices)


@dataclass(frozen=True)
class Split:
    """How a data set's training part is split among parties; flwr-datasets draws the parts.

    Attributes:
        data: as :func:`glai_native.data.labelled.load_data` takes it.
        n_parties: how many.
        partition: ``"iid"``, or ``"dirichlet"``: the share of each class that a party has is Dirichlet(alpha).
        alpha: the smaller, the more skewed.
        server_share: of the samples, which the server holds and no party has.
        seed: of all of it.
    """

    data: str | None
    n_parties: int
    partition: str = "dirichlet"
    alpha: float = 0.3
    server_share: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.partition not in PARTITIONS:
            raise ValueError(
                f"federate: partition must be one of {', '.join(PARTITIONS)}, got {self.partition!r}"
            )
        if self.n_parties < 2:
            raise ValueError(f"federate: clients must be >= 2, got {self.n_parties}")
        if not 0 < self.alpha < float("inf"):
            raise ValueError(f"federate: alpha must be a finite number > 0, got {self.alpha}")
        if not 0 <= self.server_share < 1:
            raise ValueError(f"federate: server-share must be in [0, 1), got {self.server_share}")

    def load(self) -> LabelledData:
        """The data set; read once per process."""
        return _load(self.data, self.seed)

    def server_samples(self) -> tuple[Tensor, Tensor]:
        """What the server holds: x ``[N, in_features]`` and y ``[N]``."""
        data, ids = self.load(), _ids(self)[0]
        return data.x_train[ids], data.y_train[ids]

    def party(self, i: int) -> Party:
        """What party i holds."""
        data, ids = self.load(), _ids(self)[1 + i]
        return Party(f"party-{i}", data.x_train[ids], data.y_train[ids], data.classes)

    def __call__(self, context: Context) -> Party:
        """The party of a node in Flower's simulation engine."""
        return self.party(int(context.node_config["partition-id"]))


@functools.cache
def _load(data: str | None, seed: int) -> LabelledData:
    return load_data(None if data is None else Path(data), seed)


@functools.cache
def _ids(split: Split) -> list[Tensor]:
    """Rows of the training part: the server's, then each party's."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is to be looked up: the data are here
    from datasets import Dataset
    from datasets.utils.logging import disable_progress_bar
    from flwr_datasets.partitioner import DirichletPartitioner, IidPartitioner, Partitioner

    disable_progress_bar()
    labels = split.load().y_train.numpy()
    rows, server = np.arange(len(labels)), np.empty(0, dtype=np.int64)
    if split.server_share:
        n_server = math.ceil(len(rows) * split.server_share)
        if n_server >= len(rows):
            raise ValueError(
                f"federate: server-share must leave samples to the clients, got {split.server_share:g} of {len(rows)}"
            )
        rows, server = split_rows(labels, len(rows), n_server, split.seed)
    partitioner: Partitioner = IidPartitioner(split.n_parties)
    if split.partition == "dirichlet":
        partitioner = DirichletPartitioner(
            split.n_parties, "label", split.alpha, min_partition_size=FEWEST_SAMPLES, seed=split.seed
        )
    order = np.random.default_rng(split.seed).permutation(rows)  # the iid partitioner takes rows as they come
    partitioner.dataset = Dataset.from_dict({"label": labels[order], "row": order})
    try:
        with warnings.catch_warnings(action="ignore"):  # one paragraph per attempt
            parts = [np.asarray(partitioner.load_partition(i)["row"]) for i in range(split.n_parties)]
    except ValueError as error:
        raise ValueError(
            f"federate: {len(order):,} samples cannot be split among {split.n_parties} clients at alpha "
            f"{split.alpha:g}, fewer clients or a larger alpha can ({error})"
        ) from None
    return [torch.from_numpy(np.sort(part)) for part in (server, *parts)]


@functools.lru_cache(maxsize=8)
def load_party(
    path: str | os.PathLike[str],
    name: str,
    part: str = "train",
    label: str | None = None,
    known: TableNames = NO_TABLE,
) -> Party:
    """A party's own file: an .npz with x ``[N, in_features]`` and labels y ``[N]``, a table, or a folder of IDX files.

    Args:
        path: the file.
        name: of the party.
        part: of a file that comes in train and test: ``"train"``, ``"test"`` or ``"all"``; others are train.
        label: of a table, the label's column.
        known: of a table, its columns, so that all parties have the same order.
    """
    source = read_source(Path(path), label, known, labelled=True)
    if part == "test" and "test" not in source.parts:
        rows = source.parts["all"]
        rows = Rows(rows.x[:0], None if rows.y is None else rows.y[:0])
    else:
        rows = source.rows("all" if part == "train" and "all" in source.parts else part)
    x, y = rows.x, rows.y
    if y is None or x.ndim < 2 or y.ndim != 1 or len(x) != len(y) or not (len(x) or part == "test"):
        found = "no y" if y is None else list(y.shape)
        raise ValueError(
            f"{path}: must hold x [N >= 1, ...] and labels y [N], got {list(x.shape)} and {found}"
        )
    features = float_features(str(path), x.reshape(len(x), math.prod(x.shape[1:])), "x", source.names.columns)
    names = (
        source.names
        if source.names.columns is None
        else replace(source.names, columns=(*source.names.columns,))
    )
    if y.dtype.kind in "iu":
        return Party(name, torch.from_numpy(features), torch.from_numpy(y.astype(np.int64)), None, names)
    labels = label_array(str(path), y)
    if labels.dtype.kind == "f":
        raise ValueError(
            f"{path}: y must be class indices, got y of {y.dtype}, or labels, ints, texts or bools"
        )
    known_labels, indices = np.unique(labels, return_inverse=True)
    return Party(name, torch.from_numpy(features), torch.from_numpy(indices), known_labels.tolist(), names)


def numbered(party: Party, class_labels: Sequence[Label] | None) -> Party:
    """A party's samples, numbered as the federation's classes: by label, not by the order in which it has them.

    Args:
        party: as its data are.
        class_labels: what the federation calls class 0, 1, ...; None: labels are class indices.

    Raises:
        ValueError: labels of another type, or one that the federation does not have.
    """
    owner = f"party {party.name}"
    if class_labels is None and party.labels is None:
        return party
    own = party.labels
    if class_labels is None:
        if own is not None and label_type(own) != "int":
            raise ValueError(
                f"{owner}: y must be class indices, got labels of type {label_type(own)}; class-labels of the run "
                "config name the classes of all parties, a JSON list"
            )
        return replace(party, y=torch.tensor(own)[party.y], labels=None)
    found = party.y.numpy() if own is None else label_array(owner, own)[party.y.numpy()]
    require_same_type(owner, class_labels, found, "y", "the federation's")
    return replace(party, y=label_indices(owner, found, class_labels), labels=list(class_labels))


def party_of(context: Context) -> Party:
    """The party of a node: its own file, where its config names one, or its part of the run config's data set."""
    node: Mapping[str, Any] = context.node_config
    if "data" in node:
        if "party" not in node:  # a node's id changes when it reconnects, and sums would be added twice
            raise ValueError(
                'federate: a node\'s config must name its party, as in \'data="party.npz" party="a"\''
            )
        config = context.run_config
        names = names_of_table(str(config.get("columns", "")), str(config.get("label", "")))
        if names.columns is None and Path(str(node["data"])).suffix in TABLES:
            raise ValueError(  # nobody could tell whether all parties have them in the same order
                f"party {node['party']}: a table's columns are matched by name; columns of the run config name them, "
                "a JSON list"
            )
        return load_party(node["data"], str(node["party"]), known=names)
    if "partition-id" not in node:
        raise ValueError(
            'federate: a node\'s config must name its data, as in --node-config \'data="party.npz" party="a"\''
        )
    return split_of(context.run_config, int(node["num-partitions"]))(context)


def split_of(config: Mapping[str, Any], n_parties: int) -> Split:
    """The split that a run config describes."""
    data = str(config.get("data", "digits"))
    return Split(
        None if data == "digits" else data,
        n_parties,
        str(config.get("partition", "dirichlet")),
        float(config.get("alpha", 0.3)),
        float(config.get("server-share", 0.0)),
        int(config.get("seed", 0)),
    )
