"""Writes the page of the solvers, and draws validation accuracy against training seconds beside it.

GLAI_DATA=data python -m glai_bench.solvers --output bench/results/solvers.json && python -m glai_bench.solvers.report
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from glai_bench.markdown import held, report_files, table_row, write_page

# (section, its title, the row that times are compared with, by how many times ours are to be faster)
RACES = (
    ("mnist", "MNIST", (("raw MLP", 5.0), ("MLP, 50 components", 1.5))),
    ("banking", "BANKING77", (("MLP, rotated", 3.0),)),
)
TEST_TARGET = 0.985  # MNIST, at most the raw MLP's parameters
PICTURE = "solver-curves.png"
INTRODUCTION = (
    "`GLAI_DATA=data python -m glai_bench.solvers --output bench/results/solvers.json` measures this; "
    "`python -m glai_bench.solvers.report` writes this page from it.",
    "Projection, structure, capture and training are inside the clock; every method is tuned over a few rates and "
    "sizes on seed 0, averages its iterates over an epoch, and MLPs step by fused Adam. The target is the best "
    "validation accuracy of the baseline's tuning. Missed targets are bold.",
)


def main(argv: Sequence[str] | None = None) -> None:
    read, page = report_files("python -m glai_bench.solvers.report", __doc__, "solvers.json", None, argv)
    results = json.loads(read.read_text())
    draw(results, page.with_name(PICTURE))
    write_page(page, "The solvers against the MLP", INTRODUCTION, markdown(results))


def markdown(results: dict[str, Any]) -> Iterator[str]:
    """The races, how they compare, their picture, and the single figures."""
    machine, settings = results["machine"], results["settings"]
    minutes = sum(section["minutes"] for section in results.values() if "minutes" in section)
    yield (
        f"`GLAI_DATA=… python -m glai_bench.solvers --seeds {settings['seeds']}`: {minutes:.0f} minutes, "
        f"{settings['threads']} threads of {machine['processor']}, {machine['cpu_isa']}."
    )
    yield ""
    yield "| seconds to the target, mean ± deviation | reached | seconds | test at the best epoch | parameters |"
    yield "|---|---|---|---|---|"
    for section, title, _ in RACES:
        target = f"**{title}**, {results[section]['target']:.2%} validation: "
        for i, row in enumerate(results[section]["rows"]):
            yield "| " + (target if i == 0 else "") + _race_row(row, settings["seeds"])
    yield ""
    yield from _comparisons(results)
    yield from ("", f"![validation accuracy against seconds]({PICTURE})")
    yield from ("", "| | figure | target |", "|---|---|---|")
    yield from (table_row(*figure) for figure in _figures(results))


def _race_row(row: dict[str, Any], n_seeds: int) -> str:
    seconds = "-"
    if row["seconds"] is not None:
        seconds = f"{row['seconds']:.2f} ± {row['seconds_deviation']:.2f}"
    test = f"{row['test']:.2%} ± {row['test_deviation']:.2%}"
    return f"{row['method']} | {row['reached']} of {n_seeds} | {seconds} | {test} | {row['parameters']:,} |"


def _comparisons(results: dict[str, Any]) -> Iterator[str]:
    """Our quickest row whose target more than half of the seeds reach, against each baseline; bold where missed."""
    seeds = results["settings"]["seeds"]
    for section, title, baselines in RACES:
        rows = {row["method"]: row for row in results[section]["rows"]}
        ours = [row for row in rows.values() if row["method"].startswith("GLAI")]
        best = max(
            ours,
            key=lambda row: (2 * row["reached"] > seeds, -(row["seconds"] or 1e9)),
        )
        for name, target in baselines:
            there = rows[name]["seconds"]
            if there is None or best["seconds"] is None:
                yield f"- {title}, {best['method']} against {name}: not comparable, one of them never gets there."
                continue
            ratio = there / best["seconds"]
            figure = f"{ratio:.2f} times as fast, target {target:g}"
            often = 2 * best["reached"] > seeds
            if not often:
                figure += f", and there with {best['reached']} of {seeds} seeds only"
            yield f"- {title}, {best['method']} against {name}: {held(figure, ratio >= target and often)}."
    mnist = results["mnist"]["rows"]
    most = next(row["parameters"] for row in mnist if row["method"] == "raw MLP")
    ours = [r for r in mnist if r["method"].startswith("GLAI") and r["parameters"] <= most]
    test = max(row["test"] for row in ours)
    yield (
        f"- MNIST, test accuracy at no more than {most:,} parameters: "
        + held(f"{test:.2%}", test >= TEST_TARGET)
        + f", target {TEST_TARGET:.1%}."
    )


def _figures(results: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    dual, large = results["dual"], results["large"]
    yield (
        f"BANKING77, dual, {dual['units (random gates)']:,} random units",
        f"{held(format(dual['test accuracy'], '.2%'), dual['test accuracy'] >= 0.937)} test; "
        f"{held(format(dual['ratio'], '.2f'), dual['ratio'] <= 1.5)} of the time of torch's Cholesky and inverse "
        f"alone ({dual[_LIBRARY]:.1f} s)",
        "93.7 %; 1.5",
    )
    seconds = large["seconds of everything"]
    yield (
        "MNIST, 60,000 samples, dual, two layers",
        f"{held(format(large['test accuracy'], '.2%'), large['test accuracy'] >= 0.986)} test, "
        f"{held(f'{seconds:.0f} s', seconds <= 180)} in all",
        "98.6 % in 180 s",
    )
    for section, title, target in (("mnist", "MNIST", 0.975), ("banking", "BANKING77", 0.925)):
        found = results["incremental"][section]
        yield (
            f"class-incremental, {title}: five chunks, structure of the first",
            f"{held(format(found['test accuracy'], '.2%'), found['test accuracy'] >= target)} "
            f"(MLP, fine-tuned: {found[_MLP]:.0%}); "
            f"{found['relative difference from joint training']:.1e} from joint training",
            f"{target:.1%}; 1e-8",
        )
    removal = results["removal"]
    yield (
        "a tenth of MNIST's samples removed exactly",
        f"{held(format(removal['share'], '.1%'), removal['share'] <= 0.12)} of the time of accumulation; "
        f"solving {removal['seconds of solving']:.1f} s",
        "12 %",
    )
    more = results["more-data"]
    target, ours = more["target: best of MLP fine-tuning"], more["seconds of GLAI"]
    before = [format(accuracy, ".2%") for accuracy in more["validation before, MLP and GLAI"]]
    there = f"{more[_OUR_BEST]:.2%}, not there" if ours is None else f"there in {ours:.2f} s"
    yield (
        "20 % more MNIST of the same kind, to the best that fine-tuning the MLP reaches",
        f"MLP from {before[0]} to {target:.2%} in {more['seconds of the MLP']:.2f} s; GLAI's loop from {before[1]} to "
        + held(there, ours is not None and ours <= more["seconds of the MLP"]),
        "not slower",
    )
    inference = results["inference"]
    for name in ("GLAI, directions", "GLAI, full paths"):
        ratios = [inference[f"times the MLP's, N = {n}"][name] for n in (1, 4096)]
        yield (
            f"inference from raw pixels, {name}, N = 1; 4,096",
            "; ".join(held(f"{ratio:.2f}", ratio <= 1.5) for ratio in ratios) + " times the MLP's time",
            "1.5",
        )


_MLP = "test accuracy of the MLP, fine-tuned"
_OUR_BEST = "GLAI's best"
_LIBRARY = "seconds of torch's Cholesky and inverse, median"


def draw(results: dict[str, Any], path: Path) -> None:
    """Validation accuracy against seconds of training, a line per seed and, bold, the mean at each epoch."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(10, 3.8), layout="constrained")
    for panel, (section, title, _) in zip(picture.subplots(1, len(RACES)), RACES, strict=True):
        for i, row in enumerate(results[section]["rows"]):
            for curve in row["curves"]:
                panel.plot(
                    [point["seconds"] for point in curve],
                    [100 * point["validation"] for point in curve],
                    color=f"C{i}", linewidth=0.5, alpha=0.4,
                )  # fmt: skip
            epochs = list(zip(*row["curves"], strict=False))
            panel.plot(
                [statistics.mean(point["seconds"] for point in epoch) for epoch in epochs],
                [100 * statistics.mean(point["validation"] for point in epoch) for epoch in epochs],
                color=f"C{i}", marker=".", label=row["method"],
            )  # fmt: skip
        target = 100 * results[section]["target"]
        panel.axhline(target, color="black", linewidth=0.8, linestyle=":")
        panel.set(title=title, xlabel="seconds of training", xscale="log", ylim=(target - 4, target + 1))
        panel.set_xticks([0.1, 0.2, 0.5, 1, 2, 5], ["0.1", "0.2", "0.5", "1", "2", "5"])
        panel.xaxis.minorticks_off()
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small", loc="lower right")
    picture.axes[0].set_ylabel("validation accuracy, %")
    picture.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
