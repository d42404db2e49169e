"""Writes the page of the tables, and its picture, from the cells that have been measured.

python -m glai_bench.tables.report
python -m glai_bench.tables.report --results other/tables.json
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from glai_bench.exact.recording import finished
from glai_bench.markdown import held, report_files, table_header, table_row
from glai_bench.tables.cells import TUNING
from glai_bench.tables.data import NAMES as DATA
from glai_bench.tables.learners import BOOSTING, GLAI, LIGHTGBM, LINEAR, MLP, NAMES, RANDOM, TUNED
from glai_bench.tables.picture import draw
from glai_bench.tables.rows import Duel, Figure, Row, duels, rows
from glai_bench.tables.tuned_mlp import (
    FEW_SAMPLES,
    FOLDS,
    MANY_FEATURES,
    MOST_EPOCHS,
    RATES,
    WIDE_EPOCHS,
    WIDE_RATES,
    WIDE_WIDTHS,
    WIDTHS,
)
from glai_native.machine.writing import write_files

BEHIND = -0.003  # of accuracy or R2: what is not worse
# Shares of the data sets, and processor times over the other's.
ABOVE, LEVEL = 0.7, 0.8
THIRD, HALF = 1 / 3, 1 / 2
BUSY = 2.0  # a load of this and less is the benchmark itself, or hardly more


def main(argv: Sequence[str] | None = None) -> None:
    read, page = report_files("python -m glai_bench.tables.report", __doc__, "tables.json", None, argv)
    write(json.loads(read.read_text()), page)
    print(f"Written: {page}")


def write(results: Mapping[str, Any], page: Path) -> str:
    """Write the page, and its picture where GLAI is beside another; return the page."""
    cells = finished(dict(results))
    found = rows(cells)
    beside = any(duels(found, learner) for learner in NAMES if learner != GLAI)
    lines = [*_introduction(results), *(_goals(found) if beside else ()), *_scores(found)]
    if beside:
        picture = page.with_suffix(".png")
        draw(found, picture)
        lines += [
            *_differences(found),
            "",
            f"![GLAI's score less the others', and its time over theirs]({picture.name})",
        ]
    lines += _tuning(cells, found)
    text = "\n".join(lines) + "\n"
    write_files({page: text.encode()})
    return text


def _introduction(results: Mapping[str, Any]) -> Iterator[str]:
    machine = results["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    yield "# Tables: every learner at its defaults"
    yield ""
    yield (
        f"`OMP_NUM_THREADS=1 python -m glai_bench.tables`, one thread of {machine['processor']}, "
        f"{machine['cpu_isa']}; {packages}."
    )
    yield ""
    text = (
        "Figures are the test accuracy in % (R2 where the data are values), and the processor seconds of `fit`, "
        "medians over the seeds. Inputs are standardised, each data set has one split, the seeds change the learners "
        "alone. Random gates are the control of GLAI: the same sizes and solvers "
        "over a selector that was never trained. The tuned MLP's seconds are those of its chosen training alone. "
        "Gradient boosting that is not done after ten processor minutes is ended."
    )
    if "lightgbm" not in machine["packages"]:
        text += " LightGBM was not installed: its column is left out."
    yield text
    loads = [cell["load"] for cell in results["cells"].values()]
    if loads and (load := statistics.median(loads)) > BUSY:
        yield ""
        yield (
            f"**The machine was busy** with other programs, a load of {load:.0f} in the median cell: processor seconds "
            "are longer than on an idle one, and their ratios, of learners that took turns, are less exact."
        )


def _goals(found: Sequence[Row]) -> Iterator[str]:
    """Yield the table of what is asked of the defaults, and how far it is met."""
    text = "In brackets what is asked, bold where it is missed."
    for learner in (MLP, TUNED):
        done = [pair.name for pair in duels(found, learner)]
        if missing := [name for name in DATA if name not in done]:
            text += f" **Not measured beside {learner}: {_listed(missing)}.**"
    yield from ("", "## What is asked", "", text, "")
    yield from table_header("GLAI", "measured (asked)", "")
    if pairs := duels(found, MLP):
        worst = min(pairs, key=lambda pair: pair.difference)
        slowest = max(pairs, key=lambda pair: pair.ratio)
        ratio = statistics.median(pair.ratio for pair in pairs)
        yield table_row(
            f"at its worst beside {MLP}",
            f"{held(_signed(worst.difference), worst.difference >= BEHIND)}, {worst.name} ({BEHIND})",
            _behind(pairs),
        )
        yield _counted(f"above {MLP}", pairs, [pair.difference > 0 for pair in pairs], ABOVE)
        yield table_row(
            "its time over that MLP's, median", f"{held(f'{ratio:.2f}', ratio <= THIRD)} (0.33)", ""
        )
        yield table_row(
            "its time over that MLP's, at its worst",
            f"{held(f'{slowest.ratio:.2f}', slowest.ratio <= 1)}, {slowest.name} (1)",
            "",
        )
    if pairs := duels(found, TUNED):
        level = [pair.difference >= BEHIND for pair in pairs]
        quick = [pair.ratio <= HALF for pair in pairs]
        both = [one and other for one, other in zip(level, quick, strict=True)]
        ratio = statistics.median(pair.ratio for pair in pairs)
        yield _counted(f"within 0.3 points of the {TUNED}, or above", pairs, level, LEVEL)
        yield table_row(
            "its time over that training's, median", f"{held(f'{ratio:.2f}', ratio <= HALF)} (0.5)", ""
        )
        yield _counted("within 0.3 points in half the time", pairs, both, LEVEL)
    for learner in (BOOSTING, LIGHTGBM):
        if pairs := duels(found, learner):
            ratio = statistics.median(pair.ratio for pair in pairs)
            lost = [pair.name for pair in pairs if pair.difference < 0]
            won = sum(pair.difference > 0 for pair in pairs)
            text = f"behind on {_listed(lost)}; " if lost else ""
            yield table_row(
                f"above {learner}",
                f"{won} of {len(pairs)}",
                f"{text}its time over that learner's, median: {ratio:.2f}",
            )


def _counted(what: str, pairs: Sequence[Duel], met: Sequence[bool], share: float) -> str:
    """Return the line of a count over data sets, a share of which must meet it."""
    count, asked = sum(met), share * len(pairs)
    missed = [pair.name for pair, one in zip(pairs, met, strict=True) if not one]
    text = held(f"{count} of {len(pairs)}", count >= asked)
    return table_row(what, f"{text} ({10 * share:.0f} of 10)", f"not on {_listed(missed)}" if missed else "")


def _behind(pairs: Sequence[Duel]) -> str:
    behind = [pair.name for pair in pairs if pair.difference < BEHIND]
    return f"behind by more than 0.003 on {_listed(behind)}" if behind else ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def _scores(found: Sequence[Row]) -> Iterator[str]:
    learners = [name for name in NAMES if any(name in row.figures for row in found)]
    most = max((figure.seeds for row in found for figure in row.figures.values()), default=0)
    seeds = f"Medians over {most} seeds, or as many as the cell says."
    yield from ("", "## Scores and seconds", "", f"The best score of a line is bold. {seeds}", "")
    yield from table_header("data: training samples x features", *learners)
    for row in found:
        best = max(
            (figure.score for figure in row.figures.values() if figure.score is not None), default=None
        )
        yield table_row(
            f"{row.name}: {row.samples:,} x {row.features:,}, {row.measure}",
            *(_cell(row.figures.get(learner), row.measure, best, most) for learner in learners),
        )


def _cell(figure: Figure | None, measure: str, best: float | None, most: int) -> str:
    if figure is None:
        return "-"
    if figure.score is None or figure.seconds is None:
        return f"over {figure.unfinished:.0f} s"
    score = held(_score(figure.score, measure), figure.score != best)
    text = f"{score}; {_seconds(figure.seconds)}"
    return (
        text
        if figure.seeds == most
        else f"{text} ({figure.seeds} {'seed' if figure.seeds == 1 else 'seeds'})"
    )


def _score(score: float, measure: str) -> str:
    return f"{100 * score:.1f}" if measure == "accuracy" else f"{score:z.3f}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def _differences(found: Sequence[Row]) -> Iterator[str]:
    """Yield GLAI against each other learner on each data set."""
    others = {
        name: {pair.name: pair for pair in duels(found, name)}
        for name in (MLP, TUNED, BOOSTING, LIGHTGBM, LINEAR, RANDOM)
    }
    others = {name: pairs for name, pairs in others.items() if pairs}
    yield from ("", "## GLAI against each", "")
    yield (
        "GLAI's accuracy or R2 less the other's; its processor time over the other's. Bold: a score more than 0.003 "
        "behind, and a time over the whole of scikit-learn's MLP's or half of the tuned one's."
    )
    yield from ("", *table_header("data", *others))
    for row in found:
        yield table_row(row.name, *(_against(pairs.get(row.name), name) for name, pairs in others.items()))


def _against(pair: Duel | None, other: str) -> str:
    if pair is None:
        return "-"
    most = {MLP: 1.0, TUNED: HALF}.get(other)
    ratio = held(
        f"{pair.ratio:.2f}" if pair.ratio < 10 else f"{pair.ratio:.0f}", most is None or pair.ratio <= most
    )
    return f"{held(_signed(pair.difference), pair.difference >= BEHIND)}; {ratio}"


def _signed(difference: float) -> str:
    return f"{difference:+z.3f}"


def _tuning(cells: Mapping[str, Mapping[str, Any]], found: Sequence[Row]) -> Iterator[str]:
    """Yield how the MLP was tuned, and what came of it."""
    tunings = {row.name: cells[key] for row in found if (key := f"{row.name}/{TUNING}") in cells}
    if not tunings:
        return
    yield from ("", "## The tuned MLP", "")
    yield (
        "In PyTorch, one hidden layer, fused Adam, iterates averaged over an epoch, as the solvers' baseline. Chosen "
        "once a data set by the score on a fifth of the training samples that is held out, of up to "
        f"{FEW_SAMPLES:,} samples by the mean over all {FOLDS} fifths, each candidate until it has gained nothing for "
        f"some epochs; then trained on all of them. Candidates: {_listed_numbers(WIDTHS)} units with "
        f"{_listed_rates(RATES)}, up to {MOST_EPOCHS} epochs; beyond {MANY_FEATURES} features fewer, "
        f"{_listed_numbers(WIDE_WIDTHS)} units with {_listed_rates(WIDE_RATES)}, up to {WIDE_EPOCHS} epochs. GLAI's "
        "time over the whole: over that of tuning and one training."
    )
    yield ""
    yield from table_header(
        "data",
        "units",
        "rate",
        "batch",
        "epochs",
        "held-out score",
        "seconds of tuning",
        "GLAI's time over the whole",
    )
    for row in found:
        if row.name not in tunings:
            continue
        tuning = tunings[row.name]
        settings, seconds = tuning["settings"], tuning["processor_seconds"]
        trained, ours = row.figures.get(TUNED), row.figures.get(GLAI)
        whole = "-"
        if trained and ours and trained.seconds is not None and ours.seconds is not None:
            whole = f"{ours.seconds / (seconds + trained.seconds):.2g}"
        yield table_row(
            row.name,
            str(settings["hidden"]),
            f"{settings['learning_rate']:g}",
            str(settings["batch_size"]),
            str(settings["epochs"]),
            _score(tuning["held_out_score"], row.measure),
            f"{seconds:.3g}",
            whole,
        )


def _listed_numbers(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _listed_rates(rates: Sequence[tuple[float, int]]) -> str:
    return ", ".join(f"{rate:g} at batches of {batch}" for rate, batch in rates)


if __name__ == "__main__":
    main()
