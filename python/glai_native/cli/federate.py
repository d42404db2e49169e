"""``glai federate`` simulates many owners of data on one machine by Flower's engine."""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glai_native.cli.arguments import positive_integer, seed
from glai_native.cli.command import add_command, require_new_folder
from glai_native.cli.commands import COMMANDS
from glai_native.cli.interrupts import ends_at_once

if TYPE_CHECKING:
    from rich.console import Console

    from glai_native.federated.files import PartyFiles
    from glai_native.federated.partition import Split
    from glai_native.federated.rounds import FederatedRound
    from glai_native.federated.simulation import SimulationReport

FEDERATE_EXAMPLES = """\
examples:
  glai federate --clients 10 --partition dirichlet --alpha 0.3           digits; statistics, exact under any skew
  glai federate --data mnist/ --method samples --rounds 10 --epochs 2    path weights averaged each round
  glai federate --fraction 0.5 --rounds 4 --structure random --json      half of the clients at a time
  glai federate --rounds 8 --fraction 0.5 --resume                       goes on in the same folder
  glai federate --method exact --secure                                  integer sums, by SecAgg+, the same to the bit
  glai federate --method exact --party a.npz --party b.csv --test t.npz  each file a party
  glai federate --method means                                           class means alone
  glai federate --secure --secure-clip 1e6                               Flower's SecAgg+: totals only
  glai federate --baseline fedavg --rounds 10                            Flower's FedAvg on an MLP as large
"""
# What the extra `federated` of pyproject.toml asks for.
FLOWER = "'flwr[simulation]>=1.41' 'flwr-datasets>=0.6'"
# What a round's and a structure's row shows.
BYTES = ("bytes_down", "bytes_up", "fedavg_bytes", "means_bytes")
SIZES = ("paths", "units", "features")
# Told with --structure server alone.
SERVER_SHARE = 0.1
# What describes a data set that is split, not the parties' own.
OF_SPLITS = ("data", "clients", "partition", "alpha", "server_share")


def add(commands: Any) -> None:
    """Add ``federate`` to the command line's subparsers."""
    federate = add_command(commands, "federate", COMMANDS["federate"].summary, FEDERATE_EXAMPLES, _federate)
    add = federate.add_argument
    add(
        "--data",
        help="'digits' (default), a folder of MNIST IDX files, or .npz with x, y: split among clients",
    )
    add(
        "--party",
        action="append",
        default=[],
        metavar="FILE",
        help="instead: a party's own data, .npz, .csv or .parquet; once for each party",
    )
    add("--test", metavar="FILE", help="with --party: to test on (default: the parties' own test parts)")
    add("--label", metavar="COLUMN", help="with --party: of tables, the label's column")
    add(
        "-o",
        "--out",
        type=Path,
        default=Path("glai-federated"),
        metavar="FOLDER",
        help="default: %(default)s",
    )
    add("--resume", action="store_true", help="go on with the federation that FOLDER holds")
    add("--clients", type=positive_integer, help="owners of data (default: 10)")
    add("--partition", choices=("iid", "dirichlet"), help="default: dirichlet")
    add(
        "--alpha",
        type=float,
        help="of the Dirichlet shares, small is skewed (default: 0.3)",
    )
    add(
        "--method",
        choices=("statistics", "samples", "activations_classes", "exact", "means"),
        default="statistics",
        help="what clients send (default: %(default)s)",
    )
    add(
        "--structure",
        choices=("server", "clients", "random"),
        default="",
        help="who trains it (default: clients; exact and means: random)",
    )
    add(
        "--server-share",
        type=float,
        help="of the samples, held by the server (default: 0.1 with --structure server)",
    )
    add("--rounds", type=positive_integer, default=3, help="at most (default: %(default)s)")
    add("--fraction", type=float, default=1.0, help="of the clients, asked each round (default: %(default)s)")
    add(
        "--hidden",
        type=positive_integer,
        nargs="+",
        default=[],
        metavar="UNITS",
        help="units of the selector's hidden layers (default: 32; exact: 2048)",
    )
    add(
        "--components",
        type=positive_integer,
        default=0,
        metavar="K",
        help="principal components (default: all)",
    )
    add("--directions", action="store_true", help="output directions instead of full paths")
    add("--epochs", type=positive_integer, default=1, help="of a client per round (default: %(default)s)")
    add("--batch-size", type=positive_integer, default=32, help="of a client (default: %(default)s)")
    add("--learning-rate", type=float, default=1e-3, help="of a client (default: %(default)s)")
    add("--l2", default="gcv", help="of the statistics, a number or 'gcv' (default)")
    add("--ledger", action="store_true", help="exact: also a hash of each sample; names those that two hold")
    add("--secure", action="store_true", help="secure aggregation: totals only; rounded, but with exact")
    add("--secure-clip", type=float, default=65536.0, help="largest value in a sum (default: %(default)s)")
    add("--baseline", choices=("fedavg",), default="", help="instead: Flower's FedAvg on an MLP as large")
    add("--workers", type=positive_integer, help="processes that play the clients (default: one per core)")
    add("--timeout", type=float, default=600.0, help="seconds to wait for a client (default: %(default)s)")
    add("--seed", type=seed, default=0, help="default: %(default)s")


def require_flower() -> None:
    """Raise, before the work, where Flower, its engine or its partitioners are not installed."""
    for module in ("flwr", "ray", "flwr_datasets"):
        if importlib.util.find_spec(module) is None:
            raise ValueError(f"needs {module}, install it with: pip install {FLOWER}")


def _federate(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from glai_native.machine.progress import epoch_progress

    require_flower()
    if arguments.resume:
        if not any(arguments.out.glob("*.safetensors")):
            raise ValueError(f"nothing to resume in {arguments.out}")
    elif not arguments.baseline:
        require_new_folder(arguments.out)
    split = _parties(arguments)
    from glai_native.federated.settings import FederationSettings
    from glai_native.federated.simulation import simulate

    settings = FederationSettings(
        n_classes=split.load().n_classes,
        hidden=",".join(map(str, arguments.hidden)),
        components=arguments.components,
        structure=arguments.structure,
        method=arguments.method,
        directions=arguments.directions,
        rounds=arguments.rounds,
        fraction=arguments.fraction,
        min_clients=split.n_parties,
        local_epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        l2=arguments.l2,
        ledger=arguments.ledger,
        baseline=arguments.baseline,
        secure=arguments.secure,
        secure_clip=arguments.secure_clip,
        seed=arguments.seed,
        timeout=arguments.timeout,
    )
    rounds: list[int] = []  # done

    def leave() -> str:
        if bar.console.is_terminal:  # where its cursor is hidden
            bar.stop()
        return _tidy(arguments, rounds)

    # Flower's and ray's threads would hold up an interrupt for minutes.
    with epoch_progress(True) as bar, ends_at_once("glai federate", leave):
        task = bar.add_task("starting Flower's simulation engine", total=arguments.rounds)

        def on_round(done: FederatedRound) -> None:
            rounds.append(done.round)
            bar.update(task, completed=done.round, description=f"rounds: accuracy {done.accuracy or 0:.2%}")

        report = simulate(
            split,
            settings,
            None if arguments.baseline else arguments.out,
            workers=arguments.workers,
            on_round=on_round,
        )
    if arguments.json:
        print(json.dumps(asdict(report), indent=2, allow_nan=False))
    else:
        print_federate_report(report, Console())
    return 0


def _parties(arguments: argparse.Namespace) -> Split | PartyFiles:
    """Return a data set that is split, or the parties' own files."""
    from glai_native.federated.files import PartyFiles
    from glai_native.federated.partition import Split

    def resolved(file: str | None) -> str | None:
        return None if file is None else str(Path(file).resolve())

    if arguments.party:
        given = vars(arguments)
        other = next((name for name in OF_SPLITS if given[name] is not None), None)
        if other is not None:
            raise ValueError(
                f"--party names the parties' own data, got --{other.replace('_', '-')} besides, which splits a data set"
            )
        files = tuple(str(Path(file).resolve()) for file in arguments.party)
        return PartyFiles(files, resolved(arguments.test), arguments.label)
    for name in ("test", "label"):
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name} is told with --party, got it alone")
    share = arguments.server_share
    if share is None:
        share = SERVER_SHARE if arguments.structure == "server" else 0.0
    return Split(
        None if arguments.data in (None, "digits") else resolved(arguments.data),
        arguments.clients or 10,
        arguments.partition or "dirichlet",
        0.3 if arguments.alpha is None else arguments.alpha,
        share,
        arguments.seed,
    )


def _tidy(arguments: argparse.Namespace, rounds: list[int]) -> str:
    """Leave a folder that ``--resume`` goes on in, or none; say which."""
    if arguments.baseline:
        return ""
    if rounds or arguments.resume:
        for staged in arguments.out.glob(".*.tmp"):
            staged.unlink(missing_ok=True)
        return f", --resume goes on in {arguments.out}"
    shutil.rmtree(arguments.out, ignore_errors=True)
    return " before the first round was done"


def _split_shown(split: dict[str, Any]) -> str:
    if "files" in split:
        return ""
    skew = f" (alpha {split['alpha']:g})" if split["partition"] == "dirichlet" else ""
    return f", {split['n_parties']} clients, {split['partition']}{skew}"


def print_federate_report(report: SimulationReport, console: Console) -> None:
    """Print the report as tables."""
    from rich.box import SIMPLE
    from rich.table import Table

    settings = report.settings
    what = f"FedAvg on an MLP of {report.parameters['mlp']:,}" if settings["baseline"] else settings["method"]
    title = f"{report.data['name']}{_split_shown(report.split)}: {what}"
    rounds = Table(title=title, box=SIMPLE)
    for heading in ("round", "replied", "samples", "kB down", "kB up", "kB of FedAvg", "of means", "test"):
        rounds.add_column(heading, justify="right")
    for done in report.rounds:
        rounds.add_row(
            str(done["round"]),
            f"{done['replied']} of {done['asked']}",
            f"{done['samples']:,}",
            *(f"{done[name] / 1e3:,.1f}" for name in BYTES),
            "" if done["accuracy"] is None else f"{done['accuracy']:.2%}",
        )
    console.print(rounds)
    facts = Table(show_header=False, box=SIMPLE)
    if report.structure:
        cost = [report.structure[name] / 1e3 for name in ("bytes_down", "bytes_up")]
        facts.add_row("structure", report.structure["origin"])
        sizes = ", ".join(f"{report.structure[name]:,} {name}" for name in SIZES if name in report.structure)
        facts.add_row("", f"{sizes}; {cost[0]:,.1f} kB down and {cost[1]:,.1f} kB up")
    for reason in report.structure.get("left_out", ()):
        facts.add_row("left out of the structure", reason)
    for done in report.rounds:
        for reason in done["dropped"]:
            facts.add_row(f"dropped in round {done['round']}", reason)
        for sentence in done["shared"]:
            facts.add_row("held twice", sentence)
    facts.add_row("parameters", ", ".join(f"{name} {count:,}" for name, count in report.parameters.items()))
    facts.add_row("seconds", f"{report.seconds:.1f}")
    if report.folder:
        facts.add_row("saved in", report.folder)
    console.print(facts)
    if "digest" in report.structure:
        console.print(f"  digest {report.structure['digest']}", soft_wrap=True)
