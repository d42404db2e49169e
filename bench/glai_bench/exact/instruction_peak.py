"""The rate of the instructions that sums of bytes are made of, by a loop of nothing else, compiled where it is run."""

import shutil
import subprocess
import tempfile
from pathlib import Path

# By instruction set: the registers' prefix and width in bytes, and one step: sum {0}, operands 1 and 2.
FOUR_IN_32_BITS = "vpdpbusd %%{r}1, %%{r}2, %%{r}{0};"
TWO_IN_16_BITS = (
    "vpmaddubsw %%{r}1, %%{r}2, %%{r}3; vpmaddubsw %%{r}2, %%{r}1, %%{r}4; vpaddw %%{r}3, %%{r}4, %%{r}3;"
    "vpmaddwd %%{r}1, %%{r}3, %%{r}3; vpaddd %%{r}3, %%{r}{0}, %%{r}{0};"
)
STEPS = {
    "avx2": ("ymm", 32, TWO_IN_16_BITS, 2),
    "avx512": ("zmm", 64, TWO_IN_16_BITS, 2),
    "avx512_vnni": ("zmm", 64, FOUR_IN_32_BITS, 1),
}
STEPS["avx512_bf16"] = STEPS["avx512_bf16_dot"] = STEPS["avx512_vnni"]
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


def instruction_peak(isa: str) -> float | None:
    """Return multiply-adds per second, in units of 1e9, of one thread; None where no compiler or no loop is known."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if isa not in STEPS or compiler is None:
        return None
    registers, width, step, quads = STEPS[isa]
    steps = "".join(step.format(place, r=registers) for place in SUMS[registers])
    clobbered = ", ".join(f'"xmm{i}"' for i in range(1, max(SUMS[registers]) + 1))
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder) / "peak.cpp", Path(folder) / "peak"
        source.write_text(PROGRAM.format(turns=TURNS, steps=steps, clobbered=clobbered))
        subprocess.run(
            [compiler, "-O2", FLAGS[registers], source, "-o", program], check=True, capture_output=True
        )
        seconds = float(subprocess.run([program], check=True, capture_output=True, text=True).stdout)
    return TURNS * len(SUMS[registers]) * width * quads / seconds / 1e9
