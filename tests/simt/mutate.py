"""Breaks the CUDA kernels one line at a time and expects the executor to notice: python tests/simt/mutate.py

Each mutation is made in a copy of the sources. check_kernels runs on it under AddressSanitizer (which also compares
values), and where that is content under ThreadSanitizer; one of the two must fail. About five minutes on two cores.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SANITIZERS = ("address", "thread")


class Mutation(NamedTuple):
    """In ``file`` under csrc/cuda, ``old``, which stands there once, becomes ``new``."""

    what: str
    file: str
    old: str
    new: str


MUTATIONS = [
    Mutation(
        "bytes of the odd columns' samples out of order in one word",
        "tiles/byte_tile.cuh",
        "0x7531u",
        "0x7351u",
    ),
    Mutation("samples past the last one added", "integer_gram.cu", "sample < q.n ? q.m - at : 0", "q.m - at"),
    Mutation("sums below the diagonal added", "integer_gram.cu", "c < q.m && r <= c", "c < q.m && r < q.m"),
    Mutation(
        "no barrier between tiles landing and their use",
        "tiles/pipeline.cuh",
        "    sync_block();\n    const std::int64_t next",
        "    const std::int64_t next",
    ),
    Mutation(
        "tiles loaded before the barrier behind which their stage is free",
        "tiles/pipeline.cuh",
        "    sync_block();\n    const std::int64_t next = step + kDeep - 1;\n"
        "    if (next < steps) load(free_stage, next);\n",
        "    const std::int64_t next = step + kDeep - 1;\n"
        "    if (next < steps) load(free_stage, next);\n    sync_block();\n",
    ),
    Mutation(
        "one group of copies too few waited for",
        "tiles/pipeline.cuh",
        "wait_copies<kDeep - 2>",
        "wait_copies<kDeep - 1>",
    ),
    Mutation("no wait for copies", "tiles/pipeline.cuh", "    wait_copies<kDeep - 2>();\n", ""),
    Mutation(
        "no barrier between the warps' counts and their sum",
        "gathered_product.cuh",
        "warp_counts()[warp_index()] = before;\n    sync_block();\n",
        "warp_counts()[warp_index()] = before;\n",
    ),
    Mutation(
        "no barrier between the list of samples and its use",
        "gathered_product.cuh",
        "    sync_block();\n    return static_cast<int>(total);",
        "    return static_cast<int>(total);",
    ),
    Mutation(
        "no barrier between the counts of warps and their sum",
        "gates.cu",
        "of_warps[thread_index()] = count;\n    sync_block();\n",
        "of_warps[thread_index()] = count;\n",
    ),
    Mutation(
        "words loaded over a stage that is still read",
        "path_kernel.cuh",
        "      sync_block();  // nobody reads what was there any more\n",
        "",
    ),
    Mutation(
        "no barrier between words landing and their use",
        "path_kernel.cuh",
        "load_words(layer, first);\n      sync_block();\n",
        "load_words(layer, first);\n",
    ),
    Mutation(
        "bits written over a stage that is still read",
        "selector_gates.cuh",
        "    sync_block();  // nobody reads the last stage any more\n",
        "",
    ),
    Mutation(
        "no barrier between bits landing and the vote on them",
        "selector_gates.cuh",
        "    }\n    sync_block();\n    for (int i = warp_index()",
        "    }\n    for (int i = warp_index()",
    ),
    Mutation(
        "a row of bits past the last one", "selector_gates.cuh", "== 0 && n < q.n &&", "== 0 && n <= q.n &&"
    ),
    Mutation("the gate of another column", "gated_linear.cuh", ">> (p % kWordBits) & 1u", ">> (p % 16) & 1u"),
    Mutation("a row of sums past the last one", "gated_linear.cuh", "if (n >= q.n)", "if (n > q.n)"),
    Mutation("a column of sums past the last one", "gated_linear.cuh", "if (p >= q.h)", "if (p > q.h)"),
    Mutation(
        "a value past the last gate",
        "gates.cu",
        "if (gate < p) out[row * out_stride",
        "if (gate <= p) out[row * out_stride",
    ),
    Mutation(
        "lanes that leave a shuffle out",
        "gathered_product.cuh",
        "      const std::uint32_t below = shuffle_up(before, distance);\n"
        "      if (lane_index() >= distance) before += below;\n",
        "      if (lane_index() >= distance) before += shuffle_up(before, distance);\n",
    ),
    Mutation(
        "halves of a fragment's rows and depth exchanged",
        "tiles/mma_tile.cuh",
        "A::at(row + matrix % 2 * 8 + r, depth + matrix / 2 * kChunk)",
        "A::at(row + matrix / 2 * 8 + r, depth + matrix % 2 * kChunk)",
    ),
    Mutation(
        "a fragment's second rows four too early", "tiles/mma_tile.cuh", "e % 4 / 2 * 8", "e % 4 / 2 * 4"
    ),
    Mutation(
        "a row of x past the last one",
        "gated_matmul.cuh",
        "n < q.n ? q.depth - slice - k : 0",
        "n <= q.n ? q.depth - slice - k : 0",
    ),
    Mutation(
        "a sample past the last one listed", "gathered_product.cuh", "if (k >= count)", "if (k > count)"
    ),
    Mutation(
        "tiles in shared memory without their padding",
        "tiles/pipeline.cuh",
        "kElements = kRows * kStride",
        "kElements = kRows * kWidth",
    ),
    Mutation(
        "the gate of another path",
        "gated_matmul.cuh",
        "static_cast<int>(path % kWordBits), y)",
        "static_cast<int>(path % 16), y)",
    ),
    Mutation(
        "a slice of depth loaded over one that is still read",
        "gated_matmul.cuh",
        "      if (slice > 0) sync_block();  // nobody reads the last slice any more\n",
        "",
    ),
    Mutation(
        "no barrier between the lists of rows and their use",
        "gated_matmul_compaction.cuh",
        "    sync_block();\n  }\n\n  // Of the listed paths",
        "  }\n\n  // Of the listed paths",
    ),
    Mutation(
        "no barrier between bits landing and the list made from them",
        "gated_matmul_compaction.cuh",
        "    sync_block();\n    for (int j = 0; j < count; ++j) {\n      int total",
        "    for (int j = 0; j < count; ++j) {\n      int total",
    ),
    Mutation(
        "a row past a path's last one gathered",
        "gated_matmul_compaction.cuh",
        "if (s.first + i >= s.rows) return",
        "if (s.first + i > s.rows) return",
    ),
    Mutation(
        "sums of rows that were not gathered added",
        "gated_matmul_compaction.cuh",
        "if (i >= s.rows) continue;",
        "if (i > s.rows) continue;",
    ),
    Mutation(
        "no barrier between what warps sum and their sum",
        "gated_matmul_reference.cuh",
        "  of_warps[thread_index()] = mine;\n  sync_block();\n",
        "  of_warps[thread_index()] = mine;\n",
    ),
    Mutation(
        "what deviates added where it is to be subtracted",
        "gated_matmul_compaction.cuh",
        "!= 0 ? -1 : 1;",
        "!= 0 ? 1 : 1;",
    ),
    Mutation(
        "a reference kept where somebody objects",
        "gated_product.cuh",
        "majority != nullptr && majority[words_per_row(p)] != 0 ?",
        "majority != nullptr ?",
    ),
    Mutation(
        "a path past the last one summed",
        "gated_matmul_reference.cuh",
        "some && path + j < q.p ? norms",
        "some && path + j <= q.p ? norms",
    ),
    Mutation(
        "a split that leaves its last samples out",
        "gated_matmul_weight_grad.cuh",
        "n_words * (split + 1) / q.splits,",
        "(n_words * (split + 1) - 1) / q.splits,",
    ),
    Mutation(
        "a split that leaves its last paths out",
        "gated_matmul.cuh",
        "groups * (split + 1) / q.splits",
        "(groups * (split + 1) - 1) / q.splits",
    ),
]


def run(*command, timeout=600):
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)


def caught_by(source, builds, sanitizer):
    """The last line of what ``sanitizer``'s run of check_kernels complains about, or None where it is content."""
    folder = builds / sanitizer
    configure = run(
        "cmake", "-S", source / "tests" / "simt", "-B", folder, "-G", "Ninja", f"-DGLAI_SANITIZER={sanitizer}"
    )
    jobs = str(min(2, os.cpu_count() or 1))
    build = run("cmake", "--build", folder, "-j", jobs, "--target", "check_kernels")
    if configure.returncode or build.returncode:
        raise SystemExit(f"it does not build:\n{configure.stderr}\n{build.stdout}")
    result = run(folder / "check_kernels")
    if result.returncode == 0:
        return None
    lines = [line for line in (result.stdout + result.stderr).splitlines() if line.strip()]
    summary = [line for line in lines if line.startswith("SUMMARY")]
    return (summary or [line for line in lines if "good" not in line and "FAILED" not in line])[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="mutations whose description has this in it")
    only = parser.parse_args().only or ""
    missed = 0
    with tempfile.TemporaryDirectory() as work:
        source, builds = Path(work, "source"), Path(work, "build")
        shutil.copytree(ROOT / "csrc", source / "csrc")
        shutil.copytree(ROOT / "tests" / "simt", source / "tests" / "simt")
        for sanitizer in SANITIZERS:
            complaint = caught_by(source, builds, sanitizer)
            if complaint:
                raise SystemExit(f"nothing is broken yet, and {sanitizer} complains: {complaint}")
        for mutation in MUTATIONS:
            if only not in mutation.what:
                continue
            file = source / "csrc" / "cuda" / mutation.file
            text = file.read_text()
            if text.count(mutation.old) != 1:
                raise SystemExit(f"{mutation.what}: {mutation.file} must have this once:\n{mutation.old}")
            file.write_text(text.replace(mutation.old, mutation.new))
            complaint = None
            for sanitizer in SANITIZERS:
                complaint = complaint or caught_by(source, builds, sanitizer)
            file.write_text(text)
            missed += complaint is None
            print(f"{'MISSED' if complaint is None else 'caught'}  {mutation.what}: {complaint}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
