"""Pages of results, each written whole by its report: tables in Markdown, and the arguments that reports share."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from glai_bench.folders import results_folder


def held(text: str, met: bool) -> str:
    """Return a figure, bold where it misses its target."""
    return text if met else f"**{text}**"


def table_row(*cells: str) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(cells)} |"


def table_header(*cells: str) -> list[str]:
    """Return the two lines that begin a table."""
    return [table_row(*cells), f"|{'---|' * len(cells)}"]


def report_files(
    command: str, description: str | None, results: str, page: str | None, argv: Sequence[str] | None
) -> tuple[Path, Path]:
    """Parse a report's arguments: the results that it reads, and the page that it writes.

    Args:
        command: as it is typed.
        description: begins the help.
        results: name of the file in ``bench/results`` that is read by default.
        page: name of the page, by default written beside the results (None: named after them).
        argv: arguments (None: the program's own).
    """
    parser = argparse.ArgumentParser(
        prog=command, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help=f"what is read (default: bench/results/{results})"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help=f"the page, its pictures go beside it (default: {page or '<results>.md'} beside the results)",
    )
    arguments = parser.parse_args(argv)
    try:
        read = arguments.results or results_folder() / results
    except FileNotFoundError as error:
        parser.error(str(error))
    if not read.is_file():
        parser.error(f"{read}: there is no such file of results")
    return read, arguments.output or (read.with_name(page) if page else read.with_suffix(".md"))


def write_page(path: Path, title: str, introduction: Iterable[str], body: Iterable[str]) -> None:
    """Write a whole page: its title, paragraphs on how it is repeated and read, and the lines that follow."""
    paragraphs = [f"# {title}", *introduction, "\n".join(body)]
    path.write_text("\n\n".join(paragraphs).rstrip() + "\n")
    print(f"Written: {path}")
