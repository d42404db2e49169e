"""The command line is ``glai COMMAND``, with the commands that :mod:`glai_native.cli.commands` lists."""

from __future__ import annotations

import argparse
import difflib
import importlib
import importlib.metadata
import io
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from glai_native.cli.arguments import by_option
from glai_native.cli.commands import COMMANDS, GROUP

# What commands raise where their input is at fault; anything else is our defect, and shows its traceback.
REFUSALS = (ValueError, TypeError, OSError, RuntimeError, MemoryError, ImportError, FloatingPointError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status (2: bad input, one sentence on standard error)."""
    return run(parse(argv))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the arguments of the program; it ends here where they are wrong, or ask for help or the version.

    Without any, it shows its help on standard error, and ends as where they are wrong.
    """
    _print_anything()
    argv = sys.argv[1:] if argv is None else argv
    parser = _parser(argv)
    if not argv:
        parser.print_help(sys.stderr)
        parser.exit(2)
    try:
        return parser.parse_args(argv)
    except SystemExit:
        try:
            _flush()
        except BrokenPipeError:
            _say_no_more()
        raise


def run(arguments: argparse.Namespace) -> int:
    """Run the command of :func:`parse`; return the exit status (2: bad input, one sentence on standard error)."""
    _print_anything()
    try:
        code = int(arguments.run(arguments))
        _flush()
        return code
    except BrokenPipeError:
        _say_no_more()
        return 1
    except REFUSALS as error:
        sentence, named = (str(error) or type(error).__name__).splitlines()[0], _named(arguments)
        if arguments.command not in named:
            sentence = sentence.removeprefix(f"{arguments.command}: ")
        if isinstance(error, OSError) and error.strerror:
            sentence = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
        print(f"glai {arguments.command}: {by_option(sentence, named)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"glai {arguments.command}: interrupted", file=sys.stderr)
        return 130


def _named(arguments: argparse.Namespace) -> list[str]:
    """Return the files and folders that the command line names."""
    values = [
        one for value in vars(arguments).values() for one in (value if isinstance(value, list) else [value])
    ]
    return [str(one) for one in values if isinstance(one, Path)]


def _say_no_more() -> None:
    """Let who reads our output, and has had enough, in peace: nor may Python complain when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_anything() -> None:
    """Let streams escape what their encoding lacks: it must not end a command that has done its work."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flush() -> None:
    if sys.stdout is not None:  # None: who started us has closed it
        sys.stdout.flush()


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """Make a parser with the arguments of the command that ``argv`` names.

    Of the others, whose modules are not imported, it has the summaries.
    """
    parser = argparse.ArgumentParser(
        prog="glai", description="GreenLightningAI: frozen activation patterns, linear path weights."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show program's version number and exit")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    named = next((argument for argument in argv if not argument.startswith("-")), None)
    for name, command in COMMANDS.items():
        if name == named:
            importlib.metadata.EntryPoint(name, command.added_by, GROUP).load()(subparsers)
        else:
            subparsers.add_parser(name, help=command.summary)
    if not argv or argv[0] not in COMMANDS:
        _add_further(subparsers)
    if named is not None and named == argv[0] and named not in subparsers.choices:
        parser.error(f"argument COMMAND: invalid choice: {named!r}{_meant(named, subparsers.choices)}")
    return parser


def _meant(named: str, commands: Iterable[str]) -> str:
    """Say which command may have been meant, or which there are."""
    close = difflib.get_close_matches(named, [*commands, "--help", "--version"], n=1)
    return f", did you mean {close[0]!r}?" if close else f" (choose from {', '.join(map(repr, commands))})"


def _add_further(subparsers: object) -> None:
    """Add the commands of other packages; one that is broken is named, and left out."""
    for point in importlib.metadata.entry_points(group=GROUP):
        trial = argparse.ArgumentParser()
        try:
            add = point.load()
            add(trial.add_subparsers())  # a failure must not leave half a command
            trial.format_help()
        except (Exception, SystemExit) as error:  # another package's, of any type
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            print(
                f"glai: the command '{point.name}' is left out, {point.value} failed ({reason}): "
                "reinstall or remove its package",
                file=sys.stderr,
            )
        else:
            add(subparsers)


class _Version(argparse.Action):
    """The version of the installed package, looked up when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        try:
            version = importlib.metadata.version("glai-native")
        except importlib.metadata.PackageNotFoundError:  # run from its sources
            version = importlib.import_module("glai_native.machine.backend").build_info()["version"]
        print(f"glai_native {version}")
        parser.exit()
