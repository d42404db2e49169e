"""Puts the reproduction of the published claims into the README, and draws it.

Between the README's markers it writes every claim's tables and its line, reproduced, partly or not; beside the results
it draws what a claim has pictures of. All figures are those of the results.

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
    text = arguments.readme.read_text()
    body = "\n".join(markdown(report, arguments.results.stem, folder, arguments.readme.parent))
    arguments.readme.write_text(with_report(text, body, MARKER, str(arguments.readme)))
    print(f"Written: {arguments.readme}")


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
