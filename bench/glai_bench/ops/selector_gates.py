"""Time of the units of a layer that fire, as bits, from its input: torch's product and then the bits, over ours.

python -m glai_bench.ops.selector_gates --threads 1
"""

import argparse

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

import glai_native as glai
from glai_bench.clock import OURS, measure
from glai_native.gates.packing import selector_gates

# (N, D, H)
SHAPES = ((4096, 784, 512), (4096, 50, 192), (512, 512, 1024))


def time(n: int, d: int, h: int, dtype: torch.dtype, seconds: float) -> dict[str, float]:
    """Median seconds by name; the product goes to fresh memory, or to some that was written before."""
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(size, generator=generator, dtype=dtype) for size in ((n, d), (h, d), (h,)))
    out = torch.ones((n, h), dtype=dtype)
    calls = {
        "linear, pack_gates": lambda: glai.pack_gates(torch.nn.functional.linear(x, weight, bias)).words,
        "addmm(out=), pack_gates": lambda: glai.pack_gates(torch.addmm(bias, x, weight.T, out=out)).words,
    }
    return measure(lambda: selector_gates(x, weight, bias).words, calls, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m glai_bench.ops.selector_gates",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--threads", type=int, help="default: as torch")
    parser.add_argument("--seconds", type=float, default=2.0, help="budget per case (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    table = Table(
        title=f"torch / ours, {torch.get_num_threads()} threads, {glai.build_info()['cpu_isa']}", box=SIMPLE
    )
    for column in ("(N,D,H)", "dtype", "ours ms", "torch ms", "ratio", "torch form"):
        table.add_column(column)
    for dtype in (torch.float32, torch.float64):
        for shape in SHAPES:
            medians = time(*shape, dtype, arguments.seconds)
            mine = medians.pop(OURS)
            for name, theirs in medians.items():
                table.add_row(
                    str(shape),
                    str(dtype).removeprefix("torch."),
                    f"{mine * 1e3:.2f}",
                    f"{theirs * 1e3:.2f}",
                    f"{theirs / mine:.2f}",
                    name,
                )
    Console().print(table)


if __name__ == "__main__":
    main()
