"""The demo's figures as tables."""

from __future__ import annotations

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from glai_native.cli.demo.figures import Change, DemoReport, LearnForgetMerge, standard_error

# Seconds that passed over epochs times the median epoch: from here on something else was running.
DISTURBED = 1.5
NAMED_CLASSES = 4  # as many labels are spelled out


def print_report(report: DemoReport, console: Console) -> None:
    """Print the tables of a report; what all this is for comes last, where a screen ends."""
    data = report.data
    console.print(
        f"\n[bold]{data['name']}[/]: {data['train']:,} training samples, {data['new']:,} held back as new, "
        f"{data['test']:,} for test; D={data['features']}, C={data['classes']}; "
        f"{report.build['threads']} threads, {report.build['cpu_isa']}\n"
    )
    for print_table in (_structures, _conversion, _retraining, _merging, _models, _changes):
        print_table(report, console)
    worst = max(model.disturbance for model in report.models)
    if worst > DISTURBED:
        console.print(
            f"The machine was busy (up to {worst:.1f} times the typical epoch): compare no seconds.",
            style="bold",
        )
    console.print(f"Model, gates and report are in {report.folder}; {report.seconds:.0f} s in all.")


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE, show_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
    return table


def _print(console: Console, title: str, table: Table, caption: str = "") -> None:
    console.print(title, style="bold", highlight=False)
    console.print(table)
    if caption:
        console.print(caption, style="dim italic", highlight=False)
    console.print()


def _accuracy(report: DemoReport, accuracy: float) -> str:
    error = standard_error(accuracy, report.data["test"])
    return f"{100 * accuracy:.2f} ±{100 * error:.1f}"


def _structures(report: DemoReport, console: Console) -> None:
    table = _table("units", "epochs", "train s", "capture s", "density", "deviation", "bytes/sample")
    flips = []
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
        rates = " ".join(f"{100 * epoch['flip_rate']:.2g}" for epoch in s.epochs)
        flips.append(f"{s.widths[0]} units ({'settled' if s.settled else 'not settled'}): {rates}")
    caption = "Flips per epoch in %\n" + "\n".join(flips)
    _print(console, "Structure: density and deviation of paths, the always-on one included", table, caption)


def _conversion(report: DemoReport, console: Console) -> None:
    table = _table("logits differ by", "float32", "float64", "test %")
    for row in report.conversion:
        table.add_row(
            row["scale"],
            f"{row['difference_float32']:.1e} (rel. {row['relative_float32']:.0e})",
            f"{row['difference_float64']:.1e} (rel. {row['relative_float64']:.0e})",
            _accuracy(report, row["accuracy"]),
        )
    _print(console, "The network as an estimator: trained until its pattern settled, no further", table)


def _retraining(report: DemoReport, console: Console) -> None:
    epochs = report.retraining[0]["epochs"]
    table = _table("", "before", "after", "s")
    for row in report.retraining:
        table.add_row(
            row["name"],
            f"{row['accuracy_before']:.2%}",
            f"{row['accuracy_after']:.2%}",
            f"{row['seconds']:.2f}",
        )
    title = f"Re-training with the new samples, {epochs} epochs over all; GLAI's structure stays"
    _print(console, title, table)


def _merging(report: DemoReport, console: Console) -> None:
    table = _table("", "samples", "test %")
    for row in report.merging:
        table.add_row(row["name"], f"{row['samples']:,}", _accuracy(report, row["accuracy"]))
    _print(console, "Two estimators of one structure, from zero on disjoint halves, merged by samples", table)


def _models(report: DemoReport, console: Console) -> None:
    table = _table("model", "params", "trained", "s", "s in all", "test %")
    for model in report.models:
        table.add_row(
            model.name,
            f"{model.total_parameters:,}",
            f"{model.trained_parameters:,}",
            f"{model.seconds:.2f}",
            f"{report.structure_seconds(model) + model.seconds:.2f}",
            _accuracy(report, model.accuracy),
        )
    rates = ", ".join(f"{rate:g}" for rate in report.settings["rates"])
    caption = (
        f"One run, ± its standard error. Adam for all, at the best rate of {rates} on a part of the training data, "
        "outside the clock. GLAI goes on from its selector's weights; 's in all' has its structure too."
    )
    _print(console, "Models", table, caption)


# --- learn, forget, merge: a sentence each, and three rows under it ---


def _changes(report: DemoReport, console: Console) -> None:
    figures = report.learn_forget_merge
    assert figures is not None
    first = len(figures.first_classes)
    title = f"Learn, forget, merge: sums over {figures.samples:,} samples, {figures.units} units, D={figures.features}"
    console.print(title, style="bold", highlight=False)
    console.print(_rows(report, None, (), first))
    learn, forget, merge = figures.learn, figures.forget, figures.merge
    if learn is None:
        _say(console, "Learn", figures.left_out)
    else:
        _say(console, "Learn", _learning(figures, learn))
        n_classes = first + len(figures.later_classes)
        names = "GLAI, later ones added", f"GLAI, all {n_classes} at once", "MLP, fine-tuned on them"
        console.print(_rows(report, learn, names, first))
    _say(
        console,
        "Forget",
        f"{forget.samples:,} samples are taken out. GLAI needs none of the others for that, and ends with the sums "
        "of never having seen them, to the bit. The MLP has to start again.",
    )
    names = "GLAI, taken out", "GLAI, without them", "MLP, without them"
    console.print(_rows(report, forget, names, first))
    _say(
        console,
        "Merge",
        "five parties hold a fifth each and show no sample. GLAI ends with the sums of all data in one place, to the "
        "bit. "
        "MLPs that are averaged do not.",
    )
    names = "GLAI, five sums added", "GLAI, all in one place", "MLP, five averaged"
    console.print(_rows(report, merge, names, first))
    console.print(_small_print(report, figures), style="dim italic", highlight=False)
    console.print()


def _say(console: Console, what: str, sentence: str) -> None:
    console.print(f"[bold]{what}:[/] {escape(sentence)}", highlight=False)


def _learning(figures: LearnForgetMerge, learn: Change) -> str:
    first, later = len(figures.first_classes), figures.later_classes
    if len(later) == 1:
        come = f"class {later[0]} comes"
    else:
        which = (
            f"classes {', '.join(map(str, later))}" if len(later) <= NAMED_CLASSES else f"{len(later)} more"
        )
        come = f"{which} come"
    old, hindsight = learn.mlp.first_accuracy, learn.mlp_in_hindsight
    assert old is not None
    assert hindsight is not None
    return (
        f"{come} when the samples of the first {first} are gone. GLAI ends with the sums of learning all at once. "
        f"The MLP keeps {old:.1%} of the first (with hindsight, at its best rate and epoch, {hindsight:.1%} of all)."
    )


def _rows(report: DemoReport, change: Change | None, names: tuple[str, ...], first: int) -> Table:
    """Lay out three sides of a change, or without one the head over all of them."""
    table = Table(box=SIMPLE, show_edge=False, show_header=change is None)
    for name, width in (("", 26), ("test %", 11), (f"first {first} %", 11), ("digest", 9), ("s", 7)):
        table.add_column(name, justify="right" if name else "left", width=width, no_wrap=True)
    if change is None:
        return table
    digests = change.digest[:8], change.digest_anew[:8], ""
    for name, side, digest in zip(names, (change.glai, change.anew, change.mlp), digests, strict=True):
        of_first = "" if side.first_accuracy is None else f"{100 * side.first_accuracy:.2f}"
        table.add_row(name, _accuracy(report, side.accuracy), of_first, digest, f"{side.seconds:.2f}")
    return table


def _small_print(report: DemoReport, figures: LearnForgetMerge) -> str:
    """Say what the figures are, and what all this costs."""
    best = max(model.accuracy for model in report.models if model.name.startswith("GLAI"))
    of = "the first classes alone" if figures.learn is not None else "all samples"
    return (
        "digest: SHA-256 of features and sums, its first digits; equal digests are equal bits. s: of the change alone. "
        f"GLAI's {figures.units:,} random units were scaled on {of} ({figures.structure_seconds:.2f} s) and stay. All "
        f"samples: {100 * figures.merge.anew.accuracy:.2f}%, where the best GLAI of the table Models has "
        f"{100 * best:.2f}%; {figures.unknowns:,}² numbers are kept."
    )
