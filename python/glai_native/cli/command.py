"""This file holds what the commands of ``glai`` share: a parser with examples, checks before the work, figures."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glai_native.cli.arguments import seed, share

if TYPE_CHECKING:
    from glai_native.data.sources import Source

DEFAULT_SHARE = 0.25  # that is tested on where we split
MOST_NAMES = 12  # of columns in a sentence


def add_command(
    commands: Any, name: str, summary: str, examples: str, run: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    """Add a command with ``--json``; ``examples`` end its help."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="figures as JSON on standard output")
    parser.set_defaults(run=run)
    return parser


def add_out(parser: argparse.ArgumentParser) -> None:
    """Add ``--out``, the new folder of a model; :func:`require_new_folder` checks it."""
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="FOLDER", help="folder of the result"
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add data, and what the label's column of a table is called."""
    parser.add_argument(
        "data",
        type=Path,
        metavar="DATA",
        help="'digits', a folder of MNIST IDX files, .npz with x and y, .csv or .parquet",
    )
    parser.add_argument(
        "--label",
        metavar="COLUMN",
        help="of a table, the label's column (default: the model's, or one called label, y, target or class)",
    )


def add_model_and_rows(
    parser: argparse.ArgumentParser, part: str, seeded: str = "the split, where we make it"
) -> None:
    """Add a model's folder, data, and which of their samples; :func:`chosen_part` says which by default.

    ``seeded``: what ``--seed`` is of.
    """
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder of a model, of any kind")
    add_data(parser)
    parser.add_argument(
        "--part",
        choices=("train", "test", "all"),
        help=f"which samples (default: {part} of data that come in train and test, otherwise all)",
    )
    parser.add_argument(
        "--test-share",
        type=share,
        default=DEFAULT_SHARE,
        metavar="SHARE",
        help="of --part train and test, where we make the split: as glai train was told (default: %(default)s)",
    )
    parser.add_argument("--seed", type=seed, default=0, help=f"of {seeded} (default: %(default)s)")


def tell_unknown(source: Source) -> None:
    """Say on standard error which columns of a table its model does not know."""
    if source.unknown:
        names = ", ".join(map(repr, source.unknown[:MOST_NAMES])) + (
            ", ..." if len(source.unknown) > MOST_NAMES else ""
        )
        print(f"{source.path}: left out, since the model was not trained on it: {names}", file=sys.stderr)


def chosen_part(part: str | None, source: Source, default: str) -> str:
    """Return which samples of the data are meant: ``default`` of data that come in train and test, otherwise all."""
    return part or (default if source.comes_in_parts else "all")


def require_new_folder(out: Path) -> None:
    """Raise, before the work, where a folder holds something, or could not be written after it."""
    there = next(path for path in (out, *out.parents) if os.path.lexists(path))
    if not there.is_dir():
        what = "a file" if there.exists() else "a link to nothing"
        raise ValueError(f"{out}: must be a new or an empty folder, {there} is {what}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{out}: cannot be written, folder {there} is not writable")
    if there == out and any(out.iterdir()):
        raise ValueError(f"{out}: must be a new or an empty folder, so that no model is overwritten")
    _require_writable(out, there)


def _require_writable(path: Path, folder: Path) -> None:
    """Raise where ``path`` could not be made in ``folder``: by trying, since permissions do not say all."""
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".glai-") as made:
            probe = Path(made) / path.relative_to(folder) / "probe"
            probe.parent.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"glai")
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be written, folder {folder} does not take it ({error.strerror or error})"
        ) from None


def require_plot(path: Path, made_later: Path | None = None) -> None:
    """Raise, before the work, where a picture could not be drawn after it."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("--plot needs matplotlib, install it with: pip install matplotlib")
    if path.suffix not in (".png", ".pdf", ".svg"):
        raise ValueError(f"--plot: FILE must end in .png, .pdf or .svg, got '{path}'")
    require_writable_file("--plot", path, made_later)


def require_writable_file(option: str, path: Path, made_later: Path | None = None) -> None:
    """Raise, before the work, where a file could not be written after it; the folder ``made_later`` is made later."""
    if path.parent != made_later and not path.parent.is_dir():
        raise ValueError(f"{option}: there is no folder {path.parent}")
    if path.is_dir():
        raise ValueError(f"{option}: FILE must be a file, got the folder {path}")
    if path.parent.is_dir():
        _require_writable(path, path.parent)


def show(figures: dict[str, Any], as_json: bool) -> None:
    """Print figures, as JSON or as a table; figures that are dicts themselves become columns, side by side."""
    if as_json:
        print(json.dumps(figures, indent=2))
        return
    # Here, since a parser of arguments needs none of it.
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    columns = {name: part for name, part in figures.items() if isinstance(part, dict)}
    rest = {name: value for name, value in figures.items() if name not in columns}
    for part in (columns, {"": rest}) if columns else ({"": rest},):
        table = Table(show_header=len(part) > 1, box=SIMPLE)
        for heading in ("", *part):
            table.add_column(heading, overflow="fold")
        for name in dict.fromkeys(name for column in part.values() for name in column):
            table.add_row(name, *(_shown(column.get(name)) for column in part.values()))
        Console().print(table)


def show_rows(rows: Sequence[dict[str, Any]]) -> None:
    """Print dicts of the same names as the rows of a table."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE)
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(_shown, row.values()))
    Console().print(table)


def _shown(value: Any) -> str:
    if value is None or value == []:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
