"""Launches every CUDA kernel once, on random data, for tools that look at single launches (profiler, sanitizer).

Nothing is compared or timed here: the tests and ``python -m glai_bench`` do that.

python -m glai_bench.launch_kernels --shape 4096,193,50,10 --precisions bf16 tf32
"""

import argparse
import sys
from collections.abc import Sequence

import torch

import glai_native as glai
from glai_bench.command import shape
from glai_bench.cuda.card import PRECISIONS, arithmetic
from glai_bench.cuda.cell import FORMS
from glai_bench.ops.cases import Shape, make_case
from glai_native.gates.packing import selector_gates

# Every size off the tiles' by one.
RAGGED = Shape(129, 33, 65, 17)


def launch(one: Shape, precision: str, device: torch.device | str) -> None:
    case = make_case(one, 0.4, PRECISIONS[precision][0], device=device)
    gates = glai.pack_gates(case.gates)
    with arithmetic(precision), torch.no_grad():
        for form in FORMS[torch.device(device).type]:
            glai.gated_matmul(case.x, gates, case.weight, case.weight[:, 0], form=form)
            glai.gated_matmul_input_grad(case.dy, gates, case.weight, form=form)
        glai.gated_linear(case.x, gates, case.weight[:, :, 0], case.weight[:, 0, 0])
        selector_gates(case.x, case.weight[:, :, 0], case.weight[:, 0, 0])
        glai.gated_matmul_weight_grad(case.x, gates, case.dy)
        glai.path_kernel(case.x, [gates])
        if case.x.dtype == torch.float32:
            few = slice(0, min(8, one.p))  # the gram matrix grows with the square of paths
            glai.path_gram(case.x, glai.pack_gates(case.gates[:, few]))
    glai.path_gates([glai.pack_gates(case.gates[:, :3]), gates])
    gates.unpack()
    gates.counts()
    gates.hamming(gates)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m glai_bench.launch_kernels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--shape", type=shape, nargs="+", default=[RAGGED], metavar="N,P,D,C")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    arguments = parser.parse_args(argv)
    info = glai.build_info()
    if not info["cuda_available"]:
        print(
            f"python -m glai_bench.launch_kernels: no GPU to run on: {info['cuda_reason']}", file=sys.stderr
        )
        return 2
    for one in arguments.shape:
        for precision in arguments.precisions:
            launch(one, precision, "cuda")
    torch.cuda.synchronize()
    return 0


if __name__ == "__main__":
    sys.exit(main())
