"""The demo's figures as tables and as a picture."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from glai_native.cli.demo.figures import DemoReport, Training, standard_error

# Seconds that passed over epochs times the median epoch: from here on something else was running.
DISTURBED = 1.5


def print_report(report: DemoReport, console: Console) -> None:
    """Prints the tables of a report."""
    data = report.data
    console.print(
        f"\n[bold]{data['name']}[/]: {data['train']:,} training samples, {data['new']:,} held back as new, "
        f"{data['test']:,} for test; D={data['features']}, C={data['classes']}; "
        f"{report.build['threads']} threads, {report.build['cpu_isa']}\n"
    )
    console.print(_models(report), "")
    worst = max(model.disturbance for model in report.models)
    if worst > DISTURBED:
        console.print(
            f"The machine was busy (up to {worst:.1f} times the typical epoch): compare no seconds.\n",
            style="bold",
        )
    console.print(_structures(report), "")
    for structure in report.structures:
        flips = "  ".join(f"{100 * epoch['flip_rate']:.2g}" for epoch in structure.epochs)
        state = "settled" if structure.settled else "not settled"
        console.print(f"Flips per epoch in %, {structure.widths[0]} units ({state}): {flips}", style="dim")
    console.print()
    for table in (_conversion(report), _retraining(report), _merging(report)):
        console.print(table, "")
    console.print(f"Model, gates and report are in {report.folder}; {report.seconds:.0f} s in all.")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", caption_justify="left", box=SIMPLE)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
    return table


def _models(report: DemoReport) -> Table:
    table = _table("Models", "model", "params", "trained", "s", "s in all", "test %")
    for model in report.models:
        table.add_row(
            model.name,
            f"{model.total_parameters:,}",
            f"{model.trained_parameters:,}",
            f"{model.seconds:.2f}",
            f"{_structure_seconds(report, model) + model.seconds:.2f}",
            _accuracy(report, model.accuracy),
        )
    table.caption = (
        "On test samples, one run, with its standard error. Adam for all; each model's rate is the best of "
        f"{', '.join(f'{rate:g}' for rate in report.settings['rates'])} on a part of its training data, outside the "
        "clock. GLAI goes on from its selector's weights; 's in all' has the structure's training and capture too."
    )
    return table


def _accuracy(report: DemoReport, accuracy: float) -> str:
    error = standard_error(accuracy, report.data["test"])
    return f"{100 * accuracy:.2f} ±{100 * error:.1f}"


def _structures(report: DemoReport) -> Table:
    table = _table(
        "Structure", "units", "epochs", "train s", "capture s", "density", "deviation", "bytes/sample"
    )
    for s in report.structures:
        table.add_row(
            ", ".join(map(str, s.widths)),
            str(len(s.epochs)),
            f"{s.seconds:.2f}",
            f"{s.capture_seconds:.3f}",
            f"{s.density:.3f}",
            f"{s.deviation:.3f}",
            str(s.bytes_per_sample),
        )
    table.caption = "density and deviation over paths, the always-on one included"
    return table


def _conversion(report: DemoReport) -> Table:
    table = _table(
        "The network as an estimator: largest difference of logits", "", "float32", "float64", "accuracy"
    )
    for row in report.conversion:
        table.add_row(
            row["scale"],
            f"{row['difference_float32']:.1e} (rel. {row['relative_float32']:.0e})",
            f"{row['difference_float64']:.1e} (rel. {row['relative_float64']:.0e})",
            _accuracy(report, row["accuracy"]),
        )
    table.caption = "so far: the selector was trained only until its pattern settled"
    return table


def _retraining(report: DemoReport) -> Table:
    epochs = report.retraining[0]["epochs"]
    table = _table(f"Re-training with the new samples, {epochs} epochs over all", "", "before", "after", "s")
    for row in report.retraining:
        table.add_row(
            row["name"],
            f"{row['accuracy_before']:.2%}",
            f"{row['accuracy_after']:.2%}",
            f"{row['seconds']:.2f}",
        )
    table.caption = "GLAI: structure untouched, capture of the new samples' gates inside its time"
    return table


def _merging(report: DemoReport) -> Table:
    table = _table("Two estimators from disjoint halves, merged", "", "samples", "test %")
    for row in report.merging:
        table.add_row(row["name"], f"{row['samples']:,}", _accuracy(report, row["accuracy"]))
    table.caption = "merged by samples; all from zero, on the structure trained with both halves"
    return table


def save_plot(report: DemoReport, path: Path) -> None:
    """Draws pattern flips and weight change per epoch, and accuracy against time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    settling, accuracy = figure.subplots(1, 2)
    for i, structure in enumerate(report.structures):
        epochs = [epoch["epoch"] for epoch in structure.epochs]
        for key, style, what in (
            ("flip_rate", "o-", "pattern flips"),
            ("weight_change", "s--", "weight change"),
        ):
            values = [epoch[key] for epoch in structure.epochs]
            label = f"{what}, {structure.widths[0]} units"
            settling.semilogy(epochs, values, style, color=f"C{i}", label=label, markersize=4)
    settling.set(xlabel="epoch", ylabel="share of gates, relative change", title="Structure settles")
    settling.xaxis.get_major_locator().set_params(integer=True)
    settling.legend(fontsize=8)
    for i, model in enumerate(report.models):
        seconds, values = _curve(report, model)
        control = model.name.startswith(" ")
        label = f"{model.name.strip()} ({model.scale})" if control else model.name
        accuracy.plot(seconds, values, ":" if control else "-", color=f"C{i}", marker=".", label=label)
    floor = min(model.accuracy for model in report.models)
    accuracy.set(
        xlabel="seconds (for GLAI, structure included)",
        ylabel="test accuracy",
        title=f"Accuracy against time: {report.data['name']}",
        ylim=(max(0.0, floor - 0.1), 1.0),
    )
    accuracy.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=120)


def _curve(report: DemoReport, model: Training) -> tuple[list[float], list[float]]:
    """Accuracy over time; before training on learned gates lies the time of their structure."""
    offset = _structure_seconds(report, model)
    return [offset + seconds for seconds, _ in model.curve], [value for _, value in model.curve]


def _structure_seconds(report: DemoReport, model: Training) -> float:
    """Training and capture of the structure whose learned gates the model reads; 0 where it reads none."""
    learned = bool(model.scale) and "random" not in model.name
    return sum(s.seconds + s.capture_seconds for s in report.structures if learned and s.scale == model.scale)
