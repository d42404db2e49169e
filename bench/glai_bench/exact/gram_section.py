"""The page's section on sums of integers, from the files that ``glai_bench.exact.gram --output`` wrote."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from glai_bench.clock import OURS
from glai_bench.exact.gram import FLOAT32, FLOAT64
from glai_bench.markdown import held, table_header, table_row

# Times faster than torch's float32 and float64, by instruction set; and of the measured peak of the instructions.
TARGETS = {"avx2": (2.0, None)} | dict.fromkeys(
    ("avx512", "avx512_vnni", "avx512_bf16", "avx512_bf16_dot"), (4.0, 8.0)
)
PEAK_SHARE = 0.75


def gram_section(files: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the section's lines, none without files."""
    files = list(files)
    if not files:
        return []
    lines = [
        "## Sums of integers",
        "",
        "`python -m glai_bench.exact.gram --output FILE`: `integer_gram` adds N samples of M features to a gram "
        "matrix, beside torch's `addmm` of float32 and float64, which has no form that leaves the symmetric half out; "
        "calls take turns, medians of wall time. The peak is that of the multiply-add instruction that the set has "
        "for bytes, with nothing to load, in the same run.",
        "",
        *table_header(
            "instruction set", "N", "M", "threads", "ms", "float32 / ours", "float64 / ours", "of the peak"
        ),
    ]
    for results in files:
        isa, peak = results["machine"]["cpu_isa"], results["machine"]["peak"]
        targets = dict(zip((FLOAT32, FLOAT64), TARGETS.get(isa, (None, None)), strict=True))
        for row in results["rows"]:
            ratios = []
            for name, target in targets.items():
                ratio = row["times_faster"][name]
                shown = f"{ratio:.1f}"
                ratios.append(shown if target is None else held(f"{shown} ({target:g})", ratio >= target))
            share = "-"
            if peak is not None:
                value = row["giga_multiply_adds"] / peak / row["threads"]
                share = held(f"{value:.0%} ({PEAK_SHARE:.0%})", value >= PEAK_SHARE)
            lines.append(
                table_row(
                    isa, f"{row['samples']:,}", f"{row['features']:,}", str(row["threads"]),
                    f"{row['ms'][OURS]:.1f}", *ratios, share,
                )
            )  # fmt: skip
    return [*lines, ""]
