"""What must not be left half done is done here without a signal's exception falling into it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Those whose handlers raise in practice: the keyboard's interrupt, a time limit's alarm, a service manager's end.
HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold signals that come within back until the end; keep such a block short, and free of waiting.

    Python runs handlers in the main thread alone: in others, and of signals without a handler of Python's, nothing is
    held.
    """
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in HELD}
        handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    held: dict[int, tuple[Any, ...]] = {}
    try:
        for number in handlers:
            signal.signal(number, lambda *arguments: held.update({arguments[0]: arguments}))
        yield
    finally:
        _release(handlers, held)


def _release(handlers: dict[int, Any], held: dict[int, tuple[Any, ...]]) -> None:
    """Give all signals their handlers back, and run those of the held ones, each whatever another raises."""
    try:
        while handlers:
            number, handler = handlers.popitem()
            signal.signal(number, handler)
            if number in held:
                handler(*held.pop(number))
    finally:
        if handlers:
            _release(handlers, held)
