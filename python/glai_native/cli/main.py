"""The command line: ``glai COMMAND``, as :mod:`glai_native.cli.commands` lists them."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Sequence

from glai_native.cli.commands import COMMANDS, all_commands

# What commands raise where their input is at fault; anything else is our defect, and shows its traceback.
REFUSALS = (ValueError, TypeError, OSError, RuntimeError, MemoryError, ImportError, FloatingPointError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status (2: bad input, one sentence on standard error)."""
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
    """The command that the arguments name, where they name one."""
    return next((argument for argument in argv if not argument.startswith("-")), None)


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    """With the arguments of the chosen command alone; of the others, whose modules are not imported, the summaries."""
    parser = argparse.ArgumentParser(
        prog="glai", description="GreenLightningAI: frozen activation patterns, linear path weights."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and leave")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, entry in all_commands().items():
        if name != chosen and name in COMMANDS:
            subparsers.add_parser(name, help=COMMANDS[name].summary)
            continue
        try:
            entry.load()(subparsers)
        except (ImportError, AttributeError) as error:
            if name in COMMANDS:
                raise
            reason = f"cannot be loaded from {entry.value} ({error})"
            subparsers.add_parser(name, help=reason).set_defaults(run=_refusal(reason))
    return parser


def _refusal(reason: str) -> object:
    def run(arguments: argparse.Namespace) -> int:
        raise ValueError(reason)

    return run


class _Version(argparse.Action):
    """Looked up when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"glai_native {importlib.metadata.version('glai-native')}")
        parser.exit()
