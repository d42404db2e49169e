"""Writes the page of the published claims, repeated, and draws what a claim has pictures of beside it.

The page begins with the heart of it: of each claim the first table, its lines (reproduced, partly or not) and its
pictures. All tables follow. All figures are those of the results.

python -m glai_bench.claims && python -m glai_bench.claims.report
python -m glai_bench.claims.report --results quick.json --output quick.md
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from glai_bench import claims
from glai_bench.markdown import report_files, write_page

TITLES = {
    "settling": "Structure settles early",
    "accuracy": "No loss of accuracy",
    "retraining": "Re-training only the numbers",
    "merging": "Merging",
    "energy": "Energy",
}
INTRODUCTION = (
    "`GLAI_DATA=data python -m glai_bench.claims --output FILE` measures this; "
    "`python -m glai_bench.claims.report` writes this page from `bench/results/reproduction.json`.",
    "Each claim of [arXiv 2312.09971](https://arxiv.org/abs/2312.09971) is run beside controls: random gates, the MLP "
    "on the same preprocessing, linear softmax. A bold line says how it came out: reproduced, partly, or not.",
)


def main(argv: Sequence[str] | None = None) -> None:
    read, page = report_files("python -m glai_bench.claims.report", __doc__, "reproduction.json", None, argv)
    lines = markdown(json.loads(read.read_text()), page)
    write_page(page, "The published claims, repeated", INTRODUCTION, lines)


def markdown(report: dict[str, Any], page: Path) -> Iterator[str]:
    """The page, line by line; draws the pictures on its way, beside ``page``."""
    sections = dict(_sections(report["cells"], page))
    yield _run(report)
    for title, blocks in sections.items():
        yield from ("", f"## {title}")
        for block in heart(blocks):
            yield from ("", block)
    failed = [f"- {key}: {cell['error']}" for key, cell in report["cells"].items() if "error" in cell]
    if failed:
        yield from ("", "## Failed", "", *failed)
    yield from ("", "## All tables")
    for title, blocks in sections.items():
        yield from ("", f"### {title}")
        for block in blocks:
            if not _is_picture(block):
                yield from ("", block)


def heart(blocks: Sequence[str]) -> list[str]:
    """Of a claim its first table, its lines (bold at their beginning) and its pictures."""
    table = [block for block in blocks if block.startswith("|")][:1]
    return table + [block for block in blocks if block.startswith("**") or _is_picture(block)]


def _is_picture(block: str) -> bool:
    return block.startswith("![")


def _run(report: dict[str, Any]) -> str:
    """What was run, where, and how busy it was there."""
    cells, machine, settings = report["cells"], report["machine"], report["settings"]
    minutes = sum(cell["seconds"] for cell in cells.values()) / 60
    load = statistics.median(cell["load"] for cell in cells.values())
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    return (
        f"`{report['command']}`, {settings['seeds']} seeds, {minutes:.0f} minutes on {machine['processor']}, "
        f"{machine['cpu_isa']}, {settings['threads']} threads; Python {machine['python']}, {packages}. "
        f"The machine's load average was {load:.1f} in the median cell (this run alone: up to {settings['threads']}). "
        "All settings are tuned on the first seed by validation, and ± is the standard deviation over seeds."
    )


def _sections(cells: dict[str, Any], page: Path) -> Iterator[tuple[str, list[str]]]:
    """Of each claim that was run its title, and its paragraphs, tables and pictures."""
    results = {key: cell["result"] for key, cell in cells.items() if "result" in cell}
    for name in claims.NAMES:
        if not any(key.startswith(f"{name}/") for key in results):
            continue
        claim = claims.load(name)
        blocks = claim.tables(results).split("\n\n")
        for suffix, picture in getattr(claim, "pictures", lambda _: ())(results):
            file = f"{page.stem}-{suffix}.png"
            picture.savefig(page.with_name(file), dpi=90)
            blocks.append(f"![{TITLES[name]}]({file})")
        yield TITLES[name], blocks


if __name__ == "__main__":
    main()
