"""Writes the figures of the exact head against the field as one page of Markdown; missed targets are bold."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from glai_bench.exact.gram_section import gram_section
from glai_bench.exact.streams import SOURCES
from glai_bench.markdown import held, table_header, table_row
from glai_native.machine.writing import write_files

# Points over RanPAC of the same run, by data set and size of the Gram; and below the joint MLP at most.
TARGETS = {
    ("tinyimagenet", 4_000): 1.0,
    ("tinyimagenet", 10_000): 0.8,
    ("banking", 3_000): 0.4,
    ("mnist", 4_000): 0.3,
}
BELOW_MLP = 0.5
TASK_RATIO, TASK_SIZE = 5.0, 10_000
FORGETTING_SHARE = 0.011
JOULES_SHARE = 1 / 3
OVER_AFL = 1.5
BUSY = 1.5  # load over the threads that ran

Found = Mapping[str, Mapping[str, Any]]


def write(results: Mapping[str, Any], path: Path) -> str:
    """Write the whole page, and return it; sums of integers come from the files gram-*.json beside it."""
    sums = [json.loads(file.read_text()) for file in sorted(path.parent.glob("gram-*.json"))]
    page = markdown(results, sums)
    write_files({path: page.encode()})
    return page


def markdown(results: Mapping[str, Any], sums: Iterable[Mapping[str, Any]] = ()) -> str:
    """Return the page from all cells that there are, and from the files of the sums of integers."""
    machine, cells = results["machine"], results["cells"]
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    lines = [
        "# The exact head against the field",
        "",
        f"`GLAI_DATA=… OMP_NUM_THREADS=1 python -m glai_bench.exact.incremental`, {machine['threads']} thread of "
        f"{machine['processor']}, {machine['cpu_isa']}; {packages}. Each section is written from what has been "
        "measured; bold: a target is missed.",
        "",
    ]
    found = {key: cell["result"] for key, cell in cells.items()}
    for section in (_accuracy, _curve, _structure, _one_class, _tasks, _forgetting, _energy, _federated):
        lines += section(found, cells)
    lines += gram_section(sums)
    return "\n".join(lines).rstrip() + "\n"


def _of(found: Found, pattern: str) -> list[Mapping[str, Any]]:
    """Return the results whose whole key matches, in the order of the keys."""
    return [result for key, result in sorted(found.items()) if re.fullmatch(pattern, key)]


def _percent(found: Found, pattern: str) -> list[float]:
    return [100 * result["accuracy"] for result in _of(found, pattern)]


def _spread(values: list[float]) -> str:
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.2f} (one seed)"
    return f"{statistics.mean(values):.2f} ± {statistics.pstdev(values):.2f}"


def _mean_difference(ours: Sequence[float], others: Sequence[float]) -> float:
    """Return the mean difference over the seeds that both have, which are the first ones."""
    return statistics.mean(a - b for a, b in zip(ours, others, strict=False))


def _sizes(found: Found, section: str) -> list[tuple[str, int]]:
    """Return data sets and sizes of Gram that a section has cells of."""
    return [
        (name, size)
        for name, source in SOURCES.items()
        for size in source.sizes
        if any(key.startswith(f"{name}/{section}/{size}") for key in found)
    ]


def _accuracy(found: Found, cells: Mapping[str, Any]) -> list[str]:
    rows = _sizes(found, "accuracy")
    if not rows:
        return []
    lines = [
        "## Accuracy after the last task",
        "",
        "Test accuracy in %, mean ± deviation over the seeds, which draw the order of classes and the random units. M: "
        "size of the Gram of ours, RanPAC and ACIL. Ours at its defaults for tasks: random units, l2 by generalised "
        "cross-validation, mean and scale of the first task. The MLPs have one hidden layer of 1,024 units; their "
        "rate, batch size and epochs, and those of linear softmax, are chosen on a fifth of the training samples of "
        "all classes. ACIL is left out at M = 10,000: it is ridge regression on RanPAC's units, and its recursion "
        "would take an hour. Differences are those of the seeds that both have.",
        "",
        *table_header(
            "data, tasks, M", "seeds", "ours", "RanPAC", "ours - RanPAC (target)", "ACIL", "streaming LDA",
            "nearest class mean", "MLP, fine-tuned", "MLP, joint", "linear softmax, joint",
        ),
    ]  # fmt: skip
    for name, size in rows:
        ours, ranpac = (
            _percent(found, rf"{name}/accuracy/{size}/{method}/seed=\d+") for method in ("ours", "RanPAC")
        )
        others = [
            _percent(found, rf"{name}/accuracy/(-|{size})/{re.escape(method)}/seed=\d+")
            for method in (
                "ACIL", "streaming LDA", "nearest class mean", "MLP, fine-tuned", "MLP, joint", "linear softmax, joint"
            )
        ]  # fmt: skip
        mlp = others[4]
        near = not mlp or not ours or statistics.mean(ours) >= statistics.mean(mlp) - BELOW_MLP
        target = TARGETS.get((name, size))
        gain = "-"
        if ours and ranpac:
            above = _mean_difference(ours, ranpac)
            gain = f"{above:+.2f}"
            if target is not None:
                gain = held(f"{gain} ({target:+.1f})", above >= target)
        source = SOURCES[name]
        lines.append(
            table_row(
                f"{source.title}, {source.n_tasks}, {size:,}", str(len(ours)), held(_spread(ours), near),
                _spread(ranpac), gain, *(_spread(values) for values in others),
            )
        )  # fmt: skip
    return [*lines, "", f"Ours is bold where it is more than {BELOW_MLP} below the joint MLP.", ""]


def _curve(found: Found, cells: Mapping[str, Any]) -> list[str]:
    """Show accuracy over the size of the Gram, where it was measured at sizes besides a data set's own."""
    lines = []
    for name, source in SOURCES.items():
        keys = (re.fullmatch(rf"{name}/accuracy/(\d+)/ours/seed=\d+", key) for key in found)
        sizes = sorted({int(key[1]) for key in keys if key})
        if not set(sizes) - set(source.sizes):
            continue
        for size in sizes:
            ours, ranpac = (
                _percent(found, rf"{name}/accuracy/{size}/{method}/seed=\d+") for method in ("ours", "RanPAC")
            )
            n = min(len(ours), len(ranpac))
            gain = f"{_mean_difference(ours, ranpac):+.2f}" if n else "-"
            lines.append(
                table_row(f"{source.title}, {size:,}", str(n), _spread(ours[:n]), _spread(ranpac[:n]), gain)
            )
    if not lines:
        return []
    return [
        "## Accuracy by the size of the Gram",
        "",
        "As above, of the seeds that both have. Ours has the inputs among its features, and discriminants: it gains "
        "where the Gram is small, and RanPAC catches up as units join.",
        "",
        *table_header("data, M", "seeds", "ours", "RanPAC", "ours - RanPAC"),
        *lines,
        "",
    ]


def _structure(found: Found, cells: Mapping[str, Any]) -> list[str]:
    rows = _sizes(found, "structure")
    if not rows:
        return []
    kinds = ("first task", "all classes", "default")
    lines = [
        "## Where the units come from",
        "",
        "The same head with random units, with a selector trained for three epochs on the first task, and, as an upper "
        "bound that no learner of tasks has, on all classes; mean and scale are the first task's throughout. At its "
        "defaults `ExactClassifier` takes random units in `partial_fit`, which sees a task at a time, and in `fit`, of "
        "all samples at once, those that a fifth of at most 20,000 samples prefers, held out of training the others: "
        "last, with how often these were trained ones.",
        "",
        *table_header(
            "data, M", "random", "trained on the first task", "trained on all classes", "default of `fit`",
            "its units trained",
        ),
    ]  # fmt: skip
    for name, size in rows:
        values = [_percent(found, rf"{name}/accuracy/{size}/ours/seed=\d+")]
        values += [_percent(found, rf"{name}/structure/{size}/{kind}/seed=\d+") for kind in kinds]
        reasons = [result["reason"] for result in _of(found, rf"{name}/structure/{size}/default/seed=\d+")]
        trained = sum(reason.startswith("trained") for reason in reasons)
        lines.append(
            table_row(
                f"{SOURCES[name].title}, {size:,}",
                *(_spread(v) for v in values),
                f"{trained} of {len(reasons)}" if reasons else "-",
            )
        )
    return [*lines, ""]


def _one_class(found: Found, cells: Mapping[str, Any]) -> list[str]:
    rows = _sizes(found, "one-class")
    if not rows:
        return []
    lines = [
        "## One class a task",
        "",
        "The map is frozen on the samples of the first class alone. Joint training is the same samples at once. "
        "RanPAC chooses its penalty on the samples of the last class.",
        "",
        *table_header("data, M", "same digest as joint training", "ours", "RanPAC"),
    ]
    for name, size in rows:
        of_seeds = _of(found, rf"{name}/one-class/{size}/seed=\d+")
        same = sum(result["digest"] == result["joint_digest"] for result in of_seeds)
        lines.append(
            table_row(
                f"{SOURCES[name].title}, {size:,}",
                held(f"{same} of {len(of_seeds)}", same == len(of_seeds)),
                _spread([100 * result["accuracy"] for result in of_seeds]),
                _spread([100 * result["ranpac"] for result in of_seeds]),
            )
        )
    return [*lines, ""]


def _machines(cells: Mapping[str, Any], section: str) -> str:
    """Say where a section was measured, if not all of it on the machine of the page's first lines."""
    names = {cell["machine"] for key, cell in cells.items() if f"/{section}/" in key and "machine" in cell}
    return f"On {'; '.join(sorted(names))}." if names else ""


def _timed(
    found: Found, section: str, title: str, text: str, header: Iterable[str], cells: Mapping[str, Any],
    row: Callable[[int, Mapping[str, Any]], list[str]],
) -> list[str]:  # fmt: skip
    rows = _sizes(found, section)
    if not rows:
        return []
    lines = [f"## {title}", "", f"{text} {_machines(cells, section)}", ""]
    lines += table_header("data, M", *header, "load")
    for name, size in rows:
        key = f"{name}/{section}/{size}"
        if key in found:
            figures = row(size, found[key])
            lines.append(table_row(f"{SOURCES[name].title}, {size:,}", *figures, f"{cells[key]['load']:.1f}"))
    return [*lines, ""]


def _tasks(found: Found, cells: Mapping[str, Any]) -> list[str]:
    def row(size: int, result: Mapping[str, Any]) -> list[str]:
        ours, ranpac = result["seconds"]["ours"], result["seconds"]["RanPAC"]
        ratio = f"{ranpac / ours:.1f}"
        if size == TASK_SIZE:
            ratio = held(f"{ratio} ({TASK_RATIO:g})", ranpac / ours >= TASK_RATIO)
        return [f"{result['samples']:,}", f"{ours:.2f}", f"{ranpac:.2f}", ratio]

    return _timed(
        found, "task", "Learning a task",
        "Processor seconds of learning the last task, all of it: features, sums, and the solution with its penalty "
        "chosen. The two take turns; medians. The last column is the machine's load when the cell ended.",
        ("samples", "ours", "RanPAC", "times faster (target)"), cells, row,
    )  # fmt: skip


def _forgetting(found: Found, cells: Mapping[str, Any]) -> list[str]:
    def row(_: int, result: Mapping[str, Any]) -> list[str]:
        share = result["seconds"] / result["anew"]
        return [
            f"{result['samples']:,}", f"{result['seconds']:.3f}", f"{result['anew']:.2f}",
            held(f"{share:.2%} ({FORGETTING_SHARE:.1%})", share <= FORGETTING_SHARE), f"{result['solve']:.2f}",
            held("yes" if result["same_digest"] else "no", result["same_digest"]),
        ]  # fmt: skip

    return _timed(
        found, "forgetting", "Forgetting one sample in a hundred",
        "Processor seconds, the median of five hundredths, of taking the samples out of the sums, the ledger asked and "
        "written, against adding up all others anew; the solution that follows either is apart. The gram matrix is "
        "read and written once, whatever is forgotten: of few samples that is more than a hundredth of adding them up.",
        ("samples", "forgetting", "anew", "share (target)", "solving", "same digest"), cells, row,
    )  # fmt: skip


def _energy(found: Found, cells: Mapping[str, Any]) -> list[str]:
    rows = _sizes(found, "energy")
    if not rows:
        return []
    methods = ("ours", "RanPAC", "MLP, fine-tuned")
    how = next(iter(_of(found, r"\w+/energy/\d+/ours")), {}).get("how", "")
    lines = [
        "## Joules of a task",
        "",
        f"Of the processor, for learning the last task, as `glai.EnergyMeter` has it: **an estimate**, {how}. "
        f"{_machines(cells, 'energy')}",
        "",
        *table_header("data, M", *methods, "ours over RanPAC (target)"),
    ]
    for name, size in rows:
        joules = [found.get(f"{name}/energy/{size}/{method}", {}).get("joules") for method in methods]
        share = "-"
        if joules[0] is not None and joules[1]:
            met = joules[0] / joules[1] <= JOULES_SHARE
            share = held(f"{joules[0] / joules[1]:.2f} ({JOULES_SHARE:.2f})", met)
        shown = ["-" if value is None else f"{value:.3g}" for value in joules]
        lines.append(table_row(f"{SOURCES[name].title}, {size:,}", *shown, share))
    return [*lines, ""]


def name_of_exact(size: int, sizes: Sequence[int]) -> str:
    """Return what exact sums of a size of Gram are called: the first one as it is, others by their size."""
    return "exact" if size == sizes[0] else f"exact, M = {size:,}"


def _federated(found: Found, cells: Mapping[str, Any]) -> list[str]:
    names = [name for name in SOURCES if any(key.startswith(f"{name}/federated/") for key in found)]
    if not names:
        return []
    lines = [
        "## Federated: ten clients, Dirichlet(0.1)",
        "",
        "`GLAI_DATA=… OMP_NUM_THREADS=1 python -m glai_bench.exact.federated`. All clients in one process; bytes are "
        "what all of them send, numbers of eight. Exact sums: the map is frozen on the first client's samples, random "
        "units, M the first one above where it does not say which, one round. AFL: least squares on the features, one "
        "round, as its paper has it, without a penalty; beside it, the penalty that a fifth of each client's samples "
        "prefers. FedAvg: an MLP of 1,024 units, two local epochs a round.",
        "",
        *table_header(
            "data", "method", "accuracy, %", "rounds", "MB sent", "digest that of all data in one place"
        ),
    ]
    for name in names:
        sizes = SOURCES[name].sizes
        methods = [*(name_of_exact(size, sizes) for size in sizes), "AFL", "FedAvg"]
        accuracy = {m: _percent(found, rf"{name}/federated/{m}/seed=\d+") for m in methods}
        with_penalty = [
            100 * result["accuracy_with_penalty"] for result in _of(found, rf"{name}/federated/AFL/seed=\d+")
        ]
        for method, values in accuracy.items():
            of_seeds = _of(found, rf"{name}/federated/{method}/seed=\d+")
            if not of_seeds:
                continue
            shown, digest = _spread(values), "-"
            if method.startswith("exact"):
                same = sum(result["same_digest"] for result in of_seeds)
                digest = held(f"{same} of {len(of_seeds)}", same == len(of_seeds))
                field = max((statistics.mean(v) for v in (accuracy["AFL"], with_penalty) if v), default=0.0)
                shown = held(shown, statistics.mean(values) >= field + OVER_AFL)
            if method == "AFL":
                shown += f"; with a penalty {_spread(with_penalty)}"
            sent = statistics.mean(result["bytes_up"] for result in of_seeds) / 1e6
            lines.append(
                table_row(
                    SOURCES[name].title, method, shown, str(of_seeds[0]["rounds"]), f"{sent:,.0f}", digest
                )
            )
    return [*lines, "", f"Exact is bold where it is less than {OVER_AFL} over the better AFL.", ""]
