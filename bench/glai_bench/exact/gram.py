"""How many times faster integer_gram adds samples to a gram matrix than torch's products of float32 and float64.

torch has no product that leaves the symmetric half out: it computes [M, N] times [N, M] whole. All add to one result,
each gets its features in the type that it wants, and calls take turns. Multiply-adds per second count the upper
triangle alone. A few samples are taken out of the sums of many: what each costs, of what one of many costs.

python -m glai_bench.exact.gram --quick
python -m glai_bench.exact.gram --threads 1 2 --output gram.json
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor

import glai_native as glai
from glai_bench.clock import OURS, cpu_name, measure
from glai_bench.instruction_peak import instruction_peak

FLOAT32, FLOAT64 = "float32 addmm", "float64 addmm"
FEW = "few samples"
FEW_SAMPLES = 180
# (N, M)
SHAPES = ((8192, 1500), (8192, 4000), (2048, 10_000))
QUICK_SHAPES = ((1024, 600),)


def draw(n: int, m: int) -> Tensor:
    return torch.randint(128, (n, m), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def forms_of_torch(features: Tensor, exact: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Make torch's products, each adding to a result of its own; float64's is compared with ``exact``."""
    n, m = features.shape
    single, double = features.float(), features.double()
    singles, doubles = torch.zeros((m, m)), torch.zeros((m, m), dtype=torch.float64)
    forms = {
        FLOAT32: lambda: singles.addmm_(single.T, single),
        FLOAT64: lambda: doubles.addmm_(double.T, double),
    }
    if not torch.equal(forms[FLOAT64]().triu(), exact.double()):
        raise RuntimeError(f"integer_gram of {n} samples and {m} features is not what float64 gives")
    return forms


def case(n: int, m: int, seconds: float) -> dict[str, float]:
    """Median seconds of adding n samples of m features, of ours and of torch's, and of taking a few of them out."""
    features = draw(n, m)
    few = features[:FEW_SAMPLES]
    gram = glai.integer_gram(features)
    forms = forms_of_torch(features, gram)
    medians = measure(lambda: glai.integer_gram(features, gram), forms, seconds)
    taken = measure(lambda: glai.integer_gram(few, gram, sign=-1), {FEW: lambda: gram[0, 0]}, seconds / 4)
    return medians | {FEW: taken[OURS]}


def run(quick: bool, threads: Sequence[int], seconds: float) -> Iterator[dict[str, Any]]:
    for n, m in QUICK_SHAPES if quick else SHAPES:
        for count in threads:
            torch.set_num_threads(count)
            medians = case(n, m, seconds)
            ours = medians[OURS]
            few = min(FEW_SAMPLES, n)
            yield {
                "samples": n,
                "features": m,
                "threads": count,
                "ms": {name: value * 1e3 for name, value in medians.items()},
                "times_faster": {name: medians[name] / ours for name in (FLOAT32, FLOAT64)},
                "giga_multiply_adds": n * m * (m + 1) / 2 / ours / 1e9,
                "cost_of_few": medians[FEW] / few / (ours / n),
            }


def print_rows(rows: list[dict[str, Any]], machine: dict[str, Any], console: Console) -> None:
    peak = machine["peak"]
    shown = "not measured" if peak is None else f"{peak:.0f} G multiply-adds/s a thread"
    table = Table(
        title=f"integer_gram, {machine['cpu_isa']}, torch {machine['torch']}; peak of its instructions: {shown}",
        title_justify="left",
        caption="float32, float64: times faster than torch; a few: what one of "
        f"{FEW_SAMPLES} samples taken out costs, of one of N",
        caption_justify="left",
        box=SIMPLE,
    )
    columns = (
        "N",
        "M",
        "threads",
        "ours ms",
        "float32",
        "float64",
        "G multiply-adds/s",
        "of the peak",
        "a few",
    )
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        share = "" if peak is None else f"{row['giga_multiply_adds'] / peak / row['threads']:.0%}"
        table.add_row(
            f"{row['samples']:,}",
            f"{row['features']:,}",
            str(row["threads"]),
            f"{row['ms'][OURS]:.1f}",
            *(f"{row['times_faster'][name]:.2f}" for name in (FLOAT32, FLOAT64)),
            f"{row['giga_multiply_adds']:.0f}",
            share,
            f"{row['cost_of_few']:.2f}",
        )
    console.print(table)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m glai_bench.exact.gram",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="one small case only")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="default: 1 and 2")
    parser.add_argument("--seconds", type=float, default=3.0, help="budget per case (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead of a table")
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    arguments = parser.parse_args(argv)
    isa = glai.build_info()["cpu_isa"]
    machine = {
        "torch": torch.__version__,
        "cpu_isa": isa,
        "processor": cpu_name(),
        "peak": instruction_peak(isa, "uint8"),
        "quick": arguments.quick,
    }
    before = torch.get_num_threads()
    try:
        rows = list(run(arguments.quick, arguments.threads, arguments.seconds))
    finally:
        torch.set_num_threads(before)
    results = json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n"
    if arguments.json:
        print(results, end="")
    else:
        print_rows(rows, machine, Console())
    if arguments.output:
        arguments.output.write_text(results)


if __name__ == "__main__":
    main()
