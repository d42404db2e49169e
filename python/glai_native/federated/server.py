"""The ``ServerApp``: makes the structure, runs the rounds, and keeps the model in a folder.

On many machines ``app`` runs under ``flwr run``; an app's ``pyproject.toml`` names both apps and the settings
(:class:`FederationSettings`, with hyphens)::

    [tool.flwr.app]
    publisher = "you"

    [tool.flwr.app.components]
    serverapp = "glai_native.federated.server:app"
    clientapp = "glai_native.federated.client:app"

    [tool.flwr.app.config]
    n-classes = 10
    class-labels = '["ant", "bee", ...]'  # of all parties; may be left out where labels are 0 to n-classes - 1
    columns = '["width", "height", ...]'  # of the features, where parties hold tables: matched by name
    label = "species"                 # of tables, the label's column; may be left out where it is called label or y
    method = "statistics"
    structure = "clients"
    rounds = 3
    out = "/srv/federation"           # the model; a restarted server goes on from it
    test-data = "/srv/test.npz"       # x, y: accuracy per round; may be left out
    server-data = "/srv/server.npz"   # x, y: for structure = "server"

In Flower's simulation runtime, where nodes have no data of their own, ``data``, ``partition``, ``alpha``,
``server-share`` and ``seed`` describe a data set that is split among them (:class:`Split`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from torch import Tensor

from glai_native.data.labels import Label
from glai_native.estimator.directions import output_directions
from glai_native.estimator.estimator import PathEstimator
from glai_native.federated.baseline import run_fedavg
from glai_native.federated.exact_progress import ExactProgress
from glai_native.federated.exact_strategy import ExactStrategy
from glai_native.federated.mapping import make_features
from glai_native.federated.parties import Parties
from glai_native.federated.partition import Party, load_party, numbered, split_of
from glai_native.federated.path_progress import PathProgress
from glai_native.federated.path_strategies import EstimatorStrategy, MeansStrategy, StatisticsStrategy
from glai_native.federated.progress import Progress
from glai_native.federated.rounds import FederatedRound
from glai_native.federated.secure import SecureGrid
from glai_native.federated.settings import FederationSettings
from glai_native.federated.strategy import SumsStrategy
from glai_native.federated.structuring import Structuring
from glai_native.structure.selector import PathSelector

Labelled = tuple[Tensor, Tensor]

STRATEGIES: dict[str, type[SumsStrategy[Any]]] = {
    "statistics": StatisticsStrategy,
    "samples": EstimatorStrategy,
    "activations_classes": EstimatorStrategy,
    "means": MeansStrategy,
    "exact": ExactStrategy,
}


@dataclass(frozen=True)
class Plan:
    """What a server is told, and what it holds.

    Attributes:
        settings: of the federation.
        folder: of the model; None: nothing is kept.
        server_samples: x and y that the server holds, for ``structure="server"``.
        test: x and y for the accuracy of each round.
        class_labels: what the data call class 0, 1, ...; None: no names.
        on_round: called after each round.
    """

    settings: FederationSettings
    folder: Path | None = None
    server_samples: Labelled | None = None
    test: Labelled | None = None
    class_labels: list[Label] | None = None
    on_round: Callable[[FederatedRound], None] | None = None


def plan_of(context: Context) -> Plan:
    """The plan of a run config."""
    config = context.run_config
    labels, settings = None, FederationSettings.from_config(config)
    held, test = (
        None
        if name not in config
        else _labelled(numbered(load_party(str(config[name]), name, known=settings.names), settings.labels))
        for name in ("server-data", "test-data")
    )
    if "data" in config:  # a data set that is split: its test part, and the server's share
        split = split_of(config, n_parties=2)
        data = split.load()
        test, labels = test or (data.x_test, data.y_test), data.classes
        held = held or (split.server_samples() if split.server_share else None)
    folder = Path(str(config["out"])) if "out" in config else None
    named = labels if labels is not None and len(labels) == settings.n_classes else None
    return Plan(settings, folder, held, test, settings.labels or named)


def _labelled(party: Party) -> Labelled:
    return party.x, party.y


def server_app(plan_of: Callable[[Context], Plan]) -> ServerApp:
    """The app of a server.

    Args:
        plan_of: what a run's context tells it.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        run(grid, context, plan_of(context))

    return app


def run(grid: Grid, context: Context, plan: Plan) -> Progress | list[FederatedRound]:
    """A federation, its sums masked where the settings say so, or the baseline's rounds."""
    if plan.settings.baseline:
        return federate_baseline(grid, plan)
    secure = plan.settings.secure
    return federate(SecureGrid(grid, context, plan.settings.secure_clip) if secure else grid, plan)


def federate(grid: Grid, plan: Plan) -> Progress:
    """Runs the rounds that are left; the structure is made where the folder has none."""
    settings = plan.settings
    parties = Parties(grid, settings.min_clients, settings.timeout)
    kind = ExactProgress if settings.method == "exact" else PathProgress
    progress: Progress | None = None if plan.folder is None else kind.load(plan.folder, settings)
    if progress is None:
        progress = _begun(Structuring(settings, grid, parties), plan)
        progress.save()
    elif not progress.is_solved:
        progress.solve()
        progress.save()  # no round may be left that would
    test = plan.test

    def score(model: Callable[[Tensor], Tensor]) -> float:
        assert test is not None
        with torch.no_grad():
            return float((model(test[0]).argmax(1) == test[1]).double().mean())

    strategy = STRATEGIES[settings.method](
        settings, progress, parties, None if test is None else score, plan.on_round
    )
    left = settings.rounds - len(progress.rounds)
    if left > 0:
        strategy.start(grid, ArrayRecord(), num_rounds=left, timeout=settings.timeout)
    return progress


def _begun(structuring: Structuring, plan: Plan) -> Progress:
    """A federation whose structure is made, and nothing else."""
    settings = plan.settings
    if settings.method == "exact":
        features, stated = make_features(structuring, plan.server_samples)
        return ExactProgress.of(plan.folder, settings, features, stated)
    selector, stated = structuring.make(plan.server_samples)
    estimator = _estimator(selector, plan)
    return PathProgress(
        folder=plan.folder, settings=settings, stated=stated, selector=selector, estimator=estimator
    )


def federate_baseline(grid: Grid, plan: Plan) -> list[FederatedRound]:
    """Flower's FedAvg on the MLP; the projection from sums over the clients."""
    settings = plan.settings
    structuring = Structuring(settings, grid, Parties(grid, settings.min_clients, settings.timeout))
    return run_fedavg(grid, settings, structuring.projection(), plan.test, plan.on_round)[1]


def _estimator(selector: PathSelector, plan: Plan) -> PathEstimator:
    settings, directions = plan.settings, None
    if settings.directions:
        directions = output_directions(selector, settings.n_classes, settings.seed)
    estimator = PathEstimator(
        selector.n_paths,
        selector.z_features,
        settings.n_classes,
        directions,
        structure_id=selector.structure_id,
        dtype=selector.hidden[0][0].dtype,
        device="cpu",
    )
    estimator.class_labels = plan.class_labels
    return estimator


app = server_app(plan_of)
