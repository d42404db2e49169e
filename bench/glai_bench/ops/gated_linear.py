"""Time of g ⊙ (x·uᵀ + bias), and of it with its gradients: the best torch form over ours.

python -m glai_bench.ops.gated_linear --threads 1
"""

import argparse
from collections.abc import Callable

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import linear

import glai_native as glai
from glai_bench.clock import OURS, measure

# (N, P, D)
SHAPES = ((512, 512, 50), (256, 1024, 384), (4096, 512, 50))


def time(n: int, p: int, d: int, seconds: float) -> dict[str, dict[str, float]]:
    """Median seconds by name, of the forward pass and of both; torch keeps masks and memory between calls."""
    generator = torch.Generator().manual_seed(0)
    x, u, bias, dh = (torch.randn(size, generator=generator) for size in ((n, d), (p, d), (p,), (n, p)))
    bits = torch.rand((n, p), generator=generator) < 0.5
    gates, mask, off, out, columns = (
        glai.pack_gates(bits),
        bits.float(),
        ~bits,
        torch.ones(n, p),
        u.T.contiguous(),
    )
    forward = {
        "linear, mul_(float)": lambda: linear(x, u, bias).mul_(mask),
        "linear, mul_(bool)": lambda: linear(x, u, bias).mul_(bits),
        "linear, masked_fill_": lambda: linear(x, u, bias).masked_fill_(off, 0.0),
        "addmm(out=), mul_(float)": lambda: torch.addmm(bias, x, u.T, out=out).mul_(mask),
        "addmm(out=) of columns, mul_(float)": lambda: torch.addmm(bias, x, columns, out=out).mul_(mask),
    }
    leaves = [u.clone().requires_grad_(), bias.clone().requires_grad_()]

    def both(h: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], tuple[Tensor, ...]]:
        return lambda: torch.autograd.grad(h(*leaves), leaves, dh)

    gradients = {
        "linear * float": both(lambda u, bias: linear(x, u, bias) * mask),
        "linear * bool": both(lambda u, bias: linear(x, u, bias) * bits),
        "where": both(lambda u, bias: torch.where(bits, linear(x, u, bias), 0.0)),
    }
    return {
        "forward": measure(lambda: glai.gated_linear(x, gates, u, bias), forward, seconds),
        "and gradients": measure(
            both(lambda u, bias: glai.gated_linear(x, gates, u, bias)), gradients, seconds
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m glai_bench.ops.gated_linear",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--threads", type=int, help="default: as torch")
    parser.add_argument("--seconds", type=float, default=2.0, help="budget per row (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    table = Table(
        title=f"torch / ours, {torch.get_num_threads()} threads, {glai.build_info()['cpu_isa']}", box=SIMPLE
    )
    for column in ("(N,P,D)", "pass", "ours µs", "torch µs", "ratio", "torch form"):
        table.add_column(column)
    for shape in SHAPES:
        for name, medians in time(*shape, arguments.seconds).items():
            mine = medians.pop(OURS)
            form, best = min(medians.items(), key=lambda item: item[1])
            table.add_row(
                str(shape), name, f"{mine * 1e6:.0f}", f"{best * 1e6:.0f}", f"{best / mine:.2f}", form
            )
    Console().print(table)


if __name__ == "__main__":
    main()
