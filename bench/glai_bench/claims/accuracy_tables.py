"""The tables, claim lines and pictures of accuracy."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from scipy.stats import ttest_rel

from glai_bench.claims.cell import DATA_SETS
from glai_bench.claims.contenders import ARENAS, DUAL_SAMPLES
from glai_bench.markdown import table_row

Results = Mapping[str, dict[str, Any]]
SIGNIFICANT = 0.05
NETS = {
    "MLP": "MLP, raw data",
    "MLP on z": "MLP on the same preprocessing",
    "linear softmax": "linear softmax",
}
PATHS = {"full": "full paths", "directions": "output directions"}
SOLVERS = {"sgd": "native loop", "dual": "dual", "statistics": "statistics"}


def tables(results: Results) -> str:
    names = [name for name in DATA_SETS if _runs(results, name, "MLP on z")]
    if not names:
        return ""
    lines = [line for name in names for line in _table(results, name)]
    return "\n".join([_rules(names), "", *lines, *_no_loss(results, names), "", *_gates(results, names)])


def _rules(names: Sequence[str]) -> str:
    """What is compared, from the settings that were run."""
    projections = [
        f"{name} on {n} principal components" if (n := ARENAS[name].components) else f"{name} centred"
        for name in names
    ]
    units = ", ".join(f"{ARENAS[name].hidden} units on {name}" for name in names)
    return (
        f"GLAI and the MLP beside it read the same preprocessing: {', '.join(projections)}. 1x is at most the "
        f"parameters, of projection, selector and estimator, of the MLP on raw data, which has {units}; "
        "2x and 4x are multiples. The MLP on the same preprocessing is tuned over its size too, up to 1x. "
        "Projection, selector, capture and training are inside the seconds; the target is the best validation accuracy "
        "of the MLP on raw data in tuning, less one standard error. Accuracy and seconds have settings of their own, "
        "the most accurate and the quickest to the target. "
        f"The dual gets {DUAL_SAMPLES:,} samples at most, its selector all. p: paired t-test over seeds."
    )


def _runs(results: Results, name: str, contender: str) -> list[dict[str, Any]]:
    """The contender's results, in the order of the seeds."""
    start = f"accuracy/{name}/{contender}/seed="
    found = [(int(key.removeprefix(start)), run) for key, run in results.items() if key.startswith(start)]
    return [run for _, run in sorted(found, key=lambda pair: pair[0])]


def _glai_keys(results: Results, name: str) -> list[str]:
    """``paths/solver/scale`` of those that ran with trained gates or with random ones, in the order of the cells."""
    start = f"accuracy/{name}/GLAI/"
    keys = [
        key.removeprefix(start).rsplit("/", 2)[0]
        for key in results
        if key.startswith(start) and "seed=" in key
    ]
    return list(dict.fromkeys(keys))


def _table(results: Results, name: str) -> Iterator[str]:
    same = _tests(_runs(results, name, "MLP on z"))
    target = _runs(results, name, "MLP on z")[0]["target"]
    yield (
        f"| **{name}**: test accuracy, % | trained gates | random gates | p of their difference | trained gates less "
        f"MLP on the same preprocessing; p | seconds to {target:.2%} validation (reached) | the same, random gates | "
        "parameters; trained |"
    )
    yield f"|{'---|' * 8}"
    for key, label in NETS.items():
        runs = _runs(results, name, key)
        if runs:
            less = "" if key == "MLP on z" else _difference(_tests(runs), same)
            yield table_row(label, _spread(runs), "", "", less, _seconds(runs), "", _sizes(runs))
    for key in _glai_keys(results, name):
        trained, random = (_runs(results, name, f"GLAI/{key}/{gates}") for gates in ("trained", "random"))
        paths, solver, scale = key.split("/")
        yield table_row(
            f"GLAI, {PATHS[paths]}, {SOLVERS[solver]}{_samples(trained or random, solver)}, {scale}",
            _spread(trained),
            _spread(random),
            _p(_tests(trained), _tests(random)),
            _difference(_tests(trained), same),
            _seconds(trained),
            _seconds(random),
            _sizes(trained or random),
        )
    yield ""
    omitted: dict[str, list[str]] = {}
    for key, result in results.items():
        if key.startswith(f"accuracy/{name}/") and "omitted" in result and "/trained/" in key:
            _, _, _, paths, solver, scale, *_ = key.split("/")
            omitted.setdefault(result["omitted"], []).append(f"{PATHS[paths]}, {SOLVERS[solver]}, {scale}")
    if omitted:
        parts = [f"{'; '.join(which)} ({why})" for why, which in omitted.items()]
        yield f"Omitted: {'. '.join(parts)}."
        yield ""


def _samples(runs: Sequence[dict[str, Any]], solver: str) -> str:
    """Of the dual, which is not given all."""
    return f" of {runs[0]['samples']:,} samples" if solver == "dual" else ""


def _tests(runs: Sequence[dict[str, Any]]) -> list[float]:
    return [run["test"] for run in runs]


def _spread(runs: Sequence[dict[str, Any]]) -> str:
    values = [100 * value for value in _tests(runs)]
    return f"{statistics.mean(values):.2f} ± {_deviation(values):.2f}" if values else "not run"


def _deviation(values: Sequence[float]) -> float:
    """Of the population that the runs are drawn from."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _seconds(runs: Sequence[dict[str, Any]]) -> str:
    done = [run["seconds to target"] for run in runs if run["seconds to target"] is not None]
    mean = f"{statistics.mean(done):.2f} ± {_deviation(done):.2f}" if done else "-"
    return f"{mean} ({len(done)} of {len(runs)})" if runs else ""


def _sizes(runs: Sequence[dict[str, Any]]) -> str:
    return f"{runs[0]['parameters']:,}; {runs[0]['trained parameters']:,}"


def p_value(a: Sequence[float], b: Sequence[float]) -> float:
    """Of a paired t-test over seeds; NaN where there are not two pairs or all differ by the same."""
    if len(a) != len(b) or len(a) < 2 or len({round(x - y, 12) for x, y in zip(a, b, strict=True)}) == 1:
        return math.nan
    return float(ttest_rel(a, b).pvalue)


def _p(a: Sequence[float], b: Sequence[float]) -> str:
    p = p_value(a, b)
    return "" if math.isnan(p) else f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _difference(a: Sequence[float], b: Sequence[float]) -> str:
    if not a or not b:
        return ""
    p = _p(a, b)
    return f"{100 * (statistics.mean(a) - statistics.mean(b)):+.2f}" + (f"; {p}" if p else "")


def _no_loss(results: Results, names: Sequence[str]) -> Iterator[str]:
    """At equal parameters, the solver and paths of the best mean validation accuracy against both MLPs."""
    kept, cases, figures = 0, 0, []
    for name in names:
        equal = {
            key: runs
            for key in _glai_keys(results, name)
            if key.endswith("/1x") and (runs := _runs(results, name, f"GLAI/{key}/trained"))
        }
        if not equal:
            continue
        key = max(equal, key=lambda k: statistics.mean(run["validation"] for run in equal[k]))
        ours = _tests(equal[key])
        parts = []
        for net in ("MLP", "MLP on z"):
            theirs = _tests(_runs(results, name, net))
            lost = (
                statistics.mean(ours) < statistics.mean(theirs) and not p_value(ours, theirs) >= SIGNIFICANT
            )
            cases += 1
            kept += not lost
            difference, _, p = _difference(ours, theirs).partition("; ")
            parts.append(f"{difference} (p {p})" if p else difference)
        paths, solver, _ = key.split("/")
        figures.append(
            f"{name} {_spread(equal[key])} ({PATHS[paths]}, {SOLVERS[solver]}), {parts[0]} to the MLP on raw data, "
            f"{parts[1]} to the MLP on the same preprocessing"
        )
    verdict = "reproduced" if kept == cases else "partly" if kept else "not"
    yield (
        f"**No loss of accuracy: {verdict}.** At equal parameters, paths and solver chosen by validation, in points: "
        f"{'; '.join(figures)}. Not significantly worse (p >= {SIGNIFICANT}) in {kept} of {cases} comparisons."
    )


def _gates(results: Results, names: Sequence[str]) -> Iterator[str]:
    parts = []
    for name in names:
        better = worse = pairs = 0
        gains = []
        for key in _glai_keys(results, name):
            trained, random = (_tests(_runs(results, name, f"GLAI/{key}/{g}")) for g in ("trained", "random"))
            if not trained or len(trained) != len(random):
                continue
            pairs += 1
            gain = statistics.mean(trained) - statistics.mean(random)
            gains.append(100 * gain)
            if p_value(trained, random) < SIGNIFICANT:
                better, worse = better + (gain > 0), worse + (gain < 0)
        if pairs:
            parts.append(
                f"{name}: better in {better}, worse in {worse} of {pairs} cells "
                f"(median {statistics.median(gains):+.2f} points)"
            )
    yield (
        f"Trained gates against random ones of the same size, significant at p < {SIGNIFICANT}, uncorrected for the "
        f"number of tests: {'; '.join(parts)}."
    )


# What the picture shows: contender, label, colour, line.
LINES = (
    ("MLP", "MLP, raw data", "C0", "-"),
    ("MLP on z", "MLP on the same preprocessing", "C1", "-"),
    ("linear softmax", "linear softmax", "C7", "-"),
    ("GLAI/full/sgd/1x/trained", "GLAI, full paths, native loop", "C2", "-"),
    ("GLAI/full/sgd/1x/random", "full paths, random gates", "C2", ":"),
    ("GLAI/directions/sgd/1x/trained", "GLAI, output directions, native loop", "C3", "-"),
    ("GLAI/directions/sgd/1x/random", "output directions, random gates", "C3", ":"),
    ("GLAI/full/dual/1x/trained", "GLAI, full paths, dual", "C4", "-"),
    ("GLAI/full/statistics/1x/trained", "GLAI, full paths, statistics", "C5", "-"),
)


def pictures(results: Results) -> Iterator[tuple[str, Any]]:
    """Validation accuracy against seconds, of the first seed, at equal parameters, by the quickest settings."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    names = [name for name in DATA_SETS if _runs(results, name, "MLP on z")]
    if not names:
        return
    picture = Figure(figsize=(4.2 * len(names), 4.6), layout="constrained")
    panels = picture.subplots(1, len(names), squeeze=False)[0]
    for panel, name in zip(panels, names, strict=True):
        for key, label, colour, style in LINES:
            runs = _runs(results, name, key)
            if runs:
                curve = runs[0]["race"]
                best = [max(p["validation"] for p in curve[: i + 1]) for i in range(len(curve))]
                panel.plot(
                    [p["seconds"] for p in curve], [100 * v for v in best], color=colour, linestyle=style,
                    marker="o" if len(curve) == 1 else ".", markersize=4, label=label,
                )  # fmt: skip
        panel.axhline(100 * _runs(results, name, "MLP on z")[0]["target"], color="black", linewidth=0.6)
        top = max(100 * run["validation"] for key, *_ in LINES for run in _runs(results, name, key))
        panel.set(title=name, xlabel="seconds, everything included", xscale="log", ylim=(top - 6, top + 0.3))
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        panel.xaxis.set_major_formatter(lambda tick, _: f"{tick:g}")
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("best validation accuracy so far, %")
    entries = {
        label: line for p in panels for line, label in zip(*p.get_legend_handles_labels(), strict=True)
    }
    picture.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=3, fontsize="small")
    yield "accuracy", picture
