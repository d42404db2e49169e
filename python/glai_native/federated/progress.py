"""The folder of a federation: a whole model after every round, from which a restarted server goes on."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from flwr.app import ArrayRecord, ConfigRecord
from torch import Tensor

from glai_native.federated.rounds import FederatedRound
from glai_native.federated.settings import FederationSettings
from glai_native.machine.files import is_integer, is_number, parse_json
from glai_native.machine.writing import read_whole, remove_leftovers

FEDERATION = "federation"


@dataclass(kw_only=True)
class Progress(ABC):
    """What a federation has come to.

    The rounds, and which parties are in the sums, are in the metadata of the one file that holds the sums, or the
    averaged weights: no party is counted twice.

    Attributes:
        folder: of the model; None: kept in memory only.
        settings: of the federation.
        stated: where the structure came from, and what it cost.
        contributed: names of the parties whose sums are in.
        rounds: what was done so far.
        is_solved: whether the model is that of the sums.
    """

    folder: Path | None
    settings: FederationSettings
    stated: dict[str, Any]
    contributed: list[str] = field(default_factory=list)
    rounds: list[FederatedRound] = field(default_factory=list)
    is_solved: bool = True

    @property
    @abstractmethod
    def structure_id(self) -> str:
        """Of what parties are sent once."""

    @abstractmethod
    def structure_records(self) -> Mapping[str, ConfigRecord | ArrayRecord]:
        """What parties are sent once."""

    @abstractmethod
    def weights(self) -> Mapping[str, Tensor]:
        """Of the model, for Flower's result."""

    @abstractmethod
    def model(self) -> Callable[[Tensor], Tensor]:
        """What gives the scores of raw samples."""

    @abstractmethod
    def described(self) -> dict[str, Any]:
        """The structure's id and sizes, for a report."""

    @abstractmethod
    def solve(self) -> None:
        """Makes the model that of the sums, where it is not."""

    @abstractmethod
    def save(self) -> None:
        """Writes the folder, in one step: it is whole, or as it was before."""

    def text(self) -> str:
        """What a restarted server needs beside the model, as JSON."""
        return json.dumps(
            {
                "settings": self.settings.identity(),
                "stated": self.stated,
                "contributed": self.contributed,
                "rounds": [asdict(done) for done in self.rounds],
            }
        )

    @classmethod
    def load(cls, folder: Path, settings: FederationSettings) -> Self | None:
        """What the folder has come to; None where nothing is there.

        Raises:
            ValueError: it is of a federation with other settings, or of none, or its files do not belong together.
        """
        remove_leftovers(folder)
        return read_whole(folder, lambda: cls._load(folder, settings))

    @classmethod
    @abstractmethod
    def _load(cls, folder: Path, settings: FederationSettings) -> Self | None: ...


def require_same_settings(folder: Path, kept: Mapping[str, Any], settings: FederationSettings) -> None:
    """Raise unless a federation was told what it is told now."""
    before, now = json.loads(kept["settings"]), json.loads(settings.identity())
    before = {
        "class_labels": now["class_labels"],
        "ledger": False,
        "columns": now["columns"],
        "label": now["label"],
    } | before  # which earlier versions did not keep
    if before != now:
        name = next((name for name in now if before.get(name) != now[name]), "settings")
        raise ValueError(
            f"{folder}: holds a federation with {name} {before.get(name)!r}, got {now.get(name)!r}; "
            "go on with the same settings, or name a new folder"
        )


def require_kept(folder: Path, kept: Any) -> list[FederatedRound]:
    """Raise unless what a federation's file says of it is what :meth:`Progress.save` writes; return the rounds."""
    try:
        settings = parse_json(kept["settings"])
        rounds = [FederatedRound(**done) for done in kept["rounds"]]
        sound = isinstance(settings, dict) and isinstance(kept["stated"], dict)
        parties = kept["contributed"]
        sound = sound and all(isinstance(name, str) for name in parties) and len(set(parties)) == len(parties)
    except (TypeError, KeyError, ValueError):
        sound = False
    if not sound or not all(_is_round(done, number) for number, done in enumerate(rounds, start=1)):
        raise ValueError(f"{folder}: what its files say of the federation's rounds must be as it was written")
    return rounds


def _is_round(done: FederatedRound, number: int) -> bool:
    counts = done.samples, done.bytes_down, done.bytes_up
    return (
        is_integer(done.round, number, number)
        and is_integer(done.asked)
        and is_integer(done.replied, 0, done.asked)
        and all(is_integer(count) for count in counts)
        and (done.accuracy is None or is_number(done.accuracy, 0, 1))
        and isinstance(done.dropped, list)
        and all(isinstance(reason, str) for reason in done.dropped)
        and isinstance(done.shared, list)
        and all(isinstance(sentence, str) for sentence in done.shared)
    )
