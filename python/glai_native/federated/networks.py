"""The networks that parties train together: the selector's, and the MLP of the FedAvg baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from glai_native.federated.partition import Party
from glai_native.structure.network import relu_network
from glai_native.structure.projection import InputProjection
from glai_native.structure.settling import StructureMonitor, train_structure

PROJECTION = "projection"


def make_network(widths: list[int], seed: int) -> nn.Sequential:
    """``Linear, ReLU, ..., Linear`` with PyTorch's random start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return relu_network(widths)


def network_of(tensors: Mapping[str, Tensor]) -> nn.Sequential:
    """The network whose state these tensors are."""
    weights = [t for name, t in tensors.items() if name.endswith("weight")]
    network = make_network([weights[0].shape[1], *(len(weight) for weight in weights)], seed=0)
    network.load_state_dict(dict(tensors))
    return network


def train_network(
    tensors: Mapping[str, Tensor], projection: InputProjection, party: Party, config: Mapping[str, Any]
) -> dict[str, Tensor]:
    """So many epochs of Adam on a party's samples, from the given weights; the weights after it."""
    network = network_of(tensors)
    epochs = int(config["epochs"])
    monitor = StructureMonitor(min_epochs=epochs, max_epochs=epochs)
    train_structure(
        network,
        party.x,
        party.y,
        projection,
        monitor,
        batch_size=int(config["batch_size"]),
        learning_rate=float(config["learning_rate"]),
        seed=int(config["seed"]),
        progress=False,
    )
    return dict(network.state_dict())


def projection_bytes(projection: InputProjection) -> bytes:
    """Mean, scale and rotation, where it has them, for a message's config."""
    return save({name: t.contiguous() for name, t in projection.named_buffers()})


def read_projection(config: Mapping[str, Any]) -> InputProjection:
    """And back."""
    tensors = load(config[PROJECTION])
    return InputProjection(len(tensors["mean"]), tensors["mean"], tensors["scale"], tensors.get("rotation"))
