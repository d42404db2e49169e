"""The rate of multiply-add instructions, by a loop of nothing else, compiled where it is run: what bounds a product."""

import shutil
import subprocess
import tempfile
from pathlib import Path

FLOATS = "vfmadd231ps %%{r}1, %%{r}2, %%{r}{0};"
FOUR_IN_32_BITS = "vpdpbusd %%{r}1, %%{r}2, %%{r}{0};"
TWO_IN_16_BITS = (
    "vpmaddubsw %%{r}1, %%{r}2, %%{r}3; vpmaddubsw %%{r}2, %%{r}1, %%{r}4; vpaddw %%{r}3, %%{r}4, %%{r}3;"
    "vpmaddwd %%{r}1, %%{r}3, %%{r}3; vpaddd %%{r}3, %%{r}{0}, %%{r}{0};"
)
# By operands and instruction set: the registers' prefix, one step (sum {0}, operands 1 and 2), and its multiply-adds.
STEPS = {
    ("float32", "avx2"): ("ymm", FLOATS, 8),
    ("float32", "avx512"): ("zmm", FLOATS, 16),
    ("uint8", "avx2"): ("ymm", TWO_IN_16_BITS, 64),
    ("uint8", "avx512"): ("zmm", TWO_IN_16_BITS, 128),
    ("uint8", "avx512_vnni"): ("zmm", FOUR_IN_32_BITS, 64),
}
for operands, isa in (("float32", "avx512"), ("uint8", "avx512_vnni")):
    for larger in ("avx512_vnni", "avx512_bf16", "avx512_bf16_dot"):
        STEPS[operands, larger] = STEPS[operands, isa]
# So many that none waits for the one before: 10 sums of zmm gave 305 of 357 G multiply-adds/s (family 6, model 106).
SUMS = {"ymm": range(5, 15), "zmm": range(5, 25)}
FLAGS = {"ymm": "-mavx2", "zmm": "-mavx512f"}  # by which the compiler knows the registers
TURNS = 5_000_000
PROGRAM = """
#include <chrono>
#include <cstdio>
int main() {{
  double best = 1e9;
  for (int round = 0; round < 10; ++round) {{
    const auto start = std::chrono::steady_clock::now();
    for (long i = 0; i < {turns}; ++i) asm volatile("{steps}" ::: {clobbered});
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    if (taken.count() < best) best = taken.count();
  }}
  std::printf("%.9f", best);
}}
"""


def instruction_peak(isa: str, operands: str) -> float | None:
    """Multiply-adds per second, in units of 1e9, of one thread.

    Args:
        isa: the instruction set, as :func:`glai_native.build_info` names it.
        operands: ``"float32"``, or ``"uint8"`` with sums in 32 bits.

    Returns:
        None where no compiler is found, or no loop is known for the set.
    """
    compiler = shutil.which("c++") or shutil.which("g++")
    if (operands, isa) not in STEPS or compiler is None:
        return None
    registers, step, multiply_adds = STEPS[operands, isa]
    steps = "".join(step.format(place, r=registers) for place in SUMS[registers])
    clobbered = ", ".join(f'"xmm{i}"' for i in range(1, max(SUMS[registers]) + 1))
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder) / "peak.cpp", Path(folder) / "peak"
        source.write_text(PROGRAM.format(turns=TURNS, steps=steps, clobbered=clobbered))
        subprocess.run(
            [compiler, "-O2", FLAGS[registers], source, "-o", program], check=True, capture_output=True
        )
        seconds = float(subprocess.run([program], check=True, capture_output=True, text=True).stdout)
    return TURNS * len(SUMS[registers]) * multiply_adds / seconds / 1e9
