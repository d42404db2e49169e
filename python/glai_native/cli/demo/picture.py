"""The demo's figures as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from glai_native.cli.demo.figures import Change, DemoReport, LearnForgetMerge, Training

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"MLP": "C1", "GLAI": "C2"}  # as their curves of accuracy against time
BAR = 0.4
HEAD_ROOM = 1.42  # above accuracies of 1: weights' differences, and the legend over them


def save_plot(report: DemoReport, path: Path) -> None:
    """Draw how the structure settles, what learning, forgetting and merging come to, and accuracy against time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(18, 4.8), layout="constrained")
    settling, changes, accuracy = figure.subplots(1, 3, width_ratios=(1, 1.3, 1.3))
    _draw_settling(settling, report)
    assert report.learn_forget_merge is not None
    _draw_changes(changes, report.learn_forget_merge)
    _draw_accuracy(accuracy, report)
    figure.savefig(path, dpi=120)


def _draw_settling(axes: Axes, report: DemoReport) -> None:
    for i, structure in enumerate(report.structures):
        epochs = [epoch["epoch"] for epoch in structure.epochs]
        for key, style, what in (
            ("flip_rate", "o-", "pattern flips"),
            ("weight_change", "s--", "weight change"),
        ):
            values = [epoch[key] for epoch in structure.epochs]
            label = f"{what}, {structure.widths[0]} units"
            axes.semilogy(epochs, values, style, color=f"C{i}", label=label, markersize=4)
    axes.set(xlabel="epoch", ylabel="share of gates, relative change", title="Structure settles")
    axes.locator_params(axis="x", integer=True)
    axes.legend(fontsize=8)


def _draw_changes(axes: Axes, figures: LearnForgetMerge) -> None:
    """Draw an MLP's bars beside GLAI's, and over those whether the sums are those of training anew."""
    groups: list[tuple[str, float | None, float | None, Change | None]] = []
    learn, first, later = figures.learn, len(figures.first_classes), len(figures.later_classes)
    if learn is not None:
        before = learn.glai.first_accuracy_before, learn.mlp.first_accuracy_before
        groups = [
            (f"first {first} classes", *before, None),
            (
                f"first {first},\n{later} learnt later",
                learn.glai.first_accuracy,
                learn.mlp.first_accuracy,
                None,
            ),
            (f"all {first + later},\n{later} learnt later", learn.glai.accuracy, learn.mlp.accuracy, learn),
        ]
    for label, simple in (("a tenth\nforgotten", figures.forget), ("five parties\nmerged", figures.merge)):
        groups.append((label, simple.glai.accuracy, simple.mlp.accuracy, simple))
    labels = {"GLAI": "GLAI, sums changed", "MLP": "MLP, fine-tuned; trained anew; averaged"}
    for i, (_, glai, mlp, change) in enumerate(groups):
        for name, accuracy, x in (("GLAI", glai, i - BAR / 2), ("MLP", mlp, i + BAR / 2)):
            assert accuracy is not None
            axes.bar(x, accuracy, BAR, color=COLOURS[name], label=labels.pop(name, None))
            axes.text(x, accuracy, f"{100 * accuracy:.1f}", ha="center", va="bottom", fontsize=8)
        if change is None:
            continue
        verdict = "same digest" if change.digest == change.digest_anew else "digests differ"
        axes.text(i, 1.08, verdict, ha="center", fontsize=8, color="C2")
        if change.mlp_in_hindsight is not None:
            x, best = i + BAR / 2, change.mlp_in_hindsight
            label = "MLP, at the best of its rates and epochs in hindsight"
            axes.bar(x, best, BAR, fill=False, edgecolor=COLOURS["MLP"], linestyle="--", label=label)
            axes.text(x, best, f"{100 * best:.1f}", ha="center", va="bottom", fontsize=8)
    axes.set_xticks(range(len(groups)), [label for label, *_ in groups], fontsize=8)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.set(ylim=(0, HEAD_ROOM), ylabel="test accuracy")
    axes.set_title("Learn, forget, merge (weights: largest difference from training anew)", fontsize=11)
    axes.legend(fontsize=8, loc="upper left")


def _draw_accuracy(axes: Axes, report: DemoReport) -> None:
    for i, model in enumerate(report.models):
        seconds, values = _curve(report, model)
        control = model.name.startswith(" ")
        label = f"{model.name.strip()} ({model.scale})" if control else model.name
        axes.plot(seconds, values, ":" if control else "-", color=f"C{i}", marker=".", label=label)
    floor = min(model.accuracy for model in report.models)
    axes.set(
        xlabel="seconds (for GLAI, structure included)",
        ylabel="test accuracy",
        title=f"Accuracy against time: {report.data['name']}",
        ylim=(max(0.0, floor - 0.1), 1.0),
    )
    axes.legend(fontsize=8, loc="lower right")


def _curve(report: DemoReport, model: Training) -> tuple[list[float], list[float]]:
    """Return accuracy over time; before training on learned gates lies the time of their structure."""
    offset = report.structure_seconds(model)
    return [offset + seconds for seconds, _ in model.curve], [value for _, value in model.curve]
