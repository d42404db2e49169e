"""What a party answers: a Flower ``ClientApp`` whose replies are sums over the party's samples.

On many machines ``app`` runs under ``flwr run``; a node's config names its data: ``flower-supernode --node-config
'data="/data/party.npz" party="clinic-a"'`` (an .npz with x ``[N, in_features]`` and labels y ``[N]``, or a table).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor

from glai_native.federated.integer_messages import (
    class_names,
    moments_of,
    read_features,
    sums_of,
    units_of,
)
from glai_native.federated.messages import (
    AROUND,
    CONFIG,
    MODEL,
    SAMPLES,
    STATED,
    STRUCTURE,
    SUMS,
    estimator_from,
    from_arrays,
    read_structure,
    to_arrays,
    weighted,
)
from glai_native.federated.networks import read_projection, train_network
from glai_native.federated.partition import Party, numbered, party_of
from glai_native.federated.secure import ACTION, CLIP, as_fit_result, masked
from glai_native.federated.settings import labels_of
from glai_native.solvers.sgd.training import train_estimator
from glai_native.solvers.statistics.sums import PathStatistics
from glai_native.structure.integer_features import IntegerFeatures
from glai_native.structure.selector import PathSelector

Held = TypeVar("Held", IntegerFeatures, tuple[PathSelector, Tensor | None])


def client_app(party_of: Callable[[Context], Party]) -> ClientApp:
    """The app of a party.

    Args:
        party_of: the name and the data of the party that a node's context describes.
    """
    app = ClientApp()

    def _numbered(message: Message, context: Context) -> tuple[Party, ConfigRecord]:
        """The party's samples, by the labels of the federation that asks, and what it is told."""
        config = message.content.config_records[CONFIG]
        return numbered(party_of(context), labels_of(str(config.get("class_labels", "")))), config

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        """Its name, and the structure that it holds."""
        held = context.state.config_records.get(STATED, ConfigRecord())
        stated = {"party": party_of(context).name, "structure_id": str(held.get("structure_id", ""))}
        return Message(RecordDict({STATED: ConfigRecord(stated)}), reply_to=message)

    @app.train("moments")
    def moments(message: Message, context: Context) -> Message:
        """Sums of the raw features: what the projection is made of."""
        x, config = party_of(context).x.double(), message.content.config_records[CONFIG]
        if AROUND in config:
            x = x - torch.tensor(config[AROUND], dtype=torch.float64, device="cpu")
        squares = x.T @ x if config["covariance"] else x.square().sum(0)
        sums = {"x": x.sum(0), "squares": squares, SAMPLES: torch.tensor([len(x)], device="cpu")}
        return Message(RecordDict({SUMS: to_arrays(sums)}), reply_to=message)

    @app.train("selector")
    def selector(message: Message, context: Context) -> Message:
        """The selector's network, trained on from the weights sent; times the number of samples."""
        party, config = _numbered(message, context)
        tensors = train_network(from_arrays(message.content[MODEL]), read_projection(config), party, config)
        return Message(RecordDict({SUMS: to_arrays(weighted(tensors, len(party.x)))}), reply_to=message)

    @app.train("statistics")
    def statistics(message: Message, context: Context) -> Message:
        """Sufficient statistics of all samples."""
        party, config = _numbered(message, context)
        structure, _ = _structure(message, context)
        sums = PathStatistics(
            structure.n_paths,
            structure.z_features,
            cast(int, config["n_classes"]),
            structure_id=structure.structure_id,
            device="cpu",
        )
        sums.update(structure.project(party.x), structure.gates(party.x), party.y)
        tensors = sums.sums() | {SAMPLES: torch.tensor([len(party.x)], device="cpu")}
        return _reply(message, tensors, structure.structure_id)

    @app.train("means")
    def means(message: Message, context: Context) -> Message:
        """Sums of z, and counts, of each class."""
        party, config = _numbered(message, context)
        structure, _ = _structure(message, context)
        n_classes = cast(int, config["n_classes"])
        z = structure.project(party.x).double()
        tensors = {
            "sums": z.new_zeros(n_classes, z.shape[1]).index_add_(0, party.y, z),
            "counts": torch.bincount(party.y, minlength=n_classes),
            SAMPLES: torch.tensor([len(z)], device="cpu"),
        }
        return _reply(message, tensors, structure.structure_id)

    @app.train("exact_moments")
    def exact_moments(message: Message, context: Context) -> Message:
        """Exact sums of the raw features: what integer features are centred and scaled by."""
        return Message(RecordDict({SUMS: to_arrays(moments_of(party_of(context)))}), reply_to=message)

    @app.train("units")
    def units(message: Message, context: Context) -> Message:
        """Exact sums of the squares of a layer of integer units: what their multipliers are made of."""
        config, tensors = message.content.config_records[CONFIG], from_arrays(message.content[MODEL])
        sums = units_of(party_of(context), tensors, config)
        return Message(RecordDict({SUMS: to_arrays(sums)}), reply_to=message)

    @app.train("exact")
    def exact(message: Message, context: Context) -> Message:
        """Sums of integer features of all samples."""
        party, config = _numbered(message, context)
        features = _features(message, context)
        labels = class_names(str(config["class_labels"]), cast(int, config["n_classes"]))
        tensors = sums_of(party, features, labels, bool(config["ledger"]))
        return _reply(message, tensors, features.features_id)

    @app.train("estimator")
    def estimator(message: Message, context: Context) -> Message:
        """The estimator, trained on from the weights sent; times the number of samples, or counts of activations."""
        party, config = _numbered(message, context)
        structure, directions = _structure(message, context)
        n_classes = cast(int, config["n_classes"])
        model = estimator_from(message.content[MODEL], structure, n_classes, directions)
        gates = structure.gates(party.x)
        train_estimator(
            model,
            structure.project(party.x),
            gates,
            party.y,
            epochs=cast(int, config["epochs"]),
            batch_size=cast(int, config["batch_size"]),
            learning_rate=cast(float, config["learning_rate"]),
            seed=cast(int, config["seed"]),
            progress=False,
        )
        model.record(gates, party.y)
        tensors = weighted(dict(model.named_parameters()), len(party.x)) | {"on_counts": model.on_counts}
        if config["by_class"]:
            counts = model.on_counts.to(model.dtype)
            tensors["weight_by_class"] = model.weight.detach() * counts.unsqueeze(1)
            tensors["bias_by_class"] = model.bias.detach() * counts
        return _reply(message, tensors, structure.structure_id)

    actions = {
        "moments": moments,
        "selector": selector,
        "statistics": statistics,
        "estimator": estimator,
        "means": means,
        "exact_moments": exact_moments,
        "units": units,
        "exact": exact,
    }

    @app.train(mods=[masked])
    def train(message: Message, context: Context) -> Message:
        """Sums under a mask, where the server asks for those; otherwise the baseline's MLP, for Flower's FedAvg."""
        config = message.content.config_records[CONFIG]
        if ACTION in config:
            action = str(config[ACTION])
            return as_fit_result(actions[action](message, context), action, cast(float, config[CLIP]))
        party, config = _numbered(message, context)
        tensors = train_network(
            from_arrays(message.content["arrays"]), read_projection(config), party, config
        )
        metrics = MetricRecord({"num-examples": len(party.x)})
        return Message(RecordDict({"arrays": to_arrays(tensors), "metrics": metrics}), reply_to=message)

    return app


def _structure(message: Message, context: Context) -> tuple[PathSelector, Tensor | None]:
    """The structure that the message carries or the party has kept; it must be the one that the message names."""
    return _held(message, context, read_structure, lambda held: held[0].structure_id)


def _features(message: Message, context: Context) -> IntegerFeatures:
    """The integer features, alike."""
    return _held(message, context, read_features, lambda held: held.features_id)


def _held(
    message: Message, context: Context, read: Callable[[RecordDict], Held], id_of: Callable[[Held], str]
) -> Held:
    content, state = message.content, context.state
    for name in (STRUCTURE, f"{STRUCTURE}.directions"):
        if name in content:
            state[name] = content[name]
    wanted = str(content.config_records[CONFIG]["structure_id"])
    if STRUCTURE not in state.config_records:
        raise ValueError(f"federate: this party holds no structure, {wanted[:12]}… must be sent to it")
    held = read(state)
    if id_of(held) != wanted:
        raise ValueError(
            f"federate: the structure must be {wanted[:12]}… as the message names it, this party holds "
            f"{id_of(held)[:12]}…"
        )
    state[STATED] = ConfigRecord({"structure_id": wanted})
    return held


def _reply(message: Message, tensors: dict[str, Tensor], structure_id: str) -> Message:
    stated = ConfigRecord({"structure_id": structure_id})
    return Message(RecordDict({SUMS: to_arrays(tensors), STATED: stated}), reply_to=message)


app = client_app(party_of)
