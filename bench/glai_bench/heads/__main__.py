"""Heads on a frozen backbone, on BANKING77's cached embeddings: the same MLP head, GLAI's, and the controls.

Three tasks: all 77 classes; a projection head under a contrastive loss, scored by a linear probe; and few shots of
classes that the structure was not trained on. Each kind's learning rate is the best of a few on validation data. A
fourth is heads at larger sizes, up to 1,280 features and 1,000 classes, by ``replace_mlp`` and ``fit`` at defaults.
GLAI heads are the MLP for the first fifth of the steps; those with "random gates" are replaced before the first, and
so are those of a "given structure", which is then the base classes'.

GLAI_DATA=data python -m glai_bench.heads --json bench/results/heads.json && python -m glai_bench.heads.report
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import track
from rich.table import Table

import glai_native as glai
from glai_bench.heads.sizes import data_sets, rows_of
from glai_bench.heads.tasks import (
    CLASSIFY_KINDS,
    FEW_SHOT_KINDS,
    PROJECT_KINDS,
    RATES,
    Result,
    base_mlp,
    centroid_scores,
    classify,
    episode,
    percent,
    probe,
    project,
)
from glai_native.data.labelled import LabelledData, load_data

TUNING_EPISODES = 30
TASKS = ("classify", "project", "few-shot", "sizes")

Rows = dict[str, dict[str, Any]]


def centred(data: LabelledData) -> LabelledData:
    """Features centred and scaled by one number: what every head reads."""
    projection = glai.InputProjection.fit(data.x_train)
    return replace(data, x_train=projection(data.x_train), x_test=projection(data.x_test))


def validation(data: LabelledData) -> LabelledData:
    """A tenth of the training samples in the place of the test's."""
    order = torch.randperm(len(data.x_train), generator=torch.Generator().manual_seed(0))
    kept, held = order[len(order) // 10 :], order[: len(order) // 10]
    x, y = data.x_train, data.y_train
    return replace(data, x_train=x[kept], y_train=y[kept], x_test=x[held], y_test=y[held])


def row(results: Sequence[Result], rate: float | None = None) -> dict[str, float | None]:
    accuracies = [result.accuracy for result in results]
    error = statistics.stdev(accuracies) / len(accuracies) ** 0.5 if len(accuracies) > 1 else None
    cells: dict[str, float | None] = {
        "accuracy": statistics.mean(accuracies),
        "standard_error": error,
        "seconds": statistics.median(result.seconds for result in results),
    }
    return cells if rate is None else cells | {"rate": rate}


def with_seeds(
    task: Callable[[str, LabelledData, float, int], Result],
    kinds: Sequence[str],
    data: LabelledData,
    rates: Sequence[float],
    seeds: int,
) -> Rows:
    rows = {}
    for kind in track(kinds, task.__name__, console=Console(stderr=True), transient=True):
        rate = max(rates, key=lambda rate: task(kind, validation(data), rate, 1000).accuracy)
        rows[kind] = row([task(kind, data, rate, seed) for seed in range(seeds)], rate)
    return rows


def few_shots(data: LabelledData, shots: int, rates: Sequence[float], episodes: int) -> tuple[Rows, str]:
    """47 base classes, 10 that rates are chosen on, 20 new ones; all kinds get the same episodes."""
    order = torch.randperm(data.n_classes, generator=torch.Generator().manual_seed(0))
    base_classes, held, new = order[:47], order[47:57], order[57:]
    chosen = torch.isin(data.y_train, base_classes)
    label = torch.full((data.n_classes,), -1).scatter_(0, base_classes, torch.arange(47))
    base = base_mlp(data.x_train[chosen], label[data.y_train[chosen]])
    rows, accuracies = {}, {}
    for kind in track(FEW_SHOT_KINDS, f"{shots} shots", console=Console(stderr=True), transient=True):

        def trial(classes: torch.Tensor, rate: float, seeds: range, kind: str = kind) -> list[Result]:
            return [episode(kind, base, data, classes, shots, rate, seed) for seed in seeds]

        tuning = range(10**6, 10**6 + TUNING_EPISODES)
        tried = rates if kind != "nearest centroid" else rates[:1]
        rate = max(tried, key=lambda rate: statistics.mean(one.accuracy for one in trial(held, rate, tuning)))
        results = trial(new, rate, range(episodes))
        rows[kind] = row(results, rate if len(tried) > 1 else None)
        accuracies[kind] = [result.accuracy for result in results]
    pairs = []
    for ours, theirs in (("GLAI, given structure of base", "MLP from base"), ("GLAI, random gates", "MLP")):
        gains = [a - b for a, b in zip(accuracies[ours], accuracies[theirs], strict=True)]
        cells = row([Result(gain, 0.0) for gain in gains])
        pairs.append(
            f"{ours} - {theirs}: {cells['accuracy']:+.2f} ± {cells['standard_error']:.2f} on the same episodes"
        )
    return rows, "\n".join(pairs)


def show(console: Console, title: str, rows: Rows, caption: str = "") -> None:
    table = Table(title=title, box=SIMPLE, title_justify="left", caption=caption, caption_justify="left")
    for column in ("head", "accuracy %", "± s.e.", "processor s", "rate"):
        table.add_column(column, justify="left" if column == "head" else "right")
    for kind, cells in rows.items():
        table.add_row(
            kind,
            f"{cells['accuracy']:.2f}",
            "" if cells["standard_error"] is None else f"{cells['standard_error']:.2f}",
            f"{cells['seconds']:.3f}",
            f"{cells['rate']:g}" if "rate" in cells else "",
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m glai_bench.heads",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, help="default: all")
    parser.add_argument("--seeds", type=int, default=3, help="runs per head (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=100, help="of few shots (default: %(default)s)")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="learning rates tried")
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    arguments = parser.parse_args()
    if not os.environ.get("GLAI_DATA"):
        parser.error("GLAI_DATA must name the folder that holds banking77_minilm.npz")
    torch.set_num_threads(arguments.threads)
    data = centred(load_data(Path(os.environ["GLAI_DATA"]) / "banking77_minilm.npz"))
    tasks = arguments.tasks or TASKS
    figures: dict[str, Rows] = {}
    console = Console()

    if "classify" in tasks:
        score = percent(centroid_scores(data.x_train, data.y_train, data.x_test), data.y_test)
        rows = {"nearest centroid": row([Result(score, 0.0)])}
        rows |= with_seeds(classify, CLASSIFY_KINDS, data, arguments.rates, arguments.seeds)
        figures["classify"] = rows
        show(console, f"all {data.n_classes} classes, {arguments.seeds} seeds", rows)
    if "project" in tasks:
        score = probe(data.x_train, data.y_train, data.x_test, data.y_test)
        rows = {"none: probe on the features": row([Result(score, 0.0)])}
        rows |= with_seeds(project, PROJECT_KINDS, data, arguments.rates, arguments.seeds)
        figures["project"] = rows
        show(console, f"projection head, linear probe, {arguments.seeds} seeds", rows)
    if "few-shot" in tasks:
        for shots in (1, 5):
            rows, caption = few_shots(data, shots, arguments.rates, arguments.episodes)
            figures[f"5 ways, {shots} shots"] = rows
            show(
                console, f"5 new classes, {shots} samples each, {arguments.episodes} episodes", rows, caption
            )
    if "sizes" in tasks:
        for name, parts in data_sets(Path(os.environ["GLAI_DATA"])):
            features, classes = parts.sizes
            title = f"{name}, D={features}, C={classes:,}"
            figures[title] = rows = rows_of(parts)
            show(
                console,
                title,
                rows,
                "\n".join(f"{kind}: {row['says']}" for kind, row in rows.items() if row["says"]),
            )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
