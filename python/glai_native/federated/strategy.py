"""Flower strategies: rounds in which parties send sums, and the server only adds them up."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import ClassVar, Generic, TypeVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from glai_native.data.checks import require_finite
from glai_native.federated.messages import (
    CONFIG,
    MODEL,
    SAMPLES,
    STATED,
    SUMS,
    add_sums,
    from_arrays,
    require_shapes,
    to_arrays,
)
from glai_native.federated.parties import Parties
from glai_native.federated.progress import Progress
from glai_native.federated.rounds import FederatedRound, choose, reason_of, sent_bytes
from glai_native.federated.settings import FederationSettings

P = TypeVar("P", bound=Progress)


class SumsStrategy(Strategy, Generic[P]):
    """What all methods share: the structure goes to each party once, replies are checked and added up.

    Who has not replied by the timeout, or with an error, or for another structure, has dropped out of the round: the
    sums of the others are added up, and it is asked again in a later round. After every round the folder holds the
    whole model, from which a restarted server goes on.

    Args:
        settings: of the federation.
        progress: structure, model and rounds so far.
        parties: who is connected.
        score: accuracy of a model on the server's test samples, or None.
        on_round: called after each round.
    """

    action: ClassVar[str]
    counts: ClassVar[frozenset[str]] = frozenset((SAMPLES,))  # which sums are integers, >= 0

    def __init__(
        self,
        settings: FederationSettings,
        progress: P,
        parties: Parties,
        score: Callable[[Callable[[Tensor], Tensor]], float] | None = None,
        on_round: Callable[[FederatedRound], None] | None = None,
    ) -> None:
        self.settings, self.progress, self.parties = settings, progress, parties
        self._score, self._on_round = score, on_round
        self.shared: list[str] = []  # of the round
        self._asked: dict[int, str] = {}
        self._bytes_down = 0

    @abstractmethod
    def candidates(self, names: set[str]) -> set[str]:
        """Which parties may be asked."""

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the sums that a party sends."""

    @abstractmethod
    def config(self, number: int) -> dict[str, int | float | bool | str]:
        """What parties are told in round ``number``."""

    def model(self) -> dict[str, Tensor]:
        """Weights that parties start from."""
        return {}

    @abstractmethod
    def combine(self, total: dict[str, Tensor], names: set[str]) -> None:
        """Makes the model of the sums over the parties that replied."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """A message to each party that is asked; with the structure, where it has none."""
        online = self.parties.online()
        number = len(self.progress.rounds) + 1
        candidates = self.candidates(set(online.values()))
        chosen = choose(candidates, self.settings.fraction, len(online), self.settings.seed, number)
        self._asked = {node: name for node, name in online.items() if name in chosen}
        structure_id = self.progress.structure_id
        told = {"structure_id": structure_id, "n_classes": self.settings.n_classes} | self.config(number)
        told["class_labels"] = self.settings.class_labels
        records = {CONFIG: ConfigRecord(told), MODEL: to_arrays(self.model())}
        structure = dict(self.progress.structure_records())
        messages = [
            Message(
                RecordDict(records if self.parties.holds(node, structure_id) else records | structure),
                node,
                f"train.{self.action}",
            )
            for node in self._asked
        ]
        self._bytes_down = sent_bytes(messages)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Adds the replies up, makes the model, and writes it to the folder."""
        if not self._asked:
            return None, None
        total: dict[str, Tensor] | None = None
        missing, dropped, bytes_up = dict(self._asked), [], 0
        self.shared = []
        names: set[str] = set()
        for reply in replies:
            node = reply.metadata.src_node_id
            name = missing.pop(node, None)
            if name is None:
                continue  # not asked in this round
            bytes_up += sent_bytes([reply])
            try:
                sums = self._checked(reply)
            except ValueError as error:
                dropped.append(f"{name}: {error}")
                self.parties.forget(node)
                continue
            self.parties.given(node, self.progress.structure_id)
            total = add_sums(total, self.taken(name, sums))
            names.add(name)
        dropped += [f"node {node}: {reason}" for node, reason in self.parties.refused.items()]
        for node, name in missing.items():
            dropped.append(f"{name}: no reply within {self.settings.timeout:g} s")
            self.parties.forget(node)
        samples = 0 if total is None else int(total[SAMPLES])
        done = FederatedRound(
            len(self.progress.rounds) + 1,
            len(self._asked),
            len(names),
            samples,
            self._bytes_down,
            bytes_up,
            dropped=sorted(dropped),
            shared=list(self.shared),
        )
        self._asked = {}
        if total is not None and samples:
            self.combine(total, names)
        if self._score is not None:
            done = replace(done, accuracy=self._score(self.progress.model()))
        self.progress.rounds.append(done)
        self.progress.save()
        if self._on_round is not None:
            self._on_round(done)
        metrics = MetricRecord({"samples": samples, "replied": len(names)})
        if done.accuracy is not None:
            metrics["accuracy"] = done.accuracy
        return to_arrays(self.progress.weights()), metrics

    def _checked(self, reply: Message) -> dict[str, Tensor]:
        if reply.has_error():
            raise ValueError(reason_of(reply))
        if STATED not in reply.content.config_records or SUMS not in reply.content.array_records:
            raise ValueError("federate: a reply must hold sums and state their structure_id")
        found = str(reply.content.config_records[STATED].get("structure_id", ""))
        wanted = self.progress.structure_id
        if found != wanted:
            raise ValueError(
                f"federate: sums must be of structure_id {wanted[:12]}…, got {f'{found[:12]}…' if found else 'none'}"
            )
        sums = from_arrays(reply.content.array_records[SUMS])
        self.check(sums)
        return sums

    def check(self, sums: dict[str, Tensor]) -> None:
        """Raise unless these can be the sums of a party."""
        require_shapes(sums, self.shapes())
        for name, t in sums.items():
            if t.is_floating_point() == (name in self.counts):
                raise ValueError(f"federate: {name} must not be {t.dtype}")
            require_finite("federate", name, t)
            if name in self.counts and bool((t < 0).any()):
                raise ValueError("federate: counts of samples must be >= 0")

    def taken(self, name: str, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        """What of a party's checked sums is added to those of the others."""
        return sums

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """None: accuracy is the server's, on its test samples."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """None."""
        return None

    def summary(self) -> None:
        """Nothing: the result says it."""
