"""Writes the reproduction of the published claims as a page beside its results, and the heart of it into the README.

The page holds every claim's tables and its lines, reproduced, partly or not; between the README's markers go the lines
and each claim's first table. Beside the results it draws what a claim has pictures of. All figures are those of the
results.

python bench/reproduce.py && python bench/reproduction_report.py
python bench/reproduction_report.py --results quick.json --readme README.md --plots bench/results
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import claims
from report import ROOT, with_report

MARKER = "reproduction"
TITLES = {
    "settling": "Structure settles early",
    "accuracy": "No loss of accuracy",
    "retraining": "Re-training only the numbers",
    "merging": "Merging",
    "energy": "Energy",
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=ROOT / "bench/results/reproduction.json",
        metavar="FILE",
        help="what reproduce.py wrote (default: bench/results/reproduction.json)",
    )
    parser.add_argument(
        "--readme",
        type=Path,
        default=ROOT / "README.md",
        metavar="FILE",
        help="rewritten between its markers",
    )
    parser.add_argument(
        "--plots", type=Path, metavar="FOLDER", help="of the pictures (default: beside the results)"
    )
    arguments = parser.parse_args(argv)
    report = json.loads(arguments.results.read_text())
    folder = arguments.plots or arguments.results.parent
    page = folder / f"{arguments.results.stem}.md"
    text = arguments.readme.read_text()
    lines = list(markdown(report, arguments.results.stem, folder, arguments.readme.parent))
    whole = "\n".join(lines)
    link = os.path.relpath(page, arguments.readme.parent)
    summary = f"{heart(whole)}\n\nAll tables: [{link}]({link})."
    arguments.readme.write_text(with_report(text, summary, MARKER, str(arguments.readme)))
    # Pictures lie beside the page.
    lines = list(markdown(report, arguments.results.stem, folder, folder))
    page.write_text("# The published claims, repeated\n\n" + "\n".join(lines) + "\n")
    print(f"Written: {arguments.readme}, {page}")


def heart(report: str) -> str:
    """Of each claim its first table, its lines (bold at their beginning) and its pictures; and what failed."""
    parts = []
    for section in report.split("\n### "):
        head, *blocks = section.split("\n\n")
        tables = [block for block in blocks if block.startswith("|")][:1]
        told = [block for block in blocks if block.startswith(("**", "!", "Failed", "- "))]
        parts.append("\n\n".join([head, *tables, *told]))
    return "\n\n### ".join(part.strip() for part in parts)


def markdown(report: dict[str, Any], stem: str, folder: Path, beside: Path) -> Iterator[str]:
    """The README's part, line by line; draws the pictures on its way, into ``folder``."""
    cells = report["cells"]
    results = {key: cell["result"] for key, cell in cells.items() if "result" in cell}
    machine, settings = report["machine"], report["settings"]
    minutes = sum(cell["seconds"] for cell in cells.values()) / 60
    load = statistics.median(cell["load"] for cell in cells.values())
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    yield (
        f"`{report['command']}`, {settings['seeds']} seeds, {minutes:.0f} minutes on {machine['processor']}, "
        f"{machine['cpu_isa']}, {settings['threads']} threads; Python {machine['python']}, {packages}. "
        f"The machine's load average was {load:.1f} in the median cell (this run alone: up to {settings['threads']}). "
        "All settings are tuned on the first seed by validation, and ± is the standard deviation over seeds."
    )
    for name in claims.NAMES:
        if not any(key.startswith(f"{name}/") for key in results):
            continue
        claim = claims.load(name)
        yield from ("", f"### {TITLES[name]}", "", claim.tables(results))
        for suffix, picture in getattr(claim, "pictures", lambda _: ())(results):
            path = folder / f"{stem}-{suffix}.png"
            picture.savefig(path, dpi=90)
            yield from ("", f"![{TITLES[name]}]({os.path.relpath(path, beside)})")
    failed = [f"- {key}: {cell['error']}" for key, cell in cells.items() if "error" in cell]
    if failed:
        yield from ("", "Failed:", "", *failed)


if __name__ == "__main__":
    main()
