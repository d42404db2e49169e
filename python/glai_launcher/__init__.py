"""The program ``glai`` is here, from its first line to its last: an interrupt is one sentence, whenever it comes.

It is a package of its own, which imports nothing before it hears interrupts: what a command needs takes seconds to
import, in which Python would answer an interrupt with a traceback from somewhere inside, or lose it.
"""

import os
import signal
from collections.abc import Callable
from types import FrameType


def main() -> int:
    """Import the command line and run it; return its exit status (130: interrupted)."""
    _on_interrupt(_leave)
    from glai_native.cli.main import parse, run

    arguments = parse()
    _load()
    try:
        _on_interrupt(signal.default_int_handler)
        return run(arguments)
    except KeyboardInterrupt:  # before the command was known
        return _leave()
    finally:
        _on_interrupt(_leave)  # Python takes a while to exit


def _load() -> None:
    """Import what commands use."""
    import glai_native

    for name in glai_native.__all__:
        getattr(glai_native, name)


def _on_interrupt(handler: Callable[[int, FrameType | None], object]) -> None:
    if (
        signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    ):  # as in a job that a script put into the background
        signal.signal(signal.SIGINT, handler)


def _leave(number: int = signal.SIGINT, frame: FrameType | None = None) -> int:
    # No exception: an import that is under way may turn it into another one, or into none.
    os.write(2, b"glai: interrupted\n")
    os._exit(128 + number)
