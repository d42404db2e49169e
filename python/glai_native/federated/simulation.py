"""All parties on one machine, in Flower's own simulation engine."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"  # read when flwr is imported

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from glai_native.federated.baseline import means_bytes, mlp_bytes, mlp_widths, total_parameters
from glai_native.federated.client import client_app
from glai_native.federated.files import PartyFiles
from glai_native.federated.partition import Split
from glai_native.federated.progress import Progress
from glai_native.federated.rounds import FederatedRound
from glai_native.federated.server import Plan, run
from glai_native.federated.settings import FederationSettings


@dataclass(frozen=True)
class SimulationReport:
    """What a simulated federation did; ``glai federate --json`` prints it.

    Attributes:
        data: its name and sizes.
        split: how it was split.
        settings: of the federation.
        structure: where it came from, its id, and the bytes it cost.
        rounds: of each what :class:`FederatedRound` holds, ``fedavg_bytes``, both ways, of FedAvg on the MLP of as many
            parameters with the same parties, and ``means_bytes``, what they would send of class means alone.
        test: accuracy after the last round.
        parameters: in all, of the model and of the MLP.
        seconds: wall time, engine start included.
        folder: of the model; empty for the baseline.
    """

    data: dict[str, Any]
    split: dict[str, Any]
    settings: dict[str, Any]
    structure: dict[str, Any]
    rounds: list[dict[str, Any]]
    test: float | None
    parameters: dict[str, int]
    seconds: float
    folder: str


def simulate(
    split: Split | PartyFiles,
    settings: FederationSettings,
    folder: Path | None,
    *,
    workers: int | None = None,
    on_round: Callable[[FederatedRound], None] | None = None,
) -> SimulationReport:
    """Runs a federation of the split's parties.

    Args:
        split: data and parties, or the parties' files.
        settings: of the federation.
        folder: of the model; one that holds a federation with the same settings is gone on from.
        workers: processes that play the parties; None: one per core, at most as many as parties.
        on_round: called after each round.

    Raises:
        ValueError: data, split or settings that do not fit.
        RuntimeError: no client replied.
    """
    started = time.perf_counter()
    data = split.load()
    settings = settings.of_data(data, json.dumps(asdict(split)))
    split.party(0)  # refuses what cannot be split before the engine starts
    held = split.server_samples() if split.server_share else None
    test = (data.x_test, data.y_test) if len(data.x_test) else None
    plan = Plan(settings, folder, held, test, data.classes, on_round)
    done: dict[str, Any] = {}
    stopped = threading.Event()
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        _stop_with(grid, stopped)
        try:
            done["result"] = run(grid, context, plan)
        except Exception as error:  # raised below, without the engine's own trace
            done["error"] = error

    try:
        _run(server, split, workers)
    finally:
        stopped.set()
    if "error" in done:
        raise done["error"]
    result = done["result"]
    progress = result if isinstance(result, Progress) else None
    z_features = settings.components or data.x_train.shape[1]
    rounds = result if progress is None else progress.rounds
    each, of_means = mlp_bytes(settings, z_features), means_bytes(settings, z_features)
    structure = {}
    if progress is not None:
        structure = progress.stated | progress.described()
    d, units, c = mlp_widths(settings, z_features)
    return SimulationReport(
        data={
            "name": data.name,
            "train": len(data.x_train),
            "test": len(data.x_test),
            "features": data.x_train.shape[1],
            "classes": data.n_classes,
        },
        split=asdict(split),
        settings={name: value for name, value in asdict(settings).items() if name != "data"},
        structure=structure,
        rounds=[
            asdict(r) | {"fedavg_bytes": (r.asked + r.replied) * each, "means_bytes": r.replied * of_means}
            for r in rounds
        ],
        test=rounds[-1].accuracy if rounds else None,
        parameters={
            "model": total_parameters(settings, z_features),
            "mlp": units * (d + 1) + (units + 1) * c,
        },
        seconds=time.perf_counter() - started,
        folder="" if folder is None or progress is None else str(folder),
    )


def _run(server: ServerApp, split: Split | PartyFiles, workers: int | None) -> None:
    """Flower's engine, and ray under it, without their talk."""
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_enable_metrics_collection", "0")
    try:
        _start_ray(min(workers or len(os.sched_getaffinity(0)), split.n_parties))
        run_simulation(
            server,
            client_app(split),
            num_supernodes=split.n_parties,
            backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
        )
    finally:
        logger.setLevel(level)
        _shut_down()


def _start_ray(workers: int) -> None:
    """As Flower would, which takes one that runs; but SIGTERM stays the caller's, ray answers it with traces."""
    import ray

    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            num_cpus=workers,
            logging_level=logging.CRITICAL,
            log_to_driver=False,
            include_dashboard=False,
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}},
        )
    except SystemExit:  # ray's answer to one that came meanwhile
        signal.signal(signal.SIGTERM, handler)
        signal.raise_signal(signal.SIGTERM)
        raise
    if threading.current_thread() is threading.main_thread():  # the only one in which ray can have set it
        signal.signal(signal.SIGTERM, handler)


def _shut_down() -> None:
    import ray

    ray.shutdown()


def _stop_with(grid: Grid, stopped: threading.Event) -> None:
    """Makes a wait for replies end when the run is interrupted: the engine waits for this thread."""
    pull = grid.pull_messages

    def pull_messages(*arguments: Any, **named: Any) -> Any:
        if stopped.is_set():
            raise InterruptedError("federate: interrupted")
        return pull(*arguments, **named)

    setattr(grid, "pull_messages", pull_messages)  # noqa: B010
