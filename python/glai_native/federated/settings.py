"""What a federation is told, in the flat form that Flower's run config has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from glai_native.data.labelled import LabelledData
from glai_native.data.labels import Label, label_list
from glai_native.data.tables import TableNames

METHODS = ("statistics", "samples", "activations_classes", "exact", "means")
STRUCTURES = ("server", "clients", "random")
BASELINES = ("fedavg",)

# Of methods whose structure is not worth training, or has seen mean and scale alone.
RANDOM_STRUCTURES = ("exact", "means")
HIDDEN = {"exact": "2048", "means": "1"}

# What a server that goes on from its folder may be told anew.
FREE = ("rounds", "timeout", "min_clients")


def labels_of(text: str) -> list[Label] | None:
    """Labels from JSON; None of an empty text."""
    if not text:
        return None
    try:
        labels = json.loads(text)
    except ValueError:
        labels = None
    if not isinstance(labels, list):
        raise ValueError(f"federate: class-labels must be a JSON list of labels, got {text!r}")
    return label_list("federate", labels, "class-labels")


def names_of_table(columns: str, label: str) -> TableNames:
    """What parties' tables call their columns, from JSON, and their label; of empty texts nobody has said."""
    if not columns:
        return TableNames(label=label or None)
    try:
        names = json.loads(columns)
    except ValueError:
        names = None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"federate: columns must be a JSON list of names, got {columns!r}")
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None or label in names:
        raise ValueError(
            f"federate: columns must name each feature once, and no label, got {(doubled or label)!r}"
        )
    return TableNames(tuple(names), label or None)


@dataclass(frozen=True)
class FederationSettings:
    """Of the server; parties are told what they need with each message.

    Attributes:
        n_classes: C; parties hold class indices in [0, C).
        hidden: units of the selector's hidden layers, as "32" or "16,16"; "": 32, with ``method="exact"`` 2048.
        components: principal components that z keeps; 0: all features, unrotated.
        structure: ``"server"``: trained on the server's data; ``"clients"``: the projection from sums over the first
            round's clients, the selector by weighted averaging of theirs; ``"random"``: that projection, random units;
            "": random with the methods exact and means, else of clients.
        structure_rounds: of averaging the selector, with ``"clients"``.
        structure_epochs: of the selector, at most on the server, per round on a client.
        method: ``"statistics"``: each party's sufficient statistics, once; ``"samples"``: path weights averaged by
            samples, each round; ``"activations_classes"``: by how often a path was on for the class; ``"exact"``: each
            party's sums of integer features, once; ``"means"``: of z, and counts, of each class, once.
        directions: the estimator has output directions (not with ``"activations_classes"``).
        rounds: at most.
        fraction: of the parties that could take part, asked each round.
        min_clients: nodes to wait for before a round.
        local_epochs: of a party's training per round.
        batch_size: of it.
        learning_rate: of it.
        l2: of the statistics: a number, or "gcv".
        ledger: with ``"exact"`` parties also send a hash of each sample, so that samples that two hold are named, and
            that what is forgotten is known to be there: who guesses a sample can then tell whether a party has it.
        baseline: ``"fedavg"``: instead, Flower's own FedAvg on an MLP of as many parameters in all.
        secure: secure aggregation (:mod:`~glai_native.federated.secure`): the server sees totals only, which are
            rounded, but not with ``"exact"``.
        secure_clip: of each value that a party then sends, which is rounded to multiples of ``secure_clip / 2^21``.
        data: what the parties hold, in any words: a folder is gone on from with the same data only.
        class_labels: what class 0, 1, ... are called, as JSON: parties' data are numbered by label. "": their labels
            are class indices.
        columns: what tables call the features, in the model's order, as JSON: the parties' columns are matched by name,
            and the model keeps them. "": nobody has said.
        label: what tables call the label. "": nobody has said.
        seed: of everything.
        timeout: seconds to wait for replies; who has not replied by then has dropped out of the round.
    """

    n_classes: int
    hidden: str = ""
    components: int = 0
    structure: str = ""
    structure_rounds: int = 3
    structure_epochs: int = 3
    method: str = "statistics"
    directions: bool = False
    rounds: int = 3
    fraction: float = 1.0
    min_clients: int = 2
    local_epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 1e-3
    l2: str = "gcv"
    ledger: bool = False
    baseline: str = ""
    secure: bool = False
    secure_clip: float = 65536.0
    data: str = ""
    class_labels: str = ""
    columns: str = ""
    label: str = ""
    seed: int = 0
    timeout: float = 3600.0

    def __post_init__(self) -> None:
        if not self.hidden:
            object.__setattr__(self, "hidden", HIDDEN.get(self.method, "32"))
        if not self.structure:
            structure = "random" if self.method in RANDOM_STRUCTURES else "clients"
            object.__setattr__(self, "structure", structure)
        choices = {"method": METHODS, "structure": STRUCTURES, "baseline": ("", *BASELINES)}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"federate: {name} must be one of {', '.join(filter(None, known))}, got {getattr(self, name)!r}"
                )
        least = dict.fromkeys(
            ("structure_rounds", "structure_epochs", "rounds", "min_clients", "local_epochs", "batch_size"), 1
        )
        for name, smallest in (least | {"n_classes": 2, "components": 0}).items():
            if getattr(self, name) < smallest:
                raise ValueError(f"federate: {name} must be >= {smallest}, got {getattr(self, name)}")
        if not 0 < self.fraction <= 1:
            raise ValueError(f"federate: fraction must be in (0, 1], got {self.fraction}")
        if self.directions and self.method == "activations_classes":
            raise ValueError(
                "federate: method 'activations_classes' weighs the full paths of each class, got directions"
            )
        if self.directions and self.method in RANDOM_STRUCTURES:
            raise ValueError(f"federate: method {self.method!r} has no paths, got directions")
        if self.method == "exact" and self.components:
            raise ValueError("federate: method 'exact' reads all features, unrotated, got components")
        if self.ledger and (self.method != "exact" or self.secure):
            what = "secure" if self.method == "exact" else f"method {self.method!r}"
            raise ValueError(
                f"federate: a ledger is of method 'exact', and shows what secure hides, got {what}"
            )
        if not all(width.isdecimal() and int(width) for width in self.hidden.split(",")):
            raise ValueError(f"federate: hidden must list units like '32' or '16,16', got {self.hidden!r}")
        if not 0 < self.secure_clip < float("inf"):
            raise ValueError(f"federate: secure-clip must be a finite number > 0, got {self.secure_clip}")
        if self.secure and self.baseline:
            raise ValueError("federate: the baseline is Flower's FedAvg as it is, got secure")
        if self.labels is not None and len(self.labels) != self.n_classes:
            raise ValueError(
                f"federate: class-labels must be of the {self.n_classes} classes, got {len(self.labels)}"
            )
        names_of_table(self.columns, self.label)  # raises where they are none
        if self.l2 != "gcv":
            try:
                penalty = float(self.l2)
            except ValueError:
                penalty = -1.0
            if not 0 <= penalty < float("inf"):
                raise ValueError(f"federate: l2 must be a finite number >= 0 or 'gcv', got {self.l2!r}")

    @property
    def labels(self) -> list[Label] | None:
        """What class 0, 1, ... are called; None: their indices."""
        return labels_of(self.class_labels)

    @property
    def names(self) -> TableNames:
        """What the parties' tables call their columns; numbers are read as they are."""
        return names_of_table(self.columns, self.label)

    @property
    def widths(self) -> list[int]:
        """Units of each hidden layer."""
        return [int(width) for width in self.hidden.split(",")]

    @property
    def penalty(self) -> float | str:
        """l2 as the solvers take it."""
        return self.l2 if self.l2 == "gcv" else float(self.l2)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """From Flower's run config, whose names have hyphens; other entries are left alone."""
        names = {field.name: field.name.replace("_", "-") for field in fields(cls)}
        given = {name: config[key] for name, key in names.items() if key in config}
        if "n_classes" not in given:
            raise ValueError(
                "federate: the run config must state n-classes, the number of classes of all parties"
            )
        return cls(**(given | {"l2": str(given["l2"])} if "l2" in given else given))

    def of_data(self, data: LabelledData, described: str) -> Self:
        """These settings, told what the parties' data are: in words, and what they call classes and columns."""
        names, told = data.names, replace(self, data=described, class_labels=json.dumps(data.classes))
        if names.columns is None:
            return told
        return replace(told, columns=json.dumps([*names.columns]), label=names.label or "")

    def identity(self) -> str:
        """What a server that goes on from its folder must be told again, as JSON."""
        return json.dumps({name: value for name, value in asdict(self).items() if name not in FREE})
