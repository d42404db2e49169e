"""Where the structure of a federation comes from: the server's data, the first round's clients, or chance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from glai_native.data.checks import require_finite
from glai_native.federated.messages import (
    CONFIG,
    MODEL,
    SAMPLES,
    SUMS,
    add_sums,
    averaged,
    from_arrays,
    require_shapes,
    to_arrays,
)
from glai_native.federated.networks import PROJECTION, make_network, projection_bytes
from glai_native.federated.parties import Parties
from glai_native.federated.rounds import choose, reason_of, sent_bytes
from glai_native.federated.settings import FederationSettings
from glai_native.structure.projection import InputProjection
from glai_native.structure.selector import PathSelector
from glai_native.training.new_structure import train_selector

ORIGINS = {
    "server": "trained on {server:,} samples that the server holds",
    "clients": "projection from sums over {parties} clients, selector averaged over {rounds} rounds of them",
    "random": "random units, on a projection from sums over {parties} clients",
}


@dataclass
class Structuring:
    """Makes the structure, and counts what that costs.

    Args:
        settings: of the federation.
        grid: Flower's connection to the nodes.
        parties: who is connected.
    """

    settings: FederationSettings
    grid: Grid
    parties: Parties
    bytes_down: int = 0
    bytes_up: int = 0
    fewest: int = field(default=0, init=False)  # parties that replied, of the round with the fewest

    def make(self, server_samples: tuple[Tensor, Tensor] | None) -> tuple[PathSelector, dict[str, Any]]:
        """The structure, and a statement of where it came from.

        Raises:
            ValueError: ``structure="server"`` and the server holds no samples; parties with other features.
            RuntimeError: no client replied.
        """
        settings = self.settings
        facts = {"server": 0, "parties": 0, "rounds": settings.structure_rounds}
        if settings.structure == "server":
            if server_samples is None or not len(server_samples[0]):
                raise ValueError(
                    "federate: structure 'server' needs samples that the server holds, got none; 'clients' and "
                    "'random' need none"
                )
            selector = self._on_server(*server_samples)
            facts["server"] = len(server_samples[0])
        else:
            nodes = self._first_round()
            self.fewest = len(nodes)
            projection = self.projection(nodes)
            network = make_network(
                [projection.out_features, *settings.widths, settings.n_classes], settings.seed
            )
            if settings.structure == "clients":
                network.load_state_dict(self._averaged(dict(network.state_dict()), projection, nodes))
            selector = PathSelector(network, projection)
            facts["parties"] = self.fewest
        stated = {"structure": settings.structure, "origin": ORIGINS[settings.structure].format(**facts)}
        return selector, stated | {"bytes_down": self.bytes_down, "bytes_up": self.bytes_up}

    def _on_server(self, x: Tensor, y: Tensor) -> PathSelector:
        settings = self.settings
        return train_selector(
            x,
            y,
            settings.n_classes,
            settings.widths,
            settings.components or None,
            epochs=settings.structure_epochs * settings.structure_rounds,
            seed=settings.seed,
            progress=False,
        )

    def _first_round(self) -> list[int]:
        online = self.parties.online()
        chosen = choose(online.values(), self.settings.fraction, len(online), self.settings.seed, number=0)
        return [node for node, name in online.items() if name in chosen]

    def projection(self, nodes: list[int] | None = None) -> InputProjection:
        """Centring, or rotation, from the sums of the clients' raw features: as if fitted on their samples together."""
        config = {"covariance": self.settings.components > 0}
        sums = self._ask("moments", self._first_round() if nodes is None else nodes, config, {})
        return projection_from(sums, self.settings.components)

    def _averaged(
        self, weights: dict[str, Tensor], projection: InputProjection, nodes: list[int]
    ) -> dict[str, Tensor]:
        settings = self.settings
        config = {
            PROJECTION: projection_bytes(projection),
            "epochs": settings.structure_epochs,
            "batch_size": settings.batch_size,
            "learning_rate": settings.learning_rate,
        }
        for number in range(settings.structure_rounds):
            seed = (settings.seed + 7919 * number) % 2**32
            average = averaged(self._ask("selector", nodes, config | {"seed": seed}, weights))
            weights = {name: t.float() for name, t in average.items()}
        return weights

    def _ask(
        self, action: str, nodes: list[int], config: Mapping[str, Any], model: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The sums over the nodes that reply."""
        content = RecordDict({CONFIG: ConfigRecord(dict(config)), MODEL: to_arrays(model)})
        messages = [Message(content, node, f"train.{action}") for node in nodes]
        replies = list(self.grid.send_and_receive(messages, timeout=self.settings.timeout))
        self.bytes_down += sent_bytes(messages)
        self.bytes_up += sent_bytes(replies)
        total: dict[str, Tensor] | None = None
        reasons = [reason_of(reply) for reply in replies if reply.has_error()]
        for reply in replies:
            if not reply.has_error():
                sums = from_arrays(reply.content.array_records[SUMS])
                for name, t in sums.items():
                    require_finite("federate", name, t)
                if total is not None:
                    require_shapes(sums, {name: t.shape for name, t in total.items()})
                total = add_sums(total, sums)
        self.fewest = min(self.fewest, len(replies) - len(reasons))
        if total is None or not int(total[SAMPLES]):
            reason = reasons[0] if reasons else f"no reply within {self.settings.timeout:g} s"
            raise RuntimeError(f"federate: no client made its part of the structure ({reason})")
        return total


def projection_from(sums: Mapping[str, Tensor], n_components: int) -> InputProjection:
    """``InputProjection.fit`` from sums over samples: ``x [D]``, ``squares [D]`` or ``[D, D]``, and their number."""
    n = int(sums[SAMPLES])
    mean = sums["x"] / n
    if not n_components:
        variance = float((sums["squares"] / n - mean.square()).clamp(min=0).mean())
        rotation = None
    else:
        if n_components > len(mean):
            raise ValueError(f"federate: components must be <= {len(mean)} features, got {n_components}")
        variances, axes = torch.linalg.eigh(sums["squares"] / n - torch.outer(mean, mean))
        axes = axes.flip(1)[:, :n_components]
        largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
        rotation = (axes * torch.where(largest < 0, -1.0, 1.0)).float().contiguous()
        variance = float(variances.flip(0)[:n_components].clamp(min=0).mean())
    scale = 1.0 / math.sqrt(variance) if variance > 0 else 1.0
    return InputProjection(
        len(mean), mean.float(), torch.tensor(scale, dtype=torch.float32, device="cpu"), rotation
    )
