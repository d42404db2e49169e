"""The tables and claim lines of merging."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from glai_bench.claims.cell import DATA_SETS
from glai_bench.claims.figures import Results, better, percent, runs_of, sizes, verdict, worse
from glai_bench.markdown import table_header, table_row

EXACT = 1e-8
CASES = [(kind, n) for kind in ("identical", "dirichlet") for n in (2, 5, 10)]
LABELS = {
    "GLAI, by samples": "GLAI, merged once, by samples",
    "GLAI, by activations and classes": "GLAI, merged once, by activations and classes",
    "GLAI, random gates, by samples": "GLAI, random gates, merged once, by samples",
    "GLAI, statistics": "GLAI, statistics added up",
    "GLAI, rounds by samples": "GLAI, rounds of one epoch, by samples",
    "GLAI, rounds by activations and classes": "GLAI, rounds of one epoch, by activations and classes",
    "MLP, averaged": "MLPs, averaged once",
    "MLP, FedAvg": "MLP, FedAvg, rounds of one epoch",
}
# What a merged model is held against: the same kind of model trained on all data in one place.
CENTRAL = {
    "GLAI, by samples": "GLAI",
    "GLAI, by activations and classes": "GLAI",
    "GLAI, random gates, by samples": "GLAI, random gates",
    "GLAI, statistics": "GLAI, statistics",
    "GLAI, rounds by samples": "GLAI",
    "GLAI, rounds by activations and classes": "GLAI",
    "MLP, averaged": "MLP",
    "MLP, FedAvg": "MLP",
}
RIVALS = {
    "GLAI, by samples": "MLP, averaged",
    "GLAI, by activations and classes": "MLP, averaged",
    "GLAI, rounds by samples": "MLP, FedAvg",
    "GLAI, rounds by activations and classes": "MLP, FedAvg",
    "GLAI, statistics": "MLP, FedAvg",
}


def tables(results: Results) -> str:
    names = [
        name
        for name in DATA_SETS
        if runs_of(results, f"merging/{name}/centralised")
        and all(runs_of(results, _key(name, *case)) for case in CASES)
    ]
    if not names:
        return ""
    lines = [line for name in names for line in _table(results, name)]
    return "\n".join([*lines, *_claims(results, names)])


def _key(name: str, kind: str, n_parties: int) -> str:
    return f"merging/{name}/{kind}/K={n_parties}"


def _tests(results: Results, name: str, case: tuple[str, int], side: str) -> list[float]:
    return [run[side]["test"] for run in runs_of(results, _key(name, *case))]


def _central(results: Results, name: str, side: str) -> list[float]:
    return [run[side]["test"] for run in runs_of(results, f"merging/{name}/centralised")]


def _table(results: Results, name: str) -> Iterator[str]:
    yield from table_header(
        f"**{name}**: test accuracy, %",
        *(f"{'identical' if kind == 'identical' else 'Dirichlet(0.3)'}, K = {n}" for kind, n in CASES),
        "all data in one place",
    )
    for side, label in LABELS.items():
        cells = [percent(_tests(results, name, case, side)) for case in CASES]
        yield table_row(label, *cells, percent(_central(results, name, CENTRAL[side])))
    for side, label in (("GLAI, by samples", "GLAI"), ("MLP, averaged", "MLP")):
        cells = [
            percent([run[side]["alone"] for run in runs_of(results, _key(name, *case))]) for case in CASES
        ]
        yield table_row(f"a party's own {label}, mean of the parties", *cells, "")
    start = ", ".join(
        f"{side.removeprefix('start, ')} {percent(_central(results, name, side))}"
        for side in ("start, GLAI", "start, MLP")
    )
    random = percent(_central(results, name, "GLAI, random gates, statistics"))
    yield ""
    run = runs_of(results, f"merging/{name}/centralised")[0]
    yield (
        f"Before (a tenth of the data): {start}. Statistics of random gates, all data: {random}. Parameters in all "
        f"(trained): {sizes(run)}."
    )
    yield ""


def _claims(results: Results, names: list[str]) -> Iterator[str]:
    merged = {
        side: [(name, case, _tests(results, name, case, side)) for name in names for case in CASES]
        for side in LABELS
    }
    differences = [
        run["GLAI, statistics"]["difference from joint training"]
        for name in names
        for case in CASES
        for run in runs_of(results, _key(name, *case))
    ]
    yield (
        f"**Statistics merge exactly: {verdict([max(differences) <= EXACT])}**: weights within {max(differences):.1e} "
        f"of those of all data at once (goal {EXACT:.0e}, float64) in all {len(differences)} merges."
    )
    for side, label in LABELS.items():
        cases = merged[side]
        if side.startswith("GLAI, random") or side == "GLAI, statistics":
            continue
        yield ""
        kept = [not worse(tests, _central(results, name, CENTRAL[side])) for name, _, tests in cases]
        losses = []
        for kind in ("identical", "dirichlet"):
            loss = {
                (name, case): statistics.mean(_central(results, name, CENTRAL[side])) - statistics.mean(tests)
                for name, case, tests in cases
                if case[0] == kind
            }
            name, case = max(loss, key=lambda key: loss[key])
            losses.append(
                f"{kind} {100 * statistics.median(loss.values()):.2f} in the median, {100 * loss[name, case]:.2f} at "
                f"most ({name}, K = {case[1]})"
            )
        head = f"{label}: as good as all data in one place"
        head = f"**{head}: {verdict(kept)}**" if side.startswith("GLAI") else head
        text = f"{head}, in {sum(kept)} of {len(kept)} cases; points lost: {'; '.join(losses)}."
        yield text + (_against(results, cases, RIVALS[side]) if side in RIVALS else "")
    cases = merged["GLAI, statistics"]
    yield ""
    yield f"{LABELS['GLAI, statistics']}:{_against(results, cases, RIVALS['GLAI, statistics'])}"


def _against(results: Results, cases: list[tuple[str, tuple[str, int], list[float]]], rival: str) -> str:
    above = below = 0
    gains = []
    for name, case, tests in cases:
        theirs = _tests(results, name, case, rival)
        above += better(tests, theirs)
        below += better(theirs, tests)
        gains.append(100 * (statistics.mean(tests) - statistics.mean(theirs)))
    return (
        f" Against {LABELS[rival]}: significantly better in {above}, worse in {below} of {len(cases)} cases, median "
        f"{statistics.median(gains):+.2f} points."
    )
