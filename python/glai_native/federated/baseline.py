"""What a federation is compared with: Flower's own FedAvg on an MLP of as many parameters in all."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from torch import Tensor, nn

from glai_native.federated.messages import from_arrays, to_arrays
from glai_native.federated.networks import PROJECTION, make_network, network_of, projection_bytes
from glai_native.federated.rounds import FederatedRound
from glai_native.federated.settings import FederationSettings
from glai_native.gates.paths import count_paths
from glai_native.structure.projection import InputProjection


def total_parameters(settings: FederationSettings, z_features: int) -> int:
    """Of selector and estimator, V included; the projection, which both sides have, is not counted."""
    widths, d, c = settings.widths, z_features, settings.n_classes
    if settings.method == "means":
        return (d + 1) * c
    fans = [d, *widths[:-1]]
    selector = sum((fan + 1) * width for fan, width in zip(fans, widths, strict=True))
    if settings.method == "exact":  # the scale and shift of a unit are not counted
        return selector + (widths[-1] + d + 1) * c
    paths = count_paths(widths)
    if settings.directions:
        return selector + (paths - 1) * (d + 1 + c) + (d + 1) * c
    return selector + paths * (d + 1) * c


def mlp_widths(settings: FederationSettings, z_features: int) -> list[int]:
    """Of the MLP with one hidden layer that comes nearest to as many parameters."""
    d, c = z_features, settings.n_classes
    units = max(1, round((total_parameters(settings, d) - c) / (d + 1 + c)))
    return [d, units, c]


def mlp_bytes(settings: FederationSettings, z_features: int) -> int:
    """Of the MLP's float32 weights: what FedAvg sends to a client and gets back, each way."""
    d, units, c = mlp_widths(settings, z_features)
    return 4 * (units * (d + 1) + (units + 1) * c)


def means_bytes(settings: FederationSettings, z_features: int) -> int:
    """Of the means and counts of all classes: what a party sends with the method of that name."""
    return 8 * (settings.n_classes * (z_features + 1) + 1)


def run_fedavg(
    grid: Grid,
    settings: FederationSettings,
    projection: InputProjection,
    test: tuple[Tensor, Tensor] | None,
    on_round: Callable[[FederatedRound], None] | None = None,
) -> tuple[nn.Sequential, list[FederatedRound]]:
    """Trains the MLP on projected inputs; the network reads z.

    The projection travels in each message's config and is not counted in the bytes.
    """
    network = make_network(mlp_widths(settings, projection.out_features), settings.seed)
    size = mlp_bytes(settings, projection.out_features)
    strategy = _CountingFedAvg(
        fraction_train=settings.fraction,
        fraction_evaluate=0.0,
        min_train_nodes=1,
        min_available_nodes=settings.min_clients,
    )
    rounds: list[FederatedRound] = []

    def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord | None:
        if number == 0:
            return None
        accuracy = None if test is None else _accuracy(network_of(from_arrays(arrays)), projection, *test)
        asked, replied, samples = strategy.asked, strategy.replied, strategy.samples
        rounds.append(FederatedRound(number, asked, replied, samples, asked * size, replied * size, accuracy))
        if on_round is not None:
            on_round(rounds[-1])
        return None if accuracy is None else MetricRecord({"accuracy": accuracy})

    config = {
        PROJECTION: projection_bytes(projection),
        "class_labels": settings.class_labels,
        "epochs": settings.local_epochs,
        "batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "seed": settings.seed,
    }
    random.seed(settings.seed)  # Flower draws its nodes from it
    result = strategy.start(
        grid,
        to_arrays(network.state_dict()),
        num_rounds=settings.rounds,
        timeout=settings.timeout,
        train_config=ConfigRecord(config),
        evaluate_fn=evaluate,
    )
    if result.arrays:
        network.load_state_dict(from_arrays(result.arrays))
    return network, rounds


class _CountingFedAvg(FedAvg):
    """FedAvg as it is; says who was asked and who replied."""

    asked = replied = samples = 0

    def configure_train(self, *arguments, **named):  # type: ignore[no-untyped-def]
        messages = list(super().configure_train(*arguments, **named))
        self.asked = len(messages)
        return messages

    def aggregate_train(self, server_round, replies):  # type: ignore[no-untyped-def]
        replies = list(replies)
        whole = [reply.content["metrics"] for reply in replies if not reply.has_error()]
        self.replied, self.samples = len(whole), sum(int(metrics["num-examples"]) for metrics in whole)
        return super().aggregate_train(server_round, replies)


@torch.no_grad()
def _accuracy(network: nn.Sequential, projection: InputProjection, x: Tensor, y: Tensor) -> float:
    return float((network(projection(x)).argmax(1) == y).double().mean())
