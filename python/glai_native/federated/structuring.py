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
    AROUND,
    CONFIG,
    MODEL,
    SAMPLES,
    SUMS,
    add_sums,
    averaged,
    from_arrays,
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

# A variance that is less than this part of the mean square has lost 20 of float64's 53 bits.
CANCELLED = 2.0**-20
# Of sums, by name.
Shapes = tuple[tuple[str, tuple[int, ...]], ...]


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
    left_out: dict[str, None] = field(default_factory=dict, init=False)  # who, and why: a sentence each

    def make(self, server_samples: tuple[Tensor, Tensor] | None) -> tuple[PathSelector, dict[str, Any]]:
        """The structure, and a statement of where it came from.

        Raises:
            ValueError: ``structure="server"`` and the server holds no samples; parties with other features, by name.
            RuntimeError: no client replied, or none has samples.
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
            nodes = self.first_round()
            self.fewest = len(nodes)
            projection = self.projection(nodes)
            network = make_network(
                [projection.out_features, *settings.widths, settings.n_classes], settings.seed
            )
            if settings.structure == "clients":
                network.load_state_dict(self._averaged(dict(network.state_dict()), projection, nodes))
            selector = PathSelector(network, projection)
            facts["parties"] = self.fewest
        return selector, self.stated(ORIGINS[settings.structure].format(**facts))

    def stated(self, origin: str) -> dict[str, Any]:
        """What the result says of the structure: where it came from, what that cost, and who is left out."""
        stated = {"structure": self.settings.structure, "origin": origin}
        left_out = {"left_out": [*self.left_out]} if self.left_out else {}
        return stated | {"bytes_down": self.bytes_down, "bytes_up": self.bytes_up} | left_out

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

    def first_round(self) -> list[int]:
        """The nodes that are asked for their part of the structure."""
        online = self.parties.online()
        chosen = choose(online.values(), self.settings.fraction, len(online), self.settings.seed, number=0)
        return [node for node, name in online.items() if name in chosen]

    def projection(self, nodes: list[int] | None = None) -> InputProjection:
        """Centring, or rotation, from the sums of the clients' raw features: as if fitted on their samples together."""
        config = {"covariance": self.settings.components > 0}
        nodes = self.first_round() if nodes is None else nodes
        sums = self.ask("moments", nodes, config, {})
        around = sums["x"] / int(sums[SAMPLES])
        if not _cancels(sums):
            return projection_from(sums, self.settings.components)
        # Again around the mean: of a large one, squares hold nothing else.
        sums = self.ask("moments", nodes, config | {AROUND: around.tolist()}, {})
        return projection_from(sums, self.settings.components, around)

    def _averaged(
        self, weights: dict[str, Tensor], projection: InputProjection, nodes: list[int]
    ) -> dict[str, Tensor]:
        settings = self.settings
        config = {
            PROJECTION: projection_bytes(projection),
            "class_labels": settings.class_labels,
            "epochs": settings.structure_epochs,
            "batch_size": settings.batch_size,
            "learning_rate": settings.learning_rate,
        }
        for number in range(settings.structure_rounds):
            seed = (settings.seed + 7919 * number) % 2**32
            average = averaged(self.ask("selector", nodes, config | {"seed": seed}, weights))
            weights = {name: t.float() for name, t in average.items()}
        return weights

    def ask(
        self, action: str, nodes: list[int], config: Mapping[str, Any], model: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The sums over the nodes that reply."""
        content = RecordDict({CONFIG: ConfigRecord(dict(config)), MODEL: to_arrays(model)})
        messages = [Message(content, node, f"train.{action}") for node in nodes]
        replies = list(self.grid.send_and_receive(messages, timeout=self.settings.timeout))
        self.bytes_down += sent_bytes(messages)
        self.bytes_up += sent_bytes(replies)
        asked = {node: self._name(node) for node in nodes}
        total: dict[str, Tensor] | None = None
        shapes: dict[Shapes, list[str]] = {}
        left_out, replied = [], []
        for reply in replies:
            name = asked.pop(reply.metadata.src_node_id, None)
            if name is None:
                continue  # not asked
            try:
                sums = _checked(reply)
            except ValueError as error:
                left_out.append(f"{name}: {error}")
                continue
            replied.append(name)
            shapes.setdefault(tuple(sorted((key, tuple(t.shape)) for key, t in sums.items())), []).append(
                name
            )
            if len(shapes) == 1:
                total = add_sums(total, sums)
        if len(shapes) > 1:
            raise _of_other_features(shapes)
        left_out += [f"{name}: no reply within {self.settings.timeout:g} s" for name in asked.values()]
        self.left_out |= dict.fromkeys(sorted(left_out))
        self.fewest = min(self.fewest, len(replied))
        if total is None or not int(total[SAMPLES]):
            if replied:
                left_out.append(f"no samples at {', '.join(sorted(replied))}")
            reason = "; ".join(sorted(left_out)) or "no party was there to be asked"
            raise RuntimeError(f"federate: no client made its part of the structure ({reason})")
        return total

    def _name(self, node: int) -> str:
        try:
            return self.parties.name(node)
        except KeyError:
            return f"node {node}"


def _of_other_features(shapes: dict[Shapes, list[str]]) -> ValueError:
    """Name the parties whose sums have other shapes than those of most."""
    most = max(shapes, key=lambda kind: len(shapes[kind]))
    other = next(kind for kind in shapes if kind != most)
    keys = sorted({key for key, _ in (*most, *other)})
    key = next(key for key in keys if dict(most).get(key) != dict(other).get(key))
    wanted, found = (
        f"{list(dict(kind)[key]) if key in dict(kind) else 'absent'} of {', '.join(sorted(shapes[kind]))}"
        for kind in (most, other)
    )
    return ValueError(f"federate: {key} must be alike, of the same features, {wanted}, got {found}")


def _checked(reply: Message) -> dict[str, Tensor]:
    """Return the sums of a reply; raise where it is an error, holds none, or they are not finite."""
    if reply.has_error():
        raise ValueError(reason_of(reply))
    if SUMS not in reply.content.array_records or SAMPLES not in reply.content.array_records[SUMS]:
        raise ValueError("federate: a reply must hold sums and how many samples they are of")
    sums = from_arrays(reply.content.array_records[SUMS])
    for name, t in sums.items():
        require_finite("federate", name, t)
    if int(sums[SAMPLES]) < 0:
        raise ValueError(f"federate: {SAMPLES} must be >= 0, got {int(sums[SAMPLES])}")
    return sums


def _cancels(sums: Mapping[str, Tensor]) -> bool:
    """Whether a feature's variance is lost between its mean square and the square of its mean."""
    mean, squares = (sums[name] / int(sums[SAMPLES]) for name in ("x", "squares"))
    squares = squares.diagonal() if squares.ndim == 2 else squares
    return bool((squares - mean.square() < squares * CANCELLED).any())


def projection_from(
    sums: Mapping[str, Tensor], n_components: int, around: Tensor | None = None
) -> InputProjection:
    """``InputProjection.fit`` from sums over samples: ``x [D]``, ``squares [D]`` or ``[D, D]``, and their number.

    Args:
        sums: of the features, less ``around``.
        n_components: 0: all features.
        around: ``[D]``; None: 0. With it the projection centres in float64, as the features then need it.
    """
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
    centre = mean.float()
    if around is not None:
        centre, rotation = around + mean, None if rotation is None else rotation.double()
    scales = torch.tensor(scale, dtype=torch.float32, device="cpu")
    return InputProjection(len(mean), centre, scales, rotation)
