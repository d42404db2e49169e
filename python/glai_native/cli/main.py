"""The command line is ``glai COMMAND``, with the commands that :mod:`glai_native.cli.commands` lists."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Sequence

from glai_native.cli.commands import COMMANDS, GROUP

# What commands raise where their input is at fault; anything else is our defect, and shows its traceback.
REFUSALS = (ValueError, TypeError, OSError, RuntimeError, MemoryError, ImportError, FloatingPointError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status (2: bad input, one sentence on standard error)."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = _parser(_named(argv)).parse_args(argv)
    try:
        code = int(arguments.run(arguments))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # who reads our output has had enough; nor may Python say so when it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except REFUSALS as error:
        sentence = (str(error) or type(error).__name__).splitlines()[0].removeprefix(f"{arguments.command}: ")
        if isinstance(error, OSError) and error.strerror:
            sentence = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
        print(f"glai {arguments.command}: {sentence}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"glai {arguments.command}: interrupted", file=sys.stderr)
        return 130


def _named(argv: Sequence[str]) -> str | None:
    """Return the command that the arguments name, where they name one."""
    return next((argument for argument in argv if not argument.startswith("-")), None)


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    """Make a parser with the arguments of the chosen command alone.

    Of the others, whose modules are not imported, it has the summaries.
    """
    parser = argparse.ArgumentParser(
        prog="glai", description="GreenLightningAI: frozen activation patterns, linear path weights."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and leave")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        if name == chosen:
            importlib.metadata.EntryPoint(name, command.added_by, GROUP).load()(subparsers)
        else:
            subparsers.add_parser(name, help=command.summary)
    if chosen not in COMMANDS:
        _add_further(subparsers)
    return parser


def _add_further(subparsers: object) -> None:
    """Add the commands of other packages; one that is broken is named, and left out."""
    for point in importlib.metadata.entry_points(group=GROUP):
        try:
            point.load()(subparsers)
        except Exception as error:  # another package's, of any type
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            print(
                f"glai: the command '{point.name}' is left out, {point.value} failed ({reason}): "
                "reinstall or remove its package",
                file=sys.stderr,
            )


class _Version(argparse.Action):
    """Looked up when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"glai_native {importlib.metadata.version('glai-native')}")
        parser.exit()
