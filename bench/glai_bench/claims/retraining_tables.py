"""The tables and claim lines of re-training."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from glai_bench.claims.cell import DATA_SETS
from glai_bench.claims.figures import Results, difference, percent, runs_of, sizes, spread, verdict, worse
from glai_bench.markdown import table_header, table_row

REGIMES = {"balanced": "balanced classes", "new classes": "new classes each"}
EXACT = 1e-8
ANEW, FINE_TUNED = "MLP, all anew", "MLP, fine-tuned"
HALF = {
    "GLAI, half": "GLAI, one half of the data",
    "GLAI, numbers re-trained": "GLAI, structure of that half, numbers re-trained on all",
    "GLAI, statistics continued": "the same by statistics, which take the other half in",
    "GLAI, all anew": "GLAI, structure and numbers of all",
    "GLAI, all anew, statistics": "the same by statistics",
    "GLAI, random gates": "GLAI, random gates, numbers of all",
    "GLAI, random gates, statistics": "the same by statistics",
    "MLP, half": "MLP, one half",
    FINE_TUNED: "MLP of that half, fine-tuned on all",
    ANEW: "MLP, all from scratch",
}
INCREMENTS = (
    "GLAI, statistics",
    "GLAI, random gates, statistics",
    "GLAI, gradient",
    "GLAI, gradient, all outputs from the start",
    "MLP, fine-tuned",
    "MLP, fine-tuned, all outputs from the start",
    "MLP, all at once",
)


def tables(results: Results) -> str:
    lines = [*_half(results)]
    for regime in REGIMES:
        lines += _increments(results, regime)
    return "\n".join(lines).rstrip()


def _names(results: Results, part: str) -> list[str]:
    return [name for name in DATA_SETS if runs_of(results, f"retraining/{name}/{part}")]


def _half(results: Results) -> Iterator[str]:
    names = _names(results, "half")
    if not names:
        return
    runs = {name: runs_of(results, f"retraining/{name}/half") for name in names}
    yield from table_header(
        "re-training on twice the data",
        *(text for name in names for text in (f"{name}: test accuracy, %", "seconds")),
    )
    for key, label in HALF.items():
        cells = []
        for name in names:
            cells.append(percent([run[key]["test"] for run in runs[name]]))
            cells.append(spread([run[key]["seconds"] for run in runs[name] if "seconds" in run[key]]))
        yield table_row(label, *cells)
    yield ""
    yield f"Parameters in all (trained): {'; '.join(f'{name} {sizes(runs[name][0])}' for name in names)}."
    yield ""

    tests = {name: {key: [run[key]["test"] for run in runs[name]] for key in HALF} for name in names}
    seconds = {
        name: {
            key: statistics.mean(run[key]["seconds"] for run in runs[name])
            for key in HALF
            if "seconds" in runs[name][0][key]
        }
        for name in names
    }
    kept, against_all, against_random = [], [], []
    for name in names:
        test = tests[name]
        for ours, theirs in (
            ("GLAI, numbers re-trained", "GLAI, all anew"),
            ("GLAI, statistics continued", "GLAI, all anew, statistics"),
        ):
            kept.append(not worse(test[ours], test[theirs]))
        against_all.append(
            f"{name} {difference(test['GLAI, numbers re-trained'], test['GLAI, all anew'])}, by statistics "
            f"{difference(test['GLAI, statistics continued'], test['GLAI, all anew, statistics'])}"
        )
        against_random.append(
            f"{name} {difference(test['GLAI, numbers re-trained'], test['GLAI, random gates'])}, by statistics "
            f"{difference(test['GLAI, statistics continued'], test['GLAI, random gates, statistics'])}"
        )
    yield (
        f"**The structure of half of the data does for all of them: {verdict(kept)}.** Points to the structure of all "
        f"data: {'; '.join(against_all)}. Not significantly worse in {sum(kept)} of {len(kept)} comparisons. Points to "
        f"random gates: {'; '.join(against_random)}."
    )
    yield ""
    cheaper, figures = [], []
    for name in names:
        took = seconds[name]["GLAI, numbers re-trained"]
        parts = []
        for network in (ANEW, FINE_TUNED):
            lost = worse(tests[name]["GLAI, numbers re-trained"], tests[name][network])
            cheaper.append(took < seconds[name][network] and not lost)
            parts.append(
                f"{difference(tests[name]['GLAI, numbers re-trained'], tests[name][network])} points in "
                f"{took / seconds[name][network]:.2f} of the time of the {_short(network)}"
            )
        figures.append(f"{name} {' and '.join(parts)}")
    yield (
        f"**Re-training the numbers alone costs less than re-training the network, at no loss: {verdict(cheaper)}**, "
        f"in {sum(cheaper)} of {len(cheaper)} comparisons: {'; '.join(figures)}."
    )
    yield ""


def _short(network: str) -> str:
    return {ANEW: "MLP from scratch", FINE_TUNED: "MLP fine-tuned"}[network]


def _increments(results: Results, regime: str) -> Iterator[str]:
    names = _names(results, regime)
    if not names:
        return
    classes = regime == "new classes"
    yield from table_header(
        f"five increments, {REGIMES[regime]}: test accuracy on all classes seen, %",
        *(f"after {i}" for i in range(1, 6)),
        *(["forgotten, points"] if classes else []),
        "largest relative difference from joint training",
    )
    exact, gradient, network = [], [], []
    for name in names:
        runs = runs_of(results, f"retraining/{name}/{regime}")
        last = {key: [run[key]["after"][-1]["test"] for run in runs] for key in INCREMENTS if key in runs[0]}
        for key in last:
            after = [[step["test"] for step in run[key]["after"]] for run in runs]
            cells = [percent(list(values)) for values in zip(*after, strict=True)]
            cells = ["" for _ in range(5 - len(cells))] + cells
            if classes:
                steps = [run[key]["after"] for run in runs if len(run[key]["after"]) > 1]
                cells.append(spread([100 * _forgotten(after) for after in steps], 1))
            differences = [run[key].get("difference from joint training") for run in runs]
            cells.append(f"{max(differences):.1e}" if None not in differences else "")
            yield table_row(f"{name}: {key}", *cells)
            if key == "GLAI, statistics":
                exact += differences
        gradient.append(f"{name} {_gap(last, 'GLAI, gradient', 'GLAI, statistics')}")
        network.append(f"{name} {_gap(last, 'MLP, fine-tuned', 'MLP, all at once')}")
    yield ""
    yield (
        f"**Increments ({REGIMES[regime]}) forget nothing, by statistics: {verdict([max(exact) <= EXACT])}**: weights "
        f"within {max(exact):.1e} of joint training (goal {EXACT:.0e}, float64) in all {len(exact)} runs. By gradient "
        f"on the new samples alone, points to that: {'; '.join(gradient)}. The MLP fine-tuned, points to the MLP on "
        f"all data at once: {'; '.join(network)}."
    )
    yield ""


def _gap(last: dict[str, list[float]], ours: str, goal: str) -> str:
    """In points at the end, outputs grown and, where that was run, there from the start."""
    wide = last.get(f"{ours}, all outputs from the start")
    more = "" if wide is None else f", all outputs from the start {difference(wide, last[goal])}"
    return difference(last[ours], last[goal]) + more


def _forgotten(after: list[dict[str, Any]]) -> float:
    """How much accuracy on an increment's classes fell from when it was learnt to the end, mean of all but the last."""
    final = after[-1]["by increment"]
    return float(statistics.mean(after[k]["by increment"][k] - final[k] for k in range(len(final) - 1)))
